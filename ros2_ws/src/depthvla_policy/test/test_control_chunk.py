from __future__ import annotations

import numpy as np
import pytest

from depthvla_policy.control.chunk import Chunk, check_chunk
from depthvla_policy.control.chunk_buffer import ChunkBuffer
from depthvla_policy.control.refusal import Reason

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


def test_steps_are_due_by_their_stamp_and_the_past_is_dropped(home):
    buffer = ChunkBuffer()
    chunk = make(home)
    late = T0 + 5 * PERIOD
    assert buffer.offer(chunk, late) is None
    due = buffer.due(late)
    assert (due.step, due.steps_left, due.sequence, due.age_ns) == (5, 10, 1, 5 * PERIOD)
    np.testing.assert_allclose(due.positions, chunk.positions[5])


@pytest.mark.parametrize("share", [0.0, 0.25, 0.5, 0.9])
def test_between_two_steps_the_target_lies_on_the_line(home, share):
    buffer, chunk = ChunkBuffer(), make(home)
    buffer.offer(chunk, T0)
    due = buffer.due(T0 + round((3 + share) * PERIOD))
    assert due.step == 3
    np.testing.assert_allclose(due.positions, home + 0.01 * (3 + share), atol=1e-8)


def test_the_last_step_is_in_force_for_one_period_and_then_nothing_is(home):
    buffer, chunk = ChunkBuffer(), make(home)
    buffer.offer(chunk, T0)
    due = buffer.due(T0 + 16 * PERIOD - 1)
    assert (due.step, due.steps_left) == (15, 0)
    np.testing.assert_allclose(due.positions, chunk.positions[15])
    assert buffer.due(T0 + 16 * PERIOD) is None


def test_the_newest_chunk_replaces(home):
    buffer = ChunkBuffer()
    buffer.offer(make(home), T0)
    newer = make(home + 0.05, stamp=T0 + 2 * PERIOD, sequence=2)
    assert buffer.offer(newer, T0 + 3 * PERIOD) is None
    due = buffer.due(T0 + 3 * PERIOD)
    assert (due.sequence, due.step) == (2, 1)
    np.testing.assert_allclose(due.positions, newer.positions[1])


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"stamp": T0 + 2 * PERIOD, "sequence": 5}, Reason.OLD),  # repeated
        ({"stamp": T0 + 3 * PERIOD, "sequence": 5}, Reason.OLD),  # newer observation, same sequence
        ({"stamp": T0 + 3 * PERIOD, "sequence": 4}, Reason.OLD),
        ({"stamp": T0 + 1 * PERIOD, "sequence": 6}, Reason.OLD),  # later sequence, older observation
        ({"stamp": T0 + 9 * PERIOD, "sequence": 6}, Reason.FUTURE),
        ({"stamp": T0 - 20 * PERIOD, "sequence": 6}, Reason.EXPIRED),
        ({"stamp": T0 + 3 * PERIOD, "sequence": 6, "model": "other"}, Reason.OTHER_MODEL),
    ],
)
def test_what_does_not_follow_is_refused_and_the_present_chunk_stays(home, change, reason):
    buffer, now = ChunkBuffer(), T0 + 4 * PERIOD
    present = make(home, stamp=T0 + 2 * PERIOD, sequence=5)
    assert buffer.offer(present, now) is None
    refusal = buffer.offer(make(home, **change), now)
    assert refusal.reason is reason
    assert buffer.chunk is present


def test_a_restarted_policy_takes_over_when_the_old_chunk_has_run_out(home):
    buffer = ChunkBuffer()
    buffer.offer(make(home, sequence=40), T0)
    restarted = make(home, stamp=T0 + 17 * PERIOD, sequence=1, model="other")
    assert buffer.offer(restarted, T0 + 18 * PERIOD) is None
    assert buffer.due(T0 + 18 * PERIOD).sequence == 1


def test_a_stamp_a_little_ahead_starts_with_the_first_step(home):
    buffer, chunk = ChunkBuffer(), make(home, stamp=T0 + 20_000_000)
    assert buffer.offer(chunk, T0) is None
    np.testing.assert_allclose(buffer.due(T0).positions, chunk.positions[0])
