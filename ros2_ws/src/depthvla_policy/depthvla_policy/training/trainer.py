"""The training loop: flow matching and SI-log depth together (paper section III-C), AdamW, cosine schedule, EMA.

Each observation's prefix is computed once and serves several draws of noise and time, since the action expert is cheap.
Under torchrun the batch is split between the processes; random numbers are drawn for the whole batch in each, so that
any number of processes follows the same path.
"""

from __future__ import annotations

import json
import math
import time
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from tqdm import tqdm

from depthvla_policy.model.depthvla import DEPTH_PARTS, DepthVLA
from depthvla_policy.model.flow import interpolate, sample_tau
from depthvla_policy.model.losses import flow_matching, si_log
from depthvla_policy.training.samples import Batch, Samples, draw_colours


@dataclass(frozen=True)
class LoopConfig:
    """How long and how to train; the losses beside flow matching have weights."""

    steps: int = 3000
    """optimiser steps"""
    batch_size: int = 16
    """observations per step, over all processes"""
    draws: int = 4
    """noise and time draws per observation"""
    learning_rate: float = 8e-4
    final_learning_rate: float = 1e-5
    """at the end of the cosine"""
    warmup_steps: int = 100
    weight_decay: float = 1e-4
    """of matrices; vectors have none"""
    clip_norm: float = 1.0
    ema_decay: float = 0.998
    """of the averaged weights, which are the ones that are saved"""
    grounding_weight: float = 0.5
    """of regressing the named object's position from the VLM's text tokens, through a head that is thrown away after
    training: it makes a small VLM, which knows no objects yet, find the named one sooner"""
    max_delay: int = 0
    """most steps of a chunk that enter clean and are left out of the loss, for real-time chunking by training"""
    detach_prefix: bool = False
    """keep the flow loss away from VLM and depth expert"""
    log_every: int = 50
    """steps between two lines of the log"""
    save_every_s: float = 300.0
    seed: int = 0


