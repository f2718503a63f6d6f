"""The losses of a training stage as one module, so that several processes can be wrapped around its `forward`.

Flow matching and SI-log together (paper section III-C), or SI-log alone for the depth expert (III-B). The prefix of an
observation is computed once and serves several draws of noise and time, since the action expert is cheap.
"""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor, nn

from depthvla_policy.model.config import EncoderConfig, ExpertConfig, ModelConfig
from depthvla_policy.model.depthvla import DepthVLA, Inputs
from depthvla_policy.model.flow import interpolate
from depthvla_policy.model.losses import flow_matching, si_log
from depthvla_policy.training.batch import Batch
from depthvla_policy.training.config import LossConfig
from depthvla_policy.training.draws import Draws, vary_colours
from depthvla_policy.training.grounding import Grounding


class PolicyObjective(nn.Module):
    """used: (action_dim,) bool, the action dimensions that the robot has. depth_weight: of SI-log; 0 needs no labels.
    grounding: None leaves that loss out.
    """

    def __init__(
        self, model: DepthVLA, loss: LossConfig, used: Tensor, depth_weight: float, grounding: Grounding | None = None
    ) -> None:
        super().__init__()
        self.model, self.loss, self.depth_weight, self.grounding = model, loss, depth_weight, grounding
        self.register_buffer("used", used, persistent=False)

    def forward(self, batch: Batch, draws: Draws) -> dict[str, Tensor]:
        """Scalars: `total`, what is minimised, and its parts; in evaluation `abs_rel` of the predicted depth too.

        An observation whose chunk is not known is left out of the flow loss.
        """
        seen = batch.depth_m if self.model.config.takes_depth else None
        depth = self.depth_weight > 0
        images = _pixels(batch.images, draws)
        inputs = Inputs(images, batch.text, batch.text_mask, batch.state, depth_m=seen)
        prefix = self.model.prefix(inputs, depth=depth)

        n = len(draws.noise) // len(batch.images)
        clean = torch.arange(draws.noise.shape[1], device=draws.delay.device) < draws.delay
        tau = torch.where(clean, 1.0, draws.tau[:, None])
        known = ~(batch.chunks.isnan() | ~self.used).flatten(1).all(-1)
        chunks = torch.where(known[:, None, None], batch.chunks, 0.0)
        x, target = interpolate(chunks.repeat_interleave(n, dim=0), draws.noise, tau)
        context = prefix.detach() if self.loss.detach_prefix else prefix
        velocity = self.model.velocity(context.repeat(n), x, tau)
        counted = self.used & ~clean[..., None] & known.repeat_interleave(n)[:, None, None]
        losses = {"flow": flow_matching(velocity, target, counted)}
        total = losses["flow"]
        if depth:
            losses["depth"] = si_log(prefix.log_depth, batch.depth_m)
            total = total + self.depth_weight * losses["depth"]
            if not self.training:
                losses["abs_rel"] = abs_rel(prefix.log_depth, batch.depth_m)
        if self.grounding is not None:
            losses["grounding"] = self.grounding(prefix, batch.text_mask, batch.target)
            total = total + self.loss.grounding_weight * losses["grounding"]
        return {"total": total, **losses}


class DepthObjective(nn.Module):
    """model: a `DepthVLA` of `depth_only` dimensions."""

    def __init__(self, model: DepthVLA) -> None:
        super().__init__()
        self.model = model

    def forward(self, batch: Batch, draws: Draws) -> dict[str, Tensor]:
        """As `PolicyObjective.forward`."""
        log_depth = self.model.predict_depth(_pixels(batch.images, draws))
        losses = {"depth": si_log(log_depth, batch.depth_m)}
        if not self.training:
            losses["abs_rel"] = abs_rel(log_depth, batch.depth_m)
        return {"total": losses["depth"], **losses}


def depth_only(c: ModelConfig) -> ModelConfig:
    """`c` for single images, with all but the depth expert shrunk to almost nothing.

    Raises:
        ValueError: `c` has no depth expert that predicts depth.
    """
    if not (c.depth and c.depth.predicts):
        raise ValueError("the network has no depth expert with a head; depth must be set and depth.input be 'image'")
    dot = ExpertConfig(width=2, mlp=1)
    changes = {"vlm": dot, "action": dot, "vision": EncoderConfig(width=1, layers=1, heads=1, mlp=1)}
    return dataclasses.replace(c, **changes, vocab_size=1, cameras=1)


def abs_rel(log_depth: Tensor, depth_m: Tensor) -> Tensor:
    """Mean of |predicted - true| / true over the pixels whose depth is known; 0 where none is."""
    known = torch.isfinite(depth_m) & (depth_m > 0)
    true = torch.where(known, depth_m, 1.0)
    error = torch.where(known, (log_depth.float().exp() - true).abs() / true, 0.0)
    return error.sum() / known.sum().clamp(min=1)


def _pixels(images: Tensor, draws: Draws) -> Tensor:
    """uint8 -> float32 in [0, 1], colours varied where there are draws for it."""
    pixels = images.float() / 255.0
    return pixels if draws.colours is None else vary_colours(pixels, draws.colours)
