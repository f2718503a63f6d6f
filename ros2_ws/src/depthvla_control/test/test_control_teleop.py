from __future__ import annotations

import numpy as np
import pytest

from depthvla_control.refusal import Reason
from depthvla_control.teleop import Leader

T0 = 1_700_000_000_000_000_000
MS = 1_000_000


def heard(robot, pose, *, now=T0, openings=()):
    leader = Leader(robot, max_age_s=0.2, max_jump_rad=0.15)
    for limb in robot.limbs:
        assert leader.arm(limb.name, now, [*pose[limb.arm], *openings], now) is None
    return leader


def test_its_pose_is_the_target_and_grippers_stay_where_nobody_speaks_for_them(robot, home):
    motion = heard(robot, home + 0.1).target(home)
    np.testing.assert_allclose(motion[0], home + np.where(robot.gripper_mask, 0.0, 0.1))
    np.testing.assert_array_equal(motion[1:], 0.0)


def test_a_seventh_value_or_a_topic_of_its_own_moves_the_gripper(robot, home):
    leader = heard(robot, home, openings=[12.0])
    np.testing.assert_array_equal(leader.target(home)[0, robot.gripper_mask], 12.0)
    assert leader.gripper("left", [80.0]) is None
    assert leader.target(home)[0, robot.limb("left").gripper_index] == 80.0


def test_the_velocity_comes_from_the_leaders_own_stamps(robot, home):
    leader = Leader(robot, max_age_s=0.2, max_jump_rad=0.15)
    for k in range(12):  # 100 Hz on a clock of its own; all samples arrive at once
        for limb in robot.limbs:
            leader.arm(limb.name, 5 * T0 + k * 10 * MS, home[limb.arm] + 0.004 * k, T0)
    np.testing.assert_allclose(leader.target(home)[1], np.where(robot.gripper_mask, 0.0, 0.4), atol=1e-9)


def test_silence_of_either_leader_is_noticed_and_named(robot, home):
    assert Leader(robot, 0.2, 0.15).silence(T0).reason is Reason.MISSING
    leader = heard(robot, home)
    assert leader.silence(T0 + 200 * MS) is None
    leader.arm("left", T0 + 150 * MS, home[:6], T0 + 150 * MS)
    refusal = leader.silence(T0 + 210 * MS)
    assert refusal.reason is Reason.STALE and "leader right is silent for 0.21 s (limit 0.20 s)" in refusal.message
    leader.forget()
    assert leader.silence(T0).reason is Reason.MISSING


def test_anchored_its_way_is_followed_instead_of_its_pose(robot, home):
    leader = heard(robot, home + 0.5)
    leader.anchor(home)
    np.testing.assert_allclose(leader.target(home)[0], home)
    for limb in robot.limbs:
        leader.arm(limb.name, T0 + 10 * MS, home[limb.arm] + 0.53, T0 + 10 * MS)
    np.testing.assert_allclose(leader.target(home)[0], home + np.where(robot.gripper_mask, 0.0, 0.03))
    leader.release()
    np.testing.assert_allclose(leader.target(home)[0, ~robot.gripper_mask], (home + 0.53)[~robot.gripper_mask])


@pytest.mark.parametrize(
    ("values", "reason"),
    [([0.0] * 5, Reason.WRONG_COUNT), ([np.nan] * 6, Reason.NON_FINITE), ([9.0] * 6, Reason.OUT_OF_RANGE)],
)
def test_bad_samples_are_refused_counted_and_change_nothing(robot, home, values, reason):
    leader = heard(robot, home)
    refusal = leader.arm("left", T0 + MS, values, T0 + MS)
    assert refusal.reason is reason and refusal.message.startswith("leader left")
    assert leader.refusals["leader left", reason] == 1
    np.testing.assert_allclose(leader.target(home)[0], home)


def test_a_bad_gripper_value_refuses_the_whole_sample(robot, home):
    leader = heard(robot, home)
    assert leader.arm("left", T0 + MS, [*(home[:6] + 0.1), 900.0], T0 + MS).reason is Reason.OUT_OF_RANGE
    np.testing.assert_allclose(leader.target(home)[0], home)
