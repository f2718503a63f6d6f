"""What the preflight makes of measurements: plain data in, verdicts, table, JSON, parameters and exit codes out."""

from __future__ import annotations

import dataclasses
import io
import json
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

pytest.importorskip("rclpy", reason="rclpy is not installed")
pytest.importorskip("depthvla_msgs", reason="depthvla_msgs is not built or not sourced")

from sensor_msgs.msg import CameraInfo, JointState  # noqa: E402

from r1lite_bringup import graph  # noqa: E402
from r1lite_bringup.preflight import (  # noqa: E402
    __main__,
    checks_camera,
    checks_graph,
    checks_host,
    checks_policy,
    checks_streams,
    findings,
    settings,
)
from r1lite_bringup.preflight.checks_host import Host  # noqa: E402
from r1lite_bringup.preflight.findings import Finding, Override, Verdict  # noqa: E402
from r1lite_bringup.preflight.measure import Endpoint, Graph, Picture, Sample  # noqa: E402
from r1lite_bringup.preflight.settings import CAMERA_INFO, JOINT_STATE, MESSAGE_TYPES  # noqa: E402
from r1lite_description import robot as robot_description  # noqa: E402

FAIL, WARN, PASS, SKIP = Verdict.FAIL, Verdict.WARN, Verdict.PASS, Verdict.SKIP
ROBOT = robot_description.load()
SETTINGS = settings.read(ROBOT)
LIMB = ROBOT.limbs[0]
MIDDLE = tuple((ROBOT.position_min + ROBOT.position_max)[LIMB.arm] / 2)
WRIST = SETTINGS.cameras[1]
SILENT = Sample("/topic")
CONFLICT = {"reliable": "Best effort publisher and reliable subscription"}
HOST = Host(
    kernel={
        "net.core.rmem_max": 2**25,
        "net.core.rmem_default": 2**25,
        "net.ipv4.ipfrag_high_thresh": 2**22,
        "net.ipv4.ipfrag_time": 3,
    },
    free_bytes=2**37,
    bags=Path("bags"),
    environment={"ROS_DOMAIN_ID": "2"},
    middleware="rmw_fastrtps_cpp",
    python=(3, 12),
    clock_keepers=("chronyd",),
)


def sample(rate_hz=15.0, delay_s=0.03, seconds=2.0, values=(), **changes) -> Sample:
    received = 10**18 + (np.arange(round(seconds * rate_hz)) * 1e9 / rate_hz).astype(np.int64)
    stamps = received - round(delay_s * 1e9)
    made = Sample("/topic", tuple(received.tolist()), tuple(stamps.tolist()), values=tuple(values))
    return dataclasses.replace(made, **changes)


def state(position, names=()) -> JointState:
    return JointState(position=list(position), name=list(names))


def camera_rate(rate_hz: float, **changes) -> Finding:
    return checks_streams.camera_rate("camera", sample(rate_hz, **changes), 15.0, 0.25)


@pytest.mark.parametrize(
    ("rate_hz", "expected", "says"),
    [
        (15.2, PASS, "15.2 Hz (a 15 Hz camera)"),
        (29.0, PASS, "a 30 Hz camera"),
        (60.0, PASS, "a 60 Hz camera"),
        (22.0, WARN, "22.0 Hz"),
        (10.0, WARN, "10.0 Hz"),
        (5.0, FAIL, "5.0 Hz"),
    ],
)
def test_the_usual_camera_rates_pass_and_are_named(rate_hz, expected, says):
    found = camera_rate(rate_hz)
    assert found.verdict is expected and says in found.seen


def test_a_camera_that_loses_messages_or_pauses_is_named():
    assert camera_rate(15.0, lost=3).verdict is WARN
    assert "3 of 33 lost" in camera_rate(15.0, lost=3).seen
    steady = sample(60.0)
    paused = dataclasses.replace(steady, received_ns=(*steady.received_ns[:-1], steady.received_ns[-1] + 3 * 10**8))
    found = checks_streams.camera_rate("camera", paused, 15.0, 0.25)
    assert found.verdict is WARN and "once 0.32 s nothing" in found.seen


