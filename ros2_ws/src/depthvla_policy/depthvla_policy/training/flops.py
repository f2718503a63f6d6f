"""Floating-point operations of one training step as torch counts them, and what the device could do at most.

Matrix products count, a multiplication and an addition as two. Their ratio is the model FLOPs utilisation (MFU;
Chowdhery et al. 2022, appendix B), for which a layer that is run again for its gradient counts once.
"""

from __future__ import annotations

import time

import torch
from torch import nn
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from depthvla_policy.model.config import ModelConfig
from depthvla_policy.training.batch import random_batch
from depthvla_policy.training.config import LossConfig
from depthvla_policy.training.draws import draw

# Dense bfloat16 with float32 accumulation [FLOP/s], from the makers' data sheets; the first that the name contains.
PEAKS = {
    "H100 PCIe": 756e12,
    "H100 NVL": 835e12,
    "H100": 989e12,
    "H200": 989e12,
    "A100": 312e12,
    "RTX 4090": 165e12,
}
GEMM_SIZE, GEMM_RUNS = 512, 8


def training_flops(objective: nn.Module, c: ModelConfig, loss: LossConfig) -> int:
    """Forward and backward of one observation through `objective`, a network of dimensions `c`, on shapes alone."""
    named = (*objective.named_parameters(), *objective.named_buffers())
    tensors = {name: t.detach().to("meta").requires_grad_(t.requires_grad) for name, t in named}
    given = random_batch(c, 1).to("meta"), draw(c, loss, 1, seed=0, step=0).to("meta")
    training = objective.training
    objective.eval()  # so that no layer is run again
    # Attention of the other kernels is not counted everywhere.
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        functional_call(objective, tensors, given)["total"].backward()
    objective.train(training)
    return counter.get_total_flops()


def peak_flops(device: torch.device, dtype: torch.dtype) -> float | None:
    """FLOP/s that one device could do at most: by its name, on a CPU by a matrix product; None for an unknown GPU."""
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
        return next((peak for part, peak in PEAKS.items() if part in name), None)
    a, b = (torch.ones(GEMM_SIZE, GEMM_SIZE, dtype=dtype) for _ in range(2))
    best = float("inf")
    for _ in range(GEMM_RUNS):
        begin = time.perf_counter()
        a @ b
        best = min(best, time.perf_counter() - begin)
    return 2 * GEMM_SIZE**3 / best
