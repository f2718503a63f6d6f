"""The expert for a tower of three blocks."""

from __future__ import annotations

import numpy as np

from r1lite_sim.experts.base import PlanExpert
from r1lite_sim.instructions import SIDES
from r1lite_sim.scene.objects import BLOCK_SIZE
from r1lite_sim.scene.workspace import distance, in_reach
from r1lite_sim.skills import Hand, Pose, Skill, facing, turned, yaw
from r1lite_sim.tasks.blocks_stacking import FIRST, SECOND, THIRD, TOWER_REACH

GRASP_HEIGHT = 0.004  # m that the grasp is above the block's middle: the finger tips stay off the table
CARRY = 0.07  # m above the place where a block is put down
DROP = 0.002  # m that a block falls
RELEASE_MM = 85.0
RISE = 0.06  # m that the hand rises beside the tower before it goes elsewhere


class BlocksStackingExpert(PlanExpert):
    def plan(self) -> Skill:
        task, data = self._simulation.task, self._simulation.data
        if not task.on(data, SECOND, FIRST):
            yield from self._stack(SECOND, FIRST)
        if not task.on(data, THIRD, SECOND):
            yield from self._stack(THIRD, SECOND)

    def _stack(self, upper: str, lower: str) -> Skill:
        hand = self._hand_for(upper, lower)
        # A level block stays level when the hand keeps its pitch on the way: one that suits both places.
        pitch = min(hand.pitch(self.pose(name).position) for name in (upper, lower))
        yield from hand.pick(
            lambda: self._grasp(hand, upper, pitch),
            BLOCK_SIZE * 1000,
            lambda: self._simulation.task.gripped(upper, hand.side),
        )
        base, held = self.pose(lower), self.pose(upper)
        heading = turned(yaw(base.rotation), hand.azimuth(base.position), np.pi / 2)
        rotation = facing(heading, pitch)
        offset = rotation @ hand.pose.rotation.T @ (held.position - hand.pose.position)
        goal = Pose(base.position + [0, 0, BLOCK_SIZE + DROP] - offset, rotation)
        over = max(CARRY, hand.pose.position[2] - goal.position[2])
        yield from hand.via(goal.moved(z=over), goal.moved(z=0.02), tolerance=0.012)
        hand.speed /= 2
        yield from hand.move(goal, 0.003)
        hand.speed *= 2
        yield from hand.release(RELEASE_MM, rise=RISE)
        hand.retire()

    def _hand_for(self, upper: str, lower: str) -> Hand:
        block, base = self.pose(upper).position, self.pose(lower).position
        able = [side for side in SIDES if in_reach(base, side, TOWER_REACH + 0.02) and in_reach(block, side)]
        return self._hands[min(able or SIDES, key=lambda side: distance(block, side))]

    def _grasp(self, hand: Hand, name: str, pitch: float) -> Pose:
        """Close on the pair of faces that needs the least turn."""
        block = self.pose(name)
        heading = turned(yaw(block.rotation), hand.azimuth(block.position), np.pi / 2)
        return Pose(block.position + [0, 0, GRASP_HEIGHT], facing(heading, pitch))
