"""An H.264 video of one camera in one episode, written frame by frame."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np

CODEC, PIXELS = "libx264", "yuv420p"
# Every other frame is a key frame, as in LeRobot: any frame is at most one decode away.
OPTIONS = {"crf": "18", "g": "2", "preset": "veryfast", "tune": "fastdecode"}


class VideoWriter:
    """Raises ValueError for a frame of odd width or height, which the pixel format does not allow."""

    def __init__(self, path: Path, fps: int, width: int, height: int) -> None:
        if width % 2 or height % 2:
            raise ValueError(f"a video of {width}x{height} pixels: width and height must be even")
        self._container = av.open(str(path), "w", format="mp4")
        self._stream = self._container.add_stream(CODEC, rate=Fraction(fps), options=OPTIONS)
        self._stream.width, self._stream.height, self._stream.pix_fmt = width, height, PIXELS
        self._stream.codec_context.thread_count = 1
        self._period, self._frames = Fraction(1, fps), 0

    def add(self, rgb: np.ndarray) -> None:
        """(H, W, 3) uint8."""
        frame = av.VideoFrame.from_ndarray(rgb, format="rgb24")
        frame.pts, frame.time_base = self._frames, self._period
        self._frames += 1
        self._container.mux(self._stream.encode(frame))

    def close(self) -> None:
        self._container.mux(self._stream.encode(None))
        self._container.close()


def describe(fps: int, width: int, height: int) -> dict[str, object]:
    """What info.json says of such a video."""
    return {
        "video.height": height,
        "video.width": width,
        "video.codec": "h264",
        "video.pix_fmt": PIXELS,
        "video.is_depth_map": False,
        "video.fps": fps,
        "video.channels": 3,
        "has_audio": False,
    }
