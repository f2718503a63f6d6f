"""One inference as a program of fixed shapes: encoders, both prefixes, state, all integration steps. A batch of one.

Same numbers as `DepthVLA.sample`, up to rounding. What does not change between inferences is computed once: rotations,
the embeddings of the integration times, position embeddings. Keys and values lie in one buffer that is filled in place.

Axes: T tokens, S keys, N heads, K key/value heads, H head width, D width.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from depthvla_policy.model.depthvla import DepthVLA, Inputs
from depthvla_policy.model.encoders import depth_image
from depthvla_policy.model.flow import time_embedding
from depthvla_policy.model.mixture import NORM_EPS, Expert, rotation
from depthvla_policy.policy.engine.fold import joined
from depthvla_policy.policy.engine.linear import FusedLinear
from depthvla_policy.policy.engine.vit import Vit, patches


@dataclass(frozen=True)
class Shape:
    """What a program is made for.

    text: tokens, padding included. padded: whether there may be padding, which costs a mask. depth: whether it is
    predicted.
    """

    cameras: int
    text: int
    padded: bool
    depth: bool


class Program:
    """`load` an observation, `run`, and read `chunk` and `log_depth`, which are valid until the next run."""

    def __init__(self, model: DepthVLA, parts: Parts, shape: Shape) -> None:
        c, parameter = model.config, model.action_in_proj.weight
        self._model, self._shape, self._c = model, shape, c
        self._device, self._dtype = parameter.device, parameter.dtype
        tokens = shape.cameras * c.grid**2
        self._vlm = slice(0, tokens + shape.text)
        self._depth = slice(self._vlm.stop, self._vlm.stop + (tokens if c.depth else 0))
        self._state = slice(self._depth.stop, self._depth.stop + 1)
        self._action = slice(self._state.stop, self._state.stop + c.horizon)
        size = (c.layers, c.kv_heads, self._action.stop, c.head_dim)
        self._cache = self._zeros(*size), self._zeros(*size)
        self._parts = parts
        self.images = self._zeros(shape.cameras, 3, c.image_size, c.image_size)
        self.true_depth = self._zeros(shape.cameras, c.image_size, c.image_size) if c.takes_depth else None
        self._text = torch.zeros(shape.text, dtype=torch.long, device=self._device)
        self._bias = self._zeros(1, 1, 1, self._action.stop)  # of keys: 0, or -inf for padding
        self._positions = torch.zeros(self._action.stop, dtype=torch.long, device=self._device)
        self._rotation = tuple(self._zeros(self._action.stop, 1, c.head_dim, dtype=torch.float32) for _ in range(2))
        self._length = -1
        self.state = self._zeros(1, c.state_dim)
        self.noise = self._zeros(c.horizon, c.action_dim, dtype=torch.float32)
        self.chunk = torch.zeros_like(self.noise)
        self.log_depth: Tensor | None = None

    @torch.no_grad()
    def load(self, inputs: Inputs, noise: Tensor, cameras: list[int], length: int) -> None:
        """Copy in an observation: its images of `cameras`, the first tokens of its text, `length` of them real."""
        self.images.copy_(inputs.images[0, cameras])
        if self.true_depth is not None:
            self.true_depth.copy_(inputs.depth_m[0, cameras])
        self._text.copy_(inputs.text[0, : self._shape.text])
        self.state.copy_(inputs.state)
        self.noise.copy_(noise[0])
        if length != self._length:
            self._set_length(length)

    @torch.no_grad()
    def run(self) -> None:
        c, concurrently = self._c, _Concurrent(self._device)
        image = patches(self.images, c.patch_size)
        with concurrently.beside():
            if self._parts.depth_encoder:
                known = image if self.true_depth is None else patches(depth_image(self.true_depth), c.patch_size)
                out = self._prefix("depth", self._parts.depth_encoder(known, self._shape.cameras), self._depth)
                self.log_depth = None if out is None else self._model.log_depth(out[None])
        vision = self._parts.vision(image, self._shape.cameras)
        text = F.embedding(self._text, self._model.embed_tokens.weight) * c.vlm.width**0.5
        self._prefix("vlm", torch.cat([vision, text.to(vision.dtype)]), self._vlm)
        concurrently.join()
        action = self._parts.stacks["action"]
        state, seen = self._model.state_proj(self.state), slice(0, self._state.stop)
        action(state, self._cache, self._cos_sin(self._state), self._state, seen, self._mask(seen), keys_only=True)
        seen = slice(0, self._action.stop)
        cos_sin, mask = self._cos_sin(self._action), self._mask(seen)
        self.chunk.copy_(
            self._parts.integrator(self.noise, lambda x: action(x, self._cache, cos_sin, self._action, seen, mask))
        )

    def _prefix(self, name: str, x: Tensor, slots: slice) -> Tensor | None:
        depth = name == "depth"
        return self._parts.stacks[name](
            x,
            self._cache,
            self._cos_sin(slots),
            slots,
            slots,
            None if depth else self._mask(slots),
            groups=self._shape.cameras if depth and self._c.cameras_apart else 1,
            keys_only=not (depth and self._shape.depth and self._c.depth.predicts),
        )

    def _set_length(self, length: int) -> None:
        """Positions and mask for `length` real tokens of text; padding takes no position."""
        self._length = length
        c, device = self._c, self._device
        images = self._shape.cameras * c.grid**2
        at = self._positions
        at[self._vlm] = torch.arange(self._vlm.stop, device=device).clamp(max=max(images + length - 1, 0))
        if c.depth:
            at[self._depth] = torch.arange(c.grid**2, device=device).repeat(self._shape.cameras)
        at[self._state.start :] = images + length + torch.arange(1 + c.horizon, device=device)
        cos, sin = rotation(at[None], c.head_dim)
        self._rotation[0].copy_(cos[0, 0, :, None])
        # The halves change places with one sign turned: the sign is kept here.
        half = c.head_dim // 2
        self._rotation[1].copy_(torch.cat([-sin[..., :half], sin[..., half:]], dim=-1)[0, 0, :, None])
        self._bias.zero_()
        self._bias[..., images + length : self._vlm.stop] = -torch.inf

    def _cos_sin(self, slots: slice) -> tuple[Tensor, Tensor]:
        return self._rotation[0][slots], self._rotation[1][slots]

    def _mask(self, keys: slice) -> Tensor | None:
        return self._bias[..., keys] if self._shape.padded else None

    def _zeros(self, *size: int, dtype: torch.dtype | None = None) -> Tensor:
        return torch.zeros(size, dtype=dtype or self._dtype, device=self._device)


@dataclass(frozen=True)
class Parts:
    """A folded network's layers, shared by all its programs."""

    vision: Vit
    depth_encoder: Vit | None
    stacks: dict[str, Stack]
    integrator: Integrator

    @classmethod
    def of(cls, model: DepthVLA) -> Parts:
        c = model.config
        tokens = c.cameras * c.grid**2
        rows = {"vlm": tokens, "depth": tokens, "action": c.horizon}
        return cls(
            Vit.siglip(model.vision, c.cameras),
            Vit.dino(model.depth_encoder, c.cameras) if c.depth else None,
            {
                name: Stack(expert, c.heads, c.kv_heads, c.head_dim, rows=rows[name])
                for name, expert in model.mixture.experts.items()
            },
            Integrator(model),
        )


