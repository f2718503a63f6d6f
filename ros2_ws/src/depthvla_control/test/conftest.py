"""Executors with a fake clock."""

from __future__ import annotations

import numpy as np
import pytest
from executor_loop import Loop

from depthvla_control.arbiter import Mode


@pytest.fixture
def make(robot, home):
    """Makes an executor with its surroundings, in a mode."""

    def make(mode=Mode.HOLD, *, pose=home, **config):
        loop = Loop(robot, pose, **{"catch_up_scale": 1.0, **config})
        loop.feedback()
        if mode is not Mode.DISARMED:
            assert loop.executor.arm(loop.now) is None
        if mode in (Mode.POLICY, Mode.TELEOP):
            if mode is Mode.TELEOP:
                loop.leader = np.array(pose)
                loop.lead()
            assert loop.ask(mode).refusal is None
        return loop

    return make


@pytest.fixture
def loop(make):
    return make(Mode.DISARMED)


@pytest.fixture
def engaged(make):
    """Armed, and the policy may move the arms."""
    return make(Mode.POLICY)
