"""Who is in command: the modes, the written table of transitions between them, and the cause of the present one.

| event        | DISARMED | HOLD           | TELEOP | POLICY | FAULT    | policy engaged after |
|--------------|----------|----------------|--------|--------|----------|----------------------|
| ARM          | HOLD     | HOLD           | -      | POLICY | -        | yes                  |
| DISARM       | DISARMED | DISARMED       | DISARMED | DISARMED | DISARMED | no               |
| STOP         | DISARMED | HOLD           | HOLD   | HOLD   | FAULT    | no                   |
| FAULT        | -        | FAULT          | FAULT  | FAULT  | FAULT    | no                   |
| RESET_FAULT  | -        | -              | -      | -      | HOLD     | no                   |
| POLICY_READY | -        | POLICY, if engaged | -  | POLICY | -        | as before            |
| POLICY_LOST  | -        | HOLD           | -      | HOLD   | -        | as before            |

A dash is a refusal; nothing changes. STOP never starts a stream (DISARMED stays) and never clears a latched fault.
After STOP or RESET_FAULT the arms stay in HOLD, whatever the policy sends, until ARM engages it again. POLICY_LOST is
whatever leaves no step to follow: chunks ran out, the policy's process is gone, feedback is stale, the clock was set
back; the next usable chunk resumes. A fault without a command on the wire has nothing to latch. TELEOP is reserved:
nothing leads into it yet.
"""

from __future__ import annotations

from enum import Enum, IntEnum

from depthvla_policy.control.refusal import Reason, Refusal


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
    FAULT = "fault"
    RESET_FAULT = "reset_fault"
    POLICY_READY = "policy ready"
    POLICY_LOST = "policy lost"


TRANSITIONS: dict[tuple[Mode, Event], Mode] = {
    (Mode.DISARMED, Event.ARM): Mode.HOLD,
    (Mode.HOLD, Event.ARM): Mode.HOLD,
    (Mode.POLICY, Event.ARM): Mode.POLICY,
    **{(mode, Event.DISARM): Mode.DISARMED for mode in Mode},
    (Mode.DISARMED, Event.STOP): Mode.DISARMED,
    (Mode.HOLD, Event.STOP): Mode.HOLD,
    (Mode.TELEOP, Event.STOP): Mode.HOLD,
    (Mode.POLICY, Event.STOP): Mode.HOLD,
    (Mode.FAULT, Event.STOP): Mode.FAULT,
    (Mode.HOLD, Event.FAULT): Mode.FAULT,
    (Mode.TELEOP, Event.FAULT): Mode.FAULT,
    (Mode.POLICY, Event.FAULT): Mode.FAULT,
    (Mode.FAULT, Event.FAULT): Mode.FAULT,
    (Mode.FAULT, Event.RESET_FAULT): Mode.HOLD,
    (Mode.HOLD, Event.POLICY_READY): Mode.POLICY,
    (Mode.POLICY, Event.POLICY_READY): Mode.POLICY,
    (Mode.HOLD, Event.POLICY_LOST): Mode.HOLD,
    (Mode.POLICY, Event.POLICY_LOST): Mode.HOLD,
}

_DISENGAGING = (Event.DISARM, Event.STOP, Event.FAULT, Event.RESET_FAULT)


class Arbiter:
    """Starts DISARMED. `cause` says in words why the mode is what it is."""

    def __init__(self) -> None:
        self.mode = Mode.DISARMED
        self.cause = "not armed yet"
        self.engaged = False

    def apply(self, event: Event, cause: str) -> Refusal | None:
        """Makes the transition, or says why there is none."""
        following = TRANSITIONS.get((self.mode, event))
        if following is None:
            return Refusal(Reason.NOT_ALLOWED, f"{event.value} is not possible in {self.mode.name}: {self.cause}")
        if event is Event.POLICY_READY and not self.engaged:
            return Refusal(Reason.NOT_ALLOWED, f"the policy is not engaged: {self.cause}; arm engages it")
        if event is Event.ARM:
            self.engaged = True
        elif event in _DISENGAGING:
            self.engaged = False
        # An operator's request is a cause even when the mode stays; the first cause of a fault stays on record.
        requested = event in (Event.ARM, Event.STOP, Event.DISARM) and self.mode is not Mode.FAULT
        if following is not self.mode or (requested and self.mode is not Mode.POLICY):
            self.cause = cause
        self.mode = following
        return None
