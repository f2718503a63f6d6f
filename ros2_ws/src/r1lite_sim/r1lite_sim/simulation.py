"""The simulated robot at its table: physics, trackers, cameras and the task. The node and the Gymnasium environments
drive the same object. Knows no ROS.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

import mujoco
import numpy as np

from r1lite_description.robot import Robot
from r1lite_sim import LIBRARIES, tasks
from r1lite_sim.scene import table
from r1lite_sim.scene.robot_model import COLLISION_GROUP, finger_joints, robot_spec
from r1lite_sim.tracker import Tracker

COMMAND_TIMEOUT_S = 0.2
GRIPPER_SPEED_MM_S = 500.0  # two fingers at the 0.25 m/s of the URDF
LIMIT_TOLERANCE = 1e-6  # rad and mm, for limits that went through a message
SETTLE_S = 0.2
SCENE_SIZE = (640, 480)


@dataclass(frozen=True)
class LinkPose:
    """Pose of a link in its parent's frame. `moves` is False when it never changes."""

    link: str
    parent: str
    moves: bool
    position: np.ndarray  # (3,) m
    quaternion: np.ndarray  # (4,) w first


class Simulation:
    """A task with the robot in it. Not thread-safe; rendering belongs to the thread that rendered first.

    Args:
        task: name of a task of `r1lite_sim.tasks`.
        image_width, image_height: size of the camera images [px].
        command_timeout_s: how long after its last command a stream counts as alive.

    Raises:
        ValueError: unknown task or option, or an image size outside 16..1280 x 16..720.
    """

    def __init__(
        self,
        robot: Robot,
        task: str = "lift",
        *,
        task_options: dict | None = None,
        image_width: int = 320,
        image_height: int = 180,
        command_timeout_s: float = COMMAND_TIMEOUT_S,
    ) -> None:
        if not (16 <= image_width <= 1280 and 16 <= image_height <= 720):
            raise ValueError(f"image size is {image_width}x{image_height}; allowed: 16..1280 x 16..720")
        self.robot = robot
        self.task = tasks.make(task, **(task_options or {}))
        self.image_width, self.image_height = image_width, image_height
        spec, self._held = robot_spec(robot)
        links = [body.name for body in spec.bodies[2:]]  # all but the world and the base
        table.build(spec)
        self.task.build(spec)
        self.model = spec.compile()
        self.data = mujoco.MjData(self.model)
        self._mounts = self.model.cam_pos.copy(), self.model.cam_quat.copy()
        self.task.bind(self.model, robot)
        self._arm_qpos = {limb.name: self._addresses(limb.joints, "qposadr") for limb in robot.limbs}
        self._finger_qpos = {limb.name: self._addresses(finger_joints(limb.name), "qposadr") for limb in robot.limbs}
        self._arm_dof = {limb.name: self._addresses(limb.joints, "dofadr") for limb in robot.limbs}
        self._finger_dof = {limb.name: self._addresses(finger_joints(limb.name), "dofadr") for limb in robot.limbs}
        self._arm_ctrl = {limb.name: [self.model.actuator(name).id for name in limb.joints] for limb in robot.limbs}
        self._gripper_ctrl = {limb.name: self.model.actuator(limb.gripper).id for limb in robot.limbs}
        moving = [name for limb in robot.limbs for name in (*limb.joints, *finger_joints(limb.name))]
        self._names = (*self._held, *moving)
        self._moving_qpos = self._addresses(moving, "qposadr")
        self._moving_dof = self._addresses(moving, "dofadr")
        self._arms = {limb.name: Tracker(robot.tracker_velocity, command_timeout_s) for limb in robot.limbs}
        self._grippers = {limb.name: Tracker(np.array([GRIPPER_SPEED_MM_S]), command_timeout_s) for limb in robot.limbs}
        self._links = [self.model.body(name).id for name in links]
        self._renderers: dict[tuple[int, int], mujoco.Renderer] = {}
        self._view = mujoco.MjvOption()
        self._view.geomgroup[COLLISION_GROUP] = 0
        self.seed = 0
        self.reset(0)

    @property
    def instruction(self) -> str:
        return self.task.instruction

    @property
    def time_s(self) -> float:
        return self.data.time

    def reset(self, seed: int, **task_options) -> None:
        """Stage the scene of `seed`. The same seed and options give the same scene, to the bit.

        `task_options` change the task's from here on.

        Raises:
            ValueError: a negative seed, or an option that the task does not take.
        """
        if seed < 0:
            raise ValueError(f"seed is {seed}; allowed: 0 or more")
        if task_options:
            self.task.choose(**task_options)
        self.seed = seed
        rng = np.random.default_rng(seed)
        mujoco.mj_resetData(self.model, self.data)
        table.vary(self.model, rng)
        start = self.task.reset(self.model, self.data, rng)
        self.model.cam_pos[:], self.model.cam_quat[:] = self._mounts
        if self.task.camera_error:
            table.shake_camera(self.model, self.robot.cameras[0].name, rng)
        for limb in self.robot.limbs:
            self.data.qpos[self._arm_qpos[limb.name]] = start[limb.arm]
            opening = start[limb.gripper_index]
            self.data.qpos[self._finger_qpos[limb.name]] = np.array([0.5, -0.5]) * opening / 1000
            self._arms[limb.name].reset(start[limb.arm])
            self._grippers[limb.name].reset(np.array([opening]))
        self._due_s = 0.0
        mujoco.mj_forward(self.model, self.data)
        self.step(SETTLE_S)
        self.data.time = self._due_s = 0.0

    def command_arm(
        self, limb: str, positions_rad: Sequence[float], velocity_cap_rad_s: Sequence[float] | None = None
    ) -> None:
        """New target of an arm. An empty cap means the robot's default.

        Raises:
            KeyError: no such limb.
            ValueError: wrong count, not finite or out of limits; the arm then keeps its former target.
        """
        arm = self.robot.limb(limb)
        low, high = self.robot.position_min[arm.arm], self.robot.position_max[arm.arm]
        target, cap = _checked(positions_rad, f"{limb} arm position", low, high), None
        if velocity_cap_rad_s is not None and len(velocity_cap_rad_s):
            cap = _checked(velocity_cap_rad_s, f"{limb} arm speed cap", np.zeros(len(low)), np.full(len(low), np.inf))
        self._arms[limb].command(target, cap, self.data.time)

    def command_gripper(self, limb: str, opening_mm: float) -> None:
        """New target of a gripper.

        Raises:
            KeyError: no such limb.
            ValueError: not finite or out of limits; the gripper then keeps its former target.
        """
        index = self.robot.limb(limb).gripper_index
        low, high = self.robot.position_min[[index]], self.robot.position_max[[index]]
        self._grippers[limb].command(_checked([opening_mm], f"{limb} gripper opening", low, high), None, self.data.time)

    def command(self, action: np.ndarray) -> None:
        """New targets of all limbs from one (14,) vector, with the robot's default speed caps.

        Raises:
            ValueError: wrong size, not finite or out of limits.
        """
        action = _checked(action, "action", self.robot.position_min, self.robot.position_max)
        for limb in self.robot.limbs:
            self.command_arm(limb.name, action[limb.arm])
            self.command_gripper(limb.name, action[limb.gripper_index])

    def step(self, duration_s: float) -> None:
        """Let `duration_s` of simulated time pass. Less than a physics step is carried over to the next call."""
        self._due_s += duration_s
        timestep = self.model.opt.timestep
        while self.data.time + timestep / 2 <= self._due_s:
            now_s = self.data.time
            for limb, tracker in self._arms.items():
                self.data.ctrl[self._arm_ctrl[limb]] = tracker.step(now_s, timestep)
            for limb, tracker in self._grippers.items():
                self.data.ctrl[self._gripper_ctrl[limb]] = tracker.step(now_s, timestep)[0] / 1000
            self.task.push(self.data)
            mujoco.mj_step(self.model, self.data)
        self.task.update(self.data)

    def state(self) -> np.ndarray:
        """(14,) measured joints [rad] and openings [mm]."""
        return self._vector(self.data.qpos, self._arm_qpos, self._finger_qpos)

    def velocity(self) -> np.ndarray:
        """(14,) measured joint velocities [rad/s] and opening speeds [mm/s]."""
        return self._vector(self.data.qvel, self._arm_dof, self._finger_dof)

    def joint_state(self) -> tuple[tuple[str, ...], np.ndarray, np.ndarray]:
        """Names, positions and velocities of all joints of the URDF [rad, m]."""
        positions = np.concatenate([list(self._held.values()), self.data.qpos[self._moving_qpos]])
        velocities = np.concatenate([np.zeros(len(self._held)), self.data.qvel[self._moving_dof]])
        return self._names, positions, velocities

    def progress(self) -> float:
        """Share of the task's substeps done since the reset, 0 to 1."""
        return self.task.progress()

    def success(self) -> bool:
        """The task is done at this moment."""
        return self.task.success(self.data)

    def render(self, camera: str) -> np.ndarray:
        """(height, width, 3) uint8 RGB of a camera; the camera "scene" is the onlooker's, 640x480."""
        renderer = self._renderer(camera)
        renderer.disable_depth_rendering()
        renderer.update_scene(self.data, camera=camera, scene_option=self._view)
        return renderer.render()

    def render_depth(self, camera: str) -> np.ndarray:
        """(height, width) float32 distance along the optical axis [m]; NaN where nothing is seen."""
        renderer = self._renderer(camera)
        renderer.enable_depth_rendering()
        renderer.update_scene(self.data, camera=camera, scene_option=self._view)
        depth = renderer.render()
        depth[depth >= 0.99 * self.model.vis.map.zfar] = np.nan
        return depth

    def camera_matrix(self, camera: str) -> np.ndarray:
        """(3, 3) pinhole matrix [px] of a camera's images: square pixels, no distortion."""
        width, height = SCENE_SIZE if camera == table.SCENE_CAMERA else (self.image_width, self.image_height)
        focal = height / 2 / np.tan(np.radians(self.model.camera(camera).fovy[0]) / 2)
        return np.array([[focal, 0, (width - 1) / 2], [0, focal, (height - 1) / 2], [0, 0, 1.0]])

    def link_poses(self) -> list[LinkPose]:
        """Poses of the robot's links, parents first."""
        poses = []
        for index in self._links:
            parent = self.model.body_parentid[index]
            position, quaternion = np.empty(3), np.empty(4)
            mujoco.mju_negPose(position, quaternion, self.data.xpos[parent], self.data.xquat[parent])
            mujoco.mju_mulPose(
                position, quaternion, position.copy(), quaternion.copy(), self.data.xpos[index], self.data.xquat[index]
            )
            names = self.model.body(index).name, self.model.body(parent).name
            poses.append(LinkPose(*names, bool(self.model.body_dofnum[index]), position, quaternion))
        return poses

    def in_frame(self, position: np.ndarray, body: str) -> np.ndarray:
        """(3,) a world position [m] in the frame of a body of the URDF."""
        frame = self.data.body(body)
        return frame.xmat.reshape(3, 3).T @ (position - frame.xpos)

    def projection(self, camera: str, body: str) -> np.ndarray:
        """(3, 4) matrix from a position [m] in a body's frame to homogeneous pixels of a camera, as both are now."""
        frame, eye = self.data.body(body), self.data.camera(camera)
        from_world = np.diag([1.0, -1.0, -1.0]) @ eye.xmat.reshape(3, 3).T  # MuJoCo's cameras look along -z, with y up
        to_camera = np.column_stack([from_world @ frame.xmat.reshape(3, 3), from_world @ (frame.xpos - eye.xpos)])
        return self.camera_matrix(camera) @ to_camera

    def close(self) -> None:
        """Free the renderers."""
        for renderer in self._renderers.values():
            renderer.close()
        self._renderers.clear()

    def _renderer(self, camera: str) -> mujoco.Renderer:
        known = (*[item.name for item in self.robot.cameras], table.SCENE_CAMERA)
        if camera not in known:
            raise KeyError(f"no camera {camera!r}; known cameras: {', '.join(known)}")
        size = SCENE_SIZE if camera == table.SCENE_CAMERA else (self.image_width, self.image_height)
        if size not in self._renderers:
            try:
                renderer = mujoco.Renderer(self.model, height=size[1], width=size[0])
            except Exception as error:  # whatever MuJoCo, PyOpenGL or the driver says
                raise ValueError(
                    f"nothing can be rendered off screen with MUJOCO_GL={os.environ.get('MUJOCO_GL')!r}"
                    f" ({type(error).__name__}: {error}); allowed: {', '.join(LIBRARIES)}, with its library and driver"
                ) from error
            for flag in ("SHADOW", "REFLECTION", "SKYBOX"):
                renderer.scene.flags[getattr(mujoco.mjtRndFlag, f"mjRND_{flag}")] = 0
            self._renderers[size] = renderer
        return self._renderers[size]

    def _vector(self, values: np.ndarray, arms: dict[str, np.ndarray], fingers: dict[str, np.ndarray]) -> np.ndarray:
        """(14,) in `Robot` order, from MuJoCo's values and the addresses of each limb's joints in them."""
        vector = np.empty(self.robot.size)
        for limb in self.robot.limbs:
            vector[limb.arm] = values[arms[limb.name]]
            first, second = values[fingers[limb.name]]
            vector[limb.gripper_index] = (first - second) * 1000
        return vector

    def _addresses(self, joints: Sequence[str], kind: str) -> np.ndarray:
        return np.array([getattr(self.model.joint(name), kind)[0] for name in joints])


def _checked(values: Sequence[float], what: str, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    values = np.asarray(values, dtype=float)
    if values.shape != low.shape:
        raise ValueError(f"{what} has {values.size} values; it takes {low.size}")
    if not np.all(np.isfinite(values)):
        raise ValueError(f"{what} is {values.tolist()}; it must be finite")
    outside = (values < low - LIMIT_TOLERANCE) | (values > high + LIMIT_TOLERANCE)
    if np.any(outside):
        index = int(np.argmax(outside))
        raise ValueError(f"{what} {index} is {values[index]:.4f}; allowed: {low[index]:.4f} to {high[index]:.4f}")
    return np.clip(values, low, high)
