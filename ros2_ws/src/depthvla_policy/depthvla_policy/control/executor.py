"""From chunks and feedback to one command per control tick. Puts buffer, arbiter and shaper together; knows no ROS.

All times are int nanoseconds of one clock, handed in by the caller.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from depthvla_policy.control.arbiter import Arbiter, Event, Mode
from depthvla_policy.control.chunk import Chunk, check_chunk
from depthvla_policy.control.chunk_buffer import ChunkBuffer, Due
from depthvla_policy.control.feedback import arm_positions, arm_stream, gripper_opening, gripper_stream
from depthvla_policy.control.refusal import Reason, Refusal
from depthvla_policy.control.shaper import CommandShaper
from depthvla_policy.robot import Robot

# How far outside its limits an arm may be when it is armed. The folded pose lies 0.017 rad outside.
START_MARGIN_RAD = 0.05
CLOCK_RESET_NS = 100_000_000


@dataclass(frozen=True)
class Command:
    """What goes to the robot at one tick."""

    positions: np.ndarray  # (14,) absolute targets in `Robot` order, rad and mm
    velocity_cap: np.ndarray  # (arm joints,) rad/s, the tracker's own speed cap for each arm


@dataclass(frozen=True)
class ExecutorState:
    """Everything that depthvla_msgs/ExecutorStatus tells about the executor itself."""

    mode: Mode
    cause: str
    sequence: int  # of the chunk in execution; 0 when none
    step: int
    steps_left: int
    chunk_age_ns: int
    latency_ns: int
    chunks_accepted: int
    chunks_refused: int
    last_refusal: str
    clamped_position: int
    clamped_velocity: int


class ChunkExecutor:
    """Streams a pose at every tick from `arm` to `disarm`: due steps of chunks in POLICY, else the last command.

    The first command after `arm` starts at the measured pose; nothing else than a measurement or a chunk ever becomes
    a target. See `arbiter` for who may change the mode.
    """

    def __init__(
        self, robot: Robot, *, period_s: float, max_feedback_age_s: float = 0.2, max_future_s: float = 0.05
    ) -> None:
        self._robot = robot
        self._period_ns = round(period_s * 1e9)
        self._max_feedback_age_ns = round(max_feedback_age_s * 1e9)
        self._buffer = ChunkBuffer(round(max_future_s * 1e9))
        self._shaper = CommandShaper(robot)
        self._arbiter = Arbiter()
        self._measured = np.full(robot.size, np.nan)
        self._heard_ns: dict[str, int | None] = {
            name: None for limb in robot.limbs for name in (arm_stream(limb.name), gripper_stream(limb.name))
        }
        self._ticked_ns: int | None = None
        self._due: Due | None = None
        self._latency_ns = 0
        self._accepted = 0
        self._last_refusal = ""
        self.refusals: Counter[Reason] = Counter()  # chunks refused, by reason
        self.feedback_refusals: Counter[tuple[str, Reason]] = Counter()
        self.clock_resets = 0

    @property
    def mode(self) -> Mode:
        return self._arbiter.mode

    @property
    def engaged(self) -> bool:
        """Whether chunks may move the robot."""
        return self._arbiter.engaged

    def arm(self, now_ns: int, cause: str = "armed, waiting for chunks") -> Refusal | None:
        """Starts streaming at the measured pose and engages the policy; from HOLD it only engages.

        Refused without fresh feedback of every limb, with an arm outside its limits, and in FAULT.
        """
        refusal = self._feedback_refusal(now_ns)
        if refusal is None and self.mode is Mode.DISARMED:
            refusal = self._start_refusal()
        refusal = refusal or self._arbiter.apply(Event.ARM, cause)
        if refusal is None and self._shaper.last is None:
            self._shaper.start(self._measured)
        return refusal

    def disarm(self, cause: str = "disarmed") -> Refusal | None:
        refusal = self._arbiter.apply(Event.DISARM, cause)
        if refusal is None:
            self._buffer.clear()
            self._shaper.reset()
            self._due = None
        return refusal

    def stop(self, cause: str = "stopped") -> Refusal | None:
        """Holds the last commanded pose until `arm` engages the policy again. Idempotent, possible in every mode."""
        self._buffer.clear()
        return self._arbiter.apply(Event.STOP, cause)

    def fault(self, cause: str) -> Refusal | None:
        """Latches; the last commanded pose is held."""
        self._buffer.clear()
        return self._arbiter.apply(Event.FAULT, cause)

    def reset_fault(self, cause: str = "fault was reset") -> Refusal | None:
        return self._arbiter.apply(Event.RESET_FAULT, cause)

    def policy_lost(self, cause: str) -> None:
        """The policy's process is gone: what it predicted is not played to the end."""
        self._buffer.clear()
        self._arbiter.apply(Event.POLICY_LOST, cause)

    def offer(self, chunk: Chunk, now_ns: int) -> Refusal | None:
        """Takes a chunk whole or refuses it whole. It is taken in every mode, but moves the robot only in POLICY."""
        self._watch_clock(now_ns)
        refusal = check_chunk(chunk, self._robot) or self._buffer.offer(chunk, now_ns)
        if refusal:
            self.refuse_chunk(refusal)
        else:
            self._accepted += 1
            self._latency_ns = now_ns - chunk.stamp_ns
        return refusal

    def refuse_chunk(self, refusal: Refusal) -> None:
        """Counts a chunk that was refused before it could be offered (its message made no chunk)."""
        self.refusals[refusal.reason] += 1
        self._last_refusal = refusal.message

    def feedback_arm(self, limb: str, positions: Sequence[float], now_ns: int) -> Refusal | None:
        """Measured joint positions [rad], received at `now_ns`."""
        spec = self._robot.limb(limb)
        return self._feedback(arm_stream(limb), spec.arm, arm_positions(self._robot, spec, positions), now_ns)

    def feedback_gripper(self, limb: str, positions: Sequence[float], now_ns: int) -> Refusal | None:
        """Measured gripper opening [mm], received at `now_ns`."""
        spec = self._robot.limb(limb)
        value = gripper_opening(self._robot, spec, positions)
        return self._feedback(gripper_stream(limb), spec.gripper_index, value, now_ns)

    def tick(self, now_ns: int) -> Command | None:
        """The command of this tick; None when nothing may be published."""
        self._watch_clock(now_ns)
        dt_s = self._elapsed_s(now_ns)
        self._ticked_ns = now_ns
        self._due = None
        if self.mode is Mode.DISARMED:
            return None
        due = self._buffer.due(now_ns)
        silence = self._silence(due, now_ns)
        if silence:
            self._arbiter.apply(Event.POLICY_LOST, silence)
        else:
            self._arbiter.apply(Event.POLICY_READY, "the policy sends chunks")
        target = self._shaper.last
        if self.mode is Mode.POLICY:
            self._due = due
            target = due.positions
        return Command(self._shaper.shape(target, dt_s), self._robot.tracker_velocity)

    @property
    def state(self) -> ExecutorState:
        due = self._due
        return ExecutorState(
            mode=self._arbiter.mode,
            cause=self._arbiter.cause,
            sequence=due.sequence if due else 0,
            step=due.step if due else 0,
            steps_left=due.steps_left if due else 0,
            chunk_age_ns=due.age_ns if due else 0,
            latency_ns=self._latency_ns,
            chunks_accepted=self._accepted,
            chunks_refused=sum(self.refusals.values()),
            last_refusal=self._last_refusal,
            clamped_position=self._shaper.clamped_position,
            clamped_velocity=self._shaper.clamped_velocity,
        )

    def _elapsed_s(self, now_ns: int) -> float:
        """Time since the last tick, at most one period: a late tick must not be caught up by a larger step."""
        elapsed = self._period_ns if self._ticked_ns is None else now_ns - self._ticked_ns
        return min(max(elapsed, 0), self._period_ns) * 1e-9

    def _silence(self, due: Due | None, now_ns: int) -> str | None:
        """Why no chunk may be followed at this tick."""
        refusal = self._feedback_refusal(now_ns)
        if refusal:
            return refusal.message
        if due is None:
            last = self._buffer.chunk
            ran_out = f": chunk {last.sequence} ran out" if last else ""
            return f"policy silent{ran_out}"
        return None

    def _feedback(self, name: str, where: slice | int, value: np.ndarray | float | Refusal, now_ns: int):
        if isinstance(value, Refusal):
            self.feedback_refusals[name, value.reason] += 1
            return value
        self._measured[where] = value
        self._heard_ns[name] = now_ns
        return None

    def _feedback_refusal(self, now_ns: int) -> Refusal | None:
        limit = self._max_feedback_age_ns
        for name, heard in self._heard_ns.items():
            if heard is None:
                return Refusal(Reason.NO_FEEDBACK, f"no feedback of {name} yet", name)
            if now_ns - heard > limit:
                text = f"feedback of {name} is {(now_ns - heard) * 1e-9:.2f} s old (limit {limit * 1e-9:.2f} s)"
                return Refusal(Reason.NO_FEEDBACK, text, name)
        return None

    def _start_refusal(self) -> Refusal | None:
        # A gripper's reading was already held against its own plausible range.
        margin = np.where(self._robot.gripper_mask, np.inf, START_MARGIN_RAD)
        low, high = self._robot.position_min, self._robot.position_max
        outside = np.flatnonzero((self._measured < low - margin) | (self._measured > high + margin))
        if not outside.size:
            return None
        index = outside[0]
        text = (
            f"{self._robot.joint_names[index]} stands at {self._measured[index]:.3f} rad, outside"
            f" {low[index]:.3f} to {high[index]:.3f}; move it back in by hand"
        )
        return Refusal(Reason.OUT_OF_RANGE, text)

    def _watch_clock(self, now_ns: int) -> None:
        """A clock that was set back (a simulation that was restarted) makes every stored time meaningless."""
        if self._ticked_ns is None or now_ns >= self._ticked_ns - CLOCK_RESET_NS:
            return
        self.clock_resets += 1
        self.policy_lost(f"the clock went back by {(self._ticked_ns - now_ns) * 1e-9:.2f} s")
        self._heard_ns = dict.fromkeys(self._heard_ns)
        self._ticked_ns = now_ns
