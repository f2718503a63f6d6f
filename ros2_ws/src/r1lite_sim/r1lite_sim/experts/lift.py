"""A scripted expert for the lift task. It sees the block's true pose and says where a policy should steer next:
absolute targets for the next control period, within the robot's command velocities and joint limits.
"""

from __future__ import annotations

import numpy as np

from r1lite_sim.kinematics import ArmKinematics
from r1lite_sim.scene.objects import BLOCK_SIZE
from r1lite_sim.scene.workspace import azimuth
from r1lite_sim.simulation import Simulation
from r1lite_sim.skills import approach_pitch, facing, turned, yaw

CLEARANCE = 0.09  # m between the grasp and the pose above it, back along the approach
LIFT = 0.12  # m that the block is raised
GRASP_HEIGHT = 0.004  # m that the grasp is above the block's middle: the finger tips stay off the table
OPEN_MM = 95.0
CLOSED_MM = 20.0  # the servo squeezes the block with what is missing from 40 mm

ABOVE_TOLERANCE = 0.02  # m
GRASP_TOLERANCE = 0.010
LOST_LATERAL = 0.03  # m off the approach line while going down: start again from above
CLOSE_STEPS = 10  # closing without a grasp for this long: start again from above
SPEED = 0.6  # share of the command velocities that is used: the pace of a careful teleoperator


class LiftExpert:
    """`act` is called once per control period; `phase` is "above", "down", "close", "lift" or "hold"."""

    def __init__(self, simulation: Simulation) -> None:
        self._simulation = simulation
        self._robot = simulation.robot
        self._arms = {limb.name: ArmKinematics(simulation.model, self._robot, limb.name) for limb in self._robot.limbs}
        self.reset()

    def reset(self) -> None:
        """Forget everything: a new episode begins."""
        side = self._simulation.task.side
        self._limb, self._kinematics = self._robot.limb(side), self._arms[side]
        self.phase = "above"
        self._idle = self._simulation.state()
        self._closing = 0
        self._goal: np.ndarray | None = None  # of the last period: the next solution starts there
        self._lift_goal: np.ndarray | None = None

    @property
    def done(self) -> bool:
        """The block is held up."""
        return self.phase == "hold" and self._simulation.success()

    def act(self) -> np.ndarray:
        """(14,) absolute target for the next control period."""
        state = self._simulation.state()
        joints = state[self._limb.arm]
        block, block_rotation = self._simulation.task.target(self._simulation.data)
        rotation = self._grasp_rotation(block, block_rotation)
        grasp = block + [0, 0, GRASP_HEIGHT]
        above = grasp - CLEARANCE * rotation[:, 0]
        position, _ = self._kinematics.pose(joints)
        self._advance(position, grasp, above, rotation[:, 0], state[self._limb.gripper_index])

        goal_position = {"above": above, "down": grasp, "close": grasp}.get(self.phase)
        if goal_position is not None:
            goal, *_ = self._kinematics.solve(goal_position, rotation, joints if self._goal is None else self._goal)
            self._goal = goal
        else:
            goal = self._lifted(joints)
        action = self._idle.copy()
        action[self._limb.arm] = self._towards(joints, goal)
        opening = CLOSED_MM if self.phase in ("close", "lift", "hold") else OPEN_MM
        reach = self._robot.command_velocity[self._limb.gripper_index] * self._robot.period_s
        measured = state[self._limb.gripper_index]
        # While squeezing, the measured opening is the block's width: the target has to stay below it.
        action[self._limb.gripper_index] = measured + np.clip(opening - measured, -reach, reach)
        return np.clip(action, self._robot.position_min, self._robot.position_max)

    def _advance(
        self, position: np.ndarray, grasp: np.ndarray, above: np.ndarray, approach: np.ndarray, opening_mm: float
    ) -> None:
        offset = position - grasp
        lateral = np.linalg.norm(offset - approach * (offset @ approach))
        task, data = self._simulation.task, self._simulation.data
        if self.phase == "above" and opening_mm > OPEN_MM - 15 and np.linalg.norm(position - above) < ABOVE_TOLERANCE:
            self.phase = "down"
        elif self.phase == "down":
            if np.linalg.norm(offset) < GRASP_TOLERANCE:
                self.phase, self._closing = "close", 0
            elif lateral > LOST_LATERAL:
                self.phase = "above"
        elif self.phase == "close":
            self._closing += 1
            if task.grasped(data) and opening_mm < BLOCK_SIZE * 1000 * 1.5:
                self.phase = "lift"
            elif self._closing > CLOSE_STEPS:
                self.phase = "above"
        elif self.phase in ("lift", "hold"):
            if not task.grasped(data):
                self.phase, self._lift_goal = "above", None
            elif self.phase == "lift" and task.success(data) and self._at_lift_goal(position):
                self.phase = "hold"

    def _grasp_rotation(self, block: np.ndarray, block_rotation: np.ndarray) -> np.ndarray:
        """Approach steeply when near and flatter when far; close on the pair of faces that needs the least turn."""
        ahead = azimuth(block, self._limb.name)
        heading = ahead + turned(yaw(block_rotation) - ahead, 0.0, np.pi / 2)
        return facing(heading, approach_pitch(block, self._limb.name))

    def _lifted(self, joints: np.ndarray) -> np.ndarray:
        if self._lift_goal is None:
            position, rotation = self._kinematics.pose(joints)
            self._lift_position = position + [0, 0, LIFT]
            self._lift_goal, *_ = self._kinematics.solve(self._lift_position, rotation, joints)
        return self._lift_goal

    def _at_lift_goal(self, position: np.ndarray) -> bool:
        return self._lift_goal is not None and np.linalg.norm(position - self._lift_position) < ABOVE_TOLERANCE

    def _towards(self, joints: np.ndarray, goal: np.ndarray) -> np.ndarray:
        """One control period's way towards the goal, all joints in step so that the path stays straight."""
        limit = SPEED * self._robot.command_velocity[self._limb.arm] * self._robot.period_s
        way = goal - joints
        return joints + way / max(1.0, np.max(np.abs(way) / limit))
