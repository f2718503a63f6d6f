"""The random numbers of a training step, a function of seed and step alone.

They are drawn for the whole batch on the CPU and then cut up, so that any number of processes, and a run that was
interrupted, follow the same path.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from depthvla_policy.model.config import ModelConfig
from depthvla_policy.model.flow import sample_tau
from depthvla_policy.training.config import LossConfig

STREAM = 1_000_003  # steps apart at which two seeds would meet


@dataclass(frozen=True)
class Draws:
    """For B observations with n draws each. colours: (B, C, 5) in [-1, 1), or None to leave them as they are. noise:
    (B * n, horizon, action_dim). tau: (B * n,). delay: (B * n, 1), steps of the chunk that enter clean.
    """

    colours: Tensor | None
    noise: Tensor
    tau: Tensor
    delay: Tensor

    def part(self, start: int, stop: int, n: int) -> Draws:
        """Those of the observations from `start` to `stop`, with `n` draws each."""
        wide = slice(start * n, stop * n)
        colours = None if self.colours is None else self.colours[start:stop]
        return Draws(colours, self.noise[wide], self.tau[wide], self.delay[wide])

    def to(self, device: torch.device) -> Draws:
        colours = None if self.colours is None else self.colours.to(device)
        return Draws(colours, self.noise.to(device), self.tau.to(device), self.delay.to(device))


def draw(c: ModelConfig, loss: LossConfig, batch_size: int, seed: int, step: int) -> Draws:
    """All random numbers of one step."""
    generator = torch.Generator().manual_seed(seed * STREAM + step)
    wide = batch_size * loss.draws
    colours = 2 * torch.rand(batch_size, c.cameras, 5, generator=generator) - 1 if loss.vary_colours else None
    noise = torch.randn(wide, c.horizon, c.action_dim, generator=generator)
    tau = sample_tau(wide, noise.device, generator)
    delay = torch.randint(0, loss.max_delay + 1, (wide, 1), generator=generator)
    return Draws(colours, noise, tau, delay)


def vary_colours(images: Tensor, draws: Tensor) -> Tensor:
    """Contrast by 30 %, brightness by 0.15, colour balance by 10 %, for each image of (B, C, 3, H, W) in [0, 1]."""
    contrast, brightness, balance = draws[..., None, None].split([1, 1, 3], dim=2)
    varied = (images - 0.5) * (1.0 + 0.3 * contrast) + 0.5 + 0.15 * brightness
    return (varied * (1.0 + 0.1 * balance)).clamp_(0.0, 1.0)
