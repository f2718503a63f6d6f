"""What the trials measure, on streams made by hand."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="rclpy is not installed")
pytest.importorskip("depthvla_msgs", reason="depthvla_msgs is not built or not sourced")

from r1lite_description import robot as robot_description  # noqa: E402
from r1lite_trials import faults, soak  # noqa: E402
from r1lite_trials.fault_table import FAULTS  # noqa: E402
from r1lite_trials.stream import Stream, largest, percentiles, speed, steps, still_since  # noqa: E402

ROBOT = robot_description.load()
HOME = (ROBOT.position_min + ROBOT.position_max) / 2
PERIOD_NS = round(ROBOT.period_s * 1e9)
ARMS = ~ROBOT.gripper_mask


def stream(*offsets_rad):
    """All arm joints at these offsets from home, one tick after the other, beginning at 1 s."""
    times_ns = 10**9 + PERIOD_NS * np.arange(len(offsets_rad))
    return Stream(times_ns, HOME + np.array(offsets_rad)[:, None] * ARMS)


def test_a_stand_begins_with_the_first_of_the_equal_commands_at_the_end():
    heard = stream(0.0, 0.01, 0.02, 0.03, 0.03, 0.03)
    assert still_since(heard) == heard.times_ns[3]
    assert still_since(heard.between(0, heard.times_ns[4])) is None
    assert still_since(stream(0.0, 0.01, 0.0, 0.0)) == heard.times_ns[2], "a pose that was passed through before"
    assert still_since(stream(0.0, 0.0)) == heard.times_ns[0]
    assert still_since(stream(0.0)) is None and still_since(stream()) is None


def test_measured_arms_stand_within_a_tolerance():
    heard = stream(0.0, 0.05, 0.061, 0.0605, 0.0601, 0.06)
    assert still_since(heard) is None
    assert still_since(heard, 0.002) == heard.times_ns[2]


def test_steps_are_shares_of_the_limits():
    velocity = ROBOT.command_velocity[ARMS].min()
    offset = 0.5 * velocity * ROBOT.period_s
    found = steps(stream(0.0, offset, 2 * offset).positions, ROBOT)
    assert found.position_rad == pytest.approx(offset)
    assert found.velocity == pytest.approx(0.5)
    assert found.acceleration == pytest.approx(0.0, abs=1e-9)
    assert found.outside == 0.0 and not found.excess
    started = steps(stream(0.0, 0.0, offset).positions, ROBOT)
    expected = 0.5 * velocity / ROBOT.period_s / ROBOT.command_acceleration[ARMS].min()
    assert started.acceleration == pytest.approx(expected)


def test_a_jump_over_a_gap_is_a_jump():
    heard = stream(0.0, 0.0, 0.2)
    later = dataclasses.replace(heard, times_ns=heard.times_ns + np.array([0, 0, 10**9]))
    assert "velocity at 273% of its limit" in steps(later.positions, ROBOT).excess


def test_a_command_outside_the_position_limits_is_told_unless_it_began_there():
    out = HOME.copy()
    out[0] = ROBOT.position_max[0] + 0.1
    assert steps(np.stack([out, out]), ROBOT).outside == 0.0
    assert steps(np.stack([HOME, out]), ROBOT).outside == pytest.approx(0.1)


def test_a_command_that_is_not_finite_is_an_error():
    with pytest.raises(ValueError, match="not finite"):
        steps(np.stack([HOME, HOME * np.nan]), ROBOT)


def test_a_stream_that_begins_anew_elsewhere_is_no_jump():
    heard = stream(0.0, 0.01, 0.5, 0.52)
    before, after = heard.split([int(heard.times_ns[2]) - 1])
    found = largest([steps(before.positions, ROBOT), steps(after.positions, ROBOT)])
    assert found.position_rad == pytest.approx(0.02)
    assert [len(part.times_ns) for part in heard.split([])] == [4]
    assert [len(part.times_ns) for part in heard.split([0])] == [0, 4]


def test_speed_is_that_of_the_fastest_joint():
    assert speed(stream(0.0, 0.01, 0.03), ROBOT) == pytest.approx(0.03 / (2 * ROBOT.period_s))
    assert speed(stream(0.0), ROBOT) == 0.0


def test_percentiles():
    assert percentiles([1.0, 2.0, 9.0], 50) == {"p50": 2.0, "max": 9.0}
    assert percentiles([], 50) == {}


def test_missed_ticks_a_wrong_rate_and_growing_memory_are_problems():
    result = {"missed_ticks": 0, "command_rate_hz": 15.0, "memory_mb": {"policy_node": {"mb_per_min": 0.4}}}
    assert soak.problems(result, 15.0) == []
    grown = {**result, "memory_mb": {"policy_node": {"mb_per_min": 1.0}}}
    assert soak.problems(grown, 15.0) == ["memory of policy_node grows by 1.00 MB/min (limit 0.5 MB/min)"]
    assert len(soak.problems({**result, "missed_ticks": 1, "command_rate_hz": 14.0}, 15.0)) == 2


def test_growth_is_that_after_the_warm_up():
    times_s = np.arange(0.0, 3600.0, 10.0)
    noise = np.random.default_rng(0).normal(0.0, 0.1, times_s.size)
    memory = np.where(times_s < 600.0, 50.0 + times_s, 700.0 + times_s / 1800.0) + noise  # 2 MB an hour once warm
    row = soak._growth(np.column_stack([times_s, memory]))
    assert row["begin_min"] == 12.0 and row["mb_per_min"] == pytest.approx(2.0 / 60.0, abs=2e-3)


def test_the_table_goes_between_its_markers(tmp_path):
    document = tmp_path / "faults.md"
    document.write_text(f"before\n{faults.BEGIN}\nold\n{faults.END}\nafter\n")
    faults.replace(document, "| new |")
    assert document.read_text() == f"before\n{faults.BEGIN}\n| new |\n{faults.END}\nafter\n"
    document.write_text("nothing")
    with pytest.raises(ValueError, match="faults: begin"):
        faults.replace(document, "| new |")


def test_every_fault_has_a_name_of_its_own_and_a_row_for_the_reader():
    assert len({fault.name for fault in FAULTS}) == len(FAULTS)
    for fault in FAULTS:
        assert all("|" not in text for text in (fault.name, fault.detection, fault.happens, fault.how_to_leave))
