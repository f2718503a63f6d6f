"""Low-rank adapters (Hu et al. 2021, arXiv 2106.09685): y = W x + b + (alpha / rank) B A x with W held fixed.

Not peft: it renames what it wraps (`q_proj.base_layer.weight`), so states of earlier trainings would not be read, and
merges inside the network, not what was gathered from several processes.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from depthvla_policy.training.config import LoraConfig

A, B = "lora_a", "lora_b"


class LoraLinear(nn.Linear):
    """A linear layer that takes over weight and bias of another, under the same names. B starts at zero."""

    def __init__(self, linear: nn.Linear, rank: int, alpha: float) -> None:
        super().__init__(linear.in_features, linear.out_features, bias=False, device="meta")
        self.weight, self.bias = linear.weight, linear.bias
        self.scale = alpha / rank
        self.lora_a = nn.Parameter(linear.weight.new_empty(rank, linear.in_features))
        self.lora_b = nn.Parameter(linear.weight.new_zeros(linear.out_features, rank))
        nn.init.kaiming_uniform_(self.lora_a, a=math.sqrt(5))

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + self.scale * F.linear(F.linear(x, self.lora_a), self.lora_b)


def adapt(mixture: nn.Module, config: LoraConfig) -> None:
    """Replace the layers of `mixture` that `config.targets` names."""
    for module in list(mixture.modules()):
        for name, child in list(module.named_children()):
            if name in config.targets and isinstance(child, nn.Linear):
                setattr(module, name, LoraLinear(child, config.rank, config.alpha))


@torch.no_grad()
def merge(weights: dict[str, Tensor], config: LoraConfig) -> dict[str, Tensor]:
    """The weights of a network with adapters as those of one without."""
    merged = {name: tensor for name, tensor in weights.items() if not name.endswith((A, B))}
    for name in weights:
        if name.endswith(A):
            layer = name.removesuffix(A)
            product = weights[layer + B] @ weights[name]
            merged[layer + "weight"] = weights[layer + "weight"] + config.alpha / config.rank * product
    return merged
