"""The live robot in a browser: what RViz shows, where there is no RViz. Polls, converts, delegates.

Pictures are subscribed to only while a browser looks, so that nobody pays for them otherwise.
"""

from __future__ import annotations

import sys
import threading
from collections import deque
from dataclasses import replace
from functools import partial

import numpy as np
from rclpy.clock import Clock, ClockType
from rclpy.node import Node
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from depthvla_control.ros import qos
from depthvla_control.ros.diagnostics import ERROR, OK, WARN, Health
from depthvla_control.ros.messages import check_limbs, nanoseconds
from depthvla_control.ros.parameters import Parameter
from depthvla_control.ros.polling import PolledSubscription
from depthvla_control.ros.runtime import ManagedNode, run
from depthvla_evaluation.bags.bag import camera_matrix, depth_image, duration_s
from depthvla_evaluation.nodes.view.description import PARAMETERS as DESCRIPTION
from depthvla_evaluation.nodes.view.description import Description
from depthvla_evaluation.nodes.view.listener import Listener
from depthvla_evaluation.viewer import server as web
from depthvla_evaluation.viewer.panel import Panel
from depthvla_evaluation.viewer.scene import Scene
from depthvla_evaluation.viewer.snapshot import DepthPicture, Picture
from depthvla_policy.policy.camera_images import camera_image, encoded_image
from r1lite_description import robot as robot_description
from r1lite_description.robot import Camera, Robot

HISTORY = 16  # joints and pictures that wait for the depth predicted from them: 1.6 s at 10 Hz
LATENCIES_KEPT = 300
PARAMETERS = (
    Parameter("robot_file", "", "Robot description (YAML); the R1 Lite's when empty."),
    *DESCRIPTION,
    Parameter("host", "127.0.0.1", "Address that the page is served at; 0.0.0.0 lets every machine look."),
    Parameter("port", 8080, "Port of the page; the next free one where it is taken.", 1, 65535),
    Parameter("rate_hz", 10.0, "Pictures per second, while a browser looks.", 1.0, 30.0),
    Parameter("depth_topic", "/policy_node/depth", "Where <camera>/image and <camera>/camera_info of depth are."),
    Parameter("depth_near_m", 0.1, "Distance shown as nearest in the depth pictures [m].", 0.0, 10.0),
    Parameter("depth_far_m", 2.0, "Distance shown as farthest in the depth pictures [m].", 0.1, 100.0),
)


class ViewerNode(ManagedNode):
    """~/action_chunk, ~/plan, ~/executor_status, ~/policy_status, /joint_states, /robot_description, the robot's
    cameras and predicted depth in; a web page out.
    """

    def __init__(self, **kwargs) -> None:
        super().__init__("viewer_node", PARAMETERS, **kwargs)
        self._server = None

    def configure(self) -> None:
        self._robot = robot_description.load(self.value("robot_file") or None)
        check_limbs(self._robot)
        range_m = self.value("depth_near_m"), self.value("depth_far_m")
        if range_m[0] >= range_m[1]:
            raise ValueError(f"depth_near_m is {range_m[0]}; it must be below depth_far_m, which is {range_m[1]}")
        if not self.value("urdf_file"):
            raise ValueError("urdf_file is empty; allowed: a URDF or xacro, whose shapes are drawn")
        self._description = Description(self, self._robot)
        self._listener = Listener(self, self._robot)
        self._pictures: _Pictures | None = None
        self._latency_ms: deque[tuple[float, float]] = deque(maxlen=LATENCIES_KEPT)
        self._begin_ns = self._now_ns()
        before = threading.enumerate()
        self._server = web.start(self.value("host"), self.value("port"))
        self._web_threads = [thread for thread in threading.enumerate() if thread not in before]
        self._scene = Scene(self._server, self._robot, self._description.urdf, range_m)
        self._panel = Panel(self._server, self._robot, self._scene, range_m)
        self.get_logger().info(f"the viewer is at {web.url(self._server)}")

    def activate(self) -> None:
        self._timer = self.create_timer(
            1.0 / self.value("rate_hz"), self._draw, clock=Clock(clock_type=ClockType.STEADY_TIME)
        )

    def deactivate(self) -> None:
        self.destroy_timer(self._timer)
        self._look_away()

    def cleanup(self) -> None:
        server, self._server = self._server, None
        if server:
            server.stop()

    def health(self) -> Health:
        pictures, problem = self._pictures, self._description.problem
        values = {
            "url": web.url(self._server),
            "browsers": len(self._server.get_clients()),
            "description": self._description.source,
            "refused chunks and plans": self._listener.refused,
        }
        if not all(thread.is_alive() for thread in self._web_threads):
            problem = "the web server's thread died"
        if problem:
            return Health(ERROR, problem, values)
        if pictures and pictures.refusal:
            return Health(WARN, pictures.refusal, values)
        return Health(OK, "drawing" if pictures else "nobody looks", values)

    def _draw(self) -> None:
        now, listener = self._now_ns(), self._listener
        listener.update(now)
        if listener.chunk and listener.chunk_message:
            self._latency_ms.append(
                ((now - self._begin_ns) * 1e-9, duration_s(listener.chunk_message.total_time) * 1e3)
            )
        if not self._server.get_clients():
            self._look_away()
            return
        if self._pictures is None:
            self._pictures = _Pictures(self, self._robot, self.value("depth_topic"))
        self._pictures.update(now, listener.joints)
        snapshot = listener.snapshot(
            now,
            images=self._pictures.images,
            camera_matrices=self._pictures.camera_matrices,
            depth=self._pictures.depth,
            latency_ms=np.array(self._latency_ms).reshape(-1, 2),
        )
        if self._description.problem and not snapshot.complaint:
            snapshot = replace(snapshot, complaint=self._description.problem)
        if self._description.kinematics is not None:
            self._scene.show(snapshot, self._description.kinematics)
        self._panel.show(snapshot)

    def _look_away(self) -> None:
        if self._pictures:
            self._pictures.destroy()
            self._pictures = None

    def _now_ns(self) -> int:
        return self.get_clock().now().nanoseconds


