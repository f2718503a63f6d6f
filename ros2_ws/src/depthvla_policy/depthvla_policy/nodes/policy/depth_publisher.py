"""Publishes predicted depth per camera, on a thread of its own and only while somebody listens.

The newest prediction is handed over and the rest is done here, so that depth never delays a chunk.
"""

from __future__ import annotations

import threading
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from rclpy.lifecycle import LifecycleNode, LifecyclePublisher
from sensor_msgs.msg import CameraInfo, Image, PointCloud2
from std_msgs.msg import Header

from depthvla_control.ros import qos
from depthvla_control.ros.messages import time_message
from depthvla_control.worker import Worker
from depthvla_evaluation.viewer.clouds import depth_colours
from depthvla_policy.nodes.policy.camera_calibration import CameraCalibration
from depthvla_policy.policy.images import ImageFit
from depthvla_policy.policy.point_clouds import points
from depthvla_policy.ros import image_messages

HANG_S = 5.0


@dataclass(frozen=True)
class DepthFrame:
    """Depth of one observation. `depth_m`: camera -> (h, w); `images`: camera -> its image, (H, W, 3) uint8 RGB."""

    stamps_ns: Mapping[str, int]
    depth_m: Mapping[str, np.ndarray]
    frame_ids: Mapping[str, str]
    images: Mapping[str, np.ndarray]


class DepthPublisher:
    """Per camera: ~/depth/<camera>/image (32FC1, metres), image_colour (rgb8), camera_info and points.

    camera_info and points need the camera's calibration. Where it is missing, a warning says so once, and the
    rest is published.
    """

    def __init__(
        self,
        node: LifecycleNode,
        calibrations: Mapping[str, CameraCalibration],
        fit: ImageFit,
        *,
        colour_range_m: tuple[float, float],
    ) -> None:
        self._node, self._fit, self._colour_range_m = node, fit, colour_range_m
        profile = qos.stream("reliable", 1)
        self._cameras = {
            camera: _Camera(
                image=node.create_lifecycle_publisher(Image, f"~/depth/{camera}/image", profile),
                colour=node.create_lifecycle_publisher(Image, f"~/depth/{camera}/image_colour", profile),
                info=node.create_lifecycle_publisher(CameraInfo, f"~/depth/{camera}/camera_info", profile),
                points=node.create_lifecycle_publisher(PointCloud2, f"~/depth/{camera}/points", profile),
                calibration=calibration,
            )
            for camera, calibration in calibrations.items()
        }
        self._warned: set[str] = set()
        self.failure = ""  # why the newest frame was not published
        self._frame: DepthFrame | None = None
        self._changed = threading.Condition()
        self._stopping = False
        self.worker: Worker | None = None  # while started

    def start(self) -> None:
        self._stopping, self._frame = False, None
        self.worker = Worker("depth", self._run, HANG_S)
        self.worker.start()

    def stop(self, timeout_s: float) -> None:
        with self._changed:
            self._stopping = True
            self._changed.notify()
        if self.worker:
            self.worker.join(timeout_s)
            self.worker = None

    def wanted(self) -> bool:
        """Whether anybody subscribes to any of the topics."""
        return any(camera.subscribed() for camera in self._cameras.values())

    def offer(self, frame: DepthFrame) -> None:
        """Hands the newest frame over; one that was not published yet is dropped."""
        with self._changed:
            self._frame = frame
            self._changed.notify()

    def publish(self, frame: DepthFrame) -> None:
        for name, depth_m in frame.depth_m.items():
            camera = self._cameras[name]
            if camera.subscribed():
                header = Header(stamp=time_message(frame.stamps_ns[name]), frame_id=frame.frame_ids[name])
                known = known_depth(depth_m, self._fit, frame.images[name].shape[:2])
                self._publish_camera(camera, header, known, frame.images[name])

    def _publish_camera(self, camera: _Camera, header: Header, depth_m: np.ndarray, image: np.ndarray) -> None:
        _send(camera.image, lambda: image_messages.depth_message(header, depth_m))
        colour_range_m = self._colour_range_m
        _send(camera.colour, lambda: image_messages.colour_message(header, depth_colours(depth_m, *colour_range_m)))
        try:
            source = camera.calibration.of_images()
        except ValueError as error:
            self._warn_once(f"neither camera_info nor points of depth: {error}")
            return
        size = depth_m.shape
        k = self._fit.camera_matrix(source.k, source.width, source.height, size[0])
        _send(camera.info, lambda: image_messages.camera_info_message(header, k, size, source.model, source.d))

        def cloud() -> PointCloud2:
            xyz, pixels = points(depth_m, k, source.d, source.model)
            colours = pixel_colours(image, self._fit, size[0])[pixels[:, 1], pixels[:, 0]]
            return image_messages.points_message(header, xyz, colours)

        _send(camera.points, cloud)

    def _warn_once(self, text: str) -> None:
        if text not in self._warned:
            self._warned.add(text)
            self._node.get_logger().warning(text)

    def _run(self) -> None:
        worker = self.worker
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._frame is not None or self._stopping)
                frame, self._frame = self._frame, None
                if self._stopping:
                    return
            try:
                with worker.busy():
                    self.publish(frame)
                self.failure = ""
            except Exception as error:
                self.failure = f"cannot publish depth: {type(error).__name__}: {error}"
                self._warn_once(f"cannot publish depth: {traceback.format_exc()}")


def known_depth(depth_m: np.ndarray, fit: ImageFit, size: tuple[int, int]) -> np.ndarray:
    """(h, w) predicted depth with NaN where the network saw no pixel of the (height, width) image or no distance."""
    seen = np.isfinite(fit.apply_depth(np.ones(size, np.float32), len(depth_m)))
    return np.where(seen & np.isfinite(depth_m) & (depth_m > 0.0), depth_m, np.float32(np.nan))


def pixel_colours(image: np.ndarray, fit: ImageFit, size: int) -> np.ndarray:
    """(size, size, 3) uint8 RGB: what the (H, W, 3) image shows where a depth image of `size` pixels has its own."""
    return ImageFit(size, fit.fit).apply(image)


@dataclass
class _Camera:
    image: LifecyclePublisher
    colour: LifecyclePublisher
    info: LifecyclePublisher
    points: LifecyclePublisher
    calibration: CameraCalibration

    def subscribed(self) -> bool:
        publishers = (self.image, self.colour, self.info, self.points)
        return any(publisher.get_subscription_count() for publisher in publishers)


def _send(publisher: LifecyclePublisher, make: Callable[[], object]) -> None:
    if publisher.get_subscription_count():
        publisher.publish(make())
