"""Fixtures of this package's tests. A test that needs ROS asks for `ros` and is skipped where there is none."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from depthvla_policy.robot import Robot, load
from r1lite_sim.simulation import Simulation

# The harness for node processes is shared with the package whose nodes these tests' node works with.
sys.path.append(str(Path(__file__).resolve().parents[2] / "depthvla_policy" / "test"))


@pytest.fixture(scope="session")
def robot() -> Robot:
    return load()


@pytest.fixture(scope="module")
def simulation(robot: Robot):
    """One simulation a module: building it takes longer than a reset."""
    simulation = Simulation(robot)
    yield simulation
    simulation.close()


@pytest.fixture(scope="session")
def ros():
    """The harness for tests with real node processes, in a ROS domain that no other test session uses."""
    pytest.importorskip("rclpy", reason="rclpy is not installed")
    pytest.importorskip("depthvla_msgs", reason="depthvla_msgs is not built or not sourced")
    import ros_harness

    with ros_harness.private_domain():
        yield ros_harness