class _Pictures:
    """The newest picture and depth of every camera."""

    def __init__(self, node: Node, robot: Robot, depth_topic: str) -> None:
        self._robot = robot
        sensor, depth = qos.stream(robot.qos.sensor, 1), qos.stream("reliable", 1)
        self._subscriptions = {
            camera.name: (
                PolledSubscription(node, CompressedImage if _compressed(camera) else Image, camera.topic, sensor),
                PolledSubscription(node, CameraInfo, camera.camera_info, sensor),
                PolledSubscription(node, Image, f"{depth_topic}/{camera.name}/image", depth),
                PolledSubscription(node, CameraInfo, f"{depth_topic}/{camera.name}/camera_info", depth),
            )
            for camera in robot.cameras
        }
        self._joints: deque[tuple[int, dict[str, float]]] = deque(maxlen=HISTORY)
        self._seen: dict[str, deque[Picture]] = {camera.name: deque(maxlen=HISTORY) for camera in robot.cameras}
        self._depth_matrices: dict[str, np.ndarray] = {}
        self.camera_matrices: dict[str, np.ndarray] = {}
        self.depth: dict[str, DepthPicture] = {}
        self.refusal = ""

    @property
    def images(self) -> dict[str, Picture]:
        return {name: seen[-1] for name, seen in self._seen.items() if seen}

    def update(self, now_ns: int, joints: dict[str, float]) -> None:
        self._joints.append((now_ns, joints))
        for camera in self._robot.cameras:
            image, info, depth, depth_info = (each.newest() for each in self._subscriptions[camera.name])
            if info is not None and info.k[0] > 0.0:
                self.camera_matrices[camera.name] = camera_matrix(info)
            if depth_info is not None:
                self._depth_matrices[camera.name] = camera_matrix(depth_info)
            if image is not None:
                self._take_image(camera, image)
            if depth is not None and camera.name in self._depth_matrices:
                self._take_depth(camera, depth)

    def destroy(self) -> None:
        for subscriptions in self._subscriptions.values():
            for subscription in subscriptions:
                subscription.destroy()

    def _take_image(self, camera: Camera, message: CompressedImage | Image) -> None:
        self.refusal = ""
        try:
            image = encoded_image(message, camera.topic)
        except ValueError as error:
            self.refusal = str(error)
        else:
            self._seen[camera.name].append(Picture(nanoseconds(message.header.stamp), partial(camera_image, image)))

    def _take_depth(self, camera: Camera, message: Image) -> None:
        stamp_ns = nanoseconds(message.header.stamp)
        joints = min(self._joints, key=lambda sample: abs(sample[0] - stamp_ns))[1]
        seen = self._seen[camera.name]
        picture = min(seen, key=lambda picture: abs(picture.stamp_ns - stamp_ns)) if seen else None
        k = self._depth_matrices[camera.name]
        self.depth[camera.name] = DepthPicture(stamp_ns, depth_image(message), k, joints, picture)


def _compressed(camera: Camera) -> bool:
    return camera.topic.endswith("/compressed")


def main() -> int:
    return run(ViewerNode, about=__doc__, parameters=PARAMETERS)


if __name__ == "__main__":
    sys.exit(main())
