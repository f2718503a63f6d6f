"""From chunks, leader arms and feedback to one command per control tick. Puts timeline, arbiter, teleop and shaper
together; knows no ROS.

All times are int nanoseconds of one clock, handed in by the caller.
"""

from __future__ import annotations

import dataclasses
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from depthvla_control.arbiter import Arbiter, Event, Mode
from depthvla_control.chunk import Chunk, check_chunk
from depthvla_control.execution_plan import Plan
from depthvla_control.executor_config import ExecutorConfig
from depthvla_control.refusal import Reason, Refusal
from depthvla_control.robot_state import Measurement
from depthvla_control.shadow_mode import Shadow
from depthvla_control.shaper import CommandShaper
from depthvla_control.teleop import Leader
from depthvla_control.timeline import Due, Timeline
from r1lite_description.robot import Robot

CLOCK_RESET_S = 0.1
CAUGHT_UP_RAD = 0.02  # arms this near to where the new source wants them have caught up with it
# The tracker's speed cap follows the commanded speed, but never falls below this, times the speed scale: an arm that
# trails must catch up.
VELOCITY_FLOOR_RAD_S = 1.0
# An arm joint this far from where it is held has left that pose. An arm that trails a fast command is nearer.
AWAY_RAD = 0.15
LATENCIES_KEPT = 32


@dataclass(frozen=True)
class Command:
    """What goes to the robot at one tick."""

    positions: np.ndarray  # (14,) absolute targets in `Robot` order, rad and mm
    velocity_cap: np.ndarray  # (14,) the tracker's own speed cap for each arm joint [rad/s]; no meaning for grippers


@dataclass(frozen=True)
class ExecutorState:
    """Everything that depthvla_msgs/ExecutorStatus tells about the executor itself."""

    mode: Mode
    cause: str
    sequence: int  # of the newest chunk in execution; 0 when none
    step: int
    steps_left: int
    chunk_age_ns: int
    latency_ns: int
    armed_model: str
    chunks_accepted: int
    chunks_refused: int
    last_refusal: str
    clamped_position: int
    clamped_velocity: int
    interventions: int
    shadow_error_rad: float


@dataclass(frozen=True)
class Answer:
    """To a request for a mode. refusal: why nothing changed. gap_rad: to where the new source wants the arms."""

    refusal: Refusal | None
    gap_rad: float = 0.0


