"""One picture of an episode, from its start to its end: an onlooker's view above what the head camera sees."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from r1lite_sim.scene.table import SCENE_CAMERA
from r1lite_sim.simulation import Simulation

IMAGE_SIZE = (640, 360)  # px, rendered; twice as large as shown, so that edges are smooth
CELL = (320, 180)
EVERY = 5  # control periods between frames
SHOWN = 4
ONLOOKER = (slice(75, 345), slice(100, 580))  # rows and columns of the onlooker's picture where something happens


class Film:
    """Frames of one episode. `watch` is called once per control period."""

    def __init__(self) -> None:
        self._frames: list[np.ndarray] = []
        self._steps = 0

    def watch(self, simulation: Simulation) -> None:
        if self._steps % EVERY == 0:
            self._frames.append(_frame(simulation))
        self._steps += 1

    def save(self, path: Path, simulation: Simulation) -> None:
        """Write the picture as PNG; the simulation's present state is the end."""
        frames = [*self._frames, _frame(simulation)]
        shown = np.linspace(0, len(frames) - 1, SHOWN).astype(int)
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), cv2.cvtColor(np.hstack([frames[index] for index in shown]), cv2.COLOR_RGB2BGR))


def _frame(simulation: Simulation) -> np.ndarray:
    views = simulation.render(SCENE_CAMERA)[ONLOOKER], simulation.render(simulation.robot.cameras[0].name)
    return np.vstack([cv2.resize(view, CELL, interpolation=cv2.INTER_AREA) for view in views])
