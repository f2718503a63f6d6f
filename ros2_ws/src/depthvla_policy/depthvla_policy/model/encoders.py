"""Image encoders, from transformers: SigLIP for the VLM expert, DINOv2 (Depth Anything V2) for the depth expert.

Both take images in [0, 1] and normalise them as their pre-training did.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from transformers import Dinov2Config, Dinov2Model, SiglipVisionConfig, SiglipVisionModel

from depthvla_policy.model.config import EncoderConfig

DEPTH_RANGE_M = (0.1, 10.0)
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def depth_image(depth_m: Tensor) -> Tensor:
    """True depth (..., H, W) in metres as an image (..., 3, H, W) in [0, 1] for the depth encoder.

    Logarithmic from 0.1 m to 10 m, so that a centimetre near the gripper weighs more than one at the wall; what is not
    known is 0, like nearest.
    """
    near, far = DEPTH_RANGE_M
    known = torch.isfinite(depth_m) & (depth_m > 0)
    scaled = torch.where(known, depth_m, near).div(near).log() / math.log(far / near)
    return scaled.clamp(0.0, 1.0).unsqueeze(-3).expand(*depth_m.shape[:-2], 3, *depth_m.shape[-2:])


@torch.no_grad()
def _place(positions_TD: Tensor) -> None:
    """Start a table of positions, row by row of a square grid, as sines and cosines of row and column (He et al. 2022).

    transformers starts it with small noise, below which a small network from nothing hardly sees where a patch is.
    """
    tokens, width = positions_TD.shape
    bands = math.ceil(width / 4)
    frequencies = 1e4 ** -(torch.arange(bands) / bands)
    angles = torch.arange(math.isqrt(tokens))[:, None] * frequencies
    waves = torch.cat([angles.sin(), angles.cos()], dim=1)
    row, column = waves[:, None].expand(-1, len(waves), -1), waves.expand(len(waves), -1, -1)
    positions_TD.copy_(torch.cat([row, column], dim=-1).flatten(0, 1)[:, :width])


class SiglipEncoder(nn.Module):
    """SigLIP patch tokens projected to the VLM's width (PaliGemma's multi-modal projector)."""

    def __init__(self, config: EncoderConfig, image_size: int, patch_size: int, width: int) -> None:
        super().__init__()
        self.tower = SiglipVisionModel(
            SiglipVisionConfig(
                hidden_size=config.width,
                intermediate_size=config.mlp,
                num_hidden_layers=config.layers,
                num_attention_heads=config.heads,
                image_size=image_size,
                patch_size=patch_size,
                vision_use_head=False,
            )
        )
        self.projector = nn.Linear(config.width, width)
        _place(self.tower.embeddings.position_embedding.weight)

    def restore_buffers(self) -> None:
        """Make what a checkpoint does not hold, after the network was built on the meta device."""
        embeddings = self.tower.embeddings
        if embeddings.position_ids.is_meta:
            embeddings.position_ids = torch.arange(embeddings.num_positions).expand(1, -1)

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) in [0, 1] -> (B, tokens, width)."""
        return self.projector(self.tower(images * 2.0 - 1.0).last_hidden_state)


class DinoEncoder(nn.Module):
    """DINOv2 patch tokens at the depth expert's width, without the class token."""

    def __init__(self, config: EncoderConfig, image_size: int, patch_size: int) -> None:
        super().__init__()
        if config.mlp % config.width:
            raise ValueError(f"depth.encoder.mlp {config.mlp} must be a multiple of its width {config.width}")
        self.tower = Dinov2Model(
            Dinov2Config(
                hidden_size=config.width,
                mlp_ratio=config.mlp // config.width,
                num_hidden_layers=config.layers,
                num_attention_heads=config.heads,
                image_size=image_size,
                patch_size=patch_size,
            )
        )
        _place(self.tower.embeddings.position_embeddings[0, 1:])
        # On the CPU whatever the default device: a network that is built on the meta device must keep its constants.
        constants = torch.tensor([IMAGENET_MEAN, IMAGENET_STD], device="cpu")
        self.register_buffer("mean", constants[0].view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", constants[1].view(1, 3, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) in [0, 1] -> (B, tokens, width)."""
        return self.tower((images - self.mean) / self.std).last_hidden_state[:, 1:]
