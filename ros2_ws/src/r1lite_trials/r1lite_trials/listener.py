"""What the executor says and does and what the arms measure, with the time of arrival. Taken from the middleware on a
thread of its own, so that what else this process does delays no time.
"""

from __future__ import annotations

import threading
import time
from collections import defaultdict

import numpy as np
from depthvla_msgs.msg import ExecutorStatus, ModeChange, PolicyStatus
from rclpy.node import Node
from sensor_msgs.msg import JointState

from depthvla_control.ros import qos
from depthvla_control.ros.messages import nanoseconds
from depthvla_control.ros.polling import PolledSubscription
from r1lite_description.robot import Robot
from r1lite_trials.stream import Stream

POLL_S = 0.004
DEPTH = 1000  # of what waits in the middleware: this process may be kept from running for a second


class Listener:
    """Lists of (time of arrival, message), oldest first. Times are ns on this machine's clock, as `time.time_ns`.

    Args:
        node: whose subscriptions these are.
        robot: gives the topics.
        feedback: whether the arms' feedback is kept, 400 messages a second.
    """

    def __init__(self, node: Node, robot: Robot, *, executor: str, policy: str, feedback: bool = True) -> None:
        self._robot = robot
        self.status: list[tuple[int, ExecutorStatus]] = []
        self.modes: list[tuple[int, ModeChange]] = []
        self.policy_status: list[tuple[int, PolicyStatus]] = []
        self._commands: list[tuple[int, int, np.ndarray]] = []
        self._measured: list[tuple[int, np.ndarray]] = []
        self._parts: dict[tuple[int, int], dict[int, tuple[int, JointState]]] = defaultdict(dict)
        self._last_stamp: dict[int, tuple[int, int]] = {}
        self._arms = np.full(robot.size, np.nan)
        reliable = qos.stream("reliable", DEPTH)
        changes = qos.status()
        changes.depth = DEPTH
        self._heard = [
            (PolledSubscription(node, message_type, topic, changes), messages)
            for message_type, topic, messages in (
                (ExecutorStatus, f"/{executor}/status", self.status),
                (ModeChange, f"/{executor}/mode", self.modes),
                (PolicyStatus, f"/{policy}/status", self.policy_status),
            )
        ]
        self._outputs, self._inputs = [], []
        best_effort = qos.stream("best_effort", DEPTH)
        for limb in robot.limbs:
            gripper = slice(limb.gripper_index, limb.gripper_index + 1)
            for topic, where in ((limb.topics.arm_command, limb.arm), (limb.topics.gripper_command, gripper)):
                self._outputs.append((PolledSubscription(node, JointState, topic, reliable), where))
            if feedback:
                arm = PolledSubscription(node, JointState, limb.topics.arm_feedback, best_effort)
                self._inputs.append((arm, limb.arm))
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="listener", daemon=True)
        self._thread.start()

    def commands(self, newest: int = 0) -> Stream:
        """What all limbs were sent together at a control tick; at most so many of the newest ticks, or 0 for all."""
        with self._lock:
            commands = [(time_ns, positions) for time_ns, _, positions in self._commands[-newest:]]
        return _stream(commands, self._robot.size)

    def command_times(self, stamp_ns: int) -> list[int]:
        """When commands of the tick with this stamp came."""
        with self._lock:
            return [time_ns for time_ns, stamp, _ in self._commands if stamp == stamp_ns]

    def measured(self) -> Stream:
        """The arms' feedback, one entry per message of an arm; grippers are 0."""
        with self._lock:
            return _stream(self._measured, self._robot.size)

    def first(self, messages: list[tuple], since_ns: int, matches) -> tuple | None:
        """(time, message) of the first message that came at or after `since_ns` and of which `matches` is true."""
        with self._lock:
            return next((item for item in messages if item[0] >= since_ns and matches(item[1])), None)

    def forget(self, before_ns: int) -> None:
        """Drops what came before, to keep memory and searches small."""
        with self._lock:
            for kept in (self.status, self.modes, self.policy_status, self._commands, self._measured):
                kept[:-1] = [item for item in kept[:-1] if item[0] >= before_ns]
            self._parts.clear()

    def close(self) -> None:
        self._stopping.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stopping.is_set():
            with self._lock:
                self._poll()
            time.sleep(POLL_S)

    def _poll(self) -> None:
        for subscription, messages in self._heard:
            messages += _taken(subscription)
        for index, (subscription, _) in enumerate(self._outputs):
            for time_ns, message in _taken(subscription):
                self._add_command(index, time_ns, message)
        for subscription, where in self._inputs:
            for time_ns, message in _taken(subscription):
                self._arms[where] = message.position[: where.stop - where.start]
                if not np.isnan(self._arms).all():
                    self._measured.append((time_ns, np.nan_to_num(self._arms)))

    def _add_command(self, index: int, time_ns: int, message: JointState) -> None:
        """Messages of a tick have the same stamp; a clock that stands still gives two ticks the same."""
        stamp = nanoseconds(message.header.stamp)
        last, repeated = self._last_stamp.get(index, (0, 0))
        repeated = repeated + 1 if stamp == last else 0
        self._last_stamp[index] = (stamp, repeated)
        parts = self._parts[stamp, repeated]
        parts[index] = (time_ns, message)
        if len(parts) < len(self._outputs):
            return
        del self._parts[stamp, repeated]
        positions = np.empty(self._robot.size)
        for number, (_, where) in enumerate(self._outputs):
            positions[where] = parts[number][1].position
        self._commands.append((max(time for time, _ in parts.values()), stamp, positions))


def _taken(subscription: PolledSubscription) -> list[tuple]:
    taken = []
    while (item := subscription.take()) is not None:
        message, about = item
        taken.append((about["received_timestamp"], message))
    return taken


def _stream(items: list[tuple[int, np.ndarray]], size: int) -> Stream:
    times = np.array([time_ns for time_ns, _ in items], dtype=np.int64)
    return Stream(times, np.array([positions for _, positions in items]).reshape(-1, size))
