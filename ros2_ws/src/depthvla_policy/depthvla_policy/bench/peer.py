"""Transformers' own pi0 with our dimensions and random weights, to be timed in the same run."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from transformers import PI0Config, PI0ForConditionalGeneration

from depthvla_policy.conversion.to_transformers import pi0_config
from depthvla_policy.model.config import ModelConfig
from depthvla_policy.model.depthvla import Inputs


def sampler(
    c: ModelConfig, inputs: Inputs, noise: Tensor, dtype: torch.dtype, *, compiled: bool = False
) -> Callable[[], Tensor]:
    """Samples a chunk (1, horizon, action_dim) on the device of `noise`, with `sample_actions` compiled or as it is."""
    # Made where it is used, in its dtype: at full size that is a question of minutes and of 14 GB.
    with torch.device(noise.device):
        config = PI0Config.from_dict(pi0_config(c))
        model = PI0ForConditionalGeneration._from_config(config, dtype=dtype).eval()
    sample = torch.compile(model.sample_actions) if compiled else model.sample_actions
    cameras = inputs.images.shape[1]
    image = torch.full((1, cameras * c.grid**2), c.vocab_size, device=noise.device)
    ids = torch.cat([image, inputs.text], dim=1)
    batch = {
        "input_ids": ids,
        "attention_mask": torch.ones_like(ids),
        "pixel_values": inputs.images * 2.0 - 1.0,
        "pixel_attention_mask": torch.ones(1, cameras, dtype=torch.bool, device=noise.device),
        "state": inputs.state,
    }
    return lambda: sample(**batch, noise=noise.to(dtype))
