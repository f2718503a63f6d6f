"""From episode files to a checkpoint that loads: reading, samples, a short training, several processes."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys

import cv2
import numpy as np
import pytest
import tiny_model
import torch

from depthvla_policy import robot as robot_description
from depthvla_policy.data.episodes import load_episodes
from depthvla_policy.model import config as model_config
from depthvla_policy.model.depthvla import DEPTH_PARTS, DepthVLA
from depthvla_policy.policy import checkpoint
from depthvla_policy.policy.images import ImageFit
from depthvla_policy.policy.normalise import Normaliser
from depthvla_policy.policy.observation import Observation
from depthvla_policy.policy.policy import Policy
from depthvla_policy.policy.prompt import Prompt, train_tokenizer
from depthvla_policy.training.samples import Samples, chunk_actions
from depthvla_policy.training.trainer import LoopConfig, Trainer

ROBOT = robot_description.load()
CAMERAS = tuple(camera.name for camera in ROBOT.cameras)
FRAMES = 12


def write_episode(folder, seed, frames=FRAMES):
    """An episode in which the brightness of every image says where the right arm has to go."""
    rng = np.random.default_rng(seed)
    goal = rng.uniform(-0.5, 0.5)
    state = np.tile((ROBOT.position_min + ROBOT.position_max) / 2, (frames, 1)).astype(np.float32)
    action = state.copy()
    action[:, ROBOT.limb("right").arm] += goal * np.linspace(0.1, 1.0, frames)[:, None]
    grey = np.full((36, 64, 3), int(128 + 200 * goal), np.uint8)
    depth = np.full((36, 64), int(1000 + 500 * goal), np.uint16)
    depth[:, 0] = 0
    arrays = {"state": state, "action": action, "target_xyz": np.full((frames, 3), goal, np.float32)}
    arrays |= {"instruction": np.array("lift the red block with the right arm"), "seed": np.array(seed)}
    for name in CAMERAS:
        for kind, suffix, image in (("image", ".jpg", grey), ("depth", ".png", depth)):
            blob = cv2.imencode(suffix, image)[1].ravel()
            arrays[f"{kind}_{name}"] = np.tile(blob, frames)
            arrays[f"{kind}_{name}_offsets"] = np.arange(frames + 1) * len(blob)
    np.savez(folder / f"episode_{seed:06d}.npz", **arrays)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("episodes")
    for seed in range(8):
        write_episode(folder, seed)
    return folder


def read(folder):
    return load_episodes(folder, CAMERAS, ImageFit(32, "crop"), tiny_model.CONFIG.depth_size)


def test_episodes_are_read_with_depth_in_metres(folder):
    episode = read(folder)[0]
    goal = np.random.default_rng(0).uniform(-0.5, 0.5)
    assert episode.images.shape == (FRAMES, 3, 32, 32, 3) and episode.depth_m.shape == (FRAMES, 3, 8, 8)
    assert episode.depth_m[0, 0, 4, 4] == pytest.approx(1.0 + 0.5 * goal, abs=2e-3)
    assert episode.images[0, 0].mean() == pytest.approx(128 + 200 * goal, abs=3)


def test_a_folder_without_episodes_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=str(tmp_path)):
        read(tmp_path)


def test_an_episode_without_a_camera_is_named(folder):
    with pytest.raises(ValueError, match=r"episode_000000.*\['chest'\]"):
        load_episodes(folder, (*CAMERAS, "chest"), ImageFit(32, "crop"), 0)


def test_chunks_repeat_the_last_action_at_the_end(folder):
    episodes = read(folder)[:2]
    chunks = chunk_actions(episodes, 4)
    assert chunks.shape == (2 * FRAMES, 4, 14)
    np.testing.assert_array_equal(chunks[0], episodes[0].action[:4])
    np.testing.assert_array_equal(chunks[FRAMES - 1], np.tile(episodes[0].action[-1], (4, 1)))
    np.testing.assert_array_equal(chunks[FRAMES], episodes[1].action[:4])


def trainer(folder, steps, config=tiny_model.CONFIG, **loop):
    torch.manual_seed(0)
    depth_size = config.image_size if config.takes_depth else config.depth_size
    episodes = load_episodes(folder, CAMERAS, ImageFit(config.image_size, "crop"), depth_size)
    states = np.concatenate([episode.state for episode in episodes]).astype(np.float64)
    stats = Normaliser.fit(states, chunk_actions(episodes, config.horizon), ROBOT.gripper_mask)
    prompt = Prompt(train_tokenizer([episodes[0].instruction], config.vocab_size), config.max_text_tokens)
    parts = [Samples(part, stats, prompt, config) for part in (episodes[:-1], episodes[-1:])]
    loop = {"batch_size": 8, "warmup_steps": 5, "log_every": 10, "learning_rate": 3e-3, "ema_decay": 0.9, **loop}
    loop = LoopConfig(steps=steps, **loop)
    return Trainer(DepthVLA(config), *parts, torch.ones(config.action_dim, dtype=torch.bool), loop)


def test_a_short_training_lowers_flow_and_depth_loss_on_held_out_frames(folder, tmp_path):
    run = trainer(folder, 80)
    before = run.validate()
    saved = []
    run.run(saved.append, tmp_path / "train.jsonl")
    after = run.validate()
    assert after["held_out_flow"] < 0.8 * before["held_out_flow"]
    assert after["held_out_abs_rel"] < 0.5 * before["held_out_abs_rel"]
    rows = [json.loads(line) for line in (tmp_path / "train.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == list(range(10, 81, 10)) and saved


def test_the_same_seed_gives_the_same_losses(folder):
    index = torch.arange(8)
    first, second = (trainer(folder, 10) for _ in range(2))
    assert [first.step(index) for _ in range(3)] == [second.step(index) for _ in range(3)]


def test_a_loss_that_is_not_finite_stops_the_training(folder):
    run = trainer(folder, 10)
    run.samples.chunks[:] = float("nan")
    with pytest.raises(FloatingPointError, match="flow"):
        run.step(torch.arange(8))


# The paper's ablations: each file of models/configs changes exactly what it says.
ABLATIONS = {
    "i-random-depth": {"depth.start": "random"},
    "ii-no-depth-loss": {"depth.loss_weight": 0.0},
    "iii-frozen-depth": {"depth.frozen": True},
    "iv-joint-prefix": {"prefix_attention": "joint"},
    "v-true-depth": {"depth.input": "ground_truth"},
}


def flat(values, prefix=""):
    pairs = {}
    for key, value in values.items():
        pairs |= flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return pairs


def with_depth(**fields):
    return dataclasses.replace(tiny_model.CONFIG, depth=dataclasses.replace(tiny_model.CONFIG.depth, **fields))


def parameters(model):
    return {name: parameter.detach().clone() for name, parameter in model.named_parameters()}


def changed(before, model):
    return {name for name, parameter in model.named_parameters() if not torch.equal(before[name], parameter)}


@pytest.mark.parametrize("size", ["small", "3b"])
@pytest.mark.parametrize("name", ABLATIONS)
def test_an_ablation_config_changes_exactly_what_it_says(name, size):
    configs = robot_description.default_path().parents[4] / "models" / "configs"
    base = flat(dataclasses.asdict(model_config.read(configs / f"depthvla-{size}.json")))
    values = flat(dataclasses.asdict(model_config.read(configs / f"depthvla-{size}-ablation-{name}.json")))
    assert {key: value for key, value in values.items() if base[key] != value} == ABLATIONS[name]


def test_a_random_depth_start_takes_all_but_the_depth_expert_from_the_checkpoint(tmp_path):
    path = tiny_model.save_checkpoint(tmp_path / "start")
    start = parameters(checkpoint.load_model(path, tiny_model.CONFIG, "cpu", torch.float32))
    fresh = checkpoint.load_model(path, with_depth(start="random"), "cpu", torch.float32, fresh=DEPTH_PARTS)
    other = changed(start, fresh)
    assert other and all(name.startswith(DEPTH_PARTS) for name in other)
    assert any(name.startswith("mixture.experts.depth.") for name in other)


def test_without_the_depth_loss_the_depth_expert_still_learns_from_the_flow_loss(folder):
    run = trainer(folder, 10, with_depth(loss_weight=0.0), weight_decay=0.0)
    before = parameters(run.model)
    losses = run.step(torch.arange(8))
    other = changed(before, run.model)
    assert losses["depth"] == 0.0 and not {name for name in other if name.startswith("depth_head")}
    assert {name for name in other if name.startswith("mixture.experts.depth.")}


def test_a_frozen_depth_expert_stays_as_it_was_and_needs_no_labels(folder):
    run = trainer(folder, 10, with_depth(frozen=True))
    run.samples.depth_m = None
    before = parameters(run.model)
    losses = run.step(torch.arange(8))
    other = changed(before, run.model)
    assert losses["depth"] == 0.0 and other and not {name for name in other if name.startswith(DEPTH_PARTS)}


def test_true_depth_enters_in_place_of_the_image(folder, tmp_path):
    run = trainer(folder, 10, with_depth(input="ground_truth"))
    batch = run.samples.batch(torch.arange(4))
    nearer = dataclasses.replace(batch.inputs, depth_m=batch.inputs.depth_m * 0.5)
    with torch.no_grad():
        before, after = run.model.prefix(batch.inputs), run.model.prefix(nearer)
    vlm = tiny_model.CONFIG.image_tokens + tiny_model.CONFIG.max_text_tokens
    k, other = before.cache[0][0], after.cache[0][0]
    assert torch.equal(k[:, :, :vlm], other[:, :, :vlm]) and not torch.allclose(k[:, :, vlm:], other[:, :, vlm:])
    assert not hasattr(run.model, "depth_head") and run.step(torch.arange(8))["depth"] == 0.0
    policy = Policy.load(tiny_model.save_checkpoint(tmp_path / "true", run.model.config))
    images = {name: np.zeros((36, 64, 3), np.uint8) for name in CAMERAS}
    seen = Observation(0, images, (ROBOT.position_min + ROBOT.position_max) / 2, "lift the red block")
    with pytest.raises(ValueError, match="takes true depth"):
        policy.infer(seen)
    depth_m = dict.fromkeys(CAMERAS, np.full((36, 64), 0.7, np.float32))
    assert np.isfinite(policy.infer(dataclasses.replace(seen, depth_m=depth_m), depth=True).actions).all()


def test_training_for_continuation_leaves_the_clean_steps_out_of_the_loss(folder, monkeypatch):
    run = trainer(folder, 10, max_delay=15)
    monkeypatch.setattr(run.model, "velocity", lambda prefix, x, tau: torch.zeros_like(x))
    index, config = torch.arange(8), tiny_model.CONFIG
    noise = torch.zeros(8 * run.config.draws, config.horizon, config.action_dim)
    tau, delay = torch.zeros(len(noise)), torch.full((len(noise), 1), 10)

    def loss():
        return run._losses(run.samples.batch(index), noise, tau, delay)["flow"].item()

    before = loss()
    run.samples.chunks[:, :10] += 100.0
    assert loss() == before
    run.samples.chunks[:, 10] += 100.0
    assert loss() > before + 100.0


def run_command(folder, out, processes=1, *more):
    """Train with the command line and return the flow losses of its log."""
    config = out.parent / "tiny.json"
    config.write_text(json.dumps(dataclasses.asdict(tiny_model.CONFIG)))
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    command = [sys.executable, *(launcher if processes > 1 else []), "-m", "depthvla_policy.train"]
    arguments = ["--config", config, "--data", folder, "--out", out, "--loop.steps", 20]
    arguments += ["--loop.batch-size", 8, "--loop.log-every", 10, "--loop.ema-decay", 0.5, *more]
    subprocess.run([str(item) for item in [*command, *arguments]], check=True, timeout=240, capture_output=True)
    return [json.loads(line)["flow"] for line in (out / "train.jsonl").read_text().splitlines()]


def test_the_command_writes_a_checkpoint_that_loads_and_can_be_trained_on(folder, tmp_path):
    losses = run_command(folder, tmp_path / "one")
    policy = Policy.load(tmp_path / "one")
    images = {name: np.zeros((36, 64, 3), np.uint8) for name in CAMERAS}
    state = (ROBOT.position_min + ROBOT.position_max) / 2
    prediction = policy.infer(Observation(0, images, state, "lift the red block with the right arm"), seed=0)
    assert np.all(np.isfinite(prediction.actions)) and (tmp_path / "one" / "train.png").stat().st_size > 0
    before = checkpoint.digest(tmp_path / "one")
    assert run_command(folder, tmp_path / "more", 1, "--init", tmp_path / "one")[0] < 0.9 * losses[0]
    assert checkpoint.digest(tmp_path / "one") == before  # mapped into memory, not written to


def test_two_processes_follow_the_path_of_one(folder, tmp_path):
    one, two = (run_command(folder, tmp_path / f"by_{processes}", processes) for processes in (1, 2))
    np.testing.assert_allclose(two, one, rtol=2e-3)
