"""The robot's topics as the chunk executor has them: commands and shadow commands out, feedback and leader arms in."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from rclpy.lifecycle import LifecyclePublisher
from sensor_msgs.msg import JointState

from depthvla_control.executor import ChunkExecutor, Command
from depthvla_control.ros import qos
from depthvla_control.ros.messages import doubles, nanoseconds, time_message
from depthvla_control.ros.polling import PolledSubscription
from depthvla_control.ros.runtime import ManagedNode
from r1lite_description.robot import Limb, Robot

LEADER_DEPTH = 16


@dataclass(frozen=True)
class _Limb:
    limb: Limb
    command: tuple[LifecyclePublisher, LifecyclePublisher]  # of the arm, of the gripper
    shadow: tuple[LifecyclePublisher, LifecyclePublisher]
    arm: PolledSubscription
    gripper: PolledSubscription
    leader_arm: PolledSubscription | None
    leader_gripper: PolledSubscription | None


class RobotTopics:
    """QoS and the leaders' topics are the node's parameters."""

    def __init__(self, node: ManagedNode, robot: Robot) -> None:
        command = qos.stream(node.value("command_reliability"), 1)
        feedback = qos.stream(node.value("sensor_reliability"), 1)
        leader = qos.stream("best_effort", LEADER_DEPTH)

        def publishers(limb: Limb, prefix: str) -> tuple[LifecyclePublisher, ...]:
            topics = (limb.topics.arm_command, limb.topics.gripper_command)
            return tuple(node.create_lifecycle_publisher(JointState, prefix + topic, command) for topic in topics)

        def leader_subscription(parameter: str) -> PolledSubscription | None:
            topic = node.value(parameter)
            return PolledSubscription(node, JointState, topic, leader) if topic else None

        self._limbs = [
            _Limb(
                limb,
                publishers(limb, ""),
                publishers(limb, "~/shadow"),
                PolledSubscription(node, JointState, limb.topics.arm_feedback, feedback),
                PolledSubscription(node, JointState, limb.topics.gripper_feedback, feedback),
                leader_subscription(f"leader.{limb.name}.arm_topic"),
                leader_subscription(f"leader.{limb.name}.gripper_topic"),
            )
            for limb in robot.limbs
        ]
        self.command_publishers = [publisher for item in self._limbs for publisher in item.command]
        self.command_topics = [
            topic for limb in robot.limbs for topic in (limb.topics.arm_command, limb.topics.gripper_command)
        ]
        self.feedback_topics = [
            topic for limb in robot.limbs for topic in (limb.topics.arm_feedback, limb.topics.gripper_feedback)
        ]

    def read(self, executor: ChunkExecutor, now_ns: int) -> None:
        """Hands over what came since the last call: the newest feedback, and all of a leader arm, for its velocity."""
        for item in self._limbs:
            name = item.limb.name
            if message := item.arm.newest():
                executor.feedback_arm(name, message.position, now_ns, message.name)
            if message := item.gripper.newest():
                executor.feedback_gripper(name, message.position, now_ns, message.name)
            for message in item.leader_arm.drain() if item.leader_arm else ():
                executor.leader_arm(name, nanoseconds(message.header.stamp), message.position, now_ns, message.name)
            if item.leader_gripper and (message := item.leader_gripper.newest()):
                executor.leader_gripper(name, message.position, message.name)

    def discard(self) -> None:
        """Drops what waits in the queues, which is of unknown age."""
        for item in self._limbs:
            for subscription in (item.arm, item.gripper, item.leader_arm, item.leader_gripper):
                if subscription:
                    subscription.newest()

    def publish_command(self, command: Command, now_ns: int) -> int:
        """How many messages were sent."""
        for item in self._limbs:
            arm, gripper = item.command
            message = _joint_state(item.limb.joints, command.positions[item.limb.arm], now_ns)
            message.velocity = doubles(command.velocity_cap[item.limb.arm])
            arm.publish(message)
            gripper.publish(_gripper_state(item.limb, command.positions, now_ns))
        return len(self.command_publishers)

    def publish_shadow(self, positions: np.ndarray, now_ns: int) -> None:
        """Only to those who listen."""
        for item in self._limbs:
            arm, gripper = item.shadow
            if arm.get_subscription_count():
                arm.publish(_joint_state(item.limb.joints, positions[item.limb.arm], now_ns))
            if gripper.get_subscription_count():
                gripper.publish(_gripper_state(item.limb, positions, now_ns))


def _gripper_state(limb: Limb, positions: np.ndarray, now_ns: int) -> JointState:
    return _joint_state([limb.gripper], positions[limb.gripper_index : limb.gripper_index + 1], now_ns)


def _joint_state(names, positions: np.ndarray, now_ns: int) -> JointState:
    message = JointState(name=list(names), position=doubles(positions))
    message.header.stamp = time_message(now_ns)
    return message
