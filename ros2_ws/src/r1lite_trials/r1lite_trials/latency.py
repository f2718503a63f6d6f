"""Times of the policy and the executor while all nodes of the simulated graph run: a part of `make bench`.

depthvla latency [--seconds 60] [--executor-rate-hz 100]. What every chunk and every control tick says of itself, read
from the topics.
"""

from __future__ import annotations

import datetime
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from depthvla_msgs.msg import ActionChunk, ExecutorStatus, PolicyStatus

from depthvla_control.ros import qos
from depthvla_control.ros.messages import nanoseconds
from depthvla_policy.bench.machine import describe_machine, git_revision
from r1lite_trials.simulated_graph import EXECUTOR, POLICY, SimulatedGraph
from r1lite_trials.stream import percentiles
from r1lite_trials.trial import begin, finish, markdown_table, trial

ROWS = {
    "network_ms": "network, while all nodes run",
    "preprocessing_ms": "waiting for decoded images, tokenising, normalising",
    "outside_network_ms": "policy node outside the network",
    "chunk_latency_ms": "age of a chunk's observation when the executor gets it",
    "chunk_age_ms": "age of the observation behind a command",
    "jitter_ms": "lateness of a control tick",
}


@dataclass(frozen=True)
class LatencyConfig:
    """How long, and how fast the executor ticks."""

    seconds: float = 60.0
    """after the arms began to move"""
    executor_rate_hz: float = 0.0
    """of the control loop; 0: the robot's, 15 Hz"""
    model: str = "r1lite-small"
    """checkpoint: a folder, or the name of one in models/"""
    out: Path = Path("out/bench-ros.json")
    """where the figures go; the nodes' output is in the folder of this name"""


@trial
def main(argv: Sequence[str] | None = None) -> int:
    config, about = begin("latency", LatencyConfig, argv, __doc__)
    result = {
        **about,
        "date": datetime.datetime.now().astimezone().isoformat(timespec="minutes"),
        "revision": git_revision(Path(__file__).parent),
        "machine": describe_machine(),
        "load_average": {"before": round(os.getloadavg()[0], 2)},
    }
    graph = SimulatedGraph(config.out.with_suffix(""), model=config.model, feedback=False)
    if config.executor_rate_hz:
        graph.set_parameters(EXECUTOR, command_rate_hz=config.executor_rate_hz)
    with graph:
        result |= watch(graph, config.seconds)
    result["load_average"]["after"] = round(os.getloadavg()[0], 2)
    return finish(config.out, result, text(result))


def watch(graph: SimulatedGraph, seconds: float) -> dict:
    """The figures of so long a time with the policy in command."""
    chunks = graph.probe.listen(ActionChunk, f"/{POLICY}/action_chunk", qos.chunks(0.0))
    graph.start_episode()
    begin_ns, begin_s = time.time_ns(), time.monotonic()
    time.sleep(seconds)
    statuses = [status for at, status in list(graph.listener.status) if at >= begin_ns]
    policy = [status for at, status in list(graph.listener.policy_status) if at >= begin_ns]
    return figures(chunks.since(begin_s), statuses, policy)


def figures(chunks: Sequence[ActionChunk], statuses: Sequence[ExecutorStatus], policy: Sequence[PolicyStatus]) -> dict:
    """What the messages of a period, each in their order, say. Times in milliseconds.

    Raises:
        ValueError: there are no chunks or less than two statuses of the executor.
    """
    if not chunks or len(statuses) < 2:
        raise ValueError(f"{len(chunks)} chunks and {len(statuses)} statuses of the executor came; allowed: 1 and 2")
    network = [_ms(chunk.inference_time) for chunk in chunks]
    total = [_ms(chunk.total_time) for chunk in chunks]
    # Every tick repeats the newest chunk's.
    arrivals = {status.chunks_accepted: _ms(status.latency) for status in statuses[1:]}
    arrivals.pop(statuses[0].chunks_accepted, None)
    times = {
        "network_ms": network,
        "preprocessing_ms": [_ms(chunk.preprocess_time) for chunk in chunks],
        "outside_network_ms": [whole - part for whole, part in zip(total, network, strict=True)],
        "chunk_latency_ms": list(arrivals.values()),
        "chunk_age_ms": [_ms(status.chunk_age) for status in statuses if status.sequence],
        "jitter_ms": [_ms(status.jitter) for status in statuses],
    }
    first, last = statuses[0], statuses[-1]
    seconds = (nanoseconds(last.header.stamp) - nanoseconds(first.header.stamp)) * 1e-9
    return {
        "seconds": round(seconds, 2),
        "chunks": len(chunks),
        "chunks_refused": last.chunks_refused - first.chunks_refused,
        "observations_refused": policy[-1].observations_refused - policy[0].observations_refused if policy else 0,
        "tick_rate_hz": round((last.ticks - first.ticks) / seconds, 3),
        "ticks": last.ticks - first.ticks,
        "missed_ticks": last.missed_ticks - first.missed_ticks,
        **{name: percentiles(values, 50, 95, 99, digits=3) for name, values in times.items()},
    }


def text(result: dict) -> str:
    machine, load = result["machine"], result["load_average"]
    lines = [
        f"{machine['processor']}, {machine['cores']} cores, load average {load['before']:.2f} before and"
        f" {load['after']:.2f} after; {result['date']}, {result['revision']}",
        f"{result['seconds']:.0f} s: {result['chunks']} chunks ({result['chunks_refused']} refused), ticks at"
        f" {result['tick_rate_hz']:.2f} Hz, {result['missed_ticks']} of {result['ticks']} missed",
        "",
    ]
    columns = ("p50", "p95", "p99", "max")
    rows = [
        (title, *(f"{result[name][column]:.2f}" if result[name] else "" for column in columns))
        for name, title in ROWS.items()
    ]
    return "\n".join([*lines, markdown_table(("[ms]", *columns), rows)])


def _ms(duration) -> float:
    return nanoseconds(duration) * 1e-6


if __name__ == "__main__":
    sys.exit(main())
