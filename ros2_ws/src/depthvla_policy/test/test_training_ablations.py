"""The paper's ablations (Tables III and IV): what each changes in the network's files, and in a training."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import tiny_model
import torch
from training_data import CAMERAS, INSTRUCTION, ROBOT

from depthvla_policy.model import config as model_config
from depthvla_policy.model.depthvla import DEPTH_PARTS
from depthvla_policy.policy import checkpoint
from depthvla_policy.policy.observation import Observation
from depthvla_policy.policy.policy import Policy
from depthvla_policy.training.config import find

# The paper's ablations: each file of models/configs changes exactly what it says.
ABLATIONS = {
    "i-random-depth": {"depth.start": "random"},
    "ii-no-depth-loss": {"depth.loss_weight": 0.0},
    "iii-frozen-depth": {"depth.frozen": True},
    "iv-joint-prefix": {"prefix_attention": "joint"},
    "v-true-depth": {"depth.input": "ground_truth"},
}


@pytest.mark.parametrize("size", ["small", "3b"])
@pytest.mark.parametrize("name", ABLATIONS)
def test_an_ablation_config_changes_exactly_what_it_says(name, size):
    base, values = (
        flat(dataclasses.asdict(model_config.read(find(f"depthvla-{size}{end}", "configs", ".json"))))
        for end in ("", f"-ablation-{name}")
    )
    assert {key: value for key, value in values.items() if base[key] != value} == ABLATIONS[name]


def flat(values, prefix=""):
    pairs = {}
    for key, value in values.items():
        pairs |= flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return pairs


def with_depth(**fields):
    return dataclasses.replace(tiny_model.CONFIG, depth=dataclasses.replace(tiny_model.CONFIG.depth, **fields))


def test_a_random_depth_start_takes_all_but_the_depth_expert_from_the_checkpoint(tmp_path):
    path = tiny_model.save_checkpoint(tmp_path / "start")
    start = checkpoint.load_model(path, tiny_model.CONFIG, "cpu", torch.float32)
    fresh = checkpoint.load_model(path, with_depth(start="random"), "cpu", torch.float32, fresh=DEPTH_PARTS)
    other = {name for name, p in fresh.named_parameters() if not torch.equal(p, start.get_parameter(name))}
    assert any(name.startswith("mixture.experts.depth.") for name in other)
    assert all(name.startswith(DEPTH_PARTS) for name in other)


def test_true_depth_enters_in_place_of_the_image(tmp_path):
    c = with_depth(input="ground_truth")
    model = tiny_model.model(c)
    depth_m = torch.rand(2, c.cameras, c.image_size, c.image_size) + 0.5
    inputs = dataclasses.replace(tiny_model.inputs(c), depth_m=depth_m)
    with torch.no_grad():
        before, after = model.prefix(inputs), model.prefix(dataclasses.replace(inputs, depth_m=0.5 * depth_m))
    vlm = c.image_tokens + c.max_text_tokens
    k, other = before.cache[0][0], after.cache[0][0]
    assert torch.equal(k[:, :, :vlm], other[:, :, :vlm]) and not torch.allclose(k[:, :, vlm:], other[:, :, vlm:])
    policy = Policy.load(tiny_model.save_checkpoint(tmp_path / "true", c))
    images = {name: np.zeros((36, 64, 3), np.uint8) for name in CAMERAS}
    seen = Observation(0, images, (ROBOT.position_min + ROBOT.position_max) / 2, INSTRUCTION)
    with pytest.raises(ValueError, match="takes true depth"):
        policy.infer(seen)
    maps = dict.fromkeys(CAMERAS, np.full((36, 64), 0.7, np.float32))
    assert np.isfinite(policy.infer(dataclasses.replace(seen, depth_m=maps), depth=True).actions).all()
