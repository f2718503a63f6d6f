"""The scripted teleoperator as a lifecycle node: publishes what leader arms would, on the topics that they would use.

For simulation only. What the leader does is in `leader`.
"""

from __future__ import annotations

import sys
import time

import numpy as np
from depthvla_msgs.msg import ModeChange
from rclpy.clock import Clock, ClockType
from sensor_msgs.msg import JointState

from depthvla_control.arbiter import Mode
from depthvla_control.limb_feedback import arm_positions, gripper_opening
from depthvla_control.refusal import Refusal
from depthvla_control.ros import qos
from depthvla_control.ros.diagnostics import OK, WARN, Health
from depthvla_control.ros.messages import doubles
from depthvla_control.ros.parameters import Parameter
from depthvla_control.ros.polling import PolledSubscription
from depthvla_control.ros.runtime import ManagedNode, run
from r1lite_description import robot as robots
from r1lite_description.robot import Limb
from r1lite_sim.leader import Leader

PARAMETERS = (
    Parameter("robot_file", "", "Robot description (YAML); the R1 Lite's when empty."),
    Parameter("executor", "/chunk_executor_node", "Full name of the chunk executor's node, whose mode is followed."),
    Parameter("rate_hz", 100.0, "Leader messages per second and arm.", 10.0, 500.0),
    Parameter("values", 7, "Values in a message; the 7th is the gripper's opening [mm].", 6, 7),
    Parameter("alignment_error_rad", 0.03, "How far leader joints stand off before a take-over.", 0.0, 1.0),
    Parameter("amplitude_rad", 0.15, "How far a joint goes from the pose where it took over.", 0.0, 1.0),
    Parameter("period_s", 4.0, "Time from one waypoint to the next.", 0.2, 60.0),
    Parameter("seed", 0, "Seed of the motion.", 0, 2**31 - 1),
)


class LeaderNode(ManagedNode):
    """Arm and gripper feedback and the executor's mode in; leader joint states out."""

    def __init__(self, **kwargs) -> None:
        super().__init__("leader_node", PARAMETERS, **kwargs)

    def configure(self) -> None:
        self._robot = robots.load(self.value("robot_file") or None)
        executor = self.value("executor").rstrip("/")
        profile = qos.stream(self._robot.qos.sensor, 1)
        self._limbs = [
            (
                limb,
                PolledSubscription(self, JointState, limb.topics.arm_feedback, profile),
                PolledSubscription(self, JointState, limb.topics.gripper_feedback, profile),
                self.create_lifecycle_publisher(JointState, limb.topics.teleop, profile),
            )
            for limb in self._robot.limbs
        ]
        self._modes = PolledSubscription(self, ModeChange, f"{executor}/mode", qos.status())
        self._teleop = False

    def activate(self) -> None:
        self._leader = Leader(
            self._robot,
            alignment_error_rad=self.value("alignment_error_rad"),
            amplitude_rad=self.value("amplitude_rad"),
            period_s=self.value("period_s"),
            seed=self.value("seed"),
        )
        self._measured = np.full(self._robot.size, np.nan)
        for _, arm, gripper, _ in self._limbs:  # what waits in the queues is of unknown age
            arm.newest(), gripper.newest()
        rate_hz = self.value("rate_hz")
        self._timer = self.create_timer(1.0 / rate_hz, self._tick, clock=Clock(clock_type=ClockType.STEADY_TIME))
        self.get_logger().info(f"leader arms of {self._robot.name} at {rate_hz:g} Hz, seed {self.value('seed')}")

    def deactivate(self) -> None:
        self.destroy_timer(self._timer)

    def health(self) -> Health:
        missing = [name for name, value in zip(self._robot.joint_names, self._measured, strict=True) if np.isnan(value)]
        if missing:
            return Health(WARN, f"no feedback of {', '.join(missing)} yet")
        return Health(OK, "wandering" if self._teleop else "following the arms")

    def _tick(self) -> None:
        change = self._modes.newest()
        if change is not None:
            self._teleop = change.mode == Mode.TELEOP
        for limb, arm, gripper, _ in self._limbs:
            self._measure(limb, arm.newest(), gripper.newest())
        if np.isnan(self._measured).any():
            return
        position = self._leader.step(self._measured, self._teleop, time.monotonic())
        stamp = self.get_clock().now().to_msg()
        for limb, _, _, publisher in self._limbs:
            # A placeholder for a name, as in the robot's own feedback.
            values = position[limb.slice][: self.value("values")]
            message = JointState(name=[f"{limb.name}_arm"], position=doubles(values))
            message.header.stamp = stamp
            publisher.publish(message)

    def _measure(self, limb: Limb, arm: JointState | None, gripper: JointState | None) -> None:
        for message, read, where in ((arm, arm_positions, limb.arm), (gripper, gripper_opening, limb.gripper_index)):
            if message is None:
                continue
            measured = read(self._robot, limb, message.position, message.name)
            if isinstance(measured, Refusal):
                self.get_logger().warning(f"refused: {measured}", throttle_duration_sec=1.0)
            else:
                self._measured[where] = measured


def main() -> int:
    return run(LeaderNode, about=__doc__, parameters=PARAMETERS)


if __name__ == "__main__":
    sys.exit(main())
