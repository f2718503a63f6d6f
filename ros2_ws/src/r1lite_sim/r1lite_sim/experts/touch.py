"""The expert that touches a block."""

from __future__ import annotations

from r1lite_sim.experts.base import PlanExpert
from r1lite_sim.skills import Pose, Skill, facing
from r1lite_sim.tasks.touch import BLOCKS

ABOVE = 0.10  # m
DOWN_STEPS = 40


class TouchExpert(PlanExpert):
    def plan(self) -> Skill:
        task = self._simulation.task
        hand = self._hands[task.side]
        hand.set_opening(0.0)

        def over(height: float) -> Pose:
            block = self.pose(BLOCKS[0]).position
            return Pose(block + [0, 0, height], facing(hand.azimuth(block), hand.pitch(block)))

        yield from hand.move(lambda: over(ABOVE), 0.015)
        hand.speed /= 2
        for _ in range(DOWN_STEPS):
            if task.success(self._simulation.data):
                break
            yield from hand.move(lambda: over(0.025), steps=1)
        hand.speed *= 2
