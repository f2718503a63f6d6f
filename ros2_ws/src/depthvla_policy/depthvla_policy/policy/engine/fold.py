"""Rearranges a network's weights for the engine, in place: it stays the same network, up to rounding, of the same size.

The scale of a norm goes into the projections behind it, and projections of the same input become views of one matrix.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from depthvla_policy.model.depthvla import DepthVLA


@torch.no_grad()
def fold(model: DepthVLA) -> None:
    """Fold norms, layer scales and parallel projections. A folded network may be folded again: nothing changes then."""
    for expert in model.mixture.experts.values():
        for block in expert.layers:
            attention, mlp = block.self_attn, block.mlp
            _scale_columns(block.input_layernorm, attention.q_proj, attention.k_proj, attention.v_proj)
            _scale_columns(block.post_attention_layernorm, mlp.gate_proj, mlp.up_proj)
            _join(attention.q_proj, attention.k_proj, attention.v_proj)
            _join(mlp.gate_proj, mlp.up_proj)
    for layer in model.vision.tower.encoder.layers:
        attention = layer.self_attn
        _fold_affine(layer.layer_norm1, attention.q_proj, attention.k_proj, attention.v_proj)
        _fold_affine(layer.layer_norm2, layer.mlp.fc1)
        _join(attention.q_proj, attention.k_proj, attention.v_proj)
    _fold_affine(model.vision.tower.post_layernorm, model.vision.projector)
    if model.config.depth:
        for layer in model.depth_encoder.tower.encoder.layer:
            attention = layer.attention
            _fold_affine(layer.norm1, attention.q_proj, attention.k_proj, attention.v_proj)
            _fold_affine(layer.norm2, layer.mlp.fc1)
            _scale_rows(layer.layer_scale1.lambda1, attention.o_proj)
            _scale_rows(layer.layer_scale2.lambda1, layer.mlp.fc2)
            _join(attention.q_proj, attention.k_proj, attention.v_proj)


def joined(*linears: nn.Linear) -> tuple[Tensor, Tensor | None]:
    """The one matrix, and bias, of which the linears' are views since `fold`."""
    rows = sum(linear.out_features for linear in linears)
    first = linears[0]
    weight = first.weight.as_strided((rows, first.in_features), (first.in_features, 1))
    return weight, None if first.bias is None else first.bias.as_strided((rows,), (1,))


def _scale_columns(norm: nn.Module, *linears: nn.Linear) -> None:
    """Gemma's norm multiplies by one more than its weight."""
    for linear in linears:
        _replace(linear.weight, linear.weight.float() * (1.0 + norm.weight.float()))
    norm.weight.zero_()


def _fold_affine(norm: nn.LayerNorm, *linears: nn.Linear) -> None:
    for linear in linears:
        weight = linear.weight.float()
        _replace(linear.bias, linear.bias.float() + weight @ norm.bias.float())
        _replace(linear.weight, weight * norm.weight.float())
    norm.weight.fill_(1.0)
    norm.bias.zero_()


def _scale_rows(scale: Tensor, linear: nn.Linear) -> None:
    _replace(linear.weight, linear.weight.float() * scale.float()[:, None])
    _replace(linear.bias, linear.bias.float() * scale.float())
    scale.fill_(1.0)


def _replace(parameter: nn.Parameter, value: Tensor) -> None:
    # A new tensor: the old one may be mapped from a file.
    parameter.data = value.to(parameter.dtype)


def _join(*linears: nn.Linear) -> None:
    for name in ("weight", "bias"):
        parts = [getattr(linear, name) for linear in linears]
        if parts[0] is None:
            continue
        whole = torch.cat([part.data for part in parts])
        for part, rows in zip(parts, whole.split([len(part) for part in parts]), strict=True):
            part.data = rows
