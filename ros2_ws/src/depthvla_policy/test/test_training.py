"""From demonstrations to a checkpoint that acts: the whole run, its files, and going on after an interruption."""

from __future__ import annotations

import dataclasses
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tiny_model
import torch
import training_data
from training_data import CAMERAS, INSTRUCTION, ROBOT

from depthvla_policy import train as command
from depthvla_policy.data.layout import INFO
from depthvla_policy.model import config as model_config
from depthvla_policy.policy import checkpoint
from depthvla_policy.policy.calibration import Calibration, describe
from depthvla_policy.policy.observation import Observation
from depthvla_policy.policy.policy import Policy
from depthvla_policy.training import state
from depthvla_policy.training.stages import open_stage
from depthvla_policy.training.trainer import Trainer

MIDDLE = (ROBOT.position_min + ROBOT.position_max) / 2
EPISODES, HELD_OUT = 24, 5


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return training_data.write_demonstrations(tmp_path_factory.mktemp("data") / "lift", EPISODES)


def action_errors(policy):
    """Mean absolute error [rad] of the right arm in the held-out episodes: of the policy, and of their mean."""
    goals = [np.random.default_rng(seed).uniform(-0.5, 0.5) for seed in range(EPISODES)]
    arm, found, mean = ROBOT.limb("right").arm, [], []
    for goal in goals[-HELD_OUT:]:
        images = dict.fromkeys(CAMERAS, np.full((36, 64, 3), int(128 + 200 * goal), np.uint8))
        actions = policy.infer(Observation(0, images, MIDDLE, INSTRUCTION), seed=0).actions
        found.append(np.abs(actions[:, arm] - MIDDLE[arm] - goal).mean())
        mean.append(abs(np.mean(goals[:-HELD_OUT]) - goal))
    return np.mean(found), np.mean(mean)


@pytest.fixture(scope="module")
def trained(data, tmp_path_factory):
    """A run long enough to learn something: its settings and the held-out losses before it."""
    config = training_data.config(
        tmp_path_factory.mktemp("trained"),
        data,
        steps=200,
        data={"held_out": HELD_OUT / EPISODES},
        loss={"draws": 8},
        optimiser={"learning_rate": 8e-3, "warmup_steps": 10},
        machine={"log_every": 50, "validate_every": 100, "save_every": 100},
    )
    before = training_data.trainer(config).validate()
    training_data.run(config)
    return config, before


def test_a_training_from_nothing_makes_a_policy_that_beats_the_mean_action(trained):
    config, before = trained
    rows = [json.loads(line) for line in open(f"{config.out}/train.jsonl")]
    assert rows[-1]["held_out_flow"] < 0.3 * before["held_out_flow"]
    assert rows[-1]["held_out_abs_rel"] < 0.25 * before["held_out_abs_rel"]
    found, mean = action_errors(Policy.load(config.out))
    assert found < 0.7 * mean


def test_a_run_leaves_checkpoint_log_curve_and_settings(trained):
    config, _ = trained
    out = Path(config.out)
    assert [json.loads(line)["step"] for line in open(out / "train.jsonl")] == [50, 100, 150, 200]
    assert (out / "train.png").stat().st_size > 0 and list((out / "tensorboard").iterdir())
    assert [folder.name for folder in (out / "state").iterdir()] == ["step_00000200"]
    assert json.loads((out / "train_config.json").read_text())["steps"] == 200
    assert not [path for path in out.iterdir() if path.name.endswith(".part")]


def test_a_checkpoint_can_be_trained_on_and_is_left_alone(trained, data, tmp_path):
    before = checkpoint.digest(Path(trained[0].out))
    rows = training_data.losses(training_data.config(tmp_path, data, stage="fine-tune", init=trained[0].out, steps=5))
    first = [json.loads(line) for line in open(f"{trained[0].out}/train.jsonl")][0]
    assert rows[0]["flow"] < 0.9 * first["flow"]
    assert checkpoint.digest(Path(trained[0].out)) == before  # mapped into memory, not written to
    kept = [(folder / checkpoint.STATS).read_text() for folder in (tmp_path / "out", Path(trained[0].out))]
    assert kept[0] == kept[1]


