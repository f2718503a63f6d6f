"""A pi0 of ours as transformers' `PI0ForConditionalGeneration`."""

from __future__ import annotations

import json
from pathlib import Path

from safetensors import safe_open
from safetensors.torch import save_file
from tqdm import tqdm

from depthvla_policy.model import layouts
from depthvla_policy.model.config import ModelConfig
from depthvla_policy.policy import checkpoint
from depthvla_policy.policy.checkpoint import CheckpointConfig
from r1lite_description import files


def export(folder: Path, out: Path) -> None:
    """Write the pi0 checkpoint `folder` of ours to `out`, as transformers' `PI0ForConditionalGeneration` loads it.

    Raises:
        FileNotFoundError: the checkpoint lacks a file.
        ValueError: it cannot be read or is no pi0, or `out` holds a checkpoint already.
    """
    checkpoint.check_free(out)
    c = CheckpointConfig.read(folder).model
    if c.depth:
        raise ValueError(f"{folder} has a depth expert, which transformers' PI0 does not know; depth must be null")
    layout = layouts.TRANSFORMERS_PI0
    path = checkpoint.weights_path(folder)
    with files.reading(path, checkpoint.WANTED), safe_open(path, framework="pt") as file:
        names = tqdm(list(file.keys()), unit="tensor", desc="export", disable=None)
        weights = {layout.foreign(name): file.get_tensor(name) for name in names}
    embedding = weights[layout.foreign(layouts.EMBEDDING)]
    # transformers gives the action expert token embeddings that nothing reads; without them it reports them missing.
    weights["model.dit.embed_tokens.weight"] = embedding.new_zeros(c.vocab_size, c.action.width)
    out.mkdir(parents=True, exist_ok=True)
    settings = pi0_config(c) | {"dtype": str(embedding.dtype).removeprefix("torch.")}
    (out / checkpoint.CONFIG).write_text(json.dumps(settings, indent=2) + "\n")
    save_file(weights, out / checkpoint.WEIGHTS, metadata={"format": "pt"})


def pi0_config(c: ModelConfig) -> dict:
    """`config.json` of transformers' PI0Config."""
    gemma = {
        "model_type": "gemma",
        "num_hidden_layers": c.layers,
        "num_attention_heads": c.heads,
        "num_key_value_heads": c.kv_heads,
        "head_dim": c.head_dim,
        "vocab_size": c.vocab_size,
    }
    vision = {
        "model_type": "siglip_vision_model",
        "hidden_size": c.vision.width,
        "intermediate_size": c.vision.mlp,
        "num_hidden_layers": c.vision.layers,
        "num_attention_heads": c.vision.heads,
        "image_size": c.image_size,
        "patch_size": c.patch_size,
        "projection_dim": c.vlm.width,
        "vision_use_head": False,
    }
    return {
        "architectures": ["PI0ForConditionalGeneration"],
        "model_type": "pi0",
        "chunk_size": c.horizon,
        "max_state_dim": c.state_dim,
        "max_action_dim": c.action_dim,
        "num_inference_steps": c.euler_steps,
        "vlm_config": {
            "model_type": "paligemma",
            "hidden_size": c.vlm.width,
            "projection_dim": c.vlm.width,
            "image_token_index": c.vocab_size,
            "text_config": {**gemma, "hidden_size": c.vlm.width, "intermediate_size": c.vlm.mlp},
            "vision_config": vision,
        },
        "dit_config": {**gemma, "hidden_size": c.action.width, "intermediate_size": c.action.mlp},
    }
