"""Inverse kinematics of one arm on the MuJoCo model: damped least squares inside the robot's joint limits."""

from __future__ import annotations

import mujoco
import numpy as np

from r1lite_description.robot import Robot

DAMPING = 0.03
ROTATION_WEIGHT_M = 0.15  # how many metres of position error one radian of orientation error weighs
MAX_STEP_RAD = 0.3


class ArmKinematics:
    """Poses of a limb's grasp frame. Works on data of its own: the simulation's state is never touched."""

    def __init__(self, model: mujoco.MjModel, robot: Robot, limb: str) -> None:
        self._model = model
        self._data = mujoco.MjData(model)
        arm = robot.limb(limb)
        self._qpos = np.array([model.joint(name).qposadr[0] for name in arm.joints])
        self._dof = np.array([model.joint(name).dofadr[0] for name in arm.joints])
        self._body = model.body(f"{limb}_grasp_frame").id
        self._min, self._max = robot.position_min[arm.arm], robot.position_max[arm.arm]

    def pose(self, joints_rad: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Position (3,) [m] and rotation (3, 3) of the grasp frame in the world."""
        self._data.qpos[self._qpos] = joints_rad
        mujoco.mj_kinematics(self._model, self._data)
        mujoco.mj_comPos(self._model, self._data)
        return self._data.xpos[self._body].copy(), self._data.xmat[self._body].reshape(3, 3).copy()

    def solve(
        self, position: np.ndarray, rotation: np.ndarray, start_rad: np.ndarray, iterations: int = 60
    ) -> tuple[np.ndarray, float, float]:
        """Joints (6,) [rad] within limits that bring the grasp frame to a pose, and the error left over [m], [rad]."""
        joints = np.clip(np.asarray(start_rad, dtype=float), self._min, self._max)
        jacobian = np.zeros((6, self._model.nv))
        for _ in range(iterations):
            error = self._error(joints, position, rotation)
            if np.linalg.norm(error[:3]) < 2e-4 and np.linalg.norm(error[3:]) < 2e-3:
                break
            mujoco.mj_jacBody(self._model, self._data, jacobian[:3], jacobian[3:], self._body)
            free = np.ones(len(joints), dtype=bool)
            # A joint that rests on a limit and is pushed further is taken out, so that the others make up for it.
            for _ in range(2):
                step = _damped_step(jacobian[:, self._dof], error, free)
                held = ((joints <= self._min) & (step < 0)) | ((joints >= self._max) & (step > 0))
                if not np.any(held & free):
                    break
                free &= ~held
            joints = np.clip(joints + np.clip(step, -MAX_STEP_RAD, MAX_STEP_RAD), self._min, self._max)
        error = self._error(joints, position, rotation)
        return joints, float(np.linalg.norm(error[:3])), float(np.linalg.norm(error[3:]))

    def _error(self, joints: np.ndarray, position: np.ndarray, rotation: np.ndarray) -> np.ndarray:
        current_position, current_rotation = self.pose(joints)
        return np.concatenate([position - current_position, rotation_vector(rotation @ current_rotation.T)])


def rotation_vector(rotation: np.ndarray) -> np.ndarray:
    """(3,) axis times angle [rad] of a (3, 3) rotation."""
    quat, vector = np.empty(4), np.empty(3)
    mujoco.mju_mat2Quat(quat, rotation.ravel())
    mujoco.mju_quat2Vel(vector, quat, 1.0)
    return vector


def _damped_step(jacobian: np.ndarray, error: np.ndarray, free: np.ndarray) -> np.ndarray:
    weight = np.array([1.0, 1.0, 1.0, *[ROTATION_WEIGHT_M] * 3])
    weighted = jacobian * free * weight[:, None]
    gram = weighted @ weighted.T + DAMPING**2 * np.eye(6)
    return weighted.T @ np.linalg.solve(gram, error * weight)
