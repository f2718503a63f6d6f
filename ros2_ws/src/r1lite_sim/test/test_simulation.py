from __future__ import annotations

import mujoco
import numpy as np
import pytest

from r1lite_sim.simulation import Simulation

CAMERAS = ("head", "wrist_left", "wrist_right")
AWAY = np.array([1.0, 1.0, -1.0, 1.0, 1.0, 1.0])  # each joint the way it has room


def stream(simulation, action, seconds):
    """Command the same target at the control rate for a while."""
    for _ in range(round(seconds / simulation.robot.period_s)):
        simulation.command(action)
        simulation.step(simulation.robot.period_s)


def trace(simulation, seed):
    """Everything that an episode shows: a command, then the state and pictures after it."""
    simulation.reset(seed)
    action = simulation.state()
    action[simulation.robot.limb("right").arm] += 0.2
    stream(simulation, action, 0.4)
    return simulation.state(), simulation.data.qpos.copy(), *[simulation.render(camera) for camera in CAMERAS]


def test_the_same_seed_gives_the_same_episode_to_the_bit(robot, simulation):
    other = Simulation(robot)
    try:
        trace(simulation, 11)  # whatever came before must not matter
        for one, two in zip(trace(simulation, 7), trace(other, 7), strict=True):
            np.testing.assert_array_equal(one, two)
    finally:
        other.close()


def test_blocks_start_apart_on_the_table_inside_the_central_square_of_the_head_image(simulation):
    matrix = simulation.camera_matrix("head")
    margin = (simulation.image_width - simulation.image_height) / 2
    for seed in range(20):
        simulation.reset(seed)
        blocks = [simulation.data.body(f"{colour}_block").xpos for colour in ("red", "green", "blue", "yellow")]
        gaps = [np.linalg.norm(a - b) for index, a in enumerate(blocks) for b in blocks[:index]]
        assert min(gaps) > 0.09
        for block in blocks:
            ray = simulation.in_frame(block, "camera_head_left_optical_frame")
            column, row, _ = matrix @ ray / ray[2]
            assert margin < column < simulation.image_width - margin
            assert 0 < row < simulation.image_height


@pytest.mark.parametrize("camera", CAMERAS)
def test_depth_is_the_distance_along_the_optical_axis(simulation, robot, camera):
    simulation.reset(3)
    depth, matrix = simulation.render_depth(camera), simulation.camera_matrix(camera)
    frame = simulation.data.body(robot.camera(camera).frame_id)
    rotation = frame.xmat.reshape(3, 3)
    visible = np.array([1, 1, 1, 0, 1, 1], dtype=np.uint8)
    rng, errors = np.random.default_rng(0), []
    for row, column in zip(rng.integers(2, 178, 200), rng.integers(2, 318, 200), strict=True):
        ray = np.linalg.inv(matrix) @ [column, row, 1.0]
        geom, normal = np.zeros(1, dtype=np.int32), np.zeros(3)
        direction = rotation @ ray / np.linalg.norm(ray)
        distance = mujoco.mj_ray(simulation.model, simulation.data, frame.xpos, direction, visible, 1, -1, geom, normal)
        errors.append(abs(distance / np.linalg.norm(ray) - depth[row, column]))
    # Round shapes are drawn with facets, and at an edge one pixel has two depths.
    assert np.median(errors) < 1e-4
    assert np.quantile(errors, 0.9) < 5e-3


def test_pictures_are_rgb_and_the_camera_matrix_finds_the_named_block_in_them(simulation):
    for seed in range(5):
        simulation.reset(seed)
        ray = simulation.in_frame(simulation.task.target(simulation.data)[0], "camera_head_left_optical_frame")
        column, row, _ = simulation.camera_matrix("head") @ ray / ray[2]
        red, green, blue = simulation.render("head")[round(row), round(column)].astype(int)
        assert red > 2 * green
        assert red > 2 * blue


def test_the_wrist_camera_sees_between_the_fingers(simulation):
    simulation.reset(0)
    ray = simulation.in_frame(simulation.data.body("right_grasp_frame").xpos, "camera_wrist_right_optical_frame")
    column, row, _ = simulation.camera_matrix("wrist_right") @ ray / ray[2]
    assert 70 < column < 250
    assert 40 < row < 140
    assert simulation.render_depth("wrist_right")[round(row), round(column)] > ray[2]  # nothing is in the way


def test_images_have_the_size_that_was_asked_for(robot):
    small = Simulation(robot, image_width=64, image_height=48)
    try:
        assert small.render("head").shape == (48, 64, 3)
        assert small.render_depth("wrist_left").shape == (48, 64)
    finally:
        small.close()


def test_an_arm_follows_its_commands_and_the_other_stays(simulation, robot):
    simulation.reset(0)
    start = simulation.state()
    action = start.copy()
    action[robot.limb("right").arm] += [0.2, -0.2, 0.1, 0.2, -0.3, 0.4]
    action[robot.limb("right").gripper_index] = 40.0
    stream(simulation, action, 1.0)
    right, left = robot.limb("right"), robot.limb("left")
    np.testing.assert_allclose(simulation.state()[right.arm], action[right.arm], atol=2e-3)
    assert simulation.state()[right.gripper_index] == pytest.approx(40, abs=0.5)
    np.testing.assert_allclose(simulation.state()[left.arm], start[left.arm], atol=2e-3)


def test_an_arm_trails_its_reference_by_less_than_a_control_period(simulation, robot):
    simulation.reset(0)
    arm, speed = robot.limb("right").arm, 0.6
    action = simulation.state()
    begin = action[arm.start]
    for step in range(1, 16):
        action[arm.start] = begin + speed * robot.period_s * step
        simulation.command_arm("right", action[arm], np.full(6, speed))
        simulation.step(robot.period_s)
    lag_s = (action[arm.start] - simulation.state()[arm.start]) / speed
    assert 0 <= lag_s < robot.period_s


