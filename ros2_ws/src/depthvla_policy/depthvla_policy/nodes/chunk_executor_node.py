"""The only writer of /motion_target/*: turns action chunks into a stream of commands. Declares, converts, delegates.

What is commanded, and who is in command, is decided in `control.executor`. This process never imports torch.
"""

from __future__ import annotations

import contextlib
import gc
import os
import sys
import time
import traceback
from collections.abc import Callable

from depthvla_msgs.msg import ActionChunk, ExecutorStatus
from rclpy.clock import Clock, ClockType
from sensor_msgs.msg import JointState
from std_srvs.srv import Trigger

from depthvla_policy import robot as robot_description
from depthvla_policy.control.arbiter import Mode
from depthvla_policy.control.executor import ChunkExecutor, Command
from depthvla_policy.control.refusal import Refusal
from depthvla_policy.control.timing import TickMonitor
from depthvla_policy.nodes import qos
from depthvla_policy.nodes.diagnostics import ERROR, OK, WARN, Health
from depthvla_policy.nodes.messages import check_limbs, chunk_from_message, doubles, duration_message, time_message
from depthvla_policy.nodes.parameters import Parameter
from depthvla_policy.nodes.polling import PolledSubscription
from depthvla_policy.nodes.runtime import ManagedNode, run
from depthvla_policy.robot import Robot

try:
    from rclpy.event_handler import SubscriptionEventCallbacks
except ImportError:  # Humble
    from rclpy.qos_event import SubscriptionEventCallbacks

PARAMETERS = (
    Parameter("robot_file", "", "Robot description; empty takes the R1 Lite's of r1lite_bringup."),
    Parameter("arm_on_activate", False, "Arm without being asked as soon as there is feedback. For simulation only."),
    Parameter(
        "max_feedback_age_s", 0.2, "Hold when feedback of a limb is older; arming needs it this fresh.", 0.02, 5.0
    ),
    Parameter("max_future_s", 0.05, "How far a chunk's stamp may be ahead of this clock.", 0.001, 1.0),
    Parameter(
        "policy_lease_s",
        0.5,
        "Hold when the policy's publisher gave no sign of life for this long. Chunks of a publisher that offers no"
        " liveliness lease up to this are not received; 0 turns it off and waits until the steps run out.",
        0.0,
        10.0,
    ),
    Parameter(
        "realtime_priority",
        10,
        "SCHED_FIFO priority of the control thread while active, where the user is allowed to have one; 0: none.",
        0,
        90,
    ),
)


