"""What the latency trial makes of the messages that it heard."""

from __future__ import annotations

import pytest

pytest.importorskip("rclpy", reason="rclpy is not installed")
pytest.importorskip("depthvla_msgs", reason="depthvla_msgs is not built or not sourced")

from depthvla_msgs.msg import ActionChunk, ExecutorStatus, PolicyStatus  # noqa: E402

from depthvla_control.ros.messages import duration_message, time_message  # noqa: E402
from r1lite_trials import latency  # noqa: E402
from r1lite_trials.simulated_graph import EXECUTOR, POLICY, SimulatedGraph  # noqa: E402

MS = 10**6


def chunk(network_ms, total_ms):
    return ActionChunk(
        preprocess_time=duration_message(2 * MS),
        inference_time=duration_message(network_ms * MS),
        total_time=duration_message(total_ms * MS),
    )


def status(tick, *, accepted, latency_ms, jitter_ms=0, missed=0):
    message = ExecutorStatus(
        sequence=1,
        ticks=tick,
        missed_ticks=missed,
        chunks_accepted=accepted,
        latency=duration_message(latency_ms * MS),
        chunk_age=duration_message(100 * MS),
        jitter=duration_message(jitter_ms * MS),
    )
    message.header.stamp = time_message(10 * MS * tick)
    return message


def heard():
    statuses = [
        status(100, accepted=7, latency_ms=900),
        status(101, accepted=7, latency_ms=900),
        status(102, accepted=8, latency_ms=40, jitter_ms=3),
        status(103, accepted=8, latency_ms=40),
        status(104, accepted=9, latency_ms=60, missed=1),
    ]
    policy = [PolicyStatus(observations_refused=count) for count in (3, 5)]
    return latency.figures([chunk(20, 25), chunk(30, 45)], statuses, policy)


def test_what_is_not_network_is_the_rest_of_the_total():
    measured = heard()
    assert measured["network_ms"]["max"] == 30.0
    assert measured["outside_network_ms"]["p50"] == 10.0 and measured["outside_network_ms"]["max"] == 15.0
    assert measured["preprocessing_ms"]["p50"] == 2.0


def test_a_chunk_counts_once_and_not_when_it_came_before():
    measured = heard()
    assert measured["chunk_latency_ms"]["p50"] == 50.0 and measured["chunk_latency_ms"]["max"] == 60.0
    assert measured["chunk_age_ms"]["max"] == 100.0


def test_ticks_are_those_of_the_period():
    measured = heard()
    assert (measured["ticks"], measured["missed_ticks"], measured["tick_rate_hz"]) == (4, 1, 100.0)
    assert measured["jitter_ms"]["max"] == 3.0
    assert measured["observations_refused"] == 2


def test_a_period_without_chunks_is_an_error():
    with pytest.raises(ValueError, match="0 chunks and 2 statuses"):
        latency.figures([], [status(1, accepted=0, latency_ms=0), status(2, accepted=0, latency_ms=0)], [])


def test_the_table_has_a_row_for_every_figure():
    result = heard() | {
        "machine": {"processor": "a CPU", "cores": 2},
        "load_average": {"before": 0.5, "after": 1.5},
        "date": "2026-11-25",
        "revision": "abc",
    }
    table = latency.text(result)
    assert "load average 0.50 before and 1.50 after" in table and "1 of 4 missed" in table
    assert all(f"| {title} |" in table for title in latency.ROWS.values())


def test_parameters_are_set_of_that_node_alone(tmp_path):
    graph = SimulatedGraph(tmp_path)
    assert graph.nodes[EXECUTOR].parameters["command_rate_hz"] == graph.robot.control_rate_hz
    graph.set_parameters(EXECUTOR, command_rate_hz=100.0)
    assert graph.nodes[EXECUTOR].parameters["command_rate_hz"] == 100.0
    assert "command_rate_hz" not in graph.nodes[POLICY].parameters
