"""Why something was refused: one enum for counters and tests, one sentence for people.

Observations, feedback, chunks and requests all answer with a `Refusal` or with nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Reason(Enum):
    # at the door, for any stream
    WRONG_ENCODING = "wrong encoding"
    WRONG_COUNT = "wrong count"
    NON_FINITE = "non-finite"
    OUT_OF_RANGE = "out of range"
    OUT_OF_ORDER = "out of order"
    FUTURE = "stamp in the future"
    # observations
    MISSING = "missing"
    STALE = "stale"
    FROZEN = "frozen"
    SKEWED = "skewed"
    WAITING = "waiting"
    DAMAGED = "damaged image"
    # chunks
    WRONG_JOINTS = "wrong joints"
    WRONG_TIMING = "wrong timing"
    EXPIRED = "all steps past"
    OLD = "old"
    OTHER_MODEL = "other model"
    # feedback and changes of command
    JUMP = "jump"
    OFF_TRACK = "off track"
    GAP = "too far away"
    # requests
    NOT_ALLOWED = "not allowed"
    NO_FEEDBACK = "no feedback"
    # inference
    FAILED = "failed"


@dataclass(frozen=True)
class Refusal:
    """`subject`: the stream to blame where there is one. `message` names it, the value and what is allowed."""

    reason: Reason
    message: str
    subject: str = ""

    def __str__(self) -> str:
        return self.message
