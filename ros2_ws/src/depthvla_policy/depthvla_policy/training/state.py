"""Training states on disk: weights, averages, optimiser and step, whole or in shards, each process its own.

The random numbers and the place in the data need no saving: they follow from seed and step. A state is written beside
its place and then renamed, so that a run which is killed leaves the one before.
"""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch.distributed.checkpoint as dcp
from accelerate import Accelerator
from torch import nn
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_optimizer_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
)
from torch.optim import Optimizer

from depthvla_policy.training.ema import Ema

FOLDER, PREFIX = "state", "step_"


def save(out: Path, step: int, model: nn.Module, optimiser: Optimizer, ema: Ema, accelerator: Accelerator) -> None:
    """Write the state after `step` steps to `out`, then remove those before it."""
    folder = out / FOLDER
    partial, whole = folder / f"part_{step:08d}", folder / f"{PREFIX}{step:08d}"
    if accelerator.is_main_process:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
    accelerator.wait_for_everyone()
    with _quietly():
        dcp.save(_tensors(model, optimiser, ema), checkpoint_id=partial)
    accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        partial.rename(whole)
        for old in folder.iterdir():
            if old != whole:
                shutil.rmtree(old)
    accelerator.wait_for_everyone()


def newest(out: Path) -> Path | None:
    """The newest whole state in `out`."""
    return max((out / FOLDER).glob(PREFIX + "*"), default=None)


def load(state: Path, model: nn.Module, optimiser: Optimizer, ema: Ema) -> int:
    """Fill model, optimiser and averages from `state`, saved by any number of processes; returns its step.

    Raises:
        ValueError: the state cannot be read, or is of another network.
    """
    tensors = _tensors(model, optimiser, ema)
    try:
        with _quietly():
            dcp.load(tensors, checkpoint_id=state)
    except (CheckpointException, Exception) as error:  # the first is no Exception
        raise ValueError(f"{state} is not a whole training state of this network: {_first(error)}") from error
    set_model_state_dict(model, tensors["model"])
    set_optimizer_state_dict(model, optimiser, tensors["optimiser"])
    return int(state.name.removeprefix(PREFIX))


def whole_weights(model: nn.Module) -> dict:
    """Every weight, gathered on the first process's CPU; empty on the others."""
    return get_model_state_dict(model, options=StateDictOptions(full_state_dict=True, cpu_offload=True))


def _tensors(model: nn.Module, optimiser: Optimizer, ema: Ema) -> dict:
    return {
        "model": get_model_state_dict(model),
        "optimiser": get_optimizer_state_dict(model, optimiser),
        "averages": ema.averages,
    }


@contextmanager
def _quietly() -> Iterator[None]:
    """Without the warning that there is only one process."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="torch.distributed is disabled")
        yield


def _first(error: BaseException) -> str:
    """What one of the processes ran into."""
    if isinstance(error, CheckpointException):
        error = next((failure[0] for failure in error.failures.values()), error)
    return (str(error).strip() or repr(error)).splitlines()[0]