def test_the_velocity_of_a_command_caps_the_speed(simulation, robot):
    simulation.reset(0)
    arm = robot.limb("right").arm
    start = simulation.state()[arm]
    for _ in range(10):
        simulation.command_arm("right", start + 0.5 * AWAY, np.full(6, 0.3))
        simulation.step(0.1)
    np.testing.assert_allclose(simulation.state()[arm] - start, 0.3 * AWAY, atol=0.02)


def test_motion_stops_when_the_stream_stops(simulation, robot):
    simulation.reset(0)
    right = robot.limb("right")
    start = simulation.state()
    simulation.command_arm("right", start[right.arm] + AWAY, np.full(6, 0.5))
    simulation.command_gripper("right", 0.0)
    simulation.step(0.3)
    stopped = simulation.state()
    simulation.step(1.0)
    np.testing.assert_allclose(stopped[right.arm] - start[right.arm], 0.1 * AWAY, atol=0.02)
    np.testing.assert_allclose(simulation.state()[right.arm], stopped[right.arm], atol=0.01)
    assert np.abs(simulation.velocity()).max() < 0.5


def test_an_arm_without_commands_does_not_sag(simulation, robot):
    simulation.reset(0)
    start = simulation.state()
    simulation.step(2.0)
    np.testing.assert_allclose(simulation.state(), start, atol=1e-3)


def nan(values):
    return [*values[:-1], float("nan")]


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda values: values[:5], "right arm position has 5 values; it takes 6"),
        (lambda values: [*values, 0.0], "right arm position has 7 values; it takes 6"),
        (nan, "right arm position is .*nan.* must be finite"),
        (lambda values: [values[0], 3.2, *values[2:]], "right arm position 1 is 3.2000; allowed: 0.0175 to 3.1241"),
    ],
)
def test_a_bad_arm_command_is_refused_and_moves_nothing(simulation, robot, spoil, message):
    simulation.reset(0)
    start = simulation.state()
    with pytest.raises(ValueError, match=message):
        simulation.command_arm("right", spoil(list(start[robot.limb("right").arm] + 0.1)))
    simulation.step(0.3)
    np.testing.assert_allclose(simulation.state(), start, atol=1e-3)


@pytest.mark.parametrize("cap", [[1.0] * 5, [1.0] * 5 + [-1.0], [1.0] * 5 + [float("inf")]])
def test_a_bad_speed_cap_is_refused(simulation, robot, cap):
    simulation.reset(0)
    with pytest.raises(ValueError, match="right arm speed cap"):
        simulation.command_arm("right", simulation.state()[robot.limb("right").arm], cap)


@pytest.mark.parametrize("opening", [-1.0, 101.0, float("nan")])
def test_a_bad_gripper_command_is_refused(simulation, opening):
    with pytest.raises(ValueError, match="left gripper opening"):
        simulation.command_gripper("left", opening)


def test_limits_that_went_through_a_message_are_accepted(simulation, robot):
    simulation.reset(0)
    limits = np.float64(np.float32(robot.position_max[robot.limb("left").arm]))
    simulation.command_arm("left", np.minimum(limits, robot.position_max[robot.limb("left").arm] + 5e-7))


def test_joint_states_name_every_joint_of_the_robot(simulation):
    names, positions, velocities = simulation.joint_state()
    assert len(names) == len(positions) == len(velocities) == 25
    assert dict(zip(names, positions, strict=True))["torso_joint2"] == 1.516


def test_link_poses_lead_from_the_base_to_every_camera(simulation, robot):
    simulation.reset(0)
    poses = {pose.link: pose for pose in simulation.link_poses()}
    for camera in robot.cameras:
        position, link = np.zeros(3), camera.frame_id
        while link != "base_link":
            rotation = np.empty(9)
            mujoco.mju_quat2Mat(rotation, poses[link].quaternion)
            position = rotation.reshape(3, 3) @ position + poses[link].position
            link = poses[link].parent
        np.testing.assert_allclose(position, simulation.data.body(camera.frame_id).xpos, atol=1e-9)
    assert {pose.link for pose in poses.values() if pose.moves} >= {"left_arm_link1", "right_gripper_finger_link2"}
    assert not poses["camera_head_left_optical_frame"].moves
    assert "red_block" not in poses


def test_naming_another_block_and_arm_changes_the_instruction_and_the_target(simulation):
    simulation.reset(4, colour="blue", side="left")
    try:
        assert simulation.instruction == "lift the blue block with the left arm"
        np.testing.assert_array_equal(
            simulation.task.target(simulation.data)[0], simulation.data.body("blue_block").xpos
        )
    finally:
        simulation.reset(0, colour="red", side="right")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"task": "juggle"}, "no task 'juggle'; known tasks: lift"),
        ({"task_options": {"colour": "pink"}}, "colour is 'pink'; allowed: red, green, blue, yellow"),
        ({"task_options": {"side": "both"}}, "side is 'both'; allowed: left, right"),
        ({"task_options": {"height": 3}}, "task 'lift': .*height"),
        ({"image_width": 4000}, "image size is 4000x180"),
    ],
)
def test_what_cannot_be_staged_is_named(robot, arguments, message):
    with pytest.raises(ValueError, match=message):
        Simulation(robot, **arguments)


def test_a_negative_seed_is_refused(simulation):
    with pytest.raises(ValueError, match="seed is -1"):
        simulation.reset(-1)


def test_an_unknown_camera_is_named(simulation):
    with pytest.raises(KeyError, match="no camera 'chest'; known cameras: head, wrist_left, wrist_right, scene"):
        simulation.render("chest")
