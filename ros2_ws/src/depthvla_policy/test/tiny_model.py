"""The smallest network and checkpoint that have every part, for tests."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import torch

from depthvla_policy.model.config import DepthConfig, EncoderConfig, ExpertConfig, ModelConfig
from depthvla_policy.model.depthvla import DepthVLA, Inputs
from depthvla_policy.policy import checkpoint
from depthvla_policy.policy.checkpoint import CheckpointConfig, PolicyConfig
from depthvla_policy.policy.normalise import Normaliser
from depthvla_policy.policy.prompt import train_tokenizer
from r1lite_description import robot as robot_description

# Widths differ between experts on purpose: only heads, head width and layers are shared.
CONFIG = ModelConfig(
    layers=3,
    heads=4,
    kv_heads=1,
    head_dim=8,
    vlm=ExpertConfig(32, 48),
    action=ExpertConfig(24, 40),
    vision=EncoderConfig(16, 2, 2, 32),
    depth=DepthConfig(EncoderConfig(20, 2, 2, 40), ExpertConfig(20, 36), 4),
    image_size=32,
    image_fit="crop",
    patch_size=16,
    cameras=3,
    vocab_size=300,
    max_text_tokens=20,
    state_dim=14,
    action_dim=14,
    horizon=16,
)
PI0 = dataclasses.replace(CONFIG, depth=None)
ALL_CAMERAS = dataclasses.replace(CONFIG, depth=dataclasses.replace(CONFIG.depth, attention="all"))


def model(config: ModelConfig = CONFIG) -> DepthVLA:
    """A network whose every parameter is random and large enough that a wrong mask or position shows."""
    generator = torch.Generator().manual_seed(0)
    network = DepthVLA(config).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.2)
    return network


def inputs(config: ModelConfig = CONFIG, batch: int = 2) -> Inputs:
    generator = torch.Generator().manual_seed(1)
    lengths = torch.randint(3, config.max_text_tokens, (batch, 1), generator=generator)
    return Inputs(
        images=torch.rand(batch, config.cameras, 3, config.image_size, config.image_size, generator=generator),
        text=torch.randint(0, config.vocab_size, (batch, config.max_text_tokens), generator=generator),
        text_mask=torch.arange(config.max_text_tokens)[None] < lengths,
        state=torch.randn(batch, config.state_dim, generator=generator),
    )


def actions(config: ModelConfig = CONFIG, batch: int = 2) -> torch.Tensor:
    return torch.randn(batch, config.horizon, config.action_dim, generator=torch.Generator().manual_seed(2))


def save_checkpoint(folder: Path, config: ModelConfig = CONFIG) -> Path:
    """A whole checkpoint folder with random weights."""
    robot = robot_description.load()
    middle = (robot.position_min + robot.position_max) / 2
    stats = Normaliser(
        state_mean=middle,
        state_std=np.ones(robot.size),
        action_mean=np.zeros((config.horizon, robot.size)),
        action_std=np.full((config.horizon, robot.size), 0.05),
        absolute=robot.gripper_mask,
    )
    settings = CheckpointConfig("tiny", config, PolicyConfig.of(robot))
    tokenizer = train_tokenizer(["lift the red block with the right arm"], config.vocab_size)
    checkpoint.save(folder, settings, model(config), stats, tokenizer)
    return folder
