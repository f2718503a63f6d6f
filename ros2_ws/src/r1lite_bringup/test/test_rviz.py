"""Each display of the RViz configuration shows a topic of the running graph, of the right type and a matching QoS."""

from __future__ import annotations

import dataclasses
import io
from pathlib import PurePosixPath

import pytest
import yaml

from r1lite_bringup import graph
from r1lite_bringup.process_launch import Launcher
from r1lite_description import robot
from r1lite_description.share import share, urdf_file

pytestmark = pytest.mark.xdist_group("graph")

CONFIGURATION = yaml.safe_load((share("r1lite_bringup") / "rviz" / "depthvla.rviz").read_text())
DISPLAYS = {display["Name"]: display for display in CONFIGURATION["Visualization Manager"]["Displays"]}
# Display class -> what it subscribes to (rviz_default_plugins; an Image topic that ends in /compressed goes through
# image_transport, which subscribes to CompressedImage).
TYPES = {
    "rviz_default_plugins/Image": "sensor_msgs/msg/Image",
    "rviz_default_plugins/PointCloud2": "sensor_msgs/msg/PointCloud2",
    "rviz_default_plugins/MarkerArray": "visualization_msgs/msg/MarkerArray",
    "rviz_default_plugins/RobotModel": "std_msgs/msg/String",
    "rviz_2d_overlay_plugins/TextOverlay": "rviz_2d_overlay_msgs/msg/OverlayText",
}
# The properties that RViz (Jazzy) gives a display of the class, beside Class, Name, Enabled and Value. RViz takes no
# notice of any other.
PROPERTIES = {
    "rviz_default_plugins/Grid": {
        *("Alpha", "Cell Size", "Color", "Line Style", "Normal Cell Count", "Offset", "Plane", "Plane Cell Count"),
        "Reference Frame",
    },
    "rviz_default_plugins/RobotModel": {
        *("Alpha", "Collision Enabled", "Description File", "Description Source", "Description Topic", "Links"),
        *("Mass Properties", "TF Prefix", "Update Interval", "Visual Enabled"),
    },
    "rviz_default_plugins/TF": {
        *("Filter (blacklist)", "Filter (whitelist)", "Frame Timeout", "Frames", "Marker Scale", "Show Arrows"),
        *("Show Axes", "Show Names", "Tree", "Update Interval"),
    },
    "rviz_default_plugins/Image": {"Max Value", "Median window", "Min Value", "Normalize Range", "Topic"},
    "rviz_default_plugins/PointCloud2": {
        *("Alpha", "Color Transformer", "Decay Time", "Position Transformer", "Selectable", "Size (Pixels)"),
        *("Size (m)", "Style", "Topic"),
    },
    "rviz_default_plugins/MarkerArray": {"Namespaces", "Topic"},
    "rviz_2d_overlay_plugins/TextOverlay": {"Topic"},
}
QOS = {"Depth", "Durability Policy", "Filter size", "History Policy", "Reliability Policy", "Value"}
START_S = 90.0  # torch is imported and MuJoCo is compiled, on a machine that may have other things to do


def topic(display: dict) -> dict | None:
    return display.get("Topic") or display.get("Description Topic")


def shown(package: str = "") -> dict[str, dict]:
    """Display name -> display, of those with a topic whose class is of `package`."""
    return {name: display for name, display in DISPLAYS.items() if topic(display) and package in display["Class"]}


def test_displays_have_names_of_their_own():
    assert len(DISPLAYS) == len(CONFIGURATION["Visualization Manager"]["Displays"])


@pytest.mark.parametrize("name", DISPLAYS)
def test_displays_have_only_properties_that_rviz_knows(name):
    display = DISPLAYS[name]
    assert set(display) - {"Class", "Name", "Enabled", "Value"} <= PROPERTIES[display["Class"]]
    assert display["Enabled"] == display["Value"]
    if topic(display):
        assert set(topic(display)) <= QOS and topic(display)["History Policy"] == "Keep Last"


@pytest.mark.parametrize("camera", [camera.name for camera in robot.load().cameras])
def test_every_camera_has_its_pictures_its_depth_and_its_points(camera):
    topics = {topic(display)["Value"] for display in shown().values()}
    depth = f"/policy_node/depth/{camera}"
    assert {robot.load().camera(camera).topic, f"{depth}/image", f"{depth}/image_colour", f"{depth}/points"} <= topics


def test_robot_frames_paths_and_text_are_shown_from_the_start():
    classes = [display["Class"] for display in DISPLAYS.values() if display["Enabled"]]
    assert "rviz_default_plugins/RobotModel" in classes
    assert classes.count("rviz_default_plugins/MarkerArray") == 2
    assert "rviz_default_plugins/TF" in {display["Class"] for display in DISPLAYS.values()}


