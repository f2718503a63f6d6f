from __future__ import annotations

import re
import signal
import time
from array import array
from pathlib import Path

import cv2
import numpy as np
import pytest

MODULE = "depthvla_policy.nodes.policy_node"
NODE = "/policy_node"
INSTRUCTION = "lift the red block with the right arm"
HEIGHT, WIDTH = 36, 64
K = np.array([[50.0, 0, 31.5], [0, 50.0, 17.5], [0, 0, 1.0]])


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    pytest.importorskip("torch", reason="torch is not installed")
    import tiny_model

    return tiny_model.save_checkpoint(tmp_path_factory.mktemp("tiny") / "checkpoint")


class Robot:
    """Cameras at 10 Hz and feedback at 100 Hz of a robot that stands still. Every image differs from the one before.

    `silent` cameras send nothing, `still` ones the same image under new stamps, `stuck` ones their last message.
    """

    def __init__(self, probe, robot, pose, raw=()):
        from sensor_msgs.msg import CameraInfo, CompressedImage, Image, JointState

        from depthvla_control.ros import qos

        self.probe, self.pose, self.silent, self.still, self.stuck = probe, pose, set(), set(), set()
        self.names = {}  # topic -> names of its joint states, where no placeholder
        sensor = qos.stream("best_effort", 5)
        self._images, self._infos, self._joints = {}, {}, []
        pixels = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
        jpeg = cv2.imencode(".jpg", pixels)[1].tobytes()
        for camera in robot.cameras:
            if camera.name in raw:
                message = Image(encoding=raw[camera.name], height=HEIGHT, width=WIDTH, step=3 * WIDTH)
                message.data = array("B", pixels.tobytes())
                publisher = self.probe.publisher(Image, f"/raw/{camera.name}", sensor)
            else:
                message = CompressedImage(format="jpeg", data=array("B", jpeg + b"\0"))  # decoders stop before the last
                publisher = self.probe.publisher(CompressedImage, camera.topic, sensor)
            message.header.frame_id = camera.frame_id
            self._images[camera.name] = (publisher, message)
            info = CameraInfo(height=HEIGHT, width=WIDTH, distortion_model="plumb_bob", k=K.ravel())
            self._infos[camera.name] = (self.probe.publisher(CameraInfo, camera.camera_info, sensor), info)
        for limb in robot.limbs:
            for topic, where in (
                (limb.topics.arm_feedback, limb.arm),
                (limb.topics.gripper_feedback, slice(limb.gripper_index, limb.gripper_index + 1)),
            ):
                self._joints.append((self.probe.publisher(JointState, topic, sensor), topic, where))
        self._joint_state = JointState
        self.probe.every(0.01, self._send_joints)
        self.probe.every(0.1, self._send_images)

    def _send_images(self):
        stamp = self.probe.node.get_clock().now().to_msg()
        for name, (publisher, message) in self._images.items():
            if name in self.silent:
                continue
            if name not in self.stuck:
                message.header.stamp = stamp
                message.data[-1] = (message.data[-1] + (name not in self.still)) % 256
            publisher.publish(message)
        for publisher, message in self._infos.values():
            publisher.publish(message)

    def _send_joints(self):
        for publisher, topic, where in self._joints:
            names = self.names.get(topic, ["placeholder"])
            message = self._joint_state(name=names, position=self.pose[where].tolist())
            message.header.stamp = self.probe.node.get_clock().now().to_msg()
            publisher.publish(message)


class Rig:
    """A policy process in front of a scripted robot, and what it publishes."""

    def __init__(self, ros, robot, pose, checkpoint, raw=(), name="policy_node", **parameters):
        from depthvla_msgs.msg import ActionChunk, PolicyStatus

        from depthvla_control.ros import qos

        self.probe = ros.Probe(f"robot_of_{name}")
        self.robot = Robot(self.probe, robot, pose, raw)
        self.chunks = self.probe.listen(ActionChunk, f"/{name}/action_chunk", qos.chunks())
        self.status = self.probe.listen(PolicyStatus, f"/{name}/status", qos.status())
        parameters = {"autostart": True, "model": str(checkpoint), "instruction": INSTRUCTION, **parameters}
        self.node = ros.NodeProcess(MODULE, parameters, remappings={"__node": name})

    def wait_for_chunks(self, count=1):
        enough = len(self.chunks) + count
        try:
            self.probe.wait_for(lambda: len(self.chunks) >= enough, 90.0, "chunks")
        except AssertionError as error:
            raise AssertionError(f"{error}; {self.status[-1:]}\n{self.node.output()}") from None
        return self.chunks[-1]

    def wait_for_reason(self, text):
        def found():
            return next((status for status in self.status[-3:] if text in status.reason), None)

        return self.probe.wait_for(found, 90.0, f"a status with {text!r}")

    def close(self):
        self.node.__exit__()
        self.probe.__exit__()


