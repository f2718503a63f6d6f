"""What a training run is made of, as one YAML file: stage, network, data, losses, optimiser, machine.

The named ones are in models/training/: the paper's three stages (sections III-B, III-C and IV-A) at its size and at one
that a laptop trains.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, get_args

from pydantic import Field

from depthvla_policy.model.config import NotNegative, fill, settings
from r1lite_description import files

AtLeastOne = Annotated[int, Field(ge=1)]
Count = Annotated[int, Field(ge=0)]
Positive = Annotated[float, Field(gt=0.0, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0.0, lt=1.0)]
LoraTarget = Literal["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
DEPTH_EXPERT = ("depth_encoder", "depth_decoder")


@settings
class DataConfig:
    """What is trained on."""

    folders: tuple[str, ...] = ()
    """LeRobot datasets of demonstrations; for depth-pretrain the roots of RGB-D datasets"""
    layouts: tuple[str, ...] = ()
    """depth-pretrain: of each folder, one of wildrgbd, scannet, scannetpp, hypersim, or lerobot for demonstrations"""
    weights: tuple[Positive, ...] = ()
    """of each folder in the mixture, frames drawn with replacement; left out, every frame comes once an epoch"""
    held_out: Share = 0.05
    """share of the episodes (depth-pretrain: scenes) of every folder kept for validation"""
    limit_episodes: int | None = None
    """use only so many of every folder"""
    in_memory: bool = False
    """decode every picture of demonstrations once and keep it, for small datasets"""
    source: Literal["simulation", "real"] | None = None
    """what the demonstrations of a dataset are of that does not say so itself: simulation or real. It becomes made_for
    in the checkpoint's config.json"""
    vocabulary: str | None = None
    """file with a sentence a line: what a network from nothing is to have words for, beside what its data says"""


@settings
class LossConfig:
    """What is minimised: the flow loss, and beside it."""

    depth_weight: NotNegative | None = None
    """of SI-log; left out, the network's own depth.loss_weight, and nothing where the depth expert is frozen"""
    grounding_weight: NotNegative = 0.0
    """of looking, in one attention head of the VLM, from the text at the patch of the first camera that holds the named
    object: it teaches a small VLM, which knows no words yet, to find what the text names"""
    draws: AtLeastOne = 1
    """noise and time draws per observation, on one prefix"""
    max_delay: Count = 0
    """most steps of a chunk that enter clean and are left out of the loss, for real-time chunking by training"""
    detach_prefix: bool = False
    """keep the flow loss away from VLM, depth expert and state"""
    vary_colours: bool = True
    """contrast, brightness and colour balance of every image, at random"""


@settings
class OptimiserConfig:
    """AdamW on a cosine with warm-up."""

    learning_rate: Positive = 2.5e-5
    final_learning_rate: NotNegative = 2.5e-6
    """at the end of the cosine"""
    warmup_steps: Count = 1000
    beta2: float = 0.95
    weight_decay: NotNegative = 1e-4
    """of matrices; vectors have none"""
    clip_norm: Positive = 1.0
    ema_decay: Share = 0.999
    """of the averaged weights, which are the ones that are saved; 0 saves the weights as they are, and memory"""


@settings
class LoraConfig:
    """Low-rank adapters in the mixture (Hu et al. 2021): nothing else is trained, and they are merged on saving."""

    rank: Count = 0
    """0 trains the weights themselves"""
    alpha: float = 16.0
    """the adapters' product counts alpha / rank times"""
    targets: tuple[LoraTarget, ...] = get_args(LoraTarget)


@settings
class MachineConfig:
    """How it runs; the losses are the same whatever stands here, but for rounding."""

    precision: Literal["float32", "bfloat16"] = "float32"
    """of the computation; weights and optimiser are float32 always"""
    recompute: bool = False
    """gradient checkpointing of every transformer layer: a third more work for a fraction of the memory"""
    accumulate: AtLeastOne = 1
    """batches that one step is split into, one after another"""
    workers: Count = 0
    """processes that read and decode, for each training process; 0 reads in the training process"""
    threads: AtLeastOne = 1
    """of torch on a CPU, in each process; more than one collapses when the cores are shared"""
    log_every: AtLeastOne = 50
    """steps between two lines of the log"""
    validate_every: AtLeastOne = 500
    save_every: AtLeastOne = 500
    """steps between two training states, each with a checkpoint of the averaged weights beside it"""


@settings
class TrainConfig:
    """One training run."""

    stage: Literal["depth-pretrain", "policy-pretrain", "fine-tune"]
    model: str
    """dimensions of the network: a file, or the name of one in models/configs"""
    out: str
    """checkpoint folder to write; its name becomes the policy's"""
    steps: AtLeastOne
    """optimiser steps"""
    batch_size: AtLeastOne
    """observations per step, over all processes and accumulated batches"""
    init: str | None = None
    """checkpoint to start from; its tokenizer is kept, and its statistics where it has any"""
    freeze: tuple[Literal["vlm", "action", "depth_encoder", "depth_decoder"], ...] = ()
    """parts that are not trained"""
    seed: Count = 0
    resume: bool = False
    """go on from the newest training state in `out`"""
    data: DataConfig = DataConfig()
    loss: LossConfig = LossConfig()
    optimiser: OptimiserConfig = OptimiserConfig()
    lora: LoraConfig = LoraConfig()
    machine: MachineConfig = MachineConfig()

    def __post_init__(self) -> None:
        m, data = self.machine, self.data
        if self.batch_size % m.accumulate:
            raise ValueError(f"batch_size {self.batch_size} does not divide into machine.accumulate {m.accumulate}")
        if m.save_every % m.log_every:
            raise ValueError(f"machine.save_every {m.save_every} is not a multiple of machine.log_every {m.log_every}")
        for name in ("layouts", "weights"):
            values = getattr(data, name)
            if values and len(values) != len(data.folders):
                raise ValueError(f"data.{name} has {len(values)} entries for {len(data.folders)} folders")
        if self.stage == "depth-pretrain":
            self._check_depth_stage()
        elif data.layouts:
            raise ValueError(f"data.layouts are for depth-pretrain; {self.stage} reads demonstrations")

    def _check_depth_stage(self) -> None:
        if len(self.data.layouts) != len(self.data.folders):
            raise ValueError("depth-pretrain needs data.layouts, one for each of data.folders")
        for name in ("draws", "max_delay", "grounding_weight", "detach_prefix", "depth_weight"):
            value = getattr(self.loss, name)
            if value != getattr(LossConfig(), name):
                raise ValueError(f"loss.{name} is {value}; depth-pretrain has no loss but SI-log: leave it out")
        if self.lora.rank:
            raise ValueError(f"lora.rank is {self.lora.rank}; depth-pretrain trains the weights themselves: allowed: 0")
        if other := [part for part in self.freeze if part not in DEPTH_EXPERT]:
            raise ValueError(f"freeze in depth-pretrain is {other[0]!r}; allowed: {', '.join(DEPTH_EXPERT)}")


def read(name: str) -> TrainConfig:
    """Read a YAML file, or the one of that name in models/training.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a key or value is wrong; the message names file, key, value and what is allowed.
    """
    path = find(name, "training", ".yaml")
    return fill(path, files.read_yaml(path, "settings of a training"), TrainConfig)


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
