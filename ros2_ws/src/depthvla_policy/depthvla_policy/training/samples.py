"""Episodes as training samples: an observation, the chunk that follows it, depth and where the named object is."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from depthvla_policy.data.episodes import Episode
from depthvla_policy.model.config import ModelConfig
from depthvla_policy.model.depthvla import Inputs
from depthvla_policy.policy.normalise import Normaliser
from depthvla_policy.policy.prompt import Prompt


@dataclass(frozen=True)
class Batch:
    """inputs: B observations. chunks: (B, horizon, action_dim), normalised. depth_m: (B, C, h, w) metres to be
    predicted, or None. target_m: (B, 3).
    """

    inputs: Inputs
    chunks: Tensor
    depth_m: Tensor | None
    target_m: Tensor


class Samples:
    """All frames of some episodes. An index is a frame; its chunk is the next `horizon` actions, the last one
    repeated.
    """

    def __init__(self, episodes: list[Episode], stats: Normaliser, prompt: Prompt, config: ModelConfig) -> None:
        horizon, dim = config.horizon, config.action_dim
        self.takes_depth = config.takes_depth
        state = np.concatenate([episode.state for episode in episodes]).astype(np.float64)
        chunks = stats.actions(chunk_actions(episodes, horizon), state)
        pad = dim - state.shape[1]
        encoded = {e.instruction: prompt.encode(e.instruction) for e in episodes}
        lengths = [len(episode.state) for episode in episodes]
        self.images = torch.from_numpy(np.concatenate([episode.images for episode in episodes]))
        depths = [episode.depth_m for episode in episodes]
        self.depth_m = None if depths[0] is None else torch.from_numpy(np.concatenate(depths))
        self.state = torch.from_numpy(np.pad(stats.state(state), ((0, 0), (0, pad)))).float()
        self.chunks = torch.from_numpy(np.pad(chunks, ((0, 0), (0, 0), (0, pad)))).float()
        self.target_m = torch.from_numpy(np.concatenate([episode.target_m for episode in episodes])).float()
        self.text = torch.from_numpy(
            np.concatenate([np.tile(encoded[e.instruction][0], (n, 1)) for e, n in zip(episodes, lengths, strict=True)])
        )
        self.text_mask = torch.from_numpy(
            np.concatenate([np.tile(encoded[e.instruction][1], (n, 1)) for e, n in zip(episodes, lengths, strict=True)])
        )

    def __len__(self) -> int:
        return len(self.state)

    def batch(self, index: Tensor, colours: Tensor | None = None) -> Batch:
        """The frames of `index` (B,), their colours varied by `colours` (B, C, 5) of `draw_colours`."""
        images = self.images[index].permute(0, 1, 4, 2, 3).float() / 255.0
        if colours is not None:
            images = vary_colours(images, colours)
        depth_m = None if self.depth_m is None else self.depth_m[index].float()
        return Batch(
            inputs=Inputs(
                images,
                self.text[index],
                self.text_mask[index],
                self.state[index],
                depth_m=depth_m if self.takes_depth else None,
            ),
            chunks=self.chunks[index],
            depth_m=None if self.takes_depth else depth_m,
            target_m=self.target_m[index],
        )


def chunk_actions(episodes: list[Episode], horizon: int) -> np.ndarray:
    """(frames, horizon, size) absolute actions; behind the end of an episode its last action is repeated."""
    chunks = []
    for episode in episodes:
        T = len(episode.action)
        steps = np.minimum(np.arange(T)[:, None] + np.arange(horizon), T - 1)
        chunks.append(episode.action[steps].astype(np.float64))
    return np.concatenate(chunks)


def draw_colours(batch: int, cameras: int, generator: torch.Generator) -> Tensor:
    """(B, C, 5) random numbers in [-1, 1) for `vary_colours`."""
    return 2 * torch.rand(batch, cameras, 5, generator=generator) - 1


def vary_colours(images: Tensor, draws: Tensor) -> Tensor:
    """Contrast by 30 %, brightness by 0.15, colour balance by 10 %, for each image of (B, C, 3, H, W) in [0, 1]."""
    contrast, brightness, balance = draws[..., None, None].split([1, 1, 3], dim=2)
    varied = (images - 0.5) * (1.0 + 0.3 * contrast) + 0.5 + 0.15 * brightness
    return (varied * (1.0 + 0.1 * balance)).clamp_(0.0, 1.0)
