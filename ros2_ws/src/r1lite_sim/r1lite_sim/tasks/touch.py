"""Touch the named block with the named arm. Three blocks of other colours lie beside it."""

from __future__ import annotations

import mujoco
import numpy as np

from r1lite_sim.instructions import DRAWN, SIDES, TEMPLATES, check_option
from r1lite_sim.scene import distractors
from r1lite_sim.scene.objects import BLOCK_SIZE, PALETTE, block, paint, put
from r1lite_sim.scene.table import TABLE_HEIGHT
from r1lite_sim.scene.workspace import Places, arrange, in_reach, start_pose
from r1lite_sim.tasks.base import Task

BLOCKS = ("named_block", "block_1", "block_2", "block_3")
GAP = 0.10  # m, centre to centre
NEAR = 0.08  # m from the grasp frame to the block: the block is reached


class TouchTask(Task):
    """`colour` and `side` of the instruction "touch the {colour} block with the {side} arm"; drawn when None or
    "random".

    Raises:
        ValueError: unknown colour or side.
    """

    name = "touch"

    def __init__(self, colour: str | None = None, side: str | None = None) -> None:
        super().__init__()
        self.choose(colour, side)
        self.colour, self.side = self._colour or next(iter(PALETTE)), self._side or SIDES[0]

    @property
    def instruction(self) -> str:
        return TEMPLATES[self.name].format(colour=self.colour, side=self.side)

    def build(self, spec: mujoco.MjSpec) -> None:
        for name in BLOCKS:
            block(spec, name)
        distractors.build(spec)

    def bind(self, model, robot) -> None:
        super().bind(model, robot)
        self._block = self._contacts.body(BLOCKS[0])
        self._hands = {
            side: self._contacts.robot & self._contacts.body(*_bodies(model, f"{side}_gripper")) for side in SIDES
        }

    def choose(self, colour: str | None = None, side: str | None = None) -> None:
        """Name another block or arm, from the next reset on; None and "random" draw it.

        Raises:
            ValueError: unknown colour or side.
        """
        for value, what, allowed in ((colour, "colour", PALETTE), (side, "side", SIDES)):
            if value is not None:
                check_option(what, value, allowed)
        self._colour, self._side = (None if value == DRAWN else value for value in (colour, side))

    def reset(self, model: mujoco.MjModel, data: mujoco.MjData, rng: np.random.Generator) -> np.ndarray:
        """Place the blocks and return the robot's start vector (14,)."""
        self.done = ()
        colours = [str(colour) for colour in rng.permutation(list(PALETTE))]
        self.colour = self._colour or colours[0]
        self.side = self._side or SIDES[rng.integers(len(SIDES))]
        colours = [self.colour, *[colour for colour in colours if colour != self.colour]][: len(BLOCKS)]

        def place(places: Places) -> None:
            spots = [places.draw(GAP / 2, lambda spot: in_reach(spot, self.side))]
            spots += [places.draw(GAP / 2) for _ in BLOCKS[1:]]
            for name, spot in zip(BLOCKS, spots, strict=True):
                put(model, data, name, [*spot, TABLE_HEIGHT + BLOCK_SIZE / 2], rng.uniform(-np.pi, np.pi))

        places = arrange(rng, place)
        for name, colour in zip(BLOCKS, colours, strict=True):
            paint(model, [name], PALETTE[colour], rng)
        distractors.scatter(model, data, rng, places, colours)
        return start_pose(self._robot, rng)

    def states(self, data: mujoco.MjData) -> dict[str, bool]:
        touched = self.success(data)
        way = data.body(f"{self.side}_grasp_frame").xpos - data.body(BLOCKS[0]).xpos
        return {"reached": touched or bool(np.linalg.norm(way) < NEAR), "touched": touched}

    def success(self, data: mujoco.MjData) -> bool:
        """The gripper of the named arm touches the named block, and the other one does not."""
        touching = {side for side, hand in self._hands.items() if self._contacts.touch(self._block, hand)}
        return touching == {self.side}

    def focus(self, data: mujoco.MjData) -> np.ndarray | None:
        return data.body(BLOCKS[0]).xpos.copy()


def _bodies(model: mujoco.MjModel, prefix: str) -> list[str]:
    return [model.body(index).name for index in range(model.nbody) if model.body(index).name.startswith(prefix)]
