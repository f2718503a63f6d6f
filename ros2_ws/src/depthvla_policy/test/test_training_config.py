"""Settings of a training: those that are named, and what is said about wrong ones."""

from __future__ import annotations

import pytest
import yaml

from depthvla_policy import train
from depthvla_policy.model import config as model_config
from depthvla_policy.training.config import find, read


@pytest.mark.parametrize("path", sorted(find("r1lite-small", "training", ".yaml").parent.glob("*.yaml")))
def test_every_named_configuration_is_read_with_a_network_that_there_is(path):
    if path.stem.startswith("accelerate"):
        assert yaml.safe_load(path.read_text())["fsdp_config"]["fsdp_version"] == 2
        return
    config = read(path.stem)
    c = model_config.read(find(config.model, "configs", ".json"))
    assert config.loss.max_delay < c.horizon and config.out.endswith(path.stem)


def test_the_papers_settings_are_those_it_states():
    depth, policy, tune = (read(name) for name in ("depth-pretrain", "policy-pretrain", "fine-tune"))
    assert (depth.steps, depth.batch_size, depth.optimiser.learning_rate) == (50_000, 1024, 5e-5)
    assert (policy.steps, policy.batch_size, policy.optimiser.learning_rate) == (80_000, 1024, 2.5e-5)
    assert (tune.steps, tune.batch_size, tune.optimiser.learning_rate) == (4_000, 64, 2.5e-5)
    assert {config.optimiser.weight_decay for config in (depth, policy, tune)} == {1e-4}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("stage: rl", "stage is 'rl'; allowed: 'depth-pretrain', 'policy-pretrain' or 'fine-tune'"),
        ("stepz: 3", "key stepz is unknown; allowed: .*steps"),
        ("loss: {drawz: 2}", "key loss.drawz is unknown; allowed: .*draws"),
        ("steps: many", "steps is 'many'; it must be a valid integer"),
        ("steps: 0", "steps is 0; it must be greater than or equal to 1"),
        ("freeze: [eyes]", "freeze.0 is 'eyes'; allowed: 'vlm', 'action', 'depth_encoder' or 'depth_decoder'"),
        ("machine: {precision: float16}", "machine.precision is 'float16'; allowed: 'float32' or 'bfloat16'"),
        ("machine: {accumulate: 3}", "batch_size 4 does not divide into machine.accumulate 3"),
        ("machine: {save_every: 70}", "machine.save_every 70 is not a multiple of machine.log_every 50"),
        ("optimiser: {ema_decay: 1.0}", "optimiser.ema_decay is 1.0; it must be less than 1"),
        ("optimiser: {learning_rate: 0.0}", "optimiser.learning_rate is 0.0; it must be greater than 0"),
        ("data: {folders: [a, b], weights: [1.0]}", "data.weights has 1 entries for 2 folders"),
        ("data: {folders: [a], layouts: [scannet]}", "data.layouts are for depth-pretrain"),
        ("{stage: depth-pretrain, loss: {draws: 2}}", "loss.draws is 2; depth-pretrain has no loss but SI-log"),
        ("{stage: depth-pretrain, freeze: [vlm]}", "allowed: depth_encoder, depth_decoder"),
        ("{stage: depth-pretrain, data: {folders: [a]}}", "depth-pretrain needs data.layouts"),
        ("{stage: depth-pretrain, lora: {rank: 4}}", "lora.rank is 4; depth-pretrain trains the weights themselves"),
        ("lora: {targets: [embed]}", "lora.targets.0 is 'embed'; allowed: 'q_proj'"),
        ("{machine: 3}", "machine is 3; it must be an object"),
        ("steps: [", "while parsing"),
    ],
)
def test_a_wrong_setting_is_named(tmp_path, text, message):
    path = tmp_path / "train.yaml"
    values = {"stage": "policy-pretrain", "model": "tiny", "out": "out", "steps": 10, "batch_size": 4}
    path.write_text(text if text.endswith("[") else yaml.safe_dump({**values, **yaml.safe_load(text)}))
    with pytest.raises(ValueError, match=message) as error:
        read(str(path))
    assert str(error.value).startswith(str(path)) and "pydantic" not in str(error.value)


def test_an_unknown_name_lists_those_there_are():
    with pytest.raises(FileNotFoundError, match="'r1lite-huge'.*allowed: .*fine-tune.*r1lite-small"):
        read("r1lite-huge")


def test_help_needs_no_training(capsys, monkeypatch):
    monkeypatch.setattr("sys.argv", ["train", "--help"])
    with pytest.raises(SystemExit) as ended:
        train.main()
    assert ended.value.code == 0 and "--data.folders" in capsys.readouterr().out


@pytest.mark.parametrize("setting", ["steps", "machine.threads"])
def test_a_wrong_override_is_named(monkeypatch, capsys, setting):
    monkeypatch.setattr("sys.argv", ["train", "--config", "r1lite-small", f"--{setting}", "0"])
    with pytest.raises(SystemExit) as ended:
        train.main()
    said = capsys.readouterr().err
    assert ended.value.code == 2 and "pydantic" not in said
    assert f"{setting.split('.')[-1]} is 0; it must be greater than or equal to 1" in " ".join(
        said.replace("│", "").split()
    )
