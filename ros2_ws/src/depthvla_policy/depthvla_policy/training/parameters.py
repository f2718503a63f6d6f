"""Which parameters a run trains: those that are not frozen and that a loss reaches.

The others get no gradient, so they need neither optimiser state nor averaging, and several processes need not look for
them at every step.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from torch import nn

from depthvla_policy.model.config import ModelConfig
from depthvla_policy.model.layouts import part_of
from depthvla_policy.training.config import DEPTH_EXPERT, TrainConfig
from depthvla_policy.training.grounding import grounded_layer

KEYS_VALUES = (".self_attn.k_proj.", ".self_attn.v_proj.", ".input_layernorm.")
VALUES = (".self_attn.v_proj.", ".input_layernorm.")


def frozen_parts(config: TrainConfig, c: ModelConfig) -> frozenset[str]:
    """The parts of `layouts.PARTS` that are not trained, by the run's own word or by the network's."""
    by_network = DEPTH_EXPERT if c.depth and c.depth.frozen else ()
    return frozenset((*config.freeze, *by_network))


def depth_weight(config: TrainConfig, c: ModelConfig) -> float:
    """Of SI-log in the loss: 0 where there is no depth head or the depth expert is frozen."""
    if not (c.depth and c.depth.predicts) or frozen_parts(config, c).issuperset(DEPTH_EXPERT):
        return 0.0
    return c.depth.loss_weight if config.loss.depth_weight is None else config.loss.depth_weight


def choose(model: nn.Module, config: TrainConfig, c: ModelConfig) -> list[str]:
    """Mark the parameters of a `DepthVLA` that are trained, and return their names.

    Raises:
        ValueError: nothing is left to train.
    """
    frozen = frozen_parts(config, c)
    depth = config.stage == "depth-pretrain" or depth_weight(config, c) > 0
    flow, grounding = config.stage != "depth-pretrain", config.loss.grounding_weight > 0
    chosen = []
    for name, parameter in model.named_parameters():
        trained = (
            part_of(name) not in frozen
            and _reached(name, c, flow=flow, depth=depth, grounding=grounding, detached=config.loss.detach_prefix)
            and (not config.lora.rank or ".lora_" in name)
        )
        parameter.requires_grad_(trained)
        chosen += [name] if trained else []
    if not chosen:
        raise ValueError(f"nothing is left to train: freeze is {', '.join(sorted(frozen)) or 'empty'}")
    return chosen


def groups(parameters: Iterable[nn.Parameter], weight_decay: float) -> list[dict]:
    """For AdamW: matrices decay, vectors do not."""
    wanted = [parameter for parameter in parameters if parameter.requires_grad]
    return [
        {"params": [p for p in wanted if p.dim() > 1], "weight_decay": weight_decay},
        {"params": [p for p in wanted if p.dim() <= 1], "weight_decay": 0.0},
    ]


def _reached(name: str, c: ModelConfig, *, flow: bool, depth: bool, grounding: bool, detached: bool) -> bool:
    """Whether a loss depends on the parameter."""
    part, joint = part_of(name), c.prefix_attention == "joint"
    if part == "action":
        return flow and not (detached and name.startswith("state_proj."))
    if name.endswith("mask_token"):
        return False  # of DINOv2's own pre-training
    if part != "vlm" and depth:
        return True
    if (flow and not detached) or (joint and depth):
        # Others see keys and values only, so the rest of the last layer has no reader.
        return _reached_through(name, c.layers - 1, KEYS_VALUES)
    if part == "vlm":
        return grounding and _reached_through(name, grounded_layer(c) + 1, VALUES)
    return grounding and joint and _reached_through(name, grounded_layer(c), KEYS_VALUES)


def _reached_through(name: str, layer: int, of_layer: tuple[str, ...]) -> bool:
    """Whether a parameter of a prefix is before that layer, or among `of_layer` in it."""
    if name.startswith("depth_head.") or (name.startswith("mixture.") and ".layers." not in name):
        return False  # behind all layers
    found = re.match(r"mixture\.experts\.\w+\.layers\.(\d+)\.", name)
    at = int(found[1]) if found else -1
    return at < layer or (at == layer and any(key in name for key in of_layer))
