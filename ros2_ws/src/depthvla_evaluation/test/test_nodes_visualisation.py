from __future__ import annotations

import numpy as np
import pytest

from depthvla_control.arbiter import Mode
from depthvla_control.chunk import Chunk
from depthvla_control.execution_plan import Plan
from r1lite_description.kinematics import Kinematics
from r1lite_description.share import urdf_file

MODULE = "depthvla_evaluation.nodes.visualisation_node"
NODE = "/visualisation_node"
PERIOD_NS = 66_666_667
XACRO = urdf_file()
TORSO = {"torso_joint1": -0.657, "torso_joint2": 1.516, "torso_joint3": 0.845}


@pytest.fixture(scope="module")
def urdf():
    return pytest.importorskip("xacro", reason="xacro is not installed").process_file(str(XACRO)).toxml()


class Rig:
    """The node in a process of its own, what it is told, and what it draws."""

    def __init__(self, ros, robot, home, **parameters):
        from depthvla_msgs.msg import ActionChunk, ExecutorStatus, PolicyStatus
        from depthvla_msgs.msg import Plan as PlanMessage
        from diagnostic_msgs.msg import DiagnosticArray
        from sensor_msgs.msg import JointState
        from std_msgs.msg import String
        from visualization_msgs.msg import MarkerArray

        from depthvla_control.ros import qos

        self.robot, self.home, self.sequence = robot, home, 0
        self.probe = ros.Probe()
        self.paths = self.probe.listen(MarkerArray, f"{NODE}/paths")
        self.texts = self.probe.listen(MarkerArray, f"{NODE}/status_text")
        self.diagnostics = self.probe.listen(DiagnosticArray, "/diagnostics")
        self.chunks = self.probe.publisher(ActionChunk, f"{NODE}/action_chunk", qos.chunks())
        self.plans = self.probe.publisher(PlanMessage, f"{NODE}/plan", qos.chunks(0.0))
        self.executor = self.probe.publisher(ExecutorStatus, f"{NODE}/executor_status", qos.status())
        self.policy = self.probe.publisher(PolicyStatus, f"{NODE}/policy_status", qos.status())
        self.descriptions = self.probe.publisher(String, "/robot_description", qos.status())
        self.joints = self.probe.publisher(JointState, "/joint_states")
        self.node = ros.NodeProcess(MODULE, {"autostart": True, **parameters})
        self.probe.every(0.05, self._speak)
        self.mode = Mode.POLICY

    def _speak(self):
        from depthvla_msgs.msg import ExecutorStatus
        from sensor_msgs.msg import JointState

        status = ExecutorStatus(mode=int(self.mode), cause="told to")
        status.header.stamp = self.probe.node.get_clock().now().to_msg()
        self.executor.publish(status)
        self.joints.publish(JointState(name=list(TORSO), position=list(TORSO.values())))

    def chunk(self, **changes):
        from depthvla_control.ros.messages import chunk_to_message

        self.sequence += 1
        positions = self.home + 0.01 * np.arange(16)[:, None]
        chunk = Chunk(self.probe.now_ns(), self.sequence, PERIOD_NS, positions)
        message = chunk_to_message(chunk, self.robot)
        for name, value in changes.items():
            setattr(message, name, value)
        self.chunks.publish(message)
        return chunk

    def plan(self):
        from depthvla_control.ros.messages import plan_to_message

        plan = Plan(self.probe.now_ns(), self.sequence, PERIOD_NS, 0, np.tile(self.home, (16, 1)))
        self.plans.publish(plan_to_message(plan, self.robot))

    def namespaces(self):
        """What the newest markers are of."""
        return {marker.ns for marker in self.paths[-1].markers} if self.paths else set()

    def line(self, namespace):
        from visualization_msgs.msg import Marker

        for marker in self.paths[-1].markers:
            if marker.ns == namespace and marker.type == Marker.LINE_STRIP:
                return np.array([[point.x, point.y, point.z] for point in marker.points])
        return None

    def caption(self):
        return self.texts[-1].markers[0].text if self.texts else ""

    def wait(self, condition, what):
        return self.probe.wait_for(condition, what=f"{what}; output: {self.node.output()}")

    def health(self, text):
        def said():
            found = [status for array in self.diagnostics for status in array.status if NODE[1:] in status.name]
            return next((status for status in found if text in status.message), None)

        return self.wait(said, f"{text!r} in the health")

    def keep_sending(self, namespaces):
        """Chunks and plans until the node draws exactly these."""

        def seen():
            self.chunk()
            self.plan()
            return self.namespaces() == namespaces

        self.wait(seen, f"markers {namespaces}, not {self.namespaces()}")

    def close(self):
        self.node.__exit__()
        self.probe.__exit__()


