"""Depth images as pictures."""

from __future__ import annotations

import cv2
import numpy as np

NEAREST_M = 0.01  # of a logarithmic scale that is asked to begin at 0


def depth_colours(depth_m: np.ndarray, near_m: float, far_m: float) -> np.ndarray:
    """(H, W) metres -> (H, W, 3) uint8 RGB by the logarithm of distance, warm is near; black where unknown."""
    nearest_m = max(near_m, NEAREST_M)
    nearness = np.nan_to_num(np.log(far_m / np.maximum(depth_m, nearest_m)) / np.log(far_m / nearest_m))
    mapped = cv2.applyColorMap((np.clip(nearness, 0.0, 1.0) * 255).astype(np.uint8), cv2.COLORMAP_TURBO)
    colours = cv2.cvtColor(mapped, cv2.COLOR_BGR2RGB)
    colours[~np.isfinite(depth_m)] = 0
    return colours
