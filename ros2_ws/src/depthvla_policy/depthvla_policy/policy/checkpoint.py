"""A checkpoint is a folder: `config.json`, `model.safetensors`, `norm_stats.json`, `tokenizer.json`."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from torch import Tensor

from depthvla_policy.model.config import ModelConfig, read_json
from depthvla_policy.model.depthvla import DepthVLA
from depthvla_policy.policy import made_for
from depthvla_policy.policy.normalise import Normaliser
from r1lite_description import files
from r1lite_description.robot import Robot

CONFIG, WEIGHTS, STATS, TOKENIZER = "config.json", "model.safetensors", "norm_stats.json", "tokenizer.json"
WANTED = "the weights of a checkpoint (safetensors)"


@dataclass(frozen=True)
class PolicyConfig:
    """How a network is wired to a robot.

    cameras: names in the order of the network's images. joints: names in the order of the state and action vectors.
    control_rate_hz: rate of the chunk's steps. rectified: the cameras whose images were undistorted in the training.
    made_for: what its demonstrations were of, "simulation", "real" or both; empty where nobody said.
    """

    robot: str
    cameras: tuple[str, ...]
    joints: tuple[str, ...]
    control_rate_hz: float
    rectified: tuple[str, ...] = ()
    made_for: tuple[str, ...] = ()

    @classmethod
    def of(cls, robot: Robot, rectified: tuple[str, ...] = (), made_for: tuple[str, ...] = ()) -> PolicyConfig:
        cameras = tuple(camera.name for camera in robot.cameras)
        return cls(robot.name, cameras, robot.joint_names, robot.control_rate_hz, rectified, made_for)


@dataclass(frozen=True)
class CheckpointConfig:
    """Contents of `config.json`."""

    name: str
    model: ModelConfig
    policy: PolicyConfig

    def __post_init__(self) -> None:
        if len(self.policy.cameras) != self.model.cameras:
            raise ValueError(f"policy.cameras are {self.policy.cameras}; the model takes {self.model.cameras}")
        unknown = sorted(set(self.policy.rectified) - set(self.policy.cameras))
        if unknown:
            raise ValueError(f"policy.rectified names {unknown}; allowed: {', '.join(self.policy.cameras)}")
        made_for.check(self.policy.made_for)
        for name in ("state_dim", "action_dim"):
            if getattr(self.model, name) < len(self.policy.joints):
                raise ValueError(
                    f"model.{name} is {getattr(self.model, name)}; the robot has {len(self.policy.joints)} joints"
                )

    @classmethod
    def read(cls, folder: Path) -> CheckpointConfig:
        """Read the `config.json` of a folder.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: a key or value is wrong; the message names file, key, value and what is allowed.
        """
        return read_json(folder / CONFIG, cls)


def save(folder: Path, config: CheckpointConfig, model: DepthVLA, stats: Normaliser, tokenizer: Tokenizer) -> None:
    """Write a whole checkpoint folder."""
    weights = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    write(folder, config, weights, stats, tokenizer)


def write(
    folder: Path,
    config: CheckpointConfig,
    weights: dict[str, Tensor],
    stats: Normaliser | None,
    tokenizer: Tokenizer | None,
) -> None:
    """Write a checkpoint folder; the weights last, so that a folder with weights is as whole as it will be.

    Without `stats` or `tokenizer` that file is left out: such a folder is a start for training, and does not run.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / CONFIG).write_text(json.dumps(dataclasses.asdict(config), indent=2) + "\n")
    if stats:
        stats.save(folder / STATS)
    if tokenizer:
        tokenizer.save(str(folder / TOKENIZER))
    partial = folder / (WEIGHTS + ".part")
    save_file(weights, partial, metadata={"format": "pt"})
    partial.rename(folder / WEIGHTS)


def check_free(folder: Path) -> None:
    """Raises ValueError where the folder holds a checkpoint already."""
    if (folder / WEIGHTS).exists():
        raise ValueError(f"{folder} holds a checkpoint already; give another --out")


def weights_path(folder: Path) -> Path:
    """The weights of a checkpoint folder. Raises as `files.check`."""
    path = folder / WEIGHTS
    files.check(path, WANTED)
    return path


def load_model(
    folder: Path, config: ModelConfig, device: str, dtype: torch.dtype, *, fresh: tuple[str, ...] = ()
) -> DepthVLA:
    """Build the network on the weights of `model.safetensors`, which stay memory-mapped where device and dtype allow.

    fresh: beginnings of names; those parameters keep a random start, whatever the file holds.

    Raises:
        FileNotFoundError: there are no weights.
        ValueError: the file cannot be read, or a tensor is missing, unknown, of the wrong shape or no floating-point
            one; the message names it.
    """
    path = weights_path(folder)
    with files.reading(path, WANTED):
        loaded = load_file(path)
    if fresh:
        model = DepthVLA(config)
    else:
        with torch.device("meta"):
            model = DepthVLA(config)
    wanted = {name: tensor for name, tensor in model.state_dict().items() if not name.startswith(fresh)}
    weights = {name: tensor for name, tensor in loaded.items() if not name.startswith(fresh)}
    missing, unknown = sorted(set(wanted) - set(weights)), sorted(set(weights) - set(wanted))
    if missing or unknown:
        raise ValueError(
            f"{path} does not fit {CONFIG}: {len(missing)} tensors missing (first: {missing[:3]}),"
            f" {len(unknown)} unknown (first: {unknown[:3]})"
        )
    for name, tensor in weights.items():
        if tensor.shape != wanted[name].shape:
            raise ValueError(
                f"{path}: {name} has shape {tuple(tensor.shape)}; {CONFIG} says {tuple(wanted[name].shape)}"
            )
        if not tensor.is_floating_point():
            raise ValueError(f"{path}: {name} holds {tensor.dtype}; wanted: floating-point numbers")
    model.load_state_dict(weights, strict=False, assign=True)
    model.vision.restore_buffers()
    return model.to(device=device, dtype=dtype).eval()


def digest(folder: Path) -> str:
    """First 12 hex digits of the SHA-256 of the weights."""
    state = hashlib.sha256()
    with open(folder / WEIGHTS, "rb") as file:
        while block := file.read(1 << 20):
            state.update(block)
    return state.hexdigest()[:12]
