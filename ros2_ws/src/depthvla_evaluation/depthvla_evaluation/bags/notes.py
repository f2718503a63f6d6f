"""What people, the policy and the recorder say of an episode: written into its bag's metadata, and read back.

Metadata is text by key; everything that is no text is JSON. Older or foreign bags may lack any of it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from r1lite_description import files

UNFINISHED = "unfinished.json"  # the metadata of a bag that is not closed yet, beside its messages
OUTCOMES = ("success", "failure", "aborted")
FAILED = "failed"  # outcome of a recording that is not whole, whatever people said of the episode


@dataclass(frozen=True)
class Mark:
    """A substep that was done, and when [ns since the epoch]."""

    substep: str
    time_ns: int


class EpisodeNotes:
    """What people say of an episode, and what the policy said of itself, while it is recorded."""

    def __init__(
        self, task: str = "", instruction: str = "", setting: str = "", policy: str = "", *, scene: str = ""
    ) -> None:
        self.task, self.setting, self.scene = task, setting, scene
        self.marks: list[Mark] = []
        self._instruction, self._policy = instruction, policy
        self._models: list[str] = []  # in the order of appearance
        self._instructions: list[str] = []
        self._outcome, self._notes, self._failure = "", "", ""

    @property
    def substeps(self) -> list[str]:
        return [mark.substep for mark in self.marks]

    def mark(self, substep: str, time_ns: int) -> None:
        """Raises ValueError for a substep without a name, or one that counts already."""
        if not substep:
            raise ValueError("substep is empty; allowed: the name of the substep that was done")
        if substep in self.substeps:
            raise ValueError(f"substep {substep!r} is marked already; marked are {', '.join(self.substeps)}")
        self.marks.append(Mark(substep, time_ns))

    def undo(self) -> str:
        """Takes the newest mark back and returns its substep. Raises ValueError where there is none."""
        if not self.marks:
            raise ValueError("no substep is marked: there is nothing to undo")
        return self.marks.pop().substep

    def add_policy(self, model_id: str, instruction: str) -> None:
        """Take what the policy says of itself."""
        for value, known in ((model_id, self._models), (instruction, self._instructions)):
            if value and value not in known:
                known.append(value)

    def end(self, outcome: str, notes: str = "", failure: str = "") -> None:
        """`failure` says why the recording is not whole; empty where it is."""
        self._outcome, self._notes, self._failure = FAILED if failure else outcome, notes, failure

    def custom_data(self, **recorded: Any) -> dict[str, str]:
        """For the bag's metadata, with what the recorder knows beside."""
        return {
            key: value if isinstance(value, str) else json.dumps(value, default=list)  # arrays of ROS, too
            for key, value in {
                "task": self.task,
                "instruction": self._instruction or next(iter(self._instructions), ""),
                "setting": self.setting,
                "scene": self.scene,
                "policy": self._policy or next(iter(self._models), ""),
                "outcome": self._outcome,
                "notes": self._notes,
                "failure": self._failure,
                "substeps": [vars(mark) for mark in self.marks],
                "model_id": self._models[-1] if self._models else "",
                "model_ids": self._models,
                "policy_instructions": self._instructions,
                **recorded,
            }.items()
        }


@dataclass(frozen=True)
class Notes:
    """What `read_notes` finds; empty where there is nothing."""

    task: str
    instruction: str
    setting: str
    scene: str
    policy: str
    outcome: str  # one of OUTCOMES, FAILED, or empty
    notes: str
    failure: str  # why the recording is not whole
    marks: tuple[Mark, ...]  # in the order of time
    git_revision: str
    machine: dict[str, Any]
    parameters: dict[str, dict[str, Any]]  # node -> its parameters
    parameters_missing: tuple[str, ...]
    calibration_missing: tuple[str, ...]
    topics_missing: tuple[str, ...]
    messages_lost: dict[str, int] | None  # topic -> count; None where nobody counted


def read_notes(custom_data: Mapping[str, str]) -> Notes:
    """Metadata as typed values.

    Raises:
        ValueError: a value cannot be read; the message names its key.
    """
    marks = _parsed(custom_data, "substeps", list)
    try:
        read = tuple(sorted((Mark(str(m["substep"]), int(m["time_ns"])) for m in marks), key=lambda m: m.time_ns))
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"substeps is {marks!r}; it must be a list of {{substep, time_ns}}") from error
    texts = ("task", "instruction", "setting", "scene", "policy", "outcome", "notes", "failure", "git_revision")
    lists = ("parameters_missing", "calibration_missing", "topics_missing")
    return Notes(
        **{key: custom_data.get(key, "") for key in texts},
        **{key: tuple(_parsed(custom_data, key, list)) for key in lists},
        marks=read,
        machine=_parsed(custom_data, "machine", dict),
        parameters=_parsed(custom_data, "parameters", dict),
        messages_lost=_parsed(custom_data, "messages_lost", dict) if "messages_lost" in custom_data else None,
    )


def write_unfinished(bag: Path, custom_data: Mapping[str, str]) -> None:
    """Keep metadata beside the messages of a bag that is not closed yet."""
    temporary = bag / f"{UNFINISHED}.tmp"
    temporary.write_text(json.dumps(custom_data))
    files.put(temporary, bag / UNFINISHED)


def _parsed(custom_data: Mapping[str, str], key: str, kind: type) -> Any:
    """A value that is JSON; an empty one of its kind where there is none."""
    text = custom_data.get(key)
    if not text:
        return kind()
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"{key} is {text!r}; it must be JSON") from error
    if not isinstance(value, kind):
        raise ValueError(f"{key} is {text!r}; it must be a JSON {'list' if kind is list else 'object'}")
    return value