@pytest.fixture(scope="module")
def rig(ros, robot, checkpoint):
    """One process for every test that leaves it producing chunks."""
    pose = np.clip(np.zeros(robot.size), robot.position_min + 0.2, robot.position_max - 0.2)
    rig = Rig(ros, robot, pose, checkpoint)
    try:
        rig.wait_for_chunks()
        yield rig
    finally:
        rig.close()


def stamp_ns(message):
    return message.header.stamp.sec * 10**9 + message.header.stamp.nanosec


def test_a_chunk_is_a_whole_prediction_stamped_by_its_head_image(rig, robot):
    from depthvla_control.chunk import check_chunk
    from depthvla_control.ros.messages import chunk_from_message

    rig.wait_for_chunks(3)
    messages = rig.chunks[-3:]
    for message in messages:
        chunk = chunk_from_message(message, robot)
        assert chunk.positions.shape == (16, robot.size) and check_chunk(chunk, robot) is None
        assert abs(chunk.period_ns * 1e-9 - robot.period_s) < 1e-6
        assert message.instruction == INSTRUCTION and message.model_id.startswith("tiny")
        assert 0 < message.inference_time.nanosec <= message.total_time.nanosec + message.total_time.sec * 10**9
    assert np.all(np.diff([message.sequence for message in messages]) == 1)
    assert np.all(np.diff([stamp_ns(message) for message in messages]) > 0)
    assert rig.status[-1].producing or rig.wait_for_reason("").producing


def test_a_camera_that_stops_stops_the_chunks_and_is_named(rig):
    rig.wait_for_chunks()
    rig.robot.silent.add("wrist_left")
    stopped = time.monotonic()
    status = rig.wait_for_reason("camera wrist_left")
    assert not status.producing
    last = rig.chunks.times_s[-1] - stopped
    time.sleep(0.5)
    assert rig.chunks.times_s[-1] - stopped == last < 1.0
    assert "limit 0.250 s" in rig.wait_for_reason("old").reason
    rig.robot.silent.clear()
    rig.wait_for_chunks(2)
    rig.probe.wait_for(lambda: rig.status[-1].producing, what="the status to recover")
    assert rig.status[-1].observations_refused > 0


def test_joints_with_the_names_of_another_arm_stop_the_chunks(rig, robot):
    rig.wait_for_chunks()
    left, right = robot.limbs
    rig.robot.names[left.topics.arm_feedback] = list(right.joints)
    assert "names are ['right_arm_joint1'" in rig.wait_for_reason("arm left").reason
    rig.robot.names[left.topics.arm_feedback] = list(left.joints)
    rig.wait_for_chunks(2)
    rig.robot.names.clear()


def test_a_camera_that_stops_is_reported_soon_after_its_limit(rig):
    rig.wait_for_chunks()
    stopped = time.monotonic()
    rig.robot.silent.update(rig.robot._images)  # no frame wakes the loop any more

    def ages():
        reasons = [status.reason for status in rig.status.since(stopped)]
        return [float(found[1]) for reason in reasons if (found := re.search(r"([\d.]+) s old", reason))]

    rig.probe.wait_for(ages, what="a camera's age")
    assert 0.25 <= ages()[0] < 1.5  # to three digits; the machine may be busy
    rig.robot.silent.clear()
    rig.wait_for_chunks()


@pytest.mark.parametrize(("how", "text"), [("still", "the same image for"), ("stuck", "the same stamp")])
def test_a_frozen_camera_stops_the_chunks_and_is_told_from_a_stopped_one(rig, how, text):
    rig.wait_for_chunks()
    getattr(rig.robot, how).add("wrist_right")
    status = rig.wait_for_reason(text)
    assert not status.producing and status.reason.startswith("camera wrist_right is frozen")
    count = len(rig.chunks)
    time.sleep(0.5)
    assert len(rig.chunks) == count
    getattr(rig.robot, how).clear()
    rig.wait_for_chunks(2)
    rig.probe.wait_for(lambda: rig.status[-1].producing, what="the status to recover")


def diagnostics(probe, name):
    """Values of the node's next diagnostics; a level other than OK is an error."""
    from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus

    heard = probe.listen(DiagnosticArray, "/diagnostics")

    def found():
        own = [status for message in heard for status in message.status if status.name.startswith(name)]
        return own[-1] if own else None

    status = probe.wait_for(found, what="diagnostics")
    assert status.level == DiagnosticStatus.OK
    return {item.key: item.value for item in status.values}


