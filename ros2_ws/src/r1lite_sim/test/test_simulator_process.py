"""The node's process: its lifecycle, its end and its parameters. Apart from the tests of the running node, because two
simulators would speak on the same topics.
"""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

NODE = "/simulator_node"
MODULE = "r1lite_sim.nodes.simulator_node"
PARAMETERS = {"image_width": 64, "image_height": 36}
PARAMETER_FILE = Path(__file__).parents[1] / "config" / "simulator_node.param.yaml"


def test_it_goes_through_its_lifecycle_and_ends_cleanly_on_sigterm(ros, robot):
    from rclpy.qos import qos_profile_sensor_data
    from sensor_msgs.msg import JointState

    parameters = {**PARAMETERS, "arm_feedback_values": 7}
    with ros.NodeProcess(MODULE, parameters) as node, ros.Probe() as probe:
        arm = probe.listen(JointState, robot.limb("left").topics.arm_feedback, qos_profile_sensor_data)
        for label in ("configure", "activate"):
            assert probe.transition(NODE, label), node.output()
        probe.wait_for(lambda: arm, what="feedback")
        assert len(arm[-1].position) == 7
        assert probe.transition(NODE, "deactivate")
        count = len(arm)
        assert probe.state(NODE) == "inactive"
        assert probe.transition(NODE, "activate")  # a new worker thread, and with it a new GL context
        probe.wait_for(lambda: len(arm) > count + 50, what="feedback after a second activation")
        for label in ("deactivate", "cleanup", "configure", "activate"):
            assert probe.transition(NODE, label), node.output()
        assert node.stop(signal.SIGTERM) == 0, node.output()
        assert "Traceback" not in node.output()


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"image_width": 9000}, "parameter 'image_width' is 9000; allowed: an integer from 16 to 1280"),
        ({"task": "juggle"}, "parameter 'task' is 'juggle'; allowed: 'lift'"),
        ({"colour": "pink"}, "parameter 'colour' is 'pink'"),
        ({"robot_file": "/nowhere/robot.yaml"}, "/nowhere/robot.yaml does not exist"),
        ({"shutter": 3}, "unknown parameters ['shutter']"),
    ],
)
def test_a_wrong_parameter_is_named_and_ends_the_process(ros, parameters, message):
    with ros.NodeProcess(MODULE, {"autostart": True, **parameters}) as node:
        assert node.wait() == 1
        assert message in node.output()


def test_the_parameter_file_is_accepted(ros):
    with ros.NodeProcess(MODULE, {"autostart": True}, params_file=PARAMETER_FILE) as node:
        node.wait_for_output("seed 0")
        assert node.stop(signal.SIGINT) == 0, node.output()