class Grounding(nn.Module):
    """Where the named object is, from the VLM's text tokens: mean over them, one hidden layer, three metres."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.head = nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.Linear(width, 3))

    def forward(self, vlm: Tensor, text_mask: Tensor) -> Tensor:
        """vlm: (B, T, D) with the text tokens last; text_mask: (B, L) -> (B, 3)."""
        text = vlm[:, -text_mask.shape[1] :]
        weight = text_mask[..., None].to(text.dtype)
        return self.head((text * weight).sum(1) / weight.sum(1))


class Trainer:
    """Trains `model` on `samples`; `used` (action_dim,) marks the action dimensions that the robot has."""

    def __init__(self, model: DepthVLA, samples: Samples, held_out: Samples, used: Tensor, config: LoopConfig) -> None:
        self.model, self.samples, self.held_out, self.used, self.config = model, samples, held_out, used, config
        if not 0 <= config.max_delay < model.config.horizon:
            raise ValueError(f"max_delay is {config.max_delay}; allowed: 0 to {model.config.horizon - 1}")
        depth = model.config.depth
        if depth and depth.frozen:
            for name, parameter in model.named_parameters():
                parameter.requires_grad_(not name.startswith(DEPTH_PARTS))
        self.depth_weight = depth.loss_weight if depth and depth.predicts and not depth.frozen else 0.0
        self.grounding = Grounding(model.config.vlm.width)
        self.grounding_mean = samples.target_m.mean(0)
        self.grounding_std = samples.target_m.std(0).clamp(min=0.01)
        decay = [p for p in self._parameters() if p.dim() > 1]
        plain = [p for p in self._parameters() if p.dim() <= 1]
        self.optimiser = torch.optim.AdamW(
            [{"params": decay, "weight_decay": config.weight_decay}, {"params": plain, "weight_decay": 0.0}],
            lr=config.learning_rate,
            betas=(0.9, 0.95),
        )
        self.schedule = torch.optim.lr_scheduler.LambdaLR(self.optimiser, self._rate)
        self.ema = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(config.ema_decay))
        self.generator = torch.Generator().manual_seed(config.seed)
        self.processes = dist.get_world_size() if dist.is_initialized() else 1
        self.rank = dist.get_rank() if dist.is_initialized() else 0
        if config.batch_size % self.processes:
            raise ValueError(f"batch_size {config.batch_size} does not divide among {self.processes} processes")

    def run(self, save, log: Path) -> None:
        """Train to the end. `save(model)` stores the averaged weights now and then; `log` gets JSON lines."""
        log.parent.mkdir(parents=True, exist_ok=True)
        began = saved = time.monotonic()
        sums: dict[str, float] = {}
        order = torch.empty(0, dtype=torch.long)
        steps = range(1, self.config.steps + 1)
        progress = tqdm(steps, desc="training", unit="step", mininterval=5.0, disable=self.rank > 0)
        for step in progress:
            if len(order) < self.config.batch_size:
                order = torch.randperm(len(self.samples), generator=self.generator)
            index, order = order[: self.config.batch_size], order[self.config.batch_size :]
            for name, value in self.step(index).items():
                sums[name] = sums.get(name, 0.0) + value
            if self.rank > 0:
                continue
            if step % self.config.log_every == 0 or step == self.config.steps:
                count = (step - 1) % self.config.log_every + 1
                row = {"step": step, **{name: round(total / count, 5) for name, total in sums.items()}}
                row["samples_per_s"] = round(step * self.config.batch_size / (time.monotonic() - began), 1)
                if step % (10 * self.config.log_every) == 0 or step == self.config.steps:
                    row.update(self.validate())
                with open(log, "a") as file:
                    file.write(json.dumps(row) + "\n")
                progress.set_postfix(row, refresh=False)
                sums = {}
            if time.monotonic() - saved > self.config.save_every_s:
                save(self.ema.module)
                saved = time.monotonic()
        if self.rank == 0:
            save(self.ema.module)

    @torch.no_grad()
    def validate(self, frames: int = 128) -> dict[str, float]:
        """Flow loss and depth AbsRel of the averaged weights on held-out frames, with the same noise every time."""
        model = self.ema.module.eval()
        generator = torch.Generator().manual_seed(0)
        index = torch.linspace(0, len(self.held_out) - 1, min(frames, len(self.held_out))).long()
        batch = self.held_out.batch(index)
        prefix = model.prefix(batch.inputs, depth=batch.depth_m is not None)
        noise = torch.randn(batch.chunks.shape, generator=generator)
        x, target = interpolate(batch.chunks, noise, tau := sample_tau(len(index), noise.device, generator))
        result = {"held_out_flow": round(flow_matching(model.velocity(prefix, x, tau), target, self.used).item(), 5)}
        if prefix.log_depth is not None:
            valid = torch.isfinite(batch.depth_m)
            error = (prefix.log_depth.exp() - batch.depth_m).abs() / batch.depth_m
            result["held_out_abs_rel"] = round(error[valid].mean().item(), 5)
        return result

    def step(self, index: Tensor) -> dict[str, float]:
        """One optimiser step on the frames `index` (batch_size,); returns the losses over the whole batch.

        Raises:
            FloatingPointError: the loss is not finite; weights are left as they were.
        """
        c = self.config
        draws = (len(index) * c.draws, *self.samples.chunks.shape[1:])
        colours = draw_colours(len(index), self.model.config.cameras, self.generator)
        noise = torch.randn(draws, generator=self.generator)
        tau = sample_tau(draws[0], noise.device, self.generator)
        delay = torch.randint(0, c.max_delay + 1, (draws[0], 1), generator=self.generator)
        n = len(index) // self.processes
        mine = slice(self.rank * n, (self.rank + 1) * n)
        wide = slice(mine.start * c.draws, mine.stop * c.draws)

        self.model.train()
        losses = self._losses(self.samples.batch(index[mine], colours[mine]), noise[wide], tau[wide], delay[wide])
        total = losses["flow"] + self.depth_weight * losses["depth"] + c.grounding_weight * losses["grounding"]
        self.optimiser.zero_grad()
        total.backward()
        values = self._average(torch.stack([loss.detach() for loss in losses.values()]))
        if not torch.isfinite(values).all():
            raise FloatingPointError(f"the loss is not finite: {dict(zip(losses, values.tolist(), strict=True))}")
        nn.utils.clip_grad_norm_(self._parameters(), c.clip_norm)
        self.optimiser.step()
        self.schedule.step()
        self.ema.update_parameters(self.model)
        return dict(zip(losses, values.tolist(), strict=True))

    def _losses(self, batch: Batch, noise: Tensor, tau: Tensor, delay: Tensor) -> dict[str, Tensor]:
        """noise: (B * draws, horizon, dim). tau: (B * draws,). delay: (B * draws, 1) steps that enter clean."""
        c = self.config
        depth = batch.depth_m is not None and self.depth_weight > 0
        grounding = c.grounding_weight > 0
        prefix = self.model.prefix(batch.inputs, depth=depth, vlm=grounding)
        clean = torch.arange(noise.shape[1]) < delay
        tau = torch.where(clean, 1.0, tau[:, None])
        x, target = interpolate(batch.chunks.repeat_interleave(c.draws, dim=0), noise, tau)
        context = prefix.detach() if c.detach_prefix else prefix
        velocity = self.model.velocity(context.repeat(c.draws), x, tau)
        zero = velocity.new_zeros(())
        flow = flow_matching(velocity, target, self.used & ~clean[..., None])
        losses = {"flow": flow, "depth": zero, "grounding": zero}
        if depth:
            losses["depth"] = si_log(prefix.log_depth, batch.depth_m)
        if grounding:
            found = self.grounding(prefix.vlm, batch.inputs.text_mask)
            wanted = (batch.target_m - self.grounding_mean) / self.grounding_std
            losses["grounding"] = ((found - wanted) ** 2).mean()
        return losses

    def _average(self, values: Tensor) -> Tensor:
        """Average the gradients, and `values` with them, over the processes."""
        if self.processes == 1:
            return values
        grads = [p.grad for p in self._parameters() if p.grad is not None]
        flat = torch.cat([values, *[grad.flatten() for grad in grads]])
        dist.all_reduce(flat)
        flat /= self.processes
        values, *parts = flat.split([len(values), *[grad.numel() for grad in grads]])
        for grad, part in zip(grads, parts, strict=True):
            grad.copy_(part.view_as(grad))
        return values

    def _parameters(self) -> list[nn.Parameter]:
        trained = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        return [*trained, *self.grounding.parameters()]

    def _rate(self, step: int) -> float:
        c = self.config
        if step < c.warmup_steps:
            return (step + 1) / c.warmup_steps
        share = min(1.0, (step - c.warmup_steps) / max(1, c.steps - c.warmup_steps))
        floor = c.final_learning_rate / c.learning_rate
        return floor + (1.0 - floor) * 0.5 * (1.0 + math.cos(math.pi * share))
