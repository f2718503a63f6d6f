"""Latency of a policy on this machine, stage by stage: `python -m depthvla_policy.bench`. Writes `out/bench.json`."""

from __future__ import annotations

import json
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import tyro

from depthvla_policy import robot as robot_description
from depthvla_policy.policy.observation import Observation
from depthvla_policy.policy.policy import Policy


@dataclass(frozen=True)
class BenchConfig:
    """What to time."""

    policy: Path = Path("models/r1lite-small")
    """checkpoint folder"""
    device: str = "cpu"
    """cpu or cuda"""
    runs: int = 100
    """timed runs of each stage"""
    threads: int = 1
    """of torch on a CPU"""
    image_width: int = 320
    """of the camera images [px]"""
    image_height: int = 180
    """of the camera images [px]"""
    out: Path = Path("out/bench.json")
    """where the figures go"""


def bench(config: BenchConfig) -> dict:
    """Time every stage and return {"machine": ..., "stages_ms": {stage: {"p50": ..., "p99": ...}}}."""
    torch.set_num_threads(config.threads)
    robot = robot_description.load()
    policy = Policy.load(config.policy, config.device, robot)
    rng = np.random.default_rng(0)
    shape = (config.image_height, config.image_width, 3)
    observation = Observation(
        stamp_ns=0,
        images={name: rng.integers(0, 255, shape, dtype=np.uint8) for name in policy.cameras},
        state=(robot.position_min + robot.position_max) / 2,
        instruction="lift the red block with the right arm",
    )
    inputs, c = policy.inputs(observation), policy.config.model
    actions = torch.randn(1, c.horizon, c.action_dim, device=inputs.images.device)
    tau = torch.zeros(1, device=inputs.images.device)
    with torch.no_grad():
        prefix = policy.model.prefix(inputs)
        stages = {
            "resize, tokenise, normalise": lambda: policy.inputs(observation),
            "prefixes and state": lambda: policy.model.prefix(inputs),
            "prefixes and state, with depth": lambda: policy.model.prefix(inputs, depth=True),
            "one integration step": lambda: policy.model.velocity(prefix, actions, tau),
            "chunk": lambda: policy.infer(observation),
            "chunk, with depth": lambda: policy.infer(observation, depth=True),
        }
        times = {name: percentiles(stage, config.runs, config.device) for name, stage in stages.items()}
    return {
        "machine": machine(config),
        "model": policy.model_id,
        "parameters": sum(parameter.numel() for parameter in policy.model.parameters()),
        "stages_ms": times,
    }


def percentiles(stage: Callable[[], object], runs: int, device: str) -> dict[str, float]:
    """p50 and p99 in milliseconds over `runs`, after a warm-up."""
    wait = torch.cuda.synchronize if device.startswith("cuda") else lambda: None
    for _ in range(max(3, runs // 10)):
        stage()
    took = []
    for _ in range(runs):
        wait()
        begin = time.perf_counter()
        stage()
        wait()
        took.append((time.perf_counter() - begin) * 1e3)
    return {"p50": round(float(np.percentile(took, 50)), 2), "p99": round(float(np.percentile(took, 99)), 2)}


def machine(config: BenchConfig) -> str:
    """What the figures were measured on."""
    if config.device.startswith("cuda"):
        return torch.cuda.get_device_name(config.device)
    return f"{platform.machine()}, {torch.backends.cpu.get_cpu_capability()}, {config.threads} thread(s)"


def main() -> None:
    config = tyro.cli(BenchConfig, description=__doc__)
    result = bench(config)
    config.out.parent.mkdir(parents=True, exist_ok=True)
    config.out.write_text(json.dumps(result, indent=2) + "\n")
    print(f"{result['model']}, {result['parameters'] / 1e6:.1f} M parameters, on {result['machine']}")
    print(f"{'stage':32} {'p50 ms':>8} {'p99 ms':>8}")
    for name, row in result["stages_ms"].items():
        print(f"{name:32} {row['p50']:8.2f} {row['p99']:8.2f}")


if __name__ == "__main__":
    main()