def test_a_topic_without_messages_fails_and_stamps_and_values_are_skipped():
    assert camera_rate(15.0, seconds=0.0).verdict is FAIL
    assert checks_streams.joint_rate("arm", SILENT, 200.0, 0.2, 0.05).verdict is FAIL
    skipped = (
        checks_streams.stamps("arm", SILENT, 0.2, 0.05),
        checks_streams.joints("arm", SILENT, ROBOT, LIMB),
        checks_streams.opening("gripper", SILENT, ROBOT, LIMB),
        checks_camera.picture("camera", SILENT, False),
    )
    assert {finding.verdict for finding in skipped} == {SKIP}


def test_joint_feedback_must_come_often_enough_to_match_an_image():
    rates = {rate: checks_streams.joint_rate("arm", sample(rate), 200.0, 0.2, 0.05).verdict for rate in (195, 100, 15)}
    assert rates == {195: PASS, 100: WARN, 15: FAIL}


@pytest.mark.parametrize(
    ("delay_s", "expected", "says"),
    [
        (0.03, PASS, "30.0 ms old"),
        (-0.004, PASS, "4.0 ms ahead"),
        (-0.02, WARN, "20.0 ms ahead"),
        (-0.06, FAIL, "60.0 ms ahead"),
        (0.15, WARN, "150.0 ms old"),
        (0.3, FAIL, "300.0 ms old"),
        (-5.0, FAIL, "5.00 s ahead"),
        (5.0, FAIL, "5.00 s old"),
    ],
)
def test_clocks_apart_are_measured_against_the_limits_of_the_policy(delay_s, expected, says):
    found = checks_streams.stamps("camera", sample(delay_s=delay_s), 0.25, 0.05)
    assert found.verdict is expected and says in found.seen


def test_stamps_must_be_given_and_advance():
    steady = sample()
    zeros = dataclasses.replace(steady, stamps_ns=(0,) * len(steady))
    frozen = dataclasses.replace(steady, stamps_ns=(steady.stamps_ns[0],) * len(steady))
    backward = dataclasses.replace(steady, stamps_ns=steady.stamps_ns[::-1])
    once = dataclasses.replace(steady, stamps_ns=(*steady.stamps_ns[:-1], steady.stamps_ns[-2]))
    found = [checks_streams.stamps("camera", item, 0.25, 0.05) for item in (zeros, frozen, backward, once)]
    assert [finding.verdict for finding in found] == [FAIL, FAIL, FAIL, WARN]


def test_joints_in_another_order_are_judged_by_their_names():
    turned = state(MIDDLE[::-1], LIMB.joints[::-1])
    found = checks_streams.joints("arm", sample(values=[turned]), ROBOT, LIMB)
    assert found.verdict is PASS and "by their names: " + ", ".join(f"{at:.2f}" for at in MIDDLE) in found.seen
    other = state(MIDDLE, ROBOT.limbs[1].joints)
    assert checks_streams.joints("arm", sample(values=[other]), ROBOT, LIMB).verdict is FAIL
    assert (
        checks_streams.opening("gripper", sample(values=[state((50.0,), ("right_gripper",))]), ROBOT, LIMB).verdict
        is FAIL
    )


def test_an_arm_folded_at_its_zero_is_within_its_limits():
    found = checks_streams.joints("arm", sample(values=[state((0.0,) * 6)]), ROBOT, LIMB)
    assert found.verdict is PASS, "the joints' zero lies on hard stops, a degree outside the limits"
    beyond = (0.0, -0.05, *(0.0,) * 4)
    found = checks_streams.joints("arm", sample(values=[state(beyond)]), ROBOT, LIMB)
    assert found.verdict is WARN and LIMB.joints[1] in found.seen


@pytest.mark.parametrize("position", [(*MIDDLE[:5], float("nan")), (*MIDDLE[:5], 9.0), MIDDLE[:5], (*MIDDLE, 1.0, 1.0)])
def test_one_bad_message_of_an_arm_is_enough(position):
    assert (
        checks_streams.joints(
            "arm", sample(values=[state(at) for at in (MIDDLE, position, MIDDLE)]), ROBOT, LIMB
        ).verdict
        is FAIL
    )


@pytest.mark.parametrize(
    ("opening", "expected"), [(97.0, PASS), (102.0, PASS), (150.0, FAIL), (0.097, WARN), (1.0, WARN), (-20.0, FAIL)]
)
def test_a_gripper_reads_mm(opening, expected):
    assert checks_streams.opening("gripper", sample(values=[state((opening,))]), ROBOT, LIMB).verdict is expected


