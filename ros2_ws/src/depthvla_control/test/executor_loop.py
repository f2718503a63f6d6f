"""A chunk executor with a clock, a robot that follows its commands at once, and leader arms: for tests of its logic."""

from __future__ import annotations

import numpy as np

from depthvla_control.chunk import Chunk
from depthvla_control.executor import ChunkExecutor
from depthvla_control.executor_config import ExecutorConfig
from r1lite_description.robot import load

PERIOD = 66_666_667
PERIOD_S = PERIOD * 1e-9
T0 = 1_700_000_000_000_000_000
ROBOT = load()
ARMS = ~ROBOT.gripper_mask


class Loop:
    """An executor with a clock, a robot that follows its commands at once, and leader arms that rest beside it."""

    def __init__(self, robot, pose, period=PERIOD, **config):
        self.robot, self.pose, self.now, self.period = robot, np.array(pose), T0, period
        self.measured = self.pose
        self.leader = None  # (14,) where the leader arms are; nobody holds them
        self.executor = ChunkExecutor(robot, period_s=period * 1e-9, config=ExecutorConfig(**config))

    def feedback(self):
        self.measured = self.pose
        for limb in self.robot.limbs:
            self.executor.feedback_arm(limb.name, self.pose[limb.arm], self.now)
            self.executor.feedback_gripper(limb.name, [self.pose[limb.gripper_index]], self.now)

    def lead(self):
        if self.leader is not None:
            for limb in self.robot.limbs:
                self.executor.leader_arm(limb.name, self.now, self.leader[limb.slice], self.now)

    def tick(self, ns=None, feedback=True):
        self.now += self.period if ns is None else ns
        if feedback:
            self.feedback()
        self.lead()
        command = self.executor.tick(self.now)
        if command is not None:
            self.pose = command.positions
        return command

    def ticks(self, count, **options):
        return np.array([self.tick(**options).positions for _ in range(count)])

    def chunk(self, sequence=1, slope=0.02, steps=16, stamp=None, model="m", start=None):
        """Starts at the present pose and moves every joint by `slope` a step."""
        positions = (self.pose if start is None else start) + slope * np.arange(steps)[:, None]
        return Chunk(self.now if stamp is None else stamp, sequence, PERIOD, positions, model)

    def offer(self, chunk):
        return self.executor.offer(chunk, self.now)

    def ask(self, mode):
        return self.executor.set_mode(mode, self.now)