def test_a_chunk_continues_the_executors_plan(ros, rig, robot, home, checkpoint):
    from depthvla_msgs.msg import ActionChunk
    from depthvla_msgs.msg import Plan as PlanMessage

    from depthvla_control.execution_plan import Plan
    from depthvla_control.ros import qos
    from depthvla_control.ros.messages import chunk_from_message, plan_to_message

    name, probe = "continuing_policy_node", rig.probe
    parameters = {"autostart": True, "model": str(checkpoint), "instruction": "lift", "realtime_chunking": "guided"}
    publisher = probe.publisher(PlanMessage, f"/{name}/plan", qos.chunks())
    chunks = probe.listen(ActionChunk, f"/{name}/action_chunk", qos.chunks())
    with ros.NodeProcess(MODULE, parameters, remappings={"__node": name}) as node:
        probe.wait_for(lambda: chunks, 90.0, "a chunk")
        assert diagnostics(probe, name)["continued chunks"] == "0"
        motion = home + np.linspace(0.0, 0.3, 16)[:, None]
        plans = []

        def send():
            newest = chunk_from_message(chunks[-1], robot)
            plans.append(Plan(newest.stamp_ns, newest.sequence, newest.period_ns, 200_000_000, motion))
            publisher.publish(plan_to_message(plans[-1], robot))

        def follows(chunk, plan):
            expected = plan.continuation(chunk.stamp_ns, period_ns=chunk.period_ns, horizon=16)
            return (
                expected is not None
                and np.allclose(chunk.positions[: expected.delay], expected.committed[: expected.delay], atol=1e-3)
                and expected.delay == 4
            )

        def continued():
            made = [chunk_from_message(message, robot) for message in list(chunks)]
            return any(follows(chunk, plan) for chunk in made for plan in list(plans))

        timer = probe.every(0.3, send)
        probe.wait_for(continued, what="a chunk that continues")
        timer.cancel()
        wrong = plan_to_message(plans[-1], robot)
        wrong.left_arm, wrong.right_arm = wrong.right_arm, wrong.left_arm
        publisher.publish(wrong)
        node.wait_for_output("refused: plan")
        values = diagnostics(probe, name)
        assert int(values["continued chunks"]) >= 1 and values["refused plan: wrong joints"] == "1"


def test_the_instruction_can_be_changed_and_not_emptied(rig):
    from depthvla_msgs.srv import SetInstruction

    service = f"{NODE}/set_instruction"
    answer = rig.probe.call(SetInstruction, service, SetInstruction.Request(instruction="  "))
    assert not answer.success and "empty" in answer.message
    assert rig.wait_for_chunks().instruction == INSTRUCTION
    assert rig.probe.call(SetInstruction, service, SetInstruction.Request(instruction="push the block")).success
    rig.probe.wait_for(lambda: rig.chunks[-1].instruction == "push the block", what="the new instruction")
    assert rig.probe.call(SetInstruction, service, SetInstruction.Request(instruction=INSTRUCTION)).success


def test_depth_is_published_while_somebody_listens(rig, robot):
    from sensor_msgs.msg import CameraInfo, Image

    camera = robot.camera("wrist_right")
    before = len(rig.chunks)
    image = rig.probe.listen(Image, f"{NODE}/depth/wrist_right/image")
    colour = rig.probe.listen(Image, f"{NODE}/depth/wrist_right/image_colour")
    info = rig.probe.listen(CameraInfo, f"{NODE}/depth/wrist_right/camera_info")
    rig.probe.wait_for(lambda: len(image) > 2 and len(colour) > 2 and len(info) > 2, what="depth of three chunks")
    depth = image[-1]
    assert (depth.encoding, depth.header.frame_id) == ("32FC1", camera.frame_id)
    assert stamp_ns(depth) in {stamp_ns(chunk) for chunk in rig.chunks[before:]} | {stamp_ns(rig.chunks[-1])}
    values = np.frombuffer(depth.data, np.float32).reshape(depth.height, depth.width)
    assert np.all(values[np.isfinite(values)] > 0.0) and np.isfinite(values).any()
    assert (colour[-1].encoding, colour[-1].height) == ("rgb8", depth.height)
    # The tiny model crops the central square, so its depth has the focal length of that square.
    assert info[-1].width == depth.width
    np.testing.assert_allclose(info[-1].k[0], K[0, 0] * depth.width / HEIGHT)


def test_it_reports_on_diagnostics(rig):
    values = diagnostics(rig.probe, "policy_node")
    assert int(values["chunks"]) > 0 and float(values["latency p50 [ms]"]) > 0.0


