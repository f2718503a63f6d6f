"""How the simulated cameras' images become bytes. The node, the environments and the collector share it, so that a
policy sees the same JPEG artefacts in training as over the wire.
"""

from __future__ import annotations

import cv2
import numpy as np

JPEG_QUALITY = 90
DEPTH_SCALE_M = 0.001  # one unit of a depth PNG
DEPTH_MAX_M = 65.535


def encode_jpeg(rgb: np.ndarray, quality: int = JPEG_QUALITY) -> bytes:
    """JPEG of an (H, W, 3) uint8 RGB image."""
    return _encode(".jpg", cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, quality])


def encode_depth(depth_m: np.ndarray) -> bytes:
    """16-bit PNG in millimetres of an (H, W) depth image [m]; 0 where depth is not finite or farther than 65.5 m."""
    valid = np.isfinite(depth_m) & (depth_m > 0) & (depth_m <= DEPTH_MAX_M)
    units = np.where(valid, np.rint(np.where(valid, depth_m, 0) / DEPTH_SCALE_M), 0).astype(np.uint16)
    return _encode(".png", units, [cv2.IMWRITE_PNG_COMPRESSION, 1])


def _encode(extension: str, image: np.ndarray, options: list[int]) -> bytes:
    done, data = cv2.imencode(extension, image, options)
    if not done:
        raise ValueError(f"cannot encode an image of shape {image.shape} as {extension}")
    return data.tobytes()
