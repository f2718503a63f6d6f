"""What a stage trains: network, data and losses out of a run's settings, and how its outcome is saved."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from depthvla_policy.data.demonstrations import Demonstrations, split
from depthvla_policy.data.rgbd.images import DemonstrationImages, open_source, split_scenes
from depthvla_policy.model.config import ModelConfig
from depthvla_policy.model.depthvla import DEPTH_PARTS, DepthVLA
from depthvla_policy.model.layouts import PARTS
from depthvla_policy.policy import checkpoint
from depthvla_policy.policy.checkpoint import CheckpointConfig, PolicyConfig
from depthvla_policy.policy.images import ImageFit
from depthvla_policy.policy.normalise import Normaliser
from depthvla_policy.policy.prompt import Prompt, train_tokenizer
from depthvla_policy.training import lora, parameters
from depthvla_policy.training.batch import Collate, collate_rgbd
from depthvla_policy.training.config import TrainConfig
from depthvla_policy.training.data import TrainData
from depthvla_policy.training.grounding import Grounding
from depthvla_policy.training.objective import DepthObjective, PolicyObjective, depth_only
from r1lite_description import files
from r1lite_description import robot as robot_description
from r1lite_description.robot import Robot

LEROBOT = "lerobot"  # the layout of demonstrations, whose pictures have depth too


@dataclass(frozen=True)
class Stage:
    """c: dimensions of the network in `objective`. save(weights): writes `objective`'s as what the stage is for."""

    objective: nn.Module
    c: ModelConfig
    data: TrainData
    save: Callable[[dict[str, Tensor]], None]


def open_stage(config: TrainConfig, c: ModelConfig) -> Stage:
    """Read the data and build or load the network.

    Raises:
        FileNotFoundError: a dataset or checkpoint does not exist.
        ValueError: data, network and settings do not fit one another; the message names what and what is allowed.
    """
    if not config.data.folders:
        raise ValueError("data.folders is empty; it needs a dataset")
    return _depth_stage(config, c) if config.stage == "depth-pretrain" else _policy_stage(config, c)


def policy_objective(model: DepthVLA, config: TrainConfig, used: Tensor, *, has_targets: bool) -> PolicyObjective:
    """The losses over `model`, its adapters in place and its trained parameters marked.

    has_targets: whether the named object's place in the first camera is known anywhere.

    Raises:
        ValueError: the loss is not possible for that network or without targets.
    """
    c, loss = model.config, config.loss
    if loss.max_delay >= c.horizon:
        raise ValueError(f"loss.max_delay is {loss.max_delay}; allowed: 0 to {c.horizon - 1}")
    if config.lora.rank:
        lora.adapt(model.mixture, config.lora)
    parameters.choose(model, config, c)
    if config.machine.recompute:
        _recompute(model)
    weight, grounding = parameters.depth_weight(config, c), None
    if loss.grounding_weight > 0:
        if not has_targets:
            raise ValueError(f"loss.grounding_weight is {loss.grounding_weight} and no frame has a target; allowed: 0")
        grounding = Grounding(model)
    return PolicyObjective(model, loss, used, weight, grounding)


def depth_objective(model: DepthVLA, config: TrainConfig) -> DepthObjective:
    """As `policy_objective`, for a network of `depth_only` dimensions."""
    parameters.choose(model, config, model.config)
    if config.machine.recompute:
        _recompute(model)
    return DepthObjective(model)


def _policy_stage(config: TrainConfig, c: ModelConfig) -> Stage:
    robot, out, depth_size = robot_description.load(), Path(config.out), _depth_size(config, c)
    parts = [_demonstrations(folder, config, c, robot, depth_size) for folder in config.data.folders]
    if depth_size and not any(part.has_depth for part in parts):
        raise ValueError(
            f"no dataset of {', '.join(config.data.folders)} has depth, which the network or its loss needs;"
            " without it: loss.depth_weight 0, or freeze depth_encoder and depth_decoder"
        )
    settings = CheckpointConfig(out.name, c, _wiring(parts, config, robot))
    train, held_out = zip(*(split(part, config.data.held_out) for part in parts), strict=True)
    instructions = list(dict.fromkeys(text for part in parts for text in part.instructions))
    model, prompt = _start(config, c, instructions)
    stats = _statistics(config, train, robot, c.horizon)
    used = torch.arange(c.action_dim) < robot.size
    has_targets = any(np.isfinite(part.targets_px()).any() for part in train)

    def save(weights: dict[str, Tensor]) -> None:
        checkpoint.write(out, settings, _of_model(weights, config), stats, prompt.tokenizer)

    return Stage(
        policy_objective(model, config, used, has_targets=has_targets),
        c,
        TrainData(train, held_out, Collate(stats, prompt, instructions, c, depth_size)),
        save,
    )


