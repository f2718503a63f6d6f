"""An expert that follows a plan: a generator of skill calls that sees the true poses of things."""

from __future__ import annotations

import numpy as np

from r1lite_sim.instructions import SIDES
from r1lite_sim.simulation import Simulation
from r1lite_sim.skills import Hand, Pose, Skill

SETTLE_STEPS = 20  # control periods that things have to come to rest before the plan is begun again


class PlanExpert:
    """`act` is called once per control period. `done` once the plan is over and the task is a success; the hands then
    stay where they are.

    A subclass adds `plan`. It is begun again when its end is not the success of the task, or does not last.
    """

    def __init__(self, simulation: Simulation) -> None:
        self._simulation = simulation
        self._hands = {side: Hand(simulation, side) for side in SIDES}
        self.reset()

    def reset(self) -> None:
        """Forget everything: a new episode begins."""
        for hand in self._hands.values():
            hand.reset()
        self.done = False
        self._steps = self._run()

    def act(self) -> np.ndarray:
        """(14,) absolute target for the next control period."""
        next(self._steps)
        robot = self._simulation.robot
        action = np.empty(robot.size)
        for hand in self._hands.values():
            hand.write(action)
        return np.clip(action, robot.position_min, robot.position_max)

    def plan(self) -> Skill:
        raise NotImplementedError

    def pose(self, body: str) -> Pose:
        """Where a body is."""
        item = self._simulation.data.body(body)
        return Pose(item.xpos.copy(), item.xmat.reshape(3, 3).copy())

    def _settle(self) -> Skill:
        for _ in range(SETTLE_STEPS):
            if self._simulation.success():
                return
            yield

    def _run(self) -> Skill:
        while True:
            self.done = self._simulation.success()
            if self.done:
                yield
            else:
                yield from self.plan()
                yield from self._settle()
