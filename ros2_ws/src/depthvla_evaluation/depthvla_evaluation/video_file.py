"""Videos: H.264 in MP4, as browsers play it. Needs PyAV with libx264."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np

CODEC, RATE_HZ = "libx264", 15
# Constant quality; a key frame a second, so that seeking is quick.
OPTIONS = {"preset": "veryfast", "crf": "24", "g": "15"}
TIME_BASE = Fraction(1, 1000)
DEPTH_RANGE_M = (0.05, 3.0)  # the same in every video, so that two can be compared
NOTHING = (230, 230, 230)  # no image yet, or no depth there


class NoVideoError(RuntimeError):
    """There can be no video here, and why."""


class VideoFile:
    """Frames in, in order of their times.

    Raises:
        NoVideoError: PyAV cannot encode here.
    """

    def __init__(self, path: Path, width: int, height: int) -> None:
        try:
            import av
        except ImportError as error:
            raise NoVideoError("PyAV (av) is not installed") from error
        if CODEC not in av.codecs_available:
            raise NoVideoError(f"this build of PyAV {av.__version__} has no {CODEC}")
        path.parent.mkdir(parents=True, exist_ok=True)
        self._from_array = av.VideoFrame.from_ndarray
        self._container = av.open(str(path), "w", options={"movflags": "faststart"})
        self._stream = self._container.add_stream(CODEC, rate=RATE_HZ, options=OPTIONS)
        self._stream.width, self._stream.height, self._stream.pix_fmt = width, height, "yuv420p"
        self._stream.codec_context.time_base = TIME_BASE

    def add(self, pixels: np.ndarray, time_s: float) -> None:
        """pixels: (height, width, 3) uint8 RGB; time_s: since the first frame."""
        frame = self._from_array(pixels, format="rgb24")
        frame.pts, frame.time_base = round(time_s / TIME_BASE), TIME_BASE
        self._container.mux(self._stream.encode(frame))

    def close(self) -> None:
        self._container.mux(self._stream.encode(None))
        self._container.close()
