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
from depthvla_policy.model.depthvla import DepthVLA
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


def trainer(folder, steps):
    torch.manual_seed(0)
    episodes, config = read(folder), tiny_model.CONFIG
    states = np.concatenate([episode.state for episode in episodes]).astype(np.float64)
    stats = Normaliser.fit(states, chunk_actions(episodes, config.horizon), ROBOT.gripper_mask)
    prompt = Prompt(train_tokenizer([episodes[0].instruction], config.vocab_size), config.max_text_tokens)
    parts = [Samples(part, stats, prompt, config.horizon, config.action_dim) for part in (episodes[:-1], episodes[-1:])]
    loop = LoopConfig(steps=steps, batch_size=8, warmup_steps=5, log_every=10, learning_rate=3e-3, ema_decay=0.9)
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


def run_command(folder, out, processes):
    """Train with the command line and return the flow losses of its log."""
    config = out.parent / "tiny.json"
    config.write_text(json.dumps(dataclasses.asdict(tiny_model.CONFIG)))
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    command = [sys.executable, *(launcher if processes > 1 else []), "-m", "depthvla_policy.train"]
    arguments = ["--config", config, "--data", folder, "--out", out, "--loop.steps", 20]
    arguments += ["--loop.batch-size", 8, "--loop.log-every", 10]
    subprocess.run([str(item) for item in [*command, *arguments]], check=True, timeout=240, capture_output=True)
    return [json.loads(line)["flow"] for line in (out / "train.jsonl").read_text().splitlines()]


def test_the_command_writes_a_checkpoint_that_loads_and_two_processes_follow_the_path_of_one(folder, tmp_path):
    losses = run_command(folder, tmp_path / "one", 1)
    policy = Policy.load(tmp_path / "one")
    images = {name: np.zeros((36, 64, 3), np.uint8) for name in CAMERAS}
    state = (ROBOT.position_min + ROBOT.position_max) / 2
    prediction = policy.infer(Observation(0, images, state, "lift the red block with the right arm"), seed=0)
    assert np.all(np.isfinite(prediction.actions)) and (tmp_path / "one" / "train.png").stat().st_size > 0
    np.testing.assert_allclose(run_command(folder, tmp_path / "two", 2), losses, rtol=2e-3)
