"""A camera's calibration, from the YAML of camera_calibration or a CameraInfo, and images rectified with it.

Knows no ROS, so that the live node, recorded bags and datasets see the same image.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from r1lite_description import files

# Distortion models of sensor_msgs (distortion_models.hpp) and how many coefficients of each OpenCV takes.
COEFFICIENTS = {"plumb_bob": (4, 5), "rational_polynomial": (8, 12, 14), "equidistant": (4,)}
FISHEYE = "equidistant"
NO_DISTORTION = ("plumb_bob", np.zeros(5))
KEYS = ("image_width", "image_height", "camera_matrix", "distortion_model", "distortion_coefficients")


@dataclass(frozen=True, eq=False)
class Calibration:
    """What CameraInfo says of a camera.

    k: (3, 3) matrix of the image as it comes [px]. d: coefficients of `model`. rectified_k: (3, 3) matrix of the
    rectified image, the left part of CameraInfo's P. The rotation R of a stereo pair is left out: a rectified image
    stays in its camera's frame.

    Raises:
        ValueError: a value is not finite or not allowed, or the number of coefficients is not the model's.
    """

    width: int
    height: int
    model: str
    k: np.ndarray
    d: np.ndarray
    rectified_k: np.ndarray

    def __post_init__(self) -> None:
        if self.width <= 0 or self.height <= 0:
            raise ValueError(f"the image size is {self.width}x{self.height}; both must be above 0")
        if self.model not in COEFFICIENTS:
            raise ValueError(f"distortion model is {self.model!r}; allowed: {', '.join(COEFFICIENTS)}")
        if len(self.d) not in COEFFICIENTS[self.model]:
            allowed = " or ".join(map(str, COEFFICIENTS[self.model]))
            raise ValueError(f"{self.model} has {len(self.d)} coefficients; allowed: {allowed}")
        if not np.all(np.isfinite(self.d)):
            raise ValueError(f"distortion coefficients are {self.d.tolist()}; they must be finite")
        for name, matrix in (("camera matrix", self.k), ("projection matrix", self.rectified_k)):
            focal = matrix[[0, 1], [0, 1]]
            if not np.all(np.isfinite(matrix)) or np.any(focal <= 0) or matrix[2].tolist() != [0, 0, 1]:
                raise ValueError(
                    f"the {name} is {matrix.tolist()}; it must be finite, its focal lengths above 0, its last row 0 0 1"
                )

    @property
    def is_rectified(self) -> bool:
        """Whether rectifying changes nothing."""
        return not np.any(self.d) and np.array_equal(self.k, self.rectified_k)

    def rectified(self) -> Calibration:
        """Of the images that `Rectifier` makes."""
        model, d = NO_DISTORTION
        return Calibration(self.width, self.height, model, self.rectified_k, d, self.rectified_k)

    def same_as(self, other: Calibration) -> bool:
        if (self.width, self.height, self.model) != (other.width, other.height, other.model):
            return False
        pairs = ((self.k, other.k), (self.d, other.d), (self.rectified_k, other.rectified_k))
        return all(np.array_equal(mine, others) for mine, others in pairs)


class Rectifier:
    """Undistorts the images of one camera. What the camera did not see is black."""

    def __init__(self, calibration: Calibration) -> None:
        self.calibration = calibration
        self._maps: tuple[np.ndarray, np.ndarray] | None = None
        if not calibration.is_rectified:
            c, module = calibration, cv2.fisheye if calibration.model == FISHEYE else cv2
            size = (c.width, c.height)
            self._maps = module.initUndistortRectifyMap(c.k, c.d, np.eye(3), c.rectified_k, size, cv2.CV_16SC2)

    def __call__(self, image: np.ndarray) -> np.ndarray:
        """(H, W, 3) uint8 -> (H, W, 3) uint8. Raises ValueError for an image of another size than the calibration's."""
        height, width = image.shape[:2]
        c = self.calibration
        if (width, height) != (c.width, c.height):
            raise ValueError(f"the image is {width}x{height}; its calibration is for {c.width}x{c.height}")
        return image if self._maps is None else cv2.remap(image, *self._maps, cv2.INTER_LINEAR)


def load(path: str | Path) -> Calibration:
    """Read the YAML that camera_calibration writes and camera_info_manager reads; other keys are ignored.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a key is missing or a value is not allowed; the message names file, key and value.
    """
    path = Path(path)
    raw = files.read_yaml(path, "a camera's calibration")
    try:
        return parse(raw)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def parse(raw: Any) -> Calibration:
    """Of the contents of such a file. Raises ValueError as `load`."""
    missing = [key for key in KEYS if not isinstance(raw, dict) or key not in raw]
    if missing:
        raise ValueError(f"missing keys {missing}; it needs {', '.join(KEYS)}")
    try:
        return _calibration(
            raw["image_width"],
            raw["image_height"],
            raw["distortion_model"],
            _data(raw, "camera_matrix", 9),
            _data(raw, "distortion_coefficients"),
            _data(raw, "projection_matrix", 12) if "projection_matrix" in raw else (),
        )
    except TypeError as error:
        raise ValueError(str(error)) from error


def describe(calibration: Calibration) -> dict[str, Any]:
    """What `parse` reads."""
    projection = np.hstack([calibration.rectified_k, np.zeros((3, 1))])
    return {
        "image_width": calibration.width,
        "image_height": calibration.height,
        "camera_matrix": {"rows": 3, "cols": 3, "data": calibration.k.ravel().tolist()},
        "distortion_model": calibration.model,
        "distortion_coefficients": {"rows": 1, "cols": len(calibration.d), "data": calibration.d.tolist()},
        "projection_matrix": {"rows": 3, "cols": 4, "data": projection.ravel().tolist()},
    }


def from_camera_info(message: Any) -> Calibration | None:
    """Of a sensor_msgs/CameraInfo; None where it says, with zeros, that the camera is not calibrated.

    Raises:
        ValueError: a value is not allowed.
    """
    if not (message.width and message.height and message.k[0] != 0.0):
        return None
    return _calibration(message.width, message.height, message.distortion_model, message.k, message.d, message.p)


def _calibration(
    width: int, height: int, model: str, k: Sequence[float], d: Sequence[float], p: Sequence[float]
) -> Calibration:
    matrix, coefficients = np.array(k, dtype=np.float64).reshape(3, 3), np.array(d, dtype=np.float64)
    # P of zeros is one that nobody has set.
    rectified = np.array(p, dtype=np.float64).reshape(3, 4)[:, :3] if np.any(p) else matrix
    if not np.any(coefficients):  # drivers name any model, or none, and give any number of zeros
        model, coefficients = NO_DISTORTION
    return Calibration(int(width), int(height), str(model), matrix, coefficients, rectified)


def _data(raw: dict, key: str, count: int | None = None) -> list[float]:
    value = raw[key]
    numbers = value.get("data") if isinstance(value, dict) else None
    if not isinstance(numbers, list) or (count is not None and len(numbers) != count):
        raise ValueError(f"{key} is {value!r}; it must have data, a list of {f'{count} ' if count else ''}numbers")
    return numbers
