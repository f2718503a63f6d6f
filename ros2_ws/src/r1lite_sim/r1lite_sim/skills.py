"""Motions that scripted experts are made of: a hand moves straight, opens, closes, picks and puts down.

A skill is a generator that yields once per control period; `yield from` strings skills together. A hand follows its
goal from where the arm is measured, within the robot's command velocities and joint limits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import mujoco
import numpy as np

from r1lite_sim.kinematics import ArmKinematics, rotation_vector
from r1lite_sim.scene.workspace import REACH, azimuth, shoulder
from r1lite_sim.simulation import Simulation

SPEED = 0.7  # share of the command velocities that is used: the pace of a careful teleoperator
AHEAD, AHEAD_RAD = 0.06, 0.30  # m and rad that a goal leads the hand: keeps its way straight
POSITION_TOLERANCE, ROTATION_TOLERANCE = 0.006, 0.05  # m, rad: arrived
NEAR, LOOSER_STEPS = 5.0, 6  # near is within so many tolerances; steps near a goal after which one more will do
MOVE_STEPS = 75  # control periods after which a move is given up
STEEP_RAD, FLAT_RAD = np.radians(62), np.radians(44)  # approach below the horizontal: at the near edge, at full reach
NEAR_REACH = 0.38  # m from the shoulder, where the approach is steepest
RISE_STEPS = 12
OPEN_MM = 98.0
SQUEEZE_MM = 20.0  # how far below a thing's width the gripper is commanded: what is missing is grip
CLOSE_STEPS = 10

Skill = Iterator[None]


@dataclass(frozen=True)
class Pose:
    position: np.ndarray  # (3,) m, in the world
    rotation: np.ndarray  # (3, 3)

    def __matmul__(self, other: Pose) -> Pose:
        return Pose(self.position + self.rotation @ other.position, self.rotation @ other.rotation)

    def inverse(self) -> Pose:
        return Pose(-self.rotation.T @ self.position, self.rotation.T)

    def moved(self, x: float = 0.0, y: float = 0.0, z: float = 0.0) -> Pose:
        """Shifted [m] in the world."""
        return Pose(self.position + [x, y, z], self.rotation)

    def back(self, distance: float) -> Pose:
        """Drawn back [m] along its x, a hand's approach."""
        return Pose(self.position - distance * self.rotation[:, 0], self.rotation)


def facing(heading: float, pitch: float) -> np.ndarray:
    """(3, 3) rotation of a hand: x approaches along `heading`, `pitch` below the horizontal; y closes level [rad]."""
    x = np.array([np.cos(heading) * np.cos(pitch), np.sin(heading) * np.cos(pitch), -np.sin(pitch)])
    y = np.array([-np.sin(heading), np.cos(heading), 0.0])
    return np.stack([x, y, np.cross(x, y)], axis=1)


def turned(angle: float, towards: float, period: float) -> float:
    """The one of `angle` + n * `period` that is nearest to `towards` [rad]."""
    return towards + (angle - towards + period / 2) % period - period / 2


def yaw(rotation: np.ndarray) -> float:
    """Heading [rad] of the edge of a block that lies most level."""
    edge = rotation[:, np.argmin(np.abs(rotation[2]))]
    return float(np.arctan2(edge[1], edge[0]))


def approach_pitch(position: np.ndarray, side: str) -> float:
    """Approach [rad] below the horizontal: steep when near, flatter when far."""
    distance = np.linalg.norm(np.asarray(position)[:2] - shoulder(side))
    share = np.clip((distance - NEAR_REACH) / (REACH - NEAR_REACH), 0, 1)
    return float(STEEP_RAD + share * (FLAT_RAD - STEEP_RAD))


