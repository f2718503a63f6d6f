"""The URDF against numbers measured on, or computed from, the robot's own."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree

import mujoco
import numpy as np
import pytest

from r1lite_sim.scene.robot_model import TORSO_POSTURE, description_xml, robot_spec


class Arm:
    """Forward kinematics of the robot alone."""

    def __init__(self, robot):
        spec, self.held = robot_spec(robot)
        self.model = spec.compile()
        self.data = mujoco.MjData(self.model)

    def pose(self, body, reference="base_link", **joints):
        """Position (3,) and rotation (3, 3) of a link in another's frame."""
        self.data.qpos[:] = 0
        for name, value in joints.items():
            self.data.joint(name).qpos[0] = value
        mujoco.mj_forward(self.model, self.data)
        frame, link = self.data.body(reference), self.data.body(body)
        rotation = frame.xmat.reshape(3, 3).T
        return rotation @ (link.xpos - frame.xpos), rotation @ link.xmat.reshape(3, 3)


@pytest.fixture(scope="module")
def arm(robot):
    return Arm(robot)


@pytest.fixture(scope="module")
def urdf():
    return ElementTree.fromstring(description_xml())


@pytest.mark.parametrize("side", ["left", "right"])
def test_joint_zero_is_the_folded_rest_pose(arm, side):
    position, rotation = arm.pose(f"{side}_gripper_link", f"{side}_arm_base_link")
    np.testing.assert_allclose(position, [0.0589, 0, 0.2108], atol=1e-4)
    np.testing.assert_allclose(rotation, np.eye(3), atol=1e-6)


@pytest.mark.parametrize("side", ["left", "right"])
def test_the_forward_reach_pose_is_where_the_robot_has_it(arm, side):
    joints = {f"{side}_arm_joint2": 1.8, f"{side}_arm_joint3": -1.7}
    position, rotation = arm.pose(f"{side}_gripper_link", f"{side}_arm_base_link", **joints)
    np.testing.assert_allclose(position, [0.4328, 0, 0.4667], atol=1e-4)
    assert np.degrees(np.arcsin(-rotation[2, 0])) == pytest.approx(5.7, abs=0.05)


def test_the_torso_posture_puts_chest_arms_and_head_at_their_heights(arm):
    chest, rotation = arm.pose("torso_link3")
    np.testing.assert_allclose(chest, [0.143, -0.0015, 0.654], atol=1e-3)
    assert np.degrees(np.arcsin(-rotation[2, 0])) == pytest.approx(0.8, abs=0.05)
    assert arm.pose("right_arm_base_link")[0][2] == pytest.approx(0.777, abs=1e-3)
    assert arm.pose("camera_head_left_optical_frame")[0][2] == pytest.approx(1.286, abs=1e-3)
    assert TORSO_POSTURE.items() <= arm.held.items()


def test_the_head_cameras_are_a_65_mm_pair_that_looks_30_degrees_down(arm):
    left, rotation = arm.pose("camera_head_left_optical_frame", "torso_link3")
    right, _ = arm.pose("camera_head_right_optical_frame", "torso_link3")
    assert np.linalg.norm(left - right) == pytest.approx(0.065, abs=1e-4)
    assert np.degrees(np.arcsin(-rotation[2, 2])) == pytest.approx(30, abs=0.1)
    np.testing.assert_allclose(rotation[:, 0], [0, -1, 0], atol=1e-3)  # x of an optical frame points right


def test_the_wrist_camera_looks_40_degrees_down_from_the_approach_axis(arm):
    _, rotation = arm.pose("camera_wrist_right_optical_frame", "right_gripper_link")
    assert np.degrees(np.arcsin(-rotation[2, 2])) == pytest.approx(40, abs=0.1)


@pytest.mark.parametrize("side", ["left", "right"])
def test_the_fingers_meet_at_zero_and_are_100_mm_apart_when_open(arm, side):
    first, second = f"{side}_gripper_finger_link1", f"{side}_gripper_finger_link2"
    opening = {f"{side}_gripper_finger_joint1": 0.05, f"{side}_gripper_finger_joint2": -0.05}
    closed = arm.pose(first, second)[0][1]
    assert arm.pose(first, second, **opening)[0][1] - closed == pytest.approx(0.1, abs=1e-9)
    arm.pose(first)
    pads = [arm.data.geom(f"{finger}_0") for finger in (first, second)]
    half = arm.model.geom(f"{first}_0").size[1]
    assert np.linalg.norm(pads[0].xpos - pads[1].xpos) == pytest.approx(2 * half, abs=5e-4)


def test_the_command_limits_lie_inside_the_mechanical_stops(robot, urdf):
    limits = {joint.get("name"): joint.find("limit") for joint in urdf.iter("joint")}
    for limb in robot.limbs:
        for index, name in enumerate(limb.joints, start=limb.offset):
            lower, upper = float(limits[name].get("lower")), float(limits[name].get("upper"))
            assert lower < robot.position_min[index] < robot.position_max[index] < upper
            # One degree, as the vendor's software keeps.
            assert robot.position_min[index] - lower == pytest.approx(np.radians(1), abs=1e-3)


def test_every_camera_of_the_robot_has_its_frame(robot, urdf):
    links = {link.get("name") for link in urdf.iter("link")}
    assert {camera.frame_id for camera in robot.cameras} <= links


def test_masses_are_those_of_the_robot(urdf):
    def mass(link):
        return float(urdf.find(f"link[@name='{link}']/inertial/mass").get("value"))

    links = [f"left_arm_link{number}" for number in range(1, 7)]
    assert [mass(link) for link in links] == [0.839, 1.09, 0.739, 0.419, 0.054, 0.031]
    assert mass("right_gripper_link") == 0.604


def test_a_joint_that_the_description_lacks_is_named(robot):
    text = description_xml().replace("left_arm_joint4", "left_arm_elbow")
    with pytest.raises(ValueError, match="left_arm_joint4.*not in the URDF"):
        robot_spec(robot, text)


def test_a_missing_description_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere.xacro"):
        description_xml(tmp_path / "nowhere.xacro")
