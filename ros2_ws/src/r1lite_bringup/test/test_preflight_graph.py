"""The preflight against a robot that has faults, over real DDS, and once against the simulator.

A few publishers stand for the robot. Each fault is one row of the table in docs/preflight.md.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from preflight_robot import (
    FEEDBACK_HZ,
    POSE,
    ROBOT,
    Body,
    FakeRobot,
    Stream,
    calibration,
    compressed,
    encoded_as,
    joints,
    moving,
    raw,
)

from r1lite_bringup.preflight import __main__, settings
from r1lite_bringup.preflight.findings import Verdict, exit_code, overrides
from r1lite_bringup.preflight.settings import write_parameters

TESTED = dataclasses.replace(ROBOT, rates_hz=dataclasses.replace(ROBOT.rates_hz, arm_feedback=FEEDBACK_HZ))
HEAD, WRIST_LEFT, WRIST_RIGHT = ROBOT.cameras
LEFT, RIGHT = ROBOT.limbs
DOCUMENT = Path(__file__).resolve().parents[4] / "docs" / "preflight.md"
SIDE_BY_SIDE = (2560, 720)


@dataclass(frozen=True)
class Fault:
    """`spoil` breaks a healthy robot; `check` then finds `verdict`, and `says` is in what was seen."""

    name: str
    spoil: Callable[[Body], None]
    check: str
    verdict: Verdict
    says: str


def change(stream: str, **values) -> Callable[[Body], None]:
    def spoil(body: Body) -> None:
        for name, value in values.items():
            setattr(body.streams[stream], name, value)

    return spoil


def add(name: str, stream: Stream) -> Callable[[Body], None]:
    return lambda body: body.streams.update({name: stream})


def set_tracker(topic: str, tracker: tuple[str, str] | None) -> Callable[[Body], None]:
    def spoil(body: Body) -> None:
        del body.trackers[topic]
        if tracker:
            body.trackers[topic] = tracker

    return spoil


FAIL, WARN, PASS = Verdict.FAIL, Verdict.WARN, Verdict.PASS
RAW_TOPIC = WRIST_RIGHT.topic.removesuffix("/compressed")
RECTIFIED = WRIST_LEFT.topic.replace("image_raw", "image_rect_raw")
# Faults of one robot are on streams of their own, so that they can be looked for in one go.
ROBOTS = {
    "first": [
        Fault("no camera", lambda b: b.streams.pop("camera head"), "camera head: topic", FAIL, "not published"),
        Fault(
            "another type on a camera's topic",
            change("camera wrist_left", make=lambda: joints(1.0)),
            "camera wrist_left: topic",
            FAIL,
            "JointState",
        ),
        Fault(
            "raw images instead of compressed ones",
            change("camera wrist_right", make=lambda: raw(padding=4), topic=RAW_TOPIC),
            "camera wrist_right: topic",
            FAIL,
            f"{RAW_TOPIC} (raw)",
        ),
        Fault(
            "the gripper appended to an arm's joints",
            change("arm left", make=lambda: joints(*POSE, 60.0)),
            "arm left: joints",
            PASS,
            "7 values, the gripper appended",
        ),
        Fault(
            "NaN in joints",
            change("arm right", make=lambda: joints(*POSE[:5], float("nan"))),
            "arm right: joints",
            FAIL,
            "non-finite",
        ),
        Fault(
            "gripper on a scale of 0 to 1",
            change("gripper left", make=lambda: joints(0.6)),
            "gripper left: opening",
            WARN,
            "0.60: closed, or not in mm",
        ),
        Fault("frozen stamps", change("gripper right", stamp_ns=10**18), "gripper right: stamps", FAIL, "advance"),
        Fault(
            "a second node sends commands",
            add("rival", Stream(LEFT.topics.arm_command, lambda: joints(*POSE), FEEDBACK_HZ, node="gello_bridge")),
            "command arm left: writers",
            FAIL,
            "/gello_bridge",
        ),
        Fault(
            "the joint tracker's idle publisher",
            add(
                "idle",
                Stream(LEFT.topics.gripper_command, lambda: joints(0.0), 1.0, "r1_lite_jointTracker", silent=True),
            ),
            "command gripper left: writers",
            FAIL,
            "/r1_lite_jointTracker, silent",
        ),
        Fault(
            "somebody moves a leader arm",
            add("leader", Stream(LEFT.topics.teleop, moving(), FEEDBACK_HZ, reliability="reliable")),
            "leader left: motion",
            WARN,
            "moves by",
        ),
    ],
    "second": [
        Fault("stamps 5 s ahead", change("camera head", ahead_s=5.0), "camera head: stamps", FAIL, "5.00 s ahead"),
        Fault(
            "zero camera_info",
            change("info head", make=lambda: calibration(focal=0.0)),
            "camera head: camera_info",
            WARN,
            "zeros",
        ),
        Fault("a camera of 5 Hz", change("camera wrist_left", rate_hz=5.0), "camera wrist_left: rate", FAIL, "Hz"),
        Fault(
            "camera_info of another size",
            change("info wrist_left", make=lambda: calibration(1280, 720)),
            "camera wrist_left: camera_info",
            WARN,
            "1280x720, fx 200.0; the image is 320x180",
        ),
        Fault(
            "no camera_info",
            lambda b: b.streams.pop("info wrist_right"),
            "camera wrist_right: camera_info",
            WARN,
            "not published",
        ),
        Fault(
            "an encoding that is not decoded",
            change("camera wrist_right", make=lambda: encoded_as("h264")),
            "camera wrist_right: image",
            FAIL,
            "'h264' is not allowed",
        ),
        Fault("five joints", change("arm left", make=lambda: joints(*POSE[:5])), "arm left: joints", FAIL, "5 values"),
        Fault(
            "degrees instead of radians",
            change("arm right", make=lambda: joints(*(np.rad2deg(POSE) + 10))),
            "arm right: joints",
            FAIL,
            "rad; plausible",
        ),
        Fault("stamps 5 s old", change("gripper left", ahead_s=-5.0), "gripper left: stamps", FAIL, "5.00 s old"),
        Fault(
            "a gripper that reads 200",
            change("gripper right", make=lambda: joints(200.0)),
            "gripper right: opening",
            FAIL,
            "200.0 mm",
        ),
        Fault("no tracker", set_tracker(RIGHT.topics.arm_command, None), "command arm right: reader", FAIL, "nobody"),
        Fault(
            "the vendor's teleoperation runs",
            lambda b: b.nodes.append("joycon_evdev_publisher"),
            "teleoperation: nodes",
            WARN,
            "/joycon_evdev_publisher",
        ),
    ],
    # Its sensor_reliability is reliable, its command_reliability best_effort.
    "third": [
        Fault(
            "a camera that offers best effort, where reliable is asked for",
            change("camera wrist_right", reliability="best_effort"),
            "camera wrist_right: QoS",
            FAIL,
            "best_effort",
        ),
        Fault(
            "a tracker that asks for reliable, where best effort is offered",
            set_tracker(RIGHT.topics.arm_command, ("mobiman", "reliable")),
            "command arm right: reader",
            FAIL,
            "eliab",
        ),
        Fault(
            "both eyes in one image",
            change("camera head", make=lambda: compressed(*SIDE_BY_SIDE)),
            "camera head: image",
            FAIL,
            "both eyes",
        ),
        Fault(
            "image_rect_raw instead of image_raw",
            change("camera wrist_left", topic=RECTIFIED),
            "camera wrist_left: topic",
            FAIL,
            RECTIFIED,
        ),
        Fault(
            "two nodes publish the same feedback",
            add("twin", Stream(LEFT.topics.gripper_feedback, lambda: joints(60.0), FEEDBACK_HZ, "twin", "reliable")),
            "gripper left: topic",
            WARN,
            "2 publishers",
        ),
    ],
}
FAULTS = [pytest.param(robot, fault, id=fault.name) for robot, faults in ROBOTS.items() for fault in faults]


def look(nodes: settings.Settings, bags: Path):
    return __main__.look(
        __main__.PreflightConfig(seconds=0.4, discovery_s=5.0, bags=bags), TESTED, nodes, lambda text: None
    )


@pytest.fixture(scope="module")
def results(ros, tmp_path_factory):
    """By robot, what the preflight found on it."""
    usual = settings.read(TESTED)
    stricter = dataclasses.replace(
        usual,
        sensors=dict.fromkeys(usual.sensors, "reliable"),
        command_reliability="best_effort",
    )
    found = {}
    for robot, faults in {"healthy": [], **ROBOTS}.items():
        body = Body()
        if robot == "third":
            for stream in body.streams.values():
                stream.reliability = "reliable"
        for fault in faults:
            fault.spoil(body)
        with FakeRobot(ros, body):
            found[robot] = look(stricter if robot == "third" else usual, tmp_path_factory.mktemp("bags"))
    return found


def by_name(result) -> dict:
    return {finding.name: finding for finding in result.findings}


def about_the_robot(result) -> list:
    """Without what the machine of the test is to blame for."""
    return [finding for finding in result.findings if not finding.name.startswith(("network", "host"))]


@pytest.mark.parametrize(("robot", "fault"), FAULTS)
def test_a_fault_is_found_where_it_is(results, robot, fault):
    finding = by_name(results[robot])[fault.check]
    assert (finding.verdict, fault.says in finding.seen) == (fault.verdict, True), finding
    if fault.verdict is not PASS:
        assert finding.todo


@pytest.mark.parametrize("robot", ["healthy", *ROBOTS])
def test_nothing_else_fails(results, robot):
    failed = {finding.name for finding in about_the_robot(results[robot]) if finding.verdict is FAIL}
    assert failed == {fault.check for fault in ROBOTS.get(robot, []) if fault.verdict is FAIL}


def test_a_healthy_robot_is_ready(results):
    findings = about_the_robot(results["healthy"])
    assert exit_code(findings) == 0
    checked = {finding.name.partition(": ")[0] for finding in findings if finding.verdict is PASS}
    assert checked >= {"camera head", "camera wrist_right", "arm left", "gripper right", "command arm right"}


def test_a_camera_that_is_elsewhere_is_judged_there(results):
    found = by_name(results["first"])["camera wrist_right: image"]
    assert (found.verdict, found.seen) == (PASS, "320x180 rgb8")
    assert by_name(results["third"])["camera wrist_left: stamps"].verdict is not FAIL


def test_what_a_unit_has_elsewhere_becomes_parameters_for_the_nodes(results, tmp_path):
    result = results["first"]
    files = write_parameters(tmp_path, result.findings, result.cameras, None)
    assert {file.name for file in files} == {
        "policy_node.param.yaml",
        "chunk_executor_node.param.yaml",
        "episode_recorder_node.param.yaml",
    }
    nodes = settings.read(TESTED, tmp_path)
    assert nodes.cameras[2] == settings.CameraSettings("wrist_right", RAW_TOPIC, "raw", WRIST_RIGHT.camera_info)
    assert nodes.cameras[:2] == settings.read(TESTED).cameras[:2]
    assert nodes.allowed_publishers == ("/r1_lite_jointTracker",)
    recorded = settings.parameters(tmp_path / "episode_recorder_node.param.yaml")["topics"]
    assert f"{RAW_TOPIC} required" in recorded and f"{HEAD.topic} required" in recorded
    assert overrides(results["healthy"].findings) == {}


def test_a_node_takes_the_written_file(ros, results, tmp_path):
    import rclpy
    from rclpy.context import Context

    [file] = [
        path
        for path in write_parameters(tmp_path, results["third"].findings, results["third"].cameras, None)
        if path.name == "policy_node.param.yaml"
    ]
    context = Context()
    rclpy.init(context=context)
    node = rclpy.create_node(
        "policy_node",
        context=context,
        cli_args=["--ros-args", "--params-file", str(file)],
        automatically_declare_parameters_from_overrides=True,
    )
    try:
        assert node.get_parameter("cameras.wrist_left.topic").value == RECTIFIED
        assert node.get_parameter("sensor_reliability").value == "best_effort"
        assert node.get_parameter("realtime_chunking").value == "off"
    finally:
        node.destroy_node()
        rclpy.shutdown(context=context)


def test_it_publishes_nothing(ros):
    from r1lite_bringup.preflight.measure import Listener

    with Listener() as listener, ros.Probe() as probe:
        listener.graph([], 0.1)
        probe.wait_for(lambda: "preflight" in probe.node.get_node_names(), what="the preflight's node")
        topics = probe.node.get_publisher_names_and_types_by_node("preflight", "/")
        assert {name for name, _ in topics} <= {"/parameter_events"}


def test_the_simulator_is_ready(ros, tmp_path):
    with ros.NodeProcess(
        "r1lite_sim.nodes.simulator_node", {"autostart": True, "image_width": 64, "image_height": 36}
    ) as sim:
        sim.wait_for_output("seed 0")
        report = tmp_path / "preflight.json"
        words = ["--robot", "sim", "--seconds", "0.5", "--discovery-s", "20", "--json", str(report)]
        code = __main__.main(words)
    found = json.loads(report.read_text())
    assert [item for item in found["findings"] if item["verdict"] == "FAIL"] == []
    assert code == found["exit_code"] == 0
    assert found["counts"]["PASS"] > 30


def test_the_document_lists_every_fault():
    rows = [
        f"| {fault.name} | {fault.check} | {fault.verdict.value} |" for faults in ROBOTS.values() for fault in faults
    ]
    table = DOCUMENT.read_text().partition("| fault | finding | verdict |\n|---|---|---|\n")[2].partition("\n\n")[0]
    assert table.splitlines() == rows
