"""Latency, memory and precision of a checkpoint on this machine: `python -m depthvla_policy.bench`. Writes JSON.

Works on a full-size checkpoint with random weights as well as on a trained policy; without normalisation statistics the
stages around the network are left out.
"""

from __future__ import annotations

import json
import platform
import resource
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
import tyro

from depthvla_policy import robot as robot_description
from depthvla_policy.model.config import ModelConfig
from depthvla_policy.model.depthvla import DepthVLA, Inputs
from depthvla_policy.policy import checkpoint
from depthvla_policy.policy.checkpoint import CheckpointConfig
from depthvla_policy.policy.observation import Observation
from depthvla_policy.policy.policy import Policy

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


@dataclass(frozen=True)
class BenchConfig:
    """What to measure."""

    policy: Path = Path("models/r1lite-small")
    """checkpoint folder"""
    device: str = "cpu"
    """cpu or cuda"""
    dtype: Literal["float32", "bfloat16"] = "float32"
    runs: int = 100
    """timed runs of each stage; 0 only loads the checkpoint and samples one chunk"""
    threads: int = 1
    """of torch on a CPU"""
    agreement: bool = False
    """also sample in float32 and compare"""
    image_width: int = 320
    """of the camera images [px]"""
    image_height: int = 180
    """of the camera images [px]"""
    out: Path = Path("out/bench.json")
    """where the figures go"""


def bench(config: BenchConfig) -> dict:
    """Measure and return machine, checkpoint, memory, the first chunk's time and, with `runs`, the percentiles
    {"stages_ms": {stage: {"p50": ..., "p99": ...}}}.

    Raises:
        FileNotFoundError, ValueError: the checkpoint is missing or does not fit.
        RuntimeError: the network sampled something that is not finite.
    """
    torch.set_num_threads(config.threads)
    settings = CheckpointConfig.read(config.policy)
    c = settings.model
    begin = time.perf_counter()
    model = checkpoint.load_model(config.policy, c, config.device, DTYPES[config.dtype])
    load_s = time.perf_counter() - begin
    inputs, noise = random_inputs(c, config.device, DTYPES[config.dtype])
    depth = c.depth_size > 0
    with torch.no_grad():
        begin = time.perf_counter()
        chunk, _ = model.sample(inputs, noise, depth=depth)
        if not torch.isfinite(chunk).all():  # waits for a GPU
            raise RuntimeError(f"the chunk of {config.policy} is not finite")
        first_chunk_s = time.perf_counter() - begin
        stages = {} if config.runs == 0 else _model_stages(model, inputs, noise, depth)
        if config.runs and (config.policy / checkpoint.STATS).exists():
            stages |= _policy_stages(config)
        times = {name: percentiles(stage, config.runs, config.device) for name, stage in stages.items()}
    result = {
        "machine": machine(config),
        "checkpoint": settings.name,
        "dtype": config.dtype,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "load_s": round(load_s, 2),
        "first_chunk_s": round(first_chunk_s, 2),
        "peak_memory_gb": round(peak_memory_gb(config.device), 2),
        "unmapped_memory_gb": round(unmapped_memory_gb(), 2),
        "stages_ms": times,
    }
    if config.agreement:
        result["agreement"] = agreement(config, c, model, chunk)
    return result


def random_inputs(c: ModelConfig, device: str, dtype: torch.dtype) -> tuple[Inputs, torch.Tensor]:
    """An observation of noise with a full prompt, and the noise of a chunk (1, horizon, action_dim) in float32."""
    generator = torch.Generator().manual_seed(0)
    inputs = Inputs(
        images=torch.rand(1, c.cameras, 3, c.image_size, c.image_size, generator=generator).to(device, dtype),
        text=torch.randint(0, c.vocab_size, (1, c.max_text_tokens), generator=generator).to(device),
        text_mask=torch.ones(1, c.max_text_tokens, dtype=torch.bool, device=device),
        state=torch.randn(1, c.state_dim, generator=generator).to(device, dtype),
        depth_m=torch.rand(1, c.cameras, c.image_size, c.image_size, generator=generator).to(device)
        if c.takes_depth
        else None,
    )
    return inputs, torch.randn(1, c.horizon, c.action_dim, generator=generator).to(device)