@pytest.mark.parametrize(
    ("picture", "expected", "says"),
    [
        (Picture("jpeg", 1280, 720, 60.0), PASS, "1280x720 jpeg"),
        (Picture("rgb8", 640, 360, 60.0), PASS, "640x360 rgb8"),
        (Picture("jpeg", 2560, 720, 60.0), FAIL, "side by side"),
        (Picture("jpeg", 640, 480, 60.0), WARN, "1.33:1"),
        (Picture("jpeg", 1280, 720, 0.5), WARN, "nothing in it"),
        (Picture("mono8", problem="encoding 'mono8' is not allowed"), FAIL, "mono8"),
    ],
)
def test_pictures_are_judged_by_encoding_cut_and_content(picture, expected, says):
    found = checks_camera.picture("camera", sample(values=[picture]), False)
    assert found.verdict is expected and says in found.seen


def test_a_wide_camera_that_is_not_rectified_passes_with_a_note():
    distorted = sample(values=[CameraInfo(width=1280, height=720, k=[1.0] * 9, d=[0.1, 0.0])])
    assert checks_camera.is_unrectified(WRIST, distorted)
    assert not checks_camera.is_unrectified(dataclasses.replace(WRIST, topic="/wrist/image_rect_raw"), distorted)
    found = checks_camera.picture("camera", sample(values=[Picture("jpeg", 1280, 720, 60.0)]), True)
    assert found.verdict is PASS and "unrectified" in found.todo


def test_a_camera_matrix_beside_the_image_becomes_a_parameter():
    place = f"{WRIST.topic.removesuffix('/image_raw/compressed')}/camera_info"
    elsewhere = dataclasses.replace(WRIST, camera_info="/calib/wrist")
    graph = Graph(publishers={place: (Endpoint("/hdas", CAMERA_INFO, "best_effort"),)})
    found = checks_camera.calibration("camera", elsewhere, graph, SILENT, None)
    assert found.verdict is WARN
    assert found.overrides == (Override("policy_node", f"cameras.{WRIST.name}.camera_info", place),)


RECTIFIED = dataclasses.replace(WRIST, rectify=True)
K = [700.0, 0.0, 640.0, 0.0, 700.0, 360.0, 0.0, 0.0, 1.0]
BENT = CameraInfo(width=1280, height=720, k=K, d=[0.1, 0.0, 0.0, 0.0, 0.0])
YAML = """\
image_width: 1280
image_height: 720
camera_matrix: {rows: 3, cols: 3, data: [700.0, 0.0, 640.0, 0.0, 700.0, 360.0, 0.0, 0.0, 1.0]}
distortion_model: plumb_bob
distortion_coefficients: {rows: 1, cols: 5, data: [0.1, 0.0, 0.0, 0.0, 0.0]}
"""


