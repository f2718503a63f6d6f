"""Tasks that the simulator can stage, by name. A new task is a new file here and one entry in `TASKS`."""

from __future__ import annotations

from r1lite_sim.tasks.lift import LiftTask

TASKS = {"lift": LiftTask}


def make(name: str, **options):
    """A task by name, with its own options.

    Raises:
        ValueError: there is no such task, or an option is not allowed.
    """
    if name not in TASKS:
        raise ValueError(f"no task {name!r}; known tasks: {', '.join(TASKS)}")
    try:
        return TASKS[name](**options)
    except TypeError as error:
        raise ValueError(f"task {name!r}: {error}") from error
