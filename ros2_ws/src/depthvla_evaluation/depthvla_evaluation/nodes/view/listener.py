"""What policy, executor and robot say, for whoever shows it: the newest of each, polled."""

from __future__ import annotations

from typing import Any

from depthvla_msgs.msg import ActionChunk, ExecutorStatus, PolicyStatus
from depthvla_msgs.msg import Plan as PlanMessage
from rclpy.node import Node
from sensor_msgs.msg import JointState

from depthvla_control.arbiter import Mode
from depthvla_control.chunk import Chunk, check_chunk
from depthvla_control.execution_plan import Plan
from depthvla_control.refusal import Refusal
from depthvla_control.ros import qos
from depthvla_control.ros.messages import chunk_from_message, nanoseconds, plan_from_message
from depthvla_control.ros.polling import PolledSubscription
from depthvla_evaluation.viewer.snapshot import Snapshot, joint_positions
from r1lite_description.robot import Robot

EXECUTOR_SILENT_NS = 1_000_000_000  # it says something at every tick


class Listener:
    """~/action_chunk, ~/plan, ~/executor_status, ~/policy_status and /joint_states.

    Joints come from /joint_states alone: the fewer readers a vendor's writers have, the better.
    """

    def __init__(self, node: Node, robot: Robot) -> None:
        self._robot = robot
        self._chunks = PolledSubscription(node, ActionChunk, "~/action_chunk", qos.chunks(0.0))
        self._plans = PolledSubscription(node, PlanMessage, "~/plan", qos.chunks(0.0))
        self._executor = PolledSubscription(node, ExecutorStatus, "~/executor_status", qos.status())
        self._policy = PolledSubscription(node, PolicyStatus, "~/policy_status", qos.status())
        self._joints = PolledSubscription(node, JointState, "/joint_states", qos.stream(robot.qos.sensor, 1))
        self._executor_status: ExecutorStatus | None = None
        self._policy_status: PolicyStatus | None = None
        self.chunk: Chunk | None = None
        self.chunk_message: ActionChunk | None = None  # set by the update that took it
        self.plan: Plan | None = None
        self.mode: Mode | None = None  # None: the executor is not heard
        self.joints: dict[str, float] = {}
        self.refusal: Refusal | None = None
        self.refused = 0

    def update(self, now_ns: int) -> None:
        if (message := self._joints.newest()) is not None:
            self.joints = joint_positions(message.name, message.position)
        self._policy_status = self._policy.newest() or self._policy_status
        self._executor_status = self._executor.newest() or self._executor_status
        self.mode = self._mode(now_ns)
        self._take_chunk()
        if (message := self._plans.newest()) is not None:
            self.plan = self._accepted(plan_from_message(message, self._robot))

    def snapshot(self, now_ns: int, **pictures: Any) -> Snapshot:
        """What was heard, with `pictures` and whatever else a `Snapshot` shows."""
        policy = self._policy_status
        return Snapshot(
            now_ns=now_ns,
            joints=self.joints,
            chunk=self.chunk,
            plan=self.plan,
            mode=self.mode,
            cause=self._executor_status.cause if self.mode is not None else "",
            instruction=policy.instruction if policy else "",
            complaint=policy.reason if policy else "",
            **pictures,
        )

    def _mode(self, now_ns: int) -> Mode | None:
        status = self._executor_status
        if status is None or now_ns - nanoseconds(status.header.stamp) > EXECUTOR_SILENT_NS:
            return None
        return Mode(status.mode) if status.mode in list(Mode) else None

    def _take_chunk(self) -> None:
        self.chunk_message = self._chunks.newest()
        if self.chunk_message is not None:
            chunk = chunk_from_message(self.chunk_message, self._robot)
            if not isinstance(chunk, Refusal):
                chunk = check_chunk(chunk, self._robot) or chunk
            self.chunk = self._accepted(chunk)
        status = self._policy_status
        if self.chunk and status and status.withdrawn and self.chunk.stamp_ns <= nanoseconds(status.header.stamp):
            self.chunk = None

    def _accepted(self, motion: Chunk | Plan | Refusal) -> Chunk | Plan | None:
        """The motion, if it is one. What was refused is not drawn, and neither is what it would have replaced."""
        self.refusal = motion if isinstance(motion, Refusal) else None
        self.refused += self.refusal is not None
        return None if self.refusal else motion
