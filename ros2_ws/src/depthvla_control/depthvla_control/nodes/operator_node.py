"""The operator's console: keys and joystick buttons become requests to the chunk executor and, for the keys that score
an episode, to the episode recorder; their answers become lines.

Run it in a terminal of its own. What a key means is in `control.operator`; who is in command, the executor decides.
"""

from __future__ import annotations

import contextlib
import math
import queue
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import replace

from depthvla_msgs.msg import ExecutorStatus, ModeChange, RecorderStatus
from depthvla_msgs.srv import MarkSubstep, SetMode, StartEpisode, StopEpisode
from rclpy.clock import Clock, ClockType
from rclpy.task import Future
from sensor_msgs.msg import Joy
from std_srvs.srv import Trigger

from depthvla_control.arbiter import Mode
from depthvla_control.operator_input import (
    ANSWER_LIMIT_NS,
    KEYS,
    KEYS_HELP,
    NO_BUTTON,
    SCORING,
    Action,
    Console,
    Joystick,
    Keys,
    Request,
    Scorer,
    button_parameter,
    next_substep,
)
from depthvla_control.refusal import Refusal
from depthvla_control.ros import qos
from depthvla_control.ros.diagnostics import ERROR, OK, WARN, Health
from depthvla_control.ros.messages import nanoseconds
from depthvla_control.ros.parameters import Parameter
from depthvla_control.ros.polling import PolledSubscription
from depthvla_control.ros.runtime import COMMON_PARAMETERS, ManagedNode, run
from depthvla_control.ros.terminal import Screen, Terminal, open_terminal
from r1lite_description import tasks

STATUS_PERIOD_S = 0.2
STATUS_SILENCE_S = 1.0
MAX_BUTTON = 63
SERVICES = {Action.STOP: "stop", Action.ARM: "arm", Action.DISARM: "disarm", Action.RESET_FAULT: "reset_fault"}
MODES = {Action.TAKE_OVER: Mode.TELEOP, Action.HOLD: Mode.TELEOP, Action.GIVE_BACK: Mode.POLICY}
# As joy_node numbers the buttons of an Xbox pad.
BUTTONS = {
    Action.STOP: (1, "B"),
    Action.TAKE_OVER: (5, "RB"),
    Action.GIVE_BACK: (4, "LB"),
    Action.ARM: (7, "start"),
    Action.DISARM: (6, "back"),
    Action.RESET_FAULT: (NO_BUTTON, "none"),
}


PARAMETERS = (
    # Started by hand, with nobody there to manage it.
    *(replace(item, default=True) for item in COMMON_PARAMETERS if item.name == "autostart"),
    Parameter("executor", "/chunk_executor_node", "Full name of the chunk executor's node."),
    Parameter("recorder", "/episode_recorder_node", "Full name of the episode recorder's node."),
    Parameter("task", "", "Task of the episodes that are started here.", read_only=False),
    Parameter("setting", "", "What distinguishes them from others of their task.", read_only=False),
    Parameter("policy", "", "Name under which the report groups them; empty: the policy's model id.", read_only=False),
    Parameter(
        "substeps",
        [""],
        "Substeps in the order in which they are marked; empty: those of the task, numbers where it has none.",
    ),
    *(
        Parameter(
            button_parameter(action),
            button,
            f"Index in sensor_msgs/Joy.buttons for '{action.value}'; {NO_BUTTON}: none. On an Xbox pad: {name}.",
            NO_BUTTON,
            MAX_BUTTON,
        )
        for action, (button, name) in BUTTONS.items()
    ),
    Parameter("hold_to_teleop", False, "Teleoperation lasts while button_take_over is held; letting go gives back."),
    Parameter(
        "joystick_silence_s",
        1.0,
        "With hold_to_teleop: stop when the button is held and /joy has been silent for longer, as after a lost radio"
        " link. joy_node must repeat itself faster (autorepeat_rate); 0: never.",
        0.0,
        10.0,
    ),
)


