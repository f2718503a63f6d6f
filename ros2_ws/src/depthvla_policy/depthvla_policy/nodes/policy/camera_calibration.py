"""A camera's calibration as a node has it, from a file or a CameraInfo topic, and its images rectified with it."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import numpy as np
from rclpy.node import Node
from sensor_msgs.msg import CameraInfo

from depthvla_control.ros import qos
from depthvla_control.ros.parameters import Parameter
from depthvla_control.ros.polling import PolledSubscription
from depthvla_control.ros.runtime import ManagedNode
from depthvla_policy.policy import calibration
from depthvla_policy.policy.calibration import Calibration, Rectifier
from r1lite_description.robot import Camera

if TYPE_CHECKING:  # torch is imported when the node is configured
    from depthvla_policy.policy.policy import Policy


def parameters(camera: Camera) -> list[Parameter]:
    where = f"cameras.{camera.name}"
    return [
        Parameter(f"{where}.camera_info", camera.camera_info, "Its CameraInfo topic, for depth and rectify."),
        Parameter(
            f"{where}.calibration_file", "", "YAML of camera_calibration to take in place of the CameraInfo topic."
        ),
        Parameter(
            f"{where}.rectify", False, "Undistort its images before the policy sees them; no calibration, no chunk."
        ),
    ]


def of_policy(node: ManagedNode, policy: Policy, *, for_depth: bool) -> dict[str, CameraCalibration]:
    """Image topic -> calibration of that camera, for those that are rectified, for all of them with `for_depth`.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a file holds no calibration, or a camera is not rectified and was for the training.
    """
    rectified = {name: node.value(f"cameras.{name}.rectify") for name in policy.cameras}
    bent = [f"cameras.{name}.rectify" for name in policy.rectified if not rectified[name]]
    if bent:
        raise ValueError(f"{policy.model_id} was trained on rectified images: {', '.join(bent)} must be true")
    return {
        node.value(f"cameras.{name}.topic"): CameraCalibration(
            node,
            name,
            topic=node.value(f"cameras.{name}.camera_info"),
            file=node.value(f"cameras.{name}.calibration_file"),
            rectify=rectify,
            reliability=node.value("sensor_reliability"),
        )
        for name, rectify in rectified.items()
        if rectify or for_depth
    }


class CameraCalibration:
    """Any thread may ask.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: what is in it is no calibration.
    """

    def __init__(self, node: Node, camera: str, *, topic: str, file: str, rectify: bool, reliability: str) -> None:
        """Only without a `file` is `topic` listened to."""
        self.camera, self._topic, self._rectified = camera, topic, rectify
        self._known: Calibration | None = calibration.load(file) if file else None
        self._infos = None if file else PolledSubscription(node, CameraInfo, topic, qos.stream(reliability, 1))
        self._wrong = ""
        self._rectifier: Rectifier | None = None
        self._lock = threading.Lock()

    def of_images(self) -> Calibration:
        """Of the images as the policy sees them. Raises ValueError when there is none, or none that can be used."""
        with self._lock:
            known = self._newest()
            return known.rectified() if self._rectified else known

    def rectify(self, image: np.ndarray) -> np.ndarray:
        """An image of the camera, (H, W, 3) uint8 RGB, rectified where that is asked for.

        Raises:
            ValueError: it cannot be rectified: as `of_images`, or its size is not the calibration's.
        """
        if not self._rectified:
            return image
        with self._lock:
            known = self._newest()
            if self._rectifier is None or not self._rectifier.calibration.same_as(known):
                self._rectifier = Rectifier(known)
            rectifier = self._rectifier
        try:
            return rectifier(image)
        except ValueError as error:
            raise ValueError(f"camera {self.camera}: {error}") from error

    def _newest(self) -> Calibration:
        message = self._infos.newest() if self._infos else None
        if message is not None:
            try:
                self._wrong = ""
                self._known = calibration.from_camera_info(message) or self._known
            except ValueError as error:
                self._wrong = f"{self._topic} says that {error}"
        if self._wrong or self._known is None:
            raise ValueError(f"camera {self.camera}: {self._wrong or f'no calibration has come on {self._topic}'}")
        return self._known
