"""What a training run is made of, as one YAML file: stage, network, data, losses, optimiser, machine.

The named ones are in models/training/: the paper's three stages (sections III-B, III-C and IV-A) at its size and at one
that a laptop trains.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from depthvla_policy.model.config import from_dict
from depthvla_policy.model.layouts import PARTS
from depthvla_policy.policy.made_for import MADE_FOR
from r1lite_description import files

STAGES = ("depth-pretrain", "policy-pretrain", "fine-tune")
PRECISIONS = ("float32", "bfloat16")
LORA_TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
DEPTH_EXPERT = ("depth_encoder", "depth_decoder")


@dataclass(frozen=True)
class DataConfig:
    """What is trained on."""

    folders: tuple[str, ...] = ()
    """LeRobot datasets of demonstrations; for depth-pretrain the roots of RGB-D datasets"""
    layouts: tuple[str, ...] = ()
    """depth-pretrain: of each folder, one of wildrgbd, scannet, scannetpp, hypersim, or lerobot for demonstrations"""
    weights: tuple[float, ...] = ()
    """of each folder in the mixture, frames drawn with replacement; left out, every frame comes once an epoch"""
    held_out: float = 0.05
    """share of the episodes (depth-pretrain: scenes) of every folder kept for validation"""
    limit_episodes: int | None = None
    """use only so many of every folder"""
    in_memory: bool = False
    """decode every picture of demonstrations once and keep it, for small datasets"""
    source: str | None = None
    """what the demonstrations of a dataset are of that does not say so itself: simulation or real. It becomes made_for
    in the checkpoint's config.json"""
    vocabulary: str | None = None
    """file with a sentence a line: what a network from nothing is to have words for, beside what its data says"""


@dataclass(frozen=True)
class LossConfig:
    """What is minimised: the flow loss, and beside it."""

    depth_weight: float | None = None
    """of SI-log; left out, the network's own depth.loss_weight, and nothing where the depth expert is frozen"""
    grounding_weight: float = 0.0
    """of looking, in one attention head of the VLM, from the text at the patch of the first camera that holds the named
    object: it teaches a small VLM, which knows no words yet, to find what the text names"""
    draws: int = 1
    """noise and time draws per observation, on one prefix"""
    max_delay: int = 0
    """most steps of a chunk that enter clean and are left out of the loss, for real-time chunking by training"""
    detach_prefix: bool = False
    """keep the flow loss away from VLM, depth expert and state"""
    vary_colours: bool = True
    """contrast, brightness and colour balance of every image, at random"""


@dataclass(frozen=True)
class OptimiserConfig:
    """AdamW on a cosine with warm-up."""

    learning_rate: float = 2.5e-5
    final_learning_rate: float = 2.5e-6
    """at the end of the cosine"""
    warmup_steps: int = 1000
    beta2: float = 0.95
    weight_decay: float = 1e-4
    """of matrices; vectors have none"""
    clip_norm: float = 1.0
    ema_decay: float = 0.999
    """of the averaged weights, which are the ones that are saved; 0 saves the weights as they are, and memory"""


@dataclass(frozen=True)
class LoraConfig:
    """Low-rank adapters in the mixture (Hu et al. 2021): nothing else is trained, and they are merged on saving."""

    rank: int = 0
    """0 trains the weights themselves"""
    alpha: float = 16.0
    """the adapters' product counts alpha / rank times"""
    targets: tuple[str, ...] = LORA_TARGETS


@dataclass(frozen=True)
class MachineConfig:
    """How it runs; the losses are the same whatever stands here, but for rounding."""

    precision: str = "float32"
    """of the computation; weights and optimiser are float32 always"""
    recompute: bool = False
    """gradient checkpointing of every transformer layer: a third more work for a fraction of the memory"""
    accumulate: int = 1
    """batches that one step is split into, one after another"""
    workers: int = 0
    """processes that read and decode, for each training process; 0 reads in the training process"""
    threads: int = 1
    """of torch on a CPU, in each process; more than one collapses when the cores are shared"""
    log_every: int = 50
    """steps between two lines of the log"""
    validate_every: int = 500
    save_every: int = 500
    """steps between two training states, each with a checkpoint of the averaged weights beside it"""


