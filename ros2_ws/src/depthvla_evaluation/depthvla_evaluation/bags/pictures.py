"""What the cameras of a recorded episode saw: images, predicted and true depth, and how far these are apart.

All of it comes from one pass over the bag, which also feeds the episode's video.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from depthvla_evaluation.bags.bag import PAIR_TOLERANCE_NS, Bag, depth_image, stamp_ns
from depthvla_evaluation.bags.episode import Episode
from depthvla_evaluation.bags.recorded_graph import picture_topics, predicted_topic, true_topic
from depthvla_evaluation.metrics import DepthErrors, depth_errors, resample
from depthvla_policy.policy.camera_images import camera_image
from r1lite_description.robot import Camera


@dataclass(frozen=True)
class View:
    """What a camera showed at one moment, depth in the geometry of the prediction; None where nothing was recorded, or
    only a damaged image.
    """

    camera: str
    stamp_ns: int
    image: np.ndarray | None  # (H, W, 3) uint8 RGB, the whole camera image
    fitted: np.ndarray | None  # (h, w, 3) uint8 RGB, the part of it that the depth covers
    predicted_m: np.ndarray | None  # (h, w) float32
    true_m: np.ndarray | None  # (h, w) float32


@dataclass(frozen=True)
class DepthFrame:
    camera: str
    stamp_ns: int
    errors: DepthErrors


@dataclass(frozen=True)
class Pictures:
    """views: for each time asked for a list, a view a camera. depth: every image compared, in the order of stamps."""

    views: list[list[View]]
    depth: tuple[DepthFrame, ...]


def read_pictures(
    bag: Bag, episode: Episode, times_ns: Sequence[int], watch: Callable[[str, int, Any], None] | None = None
) -> Pictures:
    """The predicted depth nearest to each time with what belongs to it, and the errors of all depth, in one pass.

    Where a camera has no predicted depth, its image nearest to the time is shown alone. `watch` is called for every
    camera image and every predicted depth image, with topic, time of reception [ns] and message, in order of reception.
    """
    pairs = _Pairs(episode)
    moments = [_nearest_stamps(episode, time_ns) for time_ns in times_ns]
    wanted: dict[str, set[int]] = {topic: set(stamps) for topic, stamps in pairs.wanted.items()}
    for moment in moments:
        for topic, stamp in moment.items():
            wanted.setdefault(topic, set()).add(stamp)
    watched = set()
    if watch is not None:
        watched = {topic for camera in episode.robot.cameras for topic in picture_topics(camera)[:2]}
        wanted |= {topic: set(episode.picture_stamps[topic].tolist()) for topic in watched}
    keys = {item for moment in moments for item in moment.items()}
    kept = {}
    for topic, received_ns, message in bag.messages(wanted, wanted):
        stamp = stamp_ns(message)
        if (topic, stamp) in keys:
            kept[topic, stamp] = message
        pairs.offer(topic, stamp, message)
        if topic in watched:
            watch(topic, received_ns, message)
    views = [
        [
            _view(camera, {t: kept[t, moment[t]] for t in picture_topics(camera) if t in moment}, episode)
            for camera in episode.robot.cameras
        ]
        for moment in moments
    ]
    return Pictures(views, tuple(sorted(pairs.frames, key=lambda frame: frame.stamp_ns)))


def depth_moments(episode: Episode, shares: Sequence[float]) -> list[int]:
    """Stamps at these shares of the time in which depth was predicted, if possible with the truth of every camera."""
    compared = Counter(stamp for pairs in depth_pairs(episode).values() for stamp in pairs)
    most = max(compared.values(), default=0)
    stamps = sorted(stamp for stamp, cameras in compared.items() if cameras == most)
    if not stamps:
        stamps = episode.picture_stamps[predicted_topic(episode.robot.cameras[0].name)].tolist()
    return [stamps[round(share * (len(stamps) - 1))] for share in shares] if stamps else []


def depth_pairs(episode: Episode) -> dict[str, dict[int, int]]:
    """Camera -> stamp of a predicted depth image -> stamp of the true one that belongs to it."""
    pairs: dict[str, dict[int, int]] = {}
    for camera in (camera.name for camera in episode.robot.cameras):
        predicted, true = predicted_topic(camera), true_topic(camera)
        if predicted in episode.camera_matrices and true in episode.camera_matrices:
            for stamp in episode.picture_stamps[predicted].tolist():
                nearest = _nearest(episode.picture_stamps[true], stamp, PAIR_TOLERANCE_NS)
                if nearest is not None:
                    pairs.setdefault(camera, {})[stamp] = nearest
    return pairs


class _Pairs:
    """Puts predicted and true depth together as they come, and keeps their errors."""

    def __init__(self, episode: Episode) -> None:
        self.frames: list[DepthFrame] = []
        self.wanted: dict[str, dict[int, tuple[str, int]]] = {}  # topic -> stamp -> pair
        self._matrices = episode.camera_matrices
        self._halves: dict[tuple[str, int], dict[str, np.ndarray]] = {}
        for camera, pairs in depth_pairs(episode).items():
            for stamp, true_stamp in pairs.items():
                self.wanted.setdefault(predicted_topic(camera), {})[stamp] = (camera, stamp)
                self.wanted.setdefault(true_topic(camera), {})[true_stamp] = (camera, stamp)

    def offer(self, topic: str, stamp: int, message: Any) -> None:
        key = self.wanted.get(topic, {}).get(stamp)
        if key is None:
            return
        halves = self._halves.setdefault(key, {})
        halves[topic] = depth_image(message)
        if len(halves) == 2:
            camera, predicted_stamp = key
            true, predicted = true_topic(camera), predicted_topic(camera)
            shape = halves[predicted].shape
            fitted = resample(halves[true], self._matrices[true], self._matrices[predicted], shape)
            errors = depth_errors(halves[predicted], fitted)
            if errors is not None:
                self.frames.append(DepthFrame(camera, predicted_stamp, errors))
            del self._halves[key]


def _nearest_stamps(episode: Episode, time_ns: int) -> dict[str, int]:
    """Topic -> stamp of what belongs to a time: the nearest prediction, with the image and the truth of its stamp."""
    stamps = episode.picture_stamps
    moment: dict[str, int | None] = {}
    for camera in episode.robot.cameras:
        image, predicted, true = picture_topics(camera)
        moment[predicted] = _nearest(stamps[predicted], time_ns)
        if moment[predicted] is not None:
            moment[true] = _nearest(stamps[true], moment[predicted], PAIR_TOLERANCE_NS)
        moment[image] = _nearest(stamps[image], time_ns if moment[predicted] is None else moment[predicted])
    return {topic: stamp for topic, stamp in moment.items() if stamp is not None}


def _nearest(stamps_ns: np.ndarray, time_ns: int, tolerance_ns: int | None = None) -> int | None:
    if not stamps_ns.size:
        return None
    nearest = int(stamps_ns[np.argmin(np.abs(stamps_ns - time_ns))])
    return nearest if tolerance_ns is None or abs(nearest - time_ns) <= tolerance_ns else None


def _view(camera: Camera, messages: dict[str, Any], episode: Episode) -> View:
    infos = episode.camera_matrices
    image_topic, predicted_name, true_name = picture_topics(camera)
    rectify = episode.rectifiers.get(image_topic)
    try:
        image = camera_image(messages[image_topic], rectify) if image_topic in messages else None
    except ValueError:  # a damaged image shows nothing; the rest of the report is worth having
        image = None
    predicted = depth_image(messages[predicted_name]) if predicted_name in messages else None
    fitted = true = None
    if predicted is not None and predicted_name in infos:
        if image is not None and image_topic in infos:
            fitted = _fit_picture(image, infos[image_topic], infos[predicted_name], predicted.shape)
        if true_name in messages and true_name in infos:
            true = resample(depth_image(messages[true_name]), infos[true_name], infos[predicted_name], predicted.shape)
    stamp = stamp_ns(messages[predicted_name if predicted is not None else image_topic]) if messages else 0
    return View(camera.name, stamp, image, fitted, predicted, true)


def _fit_picture(
    image: np.ndarray, camera_matrix: np.ndarray, target: np.ndarray, shape: tuple[int, int]
) -> np.ndarray:
    """The part of an image that a smaller depth image covers, at about the image's own resolution."""
    scale = max(1, round(camera_matrix[0, 0] / target[0, 0]))
    finer = target.copy()
    finer[:2, :2] *= scale
    finer[:2, 2] = (target[:2, 2] + 0.5) * scale - 0.5
    channels = [
        resample(image[..., channel], camera_matrix, finer, (shape[0] * scale, shape[1] * scale))
        for channel in range(3)
    ]
    return np.nan_to_num(np.stack(channels, axis=-1)).astype(np.uint8)