def test_a_resumed_run_is_bit_identical_to_one_that_was_not_interrupted(data, tmp_path, monkeypatch):
    machine = {"log_every": 2, "validate_every": 4, "save_every": 4}
    whole = training_data.losses(training_data.config(tmp_path / "whole", data, steps=10, machine=machine))
    config = training_data.config(tmp_path / "cut", data, steps=10, machine=machine)
    step = Trainer.step

    def killed(self, number, batches):
        if number == 7:
            raise KeyboardInterrupt
        return step(self, number, batches)

    monkeypatch.setattr(Trainer, "step", killed)
    with pytest.raises(KeyboardInterrupt):
        training_data.run(config)
    monkeypatch.undo()
    fresh_states = state.newest(Path(config.out)).name
    assert fresh_states == "step_00000004"
    assert training_data.losses(dataclasses.replace(config, resume=True)) == whole
    weights = [(tmp_path / name / "out/model.safetensors").read_bytes() for name in ("whole", "cut")]
    assert weights[0] == weights[1]


def test_a_run_killed_while_it_saves_leaves_the_state_before(data, tmp_path, monkeypatch):
    config = training_data.config(tmp_path, data, steps=4, machine={"log_every": 2, "save_every": 2})
    saved = state.dcp.save

    def killed(*arguments, checkpoint_id, **options):
        if checkpoint_id.name.endswith("4"):
            (checkpoint_id / "half").touch()
            raise KeyboardInterrupt
        saved(*arguments, checkpoint_id=checkpoint_id, **options)

    monkeypatch.setattr(state.dcp, "save", killed)
    with pytest.raises(KeyboardInterrupt):
        training_data.run(config)
    monkeypatch.undo()
    assert state.newest(tmp_path / "out").name == "step_00000002"
    assert training_data.losses(dataclasses.replace(config, resume=True))[-1]["step"] == 4
    assert [folder.name for folder in (tmp_path / "out/state").iterdir()] == ["step_00000004"]


def test_a_state_is_neither_overwritten_nor_resumed_with_other_settings(trained):
    config, _ = trained
    with pytest.raises(FileExistsError, match="--resume"):
        training_data.run(config)
    with pytest.raises(ValueError, match="batch_size 8 -> 16"):
        training_data.run(dataclasses.replace(config, batch_size=16, resume=True))
    with pytest.raises(FileNotFoundError, match="resume"):
        training_data.run(dataclasses.replace(config, out=config.out + "_not_there", resume=True))


def test_accumulated_batches_give_the_losses_of_the_whole_one(data, tmp_path):
    whole, cut = (
        training_data.config(tmp_path / str(n), data, steps=4, machine={"log_every": 1, "accumulate": n})
        for n in (1, 4)
    )
    for one, other in zip(training_data.losses(whole), training_data.losses(cut), strict=True):
        assert one == pytest.approx(other, rel=2e-3)


def test_bfloat16_computes_nearly_the_same_with_float32_weights(data, tmp_path):
    exact = training_data.losses(training_data.config(tmp_path / "exact", data, steps=2, machine={"log_every": 1}))
    config = training_data.config(
        tmp_path / "half", data, steps=2, machine={"log_every": 1, "precision": "bfloat16", "recompute": True}
    )
    run = training_data.trainer(config)
    assert {parameter.dtype for parameter in run.model.parameters()} == {torch.float32}
    rough = training_data.losses(config)
    assert rough != exact
    for one, other in zip(exact, rough, strict=True):
        assert other["flow"] == pytest.approx(one["flow"], rel=0.02)


def test_workers_hand_over_the_same_batches(data, tmp_path):
    alone, helped = (
        training_data.losses(
            training_data.config(tmp_path / str(n), data, steps=2, data={"in_memory": False}, machine={"workers": n})
        )
        for n in (0, 2)
    )
    assert alone == helped


