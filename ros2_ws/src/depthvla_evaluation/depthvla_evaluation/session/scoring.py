"""The score of an episode while it is recorded: what a person presses, turned into what is asked of the recorder."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum

from depthvla_control.operator_input import REPEAT_LIMIT_NS, STOP_KEY

ENTER = ("\n", "\r")


class Kind(Enum):
    MARK = "mark"
    UNDO = "undo"
    STOP = "stop"
    ABORT = "abort"
    QUIT = "quit"


# None of them is another thing to the operator's console, whose keys may be meant. Digits mark.
KEYS = {"u": Kind.UNDO, "x": Kind.ABORT, "q": Kind.QUIT}
DONE = ("c", *ENTER)
REDO = "b"  # between two episodes


@dataclass(frozen=True)
class Request:
    kind: Kind
    text: str = ""  # the substep that is marked or taken back; the outcome with which it is stopped


class Scoring:
    """An episode from the start of its recording to the confirmed score.

    Done is said twice: the first time begins a review, in which marks can still be corrected because the bag is open.
    `marked` is what the recorder says that is marked; it belongs to the caller.

    Args:
        substeps: of the task; the first has key 1.
        limit_s: the task's time limit.
        now_ns: a clock that only goes forward [ns].
    """

    def __init__(self, substeps: Sequence[str], limit_s: float, now_ns: Callable[[], int]) -> None:
        self.substeps, self.limit_s = tuple(substeps), limit_s
        self.marked: tuple[str, ...] = ()
        self.in_review = False
        self._now_ns = now_ns
        self._begin_ns, self._end_ns = now_ns(), 0
        self._key, self._key_ns = "", 0

    @property
    def elapsed_s(self) -> float:
        """From the start to the review."""
        return ((self._end_ns if self.in_review else self._now_ns()) - self._begin_ns) / 1e9

    @property
    def over_time(self) -> bool:
        return self.elapsed_s > self.limit_s

    @property
    def score(self) -> int:
        return sum(substep in self.marked for substep in self.substeps)

    @property
    def outcome(self) -> str:
        return "success" if self.score == len(self.substeps) else "failure"

    def press(self, key: str) -> Request | str | None:
        """What is to be asked, or why nothing is; None where nobody has to know. A key that is held counts once. The
        stop key is none of a score's.
        """
        if key == STOP_KEY:
            return None
        now_ns, held = self._now_ns(), self._key
        repeated = key == held and now_ns - self._key_ns <= REPEAT_LIMIT_NS
        self._key, self._key_ns = key, now_ns
        if repeated:
            return None
        if key.isdecimal():
            return self._mark(int(key))
        if key in KEYS:
            if KEYS[key] is not Kind.UNDO:
                return Request(KEYS[key])
            return Request(Kind.UNDO, self.marked[-1]) if self.marked else "nothing is marked"
        if self.in_review and key in ENTER:
            return Request(Kind.STOP, self.outcome)
        if not self.in_review and key in DONE:
            self._end_ns, self.in_review = now_ns, True
            return None
        return f"no such key: {key!r}"

    def _mark(self, number: int) -> Request | str:
        if not 1 <= number <= len(self.substeps):
            return f"there is no substep {number}"
        substep = self.substeps[number - 1]
        return f"{substep} is marked already" if substep in self.marked else Request(Kind.MARK, substep)
