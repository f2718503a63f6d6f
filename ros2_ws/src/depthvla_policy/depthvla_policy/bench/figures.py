"""Measures a checkpoint: what `depthvla bench` writes."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from depthvla_policy.bench import peer, roofline, stages
from depthvla_policy.bench.machine import circumstances, load_average, peak_memory_gb, unmapped_memory_gb
from depthvla_policy.bench.roofline import Roof
from depthvla_policy.bench.stages import random_inputs
from depthvla_policy.bench.timing import durations_ms, percentiles
from depthvla_policy.model.config import ModelConfig
from depthvla_policy.model.depthvla import DepthVLA
from depthvla_policy.policy import checkpoint
from depthvla_policy.policy.checkpoint import CheckpointConfig
from depthvla_policy.policy.engine import Engine
from depthvla_policy.policy.observation import Observation
from depthvla_policy.policy.policy import Policy
from r1lite_description import robot as robot_description

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
TRAINING_BATCH, TRAINING_STEPS = 8, 3


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
    compile: bool = False
    """also compile transformers' pi0, which takes a minute"""
    training: str = ""
    """also measure steps of this training (see depthvla_policy.bench.training); empty: none"""
    image_width: int = 320
    """of the camera images [px]"""
    image_height: int = 180
    """of the camera images [px]"""
    markdown: bool = False
    """print the table as rows of a document"""
    out: Path = Path("out/bench.json")
    """where the figures go"""


def bench(config: BenchConfig) -> dict:
    """Measure and return circumstances, checkpoint, memory and the first chunk's time. With `runs`, also the machine's
    `roofline`, `rows` of times beside it, the chunks after a `warm_up` and the engine's `agreement` with the network.

    Raises:
        FileNotFoundError, ValueError: the checkpoint is missing or does not fit.
        RuntimeError: the network sampled something that is not finite.
    """
    result = {**circumstances(config.device, config.threads), "load_average": {"before": load_average()}}
    torch.set_num_threads(config.threads)
    settings = CheckpointConfig.read(config.policy)
    c, dtype = settings.model, DTYPES[config.dtype]
    begin = time.perf_counter()
    model = checkpoint.load_model(config.policy, c, config.device, dtype)
    load_s = time.perf_counter() - begin
    inputs, noise = random_inputs(c, config.device, dtype)
    begin = time.perf_counter()
    chunk, _ = model.sample(inputs, noise, depth=c.depth_size > 0)
    if not torch.isfinite(chunk).all():  # waits for a GPU
        raise RuntimeError(f"the chunk of {config.policy} is not finite")
    result |= {
        "checkpoint": settings.name,
        "dtype": config.dtype,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "load_s": round(load_s, 2),
        "first_chunk_s": round(time.perf_counter() - begin, 2),
        "peak_memory_gb": round(peak_memory_gb(config.device), 3),
        "unmapped_memory_gb": round(unmapped_memory_gb(), 3),
        "agreement": {},
    }
    if config.runs:
        result |= _speed(config, model, chunk, result["agreement"])
    if config.agreement:
        del model
        exact = checkpoint.load_model(config.policy, c, config.device, torch.float32)
        wanted, _ = exact.sample(*random_inputs(c, config.device, torch.float32))
        result["agreement"]["float32"] = distance(chunk, wanted)
    if config.training:
        result["training"] = _training(config)
    result["load_average"]["after"] = load_average()
    return result


def distance(chunk: Tensor, wanted: Tensor) -> dict[str, float]:
    """Of two chunks, over the rms of `wanted`: rms and worst."""
    error = (chunk - wanted).abs() / wanted.square().mean().sqrt()
    return {"rms": round(error.square().mean().sqrt().item(), 7), "max": round(error.max().item(), 7)}


def _speed(config: BenchConfig, model: DepthVLA, chunk: Tensor, agreement: dict) -> dict:
    c, device, dtype = model.config, config.device, DTYPES[config.dtype]
    inputs, noise = random_inputs(c, device, dtype)
    found: dict = {}
    engine = None
    if Engine.can_run(model):
        if device.startswith("cuda"):
            torch.cuda.reset_peak_memory_stats(device)
        engine = Engine(model)
        found["warm_up"] = _warm_up(engine, partial(engine.sample, inputs, noise), config)
        found["engine_peak_memory_gb"] = round(peak_memory_gb(device), 3)
        agreement["engine"] = distance(engine.sample(inputs, noise)[0], chunk)
    weights = sum(parameter.numel() * parameter.element_size() for parameter in model.parameters())
    roof = roofline.measure(device, dtype, weights)
    rows = [*_stage_rows(config, model, engine, roof), *_chunk_rows(config, model, engine, roof)]
    if c.depth:
        rows += _pi0_rows(config, _without_depth(c), roof)
    rows += _peer_rows(config, _without_depth(c), rows)
    if (config.policy / checkpoint.STATS).exists():
        rows += _policy_rows(config)
    return found | {"roofline": dataclasses.asdict(roof), "rows": rows}


def _warm_up(engine: Engine, sample: Callable[[], object], config: BenchConfig) -> dict[str, float]:
    """The very first chunk, and after what a policy node does before it begins: the first and the last of `runs`."""
    cold_ms = durations_ms(sample, 1, config.device)
    engine.prepare()
    warm_ms = durations_ms(sample, config.runs, config.device)
    return {"cold_ms": round(cold_ms[0], 3), "first_ms": round(warm_ms[0], 3), "last_ms": round(warm_ms[-1], 3)}


