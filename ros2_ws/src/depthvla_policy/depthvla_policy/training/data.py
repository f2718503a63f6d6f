"""The data of a run: what is trained on and what is held out, and loaders over both."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch.utils.data import ConcatDataset, DataLoader, Dataset, Subset

from depthvla_policy.training.batch import Batch
from depthvla_policy.training.config import TrainConfig
from depthvla_policy.training.sampler import StepSampler

VALIDATION_FRAMES = 128


@dataclass(frozen=True)
class TrainData:
    """train, held_out: one map-style dataset per folder. collate: their samples -> `Batch`."""

    train: Sequence[Dataset]
    held_out: Sequence[Dataset]
    collate: Callable[[list], Batch]

    def loader(self, config: TrainConfig, start: int, rank: int, processes: int) -> DataLoader:
        """Batches of one process, `accumulate` for every step from `start` on.

        Raises:
            ValueError: the batch does not divide among the processes.
        """
        sampler = StepSampler(
            [len(part) for part in self.train],
            config.data.weights,
            batch_size=config.batch_size,
            seed=config.seed,
            start=start,
            steps=config.steps,
            accumulate=config.machine.accumulate,
            rank=rank,
            processes=processes,
        )
        return DataLoader(
            ConcatDataset(self.train),
            batch_sampler=sampler,
            collate_fn=self.collate,
            num_workers=config.machine.workers,
            pin_memory=torch.cuda.is_available(),
        )

    def validation(self, batch_size: int) -> list[Batch]:
        """Up to 128 held-out frames, evenly spread, the same every time."""
        whole = ConcatDataset(self.held_out)
        frames = torch.linspace(0, len(whole) - 1, min(VALIDATION_FRAMES, len(whole))).long().tolist()
        return list(DataLoader(Subset(whole, frames), batch_size=batch_size, collate_fn=self.collate))
