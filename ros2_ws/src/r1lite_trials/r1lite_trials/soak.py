"""Lets the simulated graph run and watches rate, punctuality and memory: `make soak`.

depthvla soak [--minutes 10]. Exit code 1 when a control tick was missed, the command rate is off, or the memory of a
node grows.
"""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from depthvla_control.ros.messages import nanoseconds
from r1lite_trials.simulated_graph import SimulatedGraph
from r1lite_trials.stream import percentiles
from r1lite_trials.trial import begin, finish, trial

RATE_TOLERANCE = 0.01
SAMPLE_S = 1.0  # between two looks at the memory
WARM_UP_SHARE = 0.2  # of the time, whose memory does not count
GROWTH_LIMIT_MB_PER_MIN = 0.5  # of the resident memory of a node after the warm-up


@dataclass(frozen=True)
class SoakConfig:
    """How long."""

    minutes: float = 10.0
    """after the arms began to move"""
    model: str = "r1lite-small"
    """checkpoint: a folder, or the name of one in models/"""
    out: Path = Path("out/soak.json")
    """where the figures go; the nodes' output is beside it"""


@trial
def main(argv: Sequence[str] | None = None) -> int:
    config, about = begin("soak", SoakConfig, argv, __doc__)
    with SimulatedGraph(config.out.parent / "soak", model=config.model, feedback=False) as graph:
        graph.start_episode()
        result = about | soak(graph, config.minutes)
    return finish(config.out, result, text(result), result["problems"])


def soak(graph: SimulatedGraph, duration_min: float) -> dict:
    """What is written as JSON."""
    begin, begin_ns = graph.status, time.time_ns()
    graph.listener.forget(begin_ns)
    begin_s = time.monotonic()
    samples: dict[str, list[tuple[float, float]]] = {name: [] for name in graph.nodes}
    for _ in tqdm(range(round(duration_min * 60.0 / SAMPLE_S)), unit="sample", mininterval=5.0):
        time.sleep(SAMPLE_S)
        for name in graph.nodes:
            samples[name].append((time.monotonic() - begin_s, resident_mb(graph.pid(name))))
    end = graph.status
    statuses = [status for at, status in list(graph.listener.status) if at >= begin_ns]
    commands = graph.listener.commands().since(begin_ns)
    gaps_ms = np.diff(commands.times_ns) * 1e-6
    minutes = (time.monotonic() - begin_s) / 60.0
    memory = {name: _growth(np.array(rows)) for name, rows in samples.items()}
    result = {
        "minutes": round(minutes, 2),
        "command_rate_hz": round(1e3 / float(gaps_ms.mean()), 4),
        "commands": len(commands.times_ns),
        "ticks": end.ticks - begin.ticks,
        "missed_ticks": end.missed_ticks - begin.missed_ticks,
        "lateness_ms": percentiles([nanoseconds(s.jitter) * 1e-6 for s in statuses], 50, 99, digits=3),
        "command_interval_ms": {"min": round(float(gaps_ms.min()), 3), **percentiles(gaps_ms, 50, 99, digits=3)},
        "chunks_accepted": end.chunks_accepted - begin.chunks_accepted,
        "chunks_refused": end.chunks_refused - begin.chunks_refused,
        "chunk_latency_ms": percentiles([nanoseconds(s.latency) * 1e-6 for s in statuses], 50, 99, digits=3),
        "modes": sorted({int(status.mode) for status in statuses}),
        "memory_mb": memory,
    }
    result["problems"] = problems(result, graph.robot.control_rate_hz)
    return result


def problems(result: dict, rate_hz: float) -> list[str]:
    problems = []
    if result["missed_ticks"]:
        problems.append(f"{result['missed_ticks']} control ticks were missed")
    if abs(result["command_rate_hz"] / rate_hz - 1.0) > RATE_TOLERANCE:
        problems.append(f"commands came at {result['command_rate_hz']:.2f} Hz instead of {rate_hz:g} Hz")
    for name, row in result["memory_mb"].items():
        if row["mb_per_min"] > GROWTH_LIMIT_MB_PER_MIN:
            limit = f"(limit {GROWTH_LIMIT_MB_PER_MIN:g} MB/min)"
            problems.append(f"memory of {name} grows by {row['mb_per_min']:.2f} MB/min {limit}")
    return problems


def resident_mb(pid: int) -> float:
    """Resident memory of a process, 10^6 bytes (VmRSS of proc(5))."""
    kib = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text()).group(1)
    return int(kib) * 1024 / 1e6


def text(result: dict) -> str:
    late, interval, latency = result["lateness_ms"], result["command_interval_ms"], result["chunk_latency_ms"]
    lines = [
        f"{result['minutes']:g} min on {result['machine']}",
        f"commands     {result['commands']} at {result['command_rate_hz']:.3f} Hz; ticks missed:"
        f" {result['missed_ticks']} of {result['ticks']}",
        f"lateness     p50 {late['p50']:.2f}, p99 {late['p99']:.2f}, max {late['max']:.2f} ms",
        f"interval     min {interval['min']:.1f}, p50 {interval['p50']:.1f}, p99 {interval['p99']:.1f},"
        f" max {interval['max']:.1f} ms",
        f"chunks       {result['chunks_accepted']} taken, {result['chunks_refused']} refused; latency p50"
        f" {latency['p50']:.0f}, p99 {latency['p99']:.0f}, max {latency['max']:.0f} ms",
    ]
    for name, row in result["memory_mb"].items():
        lines.append(
            f"{name:22} {row['begin']:.1f} to {row['end']:.1f} MB from minute {row['begin_min']:.1f} on, at most"
            f" {row['max']:.1f}; {row['mb_per_min']:+.3f} MB/min ({row['mb_per_min'] * 60.0:+.1f} MB/h)"
        )
    return "\n".join(lines)


def _growth(rows: np.ndarray) -> dict:
    """`begin`, `end` and slope are of the time after the warm-up, which ends at `begin_min`. `samples`: [s, MB]."""
    kept = rows[int(len(rows) * WARM_UP_SHARE) :]
    slope = np.polyfit(kept[:, 0] / 60.0, kept[:, 1], 1)[0] if len(kept) > 1 else 0.0
    return {
        "begin_min": round(kept[0, 0] / 60.0, 2),
        "begin": round(kept[0, 1], 2),
        "end": round(kept[-1, 1], 2),
        "max": round(rows[:, 1].max(), 2),
        "mb_per_min": round(float(slope), 4),
        "samples": np.round(rows, 2).tolist(),
    }


if __name__ == "__main__":
    sys.exit(main())
