"""The tensors that no source brings, as a new network has them, with never more than a part of it in memory."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import torch
from torch import Tensor

from depthvla_policy.model import layouts
from depthvla_policy.model.config import EncoderConfig, ExpertConfig, ModelConfig
from depthvla_policy.model.depthvla import DepthVLA
from depthvla_policy.model.layouts import PARTS


def initialised(config: ModelConfig, names: list[str], seed: int, dtype: torch.dtype) -> Iterator[tuple[str, Tensor]]:
    """The tensors `names` of a new network, a part at a time."""
    for part in PARTS:
        if part_names := [name for name in names if layouts.part_of(name) == part]:
            tensors = _new(_only(config, part), seed, dtype).state_dict()
            yield from ((name, tensors.pop(name)) for name in part_names)


def _new(config: ModelConfig, seed: int, dtype: torch.dtype) -> DepthVLA:
    # The constructor itself makes `dtype`: a VLM that is float32 at first takes 11.7 GB on its way to 5.9 GB.
    default = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return DepthVLA(config)
    finally:
        torch.set_default_dtype(default)


def _only(config: ModelConfig, part: str) -> ModelConfig:
    """`config` with every other part shrunk to almost nothing, so that the network's own constructor makes `part`."""
    dot, point = ExpertConfig(width=2, mlp=1), EncoderConfig(width=1, layers=1, heads=1, mlp=1)
    changes: dict[str, object] = {}
    if part != "vlm":
        changes |= {"vlm": dot, "vision": point, "vocab_size": 1}
    if part != "action":
        changes |= {"action": dot}
    if part == "depth_encoder":
        width = config.depth.encoder.width
        changes |= {"depth": dataclasses.replace(config.depth, expert=ExpertConfig(width, mlp=1), head_pixels=1)}
    elif part == "depth_decoder":
        width = config.depth.expert.width
        changes |= {"depth": dataclasses.replace(config.depth, encoder=EncoderConfig(width, 1, 1, width))}
    else:
        changes |= {"depth": None}
    return dataclasses.replace(config, **changes)
