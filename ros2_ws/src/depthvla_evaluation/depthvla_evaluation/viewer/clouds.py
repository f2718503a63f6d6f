"""Depth images as pictures and as points."""

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


def points(depth_m: np.ndarray, k: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Known depths of a pinhole camera: (N, 3) points in its optical frame [m], and (N, 2) their pixels x, y.

    Args:
        depth_m: (H, W) along the optical axis, NaN where unknown.
        k: (3, 3) camera matrix of that image.
    """
    rows, columns = np.nonzero(np.isfinite(depth_m))
    pixels = np.column_stack([columns, rows])
    z = depth_m[rows, columns][:, None]
    return np.hstack([(pixels - k[:2, 2]) / k[[0, 1], [0, 1]] * z, z]), pixels


def point_colours(found: np.ndarray, image: np.ndarray, k: np.ndarray) -> np.ndarray:
    """(N, 3) uint8 RGB of points (N, 3) in the optical frame of an (H, W, 3) image with camera matrix `k`."""
    pixels = np.rint(found[:, :2] / found[:, 2:] * k[[0, 1], [0, 1]] + k[:2, 2]).astype(int)
    height, width = image.shape[:2]
    return image[np.clip(pixels[:, 1], 0, height - 1), np.clip(pixels[:, 0], 0, width - 1)]
