"""Things on the table that no instruction names: none to three, of other shapes and colours in every scene."""

from __future__ import annotations

from collections.abc import Sequence

import mujoco
import numpy as np

from r1lite_sim.scene.objects import BOX, CYLINDER, PALETTE, free_body, paint, put, solid
from r1lite_sim.scene.table import TABLE_HEIGHT
from r1lite_sim.scene.workspace import NoRoomError, Places

# Kind, size [m] and height of the middle above the table [m].
SHAPES = {
    "distractor_bar": (BOX, (0.030, 0.015, 0.015), 0.015),
    "distractor_can": (CYLINDER, (0.022, 0.030), 0.030),
    "distractor_puck": (CYLINDER, (0.028, 0.010), 0.010),
}
RADIUS = 0.05  # m that one keeps free around it
STORE = (-1.0, -2.5)  # m, where those stand that a scene does not show: on the floor, in no camera


def build(spec: mujoco.MjSpec) -> None:
    for name, (kind, size, _) in SHAPES.items():
        solid(free_body(spec, name), name, kind, size, mass=0.05)


def scatter(
    model: mujoco.MjModel, data: mujoco.MjData, rng: np.random.Generator, places: Places, taken: Sequence[str] = ()
) -> None:
    """Put a drawn number of them where there is room, in colours of the palette other than `taken`."""
    count = rng.integers(len(SHAPES) + 1)
    colours = rng.permutation([colour for colour in PALETTE if colour not in taken])
    for index, name in enumerate(rng.permutation(list(SHAPES))):
        _, _, height = SHAPES[name]
        x, y = STORE
        put(model, data, name, [x, y + 0.2 * index, height])
        if index >= count:
            continue
        try:
            position = places.draw(RADIUS)
        except NoRoomError:
            continue
        put(model, data, name, [*position, TABLE_HEIGHT + height], rng.uniform(-np.pi, np.pi))
        paint(model, [name], PALETTE[colours[index]], rng)