@torch.no_grad()
def _stage_rows(config: BenchConfig, model: DepthVLA, engine: Engine | None, roof: Roof) -> list[dict]:
    c = model.config
    plain = stages.of_network(model, *random_inputs(c, config.device, DTYPES[config.dtype]))
    fast = stages.of_engine(model, c.cameras) if engine else {}
    found = []
    for name, demand in roofline.demands(model, c.cameras, depth=False).items():
        both = {key: table[name] for key, table in (("eager_ms", plain), ("engine_ms", fast)) if name in table}
        if both:
            functions, repeats = ({key: stage[i] for key, stage in both.items()} for i in (0, 1))
            row = _row(name, roof.ms(demand), **percentiles(functions, config.runs, config.device, repeats))
            work = {"gflop": round(demand.flops / 1e9, 4), "mb": round(demand.bytes / 1e6, 3)}
            found.append({**row, **work, "bound": roof.bound(demand)})
    return found


def _chunk_rows(config: BenchConfig, model: DepthVLA, engine: Engine | None, roof: Roof) -> list[dict]:
    """Whole chunks, for every number of cameras."""
    c, found = model.config, []
    samplers = {"eager_ms": model.sample, **({"engine_ms": engine.sample} if engine else {})}
    for cameras in range(1, c.cameras + 1):
        inputs, noise = random_inputs(c, config.device, DTYPES[config.dtype], cameras)
        for depth in (False, True) if c.depth_size else (False,):
            functions = {key: partial(sample, inputs, noise, depth=depth) for key, sample in samplers.items()}
            limit_ms = roof.chunk_ms(roofline.demands(model, cameras, depth=depth), c.euler_steps)
            times = percentiles(functions, config.runs, config.device)
            found.append(_row(_name(c, cameras, depth), limit_ms, **times))
    return found


def _pi0_rows(config: BenchConfig, c: ModelConfig, roof: Roof) -> list[dict]:
    """The same without depth expert; its weights are random."""
    default = torch.get_default_dtype()
    torch.set_default_dtype(DTYPES[config.dtype])
    try:
        with torch.device(config.device):
            model = DepthVLA(c).eval()
    finally:
        torch.set_default_dtype(default)
    return _chunk_rows(config, model, Engine(model), roof)


def _peer_rows(config: BenchConfig, c: ModelConfig, rows: list[dict]) -> list[dict]:
    """Transformers' pi0, which has the roofline of ours, the network `c`."""
    dtype, name, found = DTYPES[config.dtype], _name(c, c.cameras, False), []
    limit_ms = next(row["roofline_ms"] for row in rows if row["what"] == name)
    inputs, noise = random_inputs(c, config.device, dtype)
    for compiled in (False, True) if config.compile else (False,):
        sample = {("compiled_ms" if compiled else "eager_ms"): peer.sampler(c, inputs, noise, dtype, compiled=compiled)}
        what = name.replace("pi0", "pi0 of transformers" + ", compiled" * compiled)
        found.append(_row(what, limit_ms, **percentiles(sample, config.runs, config.device)))
    return found


def _policy_rows(config: BenchConfig) -> list[dict]:
    """With everything around the network, on a trained policy."""
    robot = robot_description.load()
    plain, fast = (Policy.load(config.policy, config.device, robot, engine=engine) for engine in (False, True))
    fast.prepare()
    shape = (config.image_height, config.image_width, 3)
    observation = Observation(
        stamp_ns=0,
        images={name: np.random.default_rng(0).integers(0, 255, shape, dtype=np.uint8) for name in plain.cameras},
        state=(robot.position_min + robot.position_max) / 2,
        instruction="lift the red block with the right arm",
    )
    policies = {"eager_ms": plain, **({"engine_ms": fast} if fast.engine else {})}
    before = {"eager_ms": partial(plain.inputs, observation)}
    whole = {key: partial(policy.infer, observation) for key, policy in policies.items()}
    return [
        _row("resize, tokenise, normalise", None, **percentiles(before, config.runs, config.device)),
        _row("observation to chunk", None, **percentiles(whole, config.runs, config.device)),
    ]


def _training(config: BenchConfig) -> dict:
    from depthvla_policy.bench import training

    return training.bench(
        training.BenchConfig(
            config=config.training,
            device=config.device,
            largest=TRAINING_BATCH,
            steps=TRAINING_STEPS,
            variants=("all trained",),
        )
    )


def _without_depth(c: ModelConfig) -> ModelConfig:
    return dataclasses.replace(c, depth=None, prefix_attention="blockwise")


def _name(c: ModelConfig, cameras: int, depth: bool) -> str:
    network = "DepthVLA" if c.depth else "pi0"
    return f"{network}, {cameras} camera{'s' * (cameras > 1)}" + ", with depth" * depth


def _row(what: str, roofline_ms: float | None, **times: dict[str, float]) -> dict:
    """ratio: the quickest p50 over the roofline."""
    found = {"what": what, **times}
    if roofline_ms:
        best = min(time["p50"] for time in times.values())
        found |= {"roofline_ms": round(roofline_ms, 4), "ratio": round(best / roofline_ms, 2)}
    return found
