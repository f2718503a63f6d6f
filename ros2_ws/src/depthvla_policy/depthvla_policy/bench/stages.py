"""The stages of one inference as functions to be timed: of the plain network, and of the engine's parts."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from depthvla_policy.bench.roofline import DEPTH, DEPTH_ENCODER, STATE, STEP, VISION, VLM
from depthvla_policy.model.config import ModelConfig
from depthvla_policy.model.depthvla import DepthVLA, Inputs
from depthvla_policy.model.mixture import Stream
from depthvla_policy.policy.engine import Engine
from depthvla_policy.policy.engine.engine import TEXT_BUCKET, WARM_UPS
from depthvla_policy.policy.engine.program import Parts
from depthvla_policy.policy.engine.vit import patches

Stages = dict[str, tuple[Callable[[], object], int]]  # what to run, and how often that does the stage


def random_inputs(c: ModelConfig, device: str, dtype: torch.dtype, cameras: int = 0) -> tuple[Inputs, Tensor]:
    """An observation of noise with a full prompt, and the noise of a chunk (1, horizon, action_dim) in float32.

    cameras: how many there are; 0: all.
    """
    generator, cameras = torch.Generator().manual_seed(0), cameras or c.cameras
    inputs = Inputs(
        images=torch.rand(1, cameras, 3, c.image_size, c.image_size, generator=generator).to(device, dtype),
        text=torch.randint(0, c.vocab_size, (1, c.max_text_tokens), generator=generator).to(device),
        text_mask=torch.ones(1, c.max_text_tokens, dtype=torch.bool, device=device),
        state=torch.randn(1, c.state_dim, generator=generator).to(device, dtype),
        depth_m=torch.rand(1, cameras, c.image_size, c.image_size, generator=generator).to(device)
        if c.takes_depth
        else None,
    )
    return inputs, torch.randn(1, c.horizon, c.action_dim, generator=generator).to(device)


def of_network(model: DepthVLA, inputs: Inputs, noise: Tensor) -> Stages:
    """The prefixes are left out where they run as one (ablation iv)."""
    c, weight = model.config, model.action_in_proj.weight
    to = {"device": weight.device, "dtype": weight.dtype}
    images = inputs.images[0]
    prefix, tau = model.prefix(inputs), torch.zeros(1, device=weight.device)
    before = [(k[:, :, :-1], v[:, :, :-1]) for k, v in prefix.cache]
    tokens = len(images) * c.grid**2

    def stream(width: int, rows: int, batch: int = 1) -> Stream:
        positions = torch.arange(rows, device=weight.device).expand(batch, -1)
        return Stream(torch.randn(batch, rows, width, **to), positions)

    vlm, state = stream(c.vlm.width, tokens + c.max_text_tokens), stream(c.action.width, 1)
    seen = torch.ones(1, 1, 1, vlm.x.shape[1], dtype=torch.bool, device=weight.device)
    found: Stages = {VISION: (lambda: model.vision(images), 1)}
    if c.depth:
        found[DEPTH_ENCODER] = (lambda: model.depth_encoder(images), 1)
    if Engine.can_run(model):
        found[VLM] = (lambda: model.mixture({"vlm": vlm}, seen, keys_only=frozenset({"vlm"})), 1)
        if c.depth:
            apart = len(images) if c.cameras_apart else 1
            depth = stream(c.depth.expert.width, tokens // apart, apart)
            found[DEPTH] = (lambda: model.mixture({"depth": depth}, None, keys_only=frozenset({"depth"})), 1)
    keys = prefix.valid[:, None, None]
    found[STATE] = (lambda: model.mixture({"action": state}, keys, before, keys_only=frozenset({"action"})), 1)
    found[STEP] = (lambda: model.velocity(prefix, noise, tau), 1)
    return found


def of_engine(model: DepthVLA, cameras: int) -> Stages:
    """The engine's parts on tokens of noise, laid out as in `Program`; `model` was folded. On a GPU each is a graph."""
    c, weight, parts = model.config, model.action_in_proj.weight, Parts.of(model)
    to = {"device": weight.device, "dtype": weight.dtype}
    tokens, text = cameras * c.grid**2, c.max_text_tokens
    vlm = slice(0, tokens + text)
    depth = slice(vlm.stop, vlm.stop + (tokens if c.depth else 0))
    state = slice(depth.stop, depth.stop + 1)
    action = slice(state.stop, state.stop + c.horizon)
    cache = tuple(torch.zeros(c.layers, c.kv_heads, action.stop, c.head_dim, **to) for _ in range(2))
    cos_sin = torch.randn(action.stop, 1, c.head_dim, device=weight.device)
    bias = torch.zeros(1, 1, 1, action.stop, **to)
    padded = TEXT_BUCKET[weight.device.type] > 1
    image = patches(torch.rand(cameras, 3, c.image_size, c.image_size, **to), c.patch_size)
    noise = torch.randn(c.horizon, c.action_dim, device=weight.device)

    def run(name: str, x: Tensor, slots: slice, seen: slice, masked: bool, keys_only: bool) -> Tensor | None:
        mask = bias[..., seen] if masked else None
        groups = cameras if name == "depth" and c.cameras_apart else 1
        return parts.stacks[name](
            x, cache, (cos_sin[slots], cos_sin[slots]), slots, seen, mask, groups=groups, keys_only=keys_only
        )

    def prefix(name: str, width: int, slots: slice, masked: bool, seen: slice) -> Callable[[], object]:
        x = torch.randn(slots.stop - slots.start, width, **to)
        return lambda: run(name, x, slots, seen, masked, True)

    def integrate() -> Tensor:
        seen = slice(0, action.stop)
        return parts.integrator(noise, lambda x: run("action", x, action, seen, padded, False))

    found: Stages = {VISION: (lambda: parts.vision(image, cameras), 1)}
    if c.depth:
        found[DEPTH_ENCODER] = (lambda: parts.depth_encoder(image, cameras), 1)
    found[VLM] = (prefix("vlm", c.vlm.width, vlm, padded, vlm), 1)
    if c.depth:
        found[DEPTH] = (prefix("depth", c.depth.expert.width, depth, False, depth), 1)
    found[STATE] = (prefix("action", c.action.width, state, padded, slice(0, state.stop)), 1)
    found[STEP] = (integrate, c.euler_steps)
    return {name: (recorded(function, weight.device), repeats) for name, (function, repeats) in found.items()}


def recorded(function: Callable[[], object], device: torch.device) -> Callable[[], object]:
    """On a GPU a graph of the function, as the engine makes one; on a CPU itself. Gradients are off in both."""
    if device.type != "cuda":
        return torch.no_grad()(function)
    stream = torch.cuda.Stream(device)
    stream.wait_stream(torch.cuda.current_stream(device))
    with torch.no_grad(), torch.cuda.stream(stream):
        for _ in range(WARM_UPS):
            function()
    torch.cuda.current_stream(device).wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.no_grad(), torch.cuda.graph(graph):
        function()
    return graph.replay
