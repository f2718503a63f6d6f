"""Depth pre-training: its data, that it learns, and that its outcome becomes part of a policy."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import training_data

from depthvla_policy.convert import ConvertConfig, convert
from depthvla_policy.model import config as model_config
from depthvla_policy.training.stages import open_stage


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return training_data.write_demonstrations(tmp_path_factory.mktemp("data") / "lift", 8)


def test_the_pictures_of_demonstrations_serve_for_depth_pre_training(data, tmp_path):
    config = training_data.config(
        tmp_path,
        data,
        stage="depth-pretrain",
        steps=2,
        data={"layouts": ["lerobot"]},
        loss={"draws": 1, "grounding_weight": 0.0},
    )
    stage = open_stage(config, model_config.read(config.model))
    (train_images,), (held_out,) = stage.data.train, stage.data.held_out
    assert (len(train_images), len(held_out)) == (7 * 12 * 3, 1 * 12 * 3)
    image, depth_m = train_images[0]
    goal = np.random.default_rng(0).uniform(-0.5, 0.5)
    assert image.mean() == pytest.approx(128 + 200 * goal, abs=3) and np.nanmean(depth_m) == pytest.approx(
        1 + 0.5 * goal, abs=2e-3
    )
    bare = training_data.write_demonstrations(tmp_path / "bare", 3, depth=False)
    with pytest.raises(ValueError, match="no depth to learn from"):
        open_stage(
            dataclasses.replace(config, data=dataclasses.replace(config.data, folders=(str(bare),))),
            model_config.read(config.model),
        )


def test_depth_pre_training_lowers_the_error_and_makes_a_part_that_convert_takes(tmp_path):
    root = training_data.write_rgbd(tmp_path / "wildrgbd")
    config = training_data.config(
        tmp_path / "run",
        root,
        stage="depth-pretrain",
        steps=60,
        data={"layouts": ["wildrgbd"], "held_out": 0.2, "in_memory": False},
        loss={"draws": 1, "grounding_weight": 0.0},
        machine={"log_every": 20, "validate_every": 20},
    )
    before = training_data.trainer(config).validate()["held_out_abs_rel"]
    assert training_data.losses(config)[-1]["held_out_abs_rel"] < 0.5 * before
    out = tmp_path / "start"
    report = convert(ConvertConfig(out=out, config=Path(config.model), depth_decoder=Path(config.out)))
    assert report.layouts["depth_decoder"] == "our depth pre-training"
    assert {name for name in report.parameters if name not in report.fresh} == {
        name
        for name in report.parameters
        if name.startswith(("depth_encoder.", "depth_head.", "mixture.experts.depth."))
    }