class Stack:
    """The layers of one expert over folded weights."""

    def __init__(self, expert: Expert, heads: int, kv_heads: int, head_dim: int, *, rows: int) -> None:
        """rows: how many tokens there will mostly be."""
        self._heads, self._kv_heads, self._head_dim = heads, kv_heads, head_dim
        self._layers = [
            tuple(
                FusedLinear(weight, None, rows=rows)
                for weight in (
                    joined(block.self_attn.q_proj, block.self_attn.k_proj, block.self_attn.v_proj)[0],
                    block.self_attn.o_proj.weight,
                    joined(block.mlp.gate_proj, block.mlp.up_proj)[0],
                    block.mlp.down_proj.weight,
                )
            )
            for block in expert.layers
        ]
        self._norm = expert.norm

    def __call__(
        self,
        x_TD: Tensor,
        cache: tuple[Tensor, Tensor],
        cos_sin: tuple[Tensor, Tensor],
        slots: slice,
        seen: slice,
        mask: Tensor | None,
        *,
        groups: int = 1,
        keys_only: bool = False,
    ) -> Tensor | None:
        """The output (T, D) before its norm's scale; None for a `keys_only` pass, which only fills in keys and values.

        slots: where the tokens' keys and values go in the cache (layers, K, S, H). seen: the keys that the tokens see.
        groups: so many equal stretches of the tokens see one of the keys each.
        """
        T, N, K, H, G = len(x_TD), self._heads, self._kv_heads, self._head_dim, groups
        x, width = x_TD, x_TD.shape[1:]
        for i, (qkv, out, gate_up, down) in enumerate(self._layers):
            heads_TNH = qkv(F.rms_norm(x, width, eps=NORM_EPS)).view(T, N + 2 * K, H)
            turned = heads_TNH[:, : N + K]
            turned = torch.addcmul(turned * cos_sin[0], turned.roll(H // 2, dims=-1), cos_sin[1])
            keys_KSH, values_KSH = cache[0][i], cache[1][i]
            keys_KSH[:, slots] = turned[:, N:].transpose(0, 1)
            values_KSH[:, slots] = heads_TNH[:, N + K :].transpose(0, 1)
            if keys_only and i == len(self._layers) - 1:
                return None
            # Every token of a group sees the same keys, so the heads that share keys are one longer list of queries.
            queries = turned[:, :N].to(x.dtype).reshape(G, T // G, K, N // K, H).transpose(1, 2).reshape(G, K, -1, H)
            keys, values = (part[:, seen].unflatten(1, (G, -1)).transpose(0, 1) for part in (keys_KSH, values_KSH))
            attended = F.scaled_dot_product_attention(queries, keys, values, attn_mask=mask)
            attended = attended.view(G, K, T // G, -1).transpose(1, 2).reshape(T, N * H)
            x = out.add(attended, x)
            gate, up = gate_up(F.rms_norm(x, width, eps=NORM_EPS)).chunk(2, dim=-1)
            x = down.add(F.gelu(gate, approximate="tanh") * up, x)
        return self._norm(x)


class Integrator:
    """Euler steps from noise to action around a function of the action tokens.

    What is linear before the tokens is one matrix; what depends on the time alone is a table. State and velocity head
    are in float32, as in `DepthVLA`.
    """

    def __init__(self, model: DepthVLA) -> None:
        c, steps = model.config, model.config.euler_steps
        width, mlp_in, mlp_out = c.action.width, model.action_time_mlp_in, model.action_time_mlp_out
        weight = mlp_in.weight.float()
        of_action, of_time = weight.split(width, dim=1)
        dtype = mlp_in.weight.dtype
        times = torch.arange(steps, device=weight.device) / steps
        table = time_embedding(times, width).to(dtype).float() @ of_time.T + mlp_in.bias.float()
        self._table = (table + of_action @ model.action_in_proj.bias.float()).to(dtype)  # (steps, D)
        self._into = (of_action @ model.action_in_proj.weight.float()).to(dtype)
        self._mlp_out = mlp_out
        self._head = -model.action_out_proj.weight.float().t() / steps
        self._bias = -model.action_out_proj.bias.float() / steps

    def __call__(self, noise: Tensor, expert: Callable[[Tensor], Tensor]) -> Tensor:
        x = noise
        for bias in self._table:
            tokens = F.silu(F.linear(x.to(bias.dtype), self._into, bias))
            out = expert(F.linear(tokens, self._mlp_out.weight, self._mlp_out.bias))
            x = torch.addmm(x + self._bias, out.float(), self._head)
        return x


class _Concurrent:
    """Work beside the current stream of a GPU; on a CPU it is done where it stands."""

    def __init__(self, device: torch.device) -> None:
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None

    @contextmanager
    def beside(self):
        if self._stream:
            self._stream.wait_stream(torch.cuda.current_stream(self._stream.device))
        with torch.cuda.stream(self._stream) if self._stream else nullcontext():
            yield

    def join(self) -> None:
        if self._stream:
            torch.cuda.current_stream(self._stream.device).wait_stream(self._stream)
