"""What a recording is drawn with: the recorder's description, the robot's own, or the installed one."""

from __future__ import annotations

import dataclasses

import pytest
from synthetic_bag import SyntheticBag

from depthvla_evaluation.bags.bag import Bag
from depthvla_evaluation.viewer.description import description
from depthvla_evaluation.viewer.paths import grasp_frame
from r1lite_description import robot as robot_description
from r1lite_description.kinematics import read_urdf
from r1lite_description.share import urdf_file

ROBOT = robot_description.load()
GRASPS = [grasp_frame(limb.name) for limb in ROBOT.limbs]


@pytest.fixture(scope="module")
def urdf():
    pytest.importorskip("xacro", reason="xacro is not installed")
    return read_urdf(urdf_file())


def described(path, published=None, custom=None, robot=ROBOT):
    with SyntheticBag(path, custom) as bag:
        bag.tick(0.0)
        if published:
            bag.add("/robot_description", 0.1, bag.make("std_msgs/msg/String", data=published))
    with Bag(path) as bag:
        return description(bag, robot)


def test_a_bag_of_another_recorder_is_drawn_with_the_installed_description(tmp_path, urdf):
    found = described(tmp_path / "bag")
    assert found.urdf == urdf and not found.kinematics.missing(GRASPS)
    assert "holds no robot description; the installed one of r1lite is taken" in found.remarks[-1]


def test_the_robots_own_description_goes_first_and_gets_the_frames_that_it_lacks(tmp_path, urdf):
    own = urdf
    for frame in GRASPS:
        own = own.replace(f'link="{frame}"', f'link="own_{frame}"').replace(f'name="{frame}"', f'name="own_{frame}"')
    found = described(tmp_path / "bag", own)
    assert found.urdf == own and not found.kinematics.missing([*GRASPS, *(f"own_{frame}" for frame in GRASPS)])


@pytest.mark.parametrize("published", ["<nonsense", "<robot name='other'><link name='base'/></robot>"])
def test_a_description_of_another_robot_is_said_and_not_used(tmp_path, urdf, published):
    found = described(tmp_path / "bag", published)
    assert found.urdf == urdf and "/robot_description in the bag cannot be used" in found.remarks[0]


def test_what_the_recorder_kept_is_taken_without_a_word(tmp_path, urdf):
    found = described(tmp_path / "bag", "<nonsense", {"urdf": urdf})
    assert found.urdf == urdf and not found.remarks


def test_a_robot_that_nobody_describes_is_named(tmp_path):
    with pytest.raises(ValueError, match="holds no robot description, and .*other.urdf.xacro does not exist"):
        described(tmp_path / "bag", robot=dataclasses.replace(ROBOT, name="other"))
