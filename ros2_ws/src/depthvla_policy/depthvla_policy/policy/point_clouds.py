"""Points and their colours from a depth image, for whoever publishes or draws them."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from depthvla_policy.policy.calibration import FISHEYE


def points(
    depth_m: np.ndarray, k: np.ndarray, d: Sequence[float] = (), model: str = ""
) -> tuple[np.ndarray, np.ndarray]:
    """Known depths as points: (N, 3) in the camera's optical frame [m], and (N, 2) their pixels x, y.

    Args:
        depth_m: (H, W) along the optical axis, NaN where unknown.
        k: (3, 3) camera matrix of that image.
        d: its distortion coefficients; none for a pinhole camera.
        model: of `d`, one of `calibration.COEFFICIENTS`.
    """
    rows, columns = np.nonzero(np.isfinite(depth_m))
    pixels = np.column_stack([columns, rows])
    z = depth_m[rows, columns][:, None]
    return np.hstack([_rays(pixels, k, np.asarray(d), model) * z, z]), pixels


def point_colours(xyz: np.ndarray, image: np.ndarray, k: np.ndarray) -> np.ndarray:
    """(N, 3) uint8 RGB of points (N, 3) in the optical frame of an (H, W, 3) image with camera matrix `k`."""
    pixels = np.rint(xyz[:, :2] / xyz[:, 2:] * k[[0, 1], [0, 1]] + k[:2, 2]).astype(int)
    height, width = image.shape[:2]
    return image[np.clip(pixels[:, 1], 0, height - 1), np.clip(pixels[:, 0], 0, width - 1)]


def _rays(pixels: np.ndarray, k: np.ndarray, d: np.ndarray, model: str) -> np.ndarray:
    """(N, 2) pixels -> (N, 2) x/z and y/z."""
    if not d.any():
        return (pixels - k[:2, 2]) / k[[0, 1], [0, 1]]
    undistort = cv2.fisheye.undistortPoints if model == FISHEYE else cv2.undistortPoints
    return undistort(pixels[:, None].astype(np.float64), k, d)[:, 0]
