from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from motion_limits import excess
from ruckig import RuckigError

from depthvla_control.shaper import CommandShaper
from depthvla_control.trajectory import standing
from r1lite_description.robot import load

ROBOT = load()
DT = 1.0 / 15.0


def started(robot, pose, **options):
    shaper = CommandShaper(robot, **options)
    shaper.start(pose)
    return shaper


def wave(home, time_s, amplitude=0.2, rate=3.0):
    """A motion (3, 14) that starts at rest and keeps well within the limits of the arms."""
    motion = standing(home)
    arms = ~ROBOT.gripper_mask
    motion[0, arms] += amplitude * (1.0 - np.cos(rate * time_s))
    motion[1, arms] += amplitude * rate * np.sin(rate * time_s)
    motion[2, arms] += amplitude * rate**2 * np.cos(rate * time_s)
    return motion


@pytest.mark.parametrize("rate_hz", [15.0, 50.0, 200.0])
def test_a_motion_within_the_limits_is_followed_without_delay(robot, home, rate_hz):
    home[[1, 8]] -= 0.2
    shaper, dt = started(robot, home), 1.0 / rate_hz
    for k in range(1, int(2 * rate_hz)):
        if k == 8:  # the acceleration that the motion begins with takes its time under a jerk limit
            trailing = shaper.clamped_velocity
        wanted = wave(home, k * dt)
        np.testing.assert_allclose(shaper.follow(wanted, dt), wanted[0], atol=1e-5)
    assert (shaper.clamped_position, shaper.clamped_velocity) == (0, trailing)


def test_a_far_target_is_approached_at_the_velocity_limit_and_reached_at_rest(robot, home):
    shaper, target = started(robot, home), home.copy()
    target[[2, 6]] = [-0.7, 100.0]  # 1 rad at 1.1 rad/s, 50 mm at 300 mm/s
    commands = np.array([home, *(shaper.follow(standing(target), DT) for _ in range(25))])
    speed = np.abs(np.diff(commands, axis=0)) / DT
    assert speed[:, 2].max() == pytest.approx(robot.command_velocity[2]) and speed[:, 6].max() > 250.0
    np.testing.assert_allclose(commands[-1], target, atol=1e-6)
    assert shaper.at_rest and shaper.clamped_velocity > 13


@pytest.mark.parametrize("scale", [0.1, 0.5])
def test_the_speed_scale_bounds_the_speed(robot, home, scale):
    shaper = started(robot, home, speed_scale=scale)
    target = home + 0.5
    commands = np.array([home, *(shaper.follow(standing(target), DT) for _ in range(30))])
    speed = np.abs(np.diff(commands, axis=0)) / DT
    assert np.all(speed <= scale * robot.command_velocity + 1e-6)


def test_catching_up_a_command_is_faster_than_the_motion_by_a_share_of_the_limits(robot, home):
    shaper, wanted = started(robot, home), standing(home + 0.5)
    wanted[1] = 0.1
    commands = np.array([home, *(shaper.follow(wanted, DT, 0.2) for _ in range(15))])
    speed = np.abs(np.diff(commands, axis=0)) / DT
    np.testing.assert_allclose(speed.max(axis=0)[:6], 0.1 + 0.2 * robot.command_velocity[:6], rtol=1e-3)


def test_a_target_outside_is_clamped_to_the_margin_and_counted(robot, home):
    start = home.copy()
    start[1] = robot.position_max[1] - 0.1
    shaper, target = started(robot, start, position_margin_rad=0.05), start.copy()
    target[1] += 0.3
    for _ in range(20):
        command = shaper.follow(standing(target), DT)
    assert command[1] == pytest.approx(robot.position_max[1] - 0.05, abs=1e-6)
    assert shaper.clamped_position == 20


