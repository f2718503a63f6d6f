"""The robot description that a node computes poses with: /robot_description, or a file until one comes."""

from __future__ import annotations

from rclpy.node import Node
from std_msgs.msg import String

from depthvla_control.ros import qos
from depthvla_control.ros.parameters import Parameter
from depthvla_evaluation.viewer.paths import kinematics_of
from r1lite_description.kinematics import Kinematics, read_urdf
from r1lite_description.robot import Robot

TOPIC = "/robot_description"
PARAMETERS = (
    Parameter("urdf_file", "", "URDF or xacro of the robot; frames that /robot_description lacks are taken from it."),
    Parameter(
        "await_description",
        False,
        "Draw nothing before a /robot_description has come, as on a robot that publishes its own; otherwise urdf_file"
        " serves until then.",
    ),
)


class Description:
    """`kinematics` is what is known of the robot, or None; `problem` says why, else it is empty."""

    def __init__(self, node: Node, robot: Robot) -> None:
        """Takes `PARAMETERS` from the node. Raises ValueError or OSError for a `urdf_file` that cannot be used."""
        self._node, self._robot, self.kinematics = node, robot, None
        urdf_file = node.get_parameter("urdf_file").value
        waiting = node.get_parameter("await_description").value
        if not urdf_file and not waiting:
            raise ValueError("urdf_file is empty; allowed: a URDF or xacro, or await_description true")
        self.urdf = read_urdf(urdf_file) if urdf_file else ""
        self._frames = Kinematics(self.urdf) if self.urdf else None
        self.source, self.problem = TOPIC, f"no {TOPIC} has come yet"
        if not waiting:
            self.source, self.problem = urdf_file, ""
            self.kinematics, _ = kinematics_of(robot, self.urdf)
        node.create_subscription(String, TOPIC, self._take, qos.status())

    def _take(self, message: String) -> None:
        self.source, self.problem = TOPIC, ""
        try:
            self.kinematics, added = kinematics_of(self._robot, message.data, self._frames)
        except ValueError as error:
            # Poses of another robot would be wrong ones.
            self.kinematics, self.problem = None, f"{TOPIC} cannot be used: {error}"
            self._node.get_logger().error(self.problem)
            return
        self._node.get_logger().info(f"poses follow {TOPIC}{', with ' + ', '.join(added) if added else ''}")
