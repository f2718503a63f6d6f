"""Which frames a step trains on, a function of seed and step alone: any step can be the first."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor


class StepSampler:
    """Batches of frames for a data loader, those of one process: `accumulate` of them for every step from `start` on.

    lengths: frames of every dataset, which stand one after another. weights: of every dataset; frames are then drawn
    with replacement. Without weights every frame comes once an epoch, in an order of its own every epoch.
    """

    def __init__(
        self,
        lengths: Sequence[int],
        weights: Sequence[float],
        *,
        batch_size: int,
        seed: int,
        start: int,
        steps: int,
        accumulate: int = 1,
        rank: int = 0,
        processes: int = 1,
    ) -> None:
        if batch_size % (processes * accumulate):
            raise ValueError(
                f"batch_size {batch_size} does not divide among {processes} processes with {accumulate} batches each"
            )
        self.lengths = torch.tensor(lengths)
        self.weights = torch.tensor(weights, dtype=torch.float64)
        self.batch_size, self.seed, self.start, self.steps = batch_size, seed, start, steps
        self.accumulate, self.rank, self.processes = accumulate, rank, processes
        self._epoch: tuple[int, Tensor] | None = None

    def __len__(self) -> int:
        return (self.steps - self.start) * self.accumulate

    def __iter__(self) -> Iterator[list[int]]:
        for step in range(self.start, self.steps):
            mine = self.step(step).chunk(self.processes)[self.rank]
            yield from (part.tolist() for part in mine.chunk(self.accumulate))

    def step(self, step: int) -> Tensor:
        """(batch_size,) frames of step `step`, counted from 0, over all processes."""
        if len(self.weights):
            generator = torch.Generator().manual_seed(self.seed * (1 << 32) + step)
            dataset = torch.multinomial(self.weights, self.batch_size, replacement=True, generator=generator)
            inside = torch.rand(self.batch_size, dtype=torch.float64, generator=generator) * self.lengths[dataset]
            return self.lengths.cumsum(0)[dataset] - self.lengths[dataset] + inside.long()
        frames = int(self.lengths.sum())
        positions = torch.arange(step * self.batch_size, (step + 1) * self.batch_size)
        return torch.cat(
            [
                self._order(epoch, frames)[positions[positions // frames == epoch] % frames]
                for epoch in range(int(positions[0]) // frames, int(positions[-1]) // frames + 1)
            ]
        )

    def _order(self, epoch: int, frames: int) -> Tensor:
        if self._epoch is None or self._epoch[0] != epoch:
            generator = torch.Generator().manual_seed(self.seed * (1 << 32) + epoch)
            self._epoch = epoch, torch.randperm(frames, generator=generator)
        return self._epoch[1]