@dataclass(frozen=True)
class TrainConfig:
    """One training run."""

    stage: str
    """depth-pretrain, policy-pretrain or fine-tune"""
    model: str
    """dimensions of the network: a file, or the name of one in models/configs"""
    out: str
    """checkpoint folder to write; its name becomes the policy's"""
    steps: int
    """optimiser steps"""
    batch_size: int
    """observations per step, over all processes and accumulated batches"""
    init: str | None = None
    """checkpoint to start from; its tokenizer is kept, and its statistics where it has any"""
    freeze: tuple[str, ...] = ()
    """parts that are not trained: vlm, action, depth_encoder, depth_decoder"""
    seed: int = 0
    resume: bool = False
    """go on from the newest training state in `out`"""
    data: DataConfig = DataConfig()
    loss: LossConfig = LossConfig()
    optimiser: OptimiserConfig = OptimiserConfig()
    lora: LoraConfig = LoraConfig()
    machine: MachineConfig = MachineConfig()

    def __post_init__(self) -> None:
        _one_of("stage", self.stage, STAGES)
        _one_of("machine.precision", self.machine.precision, PRECISIONS)
        if self.data.source is not None:
            _one_of("data.source", self.data.source, MADE_FOR)
        for name in self.freeze:
            _one_of("freeze", name, tuple(PARTS))
        for name in self.lora.targets:
            _one_of("lora.targets", name, LORA_TARGETS)
        o, m = self.optimiser, self.machine
        _at_least(1, steps=self.steps, batch_size=self.batch_size)
        _at_least(1, **{f"machine.{name}": getattr(m, name) for name in ("accumulate", "threads")})
        _at_least(1, **{f"machine.{name}": getattr(m, name) for name in ("log_every", "validate_every", "save_every")})
        _at_least(1, **{"loss.draws": self.loss.draws})
        _at_least(0, seed=self.seed, **{"machine.workers": m.workers, "lora.rank": self.lora.rank})
        _at_least(0, **{"loss.max_delay": self.loss.max_delay, "loss.grounding_weight": self.loss.grounding_weight})
        _at_least(0, **{"loss.depth_weight": self.loss.depth_weight or 0.0, "optimiser.warmup_steps": o.warmup_steps})
        _at_least(0, **{f"optimiser.{name}": getattr(o, name) for name in ("weight_decay", "final_learning_rate")})
        for name, value in (("learning_rate", o.learning_rate), ("clip_norm", o.clip_norm)):
            if not 0.0 < value < math.inf:
                raise ValueError(f"optimiser.{name} is {value}; it must be above 0")
        for name, value in (("optimiser.ema_decay", o.ema_decay), ("data.held_out", self.data.held_out)):
            if not 0.0 <= value < 1.0:
                raise ValueError(f"{name} is {value}; allowed: 0 up to, not including, 1")
        if self.batch_size % m.accumulate:
            raise ValueError(f"batch_size {self.batch_size} does not divide into machine.accumulate {m.accumulate}")
        if m.save_every % m.log_every:
            raise ValueError(f"machine.save_every {m.save_every} is not a multiple of machine.log_every {m.log_every}")
        self._check_data()
        if self.stage == "depth-pretrain":
            self._check_depth_stage()

    def _check_data(self) -> None:
        data = self.data
        for name in ("layouts", "weights"):
            values = getattr(data, name)
            if values and len(values) != len(data.folders):
                raise ValueError(f"data.{name} has {len(values)} entries for {len(data.folders)} folders")
        if not all(isinstance(weight, (int, float)) and 0 < weight < math.inf for weight in data.weights):
            raise ValueError(f"data.weights are {data.weights}; each must be above 0")
        if self.stage == "depth-pretrain":
            if len(data.layouts) != len(data.folders):
                raise ValueError("depth-pretrain needs data.layouts, one for each of data.folders")
        elif data.layouts:
            raise ValueError(f"data.layouts are for depth-pretrain; {self.stage} reads demonstrations")

    def _check_depth_stage(self) -> None:
        alone = {"draws": 1, "max_delay": 0, "grounding_weight": 0.0, "detach_prefix": False, "depth_weight": None}
        for name, value in alone.items():
            if getattr(self.loss, name) != value:
                raise ValueError(
                    f"loss.{name} is {getattr(self.loss, name)}; depth-pretrain has no loss but SI-log: leave it out"
                )
        if self.lora.rank:
            raise ValueError(f"lora.rank is {self.lora.rank}; depth-pretrain trains the weights themselves: allowed: 0")
        for name in self.freeze:
            _one_of("freeze in depth-pretrain", name, DEPTH_EXPERT)


def read(name: str) -> TrainConfig:
    """Read a YAML file, or the one of that name in models/training.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a key or value is wrong; the message names file, key, value and what is allowed.
    """
    path = find(name, "training", ".yaml")
    values = files.read_yaml(path, "settings of a training")
    try:
        return from_dict(TrainConfig, values)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def find(name: str, folder: str, suffix: str) -> Path:
    """The file `name`, or the one of that name in the repository's models/`folder`.

    Raises:
        FileNotFoundError: there is neither; the message lists the names that there are.
    """
    folders = [models / folder for models in files.models_folders()]
    for path in (Path(name), *(parent / (name + suffix) for parent in folders)):
        if path.is_file():
            return path
    names = sorted({path.stem for parent in folders for path in parent.glob("*" + suffix)})
    raise FileNotFoundError(f"{name!r} is no file and no name in models/{folder}; allowed: {', '.join(names)}")


def _one_of(name: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise ValueError(f"{name} is {value!r}; allowed: {', '.join(allowed)}")


def _at_least(least: int, **values: float) -> None:
    for name, value in values.items():
        if not least <= value < math.inf:
            raise ValueError(f"{name} is {value}; it must be {least} or more")
