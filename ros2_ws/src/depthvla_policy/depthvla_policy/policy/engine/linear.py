"""A linear layer for a known number of rows, with what comes before and after it in one call where the machine can."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

# Below this many results oneDNN's call costs more than its better kernel saves.
MIN_PACKED = 8192
MAX_PACKED = 2**21  # parameters


class FusedLinear:
    """x @ weight.T + bias, then an activation or the addition of a residual.

    On a CPU in float32 the weight is packed for oneDNN, which reaches twice the rate of the default library where that
    knows the processor badly; the packed copy takes as much memory as the weight, so only small ones are. Elsewhere
    nothing is copied. The packed operations are those that torch.compile calls; there is no public name for them.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None, *, rows: int, activation: str = "none") -> None:
        """rows: how many there will mostly be. activation: "none", "gelu" or "gelu_tanh"."""
        self._weight, self._bias = weight, bias
        self._approximate = {"none": "", "gelu": "none", "gelu_tanh": "tanh"}[activation]
        self._packed: Tensor | None = None
        if can_pack(weight) and rows * len(weight) >= MIN_PACKED:
            self._packed = torch.ops.mkldnn._reorder_linear_weight(weight.detach().contiguous(), rows)

    def __call__(self, x: Tensor) -> Tensor:
        if self._packed is not None:
            kind = "gelu" if self._approximate else "none"
            return torch.ops.mkldnn._linear_pointwise(x, self._packed, self._bias, kind, [], self._approximate)
        y = F.linear(x, self._weight, self._bias)
        return F.gelu(y, approximate=self._approximate) if self._approximate else y

    def add(self, x: Tensor, residual: Tensor) -> Tensor:
        """The layer of x, on top of `residual`."""
        if self._packed is not None:
            return torch.ops.mkldnn._linear_pointwise.binary(x, residual, self._packed, self._bias, "add")
        if self._bias is None and x.dim() == 2:
            return torch.addmm(residual, x, self._weight.t())
        return residual + F.linear(x, self._weight, self._bias)


def can_pack(weight: Tensor) -> bool:
    return (
        weight.device.type == "cpu"
        and weight.dtype == torch.float32
        and weight.numel() <= MAX_PACKED
        and torch.backends.mkldnn.is_available()
        and hasattr(torch.ops.mkldnn, "_reorder_linear_weight")
    )
