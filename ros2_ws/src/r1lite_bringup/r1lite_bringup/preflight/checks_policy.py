"""Loads the policy in a subprocess, and judges whether it runs here and makes chunks in time."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from depthvla_policy.policy.made_for import why_not_real
from r1lite_bringup.preflight.verdict import Finding, Verdict, skipped

RUNS = 20
LIMIT_S = 900.0
MADE_FOR, LOAD, LATENCY = "policy: made for", "policy: load", "policy: latency"


def try_out(words: Sequence[str]) -> dict:
    """What `try_policy` says with these arguments; {"error": ...} where it says nothing."""
    command = [sys.executable, "-m", "r1lite_bringup.preflight.try_policy", *words]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_S)
    except subprocess.TimeoutExpired:
        return {"error": f"not loaded after {LIMIT_S:g} s"}
    try:
        return json.loads(done.stdout.splitlines()[-1])
    except (IndexError, json.JSONDecodeError):
        last = (done.stderr.strip().splitlines() or ["nothing was said"])[-1]
        return {"error": f"its process ended with {done.returncode}: {last}"}


def made_for(model: str, simulated: bool) -> Finding:
    """model: a checkpoint's folder."""
    if simulated:
        return skipped(MADE_FOR, "a simulation takes any checkpoint")
    expected = "a checkpoint that is made for a real robot"
    try:
        wrong = why_not_real(Path(model) / "config.json")
    except ValueError as error:
        wrong = str(error)
    if not wrong:
        return Finding(MADE_FOR, Verdict.PASS, "a real robot", expected)
    return Finding(MADE_FOR, Verdict.FAIL, wrong, expected, "train one on demonstrations of this robot")


def check(result: Mapping, max_rate_hz: float) -> list[Finding]:
    """max_rate_hz: chunks are made at most that often."""
    expected = "a checkpoint that fits robot, device and memory"
    if "error" in result:
        todo = "see model:= and device:=; python -m depthvla_policy.bench says more about a checkpoint"
        return [Finding(LOAD, Verdict.FAIL, result["error"], expected, todo), skipped(LATENCY, "not loaded")]
    seen = (
        f"{result['model_id']} on {result['device']} in {result['load_s']:.1f} s,"
        f" {result['memory_gb']:.1f} of {result['total_gb']:.1f} GB"
    )
    return [Finding(LOAD, Verdict.PASS, seen, expected), _latency(result, max_rate_hz)]


def nothing_asked() -> list[Finding]:
    return [skipped(name, "give --model") for name in (MADE_FOR, LOAD)] + [
        skipped(LATENCY, "give --model and --latency")
    ]


def _latency(result: Mapping, max_rate_hz: float) -> Finding:
    if not result["latency_ms"]:
        return skipped(LATENCY, "give --latency")
    p50_s, p99_s = (result["latency_ms"][name] * 1e-3 for name in ("p50", "p99"))
    # The next chunk comes that long after the observation of the one in execution.
    needed_s, chunk_s = p99_s + max(p99_s, 1.0 / max_rate_hz), result["chunk_s"]
    seen = (
        f"p50 {p50_s * 1e3:.0f} ms ({p50_s / result['period_s']:.1f} control periods), p99 {p99_s * 1e3:.0f} ms: the"
        f" next chunk after {needed_s:.2f} s"
    )
    expected = f"well before a chunk of {chunk_s:.2f} s ends"
    if needed_s <= chunk_s / 2:
        return Finding(LATENCY, Verdict.PASS, seen, expected)
    todo = "take a faster device (device:=cuda); end what else loads this one"
    return Finding(LATENCY, Verdict.FAIL if needed_s > chunk_s else Verdict.WARN, seen, expected, todo)
