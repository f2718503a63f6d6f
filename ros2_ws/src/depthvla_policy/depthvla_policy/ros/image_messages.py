"""Camera images, depth, camera matrices and point clouds: messages to numpy and back."""

from __future__ import annotations

import re
import sys
from array import array
from dataclasses import dataclass

import cv2
import numpy as np
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, PointCloud2, PointField
from std_msgs.msg import Header

from depthvla_control.refusal import Reason, Refusal
from depthvla_policy.policy.images import RAW_ENCODINGS, check_raw, decode_jpeg, decode_raw

COMPRESSED_FORMATS = ("jpeg", "jpg", "png")
# In `CompressedImage.format`: depth, an infrared or grey image, or a mosaic that was compressed as it is; of a
# "bayer_rggb8; jpeg compressed bgr8" colours were made first.
NO_COLOURS = re.compile(
    r"\b((16u|16s|32s|32f|64f)c\d|mono\d+|8uc[12]|8sc\d|compresseddepth)\b|\bbayer_\w+( \w+ compressed)?$"
)


@dataclass(frozen=True)
class EncodedImage:
    """An image as it came. Decoding is left to whoever needs the pixels, off the executor's thread."""

    topic: str
    frame_id: str
    encoding: str  # "compressed", or one of `images.RAW_ENCODINGS`
    data: array
    height: int = 0
    width: int = 0
    step: int = 0


def from_compressed(message: CompressedImage, topic: str) -> EncodedImage | Refusal:
    # "rgb8; jpeg compressed bgr8" from image_transport, plain "jpeg" from most cameras' own drivers.
    text = " ".join(message.format.lower().replace(";", " ").split())
    if not any(word in COMPRESSED_FORMATS for word in text.split()) or NO_COLOURS.search(text):
        text = f"{topic}: format {message.format!r} is not allowed; allowed: {', '.join(COMPRESSED_FORMATS)} of colours"
        return Refusal(Reason.WRONG_ENCODING, text)
    return EncodedImage(topic, message.header.frame_id, "compressed", message.data)


def from_image(message: Image, topic: str) -> EncodedImage | Refusal:
    about = {name: getattr(message, name) for name in ("height", "width", "step", "encoding")}
    try:
        check_raw(len(message.data), **about)
    except ValueError as error:
        reason = Reason.WRONG_COUNT if message.encoding in RAW_ENCODINGS else Reason.WRONG_ENCODING
        return Refusal(reason, f"{topic}: {error}")
    return EncodedImage(topic, message.header.frame_id, data=message.data, **about)


def decode(image: EncodedImage) -> np.ndarray:
    """(H, W, 3) uint8 RGB. Raises ValueError naming the topic when the bytes are no image."""
    try:
        if image.encoding == "compressed":
            return decode_jpeg(image.data)
        return decode_raw(image.data, height=image.height, width=image.width, step=image.step, encoding=image.encoding)
    except ValueError as error:
        raise ValueError(f"{image.topic}: {error}") from error


def depth_message(header: Header, depth_m: np.ndarray) -> Image:
    """(H, W) metres, NaN where unknown -> 32FC1 (REP-118, REP-117)."""
    return _image(header, "32FC1", np.ascontiguousarray(depth_m, dtype=np.float32))


def colour_message(header: Header, colours: np.ndarray) -> Image:
    """(H, W, 3) uint8 RGB -> rgb8."""
    return _image(header, "rgb8", np.ascontiguousarray(colours))


def camera_info_message(header: Header, k: np.ndarray, size: tuple[int, int], source: CameraInfo) -> CameraInfo:
    """The source's camera with the matrix `k` (3, 3) of an image of `size` (height, width).

    Distortion coefficients hold for normalised coordinates, so they stay what they are.
    """
    height, width = size
    message = CameraInfo(header=header, height=height, width=width, distortion_model=source.distortion_model)
    message.d = source.d
    message.k = k.ravel().tolist()
    message.r = np.eye(3).ravel().tolist()
    message.p = np.hstack([k, np.zeros((3, 1))]).ravel().tolist()
    return message


def points_message(header: Header, depth_m: np.ndarray, info: CameraInfo, colours: np.ndarray) -> PointCloud2:
    """Known depths as coloured points (x, y, z, rgb) in the camera's optical frame.

    Args:
        header: of the depth image.
        depth_m: (H, W) metres along the optical axis, NaN where unknown.
        info: that image's camera.
        colours: (H, W, 3) uint8 RGB of its pixels.
    """
    rows, columns = np.nonzero(np.isfinite(depth_m))
    z = depth_m[rows, columns]
    rays = _rays(np.stack([columns, rows], axis=1).astype(np.float64), info)
    points = np.zeros(len(z), dtype=[("xyz", "<f4", 3), ("bgr0", "u1", 4)])
    points["xyz"] = np.column_stack([rays * z[:, None], z])
    # PCL's packing, which viewers read: 0x00RRGGBB in the bits of a float32.
    points["bgr0"][:, :3] = colours[rows, columns, ::-1]
    message = PointCloud2(header=header, height=1, width=len(z), is_dense=True, is_bigendian=False)
    message.fields = [
        PointField(name=name, offset=4 * index, datatype=PointField.FLOAT32, count=1)
        for index, name in enumerate(("x", "y", "z", "rgb"))
    ]
    message.point_step, message.row_step = points.itemsize, points.nbytes
    message.data = array("B", points.tobytes())
    return message


def _rays(pixels: np.ndarray, info: CameraInfo) -> np.ndarray:
    """(N, 2) pixels -> (N, 2) x/z and y/z."""
    k, d = np.array(info.k).reshape(3, 3), np.array(info.d)
    if not d.any():
        return (pixels - k[:2, 2]) / k[[0, 1], [0, 1]]
    undistort = cv2.fisheye.undistortPoints if info.distortion_model == "equidistant" else cv2.undistortPoints
    return undistort(pixels[:, None], k, d)[:, 0]


def _image(header: Header, encoding: str, pixels: np.ndarray) -> Image:
    height, width = pixels.shape[:2]
    message = Image(header=header, encoding=encoding, height=height, width=width, step=pixels.strides[0])
    message.is_bigendian = sys.byteorder == "big"
    # An array('B') is taken over as it is; bytes or numpy would be checked element by element on some distributions.
    message.data = array("B", pixels.tobytes())
    return message
