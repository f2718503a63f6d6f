from __future__ import annotations

import numpy as np
import pytest

from depthvla_control.arbiter import Mode
from depthvla_control.chunk import Chunk
from depthvla_control.execution_plan import Plan
from depthvla_evaluation.viewer.paths import DIMMED, grasp_frame, motions, paths
from depthvla_evaluation.viewer.snapshot import Snapshot, joint_positions
from r1lite_description.kinematics import Kinematics

T0, PERIOD_NS = 1_700_000_000_000_000_000, 66_666_667
TORSO = {"torso_joint1": -0.657, "torso_joint2": 1.516, "torso_joint3": 0.845}


@pytest.fixture(scope="module")
def kinematics():
    xacro = pytest.importorskip("xacro", reason="xacro is not installed")
    from r1lite_description.share import urdf_file

    return Kinematics(xacro.process_file(str(urdf_file())).toxml())


@pytest.fixture
def chunk(home, robot):
    positions = home + 0.01 * np.arange(16)[:, None]
    for limb in robot.limbs:
        positions[:, limb.gripper_index] = np.linspace(0.0, 100.0, 16)
    return Chunk(T0, 7, PERIOD_NS, positions)


def test_a_path_is_where_the_grasp_frame_goes(kinematics, robot, chunk):
    found = paths(kinematics, robot, {"chunk": chunk}, TORSO, T0)
    assert [(path.kind, path.limb) for path in found] == [("chunk", limb.name) for limb in robot.limbs]
    for path, limb in zip(found, robot.limbs, strict=True):
        for step in (0, 15):
            joints = {**TORSO, **dict(zip(limb.joints, chunk.positions[step, limb.arm], strict=True))}
            pose = kinematics.poses([grasp_frame(limb.name)], joints)[grasp_frame(limb.name)]
            np.testing.assert_allclose(path.positions[step], pose[:3, 3], atol=1e-12)


def test_fingers_are_as_far_apart_as_the_gripper_opens(kinematics, robot, chunk):
    path = paths(kinematics, robot, {"chunk": chunk}, TORSO, T0)[0]
    apart = np.linalg.norm(path.fingers[:, 1] - path.fingers[:, 0], axis=1)
    np.testing.assert_allclose(apart, np.linspace(0.0, 0.1, 16), atol=1e-12)
    np.testing.assert_allclose(path.fingers.mean(axis=1), path.positions, atol=1e-12)


def test_the_torso_carries_the_paths(kinematics, robot, chunk):
    low, high = (paths(kinematics, robot, {"chunk": chunk}, posture, T0)[0] for posture in (TORSO, {}))
    assert high.positions[0, 2] > low.positions[0, 2] + 0.1


def test_steps_whose_time_has_passed_are_dimmed_and_the_colour_tells_the_time(kinematics, robot, chunk):
    path = paths(kinematics, robot, {"chunk": chunk}, TORSO, chunk.due_ns(4))[0]
    np.testing.assert_array_equal(path.colours[:, 3], [DIMMED] * 4 + [1.0] * 12)
    assert len(np.unique(path.colours[:, :3], axis=0)) == 16


def test_a_motion_that_is_over_or_empty_has_no_path(kinematics, robot, chunk, home):
    assert paths(kinematics, robot, {"chunk": chunk}, TORSO, chunk.end_ns)
    assert not paths(kinematics, robot, {"chunk": chunk}, TORSO, chunk.end_ns + 1)
    empty = Plan(T0, 7, PERIOD_NS, 0, np.empty((0, robot.size)))
    assert not paths(kinematics, robot, {"plan": empty}, TORSO, T0)


def test_a_plan_is_drawn_while_the_policy_is_in_command_and_else_the_chunk_is_a_shadow(chunk, robot):
    plan = Plan(T0, 7, PERIOD_NS, 0, chunk.positions)
    assert motions(chunk, plan, Mode.POLICY) == {"chunk": chunk, "plan": plan}
    for mode in (None, Mode.DISARMED, Mode.HOLD, Mode.TELEOP, Mode.FAULT):
        assert motions(chunk, plan, mode) == {"shadow": chunk}
    assert motions(None, None, Mode.POLICY) == {}


def test_the_caption_says_who_is_in_command_what_for_and_what_is_wrong():
    held = Snapshot(T0, mode=Mode.HOLD, cause="stopped", instruction="stack", complaint="camera head is old")
    assert held.caption == 'HOLD: stopped\n"stack"\nno chunks: camera head is old'
    assert Snapshot(T0).caption == "the executor is not heard"


def test_joints_that_are_not_finite_are_left_out():
    assert joint_positions(["a", "b", "c"], [1.0, np.nan, 2.0]) == {"a": 1.0, "c": 2.0}
