"""What an operator presses, turned into requests to the chunk executor: keys, buttons and answers in, with their times.

Nothing here decides who is in command: the executor does, and says so in its answers. The keys that score an episode
are requests to the episode recorder, which knows what it records.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum

from depthvla_control.arbiter import Mode
from depthvla_control.refusal import Reason, Refusal

ANSWER_LIMIT_NS = 1_000_000_000
NO_BUTTON = -1
# A key that is held repeats itself faster than this, and a substep must not be marked by mistake.
REPEAT_LIMIT_NS = 700_000_000
STOP_KEY = " "  # in every tool, whatever it asks for at that moment
ESCAPE = "\x1b"
PASTE_BEGIN, PASTE_END = "\x1b[200~", "\x1b[201~"  # around pasted text, in a terminal's bracketed paste mode


class Action(Enum):
    STOP = "stop"
    TAKE_OVER = "take over"
    GIVE_BACK = "give back"
    ARM = "arm"
    DISARM = "disarm"
    RESET_FAULT = "reset fault"
    QUIT = "quit"
    # To the episode recorder.
    START_EPISODE = "start an episode"
    MARK = "mark a substep"
    UNDO = "undo a mark"
    SUCCESS = "stop with success"
    FAILURE = "stop with failure"
    # A dead-man button: teleoperation lasts as long as it is held.
    HOLD = "take over while held"
    RELEASE = "release"


KEYS = {
    "a": Action.ARM,
    "d": Action.DISARM,
    STOP_KEY: Action.STOP,
    "t": Action.TAKE_OVER,
    "p": Action.GIVE_BACK,
    "r": Action.RESET_FAULT,
    "q": Action.QUIT,
    "e": Action.START_EPISODE,
    "m": Action.MARK,
    "u": Action.UNDO,
    "s": Action.SUCCESS,
    "f": Action.FAILURE,
}
KEYS_HELP = "keys: " + ", ".join(
    f"{'space' if key == STOP_KEY else key} {action.value}" for key, action in KEYS.items()
)

SCORING = (Action.START_EPISODE, Action.MARK, Action.UNDO, Action.SUCCESS, Action.FAILURE)

# Requests that can set the arms in motion: one of them that is still on its way must not overtake a stop.
_MOVING = (Action.TAKE_OVER, Action.GIVE_BACK, Action.ARM, Action.HOLD)
# After these the dead-man button no longer owns the mode, and letting go of it asks for nothing.
_ENDS_HOLD = (Action.STOP, Action.DISARM, Action.TAKE_OVER, Action.GIVE_BACK, Action.HOLD)


def button_parameter(action: Action) -> str:
    """Name of the parameter that binds a joystick button to an action."""
    return "button_" + action.value.replace(" ", "_")


class Keys:
    """Single keys from what a terminal sends. Cursor and function keys are sequences with letters in them: no keys, as
    little as pasted text, which nobody pressed.
    """

    def __init__(self) -> None:
        self._sequence, self._pasted = "", False

    def feed(self, text: str) -> list[str]:
        """In order; a sequence may be split over calls. Space is a key wherever it comes, because it stops."""
        keys = []
        for character in text:
            if character == ESCAPE:
                self._sequence = ESCAPE
            elif self._sequence and character != STOP_KEY:
                before, self._sequence = self._sequence, self._sequence + character
                if _ends(before, character):
                    self._pasted = self._sequence == PASTE_BEGIN or (self._pasted and self._sequence != PASTE_END)
                    self._sequence = ""
            else:
                self._sequence = ""
                if character == STOP_KEY or not self._pasted:
                    keys.append(character)
        return keys


class Joystick:
    """Actions from the edges of a joystick's buttons.

    Args:
        buttons: action -> index in sensor_msgs/Joy.buttons; NO_BUTTON for none.
        hold_to_teleop: the take-over button is a dead-man button.
        silence_limit_ns: a held dead-man button whose joystick says nothing for longer stops the arms; 0: never.

    Raises:
        ValueError: a button has two actions, or there is no button to hold.
    """

    def __init__(
        self, buttons: Mapping[Action, int], *, hold_to_teleop: bool = False, silence_limit_ns: int = 0
    ) -> None:
        self._buttons = {action: button for action, button in buttons.items() if button != NO_BUTTON}
        by_button: dict[int, Action] = {}
        for action, button in self._buttons.items():
            if button in by_button:
                names = f"{button_parameter(by_button[button])} and {button_parameter(action)}"
                raise ValueError(f"{names} are both {button}; allowed: a button of its own for each, or {NO_BUTTON}")
            by_button[button] = action
        if hold_to_teleop and Action.TAKE_OVER not in self._buttons:
            raise ValueError(
                f"hold_to_teleop is true, but {button_parameter(Action.TAKE_OVER)} is {NO_BUTTON}: nothing to hold"
            )
        self._hold_to_teleop = hold_to_teleop
        self._silence_limit_ns = silence_limit_ns
        self._down: dict[Action, bool] = {}
        self._heard_ns = 0

    def update(self, buttons: Sequence[int], now_ns: int) -> list[Action] | Refusal:
        """Actions of the buttons that changed. The first message only tells what is held already.

        A stop comes alone: whatever was pressed in the same instant is dropped.
        """
        for action, button in self._buttons.items():
            if button >= len(buttons):
                return Refusal(
                    Reason.WRONG_COUNT,
                    f"{button_parameter(action)} is {button}, but the joystick has {len(buttons)} buttons; allowed: "
                    f"{NO_BUTTON} to {len(buttons) - 1}",
                    "joystick",
                )
        before, self._heard_ns = self._down, now_ns
        self._down = {action: bool(buttons[button]) for action, button in self._buttons.items()}
        if not before:
            return []
        pressed = [action for action, down in self._down.items() if down and not before[action]]
        if Action.STOP in pressed:
            return [Action.STOP]
        if self._hold_to_teleop:
            pressed = [Action.HOLD if action is Action.TAKE_OVER else action for action in pressed]
            if before[Action.TAKE_OVER] and not self._down[Action.TAKE_OVER]:
                pressed.append(Action.RELEASE)
        return pressed

    def fell_silent(self, now_ns: int) -> bool:
        """True once when the dead-man button was held and the joystick is gone: whoever held it may be, too."""
        held = self._hold_to_teleop and self._down.get(Action.TAKE_OVER, False)
        if not (held and self._silence_limit_ns and now_ns - self._heard_ns > self._silence_limit_ns):
            return False
        self._down = {}
        return True


@dataclass
class Request:
    """One question to the executor or the recorder; numbers rise."""

    number: int
    action: Action
    sent_ns: int
    overdue: bool = False


class Requests:
    """What is asked and not answered yet."""

    def __init__(self) -> None:
        self._pending: dict[int, Request] = {}
        self._newest = Request(0, Action.STOP, 0)

    def new(self, action: Action, now_ns: int) -> Request:
        self._newest = Request(self._newest.number + 1, action, now_ns)
        self._pending[self._newest.number] = self._newest
        return self._newest

    def forget(self, request: Request) -> None:
        self._pending.pop(request.number, None)

    def overdue(self, now_ns: int) -> list[Request]:
        """Requests that have just gone unanswered for too long. Their answers still count when they come."""
        requests = self._pending.values()
        late = [item for item in requests if not item.overdue and now_ns - item.sent_ns > ANSWER_LIMIT_NS]
        for request in late:
            request.overdue = True
        return late


class Scorer(Requests):
    """What is asked of the episode recorder, once for each key press."""

    def __init__(self) -> None:
        super().__init__()
        self._pressed_ns: dict[Action, int] = {}

    def pressed(self, action: Action, now_ns: int) -> bool:
        """Whether a key is pressed anew, and not held."""
        before_ns, self._pressed_ns[action] = self._pressed_ns.get(action), now_ns
        return before_ns is None or now_ns - before_ns > REPEAT_LIMIT_NS


def next_substep(substeps: Sequence[str], marked: Sequence[str]) -> str:
    """The first substep of a task that is not marked; numbers where it has none.

    Raises:
        ValueError: all are marked.
    """
    if not substeps:
        return str(len(marked) + 1)
    left = [substep for substep in substeps if substep not in marked]
    if not left:
        raise ValueError(f"all {len(substeps)} substeps are marked")
    return left[0]


class Console(Requests):
    """What is asked of the executor. Every request it returns is to be sent at once.

    Requests go to several services, so the executor may take them in another order than they were pressed. A stop
    that an older request may have overtaken is said again. Letting go of the dead-man button gives back to the policy,
    and stops where the policy cannot take over.
    """

    def __init__(self) -> None:
        super().__init__()
        self._mode: Mode | None = None
        self._hold: Request | None = None
        self._released = False
        self._let_go: Request | None = None

    @property
    def holding(self) -> bool:
        """Whether teleoperation lasts only as long as the dead-man button is held."""
        return self._hold is not None

    def ask(self, action: Action, now_ns: int) -> Request | None:
        """The request of an action; None where there is nothing to ask, as for a key that repeats itself."""
        if action is Action.RELEASE:
            return self._release(now_ns)
        repeated = self._newest.number in self._pending and self._newest.action is action
        if repeated and action is not Action.STOP and not self._newest.overdue:
            self._released = self._released and action is not Action.HOLD
            return None
        request = self.new(action, now_ns)
        if action is Action.HOLD:
            self._hold, self._released = request, False
        return request

    def answered(self, request: Request, success: bool, now_ns: int) -> Request | None:
        """Notes an answer; a request that follows from it."""
        self.forget(request)
        if request is self._hold and not success:
            self._hold = None
        if not success:
            # Nobody holds the button and the policy cannot take the arms: teleoperation must not go on.
            return self.new(Action.STOP, now_ns) if request is self._let_go is self._newest else None
        if self._newest.action is Action.STOP and request.number < self._newest.number and request.action in _MOVING:
            return self.new(Action.STOP, now_ns)
        if request is self._hold and self._released:
            return self._give_back(now_ns)
        return None

    def not_sent(self, request: Request) -> None:
        """There was nobody to send it to."""
        self.forget(request)
        if request is self._hold:
            self._hold = None

    def mode_changed(self, previous: Mode, mode: Mode) -> None:
        ended = mode is not Mode.TELEOP and Mode.TELEOP in (previous, self._mode)
        if ended and self._hold and self._hold.number not in self._pending:
            self._hold = None  # somebody else ended it: letting go must not start the policy
        self._mode = mode

    def _release(self, now_ns: int) -> Request | None:
        if self._hold is None:
            return None
        if self._hold.number in self._pending:
            # A take-over that is refused must not end in a policy that nobody asked for.
            self._released = True
            return None
        return self._give_back(now_ns)

    def _give_back(self, now_ns: int) -> Request:
        self._let_go = self.new(Action.GIVE_BACK, now_ns)
        return self._let_go

    def new(self, action: Action, now_ns: int) -> Request:
        if action in _ENDS_HOLD:
            self._hold = None
        return super().new(action, now_ns)


def _ends(sequence: str, character: str) -> bool:
    """Whether `character` is the last of a sequence (ECMA-48: ESC [ parameters final; ESC O x; ESC x)."""
    if sequence == ESCAPE:
        return character not in "[O"
    return sequence == ESCAPE + "O" or "@" <= character <= "~"
