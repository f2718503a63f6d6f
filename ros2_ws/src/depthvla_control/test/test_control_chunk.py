from __future__ import annotations

import numpy as np
import pytest

from depthvla_control.chunk import Chunk, check_chunk
from depthvla_control.refusal import Reason

PERIOD = 66_666_667
T0 = 1_700_000_000_000_000_000


def make(home, *, stamp=T0, sequence=1, steps=16, slope=0.01, model="m", period=PERIOD):
    positions = home + slope * np.arange(steps)[:, None]
    return Chunk(stamp, sequence, period, positions, model)


def test_a_good_chunk_passes(robot, home):
    assert check_chunk(make(home), robot) is None


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("step", [0, 7, 15])
def test_one_non_finite_target_refuses_the_whole_chunk(robot, home, value, step):
    chunk = make(home)
    chunk.positions[step, 9] = value
    refusal = check_chunk(chunk, robot)
    assert refusal.reason is Reason.NON_FINITE
    assert robot.joint_names[9] in refusal.message and f"step {step}" in refusal.message


def test_a_target_far_outside_the_limits_is_refused_and_a_near_one_is_not(robot, home):
    chunk = make(home, slope=0.0)
    chunk.positions[3, 1] = robot.position_max[1] + 0.5
    assert check_chunk(chunk, robot) is None
    chunk.positions[3, 1] = robot.position_max[1] + 1.5
    refusal = check_chunk(chunk, robot)
    assert refusal.reason is Reason.OUT_OF_RANGE and robot.joint_names[1] in refusal.message


@pytest.mark.parametrize("shape", [(16, 13), (16, 7), (14,), (0, 14), (300, 14)])
def test_wrong_shapes_are_refused(robot, shape):
    assert check_chunk(Chunk(T0, 1, PERIOD, np.zeros(shape)), robot).reason is Reason.WRONG_COUNT


@pytest.mark.parametrize("period", [-PERIOD, 0, 1_000_000, 2_000_000_000])
def test_insane_periods_are_refused(robot, home, period):
    assert check_chunk(make(home, period=period), robot).reason is Reason.WRONG_TIMING