def judged(camera, info=SILENT, width=1280):
    graph = Graph(publishers={WRIST.camera_info: (Endpoint("/hdas", CAMERA_INFO, "best_effort"),)})
    return checks_camera.calibration("camera", camera, graph, info, Picture("jpeg", width, width * 9 // 16, 60.0))


def test_a_camera_that_is_to_be_rectified_must_have_a_calibration_that_fits():
    assert judged(RECTIFIED, sample(values=[BENT])).verdict is PASS
    assert not checks_camera.is_unrectified(RECTIFIED, sample(values=[BENT]))
    for found in (judged(RECTIFIED), judged(RECTIFIED, sample(values=[BENT]), width=640)):
        assert found.verdict is FAIL and "rectify" in found.todo
    assert judged(WRIST).verdict is WARN


def test_a_calibration_file_is_judged_in_place_of_the_topic(tmp_path):
    file = tmp_path / "wrist.yaml"
    camera = dataclasses.replace(RECTIFIED, calibration_file=str(file))
    found = judged(camera)
    assert found.verdict is FAIL and f"{file} does not exist" in found.seen
    file.write_text(YAML)
    found = judged(camera)
    assert found.verdict is PASS and found.seen == "1280x720, fx 700.0"
    assert judged(camera, width=640).verdict is FAIL
    assert judged(dataclasses.replace(camera, rectify=False), width=640).verdict is WARN


def published(topic: str, transport: str) -> Graph:
    return Graph(publishers={topic: (Endpoint("/hdas", MESSAGE_TYPES[transport], "best_effort"),)})


@pytest.mark.parametrize(
    ("ending", "transport"),
    [
        ("image_rect_raw/compressed", "compressed"),
        ("image_raw", "raw"),
        ("image_rect_raw", "raw"),
        ("image_raw/compressed", "raw"),
    ],
)
def test_a_unit_with_other_topics_gets_parameters_with_which_it_passes(tmp_path, ending, transport):
    topic = WRIST.topic.removesuffix("image_raw/compressed") + ending
    camera, found = checks_camera.find_camera("camera", WRIST, published(topic, transport))
    assert found.verdict is FAIL and topic in found.seen
    assert (camera.topic, camera.transport) == (topic, transport)
    settings.write_parameters(tmp_path, [found], [camera], None)
    again = settings.read(ROBOT, tmp_path)
    assert again.cameras[1] == camera
    assert checks_camera.find_camera("camera", again.cameras[1], published(topic, transport))[1].verdict is PASS
    unchanged = dataclasses.replace(again, cameras=SETTINGS.cameras)
    assert unchanged == SETTINGS, "whatever else was set stays"


def test_another_eye_is_not_taken_for_the_camera():
    head = SETTINGS.cameras[0]
    camera, found = checks_camera.find_camera(
        "camera", head, published(head.topic.replace("left_raw", "right_raw"), "raw")
    )
    assert camera is None and found.verdict is FAIL and not found.overrides


def test_qos_is_judged_for_each_node_that_listens():
    offer = [Endpoint("/hdas", JOINT_STATE, "best_effort", CONFLICT)]
    assert checks_graph.sensor_qos("arm", offer, {"policy_node": "best_effort"}).verdict is PASS
    found = checks_graph.sensor_qos("arm", offer, {"policy_node": "best_effort", "chunk_executor_node": "reliable"})
    assert found.verdict is FAIL
    assert found.overrides == (Override("chunk_executor_node", "sensor_reliability", "best_effort"),)


def writers(*nodes: str, allowed=(), heard=SILENT) -> Finding:
    rivals = [Endpoint(node, JOINT_STATE, "reliable") for node in nodes]
    return checks_graph.sole_writer("command", "/command", rivals, allowed, heard)


def test_only_allowed_and_silent_nodes_may_hold_a_publisher_on_a_command_topic():
    assert writers().verdict is PASS
    assert writers("/mobiman/r1_lite_jointTracker", allowed=["/mobiman/r1_lite_jointTracker"]).verdict is PASS
    assert writers("/relay", allowed=["/relay"], heard=sample(50.0)).verdict is FAIL
    assert writers("/unheard_of").verdict is FAIL and not writers("/unheard_of").overrides
    assert writers("/joint_tracker", "/unheard_of").overrides == ()
    assert writers("/joint_tracker").overrides == (
        Override("chunk_executor_node", "allowed_publishers", ["/joint_tracker"]),
    )


def test_a_simulation_in_the_domain_of_a_robot_is_found():
    assert checks_graph.simulation(Graph(nodes=("/hdas", "/mobiman"))).verdict is PASS
    found = checks_graph.simulation(Graph(nodes=("/hdas", "/simulator_node")))
    assert found.verdict is FAIL and found.seen == "/simulator_node"


def test_a_recorder_is_no_tracker():
    readers = {"/command": (Endpoint("/episode_recorder_node", JOINT_STATE, "best_effort"),)}
    found = checks_graph.command_reader("command", "/command", Graph(subscriptions=readers), "reliable")
    assert found.verdict is FAIL
    readers["/command"] += (Endpoint("/mobiman", JOINT_STATE, "best_effort"),)
    found = checks_graph.command_reader("command", "/command", Graph(subscriptions=readers), "reliable")
    assert (found.verdict, found.seen) == (PASS, "/mobiman")


def test_allowed_publishers_of_several_topics_are_one_list():
    found = [writers("/joint_tracker"), writers("/other_joint_tracker")]
    assert findings.overrides(found) == {
        "chunk_executor_node": {"allowed_publishers": ["/joint_tracker", "/other_joint_tracker"]}
    }


def test_a_leader_arm_that_moves_or_is_no_leader_arm_is_told():
    still = [(*MIDDLE, 50.0), (*MIDDLE, 90.0)]
    assert checks_graph.leader("leader", sample(values=map(state, still)), 6).verdict is PASS, (
        "the gripper does not count"
    )
    moved = [MIDDLE, (MIDDLE[0] + 0.1, *MIDDLE[1:])]
    assert checks_graph.leader("leader", sample(values=map(state, moved)), 6).verdict is WARN
    assert checks_graph.leader("leader", sample(values=[state((float("nan"),) * 6)]), 6).verdict is WARN
    assert checks_graph.leader("leader", sample(values=[state((0.0,) * 3)]), 6).verdict is WARN
    assert checks_graph.leader("leader", SILENT, 6).verdict is PASS


def on_host(simulated=False, **changes) -> dict[str, Verdict]:
    found = checks_host.check(dataclasses.replace(HOST, **changes), simulated, 1024)
    return {finding.name: finding.verdict for finding in found if finding.verdict is not PASS}


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, {}),
        ({"kernel": {**HOST.kernel, "net.core.rmem_default": 212992}}, {"network: receive buffers": WARN}),
        ({"kernel": {**HOST.kernel, "net.ipv4.ipfrag_time": 30}}, {"network: fragments": WARN}),
        ({"kernel": {}}, {"network: receive buffers": SKIP, "network: fragments": SKIP}),
        ({"free_bytes": 2**33}, {"host: disk": WARN}),
        ({"free_bytes": 2**29}, {"host: disk": FAIL}),
        ({"clock_keepers": ()}, {"host: clock": WARN}),
        ({"middleware": "rmw_cyclonedds_cpp"}, {"network: middleware": WARN}),
        ({"environment": {"FASTRTPS_DEFAULT_PROFILES_FILE": "/no/such.xml"}}, {"network: middleware": FAIL}),
        ({"environment": {"ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST"}}, {"network: discovery": FAIL}),
        ({"environment": {"ROS_LOCALHOST_ONLY": "1"}}, {"network: discovery": FAIL}),
        ({"python": (3, 8)}, {"host: Python": FAIL}),
    ],
)
def test_the_host_is_judged_by_what_a_robot_needs(changes, expected):
    assert on_host(**changes) == expected


