"""The only writer of /motion_target/*: turns chunks or leader arms into a stream of commands. Declares, converts,
delegates.

What is commanded, and who is in command, is decided in `control.executor`. This process never imports torch.
"""

from __future__ import annotations

import dataclasses
import os
import re
import sys
import time
import traceback
from collections.abc import Callable

from depthvla_msgs.msg import ActionChunk, Counter, ExecutorStatus, ModeChange, PolicyStatus
from depthvla_msgs.msg import Plan as PlanMessage
from depthvla_msgs.srv import SetMode
from rcl_interfaces.msg import SetParametersResult
from rclpy.clock import Clock, ClockType
from rclpy.duration import Duration
from rclpy.parameter import Parameter as RosParameter
from std_msgs.msg import Bool
from std_srvs.srv import Trigger

from depthvla_control.arbiter import Mode
from depthvla_control.executor import ChunkExecutor
from depthvla_control.executor_config import ExecutorConfig
from depthvla_control.nodes.executor import realtime
from depthvla_control.nodes.executor.executor_parameters import CONFIG, PARAMETERS, robot_parameters
from depthvla_control.nodes.executor.robot_topics import RobotTopics
from depthvla_control.nodes.executor.sole_writer import FEEDBACK, SoleWriter
from depthvla_control.refusal import Refusal
from depthvla_control.ros import qos
from depthvla_control.ros.diagnostics import ERROR, OK, WARN, Health
from depthvla_control.ros.messages import (
    check_limbs,
    chunk_from_message,
    duration_message,
    nanoseconds,
    plan_to_message,
    time_message,
)
from depthvla_control.ros.runtime import ManagedNode, run
from depthvla_control.supervisor import Supervisor
from depthvla_control.tick_timing import TickMonitor
from r1lite_description import robot as robot_description

try:
    from rclpy.event_handler import SubscriptionEventCallbacks
except ImportError:  # Humble
    from rclpy.qos_event import SubscriptionEventCallbacks

ACKNOWLEDGED_S = 0.05  # for a reliable reader to have what was published last
REST_LIMIT_S = 2.0  # to come to rest before a stream ends; from full speed that takes a tenth of a second
REQUESTED_MODES = tuple(mode for mode in Mode if mode is not Mode.FAULT)
NUMBER = re.compile(r"(?<!\w)-?\d+(\.\d+)?")


