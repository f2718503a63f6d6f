"""From a camera's bytes to the square image the network sees, and the camera matrix that goes with it.

The same functions serve the live node, recorded bags and training, so that what was trained is what is deployed.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass

import cv2
import numpy as np
import simplejpeg

from depthvla_policy.model.config import IMAGE_FITS

JPEG, PNG = b"\xff\xd8", b"\x89PNG\r\n\x1a\n"
GREY = 0  # PNG's colour type
# Encoding of a sensor_msgs/Image of colours, as cv_bridge names them -> bytes of a pixel, and what makes RGB of it.
# OpenCV names a Bayer pattern by the second pixel of its second row and what follows.
RAW_ENCODINGS = {
    "rgb8": (3, None),
    "bgr8": (3, cv2.COLOR_BGR2RGB),
    "8UC3": (3, cv2.COLOR_BGR2RGB),
    "rgba8": (4, cv2.COLOR_RGBA2RGB),
    "bgra8": (4, cv2.COLOR_BGRA2RGB),
    "8UC4": (4, cv2.COLOR_BGRA2RGB),
    "yuv422": (2, cv2.COLOR_YUV2RGB_UYVY),
    "uyvy": (2, cv2.COLOR_YUV2RGB_UYVY),
    "yuv422_yuy2": (2, cv2.COLOR_YUV2RGB_YUY2),
    "yuyv": (2, cv2.COLOR_YUV2RGB_YUY2),
    "bayer_rggb8": (1, cv2.COLOR_BayerBG2RGB),
    "bayer_bggr8": (1, cv2.COLOR_BayerRG2RGB),
    "bayer_gbrg8": (1, cv2.COLOR_BayerGR2RGB),
    "bayer_grbg8": (1, cv2.COLOR_BayerGB2RGB),
}


def decode_jpeg(data: bytes | np.ndarray) -> np.ndarray:
    """Decode a compressed image (JPEG or PNG) to (H, W, 3) uint8 RGB.

    A picture of which a part is missing or damaged is refused, whatever the decoder would fill in: of a JPEG that lost
    a packet, OpenCV makes a picture that is wrong from there on, and some versions of it do so of one that was cut off.

    Raises:
        ValueError: the bytes are not an image, not a whole one, or a 16-bit grey one, which is depth.
    """
    buffer = np.frombuffer(data, dtype=np.uint8)
    begin = buffer[:26].tobytes()
    if begin.startswith(JPEG):
        try:
            return simplejpeg.decode_jpeg(buffer)  # strict: a warning of libjpeg's is an error
        except ValueError as error:
            raise ValueError(f"{buffer.size} bytes are not a whole JPEG image: {error}") from error
    if not begin.startswith(PNG):
        raise ValueError(f"{buffer.size} bytes are not a JPEG or PNG image")
    if begin[24:] == bytes((16, GREY)):
        raise ValueError(f"{buffer.size} bytes are a 16-bit grey PNG, which is depth and no colours")
    return cv2.cvtColor(_png(buffer, cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)


def decode_depth_mm(data: bytes | np.ndarray) -> np.ndarray:
    """16-bit PNG -> (H, W) uint16, millimetres along the optical axis, 0 where unknown.

    Raises:
        ValueError: the bytes are not a 16-bit image of one channel, or not a whole one.
    """
    buffer = np.frombuffer(data, dtype=np.uint8)
    image = _png(buffer, cv2.IMREAD_UNCHANGED) if buffer[:8].tobytes() == PNG else None
    if image is None or image.dtype != np.uint16 or image.ndim != 2:
        raise ValueError(f"{buffer.size} bytes are not a 16-bit PNG of one channel, which depth must be")
    return image


def decode_raw(data: bytes | np.ndarray, *, height: int, width: int, step: int, encoding: str) -> np.ndarray:
    """Pixels of a sensor_msgs/Image -> (H, W, 3) uint8 RGB. Raises ValueError as `check_raw`."""
    check_raw(len(data), height=height, width=width, step=step, encoding=encoding)
    size, code = RAW_ENCODINGS[encoding]
    rows = np.frombuffer(data, dtype=np.uint8).reshape(height, step)[:, : size * width]
    pixels = np.ascontiguousarray(rows).reshape((height, width, size) if size > 1 else (height, width))
    return pixels if code is None else cv2.cvtColor(pixels, code)


def check_raw(count: int, *, height: int, width: int, step: int, encoding: str) -> None:
    """Raises ValueError where the encoding is not one of `RAW_ENCODINGS`, or `count` bytes are no such image."""
    if encoding not in RAW_ENCODINGS:
        raise ValueError(f"encoding {encoding!r} is not allowed; allowed: {', '.join(RAW_ENCODINGS)}")
    size = RAW_ENCODINGS[encoding][0]
    if not height or not width or step < size * width or count != height * step or (size == 2 and width % 2):
        raise ValueError(f"{count} bytes are no {width} x {height} {encoding} image of step {step}")


def _png(buffer: np.ndarray, flag: int) -> np.ndarray:
    """Raises ValueError unless every chunk is there and has its checksum."""
    data, at, kind = memoryview(buffer), len(PNG), b""
    while kind != b"IEND":
        if at + 12 > len(data):
            raise ValueError(f"{len(data)} bytes are not a whole PNG image: its end is missing")
        length, kind = struct.unpack_from(">I4s", data, at)
        end = at + 8 + length
        if end + 4 > len(data):
            raise ValueError(f"{len(data)} bytes are not a whole PNG image: its end is missing")
        if zlib.crc32(data[at + 4 : end]) != struct.unpack_from(">I", data, end)[0]:
            raise ValueError(f"{len(data)} bytes are not a whole PNG image: a checksum is wrong")
        at = end + 4
    image = cv2.imdecode(buffer, flag)
    if image is None:
        raise ValueError(f"{len(data)} bytes are not a PNG image")
    return image


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
