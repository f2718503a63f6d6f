"""The tables of foreign names, read in both directions."""

from __future__ import annotations

import pytest
import tiny_model
import torch

from depthvla_policy.model import layouts
from depthvla_policy.model.depthvla import DepthVLA
from depthvla_policy.model.layouts import LAYOUTS

EVERY = [layout for known in LAYOUTS.values() for layout in known]


@pytest.fixture(scope="module")
def names():
    with torch.device("meta"):
        return list(DepthVLA(tiny_model.CONFIG).state_dict())


def test_every_tensor_of_the_network_belongs_to_one_part(names):
    for name in names:
        owners = [part for part, prefixes in layouts.PARTS.items() if name.startswith(prefixes)]
        assert owners == [layouts.part_of(name)]


@pytest.mark.parametrize("layout", EVERY, ids=lambda layout: layout.name)
def test_a_layout_names_every_tensor_of_its_parts_and_finds_it_again(layout, names):
    mine = [name for name in names if layouts.part_of(name) in layout.parts + layout.may_bring]
    assert mine
    for name in mine:
        _, ours = layout.find(layout.foreign(name))
        assert name in ours
    for name in set(names) - set(mine):
        if layout is not layouts.OWN_DEPTH:
            with pytest.raises(KeyError, match=name):
                layout.foreign(name)


@pytest.mark.parametrize(
    ("layout", "key", "ours"),
    [
        (
            layouts.PALIGEMMA_HUB,
            "language_model.model.layers.17.mlp.up_proj.weight",
            ("mixture.experts.vlm.layers.17.mlp.up_proj.weight",),
        ),
        (layouts.PALIGEMMA_HUB, "language_model.lm_head.weight", ("embed_tokens.weight",)),
        (layouts.PALIGEMMA_HUB, "multi_modal_projector.linear.bias", ("vision.projector.bias",)),
        (
            layouts.PALIGEMMA,
            "model.vision_tower.vision_model.post_layernorm.weight",
            ("vision.tower.post_layernorm.weight",),
        ),
        (layouts.OPENPI, "paligemma_with_expert.paligemma.lm_head.weight", ("embed_tokens.weight",)),
        (layouts.OPENPI, "paligemma_with_expert.gemma_expert.lm_head.weight", ()),
        (layouts.LEROBOT, "model.state_proj.weight", ("state_proj.weight",)),
        (
            layouts.LEROBOT,
            "model.paligemma_with_expert.paligemma.language_model.model.layers.0.mlp.up_proj.weight",
            ("mixture.experts.vlm.layers.0.mlp.up_proj.weight",),
        ),
        (layouts.LEROBOT, "unnormalize_outputs.buffer_action.std", ()),
        (layouts.TRANSFORMERS_PI0, "embed_action_time.action_time_mlp_in.bias", ("action_time_mlp_in.bias",)),
        (
            layouts.DEPTH_ANYTHING_ORIGINAL,
            "pretrained.blocks.23.attn.qkv.bias",
            tuple(f"depth_encoder.tower.encoder.layer.23.attention.{x}_proj.bias" for x in "qkv"),
        ),
        (layouts.DEPTH_ANYTHING, "neck.convs.0.weight", ()),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_published_name_is_known(layout, key, ours):
    rule, found = layout.find(key)
    assert found == ours
    assert bool(rule.why) == (not ours or rule.fallback)


@pytest.mark.parametrize(
    ("layout", "key"),
    [
        (layouts.OPENPI, "time_mlp_in.weight"),  # pi0.5
        (layouts.OPENPI, "model.state_proj.weight"),
        (layouts.OPENPI, "normalize_inputs.buffer_observation_state.mean"),
        (layouts.PALIGEMMA, "model.vision_tower.head.probe"),
        (layouts.DINOV2, "backbone.layernorm.weight"),
        (layouts.DINOV2_ORIGINAL, "blocks.0.attn.qkv.scale"),
    ],
)
def test_another_name_is_not(layout, key):
    assert layout.find(key) is None


def test_names_of_a_pi05_are_told_from_those_of_every_layout(names):
    published = [layout.foreign(name) for layout in EVERY for name in names if layouts.part_of(name) in layout.parts]
    assert published and not layouts.only_in_pi05(published)
    pi05 = [
        "time_mlp_out.bias",
        "model.time_mlp_in.weight",
        "paligemma_with_expert.gemma_expert.model.layers.3.post_attention_layernorm.dense.weight",
        "model.paligemma_with_expert.gemma_expert.model.norm.dense.bias",
    ]
    assert layouts.only_in_pi05(published + pi05) == pi05