def test_a_simulation_does_not_ask_for_a_network():
    local = {"ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST"}
    skipped = dict.fromkeys(("network: receive buffers", "network: fragments", "host: clock"), SKIP)
    assert on_host(simulated=True, environment=local) == skipped
    assert on_host(simulated=True) == {**skipped, "network: discovery": WARN}


def test_an_empty_domain_is_the_finding_that_explains_the_others():
    assert checks_host.domain(HOST, 7, 6).verdict is PASS
    found = checks_host.domain(dataclasses.replace(HOST, environment={}), 7, 0)
    assert found.verdict is FAIL and "ROS_DOMAIN_ID is not set" in found.seen


LOADED = {
    "model_id": "m",
    "device": "cpu",
    "load_s": 1.0,
    "memory_gb": 1.0,
    "total_gb": 8.0,
    "chunk_s": 1.067,
    "period_s": 1 / 15,
}


@pytest.mark.parametrize(
    ("latency_ms", "expected"),
    [
        (None, SKIP),
        ({"p50": 40.0, "p99": 60.0}, PASS),
        ({"p50": 300.0, "p99": 400.0}, WARN),
        ({"p50": 400.0, "p99": 900.0}, FAIL),
    ],
)
def test_inference_must_end_before_the_chunk_before_does(latency_ms, expected):
    load, latency = checks_policy.check({**LOADED, "latency_ms": latency_ms}, max_rate_hz=5.0)
    assert (load.verdict, latency.verdict) == (PASS, expected)


def test_the_policy_is_loaded_and_timed_in_a_process_of_its_own(checkpoint):
    result = checks_policy.load(["--model", str(checkpoint), "--runs", "2"])
    load, latency = checks_policy.check(result, max_rate_hz=5.0)
    assert load.verdict is PASS and result["model_id"] in load.seen
    assert "control periods" in latency.seen


def test_a_policy_that_does_not_load_fails_with_the_reason(tmp_path):
    pytest.importorskip("torch", reason="torch is not installed")
    load, latency = checks_policy.check(checks_policy.load(["--model", str(tmp_path)]), max_rate_hz=5.0)
    assert (load.verdict, latency.verdict) == (FAIL, SKIP)
    assert "config.json" in load.seen


