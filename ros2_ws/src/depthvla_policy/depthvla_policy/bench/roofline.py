"""The least time that a stage can take on this machine: what it computes and reads, over what the machine does at most.

Williams et al. 2009. Work is counted from the network's dimensions; the two rates are measured.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import nn

from depthvla_policy.bench.timing import durations_ms
from depthvla_policy.model.config import EncoderConfig, ExpertConfig
from depthvla_policy.model.depthvla import DepthVLA
from depthvla_policy.policy.engine.linear import Linear
from depthvla_policy.training import flops

VISION, DEPTH_ENCODER = "image encoder", "depth encoder"
VLM, DEPTH, STATE, STEP = "VLM prefix", "depth prefix", "state", "one Euler step"

MEMORY_BYTES = {"cpu": 2**27, "cuda": 2**31}  # more than a usual cache
LEAST_COPY_BYTES = 2**16
# On a CPU a try is short, so that some of many are not interrupted by other work; on a GPU it is long beside a launch.
GEMM_SIZE = {"cpu": 512, "cuda": 8192}
AT_ONCE = {"cpu": 1, "cuda": 4}
TRIES = 100


@dataclass(frozen=True)
class Demand:
    """Floating-point operations, and bytes that have to be moved once: weights, and keys and values."""

    flops: float
    bytes: float

    def __add__(self, other: Demand) -> Demand:
        return Demand(self.flops + other.flops, self.bytes + other.bytes)


@dataclass(frozen=True)
class Roof:
    """What the machine does at most.

    weights_bytes_per_s: copying as much as the network's weights. They stay in the caches from one chunk to the next
    where they fit, so this and not the memory's is the bound.
    """

    flops_per_s: float
    weights_bytes_per_s: float
    memory_bytes_per_s: float

    def ms(self, demand: Demand) -> float:
        return 1e3 * max(demand.flops / self.flops_per_s, demand.bytes / self.weights_bytes_per_s)

    def bound(self, demand: Demand) -> str:
        """What limits this stage: "compute" or "memory"."""
        computes = demand.flops / self.flops_per_s >= demand.bytes / self.weights_bytes_per_s
        return "compute" if computes else "memory"

    def chunk_ms(self, demands: dict[str, Demand], euler_steps: int) -> float:
        """Of all stages one after the other, the step `euler_steps` times."""
        return sum(self.ms(demand) * (euler_steps if name == STEP else 1) for name, demand in demands.items())


def measure(device: str, dtype: torch.dtype, weights_bytes: int) -> Roof:
    """Measure the machine, as the best of many tries: other work can only make it look slower."""
    kind = torch.device(device).type
    most = MEMORY_BYTES[kind]
    return Roof(
        flops_per_s=_matrix_rate(device, dtype, GEMM_SIZE[kind]),
        weights_bytes_per_s=_copy_rate(device, min(max(weights_bytes, LEAST_COPY_BYTES), most)),
        memory_bytes_per_s=_copy_rate(device, most),
    )


def demands(model: DepthVLA, cameras: int, *, depth: bool) -> dict[str, Demand]:
    """Of each stage of one inference with a full prompt. `depth`: whether depth is predicted."""
    c, each = model.config, model.action_in_proj.weight.element_size()
    tokens = cameras * c.grid**2
    vlm, prefix = tokens + c.max_text_tokens, (2 if c.depth else 1) * tokens + c.max_text_tokens
    joint = c.prefix_attention == "joint"
    experts = model.mixture.experts
    heads = (model.action_in_proj, model.action_time_mlp_in, model.action_time_mlp_out, model.action_out_proj)

    def demand(work: flops.Work, weights: float, cached_tokens: int = 0) -> Demand:
        keys_values = 2 * c.layers * c.kv_heads * c.head_dim * cached_tokens
        return Demand(work.forward(), each * (weights + keys_values))

    def expert(name: str, dimensions: ExpertConfig, rows: int, keys: int, read: bool, cached: int) -> Demand:
        return demand(flops.expert_work(c, dimensions, rows, keys, read), _read(experts[name], read), cached)

    def linear(layer: nn.Linear, rows: int) -> Demand:
        work = flops.linear_flops(rows, layer.in_features, layer.out_features)
        return demand(flops.Work(work), _count([layer]))

    def encoder(dimensions: EncoderConfig, extra: int, *modules: nn.Module) -> Demand:
        return demand(flops.encoder_work(dimensions, c, extra=extra) * cameras, _count(modules))

    found = {VISION: encoder(c.vision, 0, model.vision.tower) + linear(model.vision.projector, tokens)}
    if c.depth:
        found[DEPTH_ENCODER] = encoder(c.depth.encoder, 1, model.depth_encoder)
    found[VLM] = expert("vlm", c.vlm, vlm, prefix if joint else vlm, False, vlm)
    if c.depth:
        seen = prefix if joint else c.grid**2 if c.cameras_apart else tokens
        found[DEPTH] = expert("depth", c.depth.expert, tokens, seen, depth, tokens)
        if depth:
            found[DEPTH] += linear(model.depth_head, tokens)
    found[STATE] = expert("action", c.action, 1, prefix + 1, False, prefix + 1) + linear(model.state_proj, 1)
    step = expert("action", c.action, c.horizon, prefix + 1 + c.horizon, True, prefix + 1 + c.horizon)
    for layer in heads:
        step += linear(layer, c.horizon)
    return {**found, STEP: step}


def _read(expert: nn.Module, read: bool) -> int:
    """Weights of an expert that a pass reads: without an output, its last layer only makes keys and values."""
    every = _count([expert])
    if read:
        return every
    last = expert.layers[-1]
    unread = (last.self_attn.q_proj, last.self_attn.o_proj, last.mlp, last.post_attention_layernorm, expert.norm)
    return every - _count(unread)


def _count(modules: Iterable[nn.Module]) -> int:
    return sum(parameter.numel() for module in modules for parameter in module.parameters())


def _copy_rate(device: str, total_bytes: int) -> float:
    """Bytes read and written per second by a copy within `total_bytes`."""
    source = torch.ones(total_bytes // 2, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return 2 * len(source) / _least_s(lambda: target.copy_(source), device)


def _matrix_rate(device: str, dtype: torch.dtype, size: int) -> float:
    """FLOP/s of the quickest product of two square matrices that is at hand."""
    a, b = (torch.rand(size, size, device=device).to(dtype) for _ in range(2))
    packed = Linear(b, None, rows=size)
    return 2 * size**3 / min(_least_s(lambda: a @ b, device), _least_s(lambda: packed(a), device))


def _least_s(function: Callable[[], object], device: str) -> float:
    at_once = AT_ONCE[torch.device(device).type]

    def several() -> None:
        for _ in range(at_once):
            function()

    return min(durations_ms(several, TRIES, device)) * 1e-3 / at_once
