"""Images, depth, camera matrices and point clouds as messages. No OpenCV: the robot's side uses this."""

from __future__ import annotations

import sys
from array import array
from collections.abc import Sequence

import numpy as np
from sensor_msgs.msg import CameraInfo, Image, PointCloud2, PointField
from std_msgs.msg import Header


def depth_message(header: Header, depth_m: np.ndarray) -> Image:
    """(H, W) metres, NaN where unknown -> 32FC1 (REP-118, REP-117)."""
    return _image(header, "32FC1", np.ascontiguousarray(depth_m, dtype=np.float32))


def colour_message(header: Header, colours: np.ndarray) -> Image:
    """(H, W, 3) uint8 RGB -> rgb8."""
    return _image(header, "rgb8", np.ascontiguousarray(colours))


def camera_info_message(
    header: Header, k: np.ndarray, size: tuple[int, int], model: str = "plumb_bob", d: Sequence[float] = (0.0,) * 5
) -> CameraInfo:
    """A camera with the matrix `k` (3, 3) of an image of `size` (height, width), distorted as `model` with `d` says.

    Distortion coefficients hold for normalised coordinates: whatever the size, they are the camera's.
    """
    height, width = size
    message = CameraInfo(header=header, height=height, width=width, distortion_model=model)
    message.d = [float(value) for value in d]
    message.k = k.ravel().tolist()
    message.r = np.eye(3).ravel().tolist()
    message.p = np.hstack([k, np.zeros((3, 1))]).ravel().tolist()
    return message


def points_message(header: Header, points: np.ndarray, colours: np.ndarray) -> PointCloud2:
    """(N, 3) points [m] and their (N, 3) uint8 RGB as x, y, z, rgb."""
    cloud = np.zeros(len(points), dtype=[("xyz", "<f4", 3), ("bgr0", "u1", 4)])
    cloud["xyz"] = points
    # PCL's packing, which viewers read: 0x00RRGGBB in the bits of a float32.
    cloud["bgr0"][:, :3] = colours[:, ::-1]
    message = PointCloud2(header=header, height=1, width=len(cloud), is_dense=True, is_bigendian=False)
    message.fields = [
        PointField(name=name, offset=4 * index, datatype=PointField.FLOAT32, count=1)
        for index, name in enumerate(("x", "y", "z", "rgb"))
    ]
    message.point_step, message.row_step = cloud.itemsize, cloud.nbytes
    message.data = array("B", cloud.tobytes())
    return message


def _image(header: Header, encoding: str, pixels: np.ndarray) -> Image:
    height, width = pixels.shape[:2]
    message = Image(header=header, encoding=encoding, height=height, width=width, step=pixels.strides[0])
    message.is_bigendian = sys.byteorder == "big"
    # An array('B') is taken over as it is; bytes or numpy would be checked element by element on some distributions.
    message.data = array("B", pixels.tobytes())
    return message
