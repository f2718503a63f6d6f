from __future__ import annotations

import numpy as np
import pytest

from depthvla_control.chunk import Chunk
from depthvla_control.refusal import Reason
from depthvla_control.timeline import STRATEGIES, Timeline

PERIOD = 66_666_667
T0 = 1_700_000_000_000_000_000
JOINED = [strategy for strategy in STRATEGIES if strategy != "replace"]


def make(home, *, stamp=T0, sequence=1, steps=16, slope=0.01):
    return Chunk(stamp, sequence, PERIOD, home + slope * np.arange(steps)[:, None], "m")


def test_steps_are_due_by_their_stamp_and_the_past_is_dropped(home):
    timeline, chunk, late = Timeline(), make(home), T0 + 5 * PERIOD
    assert timeline.offer(chunk, late) is None
    due = timeline.due(late)
    assert (due.step, due.steps_left, due.sequence, due.age_ns) == (5, 10, 1, 5 * PERIOD)
    np.testing.assert_allclose(due.motion[0], chunk.positions[5])


@pytest.mark.parametrize("share", [0.0, 0.25, 0.5, 0.9])
def test_between_the_steps_of_a_straight_way_the_target_lies_on_the_line(home, share):
    timeline, chunk = Timeline(), make(home)
    timeline.offer(chunk, T0)
    due = timeline.due(T0 + round((3 + share) * PERIOD))
    assert due.step == 3
    np.testing.assert_allclose(due.motion[0], home + 0.01 * (3 + share), atol=1e-8)
    np.testing.assert_allclose(due.motion[1], 0.15, rtol=1e-6)


def test_the_last_step_is_in_force_for_one_period_and_then_nothing_is(home):
    timeline, chunk = Timeline(), make(home)
    timeline.offer(chunk, T0)
    due = timeline.due(T0 + 16 * PERIOD - 1)
    assert (due.step, due.steps_left) == (15, 0)
    np.testing.assert_allclose(due.motion[0], chunk.positions[15])
    np.testing.assert_array_equal(due.motion[1:], 0.0)
    assert timeline.due(T0 + 16 * PERIOD) is None


def test_replacing_takes_the_newest_at_once(home):
    timeline = Timeline("replace")
    timeline.offer(make(home), T0)
    newer = make(home + 0.05, stamp=T0 + 2 * PERIOD, sequence=2)
    assert timeline.offer(newer, T0 + 3 * PERIOD) is None
    due = timeline.due(T0 + 3 * PERIOD)
    assert (due.sequence, due.step) == (2, 1)
    np.testing.assert_allclose(due.motion[0], newer.positions[1])


def seams(timeline, home, rng):
    """Largest steps in position and velocity at the arrivals of twelve chunks that disagree."""
    position = velocity = 0.0
    for n in range(12):
        stamp = T0 + n * 3 * PERIOD
        arrival = stamp + rng.integers(1, 3 * PERIOD)
        chunk = make(home + rng.normal(0.0, 0.05, 14), stamp=stamp, sequence=n + 1, slope=rng.normal(0.0, 0.02))
        before = timeline.due(arrival)
        assert timeline.offer(chunk, arrival) is None
        after = timeline.due(arrival)
        if before is not None:
            position = max(position, np.abs(after.motion[0] - before.motion[0]).max())
            velocity = max(velocity, np.abs(after.motion[1] - before.motion[1]).max())
    return position, velocity


@pytest.mark.parametrize("strategy", JOINED)
def test_joined_chunks_have_no_step_in_position_or_velocity(home, strategy):
    position, velocity = seams(Timeline(strategy), home, np.random.default_rng(0))
    assert position < 1e-9 and velocity < 1e-6
    replaced = seams(Timeline("replace"), home, np.random.default_rng(0))
    assert replaced[0] > 0.05


@pytest.mark.parametrize("strategy", JOINED)
def test_a_motion_is_smooth_between_arrivals_too(home, strategy):
    """C1 over a whole history: the velocity is the derivative of the position everywhere."""
    timeline, rng = Timeline(strategy), np.random.default_rng(1)
    last, step = None, 1_000_000
    for tick in range(1500):
        now = T0 + tick * step
        if tick % 180 == 40:
            chunk = make(home + rng.normal(0.0, 0.05, 14), stamp=now - 30_000_000, sequence=tick)
            assert timeline.offer(chunk, now) is None
        due = timeline.due(now)
        if last is not None:
            mean = (due.motion[1] + last.motion[1]) / 2
            np.testing.assert_allclose((due.motion[0] - last.motion[0]) / (step * 1e-9), mean, atol=0.05)
        last = due


def test_blending_is_over_after_its_time(home):
    timeline = Timeline("blend", blend_s=0.2)
    timeline.offer(make(home), T0)
    newer = make(home + 0.3, stamp=T0 + 2 * PERIOD, sequence=2, slope=0.0)
    timeline.offer(newer, T0 + 3 * PERIOD)
    halfway, after = (timeline.due(T0 + 3 * PERIOD + ns).motion[0] for ns in (100_000_000, 200_000_000))
    assert np.all((halfway > home + 0.02) & (halfway < home + 0.28))
    np.testing.assert_allclose(after, newer.positions[0])


