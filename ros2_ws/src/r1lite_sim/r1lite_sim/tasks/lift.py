"""Pick up the named block and lift it. Three blocks of other colours lie beside it."""

from __future__ import annotations

import itertools

import mujoco
import numpy as np

from r1lite_description.robot import Robot
from r1lite_sim.instructions import DRAWN, LIFT_COLOURS, SIDES, TEMPLATES, check_option
from r1lite_sim.scene.objects import BLOCK_SIZE, PALETTE, block, put
from r1lite_sim.scene.table import TABLE_HEIGHT
from r1lite_sim.scene.workspace import PATIENCE, REACH, SHOULDER, start_pose
from r1lite_sim.tasks.base import Task

COLOURS = {name: PALETTE[name] for name in LIFT_COLOURS}
GAP = 0.10  # m, centre to centre: an open finger fits between two blocks
START_HEIGHT = TABLE_HEIGHT + BLOCK_SIZE / 2  # m, middle of a block on the table
LIFT_HEIGHT = 0.05  # m above the start: the block is lifted
REACH_DISTANCE = 0.06  # m from the grasp frame to the block: the block is reached

# Where blocks start, for the right arm; mirrored for the left. Inside the head camera's centre square.
REGION_X = (0.51, 0.70)
REGION_Y = (-0.27, 0.08)


class LiftTask(Task):
    """`colour` names the block and `side` the arm of the instruction "lift the {colour} block with the {side} arm";
    "random" draws them in every scene, which is then the one that the drawn names give with the same seed.

    Raises:
        ValueError: unknown colour or side.
    """

    name = "lift"
    camera_error = False  # the embedded policy was trained without

    def __init__(self, colour: str = "red", side: str = "right") -> None:
        super().__init__()
        check_option("colour", colour, COLOURS)
        check_option("side", side, SIDES)
        self._colour, self._side = colour, side
        self.colour, self.side = self._named("red", "right")

    @property
    def instruction(self) -> str:
        return TEMPLATES[self.name].format(colour=self.colour, side=self.side)

    def build(self, spec: mujoco.MjSpec) -> None:
        for colour in COLOURS:
            block(spec, f"{colour}_block")

    def bind(self, model: mujoco.MjModel, robot: Robot) -> None:
        super().bind(model, robot)
        self._block = model.body(f"{self.colour}_block").id
        self._grasp_frame = model.body(f"{self.side}_grasp_frame").id

    def choose(self, colour: str | None = None, side: str | None = None) -> None:
        """Name another block or arm, from the next reset on.

        Raises:
            ValueError: unknown colour or side.
        """
        colour, side = colour or self._colour, side or self._side
        check_option("colour", colour, COLOURS)
        check_option("side", side, SIDES)
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
            put(model, data, f"{colour}_block", [*placed[-1], START_HEIGHT], rng.uniform(-np.pi, np.pi))
            model.geom(f"{colour}_block").rgba[:3] = np.clip(COLOURS[colour] * rng.uniform(0.85, 1.15, 3), 0, 1)
        return start_pose(self._robot, rng)

    def update(self, data: mujoco.MjData) -> None:
        """Note the substeps done so far. A later substep counts the earlier ones."""
        reached = np.linalg.norm(data.xpos[self._grasp_frame] - data.xpos[self._block]) < REACH_DISTANCE
        state = (reached, self.grasped(data), self.success(data))
        last = max((index for index, value in enumerate(state) if value), default=-1)
        if last >= len(self.done):
            self.done = self.substeps[: last + 1]

    def success(self, data: mujoco.MjData) -> bool:
        """The block is in the gripper and more than 5 cm above its start."""
        return bool(data.xpos[self._block, 2] > START_HEIGHT + LIFT_HEIGHT and self.grasped(data))

    def grasped(self, data: mujoco.MjData) -> bool:
        """Both fingers of the named arm touch the block."""
        self._contacts.read(data)
        return self.gripped(f"{self.colour}_block", self.side)

    def target(self, data: mujoco.MjData) -> tuple[np.ndarray, np.ndarray]:
        """Position (3,) [m] and rotation (3, 3) of the named block in the world."""
        return data.xpos[self._block].copy(), data.xmat[self._block].reshape(3, 3).copy()

    def focus(self, data: mujoco.MjData) -> np.ndarray | None:
        """(3,) position [m] of the named block."""
        return data.xpos[self._block].copy()

    def _named(self, colour: str, side: str) -> tuple[str, str]:
        """Colour and side as they were asked for; these where they are to be drawn."""
        return colour if self._colour == DRAWN else self._colour, side if self._side == DRAWN else self._side


def _free_place(placed: list[np.ndarray], rng: np.random.Generator, side: str) -> np.ndarray:
    mirror = np.array([1.0, 1.0 if side == "right" else -1.0])
    for draw in itertools.count():
        gap = GAP * 0.9 ** (draw // PATIENCE)
        position = np.array([rng.uniform(*REGION_X), rng.uniform(*REGION_Y)])
        in_reach = np.linalg.norm(position - SHOULDER) <= REACH
        position = position * mirror
        if in_reach and all(np.linalg.norm(position - other) >= gap for other in placed):
            return position
