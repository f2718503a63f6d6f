"""A vision transformer over folded weights, all cameras in one batch: SigLIP and DINOv2 differ in little."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from depthvla_policy.model.encoders import DinoEncoder, SiglipEncoder
from depthvla_policy.policy.engine.fold import joined
from depthvla_policy.policy.engine.linear import FusedLinear


@dataclass(frozen=True)
class _Layer:
    qkv: FusedLinear
    out: FusedLinear
    up: FusedLinear
    down: FusedLinear


def patches(images: Tensor, size: int) -> Tensor:
    """(C, 3, H, W) -> (C * tokens, 3 * size * size)."""
    C, channels, height, width = images.shape
    cut = images.reshape(C, channels, height // size, size, width // size, size)
    return cut.permute(0, 2, 4, 1, 3, 5).reshape(-1, channels * size * size)


class Vit:
    """Patches (C * tokens, 3 * size * size) of images in [0, 1] -> tokens (C * tokens, D)."""

    def __init__(
        self,
        patch: FusedLinear,
        positions: Tensor,
        first: Tensor | None,
        layers: list[_Layer],
        heads: int,
        eps: float,
        after: FusedLinear | None,
        affine: tuple[Tensor, Tensor] | None,
    ) -> None:
        """first: (1, D), a token in front of each image's, which is dropped in the end. after: a projection behind the
        last norm. affine: the last norm's own scale and shift.
        """
        self._patch, self._positions, self._first, self._layers = patch, positions, first, layers
        self._heads, self._eps, self._after, self._affine = heads, eps, after, affine

    @classmethod
    @torch.no_grad()
    def siglip(cls, encoder: SiglipEncoder, cameras: int) -> Vit:
        tower = encoder.tower
        embed, positions = tower.embeddings.patch_embedding, tower.embeddings.position_embedding.weight
        rows = cameras * len(positions)
        layers = [
            _layer(layer.self_attn, layer.self_attn.out_proj, layer.mlp, "gelu_tanh", rows)
            for layer in tower.encoder.layers
        ]
        # Images in [0, 1] are to be in [-1, 1].
        weight = embed.weight.float().flatten(1)
        return cls(
            _patch(2.0 * weight, embed.bias.float() - weight.sum(1), embed.weight, rows),
            positions,
            None,
            layers,
            tower.config.num_attention_heads,
            tower.config.layer_norm_eps,
            FusedLinear(encoder.projector.weight, encoder.projector.bias, rows=rows),
            None,
        )

    @classmethod
    @torch.no_grad()
    def dino(cls, encoder: DinoEncoder, cameras: int) -> Vit:
        tower = encoder.tower
        embeddings, config = tower.embeddings, tower.config
        embed, side = embeddings.patch_embeddings.projection, config.image_size
        tokens, known = (side // config.patch_size) ** 2, embeddings.position_embeddings
        rows = cameras * (tokens + 1)
        layers = [
            _layer(layer.attention, layer.attention.o_proj, layer.mlp, "gelu", rows) for layer in tower.encoder.layer
        ]
        weight = embed.weight.float() / encoder.std.float().to(embed.weight.device)
        shift = (weight * encoder.mean.float().to(weight.device)).flatten(1).sum(1)
        positions = embeddings.interpolate_pos_encoding(known.new_empty(1, tokens + 1, known.shape[2]), side, side)[0]
        return cls(
            _patch(weight.flatten(1), embed.bias.float() - shift, embed.weight, cameras * tokens),
            positions[1:],
            embeddings.cls_token[0] + positions[:1],
            layers,
            config.num_attention_heads,
            config.layer_norm_eps,
            None,
            (tower.layernorm.weight, tower.layernorm.bias),
        )

    def __call__(self, seen: Tensor, cameras: int) -> Tensor:
        x = self._patch(seen).view(cameras, *self._positions.shape) + self._positions
        if self._first is not None:
            x = torch.cat([self._first.expand(cameras, 1, -1), x], dim=1)
        shape, width = x.shape, x.shape[-1:]
        x = x.flatten(0, 1)
        for layer in self._layers:
            qkv = layer.qkv(F.layer_norm(x, width, eps=self._eps))
            queries, keys, values = qkv.view(*shape[:2], 3, self._heads, -1).permute(2, 0, 3, 1, 4)
            attended = F.scaled_dot_product_attention(queries, keys, values).transpose(1, 2).reshape(x.shape)
            x = layer.out.add(attended, x)
            x = layer.down.add(layer.up(F.layer_norm(x, width, eps=self._eps)), x)
        if self._first is not None:
            x = x.view(shape)[:, 1:].flatten(0, 1)
        x = F.layer_norm(x, width, *(self._affine or ()), eps=self._eps)
        return self._after(x) if self._after else x


def _layer(attention: nn.Module, out: nn.Linear, mlp: nn.Module, activation: str, rows: int) -> _Layer:
    qkv = joined(attention.q_proj, attention.k_proj, attention.v_proj)
    return _Layer(
        FusedLinear(*qkv, rows=rows),
        FusedLinear(out.weight, out.bias, rows=rows),
        FusedLinear(mlp.fc1.weight, mlp.fc1.bias, rows=rows, activation=activation),
        FusedLinear(mlp.fc2.weight, mlp.fc2.bias, rows=rows),
    )


def _patch(weight: Tensor, bias: Tensor, like: Tensor, rows: int) -> FusedLinear:
    return FusedLinear(weight.to(like.dtype), bias.to(like.dtype), rows=rows)