@pytest.mark.parametrize("name", [name for name, shown in DISPLAYS.items() if "/hdas/" in str(shown.get("Topic"))])
def test_the_robots_topics_are_subscribed_best_effort_as_it_publishes_them(name):
    assert DISPLAYS[name]["Topic"]["Reliability Policy"] == "Best Effort"
    assert DISPLAYS[name]["Topic"]["Durability Policy"] == "Volatile"


def test_the_robot_description_is_received_however_late_rviz_starts():
    described = DISPLAYS["Robot"]["Description Topic"]
    assert described["Value"] == "/robot_description"
    assert described["Durability Policy"] == "Transient Local"


def test_depth_in_metres_has_a_fixed_range():
    metric = [d for d in DISPLAYS.values() if "Topic" in d and PurePosixPath(topic(d)["Value"]).name == "image"]
    assert len(metric) == 3
    for display in metric:
        assert display["Normalize Range"] is False
        assert 0 <= display["Min Value"] < display["Max Value"]


def test_points_have_the_colours_that_they_carry():
    clouds = [display for display in DISPLAYS.values() if "PointCloud2" in display["Class"]]
    assert {(cloud["Position Transformer"], cloud["Color Transformer"]) for cloud in clouds} == {("XYZ", "RGB8")}


def test_the_fixed_frame_is_a_link_of_the_robot():
    xacro = pytest.importorskip("xacro", reason="xacro is not installed")
    description = xacro.process_file(str(urdf_file()))
    links = {link.getAttribute("name") for link in description.getElementsByTagName("link")}
    assert CONFIGURATION["Visualization Manager"]["Global Options"]["Fixed Frame"] in links
    assert {camera.frame_id for camera in robot.load().cameras} <= links


@pytest.fixture(scope="module")
def published(ros, checkpoint):
    """Asks the running graph who publishes a topic. RViz itself and robot_state_publisher come with a distribution."""
    from ament_index_python.packages import get_packages_with_prefixes

    started = [
        # The camera pictures of a still scene are enough.
        dataclasses.replace(node, parameters={**node.parameters, "mode_on_activate": "DISARMED"})
        if node.name == "chunk_executor_node"
        else node
        for node in graph.graph({"model": str(checkpoint), "rviz": "true"})
        if node.name != "rviz2" and node.package in get_packages_with_prefixes()
    ]
    output = io.StringIO()
    with ros.Probe() as probe, Launcher(started, output=output):
        wanted = {topic(display)["Value"] for display in shown("rviz_default_plugins").values()}
        if "robot_state_publisher" not in {node.package for node in started}:
            wanted.discard("/robot_description")
        try:
            probe.wait_for(lambda: all(map(probe.node.count_publishers, wanted)), START_S, "every topic")
        except AssertionError:
            missing = [name for name in wanted if not probe.node.count_publishers(name)]
            raise AssertionError(f"nobody publishes {missing}; output:\n{output.getvalue()}") from None
        yield {name: probe.node.get_publishers_info_by_topic(name) for name in wanted}, probe


def requested(display: dict):
    from rclpy.qos import DurabilityPolicy, HistoryPolicy, LivelinessPolicy, QoSProfile, ReliabilityPolicy

    settings = topic(display)
    return QoSProfile(
        depth=settings["Depth"],
        history=HistoryPolicy.KEEP_LAST,
        liveliness=LivelinessPolicy.AUTOMATIC,
        reliability=ReliabilityPolicy[settings["Reliability Policy"].upper().replace(" ", "_")],
        durability=DurabilityPolicy[settings["Durability Policy"].upper().replace(" ", "_")],
    )


def test_every_display_receives_what_the_running_graph_publishes(published):
    from rclpy.qos import QoSCompatibility, qos_check_compatible

    publishers, _ = published
    for name, display in shown("rviz_default_plugins").items():
        where = topic(display)["Value"]
        if where == "/robot_description" and where not in publishers:
            continue  # test_robot_description_reaches_robot_state_publisher has the rest
        expected = "sensor_msgs/msg/CompressedImage" if where.endswith("/compressed") else TYPES[display["Class"]]
        for info in publishers[where]:
            assert info.topic_type == expected, f"{name}: {where}"
            compatibility, reason = qos_check_compatible(info.qos_profile, requested(display))
            assert compatibility == QoSCompatibility.OK, f"{name}: {where}: {reason}"


def test_points_and_depth_arrive_in_the_cameras_frame(published):
    from sensor_msgs.msg import Image, PointCloud2

    _, probe = published
    camera = robot.load().cameras[0]
    depth = probe.listen(Image, f"/policy_node/depth/{camera.name}/image", requested(DISPLAYS["Head depth (m)"]))
    points = probe.listen(PointCloud2, f"/policy_node/depth/{camera.name}/points", requested(DISPLAYS["Head points"]))
    probe.wait_for(lambda: depth and points, what="depth and points")
    assert (depth[0].encoding, depth[0].header.frame_id) == ("32FC1", camera.frame_id)
    assert [field.name for field in points[0].fields] == ["x", "y", "z", "rgb"]
    assert points[0].header.frame_id == camera.frame_id and points[0].width > 0
