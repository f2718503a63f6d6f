"""Mixture of transformers: experts with their own weights and widths that share the attention of every layer.

Each expert is a Gemma decoder stack (openpi models/gemma.py): RMSNorm, rotary positions, gated GELU MLP. A stream is
the token sequence of one expert in one pass. Keys and values of earlier passes come in as a cache, so that a prefix is
computed once and the action expert alone runs at every integration step.

Axes: B batch, T tokens of a stream, S keys, N heads, K key/value heads, H head width, D expert width.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from depthvla_policy.model.config import ExpertConfig
from depthvla_policy.model.flow import upcast

ROPE_THETA = 10_000.0
NORM_EPS = 1e-6

Cache = list[tuple[Tensor, Tensor]]  # per layer: keys and values, both (B, K, S, H), keys after rotation


@dataclass(frozen=True)
class Stream:
    """Tokens of one expert: x (B, T, D), rotary positions (B, T)."""

    x: Tensor
    positions: Tensor


class RMSNorm(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(width))

    def forward(self, x: Tensor) -> Tensor:
        # Variance and scale in float32, as the checkpoints were trained.
        y = F.rms_norm(upcast(x), x.shape[-1:], eps=NORM_EPS)
        return (y * (1.0 + upcast(self.weight))).to(x.dtype)


class Attention(nn.Module):
    """Projections of one expert in one layer. The attention itself belongs to the mixture."""

    def __init__(self, width: int, heads: int, kv_heads: int, head_dim: int) -> None:
        super().__init__()
        self.head_dim = head_dim
        self.q_proj = nn.Linear(width, heads * head_dim, bias=False)
        self.k_proj = nn.Linear(width, kv_heads * head_dim, bias=False)
        self.v_proj = nn.Linear(width, kv_heads * head_dim, bias=False)
        self.o_proj = nn.Linear(heads * head_dim, width, bias=False)

    def split(self, projected_BTX: Tensor) -> Tensor:
        """(B, T, heads * H) -> (B, heads, T, H)."""
        B, T, _ = projected_BTX.shape
        return projected_BTX.view(B, T, -1, self.head_dim).transpose(1, 2)


class MLP(nn.Module):
    def __init__(self, width: int, mlp: int) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(width, mlp, bias=False)
        self.up_proj = nn.Linear(width, mlp, bias=False)
        self.down_proj = nn.Linear(mlp, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.down_proj(F.gelu(self.gate_proj(x), approximate="tanh") * self.up_proj(x))


class Block(nn.Module):
    def __init__(self, config: ExpertConfig, heads: int, kv_heads: int, head_dim: int) -> None:
        super().__init__()
        self.input_layernorm = RMSNorm(config.width)
        self.self_attn = Attention(config.width, heads, kv_heads, head_dim)
        self.post_attention_layernorm = RMSNorm(config.width)
        self.mlp = MLP(config.width, config.mlp)


class Expert(nn.Module):
    def __init__(self, config: ExpertConfig, layers: int, heads: int, kv_heads: int, head_dim: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(Block(config, heads, kv_heads, head_dim) for _ in range(layers))
        self.norm = RMSNorm(config.width)


class Mixture(nn.Module):
    """Experts of equal depth and head shape under one attention.

    recompute: in training, layers are run again for the gradient in place of keeping what they computed.
    """

    recompute = False

    def __init__(
        self, experts: Mapping[str, ExpertConfig], *, layers: int, heads: int, kv_heads: int, head_dim: int
    ) -> None:
        super().__init__()
        self.head_dim = head_dim
        self.layers = layers
        self.experts = nn.ModuleDict(
            {name: Expert(config, layers, heads, kv_heads, head_dim) for name, config in experts.items()}
        )

    def forward(
        self,
        streams: Mapping[str, Stream],
        mask: Tensor | None,
        cache: Cache | None = None,
        *,
        keys_only: frozenset[str] = frozenset(),
    ) -> tuple[dict[str, Tensor], Cache]:
        """Run `streams` together through all layers.

        mask: (B or 1, 1, T_total or 1, S_total) bool, True where a query may see a key; queries are the streams in
        order, keys are those of `cache` followed by the streams'. None lets every query see every key. keys_only:
        streams whose output nobody reads: their last layer makes keys and values and stops there.

        Returns the normalised outputs (B, T, D) of the other streams, and the cache with the streams' keys appended.
        """
        xs = {name: stream.x for name, stream in streams.items()}
        rotations = {name: rotation(stream.positions, self.head_dim) for name, stream in streams.items()}
        rerun = self.recompute and self.training and torch.is_grad_enabled()
        grown: Cache = []
        for i in range(self.layers):
            last = i == self.layers - 1
            readers = [name for name in xs if not (last and name in keys_only)]
            layer = partial(self._layer, i, readers=readers)
            if rerun:
                layer = partial(checkpoint, layer, use_reentrant=False)
            xs, keys_values = layer(xs, rotations, mask, cache[i] if cache else None)
            grown.append(keys_values)
        outputs = {name: self.experts[name].norm(x) for name, x in xs.items() if name not in keys_only}
        return outputs, grown

    def _layer(
        self,
        i: int,
        xs: dict[str, Tensor],
        rotations: Mapping[str, tuple[Tensor, Tensor]],
        mask: Tensor | None,
        cached: tuple[Tensor, Tensor] | None,
        *,
        readers: list[str],
    ) -> tuple[dict[str, Tensor], tuple[Tensor, Tensor]]:
        """Layer `i`: the streams (B, T, D) behind it, and the keys and values that its queries saw.

        Streams that are not among `readers` make keys and values only, and come out as they came in.
        """
        blocks = {name: self.experts[name].layers[i] for name in xs}
        queries, keys, values = [], [], []
        for name, block in blocks.items():
            attention, normed = block.self_attn, block.input_layernorm(xs[name])
            keys.append(rotate(attention.split(attention.k_proj(normed)), rotations[name]))
            values.append(attention.split(attention.v_proj(normed)))
            if name in readers:
                queries.append(rotate(attention.split(attention.q_proj(normed)), rotations[name]))
        if cached:
            keys, values = [cached[0], *keys], [cached[1], *values]
        k_BKSH, v_BKSH = torch.cat(keys, dim=2), torch.cat(values, dim=2)
        if not readers:
            return xs, (k_BKSH, v_BKSH)
        rows = mask if mask is None or mask.shape[2] == 1 else _rows(mask, xs, readers)
        attended_BNTH = attend(torch.cat(queries, dim=2), k_BKSH, v_BKSH, rows)
        attended_BTX = attended_BNTH.transpose(1, 2).flatten(2)
        after = dict(xs)
        for name, part in zip(readers, attended_BTX.split([xs[name].shape[1] for name in readers], dim=1), strict=True):
            x = xs[name] + blocks[name].self_attn.o_proj(part)
            after[name] = x + blocks[name].mlp(blocks[name].post_attention_layernorm(x))
        return after, (k_BKSH, v_BKSH)


def attend(q_BNTH: Tensor, k_BKSH: Tensor, v_BKSH: Tensor, mask: Tensor | None) -> Tensor:
    """Attention (B, N, T, H) of N query heads to K key/value heads; mask (B or 1, 1, T or 1, S), True where seen."""
    if not (q_BNTH.device.type == "cpu" and q_BNTH.dtype == torch.bfloat16 and torch.is_grad_enabled()):
        return F.scaled_dot_product_attention(q_BNTH, k_BKSH, v_BKSH, attn_mask=mask, enable_gqa=True)
    # PyTorch's own backward in bfloat16 takes a CPU 2.6 times as long as in float32; as matrix products the whole
    # training step takes 0.55 of that time. Query heads that share keys become rows of one product.
    batch, heads, rows, width = q_BNTH.shape
    shared = (batch, k_BKSH.shape[1], -1)
    scores_BNTS = ((q_BNTH * width**-0.5).reshape(*shared, width) @ k_BKSH.mT).view(batch, heads, rows, -1)
    if mask is not None:
        scores_BNTS = scores_BNTS + torch.zeros(mask.shape, dtype=scores_BNTS.dtype).masked_fill_(~mask, -torch.inf)
    weights = torch.ops.aten._softmax(scores_BNTS, -1, False)  # autocast would take softmax, and its output, to float32
    return (weights.view(*shared, k_BKSH.shape[2]) @ v_BKSH).view(q_BNTH.shape)


def rotation(positions_BT: Tensor, head_dim: int) -> tuple[Tensor, Tensor]:
    """Cosines and sines (B, 1, T, H) in float32."""
    exponents = torch.arange(0, head_dim, 2, dtype=torch.float32, device=positions_BT.device) / head_dim
    angles = positions_BT[:, None, :, None].float() * ROPE_THETA**-exponents
    angles = torch.cat([angles, angles], dim=-1)
    return angles.cos(), angles.sin()


def rotate(x_BNTH: Tensor, cos_sin: tuple[Tensor, Tensor]) -> Tensor:
    """Rotary embedding over the whole head width, halves paired as in Gemma; computed in float32."""
    cos, sin = cos_sin
    x = upcast(x_BNTH)
    first, second = x.chunk(2, dim=-1)
    return (x * cos + torch.cat([-second, first], dim=-1) * sin).to(x_BNTH.dtype)


def _rows(mask: Tensor, xs: Mapping[str, Tensor], readers: list[str]) -> Tensor:
    """The rows of `mask` that belong to `readers`."""
    parts = mask.split([x.shape[1] for x in xs.values()], dim=2)
    return torch.cat([part for name, part in zip(xs, parts, strict=True) if name in readers], dim=2)
