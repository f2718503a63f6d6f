"""Tidying a desk: pens into a holder, headphones on a hook, a book on a stand (paper, section IV-C)."""

from __future__ import annotations

import mujoco
import numpy as np

from r1lite_sim.instructions import SIDES, TEMPLATES
from r1lite_sim.scene import desk, distractors
from r1lite_sim.scene.objects import PALETTE, fix, paint, put
from r1lite_sim.scene.table import TABLE_HEIGHT
from r1lite_sim.scene.workspace import Places, arrange, azimuth, distance, nearest, start_pose
from r1lite_sim.tasks.base import Task

PENS = ("pen_1", "pen_2")
HOLDER, HEADPHONES, BOOK, STAND = "holder", "headphones", "book", "stand"
HOOKS = {"left": "hook_left", "right": "hook_right"}
STORE = (-1.5, -2.0)  # m, on the floor, where the hook stands that a scene does not show
PEN_REACH = 0.50  # m: as far as a gripper points straight down
STILL = 0.05  # m/s
UPRIGHT_RAD = np.radians(50)  # most that a pen in the holder leans


class TableBussingTask(Task):
    """Hook and stand are on different sides of the table, headphones and book each on the side where they go; pens lie
    anywhere between. Takes no options.
    """

    name = "table_bussing"
    instruction = TEMPLATES[name]

    def build(self, spec: mujoco.MjSpec) -> None:
        for name in PENS:
            desk.pen(spec, name)
        desk.holder(spec, HOLDER)
        desk.headphones(spec, HEADPHONES)
        for side, name in HOOKS.items():
            desk.hook(spec, name, _sign(side))
        desk.book(spec, BOOK)
        desk.stand(spec, STAND)
        distractors.build(spec)

    def bind(self, model, robot) -> None:
        super().bind(model, robot)
        self._shapes = {name: self._contacts.body(name) for name in (*PENS, HEADPHONES, BOOK, STAND)}
        self._pegs = {side: self._contacts.geoms(f"{name}_peg") for side, name in HOOKS.items()}
        self._band = self._contacts.geoms(f"{HEADPHONES}_band")
        self._table = self._contacts.geoms("table")

    def reset(self, model: mujoco.MjModel, data: mujoco.MjData, rng: np.random.Generator) -> np.ndarray:
        """Place everything and return the robot's start vector (14,)."""
        self.done = ()
        self.hook_side = SIDES[rng.integers(len(SIDES))]

        def place(places: Places) -> None:
            self._place_fixtures(model, rng, places)
            self._place_things(model, data, rng, places)

        places = arrange(rng, place)
        distractors.scatter(model, data, rng, places)
        self._paint(model, rng)
        return start_pose(self._robot, rng)

    def states(self, data: mujoco.MjData) -> dict[str, bool]:
        return {
            "pens_in_holder": all(self.in_holder(data, name) for name in PENS),
            "headphones_on_hook": self.on_hook(data),
            "book_on_stand": self.on_stand(data),
        }

    def success(self, data: mujoco.MjData) -> bool:
        """Everything is where it belongs and nothing holds it."""
        return all(self.states(data).values())

    def in_holder(self, data: mujoco.MjData, name: str) -> bool:
        """A pen stands in the holder: its lower end is inside and it leans less than 50 degrees."""
        pen, cup = data.body(name), data.body(HOLDER).xpos
        axis = pen.xmat.reshape(3, 3)[:, 0]
        low = pen.xpos - np.sign(axis[2]) * axis * desk.PEN_LENGTH / 2 - cup
        return bool(
            abs(axis[2]) > np.cos(UPRIGHT_RAD)
            and np.linalg.norm(low[:2]) < desk.HOLDER_RADIUS + desk.HOLDER_WALL
            and low[2] < desk.HOLDER_HEIGHT / 2
            and self._at_rest(data, name)
        )

    def on_hook(self, data: mujoco.MjData) -> bool:
        """The headphones' band lies on the peg and they touch the table no more."""
        return bool(
            self._contacts.touch(self._band, self._pegs[self.hook_side])
            and not self._contacts.touch(self._shapes[HEADPHONES], self._table)
            and self._at_rest(data, HEADPHONES)
        )

    def on_stand(self, data: mujoco.MjData) -> bool:
        """The book lies on the stand's board, a cover up, and does not touch the table."""
        book, stand = data.body(BOOK), data.body(STAND).xpos
        return bool(
            self._contacts.touch(self._shapes[BOOK], self._shapes[STAND])
            and not self._contacts.touch(self._shapes[BOOK], self._table)
            and abs(book.xmat[8]) > np.cos(2 * desk.STAND_TILT)
            and np.linalg.norm(book.xpos[:2] - stand[:2]) < desk.STAND[0] / 2
            and self._at_rest(data, BOOK)
        )

    def focus(self, data: mujoco.MjData) -> np.ndarray | None:
        todo = [
            (HEADPHONES, f"{HEADPHONES}_band", f"{HOOKS[self.hook_side]}_peg", self.on_hook(data)),
            (BOOK, f"{BOOK}_hull", f"{STAND}_board", self.on_stand(data)),
            *[(name, name, f"{HOLDER}_floor", self.in_holder(data, name)) for name in PENS],
        ]
        left = [item[:3] for item in todo if not item[3]]
        if not left:
            return None
        carried = [place for thing, _, place in left if self._contacts.lifted(self._shapes[thing])]
        return data.geom(carried[0] if carried else left[0][1]).xpos.copy()

    def _at_rest(self, data: mujoco.MjData, name: str) -> bool:
        return not self._contacts.held(self._shapes[name]) and self.speed(data, name) < STILL

    def _place_fixtures(self, model, rng, places: Places) -> None:
        for name in HOOKS.values():
            fix(model, name, [*STORE, 0.0])
        sign = _sign(self.hook_side)
        spot = np.array([rng.uniform(0.62, 0.67), sign * rng.uniform(0.22, 0.26)])
        heading = azimuth(spot, self.hook_side) + rng.uniform(-0.15, 0.15)
        fix(model, HOOKS[self.hook_side], [*spot, TABLE_HEIGHT], heading)
        places.take(spot, 0.09)
        places.take(spot + sign * 0.06 * np.array([-np.sin(heading), np.cos(heading)]), 0.06)  # its foot
        spot = np.array([rng.uniform(0.63, 0.67), -sign * rng.uniform(0.18, 0.22)])
        fix(model, STAND, [*spot, TABLE_HEIGHT], azimuth(spot, nearest(spot)) + rng.uniform(-0.2, 0.2))
        places.take(spot, 0.09)
        spot = np.array([rng.uniform(0.60, 0.65), rng.uniform(-0.04, 0.04)])
        fix(model, HOLDER, [*spot, TABLE_HEIGHT], rng.uniform(-np.pi, np.pi))
        places.take(spot, 0.055)

    def _place_things(self, model, data, rng, places: Places) -> None:
        sign = _sign(self.hook_side)
        for name, side, radius, height in ((HEADPHONES, sign, 0.075, 0.0), (BOOK, -sign, 0.065, desk.BOOK[2] / 2)):
            spot = places.draw(radius, x=(0.50, 0.54), y=tuple(sorted((side * 0.18, side * 0.26))))
            yaw = azimuth(spot, nearest(spot)) + rng.uniform(-0.45, 0.45)
            put(model, data, name, [*spot, TABLE_HEIGHT + height], yaw)
        for name in PENS:
            spot = places.draw(
                0.066, lambda place: distance(place, nearest(place)) < PEN_REACH, x=(0.48, 0.54), y=(-0.13, 0.13)
            )
            yaw = azimuth(spot, nearest(spot)) + rng.uniform(-0.6, 0.6) + np.pi * rng.integers(2)
            put(model, data, name, [*spot, TABLE_HEIGHT + desk.PEN_WIDTH / 2], yaw)

    def _paint(self, model, rng) -> None:
        colours = iter(rng.permutation(list(PALETTE.values())))
        for name in PENS:
            paint(model, [name], next(colours), rng)
        paint(model, [f"{BOOK}_cover{index}" for index in range(3)], next(colours), rng)
        paint(model, [f"{HEADPHONES}_shell{side}" for side in (-1, 1)], next(colours), rng)
        walls = [f"{HOLDER}_wall{index}" for index in range(desk.HOLDER_SIDES)]
        paint(model, [*walls, f"{HOLDER}_floor"], rng.uniform(0.2, 0.8, 3), rng)
        paint(model, [f"{STAND}_{part}" for part in ("board", "lip", "near", "far")], rng.uniform(0.2, 0.8, 3), rng)


def _sign(side: str) -> int:
    return 1 if side == "left" else -1
