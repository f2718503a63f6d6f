"""The one way of a camera's image: from a message or bytes to pixels, rectified, fitted to the network's square.

It serves the live nodes, bags and the training, so that what was trained is what is deployed. Imports no ROS.
"""

from __future__ import annotations

import re
from array import array
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from depthvla_policy.policy.images import RAW_ENCODINGS, ImageFit, check_raw, decode_jpeg, decode_raw

COMPRESSED = "compressed"
COMPRESSED_FORMATS = ("jpeg", "jpg", "png")
# In `CompressedImage.format`: depth, an infrared or grey image, or a mosaic that was compressed as it is; of a
# "bayer_rggb8; jpeg compressed bgr8" colours were made first.
NO_COLOURS = re.compile(
    r"\b((16u|16s|32s|32f|64f)c\d|mono\d+|8uc[12]|8sc\d|compresseddepth)\b|\bbayer_\w+( \w+ compressed)?$"
)
Rectify = Callable[[np.ndarray], np.ndarray]  # (H, W, 3) uint8 -> the same


class EncodingError(ValueError):
    """An image is not of colours, or encoded in a way that is not allowed."""


@dataclass(frozen=True)
class EncodedImage:
    """An image as it came. Decoding is left to whoever needs the pixels, off the executor's thread.

    Images of one topic with the same bytes are equal, whenever they were taken.
    """

    data: array | bytes
    encoding: str = COMPRESSED  # or one of `images.RAW_ENCODINGS`
    height: int = 0
    width: int = 0
    step: int = 0
    topic: str = ""
    frame_id: str = ""


def encoded_image(message: Any, topic: str) -> EncodedImage:
    """Of a sensor_msgs/CompressedImage or Image, after what can be checked without decoding it.

    Raises:
        EncodingError: the image holds no colours, or is encoded in a way that is not allowed.
        ValueError: its data does not fit its size.
    """
    frame_id = message.header.frame_id
    if hasattr(message, "format"):
        # "rgb8; jpeg compressed bgr8" from image_transport, plain "jpeg" from most cameras' own drivers.
        text = " ".join(message.format.lower().replace(";", " ").split())
        if not any(word in COMPRESSED_FORMATS for word in text.split()) or NO_COLOURS.search(text):
            allowed = f"{', '.join(COMPRESSED_FORMATS)} of colours"
            raise EncodingError(f"{topic}: format {message.format!r} is not allowed; allowed: {allowed}")
        return EncodedImage(message.data, topic=topic, frame_id=frame_id)
    layout = {name: getattr(message, name) for name in ("encoding", "height", "width", "step")}
    try:
        check_raw(len(message.data), **layout)
    except ValueError as error:
        kind = ValueError if message.encoding in RAW_ENCODINGS else EncodingError
        raise kind(f"{topic}: {error}") from error
    return EncodedImage(message.data, **layout, topic=topic, frame_id=frame_id)


def camera_image(image: Any, rectify: Rectify | None = None) -> np.ndarray:
    """An image's pixels, (H, W, 3) uint8 RGB, rectified where that is asked for.

    Args:
        image: an `EncodedImage`, a sensor_msgs/CompressedImage or Image of any client library, or what is decoded
            already, such as a video's frame.
        rectify: such as a `calibration.Rectifier`.

    Raises:
        ValueError: the bytes are no image, or one of another encoding or size than is allowed; the topic is named
            where it is known.
    """
    pixels = image if isinstance(image, np.ndarray) else _decode(image)
    return rectify(pixels) if rectify else pixels


def network_image(image: Any, fit: ImageFit, rectify: Rectify | None = None) -> np.ndarray:
    """`camera_image`, fitted to the square that the network sees: (size, size, 3) uint8 RGB."""
    return fit.apply(camera_image(image, rectify))


def _decode(image: Any) -> np.ndarray:
    encoding = getattr(image, "encoding", COMPRESSED)
    try:
        if encoding == COMPRESSED:
            return decode_jpeg(image.data)
        return decode_raw(image.data, height=image.height, width=image.width, step=image.step, encoding=encoding)
    except ValueError as error:
        topic = getattr(image, "topic", "")
        raise ValueError(f"{topic}: {error}" if topic else str(error)) from error
