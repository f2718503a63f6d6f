from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from r1lite_sim.tracker import Tracker

STEP_S = 0.002


def track(tracker, begin_s, end_s):
    """References from begin to end, one row a step."""
    times = np.arange(round(begin_s / STEP_S), round(end_s / STEP_S)) * STEP_S
    return np.array([tracker.step(now, STEP_S).copy() for now in times])


@pytest.fixture
def tracker():
    return Tracker(np.array([3.5, 3.5]), timeout_s=0.2)


def test_without_a_command_the_reference_stays(tracker):
    tracker.reset(np.array([0.3, -0.2]))
    np.testing.assert_array_equal(track(tracker, 0, 1)[-1], [0.3, -0.2])


def test_the_reference_moves_at_the_commanded_cap_of_each_joint(tracker):
    tracker.command(np.array([1.0, -1.0]), np.array([0.5, 2.0]), 0.0)
    np.testing.assert_allclose(track(tracker, 0, 0.1)[-1], [0.05, -0.2])


def test_a_default_follows_a_cap_of_the_command_before(tracker):
    tracker.command(np.array([1.0, 1.0]), np.array([0.1, 0.1]), 0.0)
    tracker.command(np.array([1.0, 1.0]), None, 0.0)
    np.testing.assert_allclose(track(tracker, 0, 0.1)[-1], [0.35, 0.35])


def test_motion_stops_when_the_stream_stops(tracker):
    tracker.command(np.array([1.0, 1.0]), np.array([1.0, 1.0]), 0.0)
    moving, after = track(tracker, 0, 0.2), track(tracker, 0.2, 1)
    np.testing.assert_allclose(moving[-1], 0.2)
    np.testing.assert_allclose(after, 0.2)


def test_motion_goes_on_when_the_stream_does(tracker):
    for now in (0.0, 0.1, 0.2, 0.3):
        tracker.command(np.array([1.0, 1.0]), np.array([1.0, 1.0]), now)
        reference = track(tracker, now, now + 0.1)[-1]
    np.testing.assert_allclose(reference, 0.4)


def test_a_reset_forgets_the_command(tracker):
    tracker.command(np.array([1.0, 1.0]), None, 0.0)
    tracker.reset(np.zeros(2))
    np.testing.assert_array_equal(track(tracker, 0, 0.1)[-1], 0)


def test_the_caller_may_reuse_its_arrays(tracker):
    target = np.array([1.0, 1.0])
    tracker.command(target, None, 0.0)
    target[:] = -1.0
    assert track(tracker, 0, 0.1)[-1][0] > 0


@given(
    commands=st.lists(
        st.tuples(st.floats(-3, 3), st.floats(0, 10), st.floats(0, 0.5)),
        min_size=1,
        max_size=8,
    )
)
def test_no_stream_makes_the_reference_jump_or_overshoot(commands):
    tracker = Tracker(np.array([3.5]), timeout_s=0.2)
    now = 0.0
    for target, cap, pause in commands:
        tracker.command(np.array([target]), np.array([cap]), now)
        begin = tracker.reference.copy()
        path = np.concatenate([begin, track(tracker, now, now + pause).ravel()])
        assert np.all(np.abs(np.diff(path)) <= cap * STEP_S + 1e-12)
        assert np.all(path >= min(begin[0], target) - 1e-12)
        assert np.all(path <= max(begin[0], target) + 1e-12)
        now += pause
