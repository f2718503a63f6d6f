"""The only writer of /motion_target/*: turns chunks or leader arms into a stream of commands. Declares, converts,
delegates.

What is commanded, and who is in command, is decided in `control.executor`. This process never imports torch.
"""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import gc
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
from sensor_msgs.msg import JointState
from std_msgs.msg import Bool
from std_srvs.srv import Trigger

from depthvla_control.arbiter import Mode
from depthvla_control.executor import Answer, ChunkExecutor, Command
from depthvla_control.executor_config import ExecutorConfig
from depthvla_control.nodes.executor.executor_parameters import CONFIG, PARAMETERS, robot_parameters
from depthvla_control.nodes.executor.sole_writer import FEEDBACK, SoleWriter, Stranger
from depthvla_control.refusal import Reason, Refusal
from depthvla_control.ros import qos
from depthvla_control.ros.diagnostics import ERROR, OK, WARN, Health
from depthvla_control.ros.messages import (
    check_limbs,
    chunk_from_message,
    doubles,
    duration_message,
    nanoseconds,
    plan_to_message,
    time_message,
)
from depthvla_control.ros.polling import PolledSubscription
from depthvla_control.ros.runtime import ManagedNode, run
from depthvla_control.tick_timing import TickMonitor
from r1lite_description import robot as robot_description

try:
    from rclpy.event_handler import SubscriptionEventCallbacks
except ImportError:  # Humble
    from rclpy.qos_event import SubscriptionEventCallbacks

