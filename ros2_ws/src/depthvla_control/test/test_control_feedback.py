"""A joint state's names and values belong together, at the one door that policy, executor and bags share."""

import numpy as np
import pytest

from depthvla_control.limb_feedback import arm_positions, gripper_opening
from depthvla_control.refusal import Reason, Refusal
from depthvla_control.teleop import Leader
from r1lite_description import robot as robot_description

ROBOT = robot_description.load()
LEFT, RIGHT = ROBOT.limbs
POSE = [0.1, 1.8, -1.7, 0.4, 0.5, 0.6]
ORDER = [0, 1, 2, 5, 4, 3]  # joints 4 and 6 have changed places
GENERIC = [f"joint{number}" for number in range(1, 7)]


def in_order(values, order):
    return [values[place] for place in order]


def test_known_names_in_another_order_are_put_in_place():
    found = arm_positions(ROBOT, LEFT, in_order(POSE, ORDER), in_order(LEFT.joints, ORDER))
    np.testing.assert_array_equal(found, POSE)


@pytest.mark.parametrize("names", [(), ("left_arm",), ("",) * 6, GENERIC, list("abcdef"), LEFT.joints])
def test_without_a_known_name_the_place_counts(names):
    np.testing.assert_array_equal(arm_positions(ROBOT, LEFT, POSE, names), POSE)


@pytest.mark.parametrize(
    "names",
    [
        RIGHT.joints,
        LEFT.joints[:5],
        LEFT.joints[:1],
        (*LEFT.joints[:5], LEFT.joints[0]),
        (*LEFT.joints[:5], "joint6"),
        (*LEFT.joints[:5], RIGHT.joints[5]),
        (*LEFT.joints[:5], ""),
        (*LEFT.joints[:5], LEFT.gripper),
        GENERIC[:5],
        in_order(GENERIC, ORDER),
        ["joint"] * 6,
    ],
    ids=str,
)
def test_names_that_do_not_fit_are_refused_with_what_is_allowed(names):
    refusal = arm_positions(ROBOT, LEFT, POSE, names)
    assert isinstance(refusal, Refusal) and refusal.reason is Reason.WRONG_JOINTS
    assert refusal.subject == "arm left" and str(list(names)[0]) in str(refusal)


def test_a_gripper_that_comes_with_an_arm_is_found_by_its_name():
    names, values = (LEFT.gripper, *LEFT.joints), [77.0, *POSE]
    np.testing.assert_array_equal(arm_positions(ROBOT, LEFT, values, names), POSE)
    seventh_joint = (*LEFT.joints, "left_arm_joint7")
    for names in (seventh_joint, [*GENERIC, "joint7"]):
        assert arm_positions(ROBOT, LEFT, [*POSE, 0.3], names).reason is Reason.WRONG_JOINTS
    np.testing.assert_array_equal(arm_positions(ROBOT, LEFT, [*POSE, 77.0], [*GENERIC, "gripper"]), POSE)


def test_an_opening_is_not_taken_from_another_gripper():
    assert gripper_opening(ROBOT, LEFT, [50.0], ["gripper"]) == 50.0
    for name in (RIGHT.gripper, LEFT.joints[0]):
        assert gripper_opening(ROBOT, LEFT, [50.0], [name]).reason is Reason.WRONG_JOINTS


def test_a_leader_arm_is_followed_by_the_names_of_its_joints():
    leader = Leader(ROBOT, 1.0, 0.15)
    for limb in ROBOT.limbs:
        names = (limb.gripper, *in_order(limb.joints, ORDER))
        assert leader.arm(limb.name, 1, [77.0, *in_order(POSE, ORDER)], 1, names) is None
    np.testing.assert_array_equal(leader.target(np.zeros(ROBOT.size))[0], [*POSE, 77.0] * 2)
    assert leader.arm("left", 2, POSE, 2, RIGHT.joints).reason is Reason.WRONG_JOINTS
