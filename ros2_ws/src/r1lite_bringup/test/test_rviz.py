"""Each display of the RViz configuration shows a topic that something publishes, and with a QoS that receives it."""

from __future__ import annotations

from pathlib import PurePosixPath

import pytest
import yaml

from depthvla_policy import robot
from r1lite_bringup import graph

CONFIGURATION = yaml.safe_load((graph.share() / "rviz" / "depthvla.rviz").read_text())
DISPLAYS = {display["Name"]: display for display in CONFIGURATION["Visualization Manager"]["Displays"]}


def topic(display: dict) -> dict | None:
    return display.get("Topic") or display.get("Description Topic")


def published() -> dict[str, str]:
    """Topics of the graph that RViz can show, with the display class that shows them."""
    cameras = robot.load().cameras
    depth = {"image": "Image", "image_colour": "Image", "points": "PointCloud2"}
    return {
        "/robot_description": "RobotModel",
        **{camera.topic: "Image" for camera in cameras},
        **{f"/policy_node/depth/{camera.name}/{name}": shown for camera in cameras for name, shown in depth.items()},
    }


def test_every_display_shows_a_published_topic():
    shown = {topic(display)["Value"]: display["Class"] for display in DISPLAYS.values() if topic(display)}
    assert shown == {name: f"rviz_default_plugins/{display}" for name, display in published().items()}


def test_displays_have_names_of_their_own():
    assert len(DISPLAYS) == len(CONFIGURATION["Visualization Manager"]["Displays"])


@pytest.mark.parametrize("name", [name for name, display in DISPLAYS.items() if "Topic" in display])
def test_sensor_topics_are_subscribed_best_effort_as_the_robot_publishes_them(name):
    assert DISPLAYS[name]["Topic"]["Reliability Policy"] == "Best Effort"
    assert DISPLAYS[name]["Topic"]["Durability Policy"] == "Volatile"


def test_the_robot_description_is_received_however_late_rviz_starts():
    assert DISPLAYS["Robot"]["Description Topic"]["Durability Policy"] == "Transient Local"


def test_depth_in_metres_has_a_fixed_range():
    metric = [d for d in DISPLAYS.values() if "Topic" in d and PurePosixPath(topic(d)["Value"]).name == "image"]
    assert len(metric) == 3
    for display in metric:
        assert display["Normalize Range"] is False
        assert 0 <= display["Min Value"] < display["Max Value"]


def test_the_fixed_frame_is_a_link_of_the_robot():
    xacro = pytest.importorskip("xacro", reason="xacro is not installed")
    description = xacro.process_file(str(graph.share() / "urdf" / "r1lite.urdf.xacro"))
    links = {link.getAttribute("name") for link in description.getElementsByTagName("link")}
    assert CONFIGURATION["Visualization Manager"]["Global Options"]["Fixed Frame"] in links
    assert {camera.frame_id for camera in robot.load().cameras} <= links
