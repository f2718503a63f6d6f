"""Pick up the named block and lift it. Three blocks of other colours lie beside it."""

from __future__ import annotations

import itertools
from collections.abc import Iterable

import mujoco
import numpy as np

import r1lite_description.tasks as descriptions
from r1lite_description.robot import Robot
from r1lite_sim.scene.objects import BLOCK_MASS, BLOCK_SIZE
from r1lite_sim.scene.robot_model import ROBOT_CONTACT, SCENE_CONTACT, finger_geoms
from r1lite_sim.scene.table import TABLE_HEIGHT
from r1lite_sim.scene.workspace import PATIENCE, REACH, SHOULDER, SIDES, start_pose
from r1lite_sim.tasks.base import DRAWN

COLOURS = {
    "red": (0.80, 0.08, 0.07),
    "green": (0.10, 0.55, 0.15),
    "blue": (0.08, 0.20, 0.75),
    "yellow": (0.90, 0.75, 0.08),
}
GAP = 0.10  # m, centre to centre: an open finger fits between two blocks
LIFT_HEIGHT = 0.05  # m above the start: the block is lifted
REACH_DISTANCE = 0.06  # m from the grasp frame to the block: the block is reached

# Where blocks start, for the right arm; mirrored for the left. Inside the head camera's centre square.
REGION_X = (0.51, 0.70)
REGION_Y = (-0.27, 0.08)


