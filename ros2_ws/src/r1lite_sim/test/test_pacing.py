from __future__ import annotations

import pytest

from r1lite_sim.pacing import Every, Pacer

MS = 1_000_000


def test_slices_come_on_a_grid_however_late_the_last_one_was():
    pacer = Pacer(5 * MS, 100 * MS)
    pacer.start(1000 * MS)
    assert pacer.wait_ns(1000 * MS) == 5 * MS
    pacer.advance(1007 * MS)
    assert pacer.wait_ns(1007 * MS) == 3 * MS


def test_a_short_stall_is_made_up_for():
    pacer = Pacer(5 * MS, 100 * MS)
    pacer.start(0)
    slices = 0
    now = 52 * MS
    while pacer.wait_ns(now) == 0:
        pacer.advance(now)
        slices += 1
    assert slices == 10
    assert pacer.given_up_ns == 0


def test_a_long_stall_is_given_up():
    pacer = Pacer(5 * MS, 100 * MS)
    pacer.start(0)
    pacer.advance(1000 * MS)
    assert pacer.given_up_ns == 990 * MS
    pacer.advance(1000 * MS)
    assert pacer.wait_ns(1000 * MS) == 5 * MS


@pytest.mark.parametrize("slowdown", [1, 2])
def test_the_real_time_factor_is_simulated_over_real_time(slowdown):
    pacer = Pacer(5 * MS, 1 * MS)
    pacer.start(0)
    assert pacer.real_time_factor() == 1.0
    for index in range(1, 2001):
        pacer.advance(index * 5 * MS * slowdown)
    assert pacer.real_time_factor() == pytest.approx(1 / slowdown, rel=0.01)


def test_the_real_time_factor_forgets_what_is_long_past():
    pacer = Pacer(5 * MS, 1 * MS)
    pacer.start(0)
    now = 0
    for duration in [20 * MS] * 500 + [5 * MS] * 1000:
        now += duration
        pacer.advance(now)
    assert pacer.real_time_factor() == pytest.approx(1, rel=0.01)


def test_a_rate_that_the_slices_do_not_divide_is_kept_on_average():
    every = Every(15.0)
    assert sum(every.due(index * 5 * MS) for index in range(2000)) == 150


def test_a_stall_does_not_make_a_rate_catch_up():
    every = Every(100.0)
    assert every.due(0)
    assert every.due(95 * MS)
    assert not every.due(99 * MS)
    assert every.due(100 * MS)
