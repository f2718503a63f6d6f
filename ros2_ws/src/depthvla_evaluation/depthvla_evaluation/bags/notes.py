"""What people and the recorder said about an episode, read back from its bag's metadata.

`recording.EpisodeNotes` and the recorder node write it; older or foreign bags may lack any of it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from depthvla_evaluation.bags.recording import Mark


@dataclass(frozen=True)
class Notes:
    task: str
    instruction: str
    setting: str
    scene: str
    policy: str
    outcome: str  # success, failure, aborted, failed (not a whole recording), or empty where nobody said
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
    """Metadata as typed values; empty where there is none.

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
