"""What the running node says and obeys, over real DDS."""

from __future__ import annotations

import signal
from array import array

import numpy as np
import pytest

from depthvla_policy.policy.images import decode_jpeg

NODE = "/simulator_node"
MODULE = "r1lite_sim.nodes.simulator_node"
PARAMETERS = {"autostart": True, "seed": 3, "image_width": 64, "image_height": 36}
STREAM_S = 1 / 15


class Watch:
    """The node's process and a probe that hears what the robot says."""

    def __init__(self, ros, robot, probe):
        from depthvla_msgs.msg import TaskProgress
        from diagnostic_msgs.msg import DiagnosticArray
        from rclpy.qos import qos_profile_sensor_data
        from sensor_msgs.msg import CameraInfo, CompressedImage, JointState

        from depthvla_control.ros import qos

        self.ros, self.robot, self.probe = ros, robot, probe
        self.JointState, self.sensor = JointState, qos_profile_sensor_data
        self.limb = robot.limb("right")
        topics = self.limb.topics
        self.arm = probe.listen(JointState, topics.arm_feedback, self.sensor)
        self.gripper = probe.listen(JointState, topics.gripper_feedback, self.sensor)
        self.joints = probe.listen(JointState, "/joint_states", self.sensor)
        self.images = {c.name: probe.listen(CompressedImage, c.topic, self.sensor) for c in robot.cameras}
        self.infos = {c.name: probe.listen(CameraInfo, c.camera_info, self.sensor) for c in robot.cameras}
        self.progress = probe.listen(TaskProgress, f"{NODE}/task_progress", qos.status())
        self.diagnostics = probe.listen(DiagnosticArray, "/diagnostics")
        self.arm_command = probe.publisher(JointState, topics.arm_command, qos.stream("reliable", 1))
        self.gripper_command = probe.publisher(JointState, topics.gripper_command, qos.stream("reliable", 1))
        probe.wait_for(lambda: self.arm and self.images["head"], what="the simulator's feedback and head image")
        probe.wait_for(
            lambda: self.arm_command.get_subscription_count() and self.gripper_command.get_subscription_count(),
            what="the simulator's command subscriptions",
        )

    def pose(self):
        return np.array(self.arm[-1].position)

    def health(self):
        """Newest values of the simulator's diagnostics."""
        statuses = [s for array in self.diagnostics for s in array.status if s.name.startswith("simulator_node")]
        return {item.key: item.value for item in statuses[-1].values} if statuses else {}

    def reset(self, seed):
        from depthvla_msgs.srv import ResetScene

        response = self.probe.call(ResetScene, f"{NODE}/reset", ResetScene.Request(seed=seed))
        heard = len(self.arm)  # feedback of the former scene may still be under way
        self.probe.wait_for(lambda: len(self.arm) > heard + 20, what="feedback after the reset")
        return response

    def stream(self, publisher, position, velocity=()):
        message = self.JointState(position=array("d", position), velocity=array("d", velocity))
        return self.probe.every(STREAM_S, lambda: publisher.publish(message))


@pytest.fixture(scope="module")
def watch(ros, robot):
    with ros.NodeProcess(MODULE, PARAMETERS) as node, ros.Probe() as probe:
        node.wait_for_output("seed 3")
        yield Watch(ros, robot, probe)
        assert node.stop(signal.SIGINT) == 0, node.output()
        assert "Traceback" not in node.output()


def test_feedback_carries_placeholder_names_and_measured_values(watch):
    assert list(watch.arm[-1].name) == ["right_arm"]
    assert len(watch.arm[-1].position) == len(watch.arm[-1].velocity) == 6
    assert len(watch.gripper[-1].position) == 1
    assert 80 <= watch.gripper[-1].position[0] <= 101
    stamps = [message.header.stamp.sec + message.header.stamp.nanosec * 1e-9 for message in watch.arm]
    assert np.all(np.diff(stamps) > 0)


def test_joint_states_name_every_joint(watch):
    watch.probe.wait_for(lambda: watch.joints, what="joint states")
    assert len(watch.joints[-1].name) == len(watch.joints[-1].position) == 25
    assert "torso_joint3" in watch.joints[-1].name


def test_each_camera_sends_jpeg_images_with_its_matrix_and_frame(watch):
    for camera in watch.robot.cameras:
        watch.probe.wait_for(lambda name=camera.name: watch.images[name] and watch.infos[name], what=camera.name)
        image, info = watch.images[camera.name][-1], watch.infos[camera.name][-1]
        assert image.format == "jpeg"
        assert image.header.frame_id == info.header.frame_id == camera.frame_id
        assert decode_jpeg(image.data).shape == (info.height, info.width, 3) == (36, 64, 3)
        assert info.k[0] == info.k[4] > 20
        assert (info.k[2], info.k[5]) == (31.5, 17.5)