class ChunkExecutor:
    """Streams a pose at every tick from `arm` to `disarm`: chunks in POLICY, leader arms in TELEOP, else a stand.

    The first command after `arm` starts at the measured pose; nothing else than a measurement, a leader or a chunk ever
    becomes a target. See `arbiter` for who may change the mode. While the policy is not in command, `shadow` is what it
    would command.

    Short silence of the feedback holds the arms, and whoever was in command goes on after it. Beyond `feedback_lost_s`
    nobody knows where the arms are: the stream ends, nobody is in command, and when feedback is back the stream starts
    anew at the measured pose. The same after a pause of the ticks themselves, and for an arm that is found away from
    where it was held or that does not follow.
    """

    def __init__(self, robot: Robot, *, period_s: float, config: ExecutorConfig | None = None) -> None:
        self.config = c = config or ExecutorConfig()
        self._robot = robot
        self._arms = ~robot.gripper_mask
        self._period_ns = round(period_s * 1e9)
        self._timeline = Timeline(
            c.strategy, blend_s=c.blend_s, ensemble_decay_per_s=c.ensemble_decay_per_s, max_future_s=c.max_future_s
        )
        self._shaper = CommandShaper(robot, position_margin_rad=c.position_margin_rad, speed_scale=c.speed_scale)
        self._shadow = Shadow(
            robot, CommandShaper(robot, position_margin_rad=c.position_margin_rad, speed_scale=c.speed_scale)
        )
        self._feedback_silent = False  # at the last tick
        self._lost = False  # the arms may be anywhere: no stream until they have been heard again
        self._ending: str | None = None  # cause of the disarming that waits for the arms to come to rest
        self._arbiter = Arbiter()
        self._leader = Leader(robot, c.max_leader_age_s, c.max_feedback_jump_rad)
        self._measurement = Measurement(robot, max_age_s=c.max_feedback_age_s, max_jump_rad=c.max_feedback_jump_rad)
        self._ticked_ns: int | None = None
        self._steady_ns: int | None = None  # of the same tick
        self._catching_up = False  # the source in command is new, and the arms are not yet where it wants them
        self._due: Due | None = None
        self._model: str | None = None
        self._latencies_ns: deque[int] = deque(maxlen=LATENCIES_KEPT)
        self._accepted = 0
        self._last_refusal = ""
        self.shadow: np.ndarray | None = None  # (14,) of the newest tick
        self.refusals: Counter[Reason] = Counter()  # chunks refused, by reason
        self.clock_resets = 0

    @property
    def mode(self) -> Mode:
        return self._arbiter.mode

    @property
    def engaged(self) -> bool:
        """Whether chunks may move the robot."""
        return self._arbiter.engaged

    @property
    def feedback_refusals(self) -> Counter[tuple[str, Reason]]:
        return self._measurement.refusals

    @property
    def leader_refusals(self) -> Counter[tuple[str, Reason]]:
        return self._leader.refusals

    @property
    def lost(self) -> bool:
        """Whether the arms may be anywhere: armed or not, nothing is streamed until they have been heard again."""
        return self._lost

    def set_speed_scale(self, scale: float) -> None:
        """Of the velocity limits, from the next tick on. Raises ValueError unless it is above 0 and up to 1."""
        self.config = dataclasses.replace(self.config, speed_scale=scale)
        self._shaper.speed_scale = self._shadow.shaper.speed_scale = scale

    def arm(self, now_ns: int, cause: str = "armed") -> Refusal | None:
        """Starts streaming at the measured pose, in HOLD. From HOLD, TELEOP and POLICY it changes nothing.

        Refused without fresh feedback of every limb, with an arm outside its limits, in FAULT, and while the arms come
        to rest to be disarmed.
        """
        if self._ending:
            return self._ending_refusal()
        if self.mode is Mode.DISARMED:
            refusal = self._measurement.stale(now_ns) or self._measurement.outside()
            if refusal:
                return refusal
            self._shaper.start(self._measurement.positions)
            self._measurement.on_track()
            self._feedback_silent = self._lost = False
            self._model = self._timeline.chunk.model_id if self._timeline.due(now_ns) else None
        return self._arbiter.apply(Event.ARM, cause)

    def disarm(self, cause: str = "disarmed", *, at_once: bool = False) -> Refusal | None:
        """Ends the stream as soon as the arms are at rest: in mid-motion that takes ticks, and `ending` is true until
        then. `at_once` cuts it.
        """
        if at_once or self._lost or self._shaper.at_rest:
            return self._end(cause)
        self._ending = cause
        return self._arbiter.apply(Event.STOP, f"coming to rest: {cause}")

    @property
    def ending(self) -> bool:
        """Whether the arms are coming to rest to be disarmed."""
        return self._ending is not None

    def stop(self, cause: str = "stopped") -> Refusal | None:
        """Stops the arms until somebody is put in command again. Idempotent, possible in every mode."""
        return self._arbiter.apply(Event.STOP, cause)

    def fault(self, cause: str) -> Refusal | None:
        """Latches; the arms are stopped."""
        return self._arbiter.apply(Event.FAULT, cause)

    def reset_fault(self, cause: str = "fault was reset") -> Refusal | None:
        return self._arbiter.apply(Event.RESET_FAULT, cause)

    def set_mode(self, mode: Mode, now_ns: int, cause: str = "requested") -> Answer:
        """Puts the policy, a person or nobody in command.

        Refused when the new source is silent, or when an arm is further than `max_gap_rad` from where it wants it. A
        person who wants to take over from the policy does not want it to go on: refused, that holds the arms.
        """
        if mode is Mode.DISARMED:
            return Answer(self.disarm(cause))
        if mode is Mode.HOLD:
            if self.mode is Mode.DISARMED:
                return Answer(Refusal(Reason.NOT_ALLOWED, "the arms are not armed; ~/arm does that"))
            return Answer(self.stop(cause))
        if mode is Mode.TELEOP:
            return self._take_over(now_ns, cause)
        if mode is Mode.POLICY:
            return self._hand_over(now_ns, cause)
        return Answer(Refusal(Reason.NOT_ALLOWED, f"{mode.name} is not a mode to be asked for"))

    def withdraw(self, cause: str, stamp_ns: int) -> None:
        """The policy takes back what it predicted from observations up to `stamp_ns`; 0: from all of them."""
        newest = self._timeline.chunk
        if newest is None or not 0 < stamp_ns < newest.stamp_ns:
            self.policy_lost(cause)

    def policy_lost(self, cause: str) -> None:
        """The policy is gone or blind: what it predicted is not played to the end."""
        self._timeline.clear()
        self._arbiter.apply(Event.POLICY_LOST, cause)

    def offer(self, chunk: Chunk, now_ns: int) -> Refusal | None:
        """Takes a chunk whole or refuses it whole. It is taken in every mode, but moves the robot only in POLICY."""
        self._watch_clock(now_ns)
        refusal = (
            check_chunk(chunk, self._robot, self.config.gross_rad, self.config.gross_mm)
            or self._model_refusal(chunk)
            or self._timeline.offer(chunk, now_ns)
        )
        if refusal:
            self.refuse_chunk(refusal)
            if refusal.reason is Reason.OUT_OF_RANGE and self.engaged:
                self.fault(str(refusal))
            return refusal
        if self.mode is not Mode.DISARMED and self._model is None:
            self._model = chunk.model_id
        self._accepted += 1
        self._latencies_ns.append(now_ns - chunk.stamp_ns)
        return None

    def refuse_chunk(self, refusal: Refusal) -> None:
        """Counts a chunk that was refused before it could be offered (its message made no chunk)."""
        self.refusals[refusal.reason] += 1
        self._last_refusal = refusal.message

    def plan(self) -> Plan:
        """What is going to be done in POLICY; without steps in another mode, and before the first chunk."""
        chunk, latency_ns = self._timeline.chunk, max(self._latencies_ns, default=0)
        if chunk is None or self.mode is not Mode.POLICY:
            return Plan(0, 0, self._period_ns, latency_ns, np.empty((0, self._robot.size)))
        return Plan(chunk.stamp_ns, chunk.sequence, chunk.period_ns, latency_ns, self._timeline.plan())

    def feedback_arm(
        self, limb: str, positions: Sequence[float], now_ns: int, names: Sequence[str] = ()
    ) -> Refusal | None:
        """Measured positions [rad], their names if any, received at `now_ns`. A jump of an armed robot is a fault."""
        refusal = self._measurement.arm(limb, positions, now_ns, names)
        if refusal and refusal.reason is Reason.JUMP:
            self.fault(refusal.message)
        return refusal

    def feedback_gripper(
        self, limb: str, positions: Sequence[float], now_ns: int, names: Sequence[str] = ()
    ) -> Refusal | None:
        """Measured gripper opening [mm], received at `now_ns`."""
        return self._measurement.gripper(limb, positions, now_ns, names)

    def leader_arm(
        self, limb: str, stamp_ns: int, positions: Sequence[float], now_ns: int, names: Sequence[str] = ()
    ) -> Refusal | None:
        """Joint positions [rad] of a leader arm, received at `now_ns`; a 7th value is the gripper's opening [mm]."""
        return self._leader.arm(limb, stamp_ns, positions, now_ns, names)

    def leader_gripper(self, limb: str, positions: Sequence[float], names: Sequence[str] = ()) -> Refusal | None:
        """Gripper opening [mm] that a leader asks for."""
        return self._leader.gripper(limb, positions, names)

    def tick(self, now_ns: int, steady_ns: int | None = None) -> Command | None:
        """The command of this tick; None when nothing may be published.

        steady_ns: of a clock that nobody sets, which tells how much time passed since the last tick; `now_ns` when left
        out, as where time is simulated from tick to tick.
        """
        steady_ns = now_ns if steady_ns is None else steady_ns
        self._watch_clock(now_ns, steady_ns)
        dt_s = self._elapsed_s(steady_ns)
        self._ticked_ns, self._steady_ns = now_ns, steady_ns
        due = self._timeline.due(now_ns)
        self._judge(due, now_ns)
        self._due = due if self.mode is Mode.POLICY else None
        command, rested = None, self._shaper.at_rest
        if self.mode is not Mode.DISARMED and not self._lost:
            before = self._shaper.position
            command = self._command(self._move(dt_s), before, dt_s)
        if self._ending and (rested or self._lost):  # the pose at rest was said twice
            self._end(self._ending)
        self._cast_shadow(due, command, now_ns, dt_s)
        return command

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
            latency_ns=self._latencies_ns[-1] if self._latencies_ns else 0,
            armed_model=self._model or "",
            chunks_accepted=self._accepted,
            chunks_refused=sum(self.refusals.values()),
            last_refusal=self._last_refusal,
            clamped_position=self._shaper.clamped_position,
            clamped_velocity=self._shaper.clamped_velocity,
            interventions=self._arbiter.interventions,
            shadow_error_rad=self._shadow.error_rad,
        )

    def _judge(self, due: Due | None, now_ns: int) -> None:
        """Whether whoever is in command may stay so at this tick, and whether the policy may take command."""
        if self.mode is Mode.DISARMED:
            return
        stale = self._measurement.stale(now_ns)
        if stale:
            self._without_feedback(stale, now_ns)
        elif self._feedback_silent:
            self._feedback_is_back()
        elif self._measurement.interrupted and self._measurement.apart(self._shaper.position).max() > AWAY_RAD:
            self._without_feedback(Refusal(Reason.NO_FEEDBACK, "feedback was away between two ticks"), now_ns)
        else:
            self._measurement.interrupted = False
            self._watch_tracking(now_ns)
        silence = self._leader.silence(now_ns)
        if silence and self.mode is Mode.TELEOP:
            self._arbiter.apply(Event.TELEOP_LOST, f"{silence.message}; take over again")
        if due is None:
            last = self._timeline.chunk
            ran_out = f": chunk {last.sequence} ran out" if last else ""
            self._arbiter.apply(Event.POLICY_LOST, f"policy silent{ran_out}")
        elif not self._feedback_silent and self.mode is Mode.HOLD and self.engaged:
            refusal = self._gap_refusal("the policy", self._gap(due.motion[0]))
            if refusal:
                self._arbiter.explain(refusal.message)
            else:
                self._catching_up = True
                self._arbiter.apply(Event.POLICY_READY, "the policy sends chunks")

    def _without_feedback(self, stale: Refusal, now_ns: int) -> None:
        self._feedback_silent = True
        self._arbiter.apply(Event.FEEDBACK_LOST, stale.message)
        long = self._measurement.silence_s(now_ns) > self.config.feedback_lost_s
        if long and not self._lost and self._shaper.at_rest:
            self._lose_arms(stale.message)

    def _lose_arms(self, why: str) -> None:
        """The arms may be anywhere. The robot must not be sent back to where they were, the moment it listens again."""
        self._lost = True
        self.stop(f"{why}: no commands until it is back; then put a source in command again")

    def _feedback_is_back(self) -> None:
        self._measurement.interrupted = False
        if not (self._lost or self._shaper.at_rest):
            return  # braked to rest first
        self._feedback_silent = False
        apart = self._measurement.apart(self._shaper.position)
        if self._lost:
            self._start_anew(self._arms)
            if self.mode is Mode.HOLD:
                self._arbiter.explain("feedback was lost and is back; put a source in command again")
        elif apart.max() > AWAY_RAD:
            joint = self._robot.joint_names[int(apart.argmax())]
            self.stop(
                f"{joint} is {apart.max():.2f} rad from where it was held when feedback was lost; put a source in"
                " command again"
            )
            self._start_anew(apart > AWAY_RAD)
        self._lost = False

    def _watch_tracking(self, now_ns: int) -> None:
        off_track = self._measurement.off_track(
            self._shaper.position, now_ns, limit_rad=self.config.max_tracking_error_rad, limit_s=self.config.tracking_s
        )
        # In a fault for another reason, such as feedback that jumped, the arm is not sent after its feedback.
        if off_track and self.mode is not Mode.FAULT:
            self.fault(off_track.message)
            # What blocks the arm is not pressed against any longer.
            self._start_anew(self._measurement.apart(self._shaper.position) > AWAY_RAD)

    def _start_anew(self, joints: np.ndarray) -> None:
        self._shaper.start_anew(self._measurement.positions, joints)
        self._measurement.on_track()
        outside = self._measurement.outside()
        if outside:
            self.fault(outside.message)

    def _end(self, cause: str) -> Refusal | None:
        refusal = self._arbiter.apply(Event.DISARM, cause)
        self._shaper.reset()
        self._due = self._ending = None
        return refusal

    def _ending_refusal(self) -> Refusal:
        return Refusal(Reason.NOT_ALLOWED, f"the arms are coming to rest to be disarmed: {self._ending}")

    def _move(self, dt_s: float) -> np.ndarray:
        if self.mode is Mode.POLICY:
            wanted = self._due.motion
        elif self.mode is Mode.TELEOP:
            wanted = self._leader.target(self._shaper.position)
        else:
            return self._shaper.brake(dt_s)
        position = self._shaper.follow(wanted, dt_s, self.config.catch_up_scale if self._catching_up else 1.0)
        if np.abs(wanted[0] - position)[self._arms].max() < CAUGHT_UP_RAD:
            self._catching_up = False
        return position

    def _command(self, positions: np.ndarray, before: np.ndarray, dt_s: float) -> Command:
        speed = np.abs(self._shaper.velocity)
        if dt_s > 0.0:
            speed = np.maximum(speed, np.abs(positions - before) / dt_s)
        most, scale = np.zeros(self._robot.size), self.config.speed_scale
        for limb in self._robot.limbs:
            most[limb.arm] = scale * self._robot.tracker_velocity
        floor = np.minimum(scale * VELOCITY_FLOOR_RAD_S, most)
        return Command(positions, np.clip(self.config.velocity_headroom * speed, floor, most))

    def _cast_shadow(self, due: Due | None, command: Command | None, now_ns: int, dt_s: float) -> None:
        self.shadow = None
        if self.mode is Mode.POLICY or self._measurement.stale(now_ns):
            self._shadow.stop()
        else:
            done = command.positions if command else self._measurement.positions
            self.shadow = self._shadow.step(due.motion if due else None, done, dt_s)

    def _take_over(self, now_ns: int, cause: str) -> Answer:
        if self._ending:
            return Answer(self._ending_refusal())
        answer = self._take_over_answer(now_ns)
        if answer.refusal is None:
            return Answer(self._arbiter.apply(Event.TAKE_OVER, cause), answer.gap_rad)
        if self.mode is Mode.POLICY:
            self.stop(f"take-over refused, holding instead: {answer.refusal}")
        return answer

    def _take_over_answer(self, now_ns: int) -> Answer:
        refusal = self._arbiter.refusal(Event.TAKE_OVER) or self._blind(now_ns) or self._leader.silence(now_ns)
        if refusal:
            return Answer(refusal)
        if self.mode is Mode.TELEOP:
            return Answer(None)
        position = self._shaper.position
        self._leader.release()
        gap = self._gap(self._leader.target(position)[0])
        if self.config.take_over == "reanchor":
            self._leader.anchor(position)
        elif refusal := self._gap_refusal("the leader", gap):
            return Answer(refusal, gap)
        self._catching_up = True
        return Answer(None, gap)

    def _hand_over(self, now_ns: int, cause: str) -> Answer:
        if self._ending:
            return Answer(self._ending_refusal())
        refusal = self._arbiter.refusal(Event.HAND_OVER) or self._blind(now_ns)
        if refusal:
            return Answer(refusal)
        due, gap = self._timeline.due(now_ns), 0.0
        if due is None and self.mode is Mode.TELEOP:
            return Answer(Refusal(Reason.MISSING, "the policy has nothing to follow; teleoperation goes on"))
        if due is not None and self.mode is not Mode.POLICY:
            gap = self._gap(due.motion[0])
            refusal = self._gap_refusal("the policy", gap)
            if refusal:
                return Answer(refusal, gap)
            self._catching_up = True
        return Answer(self._arbiter.apply(Event.HAND_OVER, cause), gap)

    def _blind(self, now_ns: int) -> Refusal | None:
        """Why it is not known where the stream stands against the arms; None while DISARMED, without a stream."""
        stale = self._measurement.stale(now_ns)
        if stale is None and self._feedback_silent and self.mode is not Mode.DISARMED:
            return Refusal(Reason.NO_FEEDBACK, "feedback was away and is just back; ask again")
        return stale

    def _gap(self, wanted: np.ndarray) -> float:
        """From where an arm is as well as from where it was sent."""
        sent, measured = self._shaper.position, self._measurement.positions
        return float(np.maximum(np.abs(wanted - sent), np.abs(wanted - measured))[self._arms].max())

    def _gap_refusal(self, who: str, gap: float) -> Refusal | None:
        limit = self.config.max_gap_rad
        if gap <= limit:
            return None
        return Refusal(Reason.GAP, f"{who} wants an arm joint {gap:.2f} rad from where it is (limit {limit:.2f} rad)")

    def _model_refusal(self, chunk: Chunk) -> Refusal | None:
        present = self._timeline.chunk
        if self.mode is Mode.DISARMED:
            if present is not None and present.model_id != chunk.model_id:
                self._timeline.clear()  # nobody is bound to a model yet
            return None
        if self._model is None or chunk.model_id == self._model:
            return None
        text = f"chunk {chunk.sequence} is from model {chunk.model_id!r}; armed for {self._model!r} (disarm, arm anew)"
        return Refusal(Reason.OTHER_MODEL, text)

    def _elapsed_s(self, steady_ns: int) -> float:
        """Time since the last tick, at most one period: a late tick must not be caught up by a larger step.

        One period also at the first tick, and where the only clock there is was set back: ticks went on meanwhile.
        """
        elapsed = -1 if self._steady_ns is None else steady_ns - self._steady_ns
        return (min(elapsed, self._period_ns) if elapsed >= 0 else self._period_ns) * 1e-9

    def _watch_clock(self, now_ns: int, steady_ns: int | None = None) -> None:
        """A clock that was set (a simulation that was restarted) makes every stored time meaningless. Ticks that paused
        (a process that was stopped) are silence of our own, during which an arm may have been moved.
        """
        if self._ticked_ns is None:
            return
        ahead_s = (now_ns - self._ticked_ns) * 1e-9
        paused_s = 0.0 if steady_ns is None else (steady_ns - self._steady_ns) * 1e-9
        if paused_s > self.config.feedback_lost_s:
            self._forget(now_ns)
            if self.mode is not Mode.DISARMED:
                self._lose_arms(f"no command was sent for {paused_s:.2f} s, and feedback is of before")
        elif ahead_s < -CLOCK_RESET_S:
            self._forget(now_ns)
            self._set_back(-ahead_s)
        elif steady_ns is not None and ahead_s - paused_s > self.config.feedback_lost_s:
            self._forget(now_ns)
            self.stop(f"the clock went ahead by {ahead_s - paused_s:.2f} s; put a source in command again")

    def _set_back(self, by_s: float) -> None:
        self.clock_resets += 1
        self._timeline.clear()
        self._arbiter.apply(Event.FEEDBACK_LOST, f"the clock went back by {by_s:.2f} s")

    def _forget(self, now_ns: int) -> None:
        """What was heard says nothing any more."""
        self._leader.forget()
        self._measurement.forget(now_ns)
        self._feedback_silent = True
        self._ticked_ns = now_ns - self._period_ns
