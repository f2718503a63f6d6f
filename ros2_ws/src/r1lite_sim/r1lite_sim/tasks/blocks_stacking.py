"""A tower of three blocks, in the order that the instruction names (paper, section IV-C)."""

from __future__ import annotations

from collections.abc import Sequence

import mujoco
import numpy as np

from r1lite_sim.instructions import DRAWN, SIDES, TEMPLATES, check_colours
from r1lite_sim.scene import distractors
from r1lite_sim.scene.objects import BLOCK_SIZE, PALETTE, block, paint, put
from r1lite_sim.scene.table import TABLE_HEIGHT
from r1lite_sim.scene.workspace import Places, arrange, in_reach, start_pose
from r1lite_sim.tasks.base import Task

FIRST, SECOND, THIRD = BLOCKS = ("first_block", "second_block", "third_block")  # from the table upwards
GAP = 0.10  # m, centre to centre: an open finger fits between two blocks
TOWER_REACH = 0.53  # m: above the table an arm does not reach as far
MARGIN = 0.008  # m that a resting block may be off in height
STILL = 0.05  # m/s


class BlocksStackingTask(Task):
    """`colours` from the table upwards; drawn in every scene when None or "random".

    Raises:
        ValueError: not three different colours of the palette.
    """

    name = "blocks_stacking"

    def __init__(self, colours: Sequence[str] | str | None = None) -> None:
        super().__init__()
        self._wanted = _checked(colours)
        self.colours = self._wanted or tuple(PALETTE)[: len(BLOCKS)]

    @property
    def instruction(self) -> str:
        return TEMPLATES[self.name].format(colours=self.colours)

    def build(self, spec: mujoco.MjSpec) -> None:
        for name in BLOCKS:
            block(spec, name)
        distractors.build(spec)

    def bind(self, model, robot) -> None:
        super().bind(model, robot)
        self._shapes = {name: self._contacts.body(name) for name in BLOCKS}

    def choose(self, colours: Sequence[str] | str | None = None) -> None:
        """Name the colours, from the next reset on; None and "random" draw them.

        Raises:
            ValueError: not three different colours of the palette.
        """
        self._wanted = _checked(colours)

    def reset(self, model: mujoco.MjModel, data: mujoco.MjData, rng: np.random.Generator) -> np.ndarray:
        """Place the blocks and return the robot's start vector (14,)."""
        self.done = ()
        drawn = rng.permutation(list(PALETTE))[: len(BLOCKS)]
        self.colours = self._wanted or tuple(str(colour) for colour in drawn)

        def place(places: Places) -> None:
            base = places.draw(GAP / 2, lambda spot: any(in_reach(spot, side, TOWER_REACH) for side in SIDES))
            arms = [side for side in SIDES if in_reach(base, side, TOWER_REACH)]
            others = [places.draw(GAP / 2, lambda spot: any(in_reach(spot, side) for side in arms)) for _ in BLOCKS[1:]]
            for name, spot in zip(BLOCKS, (base, *others), strict=True):
                put(model, data, name, [*spot, TABLE_HEIGHT + BLOCK_SIZE / 2], rng.uniform(-np.pi, np.pi))

        places = arrange(rng, place)
        for name, colour in zip(BLOCKS, self.colours, strict=True):
            paint(model, [name], PALETTE[colour], rng)
        distractors.scatter(model, data, rng, places, self.colours)
        return start_pose(self._robot, rng)

    def states(self, data: mujoco.MjData) -> dict[str, bool]:
        second_on_first, third_on_second = self.on(data, SECOND, FIRST), self.on(data, THIRD, SECOND)
        return {
            "second_lifted": second_on_first or self._contacts.lifted(self._shapes[SECOND]),
            "second_on_first": second_on_first,
            "third_lifted": third_on_second or self._contacts.lifted(self._shapes[THIRD]),
            "third_on_second": third_on_second,
        }

    def success(self, data: mujoco.MjData) -> bool:
        """The tower stands and nothing holds it."""
        return self.on(data, SECOND, FIRST) and self.on(data, THIRD, SECOND)

    def on(self, data: mujoco.MjData, upper: str, lower: str) -> bool:
        """`upper` rests on `lower`, and the robot touches neither."""
        above = data.body(upper).xpos - data.body(lower).xpos
        return bool(
            abs(above[2] - BLOCK_SIZE) < MARGIN
            and np.max(np.abs(above[:2])) < BLOCK_SIZE
            and self._contacts.touch(self._shapes[upper], self._shapes[lower])
            and not self._contacts.held(self._shapes[upper] | self._shapes[lower])
            and self.speed(data, upper) < STILL
        )

    def focus(self, data: mujoco.MjData) -> np.ndarray | None:
        for upper, lower in ((SECOND, FIRST), (THIRD, SECOND)):
            if not self.on(data, upper, lower):
                name = lower if self._contacts.lifted(self._shapes[upper]) else upper
                return data.body(name).xpos.copy()
        return None


def _checked(colours: Sequence[str] | str | None) -> tuple[str, ...] | None:
    if colours is None or colours == DRAWN:
        return None
    check_colours(colours)
    return tuple(colours)
