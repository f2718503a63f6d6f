"""Who touches whom, from the contacts of the physics."""

from __future__ import annotations

import mujoco
import numpy as np

from r1lite_sim.scene.robot_model import ROBOT_CONTACT, finger_geoms


class Contacts:
    """Questions about the contacts that were read last. A group of shapes is a mask (ngeom,) of bool."""

    def __init__(self, model: mujoco.MjModel) -> None:
        self._model = model
        self.robot = model.geom_contype == ROBOT_CONTACT
        self.fingers = {
            side: tuple(self._mask([model.geom(name).id]) for name in finger_geoms(side)) for side in ("left", "right")
        }

        self._pairs = np.zeros((2, 0), dtype=int)

    def read(self, data: mujoco.MjData) -> None:
        """Take over the contacts of the last physics step."""
        self._pairs = data.contact.geom[: data.ncon].T

    def body(self, *names: str) -> np.ndarray:
        """All shapes of some bodies."""
        return self._mask(np.isin(self._model.geom_bodyid, [self._model.body(name).id for name in names]))

    def geoms(self, *names: str) -> np.ndarray:
        """Some shapes by name."""
        return self._mask([self._model.geom(name).id for name in names])

    def touch(self, one: np.ndarray, other: np.ndarray) -> bool:
        """A shape of `one` touches a shape of `other`."""
        first, second = self._pairs
        return bool(np.any((one[first] & other[second]) | (other[first] & one[second])))

    def gripped(self, group: np.ndarray, side: str) -> bool:
        """Both fingers of a gripper touch the group."""
        return all(self.touch(group, finger) for finger in self.fingers[side])

    def held(self, group: np.ndarray) -> bool:
        """The robot touches the group with anything."""
        return self.touch(group, self.robot)

    def lifted(self, group: np.ndarray) -> bool:
        """The robot touches the group and nothing else does."""
        return self.held(group) and not self.touch(group, ~self.robot & ~group)

    def _mask(self, ids) -> np.ndarray:
        mask = np.zeros(self._model.ngeom, dtype=bool)
        mask[ids] = True
        return mask
