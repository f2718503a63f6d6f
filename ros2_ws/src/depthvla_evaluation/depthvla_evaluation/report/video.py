"""Videos (H.264 in MP4, as browsers play it), and an episode as one: a frame for each image of the head camera.

Needs PyAV with libx264; `video_frame` draws the frames.
"""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from depthvla_evaluation.bags.episode import Episode
from depthvla_evaluation.report.video_frame import Composer

CODEC, RATE_HZ = "libx264", 15
# Constant quality; a key frame a second, so that seeking is quick.
OPTIONS = {"preset": "veryfast", "crf": "24", "g": "15"}
TIME_BASE = Fraction(1, 1000)
LEAST_GAP_NS = 50_000_000  # 15 Hz with its jitter is taken whole, of 30 Hz every second image


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


class EpisodeVideo:
    """Writes frames as messages come; `times_s` are those of the frames, in seconds of the episode.

    The time base is that of reception: what is seen together was there together.

    Raises:
        NoVideoError: no camera image was recorded, or PyAV cannot encode here.
    """

    def __init__(self, path: Path, episode: Episode) -> None:
        topics = [camera.topic for camera in episode.robot.cameras if episode.picture_stamps[camera.topic].size]
        if not topics:
            raise NoVideoError("the bag holds no camera image")
        self.times_s: list[float] = []
        self.unreadable = 0  # moments left out because a picture in them could not be read
        self._reference, self._episode = topics[0], episode
        self._composer = Composer(episode)
        self._first_ns = self._last_ns = -1
        height, width = self._composer.canvas.shape[:2]
        self._file = VideoFile(path, width, height)

    def watch(self, topic: str, received_ns: int, message: Any) -> None:
        """Take an image or predicted depth, in order of reception."""
        self._composer.take(topic, message)
        if topic != self._reference or 0 <= self._first_ns and received_ns - self._last_ns < LEAST_GAP_NS:
            return
        try:
            canvas = self._composer.draw(received_ns)
        except ValueError:
            self.unreadable += 1
            return
        if self._first_ns < 0:
            self._first_ns = received_ns
        self._last_ns = received_ns
        self._file.add(canvas, (received_ns - self._first_ns) * 1e-9)
        self.times_s.append(float(self._episode.seconds(received_ns)))

    def close(self) -> None:
        self._file.close()
