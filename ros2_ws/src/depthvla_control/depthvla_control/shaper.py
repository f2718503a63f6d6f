"""The last guard before the motors: every command is finite and keeps position, velocity, acceleration and jerk limits.

It follows a wanted motion with ruckig's time-optimal trajectories, one joint at a time. A command is only given if a
stop inside the position limits is still possible after it; that stop is kept, and is what happens otherwise.
"""

from __future__ import annotations

import numpy as np
from ruckig import ControlInterface, InputParameter, Ruckig, RuckigError, Synchronization, Trajectory

from r1lite_description.robot import Robot

# Differences below these are rounding, not a limit at work [rad and mm, and the same per second].
EPSILON = 1e-6
AT_REST = 1e-6
# Boundary values that ruckig would refuse for rounding keep this far from a limit.
NEARLY = 1.0 - 1e-6
# ruckig's tolerances are for numbers around 1, so grippers are reckoned in decimetres.
MM_PER_UNIT = 100.0


class CommandShaper:
    """Moves the commanded pose after a wanted one, starting from the measured pose at rest.

    A start outside the position limits (the folded R1 Lite lies one degree outside) is not a jump: the command may not
    go further out, and walks back in. Gripper entries are in mm and follow the same rules, but start inside their
    limits: an open gripper reads up to 102 mm, and is not to be sent there.
    """

    def __init__(self, robot: Robot, *, position_margin_rad: float = 0.0, speed_scale: float = 1.0) -> None:
        """`position_margin_rad`: kept from every arm joint's limits. `speed_scale`: of the velocity limits, 0 to 1."""
        self._grippers = robot.gripper_mask
        self._unit = np.where(self._grippers, MM_PER_UNIT, 1.0)
        margin = np.where(self._grippers, 0.0, position_margin_rad)
        self._min, self._max = robot.position_min / self._unit + margin, robot.position_max / self._unit - margin
        self._velocity = robot.command_velocity / self._unit
        self._acceleration, self._jerk = robot.command_acceleration / self._unit, robot.command_jerk / self._unit
        self.speed_scale = speed_scale
        self._state: np.ndarray | None = None  # (3, 14)
        self._joints = [_Joint(a, j) for a, j in zip(self._acceleration, self._jerk, strict=True)]
        self._stop = _Stop(self._acceleration, self._jerk)
        self.clamped_position = 0  # targets of a joint moved back to a position limit
        self.clamped_velocity = 0  # commands of a joint that trail their target

    @property
    def position(self) -> np.ndarray | None:
        """(14,) the last commanded pose; the measured one before the first command; None before `start`."""
        return None if self._state is None else self._state[0] * self._unit

    @property
    def velocity(self) -> np.ndarray | None:
        """(14,) how fast the command moves, per second."""
        return None if self._state is None else self._state[1] * self._unit

    @property
    def at_rest(self) -> bool:
        return self._state is None or _rests(self._state)

    def start(self, measured: np.ndarray) -> None:
        """Raises ValueError for a pose that is not finite."""
        if not np.all(np.isfinite(measured)):
            raise ValueError(f"start pose is not finite: {measured}")
        self._state = np.zeros((3, len(measured)))
        self._state[0] = self._startable(measured)
        self._stop.plan(self._state)

    def start_anew(self, measured: np.ndarray, joints: np.ndarray) -> None:
        """`joints` (14,) bool go on from the measured pose (14,), at rest; the others as if nothing had happened.

        Raises ValueError for a pose that is not finite; RuntimeError before `start`.
        """
        if not np.all(np.isfinite(measured[joints])):
            raise ValueError(f"pose to go on from is not finite: {measured[joints]}")
        state = self._started().copy()
        state[0, joints] = self._startable(measured)[joints]
        state[1:, joints] = 0.0
        self._state = state
        self._stop.plan(state)

    def reset(self) -> None:
        self._state = None

    def follow(self, motion: np.ndarray, dt_s: float, catch_up_scale: float = 1.0) -> np.ndarray:
        """The next command, shape (14,), on the way to a wanted motion.

        Args:
            motion: (3, 14) wanted position, velocity and acceleration at the time of this command.
            dt_s: time since the last command.
            catch_up_scale: share of the velocity limits by which a command may be faster than the wanted motion.

        Raises ValueError for a motion or time that is not finite; RuntimeError before `start`.
        """
        if not np.all(np.isfinite(motion)) or not np.isfinite(dt_s):
            raise ValueError(f"wanted motion is not finite: {motion.tolist()}, dt {dt_s} s")
        state, motion = self._started(), motion / self._unit
        if dt_s <= 0.0:
            return state[0] * self._unit
        low, high = np.minimum(self._min, state[0]), np.maximum(self._max, state[0])
        limit = self._velocity * self.speed_scale
        most = np.minimum(limit, np.abs(motion[1]) + catch_up_scale * limit)
        target = self._reachable(motion, most)
        self.clamped_position += int(np.count_nonzero(np.abs(target[0] - motion[0]) > EPSILON))
        following = self._stop.at(dt_s)
        for index, joint in enumerate(self._joints):
            moved = joint.step(state[:, index], target[:, index], most[index], dt_s)
            if moved is not None:
                following[:, index] = moved
        beyond = self._stop.beyond(following, low, high)
        following[:, beyond] = self._stop.at(dt_s)[:, beyond]
        self.clamped_velocity += int(np.count_nonzero(np.abs(following[0] - target[0]) > EPSILON))
        return self._take(following, dt_s, low, high)

    def brake(self, dt_s: float) -> np.ndarray:
        """The next command, shape (14,), on the way to a stand. Raises RuntimeError before `start`."""
        state = self._started()
        if dt_s <= 0.0 or self.at_rest:
            return state[0] * self._unit
        low, high = np.minimum(self._min, state[0]), np.maximum(self._max, state[0])
        return self._take(self._stop.at(dt_s), dt_s, low, high)

    def _startable(self, measured: np.ndarray) -> np.ndarray:
        position = measured / self._unit
        return np.where(self._grippers, np.clip(position, self._min, self._max), position)

    def _started(self) -> np.ndarray:
        if self._state is None:
            raise RuntimeError("the shaper was not started from a measured pose")
        return self._state

    def _take(self, state: np.ndarray, dt_s: float, low: np.ndarray, high: np.ndarray) -> np.ndarray:
        state[0] = np.clip(state[0], low, high)  # by no more than rounding
        if _rests(state):
            state[1:] = 0.0
        if not self._stop.plan(state):
            state = self._stop.at(dt_s)
            self._stop.pass_time(dt_s)
        self._state = state
        return state[0] * self._unit

    def _reachable(self, motion: np.ndarray, most: np.ndarray) -> np.ndarray:
        """The wanted motion, cut to what the limits allow at its own position."""
        position = np.clip(motion[0], self._min, self._max)
        velocity = np.clip(motion[1], -most, most)
        # So slow that a stop before the limit ahead is possible: v^2 / 2a + v a / 2j is at most the way that is left.
        ahead = np.where(velocity > 0.0, self._max - position, position - self._min)
        half = self._acceleration**2 / (2.0 * self._jerk)
        stoppable = np.sqrt(half**2 + 2.0 * self._acceleration * ahead) - half
        velocity = np.clip(velocity, -stoppable, stoppable) * NEARLY
        # And so little accelerated that the velocity limit is kept before and after.
        room = np.minimum(self._acceleration, np.sqrt(2.0 * self._jerk * (most - np.abs(velocity))))
        acceleration = np.clip(motion[2], -room, room) * NEARLY
        standing = (position != motion[0]) | (ahead < EPSILON)
        return np.stack([position, np.where(standing, 0.0, velocity), np.where(standing, 0.0, acceleration)])


