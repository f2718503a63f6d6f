"""Descriptions of evaluation tasks: what is asked for, its substeps of one point each (paper, section IV-C), and what
is put back before the next episode. One YAML file a task, read by the evaluation session, the operator's console, the
report and the simulator.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from pathlib import Path

from r1lite_description import files
from r1lite_description.share import share


@dataclass(frozen=True)
class Task:
    """`substeps`: name -> what has to be the case for its point, in the order in which they are usually done."""

    name: str
    instruction: str
    substeps: dict[str, str]
    reset: tuple[str, ...]
    time_limit_s: float


def folder() -> Path:
    """Folder of the R1 Lite's tasks."""
    return share() / "tasks"


def names(directory: str | Path | None = None) -> list[str]:
    """Names of the tasks in a folder."""
    return sorted(path.stem for path in Path(directory or folder()).glob("*.yaml"))


def load(task: str | Path) -> Task:
    """Read a task by its name, or from a file of one's own.

    Raises:
        FileNotFoundError: there is no such task.
        ValueError: a key is missing or unknown, or a value is not allowed; the message names file, key and value.
    """
    path = Path(task) if str(task).endswith(".yaml") else folder() / f"{task}.yaml"
    if not path.exists():
        raise FileNotFoundError(f"task {str(task)!r} does not exist; allowed: a YAML file, or {', '.join(names())}")
    raw = files.read_yaml(path, "a task")
    try:
        return _build(raw, path.stem)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path}: {error}") from error


def _build(raw: object, stem: str) -> Task:
    allowed = [field.name for field in fields(Task)]
    if not isinstance(raw, dict) or set(raw) != set(allowed):
        raise ValueError(f"keys are {sorted(raw) if isinstance(raw, dict) else raw!r}; a task has {', '.join(allowed)}")
    for key in ("name", "instruction"):
        if not isinstance(raw[key], str) or not raw[key].strip():
            raise ValueError(f"{key} is {raw[key]!r}; it must be text")
    if raw["name"] != stem:
        raise ValueError(f"name is {raw['name']!r}; it must be that of the file, {stem!r}")
    substeps, reset, limit_s = raw["substeps"], raw["reset"], raw["time_limit_s"]
    if not isinstance(substeps, dict) or not substeps or not all(map(_is_text, (*substeps, *substeps.values()))):
        raise ValueError(f"substeps is {substeps!r}; it must be at least one `name: what has to be the case`")
    if not isinstance(reset, list) or not all(map(_is_text, reset)):
        raise ValueError(f"reset is {reset!r}; it must be a list of texts")
    if isinstance(limit_s, bool) or not isinstance(limit_s, int | float) or not 0 < limit_s < math.inf:
        raise ValueError(f"time_limit_s is {limit_s!r}; it must be a number above 0")
    return Task(raw["name"], raw["instruction"], dict(substeps), tuple(reset), float(limit_s))


def _is_text(value: object) -> bool:
    return isinstance(value, str) and bool(value.strip())
