"""RGB-D datasets for the depth expert's pre-training, fitted to the network's square as the policy's images are."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from depthvla_policy.data.demonstrations import Demonstrations
from depthvla_policy.data.rgbd.hypersim import HyperSim
from depthvla_policy.data.rgbd.png_datasets import open_scannet, open_scannetpp, open_wildrgbd
from depthvla_policy.data.rgbd.source import RgbdSource
from depthvla_policy.policy.images import ImageFit

# The datasets of paper section IV-A, in the layouts they are published in.
LAYOUTS = {"wildrgbd": open_wildrgbd, "scannet": open_scannet, "scannetpp": open_scannetpp, "hypersim": HyperSim}


class RgbdImages:
    """Map-style: (S, S, 3) uint8 RGB and (d, d) float32 metres, NaN where unknown. `frames`: those of the source that
    there are; None takes all.
    """

    def __init__(self, source: RgbdSource, fit: ImageFit, depth_size: int, frames: np.ndarray | None = None) -> None:
        self.source, self.fit, self.depth_size = source, fit, depth_size
        self.frames = np.arange(len(source)) if frames is None else frames

    def __len__(self) -> int:
        return len(self.frames)

    def __getitem__(self, i: int) -> tuple[np.ndarray, np.ndarray]:
        image, depth_m = self.source[int(self.frames[i])]
        return self.fit.apply(image), self.fit.apply_depth(depth_m, self.depth_size)


class DemonstrationImages:
    """The pictures of demonstrations, each camera's for itself, for a robot's or simulator's own depth: as
    `RgbdImages`, in the order of frames, then cameras.

    Raises:
        ValueError: the demonstrations have no depth.
    """

    def __init__(self, demonstrations: Demonstrations, cameras: int) -> None:
        if not demonstrations.has_depth:
            raise ValueError("the demonstrations have no depth to learn from")
        self.demonstrations, self.cameras = demonstrations, cameras

    def __len__(self) -> int:
        return len(self.demonstrations) * self.cameras

    def __getitem__(self, i: int) -> tuple[np.ndarray, np.ndarray]:
        frame, camera = divmod(i, self.cameras)
        sample = self.demonstrations[frame]
        return sample["images"][camera], sample["depth_m"][camera]


def open_source(layout: str, root: Path) -> RgbdSource:
    """Open an RGB-D dataset.

    Raises:
        FileNotFoundError: there is nothing of that layout in `root`.
        ValueError: there is no such layout.
    """
    if layout not in LAYOUTS:
        raise ValueError(f"an RGB-D layout is {layout!r}; allowed: {', '.join(LAYOUTS)}")
    return LAYOUTS[layout](root)


def split_scenes(
    source: RgbdSource, fit: ImageFit, depth_size: int, held_out_share: float, limit: int | None = None
) -> tuple[RgbdImages, RgbdImages]:
    """The first scenes for training and the last ones, at least one, for validation; of `limit` scenes at most.

    Raises:
        ValueError: one of the two would be empty.
    """
    scenes = list(dict.fromkeys(source.scenes))[:limit]
    count = max(1, round(len(scenes) * held_out_share))
    if count >= len(scenes):
        raise ValueError(f"held_out_share is {held_out_share} of {len(scenes)} scenes; both parts need one at least")
    train, held_out = set(scenes[:-count]), set(scenes[-count:])

    def of(wanted: set[str]) -> RgbdImages:
        frames = [i for i, scene in enumerate(source.scenes) if scene in wanted]
        return RgbdImages(source, fit, depth_size, np.array(frames))

    return of(train), of(held_out)
