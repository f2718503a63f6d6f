from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from depthvla_policy.control.shaper import CommandShaper
from depthvla_policy.robot import load

ROBOT = load()
DT = 1.0 / 15.0
STEP = ROBOT.command_velocity * DT


def started(robot, pose):
    shaper = CommandShaper(robot)
    shaper.start(pose)
    return shaper


def test_a_near_target_is_reached_at_once_and_nothing_is_counted(robot, home):
    shaper = started(robot, home)
    np.testing.assert_array_equal(shaper.shape(home + 0.5 * STEP, DT), home + 0.5 * STEP)
    assert (shaper.clamped_position, shaper.clamped_velocity) == (0, 0)


def test_a_far_target_is_approached_at_the_velocity_limit(robot, home):
    shaper, target = started(robot, home), home.copy()
    target[[2, 6]] = [-0.7, 100.0]  # 1 rad at 1.1 rad/s, 50 mm at 300 mm/s
    commands = np.array([shaper.shape(target, DT) for _ in range(20)])
    steps = np.abs(np.diff(commands, axis=0, prepend=home[None]))
    assert np.all(steps <= STEP + 1e-9)
    np.testing.assert_array_equal(commands[-1], target)
    assert np.argmax(commands[:, 6] == 100.0) == 2 and np.argmax(commands[:, 2] == -0.7) == 13
    assert shaper.clamped_velocity == 2 + 13


def test_a_target_outside_is_clamped_and_counted(robot, home):
    start = home.copy()
    start[1] = robot.position_max[1] - 0.01
    shaper = started(robot, start)
    target = start.copy()
    target[1] += 0.3
    assert shaper.shape(target, DT)[1] == robot.position_max[1]
    assert shaper.clamped_position == 1


def test_the_folded_pose_one_degree_outside_moves_in_without_a_jump(robot):
    folded = np.zeros(robot.size)
    assert np.any(folded < robot.position_min)
    shaper = started(robot, folded)
    first = shaper.shape(folded, 0.005)
    assert np.all(np.abs(first - folded) <= robot.command_velocity * 0.005 + 1e-12)
    for _ in range(10):
        last = shaper.shape(folded, DT)
    np.testing.assert_array_equal(last, np.clip(folded, robot.position_min, robot.position_max))


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_non_finite_never_passes(robot, home, bad):
    shaper, target = started(robot, home), home.copy()
    target[4] = bad
    with pytest.raises(ValueError, match="not finite"):
        shaper.shape(target, DT)
    with pytest.raises(ValueError, match="not finite"):
        shaper.start(target)
    np.testing.assert_array_equal(shaper.last, home)


def test_there_is_no_command_before_a_measured_pose(robot, home):
    with pytest.raises(RuntimeError, match="measured pose"):
        CommandShaper(robot).shape(home, DT)


values = st.floats(-10.0, 10.0)
poses = st.lists(values, min_size=ROBOT.size, max_size=ROBOT.size).map(np.array)


@settings(max_examples=200, deadline=None)
@given(start=poses, targets=st.lists(poses, min_size=1, max_size=8), dt=st.floats(0.0, DT))
def test_no_command_leaves_its_limits_or_jumps(start, targets, dt):
    shaper, last = started(ROBOT, start), start
    # From outside, the way back in is the only way.
    low, high = np.minimum(ROBOT.position_min, start), np.maximum(ROBOT.position_max, start)
    for target in targets:
        command = shaper.shape(target, dt)
        assert np.isfinite(command).all()
        assert np.all((command >= low) & (command <= high))
        assert np.all(np.abs(command - last) <= ROBOT.command_velocity * dt + 1e-9)
        outside_before = np.maximum(last - ROBOT.position_max, ROBOT.position_min - last)
        outside = np.maximum(command - ROBOT.position_max, ROBOT.position_min - command)
        assert np.all(outside <= np.maximum(outside_before, 0.0))
        last = command
