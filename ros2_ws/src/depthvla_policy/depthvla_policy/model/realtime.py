"""Real-time chunking: a new chunk that continues the one that is being executed while it is computed.

Two ways. Guided (Black et al., 2025, arXiv 2506.07339): every integration step is pulled towards the committed steps by
a vector-Jacobian product through the denoiser; works with any checkpoint. Trained (arXiv 2512.05964): the committed
steps enter as clean actions at tau = 1 and the network completes them; the checkpoint must have been trained so.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

METHODS = ("guided", "trained")
MAX_GUIDANCE = 5.0  # the paper's beta


def continue_chunk(
    velocity: Callable[[Tensor, Tensor], Tensor],
    noise: Tensor,
    steps: int,
    *,
    committed: Tensor,
    delay: int,
    overlap: int,
    method: str,
) -> Tensor:
    """Integrate `noise` (B, horizon, dim) to a chunk whose first `delay` steps are those of `committed`.

    velocity: of the actions (B, horizon, dim) at tau (B,) or (B, horizon). steps: of the integration. committed: (B,
    horizon, dim), the previous chunk at this chunk's steps, normalised as this chunk is. delay: steps that will have
    been executed when this chunk arrives; they come back unchanged. overlap: steps of `committed` that the previous
    chunk has at all; those behind `delay` guide with falling weight ("guided") or not at all ("trained").

    Raises:
        ValueError: unless 0 <= delay <= overlap <= horizon, the shapes agree and the method is known.
    """
    horizon = noise.shape[1]
    if method not in METHODS:
        raise ValueError(f"method is {method!r}; allowed: {', '.join(METHODS)}")
    if not 0 <= delay <= overlap <= horizon:
        raise ValueError(f"delay is {delay} and overlap {overlap}; allowed: 0 <= delay <= overlap <= {horizon}")
    if committed.shape != noise.shape:
        raise ValueError(f"committed has shape {tuple(committed.shape)}; the chunk has {tuple(noise.shape)}")
    fixed = (torch.arange(horizon, device=noise.device) < delay)[None, :, None]
    weights = soft_mask(horizon, delay, overlap).to(noise.device)[None, :, None]
    x = noise
    for step in range(steps):
        tau = torch.full((len(noise),), step / steps, device=noise.device, dtype=torch.float32)
        if method == "trained":
            x = torch.where(fixed, committed, x)
            v = velocity(x, torch.where(fixed[..., 0], 1.0, tau[:, None]))
        else:
            v = _guided(velocity, x, tau, committed, weights)
        x = x + v / steps
    # The guided path ends near the committed steps; those steps are being executed already and are not up for change.
    return torch.where(fixed, committed, x)


def soft_mask(horizon: int, delay: int, overlap: int) -> Tensor:
    """(horizon,) weights: 1 for the committed steps, then falling to 0 where the previous chunk ends (paper eq. 5)."""
    weights = torch.zeros(horizon)
    weights[:delay] = 1.0
    for i in range(delay, overlap):
        c = (overlap - i) / (overlap - delay + 1)
        weights[i] = c * math.expm1(c) / math.expm1(1.0)
    return weights


def _guided(
    velocity: Callable[[Tensor, Tensor], Tensor], x: Tensor, tau: Tensor, committed: Tensor, weights: Tensor
) -> Tensor:
    """The velocity plus the pull of the committed steps (paper eq. 2 to 4)."""
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        v = velocity(x, tau)
        remaining = (1.0 - tau)[:, None, None]
        final = x + remaining * v
        error = ((committed - final) * weights).detach()
        (pull,) = torch.autograd.grad(final, x, error)
    t = tau[0].item()
    variance = (1.0 - t) ** 2 / (t**2 + (1.0 - t) ** 2)
    strength = MAX_GUIDANCE if t == 0.0 else min(MAX_GUIDANCE, (1.0 - t) / (t * variance))
    return v.detach() + strength * pull