def test_a_mixture_draws_datasets_by_weight(data, tmp_path):
    other = training_data.write_demonstrations(tmp_path / "other", 3, depth=False, instruction="push the blue block")
    config = training_data.config(tmp_path / "run", data)
    config = dataclasses.replace(
        config, data=dataclasses.replace(config.data, folders=(str(data), str(other)), weights=(1.0, 3.0))
    )
    stage = open_stage(config, model_config.read(config.model))
    batches = list(stage.data.loader(dataclasses.replace(config, steps=50), 0, 0, 1))
    without_depth = np.mean([torch.isnan(batch.depth_m).all(dim=(1, 2, 3)).float().mean() for batch in batches])
    assert without_depth == pytest.approx(0.75, abs=0.08)
    assert len({tuple(text.tolist()) for batch in batches for text in batch.text}) == 2


def test_a_loss_that_is_not_finite_stops_the_training(data, tmp_path):
    run = training_data.trainer(training_data.config(tmp_path, data))
    batches = iter(run.data.loader(run.config, 0, 0, 1))
    broken = dataclasses.replace(next(batches))
    broken.chunks[:, 0] = float("nan")
    before = [parameter.detach().clone() for parameter in run.parameters]
    with pytest.raises(FloatingPointError, match="flow"):
        run.step(0, iter([broken]))
    assert all(torch.equal(old, new) for old, new in zip(before, run.parameters, strict=True))


def test_a_checkpoint_names_the_cameras_that_were_rectified(tmp_path):
    folder = training_data.write_demonstrations(tmp_path / "lift", 3)
    info = json.loads((folder / INFO).read_text())
    image = info["features"]["observation.images.left_wrist_rgb"]
    height, width, _ = image["shape"]
    k = np.array([[width, 0.0, width / 2], [0.0, width, height / 2], [0.0, 0.0, 1.0]])
    image["info"]["rectified_by"] = describe(Calibration(width, height, "plumb_bob", k, np.full(5, 0.01), k))
    (folder / INFO).write_text(json.dumps(info))
    config = training_data.config(tmp_path / "run", folder, steps=1)
    stage = open_stage(config, tiny_model.CONFIG)
    stage.save(stage.objective.state_dict())
    assert Policy.load(config.out).rectified == ("wrist_left",)


def test_data_without_depth_is_refused_unless_no_depth_is_needed(data, tmp_path):
    bare = training_data.write_demonstrations(tmp_path / "bare", 3, depth=False)
    config = training_data.config(tmp_path / "run", bare, steps=2)
    with pytest.raises(ValueError, match="freeze depth_encoder and depth_decoder"):
        training_data.run(config)
    rows = training_data.losses(dataclasses.replace(config, freeze=("depth_encoder", "depth_decoder")))
    assert "depth" not in rows[-1] and np.isfinite(rows[-1]["flow"])


def test_lora_trains_adapters_alone_and_saves_a_network_without_them(trained, data, tmp_path):
    config = training_data.config(
        tmp_path,
        data,
        stage="fine-tune",
        init=trained[0].out,
        steps=3,
        lora={"rank": 2},
        loss={"grounding_weight": 0.0},
    )
    run = training_data.trainer(config)
    names = {name for name, parameter in run.model.named_parameters() if parameter.requires_grad}
    assert names and all(".lora_" in name for name in names)
    training_data.run(config)
    start, end = (
        checkpoint.load_model(Path(path), tiny_model.CONFIG, "cpu", torch.float32)
        for path in (trained[0].out, config.out)
    )
    moved = {name for name, p in start.named_parameters() if not torch.equal(p, end.get_parameter(name))}
    assert moved and all(name.startswith("mixture.experts.") and "layernorm" not in name for name in moved)