def _rests(state: np.ndarray) -> bool:
    return bool(np.all(np.abs(state[1:]) < AT_REST))


class _Joint:
    """Time-optimal steps of one joint: the target's state at the end of the step, or as soon after as can be."""

    def __init__(self, acceleration: float, jerk: float) -> None:
        self._otg, self._input, self._trajectory = Ruckig(1), InputParameter(1), Trajectory(1)
        self._input.max_acceleration, self._input.max_jerk = [acceleration], [jerk]

    def step(self, state: np.ndarray, target: np.ndarray, velocity: float, dt_s: float) -> np.ndarray | None:
        """(3,) state after `dt_s`; None where ruckig finds no way."""
        request = self._input
        request.current_position, request.current_velocity, request.current_acceleration = state[:, None].tolist()
        request.target_position, request.target_velocity, request.target_acceleration = target[:, None].tolist()
        request.max_velocity = [velocity]
        request.minimum_duration = dt_s
        try:
            self._otg.calculate(request, self._trajectory)
        except RuckigError:
            return None
        return np.ravel(self._trajectory.at_time(dt_s))


class _Stop:
    """The fastest way of all joints from a state to a stand. The way planned last stays until another is found."""

    def __init__(self, acceleration: np.ndarray, jerk: np.ndarray) -> None:
        size = len(acceleration)
        self._otg, self._input = Ruckig(size), InputParameter(size)
        self._planned, self._tried = Trajectory(size), Trajectory(size)
        self._begin, self._passed_s = np.zeros(size), 0.0
        self._input.control_interface = ControlInterface.Velocity
        self._input.synchronization = Synchronization.No
        self._input.max_acceleration, self._input.max_jerk = acceleration.tolist(), jerk.tolist()
        self._input.current_position = self._input.target_velocity = self._input.target_acceleration = [0.0] * size

    def plan(self, state: np.ndarray) -> bool:
        """Whether a way from `state` was found."""
        if not self._try(state):
            return False
        self._planned, self._tried = self._tried, self._planned
        self._begin, self._passed_s = state[0].copy(), 0.0
        return True

    def pass_time(self, duration_s: float) -> None:
        """The planned way was followed for that long."""
        self._passed_s += duration_s

    def at(self, time_s: float) -> np.ndarray:
        """(3, D) state on the planned way, `time_s` on from here."""
        state = np.array(self._planned.at_time(self._passed_s + time_s))
        state[0] += self._begin
        return state

    def beyond(self, state: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
        """(D,) bool: joints that in `state` cannot stop within `low` and `high` any more."""
        if not self._try(state):
            return np.ones(state.shape[1], dtype=bool)
        lowest, highest = np.array([(bound.min, bound.max) for bound in self._tried.position_extrema]).T
        return (state[0] + lowest < low - EPSILON) | (state[0] + highest > high + EPSILON)

    def _try(self, state: np.ndarray) -> bool:
        # Reckoned from where it begins: to ruckig's extrema, a trajectory without a target position also reaches 0.
        self._input.current_velocity, self._input.current_acceleration = state[1:].tolist()
        try:
            self._otg.calculate(self._input, self._tried)
        except RuckigError:
            return False
        return True
