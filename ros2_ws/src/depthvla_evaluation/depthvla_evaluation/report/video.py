"""An episode as a video: a frame for each image of the head camera, drawn by `video_frame`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from depthvla_evaluation.bags.episode import Episode
from depthvla_evaluation.report.video_frame import Composer
from depthvla_evaluation.video_file import NoVideoError, VideoFile

LEAST_GAP_NS = 50_000_000  # 15 Hz with its jitter is taken whole, of 30 Hz every second image


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
