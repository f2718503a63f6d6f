"""Train a policy on demonstrations: `python -m depthvla_policy.train --config FILE --data FOLDER --out FOLDER`.

On several processes: `torchrun --nproc-per-node 2 -m depthvla_policy.train ...`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
import tyro

from depthvla_policy import robot as robot_description
from depthvla_policy.data.episodes import load_episodes
from depthvla_policy.model import config as model_config
from depthvla_policy.model.depthvla import DEPTH_PARTS, DepthVLA
from depthvla_policy.policy import checkpoint
from depthvla_policy.policy.checkpoint import CheckpointConfig, PolicyConfig
from depthvla_policy.policy.images import ImageFit
from depthvla_policy.policy.normalise import Normaliser
from depthvla_policy.policy.prompt import Prompt, train_tokenizer
from depthvla_policy.training.plot import plot_losses
from depthvla_policy.training.samples import Samples, chunk_actions
from depthvla_policy.training.trainer import LoopConfig, Trainer


@dataclass(frozen=True)
class TrainConfig:
    """One training run."""

    config: Path
    """dimensions of the network, a file of models/configs"""
    data: Path
    """folder of episodes"""
    out: Path
    """checkpoint folder to write; its name becomes the policy's"""
    init: Path | None = None
    """checkpoint to start from; its tokenizer is kept, and its statistics where it has any"""
    held_out: float = 0.05
    """share of the episodes kept for validation"""
    limit_episodes: int | None = None
    """use only so many"""
    threads: int = 1
    """of torch, in each process; more than one collapses when the cores are shared"""
    loop: LoopConfig = field(default_factory=LoopConfig)


def train(config: TrainConfig) -> None:
    """Run one training and write a checkpoint folder, the loss log and its picture."""
    if dist.is_torchelastic_launched():
        dist.init_process_group("gloo")
    first = not dist.is_initialized() or dist.get_rank() == 0
    torch.set_num_threads(config.threads)
    torch.manual_seed(config.loop.seed)
    c, robot = model_config.read(config.config), robot_description.load()
    settings = CheckpointConfig(config.out.name, c, PolicyConfig.of(robot))
    fit = ImageFit(c.image_size, c.image_fit)
    depth_size = c.image_size if c.takes_depth else c.depth_size
    episodes = load_episodes(config.data, settings.policy.cameras, fit, depth_size, limit=config.limit_episodes)
    count = max(1, round(len(episodes) * config.held_out))
    train_episodes, held_out = episodes[:-count], episodes[-count:]
    if config.init:
        fresh = DEPTH_PARTS if c.depth and c.depth.start == "random" else ()
        model = checkpoint.load_model(config.init, c, "cpu", torch.float32, fresh=fresh)
        prompt = Prompt.load(config.init / checkpoint.TOKENIZER, c.max_text_tokens)
    else:
        model = DepthVLA(c)
        prompt = Prompt(train_tokenizer({e.instruction for e in episodes}, c.vocab_size), c.max_text_tokens)
    if config.init and (config.init / checkpoint.STATS).exists():
        stats = Normaliser.load(config.init / checkpoint.STATS)
    else:
        states = np.concatenate([episode.state for episode in train_episodes]).astype(np.float64)
        stats = Normaliser.fit(states, chunk_actions(train_episodes, c.horizon), robot.gripper_mask)
    used = torch.arange(c.action_dim) < robot.size
    samples = [Samples(part, stats, prompt, c) for part in (train_episodes, held_out)]
    if first:
        print(f"{len(train_episodes)} episodes, {len(samples[0])} frames; {len(held_out)} episodes held out")
    del episodes, train_episodes, held_out  # the samples hold a copy of every image

    trainer = Trainer(model, *samples, used, config.loop)
    log = config.out / "train.jsonl"
    trainer.run(lambda averaged: checkpoint.save(config.out, settings, averaged, stats, prompt.tokenizer), log)
    if first:
        plot_losses(log, config.out / "train.png")
        print(f"wrote {config.out}")
    if dist.is_initialized():
        dist.destroy_process_group()


def main() -> None:
    train(tyro.cli(TrainConfig, description=__doc__))


if __name__ == "__main__":
    main()
