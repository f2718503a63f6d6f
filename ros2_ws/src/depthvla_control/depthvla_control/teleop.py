"""The leader arms that a person moves: what they ask of the robot at this moment, or why they cannot be followed."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from depthvla_control.limb_feedback import arm_positions, gripper_opening, in_place
from depthvla_control.refusal import Reason, Refusal
from depthvla_control.robot_state import most_way
from r1lite_description.robot import Robot

# A leader's velocity is a mean over this long: a hand trembles, and its samples come unevenly.
VELOCITY_WINDOW_NS = 60_000_000
SAMPLES = 32


@dataclass(frozen=True)
class _Sample:
    received_ns: int  # on the executor's clock
    stamp_ns: int  # on the leader's own
    positions: np.ndarray


class Leader:
    """One leader arm for each limb. Its message may carry the gripper's opening [mm] as a 7th value.

    Every sample goes through the same door as the robot's own feedback. Where no opening was ever heard, the gripper
    stays as it is.
    """

    def __init__(self, robot: Robot, max_age_s: float, max_jump_rad: float) -> None:
        """`max_jump_rad`: what a joint may move between two samples beyond what an arm can."""
        self._robot = robot
        self._max_age_ns, self._max_jump_rad = round(max_age_s * 1e9), max_jump_rad
        self._samples: dict[str, deque[_Sample]] = {limb.name: deque(maxlen=SAMPLES) for limb in robot.limbs}
        self._openings: dict[str, float] = {}
        self._offset = np.zeros(robot.size)
        self.refusals: Counter[tuple[str, Reason]] = Counter()

    def arm(
        self, limb: str, stamp_ns: int, values: Sequence[float], now_ns: int, names: Sequence[str] = ()
    ) -> Refusal | None:
        """Joint positions [rad] and their names, if any, received at `now_ns`; a 7th is the gripper's opening [mm]."""
        spec = self._robot.limb(limb)
        positions = arm_positions(self._robot, spec, values, names)
        if isinstance(positions, Refusal):
            return self._refuse(limb, positions)
        if len(values) > len(spec.joints):
            refusal = self.gripper(limb, in_place(self._robot, spec.names, values, names)[len(spec.joints) :])
            if refusal:
                return refusal
        samples = self._samples[limb]
        sample = _Sample(now_ns, stamp_ns, positions)
        jump = self._jump(limb, samples[-1], sample) if samples else None
        if jump:
            samples.clear()  # it is followed no further, and has to be taken over anew
            return self._refuse(limb, jump)
        samples.append(sample)
        return None

    def gripper(self, limb: str, values: Sequence[float], names: Sequence[str] = ()) -> Refusal | None:
        """Opening [mm] that the leader asks for. It stays in force while its arm is heard."""
        opening = gripper_opening(self._robot, self._robot.limb(limb), values, names)
        if isinstance(opening, Refusal):
            return self._refuse(limb, opening)
        self._openings[limb] = opening
        return None

    def silence(self, now_ns: int) -> Refusal | None:
        """Why the leader cannot be followed, if so."""
        for limb, samples in self._samples.items():
            name = f"leader {limb}"
            if not samples:
                return Refusal(Reason.MISSING, f"{name} has not been heard since it jumped, or ever", name)
            age_ns = now_ns - samples[-1].received_ns
            if age_ns > self._max_age_ns:
                text = f"{name} is silent for {age_ns * 1e-9:.2f} s (limit {self._max_age_ns * 1e-9:.2f} s)"
                return Refusal(Reason.STALE, text, name)
        return None

    def target(self, held: np.ndarray) -> np.ndarray:
        """(3, 14) wanted motion, once `silence` has nothing against it.

        `held` (14,) is for the grippers that no leader speaks for.
        """
        motion = np.zeros((3, self._robot.size))
        motion[0] = held
        for limb in self._robot.limbs:
            samples = self._samples[limb.name]
            motion[0, limb.arm], motion[1, limb.arm] = samples[-1].positions, _velocity(samples)
            if limb.name in self._openings:
                motion[0, limb.gripper_index] = self._openings[limb.name]
        motion[0] += self._offset
        return motion

    def anchor(self, position: np.ndarray) -> None:
        """From here on the leader's way is followed instead of its pose, beginning at `position` (14,)."""
        self.release()
        self._offset = np.where(self._robot.gripper_mask, 0.0, position - self.target(position)[0])

    def release(self) -> None:
        """The leader's pose itself is followed."""
        self._offset = np.zeros(self._robot.size)

    def forget(self) -> None:
        """What was heard says nothing any more (the clock was set back)."""
        for samples in self._samples.values():
            samples.clear()

    def _jump(self, limb: str, before: _Sample, new: _Sample) -> Refusal | None:
        """A leader that was restarted, an encoder that wrapped, another one on the topic: no hand moves so."""
        # Samples that waited are received together; their stamps tell them apart.
        passed_ns = max(new.received_ns - before.received_ns, min(new.stamp_ns - before.stamp_ns, self._max_age_ns), 0)
        way = np.abs(new.positions - before.positions)
        if passed_ns > self._max_age_ns or np.all(way <= most_way(self._robot, self._max_jump_rad, passed_ns * 1e-9)):
            return None
        joint = self._robot.limb(limb).joints[int(way.argmax())]
        return Refusal(Reason.JUMP, f"{joint} jumped by {way.max():.2f} rad in {passed_ns * 1e-6:.0f} ms")

    def _refuse(self, limb: str, refusal: Refusal) -> Refusal:
        name = f"leader {limb}"
        self.refusals[name, refusal.reason] += 1
        return Refusal(refusal.reason, f"{name}: {refusal.message}", name)


def _velocity(samples: deque[_Sample]) -> np.ndarray | float:
    newest = samples[-1]
    for oldest in samples:
        passed_ns = newest.stamp_ns - oldest.stamp_ns
        if 0 < passed_ns <= VELOCITY_WINDOW_NS:
            return (newest.positions - oldest.positions) / (passed_ns * 1e-9)
    return 0.0