def test_an_ensemble_gives_an_older_observation_less_weight(home):
    decay = 5.0
    timeline = Timeline("ensemble", blend_s=0.1, ensemble_decay_per_s=decay)
    timeline.offer(make(home, slope=0.0), T0)
    timeline.offer(make(home + 0.1, stamp=T0 + 3 * PERIOD, sequence=2, slope=0.0), T0 + 3 * PERIOD)
    motion = timeline.due(T0 + 8 * PERIOD).motion
    old = np.exp(-decay * 3 * PERIOD * 1e-9)
    np.testing.assert_allclose(motion[0], home + 0.1 / (1 + old))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"stamp": T0 + 2 * PERIOD, "sequence": 5}, Reason.OLD),  # repeated
        ({"stamp": T0 + 3 * PERIOD, "sequence": 5}, Reason.OLD),  # newer observation, same sequence
        ({"stamp": T0 + 3 * PERIOD, "sequence": 4}, Reason.OLD),
        ({"stamp": T0 + 1 * PERIOD, "sequence": 6}, Reason.OLD),  # later sequence, older observation
        ({"stamp": T0 + 9 * PERIOD, "sequence": 6}, Reason.FUTURE),
        ({"stamp": T0 - 20 * PERIOD, "sequence": 6}, Reason.EXPIRED),
    ],
)
def test_what_does_not_follow_is_refused_and_the_present_chunk_stays(home, change, reason):
    timeline, now = Timeline(), T0 + 4 * PERIOD
    present = make(home, stamp=T0 + 2 * PERIOD, sequence=5)
    assert timeline.offer(present, now) is None
    before = timeline.due(now).motion
    assert timeline.offer(make(home + 0.2, **change), now).reason is reason
    assert timeline.chunk is present
    np.testing.assert_array_equal(timeline.due(now).motion, before)


def test_a_restarted_policy_begins_anew_when_the_old_chunk_has_run_out(home):
    timeline = Timeline()
    timeline.offer(make(home + 0.5, sequence=40), T0)
    restarted = make(home, stamp=T0 + 17 * PERIOD, sequence=1)
    assert timeline.offer(restarted, T0 + 18 * PERIOD) is None
    due = timeline.due(T0 + 18 * PERIOD)
    assert due.sequence == 1
    np.testing.assert_allclose(due.motion[0], restarted.positions[1])  # nothing of the motion that ended


def test_a_stamp_a_little_ahead_starts_with_the_first_step(home):
    timeline, chunk = Timeline(), make(home, stamp=T0 + 20_000_000)
    assert timeline.offer(chunk, T0) is None
    due = timeline.due(T0)
    assert due.step == 0
    np.testing.assert_allclose(due.motion[0], chunk.positions[0])


def test_the_plan_is_what_will_be_due(home):
    timeline = Timeline("blend", blend_s=0.1)
    timeline.offer(make(home, slope=0.0), T0)
    newer = make(home + 0.1, stamp=T0 + 2 * PERIOD, sequence=2)
    arrival = T0 + 4 * PERIOD
    timeline.offer(newer, arrival)
    plan = timeline.plan()
    np.testing.assert_allclose(plan[:3], np.tile(home, (3, 1)))  # as executed until the chunk arrived
    for step in range(3, 16):
        np.testing.assert_allclose(plan[step], timeline.due(newer.due_ns(step)).motion[0])
    np.testing.assert_allclose(plan[6:], newer.positions[6:])


def test_an_unknown_strategy_is_named():
    with pytest.raises(ValueError, match="strategy is 'average'; allowed: replace, blend, ensemble, rtc"):
        Timeline("average")


@pytest.mark.parametrize("strategy", JOINED)
def test_a_newcomer_just_before_the_end_of_the_last_chunk_is_gone_over_to_in_its_own_time(home, strategy):
    timeline = Timeline(strategy, blend_s=0.1)
    timeline.offer(make(home, slope=0.0), T0)
    arrival = T0 + 16 * PERIOD - 2_000_000
    timeline.due(arrival)
    timeline.offer(make(home + 0.1, stamp=T0 + 2 * PERIOD, sequence=2, slope=0.0), arrival)
    way = np.array([timeline.due(arrival + ms * 1_000_000).motion[0, 0] for ms in range(120)])
    assert np.abs(np.diff(way)).max() < 0.002  # 0.1 rad in 0.1 s, at most twice as fast as the mean
    assert way[-1] == pytest.approx(home[0] + 0.1)


@pytest.mark.parametrize("strategy", JOINED)
def test_a_newcomer_between_the_end_of_the_last_chunk_and_the_next_tick_is_blended_too(home, strategy):
    timeline = Timeline(strategy, blend_s=0.1)
    timeline.offer(make(home, slope=0.0), T0)
    seen = T0 + 16 * PERIOD - 1_000_000
    timeline.due(seen)
    timeline.offer(make(home + 0.1, stamp=T0 + 3 * PERIOD, sequence=2, slope=0.0), T0 + 16 * PERIOD + 1_000_000)
    assert np.abs(timeline.due(seen + 5_000_000).motion[0, 0] - home[0]) < 0.005
