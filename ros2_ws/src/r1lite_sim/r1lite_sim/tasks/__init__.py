"""Tasks that the simulator can stage, by name. A new task is a new file here and one entry in `TASKS`."""

from __future__ import annotations

import inspect

from r1lite_sim.tasks.blocks_stacking import BlocksStackingTask
from r1lite_sim.tasks.lift import LiftTask
from r1lite_sim.tasks.microwave_operation import MicrowaveOperationTask
from r1lite_sim.tasks.table_bussing import TableBussingTask
from r1lite_sim.tasks.touch import TouchTask

TASKS = {
    task.name: task for task in (LiftTask, TouchTask, BlocksStackingTask, TableBussingTask, MicrowaveOperationTask)
}


def make(name: str, **options):
    """A task by name, with its own options.

    Raises:
        ValueError: there is no such task, or an option is not allowed.
    """
    _check_name(name)
    try:
        return TASKS[name](**options)
    except TypeError as error:
        raise ValueError(f"task {name!r}: {error}") from error


def option_defaults(name: str) -> dict[str, object]:
    """Options that a task takes, with what they are where left out; None: drawn in every scene.

    Raises:
        ValueError: there is no such task.
    """
    _check_name(name)
    return {option: parameter.default for option, parameter in inspect.signature(TASKS[name]).parameters.items()}


def _check_name(name: str) -> None:
    if name not in TASKS:
        raise ValueError(f"no task {name!r}; known tasks: {', '.join(TASKS)}")
