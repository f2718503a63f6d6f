"""An exponential moving average of the trained parameters, which is what is validated and saved.

Not torch's AveragedModel: it copies frozen parameters too, and its states have other names than those of earlier runs.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

WRAPPED = "module."  # what DistributedDataParallel puts before names


class Ema:
    """decay 0 keeps no averages: the parameters stand for themselves. Averages of sharded parameters are sharded like
    them.
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.decay = decay
        # The same names whether or not the module is wrapped for several processes, so that either reads its states.
        named = ((name.removeprefix(WRAPPED), p) for name, p in module.named_parameters())
        self._live = {name: p for name, p in named if p.requires_grad and decay > 0}
        self.averages = {name: parameter.detach().clone() for name, parameter in self._live.items()}

    @torch.no_grad()
    def update(self, step: int) -> None:
        """After step `step`, counted from 0. The first steps decay faster, else the average of a short run would be
        mostly where it started.
        """
        if not self.averages:
            return
        decay = min(self.decay, (1 + step) / (10 + step))
        averages = [_local(average) for average in self.averages.values()]
        torch._foreach_lerp_(averages, [_local(p.detach()) for p in self._live.values()], 1.0 - decay)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """The averages in place of the parameters, for as long as the block runs."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    @torch.no_grad()
    def _swap(self) -> None:
        for name, parameter in self._live.items():
            live, average = _local(parameter.detach()), _local(self.averages[name])
            kept = live.clone()
            live.copy_(average)
            average.copy_(kept)


def _local(tensor: Tensor) -> Tensor:
    """The shard that this process holds."""
    return tensor.to_local() if hasattr(tensor, "to_local") else tensor
