"""Loads a policy in a process of its own and says, as JSON, what that took: the preflight's subprocess."""

from __future__ import annotations

import json
import os
import sys
import time
from dataclasses import dataclass

import numpy as np
import torch
import tyro

from depthvla_policy.bench.machine import peak_memory_gb
from depthvla_policy.bench.timing import percentiles
from depthvla_policy.policy.observation import Observation
from depthvla_policy.policy.policy import Policy
from r1lite_description import robot as robot_description
from r1lite_description.robot import Robot

IMAGE = (720, 1280, 3)  # of one eye or wrist of the R1 Lite


@dataclass(frozen=True)
class TryConfig:
    """A policy and where it runs."""

    model: str
    device: str = "cpu"
    runs: int = 0  # inferences to time; 0: load it only
    threads: int = 1
    robot_file: str = ""


def main() -> int:
    config = tyro.cli(TryConfig)
    try:
        result = attempt(config)
    except (FileNotFoundError, ValueError, RuntimeError) as error:  # torch raises the last, without memory for instance
        result = {"error": f"{type(error).__name__}: {error}".splitlines()[0]}
    print(json.dumps(result))
    return int("error" in result)


def attempt(config: TryConfig) -> dict:
    torch.set_num_threads(config.threads)
    robot = robot_description.load(config.robot_file or None)
    begin = time.perf_counter()
    policy = Policy.load(config.model, config.device, robot)
    load_s = time.perf_counter() - begin
    latency_ms = None
    if config.runs:
        policy.prepare()
        observation = _observation(policy, robot)
        latency_ms = percentiles({"chunk": lambda: policy.infer(observation)}, config.runs, config.device)["chunk"]
    device, total_gb = _device(config.device)
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


def _device(device: str) -> tuple[str, float]:
    """Its name and memory [GB]."""
    if device.startswith("cuda"):
        properties = torch.cuda.get_device_properties(device)
        return properties.name, properties.total_memory / 1e9
    return device, os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9


def _observation(policy: Policy, robot: Robot) -> Observation:
    images = {camera: np.zeros(IMAGE, np.uint8) for camera in policy.cameras}
    return Observation(0, images, (robot.position_min + robot.position_max) / 2, "warm up")


if __name__ == "__main__":
    sys.exit(main())