def _wiring(parts: list[Demonstrations], config: TrainConfig, robot: Robot) -> PolicyConfig:
    rectified = {name for part in parts for name in part.rectified}
    sources = {source or config.data.source for part in parts for source in part.sources} - {None}
    return PolicyConfig.of(robot, tuple(sorted(rectified)), tuple(sorted(sources)))


def _start(config: TrainConfig, c: ModelConfig, instructions: list[str]) -> tuple[DepthVLA, Prompt]:
    """Network and tokenizer of the checkpoint that training starts from, or new ones."""
    if config.init:
        start = Path(config.init)
        fresh = DEPTH_PARTS if c.depth and c.depth.start == "random" else ()
        model = checkpoint.load_model(start, c, "cpu", torch.float32, fresh=fresh)
        return model, Prompt.load(start / checkpoint.TOKENIZER, c.max_text_tokens)
    model = DepthVLA(c)
    known = _lines(Path(config.data.vocabulary)) if config.data.vocabulary else []
    return model, Prompt(train_tokenizer([*instructions, *known], c.vocab_size), c.max_text_tokens)


def _depth_stage(config: TrainConfig, c: ModelConfig) -> Stage:
    alone, out, data = depth_only(c), Path(config.out), config.data
    parts = [_depth_images(layout, root, config, c) for layout, root in zip(data.layouts, data.folders, strict=True)]
    train, held_out = zip(*parts, strict=True)
    if config.init:
        others = (*PARTS["vlm"], *PARTS["action"])
        model = checkpoint.load_model(Path(config.init), alone, "cpu", torch.float32, fresh=others)
    else:
        model = DepthVLA(alone)
    objective = depth_objective(model, config)

    def save(weights: dict[str, Tensor]) -> None:
        expert = {name: tensor for name, tensor in _of_model(weights, config).items() if name.startswith(DEPTH_PARTS)}
        checkpoint.write_weights(out, expert)

    return Stage(objective, alone, TrainData(train, held_out, collate_rgbd), save)


def _depth_images(layout: str, root: str, config: TrainConfig, c: ModelConfig) -> tuple[Dataset, Dataset]:
    """RGB-D images to train on and those held out."""
    data = config.data
    if layout == LEROBOT:
        found = _demonstrations(root, config, c, robot_description.load(), c.depth_size)
        train, held_out = (DemonstrationImages(part, c.cameras) for part in split(found, data.held_out))
        return train, held_out
    fit = ImageFit(c.image_size, c.image_fit)
    return split_scenes(open_source(layout, Path(root)), fit, c.depth_size, data.held_out, data.limit_episodes)


def _demonstrations(folder: str, config: TrainConfig, c: ModelConfig, robot: Robot, depth_size: int) -> Demonstrations:
    found = Demonstrations(
        [Path(folder)],
        robot,
        [camera.name for camera in robot.cameras],
        fit=ImageFit(c.image_size, c.image_fit),
        depth_size=depth_size,
        horizon=c.horizon,
        in_memory=config.data.in_memory,
    )
    limit = config.data.limit_episodes
    return found if limit is None else found.subset(range(min(limit, len(found.lengths))))


def _lines(path: Path) -> list[str]:
    with files.reading(path, "text, a sentence a line"):
        return path.read_text(encoding="utf-8").splitlines()


def _depth_size(config: TrainConfig, c: ModelConfig) -> int:
    """Of the depth maps that the network sees or is to predict; 0 when there is no need of them."""
    if c.takes_depth:
        return c.image_size
    return c.depth_size if parameters.depth_weight(config, c) > 0 else 0


def _statistics(config: TrainConfig, train: tuple[Demonstrations, ...], robot: Robot, horizon: int) -> Normaliser:
    """Those of the checkpoint that training starts from where it has any, else of the demonstrations."""
    if config.init and (known := Path(config.init) / checkpoint.STATS).exists():
        return Normaliser.load(known, horizon=horizon, size=robot.size)
    states = np.concatenate([part.states() for part in train])
    return Normaliser.fit(states, np.concatenate([part.chunks() for part in train]), robot.gripper_mask)


def _of_model(weights: dict[str, Tensor], config: TrainConfig) -> dict[str, Tensor]:
    """The network's own weights among those of an objective, adapters merged."""
    prefix = "model."
    own = {name.removeprefix(prefix): tensor for name, tensor in weights.items() if name.startswith(prefix)}
    return {name: tensor.contiguous() for name, tensor in lora.merge(own, config.lora).items()}


def _recompute(model: DepthVLA) -> None:
    """Run layers again for the gradient in place of keeping what they computed."""
    model.mixture.recompute = True
    for encoder in (model.vision, model.depth_encoder) if model.config.depth else (model.vision,):
        encoder.tower.activation_checkpointing_enable({"use_reentrant": False})
