"""Training losses: scale-invariant log depth (paper section III-B) and flow matching (section III-C)."""

from __future__ import annotations

import torch
from torch import Tensor

from depthvla_policy.model.flow import upcast

# Below this the square root's gradient grows without bound; a perfect map must give a zero gradient, not a NaN.
SI_LOG_EPS = 1e-6


def si_log(log_depth: Tensor, depth_m: Tensor, *, scale_weight: float = 0.5) -> Tensor:
    """Scale-invariant log loss, a scalar: per image over its valid pixels, then the mean over images that have any.

    log_depth: (..., h, w) log metres. depth_m: (..., h, w) metres; values that are not finite or not above 0 are left
    out. scale_weight: lambda of the paper.
    """
    valid = torch.isfinite(depth_m) & (depth_m > 0)
    y = torch.where(valid, upcast(log_depth) - upcast(torch.where(valid, depth_m, 1.0)).log(), 0.0).flatten(-2)
    pixels = valid.flatten(-2).sum(-1)
    n = pixels.clamp(min=1)
    variance = (y**2).sum(-1) / n - scale_weight * (y.sum(-1) / n) ** 2
    loss = (variance.clamp(min=0.0) + SI_LOG_EPS).sqrt() - SI_LOG_EPS**0.5
    seen = pixels > 0
    return torch.where(seen, loss, 0.0).sum() / seen.sum().clamp(min=1)


def flow_matching(velocity: Tensor, target: Tensor, used: Tensor | None = None) -> Tensor:
    """Mean squared error of the velocity, a scalar: (B, horizon, dim) each.

    used: bool, what the mean is taken over: (dim,), the action dimensions the robot has, or (B, horizon, dim) where
    steps are left out too; 0 where nothing is used.
    """
    error = (upcast(velocity) - upcast(target)) ** 2
    if used is None:
        return error.mean()
    used = used.expand_as(error)
    return torch.where(used, error, 0.0).sum() / used.sum().clamp(min=1)
