"""Fixtures of every package's tests. A test that needs ROS asks for `ros` and is skipped where there is none."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings

from r1lite_description.robot import Robot, load

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


@pytest.fixture(scope="session")
def ros():
    """The harness for tests with real node processes, in a ROS domain that no other test session uses."""
    pytest.importorskip("rclpy", reason="rclpy is not installed")
    pytest.importorskip("depthvla_msgs", reason="depthvla_msgs is not built or not sourced")
    import ros_harness

    with ros_harness.private_domain():
        yield ros_harness


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory) -> Path:
    """A policy with random weights: it makes small movements of no meaning."""
    pytest.importorskip("torch", reason="torch is not installed")
    import tiny_model

    return tiny_model.save_checkpoint(tmp_path_factory.mktemp("tiny") / "checkpoint")
