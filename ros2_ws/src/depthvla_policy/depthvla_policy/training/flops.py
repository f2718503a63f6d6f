"""Floating-point operations of one training step from the network's dimensions, and what the device could do at most.

Matrix products count, a multiplication and an addition as two; a layer that is run again for its gradient counts once.
Their ratio is the model FLOPs utilisation (MFU; Chowdhery et al. 2022, appendix B).
"""

from __future__ import annotations

import time
from collections.abc import Collection
from dataclasses import dataclass

import torch

from depthvla_policy.model.config import EncoderConfig, ExpertConfig, ModelConfig

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


@dataclass(frozen=True)
class Work:
    """Operations of a forward pass: in linear layers, in attention, and in layers that see data and so have no gradient
    to hand on.
    """

    linear: float = 0.0
    attention: float = 0.0
    first: float = 0.0

    def __add__(self, other: Work) -> Work:
        return Work(self.linear + other.linear, self.attention + other.attention, self.first + other.first)

    def __mul__(self, times: float) -> Work:
        return Work(self.linear * times, self.attention * times, self.first * times)

    def forward(self) -> float:
        return self.linear + self.attention + self.first

    def backward(self, *, weights: bool, inputs: bool) -> float:
        """weights: whether the layers' own weights are trained. inputs: whether anything before them is."""
        passed = self.linear + 2 * self.attention if weights or inputs else 0.0
        return passed + (self.linear + self.first if weights else 0.0)


def policy_flops(c: ModelConfig, trained: Collection[str], *, draws: int, depth: bool, lora: bool = False) -> float:
    """Forward and backward of one observation with `draws` draws of noise and time.

    trained: parts of `layouts.PARTS` that have a gradient. depth: whether its output enters the loss. lora: whether
    adapters are trained in place of the mixture's weights; their own work is left out.
    """
    image_tokens, depth_tokens = c.image_tokens, c.image_tokens if c.depth else 0
    vlm_tokens = image_tokens + c.max_text_tokens
    prefix = vlm_tokens + depth_tokens
    joint = c.prefix_attention == "joint"
    vision = encoder_work(c.vision, c, extra=0) * c.cameras + Work(
        linear_flops(image_tokens, c.vision.width, c.vlm.width)
    )
    text = expert_work(c, c.vlm, vlm_tokens, prefix if joint else vlm_tokens, False)
    own = "vlm" in trained and not lora
    works = [(vision, own, False), (text, own, "vlm" in trained and lora)]
    if c.depth:
        seen = prefix if joint else c.grid**2 if c.cameras_apart else depth_tokens
        works += _depth(c, trained, c.cameras, seen, depth, lora)
    D, H = c.action.width, c.horizon
    action = expert_work(c, c.action, H, prefix + 1 + H, True)
    ends = Work(
        linear_flops(H, 2 * D, D) + linear_flops(H, D, D) + linear_flops(H, D, c.action_dim),
        0,
        linear_flops(H, c.action_dim, D),
    )
    state = expert_work(c, c.action, 1, prefix + 1, False) + Work(first=linear_flops(1, c.state_dim, D))
    works += [((action + ends) * draws + state, "action" in trained and not lora, True)]
    return _total(works)


def depth_flops(c: ModelConfig, trained: Collection[str]) -> float:
    """Forward and backward of one image through the depth expert alone."""
    return _total(_depth(c, trained, 1, c.grid**2, True, False))


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


def _total(works: list[tuple[Work, bool, bool]]) -> float:
    return sum(work.forward() + work.backward(weights=weights, inputs=inputs) for work, weights, inputs in works)


def _depth(
    c: ModelConfig, trained: Collection[str], images: int, keys: int, head: bool, lora: bool
) -> list[tuple[Work, bool, bool]]:
    tokens, encoder = images * c.grid**2, "depth_encoder" in trained and not lora
    decoder = expert_work(c, c.depth.expert, tokens, keys, head)
    if head:
        decoder += Work(linear_flops(tokens, c.depth.expert.width, c.depth.head_pixels**2))
    return [
        (encoder_work(c.depth.encoder, c, extra=1) * images, encoder, False),
        (decoder, "depth_decoder" in trained and not lora, encoder or (lora and "depth_decoder" in trained)),
    ]


def encoder_work(e: EncoderConfig, c: ModelConfig, *, extra: int) -> Work:
    """A vision transformer on one image, with `extra` tokens beside the patches."""
    tokens = c.grid**2 + extra
    layer = Work(
        4 * linear_flops(tokens, e.width, e.width) + 2 * linear_flops(tokens, e.width, e.mlp), 4 * tokens**2 * e.width
    )
    return layer * e.layers + Work(first=linear_flops(c.grid**2, 3 * c.patch_size**2, e.width))


def expert_work(c: ModelConfig, e: ExpertConfig, tokens: int, keys: int, read: bool) -> Work:
    """An expert of the mixture; where its output is not `read`, its last layer makes keys and values only."""
    q, kv = c.heads * c.head_dim, c.kv_heads * c.head_dim
    keys_values = Work(2 * linear_flops(tokens, e.width, kv))
    rest = Work(2 * linear_flops(tokens, e.width, q) + 3 * linear_flops(tokens, e.width, e.mlp), 4 * tokens * keys * q)
    return keys_values * c.layers + rest * (c.layers if read else c.layers - 1)


def linear_flops(tokens: int, inputs: int, outputs: int) -> float:
    return 2.0 * tokens * inputs * outputs
