"""Tiny checkpoints with random weights, in the layouts that others publish. The models are transformers' own."""

from __future__ import annotations

import json
import re
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import (
    DepthAnythingConfig,
    DepthAnythingForDepthEstimation,
    Dinov2Config,
    PaliGemmaConfig,
    PaliGemmaForConditionalGeneration,
    PI0Config,
    PI0ForConditionalGeneration,
)

from depthvla_policy.model.config import ModelConfig

DINO_GRID = 37  # 518 pixels in patches of 14, as DINOv2 was trained
TIED = "model.language_model.embed_tokens.weight", "lm_head.weight"


def randomise(model: nn.Module, std: float = 0.2) -> nn.Module:
    """Every parameter random and large enough that an error shows."""
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * std)
    return model.eval()


def gemma(c: ModelConfig, width: int, mlp: int, vocab_size: int) -> dict:
    return {
        "model_type": "gemma",
        "hidden_size": width,
        "intermediate_size": mlp,
        "num_hidden_layers": c.layers,
        "num_attention_heads": c.heads,
        "num_key_value_heads": c.kv_heads,
        "head_dim": c.head_dim,
        "vocab_size": vocab_size,
    }


def paligemma_config(c: ModelConfig, vocab_size: int) -> dict:
    vision = {
        "model_type": "siglip_vision_model",
        "hidden_size": c.vision.width,
        "intermediate_size": c.vision.mlp,
        "num_hidden_layers": c.vision.layers,
        "num_attention_heads": c.vision.heads,
        "image_size": c.image_size,
        "patch_size": c.patch_size,
        "vision_use_head": False,
    }
    return {
        "model_type": "paligemma",
        "text_config": gemma(c, c.vlm.width, c.vlm.mlp, vocab_size),
        "vision_config": vision,
        "projection_dim": c.vlm.width,
        "hidden_size": c.vlm.width,
        "image_token_id": vocab_size,
    }


def paligemma(c: ModelConfig, extra_rows: int = 0) -> PaliGemmaForConditionalGeneration:
    config = paligemma_config(c, c.vocab_size + extra_rows)
    config.pop("model_type")
    config["text_config"]["use_bidirectional_attention"] = True
    return randomise(PaliGemmaForConditionalGeneration(PaliGemmaConfig(**config)))


def pi0(c: ModelConfig) -> PI0ForConditionalGeneration:
    config = PI0Config(
        vlm_config=paligemma_config(c, c.vocab_size),
        dit_config=gemma(c, c.action.width, c.action.mlp, c.vocab_size),
        chunk_size=c.horizon,
        max_state_dim=c.state_dim,
        max_action_dim=c.action_dim,
    )
    return randomise(PI0ForConditionalGeneration(config))


def depth_anything(c: ModelConfig) -> DepthAnythingForDepthEstimation:
    encoder = c.depth.encoder
    backbone = Dinov2Config(
        hidden_size=encoder.width,
        mlp_ratio=encoder.mlp // encoder.width,
        num_hidden_layers=encoder.layers,
        num_attention_heads=encoder.heads,
        image_size=DINO_GRID * c.patch_size,
        patch_size=c.patch_size,
        out_indices=[1, encoder.layers],
        apply_layernorm=True,
        reshape_hidden_states=False,
    )
    config = DepthAnythingConfig(
        backbone_config=backbone,
        patch_size=c.patch_size,
        reassemble_hidden_size=encoder.width,
        reassemble_factors=[1, 1],
        neck_hidden_sizes=[8, 8],
        fusion_hidden_size=8,
        head_hidden_size=4,
    )
    return randomise(DepthAnythingForDepthEstimation(config))


def tensors(model: nn.Module) -> dict[str, Tensor]:
    """The names a model has in memory."""
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def renamed(weights: dict[str, Tensor], *changes: tuple[str, str]) -> dict[str, Tensor]:
    """`weights` with regular expressions replaced in their names, one after another."""
    result = {}
    for name, tensor in weights.items():
        for pattern, replacement in changes:
            name = re.sub(pattern, replacement, name)
        result[name] = tensor
    return result


def paligemma_hub(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """PaliGemma as on the hub: no head of its own, it is tied."""
    weights = {name: tensor for name, tensor in weights.items() if name != "lm_head.weight"}
    return renamed(
        weights,
        (r"^model\.language_model\.", "language_model.model."),
        (r"^model\.vision_tower\.", "vision_tower.vision_model."),
        (r"^model\.multi_modal", "multi_modal"),
    )


def openpi(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """A PI0 as openpi's conversion from JAX saves it: the head stays, the embedding tied to it is dropped."""
    return renamed(
        weights,
        (r"^model\.vlm\.language_model\.embed_tokens", "paligemma_with_expert.paligemma.lm_head"),
        (r"^model\.vlm\.vision_tower\.", "paligemma_with_expert.paligemma.model.vision_tower.vision_model."),
        (r"^model\.vlm\.", "paligemma_with_expert.paligemma.model."),
        (r"^model\.dit\.embed_tokens", "paligemma_with_expert.gemma_expert.lm_head"),
        (r"^model\.dit\.", "paligemma_with_expert.gemma_expert.model."),
        (r"^embed_action_time\.", ""),
    )


def old_dinov2(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """DINOv2's attention as it was called up to transformers 5.17."""
    return renamed(
        weights,
        (r"attention\.q_proj", "attention.attention.query"),
        (r"attention\.k_proj", "attention.attention.key"),
        (r"attention\.v_proj", "attention.attention.value"),
        (r"attention\.o_proj", "attention.output.dense"),
    )


def original_dinov2(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """DINOv2 as in Meta's .pth files: query, key and value in one."""
    result = {}
    for name, tensor in weights.items():
        if ".attention.q_proj." in name:
            parts = [weights[name.replace("q_proj", x)] for x in ("q_proj", "k_proj", "v_proj")]
            result[name.replace("q_proj", "qkv")] = torch.cat(parts)
        elif ".attention.k_proj." not in name and ".attention.v_proj." not in name:
            result[name] = tensor
    return renamed(
        result,
        (r"embeddings\.patch_embeddings\.projection", "patch_embed.proj"),
        (r"embeddings\.position_embeddings", "pos_embed"),
        (r"embeddings\.", ""),
        (r"encoder\.layer\.", "blocks."),
        (r"attention\.qkv", "attn.qkv"),
        (r"attention\.o_proj", "attn.proj"),
        (r"layer_scale(\d)\.lambda1", r"ls\1.gamma"),
        (r"^layernorm\.", "norm."),
    )


def only(weights: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """What is under `prefix`, without it."""
    return {name[len(prefix) :]: tensor for name, tensor in weights.items() if name.startswith(prefix)}


def under(weights: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {prefix + name: tensor for name, tensor in weights.items()}


def write(weights: dict[str, Tensor], path: Path, *, shards: int = 1) -> Path:
    """A file when `path` has a suffix; else a folder with one file, or with `shards` and an index."""
    weights = {name: tensor.contiguous() for name, tensor in weights.items()}
    if path.suffix in (".pth", ".pt"):
        torch.save(weights, path)
        return path
    if path.suffix:
        save_file(weights, path)
        return path
    path.mkdir(parents=True)
    if shards == 1:
        save_file(weights, path / "model.safetensors")
        return path
    names, index = list(weights), {}
    for i in range(shards):
        file = f"model-{i + 1:05}-of-{shards:05}.safetensors"
        save_file({name: weights[name] for name in names[i::shards]}, path / file)
        index |= dict.fromkeys(names[i::shards], file)
    (path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))
    return path
