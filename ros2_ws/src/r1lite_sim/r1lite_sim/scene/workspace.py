"""Where the arms reach on the table, how they start, and how objects are spread out before them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from r1lite_description.robot import Robot
from r1lite_sim.instructions import SIDES

PATIENCE = 500  # draws of a place before the gap shrinks by a tenth: a full table must not stop the simulation
TRIES = 60  # draws of a place before the whole scene is drawn anew

# Farthest point that the gripper reaches at every yaw, measured from the arm's first axis.
REACH = 0.60
SHOULDER = (0.145, -0.335)

# Grippers 18 cm above the table's near edge, turned inwards and pointing 40 degrees down; noise is added at every
# reset. For the right arm; the left one turns its first joint the other way.
START_ARM_RAD = (0.22, 1.25, -0.50, -0.05, 0.0, 0.0)
START_NOISE_RAD = 0.08
START_OPENING_MM = (85.0, 100.0)

# Inside the head camera's centre square: what a policy with a square view sees.
REGION_X = (0.49, 0.70)
REGION_Y = (-0.28, 0.28)


def distance(place: np.ndarray, side: str) -> float:
    """Horizontal distance [m] of a place (2,) or (3,) from the arm's first axis."""
    return float(np.linalg.norm(np.asarray(place)[:2] - shoulder(side)))


def shoulder(side: str) -> np.ndarray:
    """(2,) [m] first axis of an arm in the world."""
    return np.array(SHOULDER) * ([1, -1] if side == "left" else [1, 1])


def azimuth(position: np.ndarray, side: str) -> float:
    """Direction [rad] from the shoulder of an arm to a position."""
    x, y = np.asarray(position)[:2] - shoulder(side)
    return float(np.arctan2(y, x))


def in_reach(place: np.ndarray, side: str, reach: float = REACH) -> bool:
    """The arm's gripper gets to the place on the table; by default at every yaw."""
    return distance(place, side) <= reach


def nearest(place: np.ndarray) -> str:
    """The arm that has the shorter way."""
    return min(SIDES, key=lambda side: distance(place, side))


def start_pose(robot: Robot, rng: np.random.Generator) -> np.ndarray:
    """(14,) drawn start of both arms [rad] and grippers [mm]."""
    start = np.empty(robot.size)
    for limb in robot.limbs:
        inwards = 1 if limb.name == "right" else -1
        start[limb.arm] = [inwards * START_ARM_RAD[0], *START_ARM_RAD[1:]]
        start[limb.arm] += rng.uniform(-START_NOISE_RAD, START_NOISE_RAD, len(limb.joints))
        start[limb.gripper_index] = rng.uniform(*START_OPENING_MM)
    return start


class NoRoomError(Exception):
    """What was placed so far leaves no place for the next thing."""


class Places:
    """Free places on the table, drawn one after another."""

    def __init__(self, rng: np.random.Generator) -> None:
        self._rng = rng
        self._taken: list[tuple[np.ndarray, float]] = []

    def take(self, place: np.ndarray, radius: float) -> np.ndarray:
        """Mark a disc [m] as taken."""
        self._taken.append((np.asarray(place, dtype=float)[:2], radius))
        return self._taken[-1][0]

    def draw(
        self,
        radius: float,
        accept: Callable[[np.ndarray], bool] = lambda place: True,
        x: tuple[float, float] = REGION_X,
        y: tuple[float, float] = REGION_Y,
    ) -> np.ndarray:
        """(2,) middle of a free disc that `accept` takes, in a rectangle [m].

        Raises:
            NoRoomError: none was found.
        """
        for _ in range(TRIES):
            place = np.array([self._rng.uniform(*x), self._rng.uniform(*y)])
            free = all(np.linalg.norm(place - other) >= radius + taken for other, taken in self._taken)
            if free and accept(place):
                return self.take(place, radius)
        raise NoRoomError


def arrange(rng: np.random.Generator, place: Callable[[Places], None]) -> Places:
    """Let `place` put its things on an empty table, over again until there is room for all of them."""
    while True:
        places = Places(rng)
        try:
            place(places)
        except NoRoomError:
            continue
        return places