class ChunkExecutorNode(ManagedNode):
    """~/action_chunk, ~/policy_status, ~/takeover, leader arms and feedback in; limb commands, ~/status, ~/mode, ~/plan
    and, while the policy is not in command, what it would command under ~/shadow out. ~/arm, ~/disarm, ~/stop,
    ~/reset_fault, ~/set_mode.
    """

    def __init__(self, **kwargs) -> None:
        super().__init__("chunk_executor_node", PARAMETERS, **kwargs)
        self.add_on_set_parameters_callback(self._change_parameters)

    def configure(self) -> None:
        robot = robot_description.load(self.value("robot_file") or None)
        check_limbs(robot)
        self._robot = robot
        self.declare_more(robot_parameters(robot))
        self._config = ExecutorConfig(**{item.name: self.value(item.name) for item in CONFIG})
        lease_s = self.value("policy_lease_s")
        if 0.0 < lease_s < qos.CHUNK_LEASE_S:
            raise ValueError(
                f"policy_lease_s is {lease_s}; allowed: 0, or at least {qos.CHUNK_LEASE_S} as the policy offers"
            )
        self._period_s = 1.0 / self.value("command_rate_hz")
        self._topics = RobotTopics(self, robot)
        self._command_writer = SoleWriter(self, self._topics.command_topics, self.value("allowed_publishers"))
        self._start_mode, self._feedback_writer = Mode[self.value("mode_on_activate")], None
        if self._start_mode is not Mode.DISARMED:
            simulator = self.value("feedback_publisher")
            self._feedback_writer = SoleWriter(self, self._topics.feedback_topics, writer=simulator, advice=FEEDBACK)
        self._status_publisher = self.create_lifecycle_publisher(ExecutorStatus, "~/status", qos.status())
        self._mode_publisher = self.create_lifecycle_publisher(ModeChange, "~/mode", qos.status())
        self._plan_publisher = self.create_lifecycle_publisher(PlanMessage, "~/plan", qos.chunks(0.0))
        events = SubscriptionEventCallbacks(liveliness=self._on_liveliness if lease_s else None)
        self.create_subscription(
            ActionChunk, "~/action_chunk", self._on_chunk, qos.chunks(lease_s), event_callbacks=events
        )
        self.create_subscription(PolicyStatus, "~/policy_status", self._on_policy_status, qos.status())
        self.create_subscription(Bool, "~/takeover", self._on_takeover, 10)
        for request in (self._arm, self._disarm, self._stop, self._reset_fault):
            self._serve(request)
        self.create_service(SetMode, "~/set_mode", self._on_set_mode)
        # Also keeps the first log message of a process, which takes 50 ms, out of the control loop.
        self.get_logger().info(f"commands for {robot.name} at {1.0 / self._period_s:g} Hz")

    def activate(self) -> None:
        config = dataclasses.replace(self._config, speed_scale=self.value("speed_scale"))
        self._control = ChunkExecutor(self._robot, period_s=self._period_s, config=config)
        self._monitor = TickMonitor(round(self._period_s * 1e9))
        self._supervisor = Supervisor(
            self._control,
            receive=self._receive,
            start_mode=self._start_mode,
            command_watch=self._command_writer,
            feedback_watch=self._feedback_writer,
            pedal_timeout_s=self.value("takeover_timeout_s"),
        )
        self._commands_sent = 0
        self._reported: tuple[Mode, str, int] = (Mode.DISARMED, "", 0)
        self._topics.discard()
        if not realtime.enter(self.value("realtime_priority")):
            self.get_logger().info("no real-time priority (an rtprio limit allows it): ticks may come late under load")
        self._timer = self.create_timer(self._period_s, self._tick, clock=Clock(clock_type=ClockType.STEADY_TIME))
        self._monitor.start(time.monotonic_ns())

    def deactivate(self) -> None:
        self.destroy_timer(self._timer)
        self._control.disarm("deactivated")
        self._come_to_rest()
        realtime.leave(self.value("realtime_priority"))
        self._publish_status(self._now_ns(), 0)
        # A process that ends takes along what it has not handed over yet.
        for publisher in (self._status_publisher, *self._topics.command_publishers):
            publisher.wait_for_all_acked(Duration(seconds=ACKNOWLEDGED_S))

    def health(self) -> Health:
        control, monitor = self._control, self._monitor
        state = control.state
        values = {
            "mode": state.mode.name,
            "cause": state.cause,
            "ticks": monitor.ticks,
            "missed ticks": monitor.missed,
            **{f"lateness {name} [ms]": value for name, value in monitor.percentiles_ms().items()},
            "commands sent": self._commands_sent,
            "chunk latency [ms]": state.latency_ns * 1e-6,
            "armed model": state.armed_model,
            "chunks accepted": state.chunks_accepted,
            **self._refusals(),
            "clamped to position limits": state.clamped_position,
            "trailing for a motion limit": state.clamped_velocity,
            "interventions": state.interventions,
            "shadow error [rad]": state.shadow_error_rad,
        }
        waits = self._supervisor.waits_for_publisher or (control.engaged and state.chunks_accepted > 0)
        held = state.mode is Mode.HOLD and waits
        level = ERROR if state.mode is Mode.FAULT else WARN if held else OK
        return Health(level, f"{state.mode.name}: {state.cause}", values)

    def _tick(self) -> None:
        missed = self._monitor.missed
        lateness_ns = self._monitor.tick(time.monotonic_ns())
        if self._monitor.missed > missed:
            self.get_logger().warning(f"a tick came {lateness_ns * 1e-6:.0f} ms late", throttle_duration_sec=1.0)
        now = self._now_ns()
        try:
            if lateness_ns > self._config.feedback_lost_s * 1e9:
                self._topics.discard()  # this process was stopped: what waits in the queues is from before
            self._receive(now)
            self._supervisor.update(now, time.monotonic())
        except Exception as error:
            self._latch(error)
        command = None
        try:
            command = self._control.tick(now, time.monotonic_ns())  # also after an error: in FAULT it brakes
        except Exception as error:
            self._latch(error)
        if command is not None:
            self._commands_sent += self._topics.publish_command(command, now)
        if self._control.shadow is not None:
            self._topics.publish_shadow(self._control.shadow, now)
        self._publish_status(now, lateness_ns)

    def _receive(self, now: int) -> None:
        self._topics.read(self._control, now)

    def _latch(self, error: Exception) -> None:
        """A defect must not end the stream in mid-motion."""
        self.get_logger().error(
            "".join(traceback.format_exception(type(error), error, error.__traceback__)), throttle_duration_sec=1.0
        )
        self._control.fault(f"{type(error).__name__}: {error}")

    def _come_to_rest(self) -> None:
        """Ticks on, serving nobody else, until the arms that are being disarmed are at rest."""
        if not self._control.disarming:
            return
        limit_s = time.monotonic() + REST_LIMIT_S
        while self._control.disarming and time.monotonic() < limit_s:
            time.sleep(max(self._monitor.due_ns - time.monotonic_ns(), 0) * 1e-9)
            self._tick()
        if self._control.disarming:
            self._control.disarm(f"the arms did not come to rest within {REST_LIMIT_S:g} s", at_once=True)
        if self.active:
            self._timer.reset()
            self._monitor.align(time.monotonic_ns())

    def _publish_status(self, now: int, lateness_ns: int) -> None:
        state = self._control.state
        fields = dataclasses.asdict(state)
        status = ExecutorStatus(
            **{name: value for name, value in fields.items() if not name.endswith("_ns")} | {"mode": int(state.mode)},
            chunk_age=duration_message(state.chunk_age_ns),
            latency=duration_message(state.latency_ns),
            commands_sent=self._commands_sent,
            ticks=self._monitor.ticks,
            missed_ticks=self._monitor.missed,
            jitter=duration_message(lateness_ns),
            refusals=[Counter(name=name, count=count) for name, count in self._refusals().items()],
        )
        status.header.stamp = time_message(now)
        self._status_publisher.publish(status)
        mode, cause, interventions = self._reported
        if state.mode is not mode and Mode.POLICY in (mode, state.mode):
            self._publish_plan()  # now there is one, or there is none any more
        # A cause whose numbers alone change, as a gap's at every tick, is the same one; the status has the numbers.
        if state.mode is not mode or NUMBER.sub("", state.cause) != NUMBER.sub("", cause):
            change = ModeChange(
                header=status.header,
                mode=int(state.mode),
                previous=int(mode),
                cause=state.cause,
                intervention=state.interventions > interventions,
            )
            self._mode_publisher.publish(change)
            self._reported = (state.mode, state.cause, state.interventions)
            self.get_logger().info(f"{state.mode.name}: {state.cause}")

    def _refusals(self) -> dict[str, int]:
        control = self._control
        return {
            **{f"chunk: {reason.value}": count for reason, count in control.refusals.items()},
            **{
                f"{stream}: {reason.value}": count
                for (stream, reason), count in (*control.feedback_refusals.items(), *control.leader_refusals.items())
            },
        }

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
        elif self._control.mode is Mode.POLICY:
            self._publish_plan()

    def _publish_plan(self) -> None:
        if self._plan_publisher.get_subscription_count():
            self._plan_publisher.publish(plan_to_message(self._control.plan(), self._robot))

    def _on_policy_status(self, message: PolicyStatus) -> None:
        if self.active and message.withdrawn:
            self._control.withdraw(f"the policy withdrew: {message.reason}", nanoseconds(message.header.stamp))

    def _on_liveliness(self, event) -> None:
        if self.active and event.alive_count == 0 and event.alive_count_change < 0:
            self._control.policy_lost("the policy's process gives no sign of life")

    def _on_takeover(self, message: Bool) -> None:
        if not self.active:
            return
        refusal = self._supervisor.pedal(message.data, self._now_ns(), time.monotonic())
        self._come_to_rest()
        if refusal:
            self.get_logger().warning(f"~/takeover refused: {refusal}")

    def _on_set_mode(self, request: SetMode.Request, response: SetMode.Response) -> SetMode.Response:
        if not self.active:
            response.message = "the node is not active"
            return response
        if request.mode not in REQUESTED_MODES:
            allowed = ", ".join(f"{mode.value} {mode.name}" for mode in REQUESTED_MODES)
            response.message = f"mode is {request.mode}; allowed: {allowed}"
            return response
        answer = self._supervisor.set_mode(Mode(request.mode), self._now_ns(), "asked for by ~/set_mode")
        self._come_to_rest()
        response.success, response.gap_rad = answer.refusal is None, answer.gap_rad
        response.message = str(answer.refusal or self._control.state.cause)
        if answer.refusal:
            self.get_logger().warning(f"set_mode {Mode(request.mode).name} refused: {answer.refusal}")
        return response

    def _arm(self) -> Refusal | None:
        cause = "armed by ~/arm; ~/set_mode puts a source in command"
        return self._supervisor.arm(self._now_ns(), time.monotonic(), cause)

    def _disarm(self) -> Refusal | None:
        refusal = self._control.disarm("disarmed by ~/disarm")
        self._come_to_rest()
        return refusal

    def _stop(self) -> Refusal | None:
        return self._control.stop("stopped by ~/stop")

    def _reset_fault(self) -> Refusal | None:
        return self._control.reset_fault("fault reset by ~/reset_fault")

    def _serve(self, request: Callable[[], Refusal | None]) -> None:
        name = request.__name__.lstrip("_")

        def answer(_: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
            if not self.active:
                response.success, response.message = False, "the node is not active"
                return response
            self._supervisor.attend()
            refusal = request()
            response.success = refusal is None
            response.message = str(refusal) if refusal else self._control.state.cause
            if refusal:
                self.get_logger().warning(f"{name} refused: {refusal}")
            return response

        self.create_service(Trigger, f"~/{name}", answer)

    def _change_parameters(self, parameters: list[RosParameter]) -> SetParametersResult:
        for parameter in parameters:
            if parameter.name == "speed_scale" and self.active:
                self._control.set_speed_scale(parameter.value)
        return SetParametersResult(successful=True)

    def _now_ns(self) -> int:
        return self.get_clock().now().nanoseconds


def main() -> int:
    # Over Fast DDS's shared memory, a publish call was seen to block for 0.28 s while a reader joined on an overloaded
    # machine; datagrams depend on no other process. Without effect where discovery is limited to this machine,
    # because the middleware then chooses the transports itself.
    os.environ.setdefault("FASTDDS_BUILTIN_TRANSPORTS", "UDPv4")
    return run(ChunkExecutorNode, about=__doc__, parameters=PARAMETERS, of_robot=robot_parameters)


if __name__ == "__main__":
    sys.exit(main())
