from __future__ import annotations

import numpy as np
import pytest

from r1lite_description.kinematics import Kinematics

URDF = """
<robot name="two">
  <link name="base"/> <link name="arm"/> <link name="slide"/> <link name="other"/> <link name="tool"/>
  <joint name="shoulder" type="revolute"><parent link="base"/><child link="arm"/>
    <origin xyz="0 0 1" rpy="0 0 0"/><axis xyz="0 0 2"/></joint>
  <joint name="finger" type="prismatic"><parent link="arm"/><child link="slide"/>
    <origin xyz="1 0 0"/><axis xyz="0 1 0"/></joint>
  <joint name="follower" type="prismatic"><parent link="arm"/><child link="other"/>
    <axis xyz="0 1 0"/><mimic joint="finger" multiplier="-2" offset="0.5"/></joint>
  <joint name="tool" type="fixed"><parent link="slide"/><child link="tool"/>
    <origin xyz="0 0 0.1" rpy="1.5707963267948966 0 0"/></joint>
</robot>
"""


@pytest.fixture(scope="module")
def simulation(robot):
    mujoco = pytest.importorskip("mujoco", reason="mujoco is not installed")
    robot_model = pytest.importorskip("r1lite_sim.scene.robot_model", reason="r1lite_sim is not installed")
    spec, held = robot_model.robot_spec(robot)
    model = spec.compile()
    return robot_model.description_xml(), model, mujoco.MjData(model), held


def test_links_are_where_the_simulator_has_them(simulation, robot):
    import mujoco

    urdf, model, data, held = simulation
    kinematics, rng = Kinematics(urdf), np.random.default_rng(0)
    moving = [model.joint(index).name for index in range(model.njnt)]
    low, high = model.jnt_range.T
    states = rng.uniform(low, high, (20, len(moving)))
    for name, mimicked in (("left_gripper_finger_joint", "2"), ("right_gripper_finger_joint", "2")):
        states[:, moving.index(name + mimicked)] = -states[:, moving.index(name + "1")]
    positions = {**held, **dict(zip(moving, states.T, strict=True))}
    poses = kinematics.poses(kinematics.links, positions)
    assert {limb.name + "_grasp_frame" for limb in robot.limbs} <= set(poses)
    for index, state in enumerate(states):
        data.qpos[:] = state
        mujoco.mj_forward(model, data)
        base = np.eye(4)
        base[:3, :3], base[:3, 3] = data.body("base_link").xmat.reshape(3, 3), data.body("base_link").xpos
        for link, pose in poses.items():
            expected = np.eye(4)
            expected[:3, :3], expected[:3, 3] = data.body(link).xmat.reshape(3, 3), data.body(link).xpos
            ours = np.broadcast_to(pose, (len(states), 4, 4))[index]
            np.testing.assert_allclose(base @ ours, expected, atol=1e-6, err_msg=link)


def test_one_position_and_many_give_the_same_poses():
    kinematics, angles = Kinematics(URDF), np.linspace(-1.0, 1.0, 5)
    many = kinematics.poses(["tool"], {"shoulder": angles, "finger": 0.2})["tool"]
    assert many.shape == (5, 4, 4)
    for pose, angle in zip(many, angles, strict=True):
        np.testing.assert_allclose(pose, kinematics.poses(["tool"], {"shoulder": angle, "finger": 0.2})["tool"])


def test_joints_turn_and_slide_about_their_own_axis():
    poses = Kinematics(URDF).poses(["tool", "other"], {"shoulder": np.pi / 2, "finger": 0.25})
    np.testing.assert_allclose(poses["tool"][:3, 3], [-0.25, 1.0, 1.1], atol=1e-12)
    np.testing.assert_allclose(poses["tool"][:3, 1], [0.0, 0.0, 1.0], atol=1e-12)
    np.testing.assert_allclose(poses["other"][:3, 3], [0.0, 0.0, 1.0], atol=1e-12)  # -2 * 0.25 + 0.5 = 0


def test_an_unnamed_joint_stands_at_zero():
    np.testing.assert_allclose(Kinematics(URDF).poses(["slide"], {})["slide"][:3, 3], [1.0, 0.0, 1.0])


def test_positions_are_for_joints_that_move_by_themselves():
    assert Kinematics(URDF).joints == ("shoulder", "finger")


def test_a_missing_link_or_joint_is_named_with_what_there_is():
    with pytest.raises(ValueError, match=r"\['gripper'\].*\['elbow'\].*slide.*shoulder"):
        Kinematics(URDF).require(["base", "gripper"], ["elbow"])
    with pytest.raises(ValueError, match="gripper"):
        Kinematics(URDF).poses(["gripper"], {})


def test_fixed_frames_are_taken_from_another_description_and_nothing_else():
    plain = Kinematics(URDF.split('  <joint name="tool"')[0].replace('<link name="tool"/>', "") + "</robot>")
    assert plain.missing(["tool"]) == ["tool"]
    assert plain.add_frames(Kinematics(URDF)) == ["tool"]
    positions = {"shoulder": 0.3, "finger": 0.1}
    np.testing.assert_allclose(
        plain.poses(["tool"], positions)["tool"], Kinematics(URDF).poses(["tool"], positions)["tool"]
    )
    alone = Kinematics('<robot name="x"><link name="base"/></robot>')
    assert alone.add_frames(Kinematics(URDF)) == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: "nonsense", "no XML"),
        (lambda text: "<sdf/>", "<sdf>"),
        (lambda text: text.replace("prismatic", "floating", 1), "finger.*'floating'.*revolute"),
        (lambda text: text.replace('<child link="arm"/>', '<child link="leg"/>'), r"shoulder.*\['leg'\]"),
        (lambda text: text.replace('<link name="base"/>', '<link name="base"/><link name="b2"/>'), "base.*b2"),
        (lambda text: text.replace('<parent link="base"/>', '<parent link="tool"/>'), "loop"),
        (lambda text: text.replace('xyz="1 0 0"', 'xyz="1 0 nan"'), "1 0 nan"),
        (lambda text: text.replace('xyz="1 0 0"', 'xyz="1 0"'), "3 finite numbers"),
        (lambda text: text.replace('<axis xyz="0 0 2"/>', '<axis xyz="0 0 0"/>'), "shoulder.*axis"),
        (lambda text: text.replace('name="follower"', 'name="finger"'), "twice"),
    ],
)
def test_a_description_that_is_none_says_what_is_wrong(change, message):
    with pytest.raises(ValueError, match=message):
        Kinematics(change(URDF))