def test_the_command_line_overrides_the_file_and_names_what_is_wrong(data, tmp_path, monkeypatch, capsys):
    path = training_data.write_config(tmp_path, data, steps=2)
    seen = []
    monkeypatch.setattr(command, "train", seen.append)
    arguments = ["train", "--config", str(path), "--optimiser.learning-rate", "1e-4", "--data.folders", "a", "b"]
    monkeypatch.setattr("sys.argv", [*arguments, "--freeze", "vlm", "--resume"])
    command.main()
    assert seen[0].optimiser.learning_rate == 1e-4 and seen[0].data.folders == ("a", "b")
    assert seen[0].freeze == ("vlm",) and seen[0].resume and seen[0].steps == 2
    monkeypatch.setattr("sys.argv", [*arguments, "--machine.precision", "float16"])
    with pytest.raises(SystemExit):
        command.main()
    assert len(seen) == 1


@pytest.mark.parametrize(
    ("sources", "said", "made_for"),
    [
        (["simulation"], None, ("simulation",)),
        (["simulation", "real"], None, ("real", "simulation")),
        (["real"], "simulation", ("real",)),
        ([""], None, ()),
        (["", "simulation"], "real", ("real", "simulation")),
    ],
)
def test_a_checkpoint_is_made_for_what_its_demonstrations_are_of(tmp_path, sources, said, made_for):
    folders = [
        str(training_data.write_demonstrations(tmp_path / f"data_{number}", 2, source=source))
        for number, source in enumerate(sources)
    ]
    config = training_data.config(tmp_path, folders[0], data={"folders": folders, "source": said, "held_out": 0.5})
    stage = open_stage(config, model_config.read(config.model))
    stage.save({f"model.{name}": tensor for name, tensor in stage.objective.model.state_dict().items()})
    assert checkpoint.CheckpointConfig.read(Path(config.out)).policy.made_for == made_for


def said(folder, demonstrations, **changes):
    """What the command says about settings that it does not accept, and its exit code."""
    path = training_data.write_config(folder, demonstrations, **changes)
    words = [sys.executable, "-m", "depthvla_policy.train", "--config", str(path)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=300)
    text = done.stdout + done.stderr
    assert done.returncode == 1 and "Traceback" not in text and 'File "' not in text, text
    return text.strip().splitlines()[-1]


def test_a_file_that_cannot_be_read_ends_the_training_before_it_begins(data, tmp_path):
    folder = shutil.copytree(data, tmp_path / "lift")
    path = folder / "data/chunk-000/file-007.parquet"
    path.write_bytes(path.read_bytes()[:-100])
    line = said(tmp_path / "run", folder, data={"in_memory": False}, machine={"workers": 1})
    assert line.startswith(f"error: {path}: ") and "wanted: a file" in line
    assert not (tmp_path / "run/out/train.jsonl").exists()


def test_a_damaged_picture_is_named_whichever_process_reads_it(data, tmp_path):
    folder = shutil.copytree(data, tmp_path / "lift")
    path, name = folder / "data/chunk-000/file-000.parquet", "observation.images.head_rgb"
    table = pq.read_table(path)
    pictures = [picture | {"bytes": picture["bytes"][:-9]} for picture in table[name].to_pylist()]
    changed = pa.array(pictures, table.schema.field(name).type)
    pq.write_table(table.set_column(table.schema.get_field_index(name), name, changed), path)
    line = said(tmp_path / "run", folder, data={"in_memory": False}, machine={"workers": 1})
    assert line.startswith(f"error: {path}, row ") and "not a whole JPEG" in line


def test_a_training_state_that_is_not_whole_is_named(trained, tmp_path):
    config = dataclasses.replace(trained[0] if isinstance(trained, tuple) else trained, resume=True)
    out = shutil.copytree(config.out, tmp_path / "out")
    (step,) = (out / state.FOLDER).glob(state.PREFIX + "*")
    for file in step.glob("*.distcp"):
        file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(ValueError, match=f"{step.name} is not a whole training state"):
        training_data.trainer(dataclasses.replace(config, out=str(out)))
