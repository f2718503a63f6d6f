"""How far a sequence of commands goes beyond what the R1 Lite's description allows."""

from __future__ import annotations

import numpy as np

from r1lite_description.robot import Robot, load

ROBOT = load()


def excess(commands: np.ndarray, dt_s: float, robot: Robot = ROBOT) -> np.ndarray:
    """(3,): worst share by which positions, velocities and accelerations of commands (N, 14) exceed their limits.

    Positions outside from the beginning may stay where they are, not go further out. Velocities and accelerations are
    differences of the commands, `dt_s` apart: what the robot sees.
    """
    assert np.isfinite(commands).all()
    low, high = np.minimum(robot.position_min, commands[0]), np.maximum(robot.position_max, commands[0])
    velocity = np.diff(commands, axis=0) / dt_s
    acceleration = np.diff(velocity, axis=0) / dt_s
    return np.array(
        [
            np.maximum(low - commands, commands - high).max() / np.max(high - low),
            (np.abs(velocity) / robot.command_velocity).max() - 1.0,
            (np.abs(acceleration) / robot.command_acceleration).max() - 1.0 if len(acceleration) else -1.0,
        ]
    )
