"""The least time that a stage can take on this machine: what it computes and reads, over what the machine does at most.

Williams et al. 2009. The two rates are measured. Work is counted by hand from the network's dimensions: torch's counter
agrees (a test compares them), but takes seconds for the full network, ten times in a benchmark.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import nn

from depthvla_policy.bench.timing import durations_ms
from depthvla_policy.model.config import EncoderConfig, ExpertConfig, ModelConfig
from depthvla_policy.model.depthvla import DepthVLA
from depthvla_policy.policy.engine.linear import FusedLinear

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

    def demand(operations: float, weights: float, cached_tokens: int = 0) -> Demand:
        keys_values = 2 * c.layers * c.kv_heads * c.head_dim * cached_tokens
        return Demand(operations, each * (weights + keys_values))

    def expert(name: str, dimensions: ExpertConfig, rows: int, keys: int, read: bool, cached: int) -> Demand:
        return demand(_expert_flops(c, dimensions, rows, keys, read), _read(experts[name], read), cached)

    def linear(layer: nn.Linear, rows: int) -> Demand:
        return demand(2 * rows * layer.weight.numel(), _count([layer]))

    def encoder(dimensions: EncoderConfig, extra: int, module: nn.Module) -> Demand:
        return demand(_encoder_flops(c, dimensions, extra) * cameras, _count([module]))

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
    keys = prefix + 1 + c.horizon
    found[STEP] = expert("action", c.action, c.horizon, keys, True, keys)
    for layer in (model.action_in_proj, model.action_time_mlp_in, model.action_time_mlp_out, model.action_out_proj):
        found[STEP] += linear(layer, c.horizon)
    return found


def _encoder_flops(c: ModelConfig, e: EncoderConfig, extra: int) -> float:
    """A vision transformer on one image, with `extra` tokens beside the patches."""
    tokens = c.grid**2 + extra
    layer = 2 * tokens * (4 * e.width**2 + 2 * e.width * e.mlp) + 4 * tokens**2 * e.width
    return e.layers * layer + 2 * c.grid**2 * 3 * c.patch_size**2 * e.width


def _expert_flops(c: ModelConfig, e: ExpertConfig, tokens: int, keys: int, read: bool) -> float:
    """An expert of the mixture; where its output is not `read`, its last layer makes keys and values only."""
    q, kv = c.heads * c.head_dim, c.kv_heads * c.head_dim
    rest = 2 * tokens * e.width * (2 * q + 3 * e.mlp) + 4 * tokens * keys * q
    return c.layers * 2 * tokens * e.width * 2 * kv + (c.layers if read else c.layers - 1) * rest


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
    packed = FusedLinear(b, None, rows=size)
    return 2 * size**3 / min(_least_s(lambda: a @ b, device), _least_s(lambda: packed(a), device))


def _least_s(function: Callable[[], object], device: str) -> float:
    at_once = AT_ONCE[torch.device(device).type]

    def several() -> None:
        for _ in range(at_once):
            function()

    return min(durations_ms(several, TRIES, device)) * 1e-3 / at_once
