from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from depthvla_control.execution_plan import Plan, check_plan
from depthvla_control.refusal import Reason

PERIOD = 66_666_667
HORIZON = 16
T0 = 1_700_000_000_000_000_000


def plan(steps=16, *, latency=0, period=PERIOD, slope=(1.0, -2.0)):
    return Plan(T0, 3, period, latency, np.arange(steps)[:, None] * np.array(slope))


def continuation(of, after_ns, *, period=PERIOD, horizon=HORIZON):
    return of.continuation(T0 + after_ns, period_ns=period, horizon=horizon)


def test_an_observation_on_a_step_gets_the_steps_from_there_on():
    of = plan(latency=200_000_000)
    result = continuation(of, 4 * PERIOD)
    np.testing.assert_array_equal(result.committed, of.positions[4:])
    assert result.delay == 4  # three that are due before the arrival, and the one approached then


def test_between_two_steps_the_target_lies_on_the_line():
    result = continuation(plan(), PERIOD // 4)
    assert len(result.committed) == 15  # the sixteenth would be behind the plan's end
    np.testing.assert_allclose(result.committed[:, 0], np.arange(15) + 0.25, atol=1e-6)


def test_a_chunk_of_another_period_gets_its_own_steps():
    result = continuation(plan(), 0, period=PERIOD // 2)
    np.testing.assert_allclose(result.committed[:, 0], 0.5 * np.arange(HORIZON), atol=1e-6)


@pytest.mark.parametrize("after_ns", [-1, -PERIOD, 15 * PERIOD + 1, 10**12])
def test_a_plan_that_does_not_reach_over_the_observation_gives_nothing(after_ns):
    assert continuation(plan(), after_ns) is None


@pytest.mark.parametrize("after_ns", [0, 1])
def test_a_plan_without_steps_gives_nothing(after_ns):
    assert continuation(plan(0), after_ns) is None


def test_the_last_step_alone_can_be_continued():
    result = continuation(plan(), 15 * PERIOD)
    np.testing.assert_array_equal(result.committed, [[15.0, -30.0]])


@pytest.mark.parametrize(
    ("latency", "delay"),
    [(0, 1), (1, 2), (PERIOD, 2), (PERIOD + 1, 3), (210_000_000, 5), (800_000_000, 12), (10**10, 12)],
)
def test_steps_due_before_the_arrival_and_the_next_are_frozen_as_far_as_the_plan_goes(latency, delay):
    assert continuation(plan(latency=latency), 4 * PERIOD).delay == delay


PLANS = st.builds(
    plan,
    st.integers(1, 40),
    latency=st.integers(0, 3_000_000_000),
    period=st.integers(5_000_000, 200_000_000),
    slope=st.tuples(st.floats(-3.0, 3.0), st.floats(-3.0, 3.0)),
)
PERIODS = st.integers(5_000_000, 200_000_000)


@given(PLANS, st.integers(0, 2_000_000_000), PERIODS, st.integers(1, 32))
def test_committed_steps_are_the_plan_at_their_own_times(of, after_ns, period, horizon):
    result = continuation(of, after_ns, period=period, horizon=horizon)
    end_ns = (len(of.positions) - 1) * of.period_ns
    if result is None:
        assert after_ns > end_ns
        return
    n = len(result.committed)
    times = after_ns + period * np.arange(n)
    assert 1 <= n <= horizon and times[-1] <= end_ns
    assert n == horizon or times[-1] + period > end_ns
    assert 1 <= result.delay <= n
    slope = of.positions[-1] / max(len(of.positions) - 1, 1)
    np.testing.assert_allclose(result.committed, (times / of.period_ns)[:, None] * slope, atol=1e-9)


@given(PLANS, st.integers(0, 1_000_000_000), st.integers(0, 3_000_000_000))
def test_the_latency_moves_no_step(of, after_ns, latency):
    other = Plan(of.stamp_ns, of.sequence, of.period_ns, latency, of.positions)
    one, two = continuation(of, after_ns), continuation(other, after_ns)
    assert (one is None) == (two is None)
    if one:
        np.testing.assert_array_equal(one.committed, two.committed)


@given(PLANS, st.integers(0, 1_000_000_000), st.integers(1, 15))
def test_a_later_observation_sees_the_same_motion(of, after_ns, steps):
    one, later = continuation(of, after_ns), continuation(of, after_ns + steps * PERIOD)
    if later:
        both = min(len(one.committed) - steps, len(later.committed))
        np.testing.assert_allclose(one.committed[steps : steps + both], later.committed[:both], atol=1e-9)


def test_a_good_plan_passes_with_and_without_steps():
    assert check_plan(plan()) is None and check_plan(plan(0)) is None


@pytest.mark.parametrize(
    ("bad", "reason", "text"),
    [
        (plan(period=0), Reason.WRONG_TIMING, "0 s; allowed: 0.005 to 1.0"),
        (plan(period=2_000_000_000), Reason.WRONG_TIMING, "2 s"),
        (plan(latency=-1_000_000), Reason.WRONG_TIMING, "-0.001 s; allowed: 0 or more"),
        (plan(slope=(1.0, np.nan)), Reason.NON_FINITE, "step 0, position 1"),
    ],
)
def test_a_plan_that_is_none_is_refused_with_what_is_wrong(bad, reason, text):
    refusal = check_plan(bad)
    assert refusal.reason is reason and text in refusal.message and "plan 3" in refusal.message
