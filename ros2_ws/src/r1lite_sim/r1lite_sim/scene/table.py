"""What stands around the robot in every task: floor, walls, table, lights and the camera for onlookers."""

from __future__ import annotations

import mujoco
import numpy as np

from r1lite_sim.scene.robot_model import ROBOT_CONTACT, SCENE_CONTACT

TABLE_HEIGHT = 0.77  # m, top
TABLE_X, TABLE_Y = (0.38, 1.05), (-0.60, 0.60)  # m, in the frame of base_link
SCENE_CAMERA = "scene"
TIMESTEP_S = 0.002
CEILING_LIGHT, WINDOW_LIGHT = 0.55, 0.35
CAMERA_TURN_DEG, CAMERA_SHIFT = 1.0, 0.005  # most that a camera's mount is off: degrees, m

FLOOR_COLOUR, WALL_COLOUR = (0.45, 0.44, 0.42), (0.75, 0.76, 0.78)
# Table tops, none near a block's colour: white, grey, birch, oak, dark.
TABLE_COLOURS = ((0.82, 0.82, 0.80), (0.55, 0.56, 0.58), (0.80, 0.70, 0.55), (0.62, 0.47, 0.32), (0.28, 0.27, 0.27))


def build(spec: mujoco.MjSpec) -> None:
    """Add the surroundings and set physics and rendering options."""
    option, visual = spec.option, spec.visual
    option.timestep = TIMESTEP_S
    option.integrator = mujoco.mjtIntegrator.mjINT_IMPLICITFAST
    option.cone = mujoco.mjtCone.mjCONE_ELLIPTIC
    option.impratio = 10
    # Clipping planes are multiples of the extent: 1 makes them metres, whatever is added to the scene.
    spec.stat.extent = 1.0
    visual.map.znear, visual.map.zfar = 0.01, 10.0
    # Shadows and multisampling cost more than all the rest of a frame in software GL.
    visual.quality.shadowsize, visual.quality.offsamples = 0, 0
    visual.quality.numslices, visual.quality.numstacks = 14, 7  # round enough, at half the cost of the default
    visual.headlight.ambient, visual.headlight.diffuse, visual.headlight.specular = [0.35] * 3, [0.35] * 3, [0.0] * 3
    visual.global_.offwidth, visual.global_.offheight = 1280, 720

    world = spec.worldbody
    world.add_light(
        name="ceiling", pos=[0.6, 0.4, 2.4], dir=[0.0, -0.15, -1], castshadow=False, diffuse=[CEILING_LIGHT] * 3
    )
    world.add_light(
        name="window", pos=[0.4, -1.8, 2.0], dir=[0.2, 0.8, -0.6], castshadow=False, diffuse=[WINDOW_LIGHT] * 3
    )
    camera = world.add_camera(name=SCENE_CAMERA, pos=[1.75, -1.15, 1.65], fovy=45)
    camera.quat = _look_at(camera.pos, np.array([0.40, -0.05, 0.80]))

    _box(world, "floor", (-3, 3), (-3, 3), (-0.05, 0.0), FLOOR_COLOUR)
    for name, x, y in (
        ("wall", (2.4, 2.5), (-3, 3)),
        ("wall_back", (-3, -2.9), (-3, 3)),
        ("wall_left", (-3, 2.5), (2.9, 3)),
        ("wall_right", (-3, 2.5), (-3, -2.9)),
    ):
        _box(world, name, x, y, (0.0, 3.0), WALL_COLOUR)
    _box(world, "table", TABLE_X, TABLE_Y, (TABLE_HEIGHT - 0.03, TABLE_HEIGHT), TABLE_COLOURS[0])
    for index, (x, y) in enumerate((x, y) for x in TABLE_X for y in TABLE_Y):
        x, y = x - np.sign(x - np.mean(TABLE_X)) * 0.05, y - np.sign(y) * 0.05
        _box(
            world,
            f"leg{index}",
            (x - 0.02, x + 0.02),
            (y - 0.02, y + 0.02),
            (0.0, TABLE_HEIGHT - 0.03),
            (0.3, 0.3, 0.3),
        )


def vary(model: mujoco.MjModel, rng: np.random.Generator) -> None:
    """Draw the colours of table, floor and wall, and the lights."""
    model.geom("table").rgba[:3] = _jitter(TABLE_COLOURS[rng.integers(len(TABLE_COLOURS))], rng, 0.1)
    model.geom("floor").rgba[:3] = _jitter(FLOOR_COLOUR, rng, 0.25)
    wall = _jitter(WALL_COLOUR, rng, 0.2)
    for name in ("wall", "wall_back", "wall_left", "wall_right"):
        model.geom(name).rgba[:3] = wall
    model.light("ceiling").diffuse[:] = CEILING_LIGHT * rng.uniform(0.7, 1.3)
    model.light("ceiling").pos[:] = rng.uniform([0.2, -0.6, 2.2], [1.0, 0.6, 2.6])
    model.light("window").diffuse[:] = WINDOW_LIGHT * rng.uniform(0.5, 1.5)


def shake_camera(model: mujoco.MjModel, camera: str, rng: np.random.Generator) -> None:
    """Draw how far a camera's mount is off. From its place in the description, so restore that first."""
    index = model.camera(camera).id
    axis = rng.normal(size=3)
    angle = np.radians(rng.uniform(0, CAMERA_TURN_DEG))
    error, shift = np.empty(4), rng.normal(size=3)
    mujoco.mju_axisAngle2Quat(error, axis / np.linalg.norm(axis), angle)
    mujoco.mju_mulQuat(model.cam_quat[index], model.cam_quat[index].copy(), error)
    model.cam_pos[index] += shift / np.linalg.norm(shift) * rng.uniform(0, CAMERA_SHIFT)


def _jitter(colour: tuple[float, ...], rng: np.random.Generator, share: float) -> np.ndarray:
    return np.clip(np.asarray(colour) * rng.uniform(1 - share, 1 + share), 0, 1)


def _box(world, name: str, x: tuple, y: tuple, z: tuple, colour: tuple) -> None:
    low, high = np.array([x[0], y[0], z[0]]), np.array([x[1], y[1], z[1]])
    world.add_geom(
        name=name,
        type=mujoco.mjtGeom.mjGEOM_BOX,
        pos=(low + high) / 2,
        size=(high - low) / 2,
        rgba=[*colour, 1],
        condim=4,
        contype=SCENE_CONTACT,
        conaffinity=SCENE_CONTACT | ROBOT_CONTACT,
    )


def _look_at(eye: np.ndarray, point: np.ndarray) -> np.ndarray:
    back = np.asarray(eye) - point
    back /= np.linalg.norm(back)
    right = np.cross([0, 0, 1], back)
    right /= np.linalg.norm(right)
    quat = np.empty(4)
    mujoco.mju_mat2Quat(quat, np.stack([right, np.cross(back, right), back], axis=1).ravel())
    return quat