LEADER_DEPTH = 16
ACKNOWLEDGED_S = 0.05  # for a reliable reader to have what was published last
REST_LIMIT_S = 2.0  # to come to rest before a stream ends; from full speed that takes a tenth of a second
REQUESTED_MODES = tuple(mode for mode in Mode if mode is not Mode.FAULT)
NUMBER = re.compile(r"(?<!\w)-?\d+(\.\d+)?")
MCL_CURRENT, MCL_FUTURE, MCL_ONFAULT = 1, 2, 4  # sys/mman.h


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
        self._subscribe_robot()
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
        self._wanted_mode = Mode[self.value("mode_on_activate")]
        self._attended = False
        self._interrupted: Mode | None = None  # what goes on once a publisher has turned out to be an allowed one
        self._commands_sent = 0
        self._reported: tuple[Mode, str, int] = (Mode.DISARMED, "", 0)
        self._pedal, self._pedal_heard_s = False, 0.0
        self._pedal_owns = False  # teleoperation lasts as long as the pedal is pressed
        self._discard()
        # What exists now stays. Without this a full collection would walk over all of it, during a tick.
        gc.collect()
        gc.freeze()
        if self.value("realtime_priority"):
            self._prefer(self.value("realtime_priority"))
        self._timer = self.create_timer(self._period_s, self._tick, clock=Clock(clock_type=ClockType.STEADY_TIME))
        self._monitor.start(time.monotonic_ns())

    def deactivate(self) -> None:
        self.destroy_timer(self._timer)
        self._control.disarm("deactivated")
        self._come_to_rest()
        gc.unfreeze()
        if self.value("realtime_priority"):
            self._prefer(0)
        self._publish_status(self._now_ns(), 0)
        # A process that ends takes along what it has not handed over yet.
        for publisher in (self._status_publisher, *(item for _, *both in self._outputs for item in both)):
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
        waits = self._interrupted is not None or (control.engaged and state.chunks_accepted > 0)
        held = state.mode is Mode.HOLD and waits
        level = ERROR if state.mode is Mode.FAULT else WARN if held else OK
        return Health(level, f"{state.mode.name}: {state.cause}", values)

    def _subscribe_robot(self) -> None:
        command = qos.stream(self.value("command_reliability"), 1)
        feedback = qos.stream(self.value("sensor_reliability"), 1)
        leader = qos.stream("best_effort", LEADER_DEPTH)
        self._outputs, self._shadows = [], []
        self._inputs: dict[tuple[str, str], list[PolledSubscription]] = {}
        topics, feedback_topics = [], []
        for limb in self._robot.limbs:
            feedback_topics += [limb.topics.arm_feedback, limb.topics.gripper_feedback]
            names = (limb.topics.arm_command, limb.topics.gripper_command)
            topics += names
            self._outputs.append((limb, *(self.create_lifecycle_publisher(JointState, n, command) for n in names)))
            shadows = (self.create_lifecycle_publisher(JointState, f"~/shadow{n}", command) for n in names)
            self._shadows.append((limb, *shadows))
            for kind, topic, profile in (
                ("arm", limb.topics.arm_feedback, feedback),
                ("gripper", limb.topics.gripper_feedback, feedback),
                ("leader arm", self.value(f"leader.{limb.name}.arm_topic"), leader),
                ("leader gripper", self.value(f"leader.{limb.name}.gripper_topic"), leader),
            ):
                subscriptions = [PolledSubscription(self, JointState, topic, profile)] if topic else []
                self._inputs[kind, limb.name] = subscriptions
        self._command_writer = SoleWriter(self, topics, self.value("allowed_publishers"))
        self._feedback_writer = None
        if self.value("mode_on_activate") != Mode.DISARMED.name:
            simulator = self.value("feedback_publisher")
            self._feedback_writer = SoleWriter(self, feedback_topics, writer=simulator, advice=FEEDBACK)

    def _tick(self) -> None:
        missed = self._monitor.missed
        lateness_ns = self._monitor.tick(time.monotonic_ns())
        if self._monitor.missed > missed:
            self.get_logger().warning(f"a tick came {lateness_ns * 1e-6:.0f} ms late", throttle_duration_sec=1.0)
        now = self._now_ns()
        try:
            if lateness_ns > self._config.feedback_lost_s * 1e9:
                self._discard()  # this process was stopped: what waits in the queues is from before
            self._read(now)
            self._start(now)
            self._watch_pedal()
            if self._control.mode is not Mode.DISARMED:
                self._watch_writers(now)
        except Exception as error:
            self._latch(error)
        command = None
        try:
            command = self._control.tick(now, time.monotonic_ns())  # also after an error: in FAULT it brakes
        except Exception as error:
            self._latch(error)
        if command is not None:
            self._commands_sent += self._publish(self._outputs, command.positions, now, command)
        if self._control.shadow is not None:
            self._publish(self._shadows, self._control.shadow, now)
        self._publish_status(now, lateness_ns)

    def _latch(self, error: Exception) -> None:
        """A defect must not end the stream in mid-motion."""
        self.get_logger().error(
            "".join(traceback.format_exception(type(error), error, error.__traceback__)), throttle_duration_sec=1.0
        )
        self._control.fault(f"{type(error).__name__}: {error}")

    def _discard(self) -> None:
        """What waits in the queues is of unknown age."""
        for subscriptions in self._inputs.values():
            for subscription in subscriptions:
                subscription.newest()

    def _come_to_rest(self) -> None:
        """Ticks on, serving nobody else, until the arms that are being disarmed are at rest."""
        if not self._control.ending:
            return
        limit_s = time.monotonic() + REST_LIMIT_S
        while self._control.ending and time.monotonic() < limit_s:
            time.sleep(max(self._monitor.due_ns - time.monotonic_ns(), 0) * 1e-9)
            self._tick()
        if self._control.ending:
            self._control.disarm(f"the arms did not come to rest within {REST_LIMIT_S:g} s", at_once=True)
        if self.active:
            self._timer.reset()
            self._monitor.align(time.monotonic_ns())

    def _read(self, now: int) -> None:
        control = self._control
        for (kind, limb), subscriptions in self._inputs.items():
            for subscription in subscriptions:
                if kind == "leader arm":  # all samples, for its velocity
                    for message in subscription.drain():
                        control.leader_arm(limb, nanoseconds(message.header.stamp), message.position, now, message.name)
                elif (message := subscription.newest()) is None:
                    continue
                elif kind == "arm":
                    control.feedback_arm(limb, message.position, now, message.name)
                elif kind == "gripper":
                    control.feedback_gripper(limb, message.position, now, message.name)
                else:
                    control.leader_gripper(limb, message.position, message.name)

    def _start(self, now: int) -> None:
        """Takes the mode that was asked for at activation, as soon as that is possible.

        Also after a simulation paused for so long that the arms were lost, unless a person has decided meanwhile.
        """
        if self._control.lost and not self._attended:
            self._wanted_mode = Mode[self.value("mode_on_activate")]
        if self._wanted_mode is Mode.DISARMED:
            return
        if refusal := self._arm_at(now, "armed on activation"):
            if refusal.reason is Reason.NOT_ALLOWED:
                self._control.stop(f"not armed: {refusal}")  # changes nothing but the cause that is told
            return
        if self._wanted_mode is Mode.POLICY and self._control.set_mode(Mode.POLICY, now, "waiting for chunks").refusal:
            return
        self._wanted_mode = Mode.DISARMED

    def _arm_at(self, now: int, cause: str) -> Refusal | None:
        rival = None
        if self._control.mode is Mode.DISARMED:
            writers = filter(None, (self._command_writer, self._feedback_writer))
            rival = next(filter(None, (writer.rival(time.monotonic()) for writer in writers)), None)
        return Refusal(Reason.NOT_ALLOWED, rival) if rival else self._control.arm(now, cause)

    def _watch_writers(self, now: int) -> None:
        """A rival is a fault. A publisher of a node that is not known yet holds the arms until it is known."""
        control = self._control
        if self._feedback_writer and (stranger := self._feedback_writer.look(time.monotonic())):
            self._leave_robot(stranger)
            return
        stranger = self._command_writer.look(time.monotonic())
        if stranger is None:
            self._resume(now)
        elif stranger.rival:
            self._interrupted = None
            control.fault(stranger.text)
        elif control.engaged or control.mode is Mode.TELEOP:
            self._interrupted = Mode.TELEOP if control.mode is Mode.TELEOP else Mode.POLICY
            control.stop(stranger.text)

    def _leave_robot(self, stranger: Stranger) -> None:
        """Whoever gives feedback beside the simulation may be a robot: it gets no further command, not even to hold."""
        if stranger.rival:
            self._leave_to_person()
        else:
            self._wanted_mode = Mode[self.value("mode_on_activate")] if not self._attended else Mode.DISARMED
        self._control.disarm(stranger.text, at_once=True)

    def _resume(self, now: int) -> None:
        """Once only: what cannot go on now is put in command by a person."""
        mode, self._interrupted = self._interrupted, None
        if mode is None or self._control.mode is not Mode.HOLD:
            return
        refusal = self._control.set_mode(mode, now, "another node that publishes is an allowed one").refusal
        if refusal:
            self._control.stop(f"{mode.name} cannot go on after another node's publisher: {refusal}")

    def _publish(self, outputs: list, positions, now: int, command: Command | None = None) -> int:
        """How many messages were sent. Shadow messages, without a `command`, only go to those who listen."""
        stamp, sent = time_message(now), 0
        for limb, arm, gripper in outputs:
            for publisher, names, where in (
                (arm, list(limb.joints), limb.arm),
                (gripper, [limb.gripper], slice(limb.gripper_index, limb.gripper_index + 1)),
            ):
                if command is None and not publisher.get_subscription_count():
                    continue
                message = JointState(name=names, position=doubles(positions[where]))
                if command is not None and publisher is arm:
                    message.velocity = doubles(command.velocity_cap[where])
                message.header.stamp = stamp
                publisher.publish(message)
                sent += 1
        return sent

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
            armed_model=state.armed_model,
            chunks_accepted=state.chunks_accepted,
            chunks_refused=state.chunks_refused,
            last_refusal=state.last_refusal,
            refusals=[Counter(name=name, count=count) for name, count in self._refusals().items()],
            clamped_position=state.clamped_position,
            clamped_velocity=state.clamped_velocity,
            interventions=state.interventions,
            shadow_error_rad=state.shadow_error_rad,
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
        """A pedal: pressed takes over, released gives back. A switch that is refused holds the arms."""
        self._pedal_heard_s = time.monotonic()
        if not self.active or message.data == self._pedal:
            return
        self._pedal = message.data
        owned, interrupted = self._pedal_owns, self._interrupted
        if message.data:
            refusal = self._switch(Mode.TELEOP, "taken over by ~/takeover").refusal
            self._pedal_owns = refusal is None
        elif owned and Mode.TELEOP in (self._control.mode, interrupted):
            refusal = self._switch(Mode.POLICY, "given back by ~/takeover").refusal
            if refusal:
                self._control.stop(f"the policy cannot take over, holding instead: {refusal}")
        else:
            return
        if refusal:
            self.get_logger().warning(f"~/takeover refused: {refusal}")

    def _watch_pedal(self) -> None:
        """A pedal that is pressed says so again and again: whoever pressed one that fell silent may be gone, too. When
        it is back, still pressed, it has nothing to say until it was released.
        """
        limit_s = self.value("takeover_timeout_s")
        if self._pedal_owns and limit_s and time.monotonic() - self._pedal_heard_s > limit_s:
            held = Mode.TELEOP in (self._control.mode, self._interrupted)
            self._leave_to_person()
            if held:
                self._control.stop(f"~/takeover fell silent for {limit_s:g} s while pressed; release it, then press it")

    def _on_set_mode(self, request: SetMode.Request, response: SetMode.Response) -> SetMode.Response:
        if not self.active:
            response.message = "the node is not active"
            return response
        if request.mode not in REQUESTED_MODES:
            allowed = ", ".join(f"{mode.value} {mode.name}" for mode in REQUESTED_MODES)
            response.message = f"mode is {request.mode}; allowed: {allowed}"
            return response
        answer = self._switch(Mode(request.mode), "asked for by ~/set_mode")
        response.success, response.gap_rad = answer.refusal is None, answer.gap_rad
        response.message = str(answer.refusal or self._control.state.cause)
        if answer.refusal:
            self.get_logger().warning(f"set_mode {Mode(request.mode).name} refused: {answer.refusal}")
        return response

    def _switch(self, mode: Mode, cause: str) -> Answer:
        self._leave_to_person()
        now = self._now_ns()
        self._read(now)
        answer = self._control.set_mode(mode, now, cause)
        self._come_to_rest()
        return answer

    def _leave_to_person(self) -> None:
        """From a request on, a person decides about the mode."""
        self._wanted_mode, self._interrupted = Mode.DISARMED, None
        self._attended, self._pedal_owns = True, False

    def _arm(self) -> Refusal | None:
        now = self._now_ns()
        self._read(now)
        return self._arm_at(now, "armed by ~/arm; ~/set_mode puts a source in command")

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
            self._leave_to_person()
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

    def _prefer(self, priority: int) -> None:
        """Real-time scheduling of this process: a tick must not wait for a training run on the same cores.

        All threads get it, else the control thread would wait for locks that a starved middleware thread holds. Memory
        stays resident, else a tick would wait for pages that were given to somebody else.
        """
        _lock_memory(bool(priority))
        policy = os.SCHED_FIFO if priority else os.SCHED_OTHER
        try:
            for thread in os.listdir("/proc/self/task"):
                with contextlib.suppress(ProcessLookupError):  # it ended meanwhile
                    os.sched_setscheduler(int(thread), policy | os.SCHED_RESET_ON_FORK, os.sched_param(priority))
        except OSError:
            self.get_logger().info("no real-time priority (an rtprio limit allows it): ticks may come late under load")

    def _now_ns(self) -> int:
        return self.get_clock().now().nanoseconds


def _lock_memory(lock: bool) -> None:
    """As mlockall(2) does, where the user may; without that, memory is not locked."""
    libc = ctypes.CDLL(None)
    if lock:
        libc.mlockall(MCL_CURRENT | MCL_FUTURE | MCL_ONFAULT)
    else:
        libc.munlockall()


def main() -> int:
    # Over Fast DDS's shared memory, a publish call was seen to block for 0.28 s while a reader joined on an overloaded
    # machine; datagrams depend on no other process. Without effect where discovery is limited to this machine,
    # because the middleware then chooses the transports itself.
    os.environ.setdefault("FASTDDS_BUILTIN_TRANSPORTS", "UDPv4")
    return run(ChunkExecutorNode, about=__doc__, parameters=PARAMETERS, of_robot=robot_parameters)


if __name__ == "__main__":
    sys.exit(main())