class ChunkExecutorNode(ManagedNode):
    """~/action_chunk and feedback in; limb commands and ~/status out; ~/arm, ~/disarm, ~/stop, ~/reset_fault."""

    def __init__(self, **kwargs) -> None:
        super().__init__("chunk_executor_node", PARAMETERS, **kwargs)

    def configure(self) -> None:
        robot = robot_description.load(self.value("robot_file") or None)
        check_limbs(robot)
        self._robot = robot
        self.declare_more(_robot_parameters(robot))
        lease_s = self.value("policy_lease_s")
        if 0.0 < lease_s < qos.CHUNK_LEASE_S:
            raise ValueError(
                f"policy_lease_s is {lease_s}; allowed: 0, or at least {qos.CHUNK_LEASE_S} as the policy offers"
            )
        self._period_s = 1.0 / self.value("command_rate_hz")
        command = qos.stream(self.value("command_reliability"), 1)
        feedback = qos.stream(self.value("sensor_reliability"), 1)
        self._outputs = []
        self._inputs = []
        for limb in robot.limbs:
            topics = limb.topics
            arm = self.create_lifecycle_publisher(JointState, topics.arm_command, command)
            gripper = self.create_lifecycle_publisher(JointState, topics.gripper_command, command)
            self._outputs.append((limb, arm, gripper))
            arm_feedback = PolledSubscription(self, JointState, topics.arm_feedback, feedback)
            gripper_feedback = PolledSubscription(self, JointState, topics.gripper_feedback, feedback)
            self._inputs.append((limb.name, arm_feedback, gripper_feedback))
        self._status_publisher = self.create_lifecycle_publisher(ExecutorStatus, "~/status", qos.status())
        events = SubscriptionEventCallbacks(liveliness=self._on_liveliness if lease_s else None)
        self.create_subscription(
            ActionChunk, "~/action_chunk", self._on_chunk, qos.chunks(lease_s), event_callbacks=events
        )
        for request in (self._arm, self._disarm, self._stop, self._reset_fault):
            self._serve(request)
        # Also keeps the first log message of a process, which takes 50 ms, out of the control loop.
        self.get_logger().info(f"commands for {robot.name} at {1.0 / self._period_s:g} Hz")

    def activate(self) -> None:
        self._control = ChunkExecutor(
            self._robot,
            period_s=self._period_s,
            max_feedback_age_s=self.value("max_feedback_age_s"),
            max_future_s=self.value("max_future_s"),
        )
        self._monitor = TickMonitor(round(self._period_s * 1e9))
        self._arm_pending = self.value("arm_on_activate")
        self._commands_sent = 0
        self._reported: tuple | None = None
        for _, arm, gripper in self._inputs:  # what waits in the queues is of unknown age
            arm.newest(), gripper.newest()
        # What exists now stays. Without this a full collection would walk over all of it, during a tick.
        gc.collect()
        gc.freeze()
        if self.value("realtime_priority"):
            self._prefer(self.value("realtime_priority"))
        self._timer = self.create_timer(self._period_s, self._tick, clock=Clock(clock_type=ClockType.STEADY_TIME))
        self._monitor.start(time.monotonic_ns())

    def deactivate(self) -> None:
        self.destroy_timer(self._timer)
        if self.value("realtime_priority"):
            self._prefer(0)
        self._control.disarm("deactivated")
        self._publish_status(self._now_ns(), 0)

    def health(self) -> Health:
        state, monitor = self._control.state, self._monitor
        values = {
            "mode": state.mode.name,
            "cause": state.cause,
            "ticks": monitor.ticks,
            "missed ticks": monitor.missed,
            **{f"lateness {name} [ms]": value for name, value in monitor.percentiles_ms().items()},
            "commands sent": self._commands_sent,
            "chunk latency [ms]": state.latency_ns * 1e-6,
            "chunks accepted": state.chunks_accepted,
            **{f"chunks refused: {reason.value}": count for reason, count in self._control.refusals.items()},
            **{
                f"refused {stream}: {reason.value}": count
                for (stream, reason), count in self._control.feedback_refusals.items()
            },
            "clamped to position limits": state.clamped_position,
            "clamped to velocity limits": state.clamped_velocity,
        }
        held = state.mode is Mode.HOLD and self._control.engaged and state.chunks_accepted > 0
        level = ERROR if state.mode is Mode.FAULT else WARN if held else OK
        return Health(level, f"{state.mode.name}: {state.cause}", values)

    def _tick(self) -> None:
        missed = self._monitor.missed
        lateness_ns = self._monitor.tick(time.monotonic_ns())
        if self._monitor.missed > missed:
            self.get_logger().warning(f"a tick came {lateness_ns * 1e-6:.0f} ms late", throttle_duration_sec=1.0)
        now = self._now_ns()
        try:
            self._read_feedback(now)
            if self._arm_pending:
                self._arm_pending = self._control.arm(now, "armed on activation") is not None
            command = self._control.tick(now)
        except Exception as error:
            # A defect must not end the stream: the next tick holds the last pose, in FAULT.
            self.get_logger().error(traceback.format_exc())
            self._control.fault(f"{type(error).__name__}: {error}")
            command = None
        if command is not None:
            self._publish_command(command, now)
        self._publish_status(now, lateness_ns)

    def _read_feedback(self, now: int) -> None:
        for limb, arm, gripper in self._inputs:
            message = arm.newest()
            if message is not None:
                self._control.feedback_arm(limb, message.position, now)
            message = gripper.newest()
            if message is not None:
                self._control.feedback_gripper(limb, message.position, now)

    def _publish_command(self, command: Command, now: int) -> None:
        stamp = time_message(now)
        velocity = doubles(command.velocity_cap)
        for limb, arm, gripper in self._outputs:
            message = JointState(
                name=list(limb.joints), position=doubles(command.positions[limb.arm]), velocity=velocity
            )
            message.header.stamp = stamp
            arm.publish(message)
            opening = command.positions[limb.gripper_index : limb.gripper_index + 1]
            message = JointState(name=[limb.gripper], position=doubles(opening))
            message.header.stamp = stamp
            gripper.publish(message)
            self._commands_sent += 2

    def _publish_status(self, now: int, lateness_ns: int) -> None:
        state = self._control.state
        status = ExecutorStatus(
            mode=int(state.mode),
            cause=state.cause,
            sequence=state.sequence,
            step=state.step,
            steps_left=state.steps_left,
            chunk_age=duration_message(state.chunk_age_ns),
            latency=duration_message(state.latency_ns),
            commands_sent=self._commands_sent,
            ticks=self._monitor.ticks,
            missed_ticks=self._monitor.missed,
            jitter=duration_message(lateness_ns),
            chunks_accepted=state.chunks_accepted,
            chunks_refused=state.chunks_refused,
            last_refusal=state.last_refusal,
            clamped_position=state.clamped_position,
            clamped_velocity=state.clamped_velocity,
        )
        status.header.stamp = time_message(now)
        self._status_publisher.publish(status)
        if self._reported != (state.mode, state.cause):
            self._reported = (state.mode, state.cause)
            self.get_logger().info(f"{state.mode.name}: {state.cause}")

    def _on_chunk(self, message: ActionChunk) -> None:
        if not self.active:
            return
        chunk = chunk_from_message(message, self._robot)
        if isinstance(chunk, Refusal):
            self._control.refuse_chunk(chunk)
            refusal = chunk
        else:
            refusal = self._control.offer(chunk, self._now_ns())
        if refusal:
            self.get_logger().warning(f"refused: {refusal}", throttle_duration_sec=1.0)

    def _on_liveliness(self, event) -> None:
        if self.active and event.alive_count == 0 and event.alive_count_change < 0:
            self._control.policy_lost("the policy's process gives no sign of life")

    def _arm(self) -> Refusal | None:
        now = self._now_ns()
        self._read_feedback(now)
        return self._control.arm(now, "armed by ~/arm, waiting for chunks")

    def _disarm(self) -> Refusal | None:
        return self._control.disarm("disarmed by ~/disarm")

    def _stop(self) -> Refusal | None:
        return self._control.stop("stopped by ~/stop; ~/arm lets the policy move again")

    def _reset_fault(self) -> Refusal | None:
        return self._control.reset_fault("fault reset by ~/reset_fault; ~/arm lets the policy move again")

    def _serve(self, request: Callable[[], Refusal | None]) -> None:
        name = request.__name__.lstrip("_")

        def answer(_: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
            if not self.active:
                response.success, response.message = False, "the node is not active"
                return response
            self._arm_pending = False  # from the first request on, a person decides
            refusal = request()
            response.success = refusal is None
            response.message = str(refusal) if refusal else self._control.state.cause
            if refusal:
                self.get_logger().warning(f"{name} refused: {refusal}")
            return response

        self.create_service(Trigger, f"~/{name}", answer)

    def _prefer(self, priority: int) -> None:
        """Real-time scheduling of this process: a tick must not wait for a training run on the same cores.

        All threads get it, else the control thread would wait for locks that a starved middleware thread holds.
        """
        policy = os.SCHED_FIFO if priority else os.SCHED_OTHER
        try:
            for thread in os.listdir("/proc/self/task"):
                with contextlib.suppress(ProcessLookupError):  # it ended meanwhile
                    os.sched_setscheduler(int(thread), policy | os.SCHED_RESET_ON_FORK, os.sched_param(priority))
        except PermissionError:
            self.get_logger().info("no real-time priority (an rtprio limit allows it): ticks may come late under load")

    def _now_ns(self) -> int:
        return self.get_clock().now().nanoseconds


def _robot_parameters(robot: Robot) -> list[Parameter]:
    reliabilities = tuple(qos.RELIABILITIES)
    return [
        Parameter("command_rate_hz", robot.control_rate_hz, "Rate of the command stream.", 1.0, 200.0),
        Parameter("command_reliability", robot.qos.command, "QoS of the command topics.", choices=reliabilities),
        Parameter("sensor_reliability", robot.qos.sensor, "QoS of the feedback topics.", choices=reliabilities),
    ]


def main() -> int:
    # Over Fast DDS's shared memory, a publish call was seen to block for 0.28 s while a reader joined on an overloaded
    # machine; datagrams depend on no other process. Without effect where discovery is limited to this machine,
    # because the middleware then chooses the transports itself.
    os.environ.setdefault("FASTDDS_BUILTIN_TRANSPORTS", "UDPv4")
    return run(ChunkExecutorNode)


if __name__ == "__main__":
    sys.exit(main())