class OperatorNode(ManagedNode):
    """Keyboard and /joy in; requests to the executor and lines on standard output out."""

    def __init__(self, **kwargs) -> None:
        super().__init__("operator_node", PARAMETERS, **kwargs)
        self._screen = Screen()
        self._terminal: Terminal | None = None
        self._typed_guard = None

    def configure(self) -> None:
        executor = self._executor_name = self._full_name("executor", "/chunk_executor_node")
        recorder = self._full_name("recorder", "/episode_recorder_node")
        self._joystick = self._new_joystick()
        self._triggers = {
            action: self.create_client(Trigger, f"{executor}/{name}") for action, name in SERVICES.items()
        }
        self._set_mode = self.create_client(SetMode, f"{executor}/set_mode")
        self._status = PolledSubscription(self, ExecutorStatus, f"{executor}/status", qos.status())
        # Every change is a line, so a few may wait; the first is the one that was latched.
        changes = qos.status()
        changes.depth = 10
        self.create_subscription(ModeChange, f"{executor}/mode", self._on_mode, changes)
        self.create_subscription(Joy, "/joy", self._on_joy, 10)
        self._start_episode = self.create_client(StartEpisode, f"{recorder}/start")
        self._mark_substep = self.create_client(MarkSubstep, f"{recorder}/mark")
        self._stop_episode = self.create_client(StopEpisode, f"{recorder}/stop")
        self._recorder = RecorderStatus()
        self.create_subscription(RecorderStatus, f"{recorder}/status", self._on_recorder, qos.status())
        self._typed: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._typed_guard = self.create_guard_condition(self._on_typed)
        self.create_timer(STATUS_PERIOD_S, self._tick, clock=Clock(clock_type=ClockType.STEADY_TIME))

    def activate(self) -> None:
        self._console, self._keys, self._joystick = Console(), Keys(), self._new_joystick()
        self._scorer = Scorer()
        self._heard_s, self._silent, self._keyboard_lost = time.monotonic(), False, False
        self._terminal, why_not = open_terminal(self._type)
        self._screen.say(KEYS_HELP if self._terminal else f"the keyboard is off: {why_not}")

    def deactivate(self) -> None:
        if self._console.holding:
            # The dead-man button goes with this node. Nobody waits for the answer.
            self._ask(Action.STOP)
        self._screen.show("")
        self._close_terminal()

    def cleanup(self) -> None:
        self._close_terminal()
        if self._typed_guard is not None:
            self.destroy_guard_condition(self._typed_guard)
            self._typed_guard = None

    def health(self) -> Health:
        silence_s = time.monotonic() - self._heard_s
        values = {"executor": self._executor_name, "keyboard": bool(self._terminal), "status silent [s]": silence_s}
        if self._keyboard_lost:
            return Health(ERROR, "the keyboard is off: space does not stop", values)
        if silence_s > STATUS_SILENCE_S:
            return Health(WARN, f"no status from {self._executor_name}", values)
        return Health(OK, "listening", values)

    def _new_joystick(self) -> Joystick:
        return Joystick(
            {action: self.value(button_parameter(action)) for action in BUTTONS},
            hold_to_teleop=self.value("hold_to_teleop"),
            silence_limit_ns=round(self.value("joystick_silence_s") * 1e9),
        )

    def _type(self, text: str) -> None:
        """Called by the terminal's thread."""
        self._typed.put(text)
        self._typed_guard.trigger()

    def _on_typed(self) -> None:
        with contextlib.suppress(queue.Empty):
            while True:
                text = self._typed.get_nowait()
                if not self.active:
                    continue
                if not text:
                    self._close_terminal()
                    self._keyboard_lost = True
                    self._screen.say("THE KEYBOARD IS OFF: the terminal was closed")
                for key in self._keys.feed(text):
                    if key in KEYS:
                        self._ask(KEYS[key])
                    else:
                        self._screen.say(f"no such key: {key!r}; {KEYS_HELP}")

    def _on_joy(self, message: Joy) -> None:
        if not self.active:
            return
        actions = self._joystick.update(message.buttons, time.monotonic_ns())
        if isinstance(actions, Refusal):
            self.get_logger().error(str(actions), throttle_duration_sec=5.0)
            return
        for action in actions:
            self._ask(action)

    def _ask(self, action: Action) -> None:
        if action is Action.QUIT:
            self._screen.say("quit; the executor stays in the mode that it is in")
            self.finished = True
            return
        if action in SCORING:
            self._score(action)
            return
        request = self._console.ask(action, time.monotonic_ns())
        if request:
            self._send(request)

    def _send(self, request: Request) -> None:
        action = request.action
        if action in MODES:
            client, message = self._set_mode, SetMode.Request(mode=int(MODES[action]))
        else:
            client, message = self._triggers[action], Trigger.Request()
        if not client.service_is_ready():
            self._console.not_sent(request)
            self._screen.say(f"{action.value}: no {client.srv_name}: is the executor running?")
            return
        client.call_async(message).add_done_callback(lambda future: self._on_answer(request, future))

    def _on_answer(self, request: Request, future: Future) -> None:
        if future.exception():
            self._console.not_sent(request)
            self._screen.say(f"{request.action.value}: no answer: {future.exception()}")
            return
        answer = future.result()
        self._screen.say(_answer_line(request.action, answer))
        following = self._console.answered(request, answer.success, time.monotonic_ns())
        if following and self.active:
            self._send(following)

    def _score(self, action: Action) -> None:
        if not self._scorer.pressed(action, time.monotonic_ns()):
            return
        if action is Action.START_EPISODE:
            client = self._start_episode
            spoken = {name: self.value(name) for name in ("task", "setting", "policy")}
        elif action in (Action.MARK, Action.UNDO):
            try:
                substep = "" if action is Action.UNDO else next_substep(self._substeps(), self._recorder.substeps)
            except ValueError as error:
                self._screen.say(f"{action.value}: REFUSED: {error}")
                return
            client, spoken = self._mark_substep, {"substep": substep, "undo": action is Action.UNDO}
        else:
            client = self._stop_episode
            spoken = {"outcome": "success" if action is Action.SUCCESS else "failure"}
        if not client.service_is_ready():
            self._screen.say(f"{action.value}: no {client.srv_name}: is the recorder running?")
            return
        request = self._scorer.new(action, time.monotonic_ns())
        future = client.call_async(client.srv_type.Request(**spoken))
        future.add_done_callback(lambda future: self._on_score(request, future))

    def _substeps(self) -> list[str]:
        """Raises ValueError where the task's description cannot be read."""
        given = [name for name in self.value("substeps") if name]
        task = self._recorder.task or self.value("task")
        return given or (list(tasks.load(task).substeps) if task in tasks.names() else [])

    def _on_score(self, request: Request, future: Future) -> None:
        self._scorer.forget(request)
        action, failed = request.action, future.exception()
        self._screen.say(f"{action.value}: no answer: {failed}" if failed else _answer_line(action, future.result()))

    def _on_recorder(self, status: RecorderStatus) -> None:
        failed = status.state == RecorderStatus.FAILED and self._recorder.state != RecorderStatus.FAILED
        self._recorder = status
        if failed and self.active:
            self._screen.say(f"EPISODE FAILED: {status.reason}")

    def _full_name(self, parameter: str, example: str) -> str:
        name = self.value(parameter).rstrip("/")
        if not name.startswith("/"):
            raise ValueError(f"{parameter} is {name!r}; allowed: a node's full name, as {example}")
        return name

    def _on_mode(self, change: ModeChange) -> None:
        if not self.active:
            return
        previous, mode = Mode(change.previous), Mode(change.mode)
        self._console.mode_changed(previous, mode)
        self._screen.say(_mode_line(previous, mode, change))

    def _tick(self) -> None:
        if not self.active:
            return
        now_ns = time.monotonic_ns()
        for asked, who in ((self._console, "executor"), (self._scorer, "recorder")):
            for request in asked.overdue(now_ns):
                limit_s = ANSWER_LIMIT_NS * 1e-9
                self._screen.say(f"{request.action.value}: no answer within {limit_s:g} s: does the {who} hang?")
        if self._joystick.fell_silent(now_ns):
            self._screen.say("the joystick fell silent while its button was held")
            self._ask(Action.STOP)
        newest = self._status.newest()
        if newest is not None:
            self._heard_s, self._silent = now_ns * 1e-9, False
            self._screen.show(_recorder_words(self._recorder) + _status_line(newest))
            return
        silence_s = now_ns * 1e-9 - self._heard_s
        if silence_s > STATUS_SILENCE_S:
            if not self._silent:
                self._screen.say(f"no {self._executor_name}/status: is the executor running?")
            self._silent = True
            self._screen.show(f"no {self._executor_name}/status for {silence_s:.0f} s")

    def _close_terminal(self) -> None:
        terminal, self._terminal = self._terminal, None
        if terminal:
            terminal.close()