def test_depth_is_sent_while_somebody_listens(watch):
    from sensor_msgs.msg import CameraInfo, Image

    depth = watch.probe.listen(Image, f"{NODE}/depth/head/image")
    info = watch.probe.listen(CameraInfo, f"{NODE}/depth/head/camera_info")
    watch.probe.wait_for(lambda: depth and info, what="depth")
    assert (depth[0].encoding, depth[0].height, depth[0].width) == ("32FC1", 36, 64)
    metres = np.frombuffer(depth[0].data, dtype=np.float32)
    assert 0.1 < metres.min() < metres.max() < 4
    stamps = {(image.header.stamp.sec, image.header.stamp.nanosec) for image in watch.images["head"]}
    assert (depth[0].header.stamp.sec, depth[0].header.stamp.nanosec) in stamps


def test_a_command_moves_the_arm_until_the_stream_stops(watch):
    watch.reset(3)
    start = watch.pose()
    target = start + [1.0, 0, 0, 0, 0, 0]
    timer = watch.stream(watch.arm_command, target, [0.2] * 6)
    watch.probe.wait_for(lambda: watch.pose()[0] > start[0] + 0.1, what="the arm to move")
    timer.cancel()
    watch.probe.wait_for(
        lambda: len(watch.arm) > 100 and np.ptp([m.position[0] for m in watch.arm[-50:]]) < 1e-3,
        what="the arm to stop",
    )
    assert watch.pose()[0] < start[0] + 0.5
    np.testing.assert_allclose(watch.pose()[1:], start[1:], atol=0.02)


def test_a_gripper_command_closes_the_gripper(watch):
    timer = watch.stream(watch.gripper_command, [10.0])
    watch.probe.wait_for(lambda: watch.gripper[-1].position[0] < 12, what="the gripper to close")
    timer.cancel()


def test_bad_commands_are_refused_counted_and_move_nothing(watch):
    watch.reset(3)
    watch.probe.wait_for(watch.health, what="diagnostics")
    before, start = int(watch.health()["commands_refused"]), watch.pose()
    good = list(start + 0.3)
    bad = (
        (watch.arm_command, good[:5], []),
        (watch.arm_command, [*good[:5], float("nan")], []),
        (watch.arm_command, [9.0, *good[1:]], []),
        (watch.arm_command, good, [-1.0] * 6),
        (watch.gripper_command, [500.0], []),
        (watch.gripper_command, [], []),
        (watch.arm_command, good, [], watch.robot.limb("left").joints),
        (watch.gripper_command, [50.0], [], [watch.robot.limb("left").gripper]),
    )
    for count, (publisher, position, velocity, *names) in enumerate(bad, start=1):
        message = watch.JointState(position=array("d", position), velocity=array("d", velocity))
        message.name = list(names[0]) if names else []
        publisher.publish(message)
        watch.probe.wait_for(
            lambda count=count: int(watch.health()["commands_refused"]) == before + count,
            what=f"refusal of {position} with caps {velocity}",
        )
    np.testing.assert_allclose(watch.pose(), start, atol=2e-3)


def test_a_reset_stages_the_asked_scene_or_the_next_one(watch):
    response = watch.reset(40)
    assert response.success, response.message
    assert response.instruction == "lift the red block with the right arm"
    watch.probe.wait_for(lambda: watch.progress[-1].seed == 40, what="progress of seed 40")
    assert watch.progress[-1].progress == 0.0
    assert not watch.progress[-1].success
    assert watch.reset(-1).message == "seed 41"


def test_a_reset_to_a_seed_that_is_none_is_refused(watch):
    response = watch.reset(-7)
    assert not response.success
    assert response.message == "seed is -7; allowed: -1 or more"


def test_diagnostics_tell_the_real_time_factor(watch):
    watch.probe.wait_for(lambda: "real_time_factor" in watch.health(), what="diagnostics")
    assert 0 < float(watch.health()["real_time_factor"]) < 1.5


def test_transforms_lead_to_every_camera(watch):
    tf2_msgs = pytest.importorskip("tf2_msgs.msg", reason="tf2_msgs is not installed")
    from depthvla_control.ros import qos

    static = watch.probe.listen(tf2_msgs.TFMessage, "/tf_static", qos.status())
    moving = watch.probe.listen(tf2_msgs.TFMessage, "/tf")
    watch.probe.wait_for(lambda: static and moving, what="transforms")
    parents = {item.child_frame_id: item.header.frame_id for item in (*static[-1].transforms, *moving[-1].transforms)}
    for camera in watch.robot.cameras:
        frame = camera.frame_id
        while frame != "base_link":
            frame = parents[frame]
