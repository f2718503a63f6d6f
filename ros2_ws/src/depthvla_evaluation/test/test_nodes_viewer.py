from __future__ import annotations

import re
import signal
import sys
import urllib.request

import cv2
import numpy as np
import pytest

from depthvla_evaluation.viewer import server as web
from r1lite_description.share import urdf_file

MODULE = "depthvla_evaluation.nodes.viewer_node"
XACRO = urdf_file()


def test_without_viser_it_is_said_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "viser", None)
    with pytest.raises(ImportError, match="needs the package viser"):
        web.start("127.0.0.1", 8080)


def test_a_live_page_is_served_until_the_node_is_told_to_end(ros):
    pytest.importorskip("viser", reason="viser is not installed")
    from diagnostic_msgs.msg import DiagnosticArray

    parameters = {"autostart": True, "urdf_file": str(XACRO), "port": 18090}
    with ros.Probe() as probe, ros.NodeProcess(MODULE, parameters) as node:
        node.wait_for_output("the viewer is at http://127.0.0.1:")
        url = re.search(r"the viewer is at (\S+)", node.output()).group(1)
        with urllib.request.urlopen(url, timeout=10) as page:
            assert page.status == 200
        heard = probe.listen(DiagnosticArray, "/diagnostics")
        probe.wait_for(lambda: any(s.message == "nobody looks" for array in heard for s in array.status))
        assert not probe.node.count_subscribers("/policy_node/depth/head/image"), "nobody looks, so nobody pays"
        assert node.stop(signal.SIGINT) == 0, node.output()
        assert "Traceback" not in node.output()


@pytest.fixture
def pictures(ros, robot):
    from depthvla_evaluation.nodes.viewer_node import _Pictures

    with ros.Probe() as probe:
        yield probe, _Pictures(probe.node, robot, "/depth")


def publish(probe, robot, pictures):
    """A camera picture, its camera_info and depth; updates until they have come."""
    from sensor_msgs.msg import CameraInfo, CompressedImage
    from std_msgs.msg import Header

    from depthvla_control.ros.messages import time_message
    from depthvla_policy.ros import image_messages

    camera = robot.cameras[0]
    stamp_ns = probe.now_ns()
    header = Header(stamp=time_message(stamp_ns), frame_id=camera.frame_id)
    info = CameraInfo(header=header, width=16, height=9, k=[100.0, 0.0, 8.0, 0.0, 100.0, 4.5, 0.0, 0.0, 1.0])
    data = cv2.imencode(".png", np.full((9, 16, 3), 77, np.uint8))[1].tobytes()
    messages = {
        camera.topic: CompressedImage(header=header, format="png", data=data),
        camera.camera_info: info,
        f"/depth/{camera.name}/camera_info": info,
        f"/depth/{camera.name}/image": image_messages.depth_message(header, np.ones((4, 4), np.float32)),
    }
    publishers = {topic: probe.publisher(type(message), topic) for topic, message in messages.items()}

    def come():
        for topic, message in messages.items():
            publishers[topic].publish(message)
        pictures.update(stamp_ns, {"torso_joint1": -0.5})
        return camera.name in pictures.depth and camera.name in pictures.images

    probe.wait_for(come, what="picture and depth")
    return camera.name, stamp_ns


def test_depth_comes_with_the_picture_and_the_joints_of_its_time(pictures, robot):
    probe, pictures = pictures
    camera, stamp_ns = publish(probe, robot, pictures)
    pictures.update(stamp_ns + 10**9, {"torso_joint1": 0.0})
    depth = pictures.depth[camera]
    assert depth.joints == {"torso_joint1": -0.5} and depth.stamp_ns == stamp_ns
    assert depth.k[0, 0] == 100.0 and pictures.camera_matrices[camera][1, 1] == 100.0
    np.testing.assert_array_equal(pictures.images[camera].pixels(), 77)


def test_a_picture_of_an_unknown_format_is_refused_and_named(pictures, robot):
    from sensor_msgs.msg import CompressedImage

    probe, pictures = pictures
    topic = robot.cameras[0].topic
    publisher = probe.publisher(CompressedImage, topic)

    def refused():
        publisher.publish(CompressedImage(format="h264"))
        pictures.update(probe.now_ns(), {})
        return pictures.refusal

    assert "h264" in probe.wait_for(refused, what="a refusal") and topic in pictures.refusal
    assert robot.cameras[0].name not in pictures.images


def test_nothing_is_subscribed_to_any_more_once_nobody_looks(pictures, robot):
    probe, pictures = pictures
    topic = f"/depth/{robot.cameras[0].name}/image"
    probe.wait_for(lambda: probe.node.count_subscribers(topic) == 1, what="a subscription")
    pictures.destroy()
    probe.wait_for(lambda: probe.node.count_subscribers(topic) == 0, what="the end of the subscription")