def _answer_line(action: Action, answer: SetMode.Response | Trigger.Response) -> str:
    gap = getattr(answer, "gap_rad", 0.0)
    gap = f" (gap {gap:.3f} rad)" if gap else ""
    return f"{action.value}: {'done' if answer.success else 'REFUSED'}: {answer.message}{gap}"


def _mode_line(previous: Mode, mode: Mode, change: ModeChange) -> str:
    arrow = mode.name if previous is mode else f"{previous.name} -> {mode.name}"
    return f"{arrow}: {change.cause}" + (" [intervention]" if change.intervention else "")


def _recorder_words(status: RecorderStatus) -> str:
    if status.state == RecorderStatus.RECORDING:
        return f"recording {status.duration_s:.0f} s, {len(status.substeps)} marked | "
    return "EPISODE FAILED | " if status.state == RecorderStatus.FAILED else ""


def _status_line(status: ExecutorStatus) -> str:
    parts = [Mode(status.mode).name]
    if status.sequence:
        age_s = nanoseconds(status.chunk_age) * 1e-9
        parts.append(f"chunk {status.sequence} step {status.step} (+{status.steps_left}) {age_s:.2f} s old")
    parts.append(f"refused {status.chunks_refused}")
    if not math.isnan(status.shadow_error_rad):
        parts.append(f"shadow error {status.shadow_error_rad:.3f} rad")
    parts.append(f"missed ticks {status.missed_ticks}")
    return " | ".join([*parts, status.cause])


def main(argv: Sequence[str] | None = None) -> int:
    # Ctrl-\ ends the node as properly as Ctrl-C.
    signal.signal(signal.SIGQUIT, lambda *_: signal.raise_signal(signal.SIGTERM))
    args = None if argv is None else [sys.argv[0], *argv]
    return run(OperatorNode, args, about=f"{__doc__}\n{KEYS_HELP}", parameters=PARAMETERS)


if __name__ == "__main__":
    sys.exit(main())
