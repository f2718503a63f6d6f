"""What the policy would command while it is not in command, and how far that is from what is done instead."""

from __future__ import annotations

from collections import deque

import numpy as np

from depthvla_control.shaper import CommandShaper
from r1lite_description.robot import Robot

WINDOW = 150  # ticks: ten seconds at 15 Hz


class Shadow:
    """Runs a shaper of its own beside the real one; nothing that it makes reaches the robot."""

    def __init__(self, robot: Robot, shaper: CommandShaper) -> None:
        self.shaper = shaper
        self._arms = ~robot.gripper_mask
        self._square_errors: deque[float] = deque(maxlen=WINDOW)

    def step(self, wanted: np.ndarray | None, done: np.ndarray, dt_s: float) -> np.ndarray | None:
        """The command (14,) that would have been given; None while the policy has nothing to follow.

        wanted: (3, 14) motion of the policy. done: (14,) where the robot is, or is sent, instead.
        """
        if wanted is None:
            self.stop()
            return None
        if self.shaper.position is None:
            self.shaper.start(done)
        command = self.shaper.follow(wanted, dt_s)
        self._square_errors.append(float(np.mean((command - done)[self._arms] ** 2)))
        return command

    def stop(self) -> None:
        """The policy is in command itself, or silent."""
        self.shaper.reset()
        self._square_errors.clear()

    @property
    def error_rad(self) -> float:
        """Root mean square over the last seconds and all arm joints; NaN while there is nothing to tell."""
        return float(np.sqrt(np.mean(self._square_errors))) if self._square_errors else float("nan")
