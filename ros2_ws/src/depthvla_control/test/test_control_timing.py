from __future__ import annotations

import pytest

from depthvla_control.tick_timing import TickMonitor

PERIOD = 1000


@pytest.mark.parametrize(
    ("lateness", "missed"), [([0, 0, 0], 0), ([100, 499, 0], 0), ([0, 501, 0], 1), ([0, 1200, 200], 1), ([0, 1700], 2)]
)
def test_missed_ticks_are_points_of_the_grid_without_a_tick(lateness, missed):
    monitor = TickMonitor(PERIOD)
    monitor.start(0)
    due = PERIOD
    for late in lateness:
        assert monitor.tick(due + late) == late
        due += (late // PERIOD + 1) * PERIOD
    assert (monitor.ticks, monitor.missed) == (len(lateness), missed)


def test_an_early_tick_is_not_late():
    monitor = TickMonitor(PERIOD)
    monitor.start(0)
    assert monitor.tick(PERIOD - 3) == 0


def test_percentiles_are_of_the_recent_lateness():
    monitor = TickMonitor(1_000_000)
    monitor.start(0)
    assert monitor.percentiles_ms() == {}
    for k in range(1, 101):
        monitor.tick(k * 1_000_000 + (k == 50) * 400_000)
    assert monitor.percentiles_ms()["p50"] == 0.0
    assert monitor.percentiles_ms()["max"] == pytest.approx(0.4)