def test_lifecycle_stops_and_starts_the_chunks(rig):
    rig.wait_for_chunks()
    assert rig.probe.transition(NODE, "deactivate")
    rig.probe.wait_for(lambda: rig.status[-1].reason == "deactivated", what="the status")
    assert not rig.status[-1].producing
    time.sleep(0.2)
    count = len(rig.chunks)
    time.sleep(0.5)
    assert len(rig.chunks) == count
    assert rig.probe.transition(NODE, "activate")
    assert rig.wait_for_chunks().sequence <= 3
    assert not rig.probe.transition(NODE, "configure")
    rig.wait_for_chunks()


def test_raw_images_and_a_wrong_encoding(ros, robot, home, checkpoint):
    encodings = {"head": "rgb8", "wrist_left": "bgr8", "wrist_right": "mono8"}
    parameters = {}
    for name in encodings:
        parameters[f"cameras.{name}.topic"] = f"/raw/{name}"
        parameters[f"cameras.{name}.transport"] = "raw"
    rig = Rig(ros, robot, home, checkpoint, encodings, "raw_policy_node", **parameters)
    try:
        status = rig.wait_for_reason("mono8")
        assert "/raw/wrist_right" in status.reason and "rgb8, bgr8" in status.reason
        assert len(rig.chunks) == 0
        rig.robot._images["wrist_right"][1].encoding = "rgb8"
        rig.wait_for_chunks()
        assert rig.node.stop(signal.SIGTERM) == 0
        assert "Traceback" not in rig.node.output()
    finally:
        rig.close()


def test_without_a_model_there_is_no_start(ros, tmp_path):
    with ros.NodeProcess(MODULE, {"autostart": True, "model": str(tmp_path / "nowhere")}) as node:
        assert node.wait(90.0) == 1
        assert "nowhere" in node.output() and "Traceback" not in node.output()


def test_a_broken_checkpoint_leaves_the_node_unconfigured(ros, checkpoint, tmp_path):
    import shutil

    broken = shutil.copytree(checkpoint, tmp_path / "broken")
    (broken / "config.json").write_text("{}")
    name = "broken_policy_node"
    process = ros.NodeProcess(MODULE, {"model": str(broken)}, remappings={"__node": name})
    with ros.Probe() as probe, process as node:
        assert not probe.transition(f"/{name}", "configure")
        assert probe.state(f"/{name}") == "unconfigured"
        assert "config.json" in node.output()
        assert node.stop() == 0


@pytest.mark.parametrize(
    ("parameters", "named"),
    [
        ({"cameras.head.transport": "theora"}, ["cameras.head.transport", "theora", "compressed", "raw"]),
        ({"cameras.chest.topic": "/x"}, ["cameras.chest.topic"]),
        ({"max_rate_hz": -1.0}, ["max_rate_hz", "-1.0", "0.0 to 100.0"]),
        ({"realtime_chunking": "ensemble"}, ["realtime_chunking", "ensemble", "off", "guided", "trained"]),
        ({"camera_frozen_after_s": -1.0}, ["camera_frozen_after_s", "-1.0", "0.0 to 5.0"]),
        ({"depth_colour_near_m": 3.0}, ["depth_colour_near_m", "3.0", "2.0"]),
    ],
)
def test_a_wrong_parameter_ends_the_start_and_is_named(ros, tmp_path, parameters, named):
    with ros.NodeProcess(MODULE, {"autostart": True, "model": str(tmp_path), **parameters}) as node:
        assert node.wait() == 1
        for text in named:
            assert text in node.output()


def test_its_parameter_file_is_accepted(ros):

    file = Path(__file__).parents[1] / "config" / "policy_node.param.yaml"
    with ros.NodeProcess(MODULE, {"autostart": True}, params_file=file) as node:
        assert node.wait() == 1
        assert "parameter 'model' is empty" in node.output()


def test_images_that_lost_a_packet_stop_the_chunks_and_are_counted_for_their_camera(rig):
    from diagnostic_msgs.msg import DiagnosticArray

    from depthvla_policy.policy.observation_buffer import camera_stream

    rig.wait_for_chunks()
    message = rig.robot._images["wrist_left"][1]
    whole = message.data
    message.data = array("B", whole[: len(whole) // 2]) + whole[len(whole) // 2 + 300 :]
    status = rig.wait_for_reason("not a whole JPEG")
    assert not status.producing and "wrist_left" in status.reason
    heard, stream = rig.probe.listen(DiagnosticArray, "/diagnostics"), camera_stream("wrist_left")

    def counted():
        values = {item.key: item.value for status in heard[-1].status for item in status.values} if heard else {}
        return int(values.get(f"refused {stream}: damaged image", 0)) > 1

    rig.probe.wait_for(counted, 20.0, "a count of damaged images")
    message.data = whole
    rig.wait_for_chunks()
