"""An episode as a video (H.264 in MP4, as browsers play it): a frame for each image of the head camera.

Needs PyAV with libx264; `video_frame` draws the frames.
"""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from depthvla_evaluation.bags.episode import Episode
from depthvla_evaluation.report.video_frame import Composer

CODEC = "libx264"
# Constant quality; a key frame a second, so that seeking is quick.
OPTIONS = {"preset": "veryfast", "crf": "24", "g": "15"}
TIME_BASE = Fraction(1, 1000)
LEAST_GAP_NS = 50_000_000  # 15 Hz with its jitter is taken whole, of 30 Hz every second image


class NoVideoError(RuntimeError):
    """There can be no video here, and why."""


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
        self._av = encoder()
        self._reference, self._episode = topics[0], episode
        self._composer = Composer(episode)
        self._first_ns = self._last_ns = -1
        height, width = self._composer.canvas.shape[:2]
        self._container = self._av.open(str(path), "w", options={"movflags": "faststart"})
        self._stream = self._container.add_stream(CODEC, rate=15, options=OPTIONS)
        self._stream.width, self._stream.height, self._stream.pix_fmt = width, height, "yuv420p"
        self._stream.codec_context.time_base = TIME_BASE

    def watch(self, topic: str, received_ns: int, message: Any) -> None:
        """Take an image or predicted depth, in order of reception."""
        self._composer.take(topic, message)
        if topic == self._reference and (self._first_ns < 0 or received_ns - self._last_ns >= LEAST_GAP_NS):
            try:
                self._encode(self._composer.draw(received_ns), received_ns)
            except ValueError:
                self.unreadable += 1

    def close(self) -> None:
        self._container.mux(self._stream.encode(None))
        self._container.close()

    def _encode(self, canvas: np.ndarray, received_ns: int) -> None:
        if self._first_ns < 0:
            self._first_ns = received_ns
        self._last_ns = received_ns
        frame = self._av.VideoFrame.from_ndarray(canvas, format="rgb24")
        frame.pts = round((received_ns - self._first_ns) * 1e-9 / TIME_BASE)
        frame.time_base = TIME_BASE
        self._container.mux(self._stream.encode(frame))
        self.times_s.append(float(self._episode.seconds(received_ns)))


def encoder():
    try:
        import av
    except ImportError as error:
        raise NoVideoError("PyAV (av) is not installed") from error
    if CODEC not in av.codecs_available:
        raise NoVideoError(f"this build of PyAV {av.__version__} has no {CODEC}")
    return av
