"""Bodies that tasks put on the table: a box, a capsule or a cylinder each, or a few of them. Convex primitives only:
their contacts are exact and cheap. `tasks/` says where they stand and what is to be done with them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import mujoco
import numpy as np

from r1lite_sim.scene.robot_model import COLLISION_GROUP, ROBOT_CONTACT, SCENE_CONTACT

BOX, CYLINDER = mujoco.mjtGeom.mjGEOM_BOX, mujoco.mjtGeom.mjGEOM_CYLINDER

# Colours that an instruction can name.
PALETTE = {
    "red": (0.80, 0.08, 0.07),
    "green": (0.10, 0.55, 0.15),
    "blue": (0.08, 0.20, 0.75),
    "yellow": (0.90, 0.75, 0.08),
    "orange": (0.95, 0.42, 0.05),
    "purple": (0.42, 0.12, 0.55),
    "white": (0.93, 0.93, 0.92),
}
BLOCK_SIZE = 0.04  # m, edge
BLOCK_MASS = 0.05  # kg


def solid(body, name: str, kind, size: Sequence[float], colour: Sequence[float] = (0.5, 0.5, 0.5), **options):
    """A shape that robot and scene collide with. `options` are those of `MjsBody.add_geom`: pos, euler, mass, ..."""
    defaults = {"condim": 4, "friction": [1.0, 0.01, 0.0001]}
    return body.add_geom(
        name=name,
        type=kind,
        size=[*size, *[0.0] * (3 - len(size))],
        rgba=[*colour, 1],
        contype=SCENE_CONTACT,
        conaffinity=SCENE_CONTACT | ROBOT_CONTACT,
        **{**defaults, **options},
    )


def drawn(body, name: str, kind, size: Sequence[float], colour: Sequence[float] = (0.5, 0.5, 0.5), **options):
    """A shape that is only seen: what it stands for collides as a simpler `hidden` one."""
    padded = [*size, *[0.0] * (3 - len(size))]
    return body.add_geom(
        name=name, type=kind, size=padded, rgba=[*colour, 1], contype=0, conaffinity=0, mass=0, **options
    )


def hidden(body, name: str, kind, size: Sequence[float], **options):
    """A shape that collides and is not seen."""
    return solid(body, name, kind, size, group=COLLISION_GROUP, **options)


def free_body(spec: mujoco.MjSpec, name: str, damping: float = 0.0):
    """A body that can be carried about; its free joint has its name. `damping` [Nm s/rad, N s/m] lets it come to rest
    when it swings.
    """
    body = spec.worldbody.add_body(name=name, pos=[0, 0, 0])
    body.add_joint(name=name, type=mujoco.mjtJoint.mjJNT_FREE, damping=damping)
    return body


def block(spec: mujoco.MjSpec, name: str) -> None:
    """A cube to be gripped by any pair of faces."""
    solid(free_body(spec, name), name, BOX, [BLOCK_SIZE / 2] * 3, mass=BLOCK_MASS)


def put(model: mujoco.MjModel, data: mujoco.MjData, name: str, position: Sequence[float], yaw: float = 0.0) -> None:
    """Place a free body, upright."""
    address = model.joint(name).qposadr[0]
    data.qpos[address : address + 3] = position
    data.qpos[address + 3 : address + 7] = np.cos(yaw / 2), 0, 0, np.sin(yaw / 2)


def fix(model: mujoco.MjModel, name: str, position: Sequence[float], yaw: float = 0.0) -> None:
    """Place a body that stands firmly, upright."""
    index = model.body(name).id
    model.body_pos[index] = position
    model.body_quat[index] = np.cos(yaw / 2), 0, 0, np.sin(yaw / 2)


def paint(model: mujoco.MjModel, shapes: Iterable[str], colour: Sequence[float], rng: np.random.Generator) -> None:
    """Give some shapes one colour, a little off as lots of paint are."""
    rgb = np.clip(np.asarray(colour) * rng.uniform(0.88, 1.12, 3), 0, 1)
    for name in shapes:
        model.geom(name).rgba[:3] = rgb
