"""From demonstrations to batches: what `Demonstrations` and RGB-D sources hand out, as the network takes it.

Runs in the data loader's workers: text is tokenised and numbers are normalised as in the deployed policy.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from depthvla_policy.model.config import ModelConfig
from depthvla_policy.policy.normalise import Normaliser
from depthvla_policy.policy.prompt import Prompt


@dataclass(frozen=True)
class Batch:
    """B observations. images: (B, C, 3, S, S) uint8. depth_m: (B, C, h, w) metres, NaN where unknown, or None where
    nobody asked for it. text: (B, L) ids; text_mask: (B, L) bool. state: (B, state_dim) and chunks: (B, horizon,
    action_dim), normalised, NaN where unknown. target: (B,) int64, the patch of the first camera in which the named
    object is, -1 where unknown. RGB-D images have no more than depth.
    """

    images: Tensor
    depth_m: Tensor | None
    text: Tensor | None = None
    text_mask: Tensor | None = None
    state: Tensor | None = None
    chunks: Tensor | None = None
    target: Tensor | None = None

    def to(self, device: torch.device) -> Batch:
        return self._map(lambda tensor: tensor.to(device, non_blocking=True))

    def pin_memory(self) -> Batch:
        """What the data loader calls, so that copies to a GPU need not be waited for."""
        return self._map(Tensor.pin_memory)

    def _map(self, function: Callable[[Tensor], Tensor]) -> Batch:
        tensors = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return Batch(**{name: tensor if tensor is None else function(tensor) for name, tensor in tensors.items()})


class Collate:
    """A list of demonstrations' samples as a batch. The instructions are tokenised once, for all workers."""

    def __init__(
        self, stats: Normaliser, prompt: Prompt, instructions: Iterable[str], config: ModelConfig, depth_size: int
    ) -> None:
        self.stats, self.config = stats, config
        self.depth_shape = (config.cameras, depth_size, depth_size)
        self.encoded = {instruction: prompt.encode(instruction) for instruction in instructions}

    def __call__(self, samples: list[dict]) -> Batch:
        c = self.config
        state = np.stack([sample["state"] for sample in samples])
        chunks = self.stats.actions(np.stack([sample["actions"] for sample in samples]), state)
        maps = [sample["depth_m"] for sample in samples]
        pad_state, pad_action = c.state_dim - state.shape[1], c.action_dim - state.shape[1]
        text, text_mask = zip(*(self.encoded[sample["instruction"]] for sample in samples), strict=True)
        return Batch(
            images=_images([sample["images"] for sample in samples]),
            depth_m=_depth(maps, self.depth_shape) if self.depth_shape[1] else None,
            text=torch.from_numpy(np.stack(text)),
            text_mask=torch.from_numpy(np.stack(text_mask)),
            state=torch.from_numpy(np.pad(self.stats.state(state), ((0, 0), (0, pad_state)))).float(),
            chunks=torch.from_numpy(np.pad(chunks, ((0, 0), (0, 0), (0, pad_action)))).float(),
            target=torch.tensor([_patch(sample["target_px"], c) for sample in samples]),
        )


def collate_rgbd(samples: list[tuple[np.ndarray, np.ndarray]]) -> Batch:
    """Fitted images (S, S, 3) and depth maps (d, d) as a batch of one camera."""
    images, depth_m = zip(*samples, strict=True)
    return Batch(_images([image[None] for image in images]), torch.from_numpy(np.stack(depth_m))[:, None])


def random_batch(c: ModelConfig, n: int) -> Batch:
    """`n` observations with everything that any loss asks for."""
    generator = torch.Generator().manual_seed(0)
    size = c.image_size if c.takes_depth else c.depth_size
    images = (n, c.cameras, 3, c.image_size, c.image_size)
    return Batch(
        images=torch.randint(0, 256, images, dtype=torch.uint8, generator=generator),
        depth_m=torch.rand(n, c.cameras, size, size, generator=generator) + 0.5 if size else None,
        text=torch.randint(0, c.vocab_size, (n, c.max_text_tokens), generator=generator),
        text_mask=torch.ones(n, c.max_text_tokens, dtype=torch.bool),
        state=torch.randn(n, c.state_dim, generator=generator),
        chunks=torch.randn(n, c.horizon, c.action_dim, generator=generator),
        target=torch.zeros(n, dtype=torch.long),
    )


def _patch(px: np.ndarray, c: ModelConfig) -> int:
    """Of a column and a row; -1 without."""
    if not np.isfinite(px).all():
        return -1
    column, row = ((px + 0.5) // c.patch_size).astype(int)
    return int(row * (c.image_size // c.patch_size) + column)


def _images(images: list[np.ndarray]) -> Tensor:
    """(C, S, S, 3) each -> (B, C, 3, S, S)."""
    return torch.from_numpy(np.stack(images)).permute(0, 1, 4, 2, 3).contiguous()


def _depth(maps: list[np.ndarray | None], shape: tuple[int, ...]) -> Tensor:
    """(C, d, d) each -> (B, C, d, d), NaN for those that have none."""
    unknown = np.full(shape, np.nan, np.float32)
    return torch.from_numpy(np.stack([unknown if depth_m is None else depth_m for depth_m in maps])).float()