class Hand:
    """One arm. A goal may move: a function in place of a pose is asked at every step."""

    def __init__(self, simulation: Simulation, side: str) -> None:
        self.side = side
        self._simulation, self._robot = simulation, simulation.robot
        self._limb = self._robot.limb(side)
        self._kinematics = ArmKinematics(simulation.model, self._robot, side)
        self._frame = simulation.model.body(f"{side}_grasp_frame").id
        self.reset()

    def reset(self) -> None:
        """Stay as it is."""
        state = self._simulation.state()
        self._home = self._goal = state[self._limb.arm]
        self._opening = state[self._limb.gripper_index]
        self.speed = SPEED

    @property
    def pose(self) -> Pose:
        data = self._simulation.data
        return Pose(data.xpos[self._frame].copy(), data.xmat[self._frame].reshape(3, 3).copy())

    @property
    def opening_mm(self) -> float:
        return self._simulation.state()[self._limb.gripper_index]

    def azimuth(self, position: np.ndarray) -> float:
        """Direction [rad] from the shoulder to a position."""
        return azimuth(position, self.side)

    def pitch(self, position: np.ndarray) -> float:
        return approach_pitch(position, self.side)

    def write(self, action: np.ndarray) -> None:
        """Put the hand's target for the next control period into a (14,) action."""
        state = self._simulation.state()
        joints = state[self._limb.arm]
        reach = self._robot.command_velocity * self._robot.period_s
        way = self._goal - joints
        # All joints in step, so that the path stays straight.
        share = max(1.0, float(np.max(np.abs(way) / (self.speed * reach[self._limb.arm]))))
        action[self._limb.arm] = joints + way / share
        index = self._limb.gripper_index
        # While squeezing, the measured opening is the thing's width: the target has to stay below it.
        action[index] = state[index] + np.clip(self._opening - state[index], -reach[index], reach[index])

    def move(
        self, goal: Pose | Callable[[], Pose], tolerance: float = POSITION_TOLERANCE, steps: int = MOVE_STEPS
    ) -> Skill:
        """Straight to a pose; ends there, or after `steps`. The longer it is near the less exact it has to be: an arm
        that is disturbed never gets there for good.
        """
        near = 0
        for _ in range(steps):
            target, pose = goal() if callable(goal) else goal, self.pose
            rotvec = rotation_vector(target.rotation @ pose.rotation.T)
            away, angle = np.linalg.norm(target.position - pose.position), np.linalg.norm(rotvec)
            share = min(1.0, AHEAD / max(away, 1e-9), AHEAD_RAD / max(angle, 1e-9))
            self._aim(
                Pose(
                    pose.position + share * (target.position - pose.position),
                    _rotation(share * rotvec) @ pose.rotation,
                )
            )
            error = max(away / tolerance, angle / (ROTATION_TOLERANCE * max(1.0, tolerance / POSITION_TOLERANCE)))
            near += error < NEAR
            if error < 1.0 + near / LOOSER_STEPS:
                return
            yield

    def via(self, *goals: Pose, tolerance: float = 0.02) -> Skill:
        """Through poses without a stop; exact only at the last."""
        for goal in goals[:-1]:
            yield from self.move(goal, tolerance)
        yield from self.move(goals[-1])

    def retire(self) -> None:
        """Set off for the pose of the reset and let others go on meanwhile."""
        self._goal = self._home

    def open(self, opening_mm: float = OPEN_MM) -> Skill:
        self._opening = opening_mm
        for _ in range(CLOSE_STEPS):
            if self.opening_mm > opening_mm - 5:
                return
            yield

    def set_opening(self, opening_mm: float) -> None:
        """Open or close meanwhile."""
        self._opening = opening_mm

    def close(self, width_mm: float, gripped: Callable[[], bool] = lambda: False) -> Skill:
        """Close on a thing; ends a little after `gripped`, when the grip has built up."""
        self._opening = max(0.0, width_mm - SQUEEZE_MM)
        for _ in range(CLOSE_STEPS):
            yield
            if gripped():
                break
        yield
        yield

    def pick(
        self,
        grasp: Callable[[], Pose],
        width_mm: float,
        gripped: Callable[[], bool],
        *,
        clearance: float = 0.09,
        lift: float = 0.10,
        opening_mm: float = OPEN_MM,
        attempts: int = 4,
    ) -> Skill:
        """Come from above, close, lift; again when it slipped. `grasp` is asked for at every step."""
        for _ in range(attempts):
            self.set_opening(opening_mm)
            yield from self.move(lambda: grasp().back(clearance), 0.015)
            yield from self.open(opening_mm)
            yield from self.move(grasp)
            yield from self.close(width_mm, gripped)
            yield from self.move(self.pose.moved(z=lift), 0.02)
            if gripped():
                return
            yield from self.open(opening_mm)

    def release(self, opening_mm: float, away: float = 0.09, rise: float = 0.0) -> Skill:
        """Open, draw back along the approach, and rise out of the way [m]."""
        yield from self.open(opening_mm)
        yield from self.move(self.pose.back(away), 0.02)
        if rise:
            yield from self.move(self.pose.moved(z=rise), 0.02, RISE_STEPS)

    def arc(self, centre: np.ndarray, angle: float, arrived: Callable[[], bool], steps: int = 2 * MOVE_STEPS) -> Skill:
        """Round a vertical axis through `centre`, by at most `angle` [rad, positive to the left], facing as before."""
        start = self.pose
        way, rotation = start.position - centre, start.rotation
        radius, first = np.linalg.norm(way[:2]), np.arctan2(way[1], way[0])
        for _ in range(steps):
            now = self.pose.position - centre
            passed = turned(np.arctan2(now[1], now[0]), first, 2 * np.pi) - first
            if arrived() or abs(passed) >= abs(angle):
                return
            ahead = first + passed + np.sign(angle) * AHEAD / radius
            position = centre + [radius * np.cos(ahead), radius * np.sin(ahead), way[2]]
            self._aim(Pose(position, rotation))
            yield

    def push(self, direction: np.ndarray, distance: float, arrived: Callable[[], bool]) -> Skill:
        """Straight ahead by at most `distance` [m], with whatever is in front of the fingers."""
        start = self.pose
        for _ in range(MOVE_STEPS):
            passed = (self.pose.position - start.position) @ direction
            if arrived() or passed >= distance:
                return
            self._aim(Pose(start.position + (passed + AHEAD / 3) * direction, start.rotation))
            yield

    def holding(self, thing: Pose, goal: Pose) -> Pose:
        """Pose of the hand that brings what it holds, now at `thing`, to `goal`."""
        return goal @ (thing.inverse() @ self.pose)

    def _aim(self, goal: Pose) -> None:
        joints = self._simulation.state()[self._limb.arm]
        self._goal, *_ = self._kinematics.solve(goal.position, goal.rotation, joints)


def _rotation(vector: np.ndarray) -> np.ndarray:
    angle = float(np.linalg.norm(vector))
    quat, matrix = np.empty(4), np.empty(9)
    mujoco.mju_axisAngle2Quat(quat, vector / max(angle, 1e-12), angle)
    mujoco.mju_quat2Mat(matrix, quat)
    return matrix.reshape(3, 3)
