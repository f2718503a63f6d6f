"""The last guard before the motors: every command stays within position and velocity limits and is finite."""

from __future__ import annotations

import numpy as np

from depthvla_policy.robot import Robot

# Differences below this are rounding, not a limit at work.
EPSILON = 1e-9


class CommandShaper:
    """Moves the commanded pose towards a target, starting from the measured pose.

    A start outside the position limits (the folded R1 Lite lies one degree outside) is not a jump: the command walks
    back in at the velocity limit. Gripper entries are in mm and follow the same two rules.
    """

    def __init__(self, robot: Robot) -> None:
        self._min, self._max = robot.position_min, robot.position_max
        self._velocity = robot.command_velocity
        self._last: np.ndarray | None = None
        self.clamped_position = 0  # joint commands moved back to a position limit
        self.clamped_velocity = 0  # joint commands slowed down

    @property
    def last(self) -> np.ndarray | None:
        """(14,) the last commanded pose; the measured one before the first command; None before `start`."""
        return self._last

    def start(self, measured: np.ndarray) -> None:
        """Raises ValueError for a pose that is not finite."""
        if not np.all(np.isfinite(measured)):
            raise ValueError(f"start pose is not finite: {measured}")
        self._last = np.array(measured, dtype=np.float64)

    def reset(self) -> None:
        self._last = None

    def shape(self, target: np.ndarray, dt_s: float) -> np.ndarray:
        """The next command, shape (14,).

        Args:
            target: (14,) wanted pose, rad and mm.
            dt_s: time since the last command.

        Raises ValueError for a target or time that is not finite; RuntimeError before `start`.
        """
        if self._last is None:
            raise RuntimeError("the shaper was not started from a measured pose")
        if not np.all(np.isfinite(target)) or not np.isfinite(dt_s):
            raise ValueError(f"target is not finite: {target}, dt {dt_s} s")
        inside = np.clip(target, self._min, self._max)
        self.clamped_position += int(np.count_nonzero(np.abs(inside - target) > EPSILON))
        most = self._velocity * max(dt_s, 0.0)
        delta = inside - self._last
        step = np.clip(delta, -most, most)
        self.clamped_velocity += int(np.count_nonzero(np.abs(delta - step) > EPSILON))
        self._last = np.where(delta == step, inside, self._last + step)
        return self._last.copy()