class LiftTask:
    """`colour` names the block and `side` the arm of the instruction "lift the {colour} block with the {side} arm";
    "random" draws them in every scene, which is then the one that the drawn names give with the same seed.

    Raises:
        ValueError: unknown colour or side.
    """

    name = "lift"
    camera_error = False  # the embedded policy was trained without

    def __init__(self, colour: str = "red", side: str = "right") -> None:
        description = descriptions.load(self.name)
        self.substeps, self.time_limit_s = tuple(description.substeps), description.time_limit_s
        self._colour, self._side = _allowed(colour, "colour", COLOURS), _allowed(side, "side", SIDES)
        self.colour, self.side = self._named("red", "right")
        self.done: tuple[str, ...] = ()

    @property
    def instruction(self) -> str:
        return f"lift the {self.colour} block with the {self.side} arm"

    def build(self, spec: mujoco.MjSpec) -> None:
        """Add the blocks to the scene."""
        for colour, rgb in COLOURS.items():
            body = spec.worldbody.add_body(name=f"{colour}_block", pos=[0.6, 0, TABLE_HEIGHT + BLOCK_SIZE])
            body.add_freejoint(name=f"{colour}_block")
            body.add_geom(
                name=f"{colour}_block",
                type=mujoco.mjtGeom.mjGEOM_BOX,
                size=[BLOCK_SIZE / 2] * 3,
                rgba=[*rgb, 1],
                mass=BLOCK_MASS,
                condim=4,
                friction=[1.0, 0.01, 0.0001],
                contype=SCENE_CONTACT,
                conaffinity=SCENE_CONTACT | ROBOT_CONTACT,
            )

    def bind(self, model: mujoco.MjModel, robot: Robot) -> None:
        """Look up the ids that the other methods need."""
        self._model, self._robot = model, robot
        self._qpos = {colour: model.joint(f"{colour}_block").qposadr[0] for colour in COLOURS}
        self._block = model.body(f"{self.colour}_block").id
        self._block_geom = model.geom(f"{self.colour}_block").id
        self._grasp_frame = model.body(f"{self.side}_grasp_frame").id
        self._fingers = {model.geom(name).id for name in finger_geoms(self.side)}

    def choose(self, colour: str | None = None, side: str | None = None) -> None:
        """Name another block or arm, from the next reset on.

        Raises:
            ValueError: unknown colour or side.
        """
        colour = _allowed(colour or self._colour, "colour", COLOURS)
        side = _allowed(side or self._side, "side", SIDES)
        self._colour, self._side = colour, side
        self.colour, self.side = self._named(self.colour, self.side)
        self.bind(self._model, self._robot)

    def reset(self, model: mujoco.MjModel, data: mujoco.MjData, rng: np.random.Generator) -> np.ndarray:
        """Place the blocks and return the robot's start vector (14,)."""
        self.done = ()
        # A child's draws leave the scene's generator where it was.
        drawing = rng.spawn(1)[0]
        self.colour, self.side = self._named(str(drawing.choice(list(COLOURS))), str(drawing.choice(SIDES)))
        self.bind(model, self._robot)
        placed: list[np.ndarray] = []
        for colour in (self.colour, *[c for c in COLOURS if c != self.colour]):
            placed.append(_free_place(placed, rng, self.side))
            yaw = rng.uniform(-np.pi, np.pi)
            address = self._qpos[colour]
            data.qpos[address : address + 3] = *placed[-1], TABLE_HEIGHT + BLOCK_SIZE / 2
            data.qpos[address + 3 : address + 7] = np.cos(yaw / 2), 0, 0, np.sin(yaw / 2)
            model.geom(f"{colour}_block").rgba[:3] = np.clip(COLOURS[colour] * rng.uniform(0.85, 1.15, 3), 0, 1)
        self._start_height = TABLE_HEIGHT + BLOCK_SIZE / 2
        return start_pose(self._robot, rng)

    def push(self, data: mujoco.MjData) -> None:
        """Nothing but gravity acts on the blocks."""

    def update(self, data: mujoco.MjData) -> None:
        """Note the substeps done so far. A later substep counts the earlier ones."""
        reached = np.linalg.norm(data.xpos[self._grasp_frame] - data.xpos[self._block]) < REACH_DISTANCE
        state = (reached, self.grasped(data), self.success(data))
        last = max((index for index, value in enumerate(state) if value), default=-1)
        if last >= len(self.done):
            self.done = self.substeps[: last + 1]

    def progress(self) -> float:
        return len(self.done) / len(self.substeps)

    def success(self, data: mujoco.MjData) -> bool:
        """The block is in the gripper and more than 5 cm above its start."""
        return bool(data.xpos[self._block, 2] > self._start_height + LIFT_HEIGHT and self.grasped(data))

    def grasped(self, data: mujoco.MjData) -> bool:
        """Both fingers of the named arm touch the block."""
        pairs = data.contact.geom[: data.ncon]
        touching = set(pairs[pairs[:, 0] == self._block_geom, 1]) | set(pairs[pairs[:, 1] == self._block_geom, 0])
        return self._fingers <= touching

    def target(self, data: mujoco.MjData) -> tuple[np.ndarray, np.ndarray]:
        """Position (3,) [m] and rotation (3, 3) of the named block in the world."""
        return data.xpos[self._block].copy(), data.xmat[self._block].reshape(3, 3).copy()

    def focus(self, data: mujoco.MjData) -> np.ndarray | None:
        """(3,) position [m] of the named block."""
        return data.xpos[self._block].copy()

    def _named(self, colour: str, side: str) -> tuple[str, str]:
        """Colour and side as they were asked for; these where they are to be drawn."""
        return colour if self._colour == DRAWN else self._colour, side if self._side == DRAWN else self._side


def _allowed(value: str, what: str, allowed: Iterable[str]) -> str:
    if value not in (*allowed, DRAWN):
        raise ValueError(f"{what} is {value!r}; allowed: {', '.join(allowed)}, {DRAWN}")
    return value


def _free_place(placed: list[np.ndarray], rng: np.random.Generator, side: str) -> np.ndarray:
    mirror = np.array([1.0, 1.0 if side == "right" else -1.0])
    for draw in itertools.count():
        gap = GAP * 0.9 ** (draw // PATIENCE)
        place = np.array([rng.uniform(*REGION_X), rng.uniform(*REGION_Y)])
        in_reach = np.linalg.norm(place - SHOULDER) <= REACH
        place = place * mirror
        if in_reach and all(np.linalg.norm(place - other) >= gap for other in placed):
            return place