@pytest.fixture
def rig(ros, robot, home):
    started = []

    def start(**parameters):
        started.append(Rig(ros, robot, home, **parameters))
        return started[-1]

    yield start
    for each in started:
        each.close()


def test_chunks_become_paths_in_the_colour_of_who_is_in_command_and_deactivation_clears_them(rig, urdf):
    from depthvla_msgs.msg import PolicyStatus
    from visualization_msgs.msg import Marker

    rig = rig(urdf_file=str(XACRO))
    rig.keep_sending({"chunk left", "chunk right", "plan left", "plan right"})
    limb = rig.robot.limb("left")
    pose = Kinematics(urdf).poses(
        ["left_grasp_frame"], {**TORSO, **dict(zip(limb.joints, rig.home[limb.arm], strict=True))}
    )["left_grasp_frame"]
    rig.wait(lambda: rig.line("chunk left") is not None, "a line")
    np.testing.assert_allclose(rig.line("chunk left")[0], pose[:3, 3], atol=1e-9)
    assert {marker.header.frame_id for marker in rig.paths[-1].markers} == {"base_link"}

    rig.policy.publish(PolicyStatus(producing=True, instruction="stack the blocks"))
    rig.wait(lambda: rig.caption() == 'POLICY: told to\n"stack the blocks"', "the caption")
    rig.mode = Mode.TELEOP
    rig.keep_sending({"shadow left", "shadow right"})

    withdrawn = PolicyStatus(withdrawn=True, reason="camera head is old")
    withdrawn.header.stamp = rig.probe.node.get_clock().now().to_msg()
    rig.policy.publish(withdrawn)
    rig.wait(lambda: rig.namespaces() == set(), "no path of what was withdrawn")
    rig.wait(lambda: "camera head is old" in rig.caption(), "why it was withdrawn")

    assert rig.probe.transition(NODE, "deactivate")
    for heard in (rig.paths, rig.texts):
        rig.wait(lambda heard=heard: heard[-1].markers[0].action == Marker.DELETEALL, "the end of all markers")


def test_a_chunk_that_is_none_is_refused_and_named(rig, urdf):
    rig = rig(urdf_file=str(XACRO))
    rig.wait(lambda: rig.paths, "a node that draws")
    rig.chunk(horizon=3)
    status = rig.health("16 points; expected 3")
    assert rig.namespaces() == set()
    assert {item.key: item.value for item in status.values}["refused chunks and plans"] == "1"


def test_on_a_robot_nothing_is_drawn_before_its_description_and_a_foreign_one_is_named(rig, urdf):
    from std_msgs.msg import String

    rig = rig(urdf_file=str(XACRO), await_description=True)
    rig.health("no /robot_description has come yet")
    # The robot's own description has our links, but not the frames that we defined on them.
    head, tail = urdf.split('<link name="left_grasp_frame"/>')
    rig.descriptions.publish(String(data=head + tail[tail.index("</joint>") + len("</joint>") :]))
    rig.keep_sending({"chunk left", "chunk right", "plan left", "plan right"})
    foreign = urdf
    for ours, theirs in (("arm_link6", "flange"), ("gripper_link", "hand"), ("grasp_frame", "fingertips")):
        foreign = foreign.replace(f"right_{ours}", theirs)
    rig.descriptions.publish(String(data=foreign))
    status = rig.health("lacks links ['right_grasp_frame']")
    assert "fingertips" in status.message and "left_gripper_link" in status.message
    count = len(rig.paths)
    rig.descriptions.publish(String(data=urdf))
    rig.wait(lambda: len(rig.paths) > count, "markers again")


def test_a_node_without_any_description_does_not_start(ros):
    with ros.NodeProcess(MODULE, {"autostart": True}) as node:
        assert node.wait() == 1
        assert "urdf_file is empty" in node.output()