def agreement(config: BenchConfig, c: ModelConfig, model: DepthVLA, chunk: torch.Tensor) -> dict[str, float]:
    """Distance of the chunk from the one of the same weights in float32, over the rms of that: rms and worst."""
    model.cpu()
    exact = checkpoint.load_model(config.policy, c, config.device, torch.float32)
    wanted, _ = exact.sample(*random_inputs(c, config.device, torch.float32))
    scale = wanted.square().mean().sqrt()
    error = (chunk - wanted).abs() / scale
    return {"rms": round(error.square().mean().sqrt().item(), 5), "max": round(error.max().item(), 5)}


def percentiles(stage: Callable[[], object], runs: int, device: str) -> dict[str, float]:
    """p50 and p99 in milliseconds over `runs`, after a warm-up of a tenth as many."""
    wait = torch.cuda.synchronize if device.startswith("cuda") else lambda: None
    for _ in range(runs // 10):
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


def peak_memory_gb(device: str) -> float:
    """Most device memory that tensors took, or on a CPU the peak resident size of this process, mapped files too."""
    if device.startswith("cuda"):
        return torch.cuda.max_memory_allocated(device) / 1e9
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


def unmapped_memory_gb() -> float:
    """Resident size of this process without mapped files: a copy of the weights in memory shows here (proc(5))."""
    status = Path("/proc/self/status").read_text().split()
    return int(status[status.index("RssAnon:") + 1]) * 1024 / 1e9


def _model_stages(model: DepthVLA, inputs: Inputs, noise: torch.Tensor, depth: bool) -> dict[str, Callable[[], object]]:
    prefix, tau = model.prefix(inputs), torch.zeros(1, device=noise.device)
    stages = {
        "prefixes and state": lambda: model.prefix(inputs),
        "one integration step": lambda: model.velocity(prefix, noise, tau),
        "chunk": lambda: model.sample(inputs, noise),
    }
    if depth:
        stages["chunk, with depth"] = lambda: model.sample(inputs, noise, depth=True)
    return stages


def _policy_stages(config: BenchConfig) -> dict[str, Callable[[], object]]:
    robot = robot_description.load()
    policy = Policy.load(config.policy, config.device, robot)
    shape = (config.image_height, config.image_width, 3)
    observation = Observation(
        stamp_ns=0,
        images={name: np.random.default_rng(0).integers(0, 255, shape, dtype=np.uint8) for name in policy.cameras},
        state=(robot.position_min + robot.position_max) / 2,
        instruction="lift the red block with the right arm",
    )
    return {
        "resize, tokenise, normalise": lambda: policy.inputs(observation),
        "observation to chunk": lambda: policy.infer(observation),
    }


def main() -> int:
    config = tyro.cli(BenchConfig, description=__doc__)
    if config.device.startswith("cuda") and not torch.cuda.is_available():
        print("skipped: there is no CUDA device here")
        return 0
    result = bench(config)
    config.out.parent.mkdir(parents=True, exist_ok=True)
    config.out.write_text(json.dumps(result, indent=2) + "\n")
    print(
        f"{result['checkpoint']}, {result['parameters'] / 1e6:.1f} M parameters in {config.dtype}, {result['machine']}"
    )
    print(f"loaded in {result['load_s']} s, first chunk in {result['first_chunk_s']} s")
    print(
        f"peak memory {result['peak_memory_gb']} GB; {result['unmapped_memory_gb']} GB in memory without mapped files"
    )
    if result["stages_ms"]:
        print(f"{'stage':28} {'p50 ms':>10} {'p99 ms':>10}")
    for name, row in result["stages_ms"].items():
        print(f"{name:28} {row['p50']:10.2f} {row['p99']:10.2f}")
    if "agreement" in result:
        print(
            f"against float32: rms {result['agreement']['rms']:.2%}, worst {result['agreement']['max']:.2%} of the rms"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
