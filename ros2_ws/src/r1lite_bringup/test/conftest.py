"""Fixtures of this package's tests. A test that needs ROS asks for `ros` and is skipped where there is none."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

# The harness for node processes and the tiny checkpoint are shared with the package whose nodes are started here.
sys.path.append(str(Path(__file__).resolve().parents[2] / "depthvla_policy" / "test"))


@pytest.fixture(scope="session")
def ros():
    """The harness for tests with real node processes, in a ROS domain that no other test session uses."""
    pytest.importorskip("rclpy", reason="rclpy is not installed")
    pytest.importorskip("depthvla_msgs", reason="depthvla_msgs is not built or not sourced")
    import ros_harness

    with ros_harness.private_domain():
        yield ros_harness


@pytest.fixture(scope="session")
def real_model(tmp_path_factory) -> str:
    """A folder that the graph takes for a checkpoint of a real robot, to see what is started with it."""
    folder = tmp_path_factory.mktemp("real") / "checkpoint"
    folder.mkdir()
    (folder / "config.json").write_text('{"policy": {"made_for": ["real"]}}')
    return str(folder)


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory) -> Path:
    """A policy with random weights: it makes small movements of no meaning."""
    pytest.importorskip("torch", reason="torch is not installed")
    import tiny_model

    return tiny_model.save_checkpoint(tmp_path_factory.mktemp("tiny") / "checkpoint")
