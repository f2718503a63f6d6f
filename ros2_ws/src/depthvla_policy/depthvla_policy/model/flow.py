"""Flow matching over action chunks: the path from noise to action, the time embedding and the integrator.

One convention everywhere, the paper's (section III-C): tau = 0 is noise, tau = 1 is the action, A^tau = tau A + (1 -
tau) eps, and the velocity points from noise to action. pi0's published weights were trained with t = 1 - tau and the
opposite velocity; `time_embedding` and `DepthVLA.velocity` are the two places that speak pi0's language.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

MIN_PERIOD, MAX_PERIOD = 4e-3, 4.0


def time_embedding(tau: Tensor, width: int) -> Tensor:
    """Sine-cosine embedding of tau (...) -> (..., width), float32 or better, over log-spaced periods of t = 1 - tau."""
    fraction = torch.linspace(0.0, 1.0, width // 2, device=tau.device, dtype=torch.float32)
    period = MIN_PERIOD * (MAX_PERIOD / MIN_PERIOD) ** fraction
    angle = (1.0 - upcast(tau))[..., None] * (2 * math.pi / period)
    return torch.cat([angle.sin(), angle.cos()], dim=-1)


def sample_tau(batch: int, device: torch.device, generator: torch.Generator | None = None) -> Tensor:
    """Training times (batch,): t = 1 - tau from Beta(1.5, 1) scaled to [0.001, 1], so that noisy times come more often.

    Beta(1.5, 1) has the distribution function x^1.5, hence the power of a uniform draw.
    """
    uniform = torch.rand(batch, device=device, generator=generator)
    return 1.0 - (uniform ** (1.0 / 1.5) * 0.999 + 0.001)


def interpolate(actions: Tensor, noise: Tensor, tau: Tensor) -> tuple[Tensor, Tensor]:
    """Point on the path and its velocity: actions, noise (B, horizon, dim) -> two (B, horizon, dim).

    tau: (B,), or (B, horizon) where every step has a time of its own.
    """
    weight = tau.reshape(len(tau), -1, 1)
    return weight * actions + (1.0 - weight) * noise, actions - noise


def upcast(x: Tensor) -> Tensor:
    """At least float32: half precision is widened, double precision is kept."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def integrate(velocity: Callable[[Tensor, Tensor], Tensor], noise: Tensor, steps: int) -> Tensor:
    """Euler integration from `noise` (B, horizon, dim) at tau = 0 to the action at tau = 1."""
    x = noise
    for step in range(steps):
        tau = torch.full((noise.shape[0],), step / steps, device=noise.device, dtype=torch.float32)
        x = x + velocity(x, tau) / steps
    return x
