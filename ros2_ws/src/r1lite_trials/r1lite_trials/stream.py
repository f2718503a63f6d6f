"""What a recorded stream tells: when it came to a stand, and the largest steps in it against the robot's limits. numpy.

Times are int nanoseconds of one clock.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from r1lite_description.robot import Robot

STILL = 1e-9  # commands that differ by less are the same [rad and mm]
# A share of a limit that rounding and a tick a fraction of a millisecond off the grid can add.
TOLERANCE = 0.02


@dataclass(frozen=True)
class Stream:
    """Commands or measurements in the order of arrival."""

    times_ns: np.ndarray  # (N,) int64
    positions: np.ndarray  # (N, 14) rad and mm

    def since(self, begin_ns: int) -> Stream:
        return self.between(begin_ns, np.iinfo(np.int64).max)

    def between(self, begin_ns: int, end_ns: int) -> Stream:
        inside = (self.times_ns >= begin_ns) & (self.times_ns < end_ns)
        return Stream(self.times_ns[inside], self.positions[inside])

    def split(self, borders_ns: Sequence[int]) -> list[Stream]:
        """What lies between the borders, before the first and after the last; possibly empty."""
        limits = np.iinfo(np.int64)
        borders = [limits.min, *borders_ns, limits.max]
        return [self.between(begin, end) for begin, end in zip(borders[:-1], borders[1:], strict=True)]


@dataclass(frozen=True)
class Steps:
    """The largest steps from one command to the next, as the robot sees them: differences at the control period."""

    position_rad: float  # of an arm joint
    velocity: float  # share of the velocity limit, over all joints; 1 is the limit
    acceleration: float  # share of the acceleration limit
    outside: float  # beyond a position limit [rad, mm]; where a stream begins outside, beyond its beginning

    @property
    def excess(self) -> list[str]:
        """What is beyond a limit, in words."""
        texts = [
            f"{name} at {share:.0%} of its limit"
            for name, share in (("velocity", self.velocity), ("acceleration", self.acceleration))
            if share > 1.0 + TOLERANCE
        ]
        return texts + ([f"position {self.outside:.4f} outside its limits"] if self.outside > 1e-6 else [])


def steps(positions: np.ndarray, robot: Robot) -> Steps:
    """Of commands (N, 14), `robot.period_s` apart. A gap in the stream counts as one period: what comes after it must
    continue what came before.

    Raises ValueError for commands that are not finite.
    """
    if not np.all(np.isfinite(positions)):
        raise ValueError("a command is not finite")
    if len(positions) < 2:
        return Steps(0.0, 0.0, 0.0, 0.0)
    moved = np.diff(positions, axis=0)
    velocity = moved / robot.period_s
    acceleration = np.diff(velocity, axis=0) / robot.period_s
    low, high = np.minimum(robot.position_min, positions[0]), np.maximum(robot.position_max, positions[0])
    return Steps(
        position_rad=float(np.abs(moved[:, ~robot.gripper_mask]).max()),
        velocity=float((np.abs(velocity) / robot.command_velocity).max()),
        acceleration=float((np.abs(acceleration) / robot.command_acceleration).max(initial=0.0)),
        outside=float(max(np.maximum(low - positions, positions - high).max(), 0.0)),
    )


def largest(all_steps: Sequence[Steps]) -> Steps:
    """Of each kind, the largest."""
    return Steps(*(max(values) for values in zip(*map(dataclasses.astuple, all_steps), strict=True)))


def still_since(stream: Stream, still: float | np.ndarray = STILL) -> int | None:
    """Time of the first of the positions at the end that are all the same; None when the last two still differ.

    still: by how much each entry of these positions may differ from the last.
    """
    if len(stream.positions) < 2:
        return None
    moving = np.flatnonzero(np.any(np.abs(stream.positions - stream.positions[-1]) > still, axis=1))
    first = moving[-1] + 1 if moving.size else 0
    return int(stream.times_ns[first]) if first < len(stream.positions) - 1 else None


def speed(stream: Stream, robot: Robot) -> float:
    """Fastest arm joint over these positions, from the first to the last [rad/s]; 0 for fewer than two."""
    if len(stream.positions) < 2:
        return 0.0
    passed_s = (stream.times_ns[-1] - stream.times_ns[0]) * 1e-9
    return float(np.abs(stream.positions[-1] - stream.positions[0])[~robot.gripper_mask].max() / passed_s)


def percentiles(values: list[float] | np.ndarray, *which: float, digits: int | None = None) -> dict[str, float]:
    """{"p50": ..., "p99": ..., "max": ...} for `which` percentiles and the largest; empty for no values."""
    if not len(values):
        return {}
    result = {f"p{q:g}": float(np.percentile(values, q)) for q in which} | {"max": float(np.max(values))}
    return result if digits is None else {name: round(value, digits) for name, value in result.items()}
