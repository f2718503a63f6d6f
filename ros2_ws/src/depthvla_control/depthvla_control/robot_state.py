"""Where the robot's limbs are, as last heard, and what of that is reason not to move them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from depthvla_control.limb_feedback import arm_positions, arm_stream, gripper_opening, gripper_stream
from depthvla_control.refusal import Reason, Refusal
from r1lite_description.robot import Robot

# How far outside its limits an arm may be when it is armed. The folded pose lies 0.017 rad outside.
START_MARGIN_RAD = 0.05
# A tracker may run ahead of its nominal cap by this factor before a measured way counts as a jump.
JUMP_SPEED_FACTOR = 1.5


def most_way(robot: Robot, jump_rad: float, passed_s: float) -> np.ndarray:
    """(arm joints,) rad that an arm can have moved within that time, and `jump_rad`."""
    return jump_rad + JUMP_SPEED_FACTOR * robot.tracker_velocity * passed_s


class Measurement:
    """Times are int nanoseconds of one clock. Samples that are refused change nothing and are counted."""

    def __init__(self, robot: Robot, *, max_age_s: float, max_jump_rad: float) -> None:
        """`max_jump_rad`: what an arm joint may move between two samples beyond what its tracker can."""
        self._robot = robot
        self._max_age_ns, self._max_jump_rad = round(max_age_s * 1e9), max_jump_rad
        self._positions = np.full(robot.size, np.nan)
        self._heard_ns: dict[str, int | None] = {
            name: None for limb in robot.limbs for name in (arm_stream(limb.name), gripper_stream(limb.name))
        }
        self._forgotten_ns = 0  # from when on what was heard counts
        self.interrupted = False  # a stream was silent for longer than it may be, and nobody has looked at that yet
        self._off_track_ns: int | None = None  # since when an arm is not where it was sent
        self.refusals: Counter[tuple[str, Reason]] = Counter()

    @property
    def positions(self) -> np.ndarray:
        """(14,) rad and mm; NaN where nothing was heard yet."""
        return self._positions

    def arm(self, limb: str, positions: Sequence[float], now_ns: int, names: Sequence[str] = ()) -> Refusal | None:
        """Joint positions [rad] and their names, if any. With `Reason.JUMP` the sample was taken, but the arm cannot
        have got there by itself: a broken encoder, another robot on the topic, a scene that was reset.
        """
        spec = self._robot.limb(limb)
        value = arm_positions(self._robot, spec, positions, names)
        jump = None if isinstance(value, Refusal) else self._jump(limb, value, now_ns)
        return self._take(arm_stream(limb), spec.arm, value, now_ns) or jump

    def gripper(self, limb: str, positions: Sequence[float], now_ns: int, names: Sequence[str] = ()) -> Refusal | None:
        """Opening [mm]."""
        spec = self._robot.limb(limb)
        value = gripper_opening(self._robot, spec, positions, names)
        return self._take(gripper_stream(limb), spec.gripper_index, value, now_ns)

    def stale(self, now_ns: int) -> Refusal | None:
        """The first stream that is missing or older than it may be."""
        for name, heard_ns in self._heard_ns.items():
            if heard_ns is None:
                return Refusal(Reason.NO_FEEDBACK, f"no feedback of {name} yet", name)
            if now_ns - heard_ns > self._max_age_ns:
                age_s, limit_s = (now_ns - heard_ns) * 1e-9, self._max_age_ns * 1e-9
                return Refusal(
                    Reason.NO_FEEDBACK, f"feedback of {name} is {age_s:.2f} s old (limit {limit_s:.2f} s)", name
                )
        return None

    def silence_s(self, now_ns: int) -> float:
        """For how long the stream that has been silent longest has been."""
        since_ns = min(self._forgotten_ns if heard_ns is None else heard_ns for heard_ns in self._heard_ns.values())
        return (now_ns - since_ns) * 1e-9

    def apart(self, commanded: np.ndarray) -> np.ndarray:
        """(14,) rad, how far an arm joint is from where it was sent; 0 for grippers, which close on things."""
        return np.where(self._robot.gripper_mask, 0.0, np.abs(self._positions - commanded))

    def outside(self) -> Refusal | None:
        """An arm joint outside its position limits by more than it may be to start with."""
        # A gripper's reading was already held against its own plausible range.
        margin = np.where(self._robot.gripper_mask, np.inf, START_MARGIN_RAD)
        low, high = self._robot.position_min, self._robot.position_max
        outside = np.flatnonzero((self._positions < low - margin) | (self._positions > high + margin))
        if not outside.size:
            return None
        index = outside[0]
        text = (
            f"{self._robot.joint_names[index]} stands at {self._positions[index]:.3f} rad, outside"
            f" {low[index]:.3f} to {high[index]:.3f}; move it back in by hand"
        )
        return Refusal(Reason.OUT_OF_RANGE, text)

    def off_track(self, commanded: np.ndarray, now_ns: int, *, limit_rad: float, limit_s: float) -> Refusal | None:
        """An arm joint that has been further than `limit_rad` from its command (14,) for longer than `limit_s`."""
        error = self.apart(commanded)
        if error.max() <= limit_rad:
            self._off_track_ns = None
            return None
        if self._off_track_ns is None:
            self._off_track_ns = now_ns
        if now_ns - self._off_track_ns <= limit_s * 1e9:
            return None
        joint = self._robot.joint_names[int(error.argmax())]
        text = f"{joint} is {error.max():.2f} rad from its command (limit {limit_rad:.2f} rad): blocked, or not driven"
        return Refusal(Reason.OFF_TRACK, text)

    def on_track(self) -> None:
        """The robot was put on a new track."""
        self._off_track_ns = None

    def forget(self, now_ns: int) -> None:
        """What was heard before says nothing any more (the clock was set back, or time passed unwatched)."""
        self._forgotten_ns = now_ns
        self._heard_ns = dict.fromkeys(self._heard_ns)
        self._off_track_ns = None

    def _take(self, name: str, where: slice | int, value: np.ndarray | float | Refusal, now_ns: int) -> Refusal | None:
        if isinstance(value, Refusal):
            self.refusals[name, value.reason] += 1
            return value
        heard_ns = self._heard_ns[name]
        self.interrupted |= heard_ns is not None and now_ns - heard_ns > self._max_age_ns
        self._positions[where] = value
        self._heard_ns[name] = now_ns
        return None

    def _jump(self, limb: str, value: np.ndarray, now_ns: int) -> Refusal | None:
        name, spec = arm_stream(limb), self._robot.limb(limb)
        heard_ns = self._heard_ns[name]
        if heard_ns is None:
            return None
        passed_ns = max(now_ns - heard_ns, 0)
        if passed_ns > self._max_age_ns:
            return None  # after silence an arm may be anywhere, which is no jump; whoever held it looks where it is
        passed_s = passed_ns * 1e-9
        limit = most_way(self._robot, self._max_jump_rad, passed_s)
        way = np.abs(value - self._positions[spec.arm])
        if np.all(way <= limit):
            return None
        self.refusals[name, Reason.JUMP] += 1
        joint = int(np.argmax(way - limit))
        text = f"feedback of {spec.joints[joint]} jumped by {way[joint]:.2f} rad in {passed_s * 1e3:.0f} ms"
        return Refusal(Reason.JUMP, text, name)
