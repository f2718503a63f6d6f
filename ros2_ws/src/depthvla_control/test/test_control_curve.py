from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from depthvla_control.trajectory import Curve, average, cross_fade, ease, standing

PERIOD_S = 1.0 / 15.0
H = 1e-5


def numeric(function, time_s):
    """First and second derivative of the position of a motion, by differences."""
    before, here, after = (function(time_s + offset)[0] for offset in (-H, 0.0, H))
    return (after - before) / (2 * H), (after - 2 * here + before) / H**2


points = st.lists(st.lists(st.floats(-2.0, 2.0), min_size=2, max_size=2), min_size=1, max_size=8).map(np.array)


@given(points=points)
def test_a_curve_goes_through_its_points_and_stays_between_neighbours(points):
    curve = Curve(points, PERIOD_S)
    for k, point in enumerate(points):
        np.testing.assert_allclose(curve.at(k * PERIOD_S)[0], point, atol=1e-9)
    for k in range(len(points) - 1):
        low, high = np.minimum(*points[k : k + 2]), np.maximum(*points[k : k + 2])
        for share in (0.1, 0.3, 0.5, 0.9):
            position = curve.at((k + share) * PERIOD_S)[0]
            assert np.all((position >= low - 1e-9) & (position <= high + 1e-9))


@given(points=points)
def test_a_curve_has_no_step_in_position_or_velocity_and_ends_at_rest(points):
    curve = Curve(points, PERIOD_S)
    for k in range(1, len(points)):
        before, after = curve.at(k * PERIOD_S - 1e-9), curve.at(k * PERIOD_S + 1e-9)
        np.testing.assert_allclose(before[:2], after[:2], atol=1e-4)
    np.testing.assert_allclose(curve.at(len(points) * PERIOD_S), standing(points[-1]), atol=1e-9)


def test_straight_points_are_a_straight_line():
    curve = Curve(np.outer(np.arange(6), [0.1, -0.2]), PERIOD_S)
    for x in (0.5, 1.25, 3.9):
        np.testing.assert_allclose(curve.at(x * PERIOD_S)[0], [0.1 * x, -0.2 * x], atol=1e-12)
        np.testing.assert_allclose(curve.at(x * PERIOD_S)[1], [1.5, -3.0], atol=1e-9)


@pytest.mark.parametrize("x", [0.3, 2.7, 6.5])
def test_velocity_and_acceleration_are_the_derivatives_of_the_position(x):
    curve = Curve(np.random.default_rng(0).normal(size=(9, 3)), PERIOD_S)
    velocity, acceleration = numeric(curve.at, x * PERIOD_S)
    np.testing.assert_allclose(curve.at(x * PERIOD_S)[1], velocity, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(curve.at(x * PERIOD_S)[2], acceleration, rtol=1e-3, atol=0.05)


def motion(phase):
    return lambda t: np.array([[np.sin(3 * t + phase)], [3 * np.cos(3 * t + phase)], [-9 * np.sin(3 * t + phase)]])


def faded(t):
    return cross_fade(motion(0.0)(t), motion(1.0)(t), ease(t - 0.1, 0.3))


def averaged(t):
    weights = [ease(t + 0.2, 1.0), ease(t - 0.1, 0.3), np.array([0.4, 0.0, 0.0])]
    return average([motion(0.0)(t), motion(1.0)(t), motion(2.0)(t)], weights)


@pytest.mark.parametrize("joined", [faded, averaged])
@pytest.mark.parametrize("t", [0.05, 0.15, 0.25, 0.35, 0.5])
def test_joined_motions_keep_their_derivatives_right(joined, t):
    velocity, acceleration = numeric(joined, t)
    np.testing.assert_allclose(joined(t)[1], velocity, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(joined(t)[2], acceleration, rtol=1e-3, atol=1e-3)


def test_a_cross_fade_begins_with_the_old_motion_and_ends_with_the_new():
    np.testing.assert_allclose(faded(0.1), motion(0.0)(0.1))
    np.testing.assert_allclose(faded(0.4), motion(1.0)(0.4))


def test_a_fade_of_no_duration_is_a_step():
    assert ease(-1e-9, 0.0)[0] == 0.0 and ease(0.0, 0.0)[0] == 1.0
