"""Who is in command: the modes, the written table of transitions between them, and the cause of the present one.

| event         | DISARMED | HOLD               | TELEOP   | POLICY   | FAULT    | policy engaged after |
|---------------|----------|--------------------|----------|----------|----------|----------------------|
| ARM           | HOLD     | HOLD               | TELEOP   | POLICY   | -        | as before            |
| DISARM        | DISARMED | DISARMED           | DISARMED | DISARMED | DISARMED | no                   |
| STOP          | DISARMED | HOLD               | HOLD     | HOLD     | FAULT    | no                   |
| TAKE_OVER     | -        | TELEOP             | TELEOP   | TELEOP   | -        | no                   |
| HAND_OVER     | -        | HOLD               | POLICY   | POLICY   | -        | yes                  |
| POLICY_READY  | -        | POLICY, if engaged | -        | POLICY   | -        | as before            |
| POLICY_LOST   | -        | HOLD               | TELEOP   | HOLD     | -        | as before            |
| TELEOP_LOST   | -        | HOLD               | HOLD     | POLICY   | -        | as before            |
| FEEDBACK_LOST | -        | HOLD               | HOLD     | HOLD     | -        | as before            |
| FAULT         | -        | FAULT              | FAULT    | FAULT    | FAULT    | no                   |
| RESET_FAULT   | -        | -                  | -        | -        | HOLD     | no                   |

A dash is a refusal; nothing changes. A person decides with ARM, DISARM, STOP, TAKE_OVER, HAND_OVER and RESET_FAULT.
STOP never starts a stream (DISARMED stays) and never clears a latched fault. HAND_OVER engages the policy: from then on
it moves the arms whenever it has something to follow, so silence, death or a blind camera hold the arms and the next
usable chunk resumes. Where feedback is lost for long, the executor says STOP. A person who took over and whose leader
arms fell silent has to take over again. A fault without a command on the wire has nothing to latch.
"""

from __future__ import annotations

from enum import Enum, IntEnum

from depthvla_control.refusal import Reason, Refusal


class Mode(IntEnum):
    """Values are those of depthvla_msgs/ExecutorStatus."""

    DISARMED = 0
    HOLD = 1
    TELEOP = 2
    POLICY = 3
    FAULT = 4


class Event(Enum):
    ARM = "arm"
    DISARM = "disarm"
    STOP = "stop"
    TAKE_OVER = "take over"
    HAND_OVER = "hand over"
    POLICY_READY = "policy ready"
    POLICY_LOST = "policy lost"
    TELEOP_LOST = "teleop lost"
    FEEDBACK_LOST = "feedback lost"
    FAULT = "fault"
    RESET_FAULT = "reset fault"


# Columns: DISARMED, HOLD, TELEOP, POLICY, FAULT.
_D, _H, _T, _P, _F = Mode
_TABLE: dict[Event, tuple[Mode | None, ...]] = {
    Event.ARM: (_H, _H, _T, _P, None),
    Event.DISARM: (_D, _D, _D, _D, _D),
    Event.STOP: (_D, _H, _H, _H, _F),
    Event.TAKE_OVER: (None, _T, _T, _T, None),
    Event.HAND_OVER: (None, _H, _P, _P, None),
    Event.POLICY_READY: (None, _P, None, _P, None),
    Event.POLICY_LOST: (None, _H, _T, _H, None),
    Event.TELEOP_LOST: (None, _H, _H, _P, None),
    Event.FEEDBACK_LOST: (None, _H, _H, _H, None),
    Event.FAULT: (None, _F, _F, _F, _F),
    Event.RESET_FAULT: (None, None, None, None, _H),
}
TRANSITIONS: dict[tuple[Mode, Event], Mode] = {
    (mode, event): following
    for event, row in _TABLE.items()
    for mode, following in zip(Mode, row, strict=True)
    if following is not None
}

_DISENGAGING = (Event.DISARM, Event.STOP, Event.TAKE_OVER, Event.FAULT, Event.RESET_FAULT)
_REQUESTS = (Event.STOP, Event.DISARM, Event.TAKE_OVER, Event.HAND_OVER)


class Arbiter:
    """Starts DISARMED. `cause` says in words why the mode is what it is."""

    def __init__(self) -> None:
        self.mode = Mode.DISARMED
        self.cause = "not armed yet"
        self.engaged = False
        self.interventions = 0  # times that a person took over from the policy

    def refusal(self, event: Event) -> Refusal | None:
        """Why `event` would change nothing, if so."""
        if (self.mode, event) not in TRANSITIONS:
            return Refusal(Reason.NOT_ALLOWED, f"{event.value} is not possible in {self.mode.name}: {self.cause}")
        if event is Event.POLICY_READY and not self.engaged:
            return Refusal(Reason.NOT_ALLOWED, f"the policy is not engaged: {self.cause}")
        return None

    def apply(self, event: Event, cause: str) -> Refusal | None:
        """Makes the transition, or says why there is none."""
        refusal = self.refusal(event)
        if refusal:
            return refusal
        following = TRANSITIONS[self.mode, event]
        if event is Event.HAND_OVER:
            self.engaged = True
        elif event in _DISENGAGING:
            self.interventions += event is Event.TAKE_OVER and self.mode is Mode.POLICY
            self.engaged = False
        # A person's request is a cause even when the mode stays; the first cause of a fault stays on record.
        requested = event in _REQUESTS and following is not Mode.FAULT
        if following is not self.mode or requested:
            self.cause = cause
        self.mode = following
        return None

    def explain(self, cause: str) -> None:
        """Another reason for the present mode, which stays."""
        self.cause = cause
