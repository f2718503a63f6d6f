"""Fixtures of this package's tests. A test that needs ROS asks for `ros` and is skipped where there is none."""

from __future__ import annotations

import numpy as np
import pytest
from executor_loop import Loop
from hypothesis import settings

from depthvla_policy.control.arbiter import Mode
from depthvla_policy.robot import Robot, load

# `make fuzz` takes "nightly". Machines differ in speed, so no example has a deadline.
settings.register_profile("here", max_examples=200, deadline=None)
settings.register_profile("nightly", max_examples=100_000, deadline=None)
settings.load_profile("here")


@pytest.fixture(scope="session")
def robot() -> Robot:
    return load()


@pytest.fixture
def home(robot: Robot) -> np.ndarray:
    """A pose well inside the limits: arms reaching forward, grippers half open."""
    pose = np.zeros(robot.size)
    for limb in robot.limbs:
        pose[limb.arm] = [0.0, 1.8, -1.7, 0.0, 0.0, 0.0]
        pose[limb.gripper_index] = 50.0
    return pose


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


@pytest.fixture(scope="session")
def ros():
    """The harness for tests with real node processes, in a ROS domain that no other test session uses."""
    pytest.importorskip("rclpy", reason="rclpy is not installed")
    pytest.importorskip("depthvla_msgs", reason="depthvla_msgs is not built or not sourced")
    import ros_harness

    with ros_harness.private_domain():
        yield ros_harness
