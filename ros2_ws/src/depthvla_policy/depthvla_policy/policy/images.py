"""From a camera's bytes to the square image the network sees, and the camera matrix that goes with it.

The same functions serve the live node, recorded bags and training, so that what was trained is what is deployed.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from depthvla_policy.model.config import IMAGE_FITS


def decode_jpeg(data: bytes | np.ndarray) -> np.ndarray:
    """Decode a compressed image (JPEG or PNG) to (H, W, 3) uint8 RGB.

    Raises:
        ValueError: the bytes are not an image.
    """
    buffer = np.frombuffer(data, dtype=np.uint8)
    image = cv2.imdecode(buffer, cv2.IMREAD_COLOR) if buffer.size else None
    if image is None:
        raise ValueError(f"{buffer.size} bytes are not a JPEG or PNG image")
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


@dataclass(frozen=True)
class ImageFit:
    """How a camera image becomes a square of `size` pixels.

    "pad" keeps the whole image and fills with black, as pi0 does (openpi shared/image_tools.py resize_with_pad);
    "crop" keeps the central square, which spends every pixel on the middle of a wide image.
    """

    size: int
    fit: str

    def __post_init__(self) -> None:
        if self.fit not in IMAGE_FITS:
            raise ValueError(f"image fit is {self.fit!r}; allowed: {', '.join(IMAGE_FITS)}")
        if self.size <= 0:
            raise ValueError(f"image size is {self.size}; it must be above 0")

    def apply(self, image: np.ndarray) -> np.ndarray:
        """(H, W, 3) uint8 RGB -> (size, size, 3) uint8 RGB.

        Raises:
            ValueError: `image` is not (H, W, 3) uint8.
        """
        if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
            raise ValueError(f"an image must be (H, W, 3) uint8, got {image.shape} {image.dtype}")
        height, width = image.shape[:2]
        x, y, w, h = self._source(width, height)
        left, top, inner_w, inner_h = self._target(width, height, self.size)
        source = image[y : y + h, x : x + w]
        # Area averaging where pixels are thrown away, else a small object flickers between samples.
        shrink = inner_w < w
        resized = cv2.resize(source, (inner_w, inner_h), interpolation=cv2.INTER_AREA if shrink else cv2.INTER_LINEAR)
        if (inner_w, inner_h) == (self.size, self.size):
            return resized
        square = np.zeros((self.size, self.size, 3), dtype=np.uint8)
        square[top : top + inner_h, left : left + inner_w] = resized
        return square

    def apply_depth(self, depth_m: np.ndarray, size: int) -> np.ndarray:
        """(H, W) depth in metres -> (size, size) float32 by nearest sample; NaN where there is no camera pixel."""
        height, width = depth_m.shape
        x, y, w, h = self._source(width, height)
        left, top, inner_w, inner_h = self._target(width, height, size)
        columns = x + np.floor((np.arange(inner_w) + 0.5) * w / inner_w).astype(int)
        rows = y + np.floor((np.arange(inner_h) + 0.5) * h / inner_h).astype(int)
        square = np.full((size, size), np.nan, dtype=np.float32)
        square[top : top + inner_h, left : left + inner_w] = depth_m[np.ix_(rows, columns)]
        return square

    def camera_matrix(self, k: np.ndarray, width: int, height: int, size: int) -> np.ndarray:
        """(3, 3) matrix of the square image at `size` pixels, from the matrix `k` of the (height, width) image.

        Pixel centres are at integer coordinates, as in sensor_msgs/CameraInfo and OpenCV.
        """
        x, y, w, h = self._source(width, height)
        left, top, inner_w, inner_h = self._target(width, height, size)
        scale_x, scale_y = inner_w / w, inner_h / h
        fitted = np.array(k, dtype=np.float64).reshape(3, 3)
        fitted[0] *= scale_x
        fitted[1] *= scale_y
        fitted[0, 2] = (k[0][2] + 0.5 - x) * scale_x - 0.5 + left
        fitted[1, 2] = (k[1][2] + 0.5 - y) * scale_y - 0.5 + top
        return fitted

    def _source(self, width: int, height: int) -> tuple[int, int, int, int]:
        """x, y, width, height of the part of the image that is kept."""
        if self.fit == "pad":
            return 0, 0, width, height
        side = min(width, height)
        return (width - side) // 2, (height - side) // 2, side, side

    def _target(self, width: int, height: int, size: int) -> tuple[int, int, int, int]:
        """left, top, width, height of where that part lies in the square."""
        if self.fit == "crop":
            return 0, 0, size, size
        scale = size / max(width, height)
        w, h = round(width * scale), round(height * scale)
        return (size - w) // 2, (size - h) // 2, w, h
