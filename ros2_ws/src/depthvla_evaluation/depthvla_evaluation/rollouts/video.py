"""A closed-loop episode as a video (H.264 in MP4): onlooker, what the policy's cameras show, and its predicted depth.

Needs PyAV with libx264.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np

from depthvla_evaluation.report import video
from depthvla_evaluation.report.video_frame import depth_colours

RATE_HZ = 15
SCENE = (640, 480)  # width, height
CELL = (320, 160)  # of each camera's picture; its depth stands beside it, and is square
DEPTH_CELL = (160, 160)


class RolloutVideo:
    """One frame for each `add`. `depth_m` is the newest prediction, camera -> (h, w) metres; empty: none is shown.

    Raises:
        NoVideoError: PyAV cannot encode here.
    """

    def __init__(self, path: Path, cameras: Sequence[str]) -> None:
        self.depth_m: Mapping[str, np.ndarray] = {}
        self._cameras = cameras
        self._av = video.encoder()
        path.parent.mkdir(parents=True, exist_ok=True)
        self._container = self._av.open(str(path), "w", options={"movflags": "faststart"})
        self._stream = self._container.add_stream(video.CODEC, rate=RATE_HZ, options=video.OPTIONS)
        self._stream.width = SCENE[0] + CELL[0] + DEPTH_CELL[0]
        self._stream.height = max(SCENE[1], CELL[1] * len(cameras))
        self._stream.pix_fmt = "yuv420p"

    def add(self, scene: np.ndarray | None, images: Mapping[str, np.ndarray]) -> None:
        """scene: (H, W, 3) uint8, or None without an onlooker. images: camera -> (H, W, 3) uint8."""
        canvas = np.zeros((self._stream.height, self._stream.width, 3), np.uint8)
        if scene is not None:
            _paste(canvas, scene, 0, 0, SCENE)
        for row, camera in enumerate(self._cameras):
            top = row * CELL[1]
            _paste(canvas, images[camera], top, SCENE[0], CELL)
            if camera in self.depth_m:
                _paste(canvas, depth_colours(self.depth_m[camera]), top, SCENE[0] + CELL[0], DEPTH_CELL)
        frame = self._av.VideoFrame.from_ndarray(canvas, format="rgb24")
        self._container.mux(self._stream.encode(frame))

    def __enter__(self) -> RolloutVideo:
        return self

    def __exit__(self, *_: object) -> None:
        self._container.mux(self._stream.encode(None))
        self._container.close()


def _paste(canvas: np.ndarray, picture: np.ndarray, top: int, left: int, box: tuple[int, int]) -> None:
    """In the middle of a box (width, height), as large as fits."""
    height, width = picture.shape[:2]
    scale = min(box[0] / width, box[1] / height)
    size = round(width * scale), round(height * scale)
    shown = cv2.resize(picture, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
    top, left = top + (box[1] - size[1]) // 2, left + (box[0] - size[0]) // 2
    canvas[top : top + size[1], left : left + size[0]] = shown
