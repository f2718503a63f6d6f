"""What the running leader says, over real DDS, with scripted feedback and a scripted executor's mode."""

from __future__ import annotations

import signal
from array import array
from pathlib import Path

import numpy as np
import pytest

NODE = "/leader_node"
MODULE = "r1lite_sim.nodes.leader_node"
HOLD, TELEOP, POLICY = 1, 2, 3
PARAMETER_FILE = Path(__file__).parents[1] / "config" / "leader_node.param.yaml"


class Rig:
    """Feedback at 100 Hz from a resting robot once `feedback` is called, modes, and what the leader arms say."""

    def __init__(self, robot, probe):
        from depthvla_msgs.msg import ModeChange
        from rclpy.qos import qos_profile_sensor_data
        from sensor_msgs.msg import JointState

        from depthvla_control.ros import qos

        self.robot, self.probe, self._JointState, self._ModeChange = robot, probe, JointState, ModeChange
        self.pose = (robot.position_min + robot.position_max) / 2
        self.heard = {
            limb.name: probe.listen(JointState, limb.topics.teleop, qos_profile_sensor_data) for limb in robot.limbs
        }
        self._modes = probe.publisher(ModeChange, "/chunk_executor_node/mode", qos.status())
        self._publishers = []
        for limb in robot.limbs:
            for topic, where in (
                (limb.topics.arm_feedback, limb.arm),
                (limb.topics.gripper_feedback, slice(limb.gripper_index, limb.gripper_index + 1)),
            ):
                self._publishers.append((probe.publisher(JointState, topic, qos.stream("best_effort", 1)), where))

    def feedback(self, streams=4):
        def send():
            for publisher, where in self._publishers[:streams]:
                publisher.publish(self._JointState(name=["x"], position=array("d", self.pose[where])))

        return self.probe.every(0.01, send)

    def mode(self, previous, mode):
        self._modes.publish(self._ModeChange(previous=previous, mode=mode, cause="scripted"))

    def more(self, count=20):
        """Waits for so many new messages of every limb and returns the newest as one pose."""
        before = {name: len(heard) for name, heard in self.heard.items()}
        self.probe.wait_for(
            lambda: all(len(heard) >= before[name] + count for name, heard in self.heard.items()), what="the leader"
        )
        return np.concatenate([heard[-1].position for heard in self.heard.values()])

    def quiet(self):
        count = {name: len(heard) for name, heard in self.heard.items()}
        with pytest.raises(AssertionError):
            self.probe.wait_for(lambda: any(len(heard) > count[name] for name, heard in self.heard.items()), 0.5)


@pytest.fixture
def probe(ros):
    with ros.Probe() as probe:
        yield probe


def test_the_leader_follows_the_arms_until_teleoperation_and_again_after_it(ros, robot, probe):
    rig = Rig(robot, probe)
    with ros.NodeProcess(MODULE, {"autostart": True, "period_s": 0.5}, params_file=PARAMETER_FILE) as node:
        timer = rig.feedback()
        near = rig.more()
        joints = ~robot.gripper_mask
        np.testing.assert_allclose(np.abs(near - rig.pose)[joints], 0.03)
        np.testing.assert_allclose(near[~joints], rig.pose[~joints])
        message = rig.heard["left"][-1]
        assert list(message.name) == ["left_arm"] and len(message.position) == 7 and message.header.stamp.sec > 0

        rig.mode(POLICY, TELEOP)
        probe.wait_for(lambda: np.abs(rig.more(1) - near)[joints].max() > 0.05, what="the leader to move away")
        for heard in rig.heard.values():
            steps = np.diff([message.position[:6] for message in heard], axis=0)
            assert np.abs(steps).max() < 0.1  # also where messages were lost
        rig.mode(TELEOP, HOLD)
        probe.wait_for(lambda: np.abs(rig.more(1) - near).max() < 1e-3, what="the leader to come back")
        timer.cancel()
        assert node.stop(signal.SIGINT) == 0, node.output()
        assert "Traceback" not in node.output()


def test_nothing_is_said_before_all_feedback_nor_while_inactive(ros, robot, probe):
    rig = Rig(robot, probe)
    with ros.NodeProcess(MODULE, {"autostart": True, "values": 6}) as node:
        node.wait_for_output("leader arms of r1lite at 100 Hz, seed 0")
        timer = rig.feedback(streams=3)
        rig.quiet()
        timer.cancel()
        timer = rig.feedback()
        assert rig.more().size == 12
        assert probe.transition(NODE, "deactivate")
        rig.quiet()
        assert probe.transition(NODE, "activate")
        rig.more()
        assert probe.transition(NODE, "deactivate") and probe.transition(NODE, "cleanup"), node.output()
        timer.cancel()
        assert node.stop(signal.SIGTERM) == 0, node.output()


def test_unusable_feedback_is_refused_and_not_followed(ros, robot, probe):
    rig = Rig(robot, probe)
    with ros.NodeProcess(MODULE, {"autostart": True}) as node:
        timer = rig.feedback()
        near = rig.more()
        rig.pose = rig.pose.copy()
        rig.pose[0] = np.nan
        node.wait_for_output("refused: arm left reports a non-finite position")
        np.testing.assert_allclose(rig.more(), near, atol=1e-9)
        timer.cancel()


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"values": 5}, "parameter 'values' is 5; allowed: an integer from 6 to 7"),
        ({"rate_hz": 1000.0}, "parameter 'rate_hz' is 1000.0; allowed: a floating-point number from 10.0 to 500.0"),
        ({"robot_file": "/nowhere/robot.yaml"}, "/nowhere/robot.yaml does not exist"),
    ],
)
def test_a_wrong_parameter_is_named_and_ends_the_process(ros, parameters, message):
    with ros.NodeProcess(MODULE, {"autostart": True, **parameters}) as node:
        assert node.wait() == 1
        assert message in node.output()