FINDINGS = [
    Finding("camera head: topic", PASS, "from /hdas", "CompressedImage"),
    Finding("camera head: rate", WARN, "22.0 Hz", "15 or 30 or 60 Hz", "raise the receive buffers"),
    Finding("arm left: topic", FAIL, "not published", "JointState", "boot it", (Override("policy_node", "a.b", "c"),)),
    Finding("arm left: QoS", SKIP, "no such topic"),
    Finding("arm left: rate", SKIP, "no such topic"),
]


def shown(found, hints=False, width=120, **options) -> str:
    console = Console(file=io.StringIO(), width=width, **options)
    findings.show(found, console, hints=hints)
    return console.file.getvalue()


def test_the_table_has_colours_and_hints_only_where_asked_for():
    plain = shown(FINDINGS)
    assert "\x1b" not in plain and "boot it" not in plain
    assert "1 PASS, 1 WARN, 1 FAIL, 2 SKIP. Not ready: arm left: topic" in plain
    assert "policy_node:\n  a.b: c" in plain
    assert "SKIP  arm left: QoS, rate  no such topic" in plain
    coloured = shown(FINDINGS, hints=True, force_terminal=True, color_system="standard", _environ={})
    assert "\x1b[1;31mFAIL\x1b[0m" in coloured and "-> boot it" in coloured
    assert shown(FINDINGS[:2]).endswith("Ready.\n")


def test_topics_stay_whole_in_a_narrow_terminal():
    long = Finding("arm: topic", FAIL, "not published", "JointState on /a/very/long/topic/that-does/not/fit/in/here")
    assert "/a/very/long/topic/that-does/not/fit/in/here" in shown([long], width=60)


@pytest.mark.parametrize(("found", "code"), [(FINDINGS, 1), (FINDINGS[:2], 0), ([], 0)])
def test_the_exit_code_says_whether_anything_failed(monkeypatch, tmp_path, found, code):
    monkeypatch.setattr(__main__, "look", lambda *_: __main__.Result(list(found), list(SETTINGS.cameras)))
    monkeypatch.setattr(__main__.graph, "environment", lambda arguments: {})
    report = tmp_path / "made" / "report.json"
    assert __main__.main(["--json", str(report)]) == code
    content = json.loads(report.read_text())
    assert content["exit_code"] == code
    assert [item["name"] for item in content["findings"]] == [finding.name for finding in found]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--model", "no-such-model"], "no-such-model"),
        (["--robot-file", "/no/such.yaml"], "/no/such.yaml"),
        (["--params-dir", "/no/such/folder"], "/no/such/folder"),
        (["--seconds", "-1"], "seconds is -1.0"),
    ],
)
def test_what_cannot_be_checked_ends_with_2_and_says_why(monkeypatch, capsys, words, says):
    monkeypatch.setattr(__main__.graph, "environment", lambda arguments: {})
    try:
        code = __main__.main(words)
    except SystemExit as end:  # tyro's, for what is wrong with one value
        code = end.code
    assert code == 2
    assert says in capsys.readouterr().err


def test_a_parameter_file_that_is_none_is_named(tmp_path):
    (tmp_path / "policy_node.param.yaml").write_text("just words\n")
    with pytest.raises(ValueError, match="policy_node.param.yaml is no ROS parameter file"):
        settings.read(ROBOT, tmp_path)
    (tmp_path / "policy_node.param.yaml").write_text(
        "policy_node: {ros__parameters: {cameras: {head: {transport: theora}}}}\n"
    )
    with pytest.raises(ValueError, match="cameras.head.transport is 'theora'; allowed: compressed, raw"):
        settings.read(ROBOT, tmp_path)


def test_what_a_parameter_file_leaves_out_has_the_nodes_default(tmp_path):
    (tmp_path / "policy_node.param.yaml").write_text("/**: {ros__parameters: {camera_max_age_s: 0.5}}\n")
    limits = settings.read(ROBOT, tmp_path).limits
    assert (limits.camera_max_age_s, limits.max_future_s) == (0.5, 0.05)


def test_a_real_robot_wants_a_checkpoint_that_is_made_for_one(real_model):
    embedded = str(graph.model_folder(graph.EMBEDDED))
    assert checks_policy.made_for(real_model, simulated=False).verdict is PASS
    found = checks_policy.made_for(embedded, simulated=False)
    assert found.verdict is FAIL and "simulation only" in found.seen
    assert checks_policy.made_for(embedded, simulated=True).verdict is SKIP
