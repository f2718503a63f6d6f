"""Loads the policy in a process of its own, and judges whether it runs here and makes chunks in time.

`python -m` of this module is that process; it says as JSON what loading took.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tyro

from depthvla_policy.policy.made_for import why_not_real
from r1lite_bringup.preflight.findings import Check, Finding
from r1lite_description import robot as robot_description

RUNS = 20
LIMIT_S = 900.0
IMAGE = (720, 1280, 3)  # of one eye or wrist of the R1 Lite
MADE_FOR = Check("policy: made for", "a checkpoint that is made for a real robot")
LOAD = Check("policy: load", "a checkpoint that fits robot, device and memory")
LATENCY = "policy: latency"


def made_for(model: str, simulated: bool) -> Finding:
    """model: a checkpoint's folder."""
    if simulated:
        return MADE_FOR.skip("a simulation takes any checkpoint")
    try:
        wrong = why_not_real(Path(model) / "config.json")
    except ValueError as error:
        wrong = str(error)
    if wrong:
        return MADE_FOR.fail(wrong, "train one on demonstrations of this robot")
    return MADE_FOR.passed("a real robot")


def nothing_asked() -> list[Finding]:
    return [MADE_FOR.skip("give --model"), LOAD.skip("give --model"), Check(LATENCY).skip("give --model and --latency")]


def check(result: Mapping, max_rate_hz: float) -> list[Finding]:
    """result: what `load` returned; max_rate_hz: chunks are made at most that often."""
    if "error" in result:
        todo = "see model:= and device:=; depthvla bench says more about a checkpoint"
        return [LOAD.fail(result["error"], todo), Check(LATENCY).skip("not loaded")]
    seen = (
        f"{result['model_id']} on {result['device']} in {result['load_s']:.1f} s,"
        f" {result['memory_gb']:.1f} of {result['total_gb']:.1f} GB"
    )
    return [LOAD.passed(seen), _latency(result, max_rate_hz)]


def load(words: Sequence[str]) -> dict:
    """What loading and timing took, in a process with these arguments; {"error": ...} where that failed."""
    try:
        done = subprocess.run([sys.executable, "-m", __name__, *words], capture_output=True, text=True, timeout=LIMIT_S)
    except subprocess.TimeoutExpired:
        return {"error": f"not loaded after {LIMIT_S:g} s"}
    try:
        return json.loads(done.stdout.splitlines()[-1])
    except (IndexError, json.JSONDecodeError):
        last = (done.stderr.strip().splitlines() or ["nothing was said"])[-1]
        return {"error": f"its process ended with {done.returncode}: {last}"}


def _latency(result: Mapping, max_rate_hz: float) -> Finding:
    chunk_s = result["chunk_s"]
    check = Check(LATENCY, f"well before a chunk of {chunk_s:.2f} s ends")
    if not result["latency_ms"]:
        return check.skip("give --latency")
    p50_s, p99_s = (result["latency_ms"][name] * 1e-3 for name in ("p50", "p99"))
    # The next chunk comes that long after the observation of the one in execution.
    needed_s = p99_s + max(p99_s, 1.0 / max_rate_hz)
    seen = (
        f"p50 {p50_s * 1e3:.0f} ms ({p50_s / result['period_s']:.1f} control periods), p99 {p99_s * 1e3:.0f} ms: the"
        f" next chunk after {needed_s:.2f} s"
    )
    if needed_s <= chunk_s / 2:
        return check.passed(seen)
    todo = "take a faster device (device:=cuda); end what else loads this one"
    return check.fail(seen, todo) if needed_s > chunk_s else check.warn(seen, todo)


@dataclass(frozen=True)
class LoadConfig:
    """A policy and where it runs."""

    model: str
    device: str = "cpu"
    runs: int = 0  # inferences to time; 0: load it only
    threads: int = 1
    robot_file: str = ""


def main(argv: Sequence[str] | None = None) -> int:
    config = tyro.cli(LoadConfig, args=argv)
    try:
        result = _load(config)
    except (FileNotFoundError, ValueError, RuntimeError) as error:  # torch raises the last, without memory for instance
        result = {"error": f"{type(error).__name__}: {error}".splitlines()[0]}
    print(json.dumps(result))
    return int("error" in result)


def _load(config: LoadConfig) -> dict:
    import torch

    from depthvla_policy.bench.machine import peak_memory_gb
    from depthvla_policy.bench.timing import percentiles
    from depthvla_policy.policy.observation import Observation
    from depthvla_policy.policy.policy import Policy

    torch.set_num_threads(config.threads)
    robot = robot_description.load(config.robot_file or None)
    begin = time.perf_counter()
    policy = Policy.load(config.model, config.device, robot)
    load_s, latency_ms = time.perf_counter() - begin, None
    if config.runs:
        policy.prepare()
        images = {camera: np.zeros(IMAGE, np.uint8) for camera in policy.cameras}
        observation = Observation(0, images, (robot.position_min + robot.position_max) / 2, "warm up")
        latency_ms = percentiles({"chunk": lambda: policy.infer(observation)}, config.runs, config.device)["chunk"]
    device, total_gb = config.device, os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    if device.startswith("cuda"):
        properties = torch.cuda.get_device_properties(device)
        device, total_gb = properties.name, properties.total_memory / 1e9
    return {
        "model_id": policy.model_id,
        "device": device,
        "total_gb": total_gb,
        "load_s": load_s,
        "memory_gb": peak_memory_gb(config.device),
        "chunk_s": policy.horizon * policy.period_s,
        "period_s": policy.period_s,
        "latency_ms": latency_ms,
    }


if __name__ == "__main__":
    sys.exit(main())
