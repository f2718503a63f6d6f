"""Small data to train on: demonstrations in which the pictures say what to do, and RGB-D pictures that show depth."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import cv2
import numpy as np
import tiny_model
import torch
import yaml
from accelerate.state import AcceleratorState, GradientState

from depthvla_policy.data.episode_file import Frame
from depthvla_policy.data.lerobot_writer import DatasetWriter
from depthvla_policy.model import config as model_config
from depthvla_policy.train import train
from depthvla_policy.training.config import TrainConfig, read
from depthvla_policy.training.stages import open_stage
from depthvla_policy.training.trainer import Trainer, accelerator_for
from r1lite_description import robot as robot_description

ROBOT = robot_description.load()
CAMERAS = tuple(camera.name for camera in ROBOT.cameras)
INSTRUCTION = "lift the red block with the right arm"
FRAMES = 12


def write_demonstrations(
    folder: Path, episodes: int = 8, *, depth: bool = True, instruction: str = INSTRUCTION, source: str = ""
) -> Path:
    """Episodes in which the brightness of every image says where the right arm goes, and how far away all is."""
    middle = (ROBOT.position_min + ROBOT.position_max) / 2
    onto_middle = [[0, 0, 0, 32], [0, 0, 0, 18], [0, 0, 0, 1]]
    with DatasetWriter(folder, ROBOT, target_projections={"head": onto_middle}, source=source) as writer:
        for seed in range(episodes):
            goal = np.random.default_rng(seed).uniform(-0.5, 0.5)
            grey = np.full((36, 64, 3), int(128 + 200 * goal), np.uint8)
            millimetres = np.full((36, 64), int(1000 + 500 * goal), np.uint16)
            millimetres[:, 0] = 0
            images = dict.fromkeys(CAMERAS, cv2.imencode(".jpg", grey)[1].tobytes())
            maps = dict.fromkeys(CAMERAS, cv2.imencode(".png", millimetres)[1].tobytes())
            writer.begin_episode(instruction)
            action = middle.copy()
            action[ROBOT.limb("right").arm] += goal
            target_m = np.full(3, goal, np.float32)
            for _ in range(FRAMES):
                writer.add_frame(Frame(images, middle, action, maps if depth else {}, target_m))
            writer.save_episode()
    return folder


def write_rgbd(root: Path, scenes: int = 6, frames: int = 8) -> Path:
    """A WildRGB-D category in which what is nearer is brighter."""
    for scene in range(scenes):
        for kind in ("rgb", "depth"):
            (root / f"cup/scenes/scene_{scene:03d}/{kind}").mkdir(parents=True)
        for frame in range(frames):
            depth_m = np.random.default_rng([scene, frame]).uniform(0.5, 3.0)
            grey = np.full((48, 64, 3), round(255 - 80 * depth_m), np.uint8)
            millimetres = np.full((24, 32), round(1000 * depth_m), np.uint16)
            folder = root / f"cup/scenes/scene_{scene:03d}"
            cv2.imwrite(str(folder / f"rgb/{frame:05d}.png"), grey)
            cv2.imwrite(str(folder / f"depth/{frame:05d}.png"), millimetres)
    return root


def write_config(folder: Path, demonstrations: Path, /, **changes: object) -> Path:
    """A YAML file for a short training of the tiny network. A change may reach into a group: loss={"draws": 2}."""
    folder.mkdir(parents=True, exist_ok=True)
    model = folder / "tiny.json"
    model.write_text(json.dumps(dataclasses.asdict(tiny_model.CONFIG)))
    values = {
        "stage": "policy-pretrain",
        "model": str(model),
        "out": str(folder / "out"),
        "steps": 20,
        "batch_size": 8,
        "data": {"folders": [str(demonstrations)], "held_out": 0.1, "in_memory": True},
        "loss": {"draws": 4, "grounding_weight": 0.5, "vary_colours": False},  # brightness is the task
        "optimiser": {"learning_rate": 3e-3, "warmup_steps": 5, "ema_decay": 0.9},
        "machine": {"log_every": 5, "validate_every": 20, "save_every": 20},
    }
    for name, change in changes.items():
        values[name] = {**values.get(name, {}), **change} if isinstance(change, dict) else change
    path = folder / "train.yaml"
    path.write_text(yaml.safe_dump(values))
    return path


def config(folder: Path, demonstrations: Path, /, **changes: object) -> TrainConfig:
    return read(str(write_config(folder, demonstrations, **changes)))


def run(config: TrainConfig) -> None:
    """Train, whatever the process trained before: accelerate keeps its first settings otherwise."""
    _forget_accelerator()
    train(config)


def losses(config: TrainConfig) -> list[dict[str, float]]:
    """Train, and return the lines of the log without what depends on the machine."""
    run(config)
    return rows(config)


def rows(config: TrainConfig) -> list[dict[str, float]]:
    read = [json.loads(line) for line in (Path(config.out) / "train.jsonl").read_text().splitlines()]
    return [{name: value for name, value in row.items() if name not in ("samples_per_s", "mfu")} for row in read]


def trainer(config: TrainConfig) -> Trainer:
    """What `run` would run."""
    _forget_accelerator()
    torch.manual_seed(config.seed)
    stage = open_stage(config, model_config.read(config.model))
    return Trainer(stage.objective, stage.data, stage.c, config, accelerator_for(config), stage.flops, stage.save)


def _forget_accelerator() -> None:
    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()
