from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from r1lite_description.robot import load
from r1lite_sim.leader import BRAKE_S, FOLLOW_S, GRIPPER_AMPLITUDE_MM, TREMOR_HZ, TREMOR_RAD, Leader

STEP_S = 0.01
ROBOT = load()
ARMS = ~ROBOT.gripper_mask
# The tremor's own highest acceleration, with its rise, and some for the wandering.
ACCELERATION_RAD_S2 = 1.3 * TREMOR_RAD * (2 * np.pi * TREMOR_HZ) ** 2 + 1.0


@pytest.fixture
def home():
    pose = np.zeros(ROBOT.size)
    for limb in ROBOT.limbs:
        pose[limb.arm] = [0.0, 1.8, -1.7, 0.0, 0.0, 0.0]
        pose[limb.gripper_index] = 50.0
    return pose


def play(leader, measured, modes, begin_s=0.0, step_s=STEP_S):
    """(T, size) positions, a step for each entry of `modes`; `measured` is a pose or a function of time."""
    times = begin_s + step_s * np.arange(len(modes))
    pose = measured if callable(measured) else lambda _: measured
    return np.array([leader.step(pose(now), mode, now) for now, mode in zip(times, modes, strict=True)])


def steady(count):
    return [False] * count


def teleop(count):
    return [True] * count


def test_the_leader_stands_off_the_arm_by_the_alignment_error(home):
    path = play(Leader(ROBOT, alignment_error_rad=0.05), home, steady(10))
    np.testing.assert_allclose(np.abs(path - home)[:, ARMS], 0.05)
    np.testing.assert_allclose(path[:, ~ARMS], 50.0)


def test_the_leader_follows_a_moving_arm_with_a_first_order_lag(home):
    leader = Leader(ROBOT, alignment_error_rad=0.0)
    leader.step(home, False, 0.0)
    there = home + np.where(ARMS, 0.4, 0.0)
    path = play(leader, there, steady(int(FOLLOW_S / STEP_S) + 1), begin_s=0.0)
    np.testing.assert_allclose((there - path[-1])[ARMS], 0.4 * np.exp(-1), rtol=1e-6)


def test_a_take_over_starts_where_the_leader_is_without_a_step_in_position_or_velocity(home):
    speed = np.where(ARMS, 0.8, 10.0)
    path = play(Leader(ROBOT), lambda now: home + speed * (now - 1.0), steady(100) + teleop(100))
    velocity = np.diff(path, axis=0) / STEP_S
    np.testing.assert_allclose(velocity[98][ARMS], 0.8, rtol=0.01)  # it moved before
    braking = 1.875 * speed / BRAKE_S
    bound = np.where(ARMS, ACCELERATION_RAD_S2 + braking, 50.0 + braking) * STEP_S
    assert np.all(np.abs(np.diff(velocity[98:], axis=0)) < bound)
    assert np.all(np.abs(velocity[140:]) < np.where(ARMS, 0.3, 20.0))  # its speed has run out


@pytest.mark.parametrize("step_s", [0.01, 0.002])
def test_the_motion_is_smooth_across_waypoints(home, step_s):
    leader = Leader(ROBOT, amplitude_rad=0.15, period_s=1.0)
    modes = steady(2) + teleop(int(6 / step_s))
    path = play(leader, home, modes, step_s=step_s)
    acceleration = np.diff(path, n=2, axis=0) / step_s**2
    # Minimum jerk over 0.3 rad in a second needs 5.8 * 0.3 rad/s^2.
    assert np.abs(acceleration[:, ARMS]).max() < ACCELERATION_RAD_S2 + 1.75


def test_the_leader_wanders_within_the_amplitude_of_the_pose_where_it_took_over(home):
    leader = Leader(ROBOT, alignment_error_rad=0.03, amplitude_rad=0.15, period_s=0.5)
    path = play(leader, home, steady(1) + teleop(4000))
    away = np.abs(path - path[0])
    assert np.all(away[:, ARMS].max(axis=0) <= 0.15 + TREMOR_RAD)
    assert np.all(away[:, ARMS].max(axis=0) > 0.1)
    assert np.all(away[:, ~ARMS].max(axis=0) <= GRIPPER_AMPLITUDE_MM)
    assert np.all(away[:, ~ARMS].max(axis=0) > GRIPPER_AMPLITUDE_MM / 2)


def test_the_hand_trembles_at_eight_hertz(home):
    path = play(Leader(ROBOT, amplitude_rad=0.0), home, steady(1) + teleop(500))
    joint = path[-400:, 0] - path[-400:].mean(axis=0)[0]
    frequencies = np.fft.rfftfreq(joint.size, STEP_S)
    assert frequencies[np.argmax(np.abs(np.fft.rfft(joint)))] == pytest.approx(TREMOR_HZ, abs=0.3)
    assert np.abs(joint).max() == pytest.approx(TREMOR_RAD, rel=0.1)


def test_after_giving_back_the_leader_comes_to_the_arm_again(home):
    leader = Leader(ROBOT, alignment_error_rad=0.03)
    path = play(leader, home, steady(1) + teleop(300) + steady(200))
    assert np.all(np.abs(np.diff(path[299:], axis=0))[:, ARMS] < 0.2 * STEP_S / FOLLOW_S)
    np.testing.assert_allclose(path[-1], path[0], atol=1e-5)


def test_the_same_seed_gives_the_same_motion_and_another_one_does_not(home):
    def motion(seed):
        return play(Leader(ROBOT, seed=seed), home, steady(5) + teleop(500) + steady(50) + teleop(200))

    np.testing.assert_array_equal(motion(3), motion(3))
    assert np.abs(motion(3) - motion(4))[:, ARMS].max() > 0.02


def test_a_take_over_does_not_depend_on_how_long_others_lasted(home):
    short, long = (
        play(Leader(ROBOT), home, steady(5) + teleop(before) + steady(500) + teleop(200))[-200:]
        for before in (100, 900)
    )
    np.testing.assert_allclose(short, long, atol=1e-9)


@settings(deadline=None, max_examples=50)
@given(
    part=st.lists(st.floats(-0.1, 1.1), min_size=ROBOT.size, max_size=ROBOT.size),
    speed=st.floats(-1.1, 1.1),
    seed=st.integers(0, 1000),
)
def test_the_leader_stays_within_the_limits_of_the_robot(part, speed, seed):
    span = ROBOT.position_max - ROBOT.position_min
    pose = ROBOT.position_min + np.array(part) * span
    leader = Leader(ROBOT, amplitude_rad=0.5, period_s=0.5, seed=seed)
    path = play(leader, lambda now: pose + speed * now, steady(20) + teleop(150) + steady(20))
    assert np.all(np.isfinite(path))
    assert np.all(path >= ROBOT.position_min) and np.all(path <= ROBOT.position_max)