def test_braking_comes_to_a_stand_at_once_and_within_the_limits(robot, home):
    shaper, target = started(robot, home), home.copy()
    target[0] = 2.5
    before = [shaper.follow(standing(target), DT) for _ in range(10)]
    held = [shaper.brake(DT) for _ in range(10)]
    way = np.array([*before, *held])[:, 0]
    assert np.all(excess(np.array([*before, *held]), DT) <= 1e-6)
    assert way[10] > way[9], "an arm at full speed cannot stop within a period"
    # Full speed, 1.1 rad/s, is gone after v / a + a / j = 0.06 s.
    np.testing.assert_allclose(way[10:], way[10], atol=1e-6)
    assert shaper.at_rest


def test_the_folded_pose_one_degree_outside_moves_in_and_never_further_out(robot):
    folded = np.zeros(robot.size)
    assert np.any(folded < robot.position_min)
    shaper = started(robot, folded)
    commands = np.array([shaper.follow(standing(folded - 0.3), DT) for _ in range(10)])
    inside = np.clip(folded, robot.position_min, robot.position_max)
    assert np.all(np.abs(commands - inside) <= np.abs(folded - inside) + 1e-9 + 0.3)
    for joint in np.flatnonzero(folded < robot.position_min):
        assert np.all(np.diff(commands[:, joint]) >= -1e-9)
        assert commands[-1, joint] == pytest.approx(robot.position_min[joint], abs=1e-6)


def test_where_ruckig_finds_no_way_the_kept_stop_is_taken(robot, home, monkeypatch):
    shaper, target = started(robot, home), home.copy()
    target[0] = 2.5
    commands = [shaper.follow(standing(target), DT) for _ in range(10)]

    class Broken:
        def calculate(self, *_):
            raise RuckigError("no way")

    for joint in shaper._joints:
        monkeypatch.setattr(joint, "_otg", Broken())
    monkeypatch.setattr(shaper._stop, "_otg", Broken())
    commands += [shaper.follow(standing(target), DT) for _ in range(5)]
    assert np.all(excess(np.array(commands), DT) <= 1e-6)
    np.testing.assert_allclose(commands[-1], commands[-2])


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("row", [0, 1, 2])
def test_non_finite_never_passes(robot, home, bad, row):
    shaper, wanted = started(robot, home), standing(home)
    wanted[row, 4] = bad
    with pytest.raises(ValueError, match="not finite"):
        shaper.follow(wanted, DT)
    with pytest.raises(ValueError, match="not finite"):
        shaper.follow(standing(home), bad)
    with pytest.raises(ValueError, match="not finite"):
        shaper.start(np.full(robot.size, bad))
    np.testing.assert_array_equal(shaper.position, home)


def test_there_is_no_command_before_a_measured_pose(robot, home):
    for step in (lambda shaper: shaper.follow(standing(home), DT), lambda shaper: shaper.brake(DT)):
        with pytest.raises(RuntimeError, match="measured pose"):
            step(CommandShaper(robot))


unit = st.floats(-1.0, 1.0)
rows = st.lists(unit, min_size=ROBOT.size, max_size=ROBOT.size).map(np.array)
motions = st.tuples(rows, rows, rows, st.sampled_from(["follow", "follow", "follow", "brake"]), st.floats(0.1, 1.0))


@given(
    start=rows,
    wanted=st.lists(motions, min_size=3, max_size=20),
    rate_hz=st.sampled_from([15.0, 50.0, 200.0]),
    repeat=st.integers(1, 6),
)
def test_no_wanted_motion_makes_a_command_leave_its_limits(start, wanted, rate_hz, repeat):
    """Position, velocity and acceleration of the commands, whatever is asked for and however it changes."""
    middle, half = (ROBOT.position_max + ROBOT.position_min) / 2, (ROBOT.position_max - ROBOT.position_min) / 2
    start = middle + start * half
    shaper, dt = started(ROBOT, start), 1.0 / rate_hz
    commands = [start, start]  # it stood there before
    for position, velocity, acceleration, what, scale in wanted:
        motion = np.stack(
            [middle + 1.2 * position * half, velocity * 2.0 * ROBOT.command_velocity, acceleration * 50.0]
        )
        for _ in range(repeat):
            commands.append(shaper.follow(motion, dt, scale) if what == "follow" else shaper.brake(dt))
    assert np.all(excess(np.array(commands), dt) <= 1e-6)
