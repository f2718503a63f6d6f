"""The pictures of demonstrations, each camera's for itself, as RGB-D images: for a robot's or simulator's own depth."""

from __future__ import annotations

import numpy as np

from depthvla_policy.data.demonstrations import Demonstrations


class DemonstrationImages:
    """As `RgbdImages`, in the order of frames, then cameras.

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
