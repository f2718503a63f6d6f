"""A scripted teleoperator: where leader arms would be. Time is handed in; no ROS.

While somebody else moves the robot, the leader is kept near its arms, as an operator who is about to take over would.
From a take-over on it wanders smoothly around the pose where that happened.
"""

from __future__ import annotations

import numpy as np

from r1lite_description.robot import Robot

FOLLOW_S = 0.15  # time constant of the first-order lag behind the measured arm
BRAKE_S = 0.3  # in which the leader's own speed at a take-over runs out
TREMOR_HZ = 8.0
TREMOR_RAD = 0.002
TREMOR_RISE_S = 0.5
GRIPPER_AMPLITUDE_MM = 20.0


class Leader:
    """Positions of the leader arms and their grippers, as a vector of the robot's.

    Args:
        robot: gives the order and limits of the vector.
        alignment_error_rad: how far each leader joint stands from the robot's while it follows; signs are drawn.
        amplitude_rad: the farthest that a joint goes from the pose where it took over, the tremor apart.
        period_s: time from one waypoint to the next.
        seed: of signs, waypoints and tremor. A take-over's motion depends on it, on which take-over it is and on where.
    """

    def __init__(
        self,
        robot: Robot,
        *,
        alignment_error_rad: float = 0.03,
        amplitude_rad: float = 0.15,
        period_s: float = 4.0,
        seed: int = 0,
    ) -> None:
        self._low, self._high, self._seed = robot.position_min, robot.position_max, seed
        self._joints = ~robot.gripper_mask
        signs = np.random.default_rng(seed).choice([-1.0, 1.0], robot.size)
        self._error = np.where(self._joints, alignment_error_rad * signs, 0.0)
        self._amplitude = np.where(self._joints, amplitude_rad, GRIPPER_AMPLITUDE_MM)
        self._period_s = period_s
        self._position: np.ndarray | None = None
        self._velocity = np.zeros(robot.size)
        self._time_s = 0.0
        self._take_overs = 0
        self._wander: _Wander | None = None

    def step(self, measured: np.ndarray, teleop: bool, now_s: float) -> np.ndarray:
        """(size,) positions at `now_s` [rad, mm], within the robot's limits.

        Args:
            measured: (size,) what the robot's feedback says [rad, mm].
            teleop: the robot follows the leader.
            now_s: not before that of the last call.
        """
        target = np.clip(measured + self._error, self._low, self._high)
        if self._position is None:
            self._position, self._time_s = target, now_s
        if not teleop:
            self._wander = None
            gone_s, self._time_s = now_s - self._time_s, now_s
            self._position = target + (self._position - target) * np.exp(-gone_s / FOLLOW_S)
            self._velocity = (target - self._position) / FOLLOW_S
            return self._position
        if self._wander is None:
            self._take_overs += 1
            self._wander = self._start_wandering()
        self._position, self._time_s = np.clip(self._wander.position(now_s), self._low, self._high), now_s
        return self._position

    def _start_wandering(self) -> _Wander:
        # From where and when the leader was last seen, so that nothing happens between that and the first step.
        rest = np.clip(self._position + self._velocity * BRAKE_S / 2, self._low, self._high)
        tremor = np.where(self._joints, TREMOR_RAD, 0.0)
        lowest = np.maximum(-self._amplitude, self._low + tremor - rest)
        highest = np.minimum(self._amplitude, self._high - tremor - rest)
        return _Wander(
            self._position,
            self._velocity,
            np.minimum(lowest, 0.0),
            np.maximum(highest, 0.0),
            tremor,
            self._period_s,
            self._time_s,
            np.random.default_rng((self._seed, self._take_overs)),
        )


class _Wander:
    """Brakes from the speed at the start, and adds minimum-jerk moves between random offsets and a tremor."""

    def __init__(
        self,
        start: np.ndarray,
        velocity: np.ndarray,
        lowest: np.ndarray,
        highest: np.ndarray,
        tremor: np.ndarray,
        period_s: float,
        begin_s: float,
        random: np.random.Generator,
    ) -> None:
        self._start, self._velocity, self._tremor = start, velocity, tremor
        self._lowest, self._highest = lowest, highest
        self._period_s, self._begin_s, self._random = period_s, begin_s, random
        self._phase = random.uniform(0.0, 2 * np.pi, start.shape)
        self._from = self._to = np.zeros_like(start)
        self._waypoints = 0

    def position(self, now_s: float) -> np.ndarray:
        gone_s = now_s - self._begin_s
        while self._waypoints * self._period_s <= gone_s:
            self._waypoints += 1
            self._from, self._to = self._to, self._random.uniform(self._lowest, self._highest)
        part = gone_s / self._period_s - (self._waypoints - 1)
        offset = self._from + (self._to - self._from) * _minimum_jerk(part)
        shaking = np.sin(2 * np.pi * TREMOR_HZ * gone_s + self._phase)
        tremor = self._tremor * _minimum_jerk(gone_s / TREMOR_RISE_S) * shaking
        return self._start + self._velocity * _braking_s(gone_s) + offset + tremor


def _minimum_jerk(part: float) -> float:
    """From 0 to 1 with speed and acceleration 0 at both ends (Flash and Hogan 1985)."""
    part = min(max(part, 0.0), 1.0)
    return part**3 * (10.0 - 15.0 * part + 6.0 * part**2)


def _braking_s(gone_s: float) -> float:
    """Way per unit of speed, while the speed falls like 1 - minimum jerk."""
    part = min(gone_s / BRAKE_S, 1.0)
    return BRAKE_S * (part - part**4 * (2.5 - 3.0 * part + part**2))
