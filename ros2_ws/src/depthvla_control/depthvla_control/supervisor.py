"""What changes the executor's mode between its ticks: the start that was asked for, other publishers, a person's
requests and the pedal. Knows no ROS.

From a request on a person decides: nothing that was to go on by itself goes on any more.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from depthvla_control.arbiter import Mode
from depthvla_control.executor import Answer, ChunkExecutor
from depthvla_control.refusal import Reason, Refusal


@dataclass(frozen=True)
class OtherPublisher:
    """Who publishes too, and what to do about it. `rival`: it is known not to be an allowed one."""

    text: str
    rival: bool


class PublisherWatch(Protocol):
    """What `SoleWriter` does."""

    def rival(self, now_s: float) -> str | None: ...

    def check(self, now_s: float) -> OtherPublisher | None: ...


class Supervisor:
    """Times `now_ns` are the executor's; `steady_s` is of a clock that nobody sets."""

    def __init__(
        self,
        executor: ChunkExecutor,
        *,
        receive: Callable[[int], None],
        start_mode: Mode,
        command_watch: PublisherWatch,
        feedback_watch: PublisherWatch | None,
        pedal_timeout_s: float,
    ) -> None:
        """`receive` hands the executor what has come by `now_ns`: a request is judged on the newest feedback.
        `start_mode` is taken without a person as soon as there is feedback; DISARMED: never. `feedback_watch` is of the
        feedback that the executor may arm itself on, where it may. `pedal_timeout_s` is how long a pressed pedal may be
        silent; 0: for ever.
        """
        self._executor, self._receive = executor, receive
        self._start_mode = self._pending = start_mode  # pending: still to be taken
        self._command_watch, self._feedback_watch = command_watch, feedback_watch
        self._attended = False  # a person has made a request
        self._interrupted: Mode | None = None  # what goes on once a publisher has turned out to be an allowed one
        self._pedal_timeout_s = pedal_timeout_s
        self._pedal_pressed, self._pedal_heard_s = False, 0.0
        self._pedal_commands = False  # teleoperation lasts as long as the pedal is pressed

    @property
    def waits_for_publisher(self) -> bool:
        """Whether the arms are held until a publisher is known."""
        return self._interrupted is not None

    def update(self, now_ns: int, steady_s: float) -> None:
        """Before every tick."""
        self._start(now_ns, steady_s)
        self._check_pedal(steady_s)
        if self._executor.mode is not Mode.DISARMED:
            self._check_publishers(now_ns, steady_s)

    def arm(self, now_ns: int, steady_s: float, cause: str) -> Refusal | None:
        self.attend()
        self._receive(now_ns)
        return self._arm(now_ns, steady_s, cause)

    def set_mode(self, mode: Mode, now_ns: int, cause: str) -> Answer:
        self.attend()
        self._receive(now_ns)
        return self._executor.set_mode(mode, now_ns, cause)

    def attend(self) -> None:
        """A person has made a request."""
        self._pending, self._interrupted = Mode.DISARMED, None
        self._attended, self._pedal_commands = True, False

    def pedal(self, pressed: bool, now_ns: int, steady_s: float) -> Refusal | None:
        """A pedal that is pressed takes over, and gives back when it is released. A switch that is refused holds the
        arms.
        """
        self._pedal_heard_s = steady_s
        if pressed == self._pedal_pressed:
            return None
        self._pedal_pressed = pressed
        if pressed:
            refusal = self.set_mode(Mode.TELEOP, now_ns, "taken over by ~/takeover").refusal
            self._pedal_commands = refusal is None
            return refusal
        if not (self._pedal_commands and self._in_teleoperation):
            return None
        refusal = self.set_mode(Mode.POLICY, now_ns, "given back by ~/takeover").refusal
        if refusal:
            self._executor.stop(f"the policy cannot take over, holding instead: {refusal}")
        return refusal

    @property
    def _in_teleoperation(self) -> bool:
        return Mode.TELEOP in (self._executor.mode, self._interrupted)

    def _start(self, now_ns: int, steady_s: float) -> None:
        """Takes the mode that was asked for at activation, as soon as that is possible.

        Also after a simulation paused for so long that the arms were lost, unless a person has decided meanwhile.
        """
        executor = self._executor
        if executor.feedback_lost and not self._attended:
            self._pending = self._start_mode
        if self._pending is Mode.DISARMED:
            return
        if refusal := self._arm(now_ns, steady_s, "armed on activation"):
            if refusal.reason is Reason.NOT_ALLOWED:
                executor.stop(f"not armed: {refusal}")  # changes nothing but the cause that is told
            return
        if self._pending is Mode.POLICY and executor.set_mode(Mode.POLICY, now_ns, "waiting for chunks").refusal:
            return
        self._pending = Mode.DISARMED

    def _arm(self, now_ns: int, steady_s: float, cause: str) -> Refusal | None:
        rival = None
        if self._executor.mode is Mode.DISARMED:
            watches = filter(None, (self._command_watch, self._feedback_watch))
            rival = next(filter(None, (watch.rival(steady_s) for watch in watches)), None)
        return Refusal(Reason.NOT_ALLOWED, rival) if rival else self._executor.arm(now_ns, cause)

    def _check_pedal(self, steady_s: float) -> None:
        """A pedal that is pressed says so again and again: whoever pressed one that fell silent may be gone, too. When
        it is back, still pressed, it has nothing to say until it was released.
        """
        limit_s = self._pedal_timeout_s
        if self._pedal_commands and limit_s and steady_s - self._pedal_heard_s > limit_s:
            held = self._in_teleoperation
            self.attend()
            if held:
                self._executor.stop(
                    f"~/takeover fell silent for {limit_s:g} s while pressed; release it, then press it"
                )

    def _check_publishers(self, now_ns: int, steady_s: float) -> None:
        """A rival is a fault. A publisher of a node that is not known yet holds the arms until it is known."""
        executor = self._executor
        if self._feedback_watch and (other := self._feedback_watch.check(steady_s)):
            self._leave_robot(other)
            return
        other = self._command_watch.check(steady_s)
        if other is None:
            self._resume(now_ns)
        elif other.rival:
            self._interrupted = None
            executor.fault(other.text)
        elif executor.engaged or executor.mode is Mode.TELEOP:
            self._interrupted = Mode.TELEOP if executor.mode is Mode.TELEOP else Mode.POLICY
            executor.stop(other.text)

    def _leave_robot(self, other: OtherPublisher) -> None:
        """Whoever gives feedback beside the simulation may be a robot: it gets no further command, not even to hold."""
        if other.rival:
            self.attend()
        else:
            self._pending = Mode.DISARMED if self._attended else self._start_mode
        self._executor.disarm(other.text, at_once=True)

    def _resume(self, now_ns: int) -> None:
        """Once only: what cannot go on now is put in command by a person."""
        mode, self._interrupted = self._interrupted, None
        if mode is None or self._executor.mode is not Mode.HOLD:
            return
        refusal = self._executor.set_mode(mode, now_ns, "another node that publishes is an allowed one").refusal
        if refusal:
            self._executor.stop(f"{mode.name} cannot go on after another node's publisher: {refusal}")
