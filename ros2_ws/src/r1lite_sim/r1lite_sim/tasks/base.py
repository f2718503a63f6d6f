"""What the tasks have in common: substeps by the names of the task's description, points that stay
once they are earned, and the end state that counts as success.
"""

from __future__ import annotations

import mujoco
import numpy as np

import r1lite_description.tasks as descriptions
from r1lite_description.robot import Robot
from r1lite_sim.scene.contacts import Contacts


class Task:
    """A subclass adds `instruction`, `build`, `reset`, `states`, `success` and `focus`, and calls `bind` of this class.

    `substeps` and `time_limit_s` are those of the task's description. The head camera's mount is off
    by a little in every scene.
    """

    name: str
    camera_error = True

    def __init__(self) -> None:
        description = descriptions.load(self.name)
        self.substeps = tuple(description.substeps)
        self.time_limit_s = description.time_limit_s
        self.done: tuple[str, ...] = ()

    def bind(self, model: mujoco.MjModel, robot: Robot) -> None:
        """Look up the ids that the other methods need."""
        self._model, self._robot = model, robot
        self._contacts = Contacts(model)

    def choose(self, **options) -> None:
        """Change options from the next reset on.

        Raises:
            ValueError: there is no such option.
        """
        if options:
            raise ValueError(f"task {self.name!r} has no options; got {', '.join(options)}")

    def push(self, data: mujoco.MjData) -> None:
        """Set the forces of the scene that MuJoCo has no element for. Called before every physics step."""

    def states(self, data: mujoco.MjData) -> dict[str, bool]:
        """Which substeps are the case at this moment."""
        raise NotImplementedError

    def update(self, data: mujoco.MjData) -> None:
        """Note the substeps that are the case. A point once earned stays, as in the paper's progress score."""
        self._contacts.read(data)
        if len(self.done) < len(self.substeps):
            states = self.states(data)
            self.done = tuple(name for name in self.substeps if name in self.done or states[name])

    def progress(self) -> float:
        """Share of the points earned since the reset, 0 to 1."""
        return len(self.done) / len(self.substeps)

    def success(self, data: mujoco.MjData) -> bool:
        """The end state is there at this moment."""
        raise NotImplementedError

    def focus(self, data: mujoco.MjData) -> np.ndarray | None:
        """(3,) position [m] of what the present phase is about: the thing to take, then the place where it goes."""
        raise NotImplementedError

    def gripped(self, body: str, side: str) -> bool:
        """Both fingers of an arm touch a body."""
        return self._contacts.gripped(self._contacts.body(body), side)

    def speed(self, data: mujoco.MjData, body: str) -> float:
        """Speed [m/s] of a free body."""
        address = self._model.joint(body).dofadr[0]
        return float(np.linalg.norm(data.qvel[address : address + 3]))
