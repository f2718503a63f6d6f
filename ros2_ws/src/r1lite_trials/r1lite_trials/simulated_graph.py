"""The simulated graph as processes that can be broken and mended one by one, in a ROS domain of its own.

Between the robot and the policy, and between the policy and the executor, are relays that can spoil data.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from depthvla_msgs.msg import ActionChunk, ExecutorStatus
from depthvla_msgs.srv import ResetScene, SetMode
from rcl_interfaces.msg import Parameter, ParameterType, ParameterValue
from rcl_interfaces.srv import SetParameters
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CompressedImage, JointState
from std_msgs.msg import Bool
from std_srvs.srv import Trigger

from depthvla_control.arbiter import Mode
from depthvla_control.ros import qos
from depthvla_control.ros.messages import time_message
from depthvla_control.ros.probe import Probe, private_domain, wait_until
from r1lite_bringup.graph import Node, graph
from r1lite_bringup.process_launch import command
from r1lite_description import robot as robot_description
from r1lite_description.share import share
from r1lite_trials.listener import Listener
from r1lite_trials.relay import Relay
from r1lite_trials.stream import speed
from r1lite_trials.transport import use_loopback

SIMULATOR, POLICY, EXECUTOR, LEADER = "simulator_node", "policy_node", "chunk_executor_node", "leader_node"
START_S = 60.0  # torch is imported and MuJoCo compiled, on a machine that may have other things to do
ANSWER_S = 3.0
STOP_S = 10.0
FROZEN_AFTER_S = 0.3
CLOCK_PERIOD_S = 0.01
PEDAL_PERIOD_S = 0.1
MOVING_RAD_S = 0.2
MOVING_TICKS = 4
SETTLE_S = 0.2  # until feedback of a new scene has come through
RELAYED_LIMB = "right"  # the arm that the embedded policy was trained to use


class SimulatedGraph:
    """Nodes are started on entering and ended on leaving.

    Args:
        folder: for each node's output, <node>.txt.
        model: checkpoint: a folder, or the name of one in models/.
        leader: also start the scripted teleoperator.
        relays: put relays in, which cost processor time.
        feedback: keep the arms' feedback.
    """

    def __init__(
        self,
        folder: Path,
        *,
        model: str = "r1lite-small",
        leader: bool = False,
        relays: bool = False,
        feedback: bool = True,
    ) -> None:
        self.robot = robot_description.load()
        self.nodes = {node.name: node for node in graph({"robot": "sim", "model": model, "depth": "false"})}
        if leader:
            self.nodes[LEADER] = _leader()
        self.stream_begins_ns: list[int] = []  # when the executor was started or disarmed
        self.chunks: Relay | None = None
        self.cameras: dict[str, Relay] = {}
        self.feedback: Relay | None = None
        self.clock: SimulatedClock | None = None
        self._pressed: bool | None = None
        self._folder, self._with_relays, self._keep_feedback = folder, relays, feedback
        self._direct, self._relayed = self.nodes[EXECUTOR], False
        self._processes: dict[str, subprocess.Popen] = {}
        self._clients: dict[str, Any] = {}
        self._seeds = itertools.count()
        self._left = contextlib.ExitStack()

    def __enter__(self) -> SimulatedGraph:
        self._folder.mkdir(parents=True, exist_ok=True)
        with contextlib.ExitStack() as stack:
            stack.enter_context(private_domain())  # which puts the environment back, too
            self._use_network()
            self._listen(stack)
            stack.callback(self._end)
            for name in self.nodes:
                self.start(name)
            self._left = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._left.close()

    def _use_network(self) -> None:
        use_loopback(self._folder)

    def _listen(self, stack: contextlib.ExitStack) -> None:
        self.probe = stack.enter_context(Probe("trial"))
        self.listener = Listener(
            self.probe.node, self.robot, executor=EXECUTOR, policy=POLICY, feedback=self._keep_feedback
        )
        stack.callback(self.listener.close)
        if self._with_relays:
            self._put_relays_in()
        self._pedal = self.probe.publisher(Bool, f"/{EXECUTOR}/takeover")
        self.probe.every(PEDAL_PERIOD_S, self._repeat_pedal)

    @property
    def status(self) -> ExecutorStatus:
        """The executor's newest."""
        return self.listener.status[-1][1]

    @property
    def mode(self) -> Mode | None:
        return Mode(self.status.mode) if self.listener.status else None

    def set_parameters(self, name: str, **parameters: Any) -> None:
        """Of a node that is not running yet."""
        node = self.nodes[name]
        self.nodes[name] = dataclasses.replace(node, parameters={**node.parameters, **parameters})

    def start(self, name: str) -> None:
        if name == EXECUTOR:
            self.stream_begins_ns.append(time.time_ns())
        with open(self._folder / f"{name}.txt", "a") as output:
            self._processes[name] = subprocess.Popen(
                command(self.nodes[name]),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, "PYTHONUNBUFFERED": "1"},
                start_new_session=True,
            )

    def revive(self) -> None:
        """Starts what has ended and continues what was stopped."""
        for name, process in self._processes.items():
            if process.poll() is not None:
                self.start(name)
            else:
                process.send_signal(signal.SIGCONT)

    def pid(self, name: str) -> int:
        return self._processes[name].pid

    def send(self, name: str, number: signal.Signals) -> None:
        self._processes[name].send_signal(number)

    def wait_for_end(self, name: str) -> int:
        """The exit code. Raises AssertionError when it does not end in time."""
        try:
            return self._processes[name].wait(STOP_S)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"{name} still runs {STOP_S} s after a signal to end") from None

    def relay_executor(self, relayed: bool) -> None:
        """Whether the executor hears chunks and one arm's feedback through relays. Starts it anew for a change.

        A relay stays alive when the policy dies, so that death is only noticed as such without.
        """
        if relayed == self._relayed:
            return
        self._relayed = relayed
        arm = self.robot.limb(RELAYED_LIMB).topics.arm_feedback
        spoilt = {"~/action_chunk": _relayed("/chunks"), arm: _relayed(arm)} if relayed else {}
        remappings = tuple({**dict(self._direct.remappings), **spoilt}.items())
        parameters = {**self._direct.parameters, **({"feedback_publisher": ""} if relayed else {})}
        self.nodes[EXECUTOR] = dataclasses.replace(self._direct, parameters=parameters, remappings=remappings)
        self.send(EXECUTOR, signal.SIGTERM)
        self.wait_for_end(EXECUTOR)
        self.start(EXECUTOR)

    def follow_simulated_clock(self) -> None:
        """From now on the nodes take the time from /clock, which begins with this machine's."""
        if not self.clock.start():
            return
        value = ParameterValue(type=ParameterType.PARAMETER_BOOL, bool_value=True)
        request = SetParameters.Request(parameters=[Parameter(name="use_sim_time", value=value)])
        for name in self.nodes:
            results = self.call(SetParameters, f"/{name}/set_parameters", request).results
            if not results[0].successful:
                raise AssertionError(f"{name} refuses use_sim_time: {results[0].reason}")
        time.sleep(SETTLE_S)

    def call(self, service_type: type, name: str, request: Any = None, limit_s: float = ANSWER_S) -> Any:
        """The answer of a service. Raises AssertionError when there is none in time."""
        client = self._clients.get(name) or self.probe.node.create_client(service_type, name)
        self._clients[name] = client
        wait_until(client.service_is_ready, START_S, lambda: f"service {name}")
        future = client.call_async(request or service_type.Request())
        return wait_until(future.done, limit_s, lambda: f"an answer of {name}") and future.result()

    def ask(self, mode: Mode) -> SetMode.Response:
        return self.call(SetMode, f"/{EXECUTOR}/set_mode", SetMode.Request(mode=int(mode)))

    def press(self, pressed: bool) -> None:
        """The pedal, which repeats itself from now on."""
        self._pressed = pressed
        self._repeat_pedal()

    def _repeat_pedal(self) -> None:
        if self._pressed is not None:
            self._pedal.publish(Bool(data=self._pressed))

    def trigger(self, name: str) -> Trigger.Response:
        """arm, disarm, stop or reset_fault."""
        return self.call(Trigger, f"/{EXECUTOR}/{name}")

    def wait(self, condition: Callable[[], Any], what: str, limit_s: float = 20.0) -> Any:
        """The first true value. Raises AssertionError with what the executor and the policy said last."""

        def story() -> str:
            executor = [(Mode(s.mode).name, s.cause, s.last_refusal) for _, s in self.listener.status[-1:]]
            policy = [(s.producing, s.reason) for _, s in self.listener.policy_status[-1:]]
            return f"{what}; executor: {executor}; policy: {policy}"

        return wait_until(condition, limit_s, story)

    def wait_for_mode(self, mode: Mode, limit_s: float = 20.0) -> None:
        self.wait(lambda: self.mode is mode, mode.name, limit_s)

    def moving(self, at_least_rad_s: float = MOVING_RAD_S) -> bool:
        return speed(self.listener.commands(MOVING_TICKS), self.robot) > at_least_rad_s

    def start_episode(self) -> None:
        """Puts the scene back to a beginning and the policy in command; returns when the arms move."""
        self.disarm()
        request = ResetScene.Request(seed=next(self._seeds))
        self.wait(_succeeds(lambda: self.call(ResetScene, f"/{SIMULATOR}/reset", request)), "a reset", START_S)
        time.sleep(SETTLE_S)
        self.wait(_succeeds(lambda: self.trigger("arm")), "arming", START_S)
        self.wait(_succeeds(lambda: self.ask(Mode.POLICY)), "the policy in command")
        self.wait_for_mode(Mode.POLICY, START_S)
        self.wait(self.moving, "arms that move", START_S)

    def disarm(self) -> None:
        """Returns when that was heard: armed again within the same tick, the executor would not tell of it."""
        self.wait(_succeeds(lambda: self.trigger("disarm")), "disarming", START_S)
        self.wait_for_mode(Mode.DISARMED)
        self.stream_begins_ns.append(time.time_ns())

    def let_policy_move(self) -> None:
        """Returns when the policy is in command and the arms move, in a new scene where they do not."""
        if self.mode is Mode.POLICY:
            with contextlib.suppress(AssertionError):
                self.wait(self.moving, "arms that move", 2.0)
                return
        self.start_episode()

    def _put_relays_in(self) -> None:
        sensor = qos.stream("best_effort", 5)
        topics = {}
        for camera in self.robot.cameras:
            target = topics[f"cameras.{camera.name}.topic"] = _relayed(camera.topic)
            self.cameras[camera.name] = Relay(
                self.probe, CompressedImage, camera.topic, target, sensor, usual=_with_noise()
            )
        self.chunks = Relay(self.probe, ActionChunk, f"/{POLICY}/action_chunk", _relayed("/chunks"), qos.chunks())
        arm = self.robot.limb(RELAYED_LIMB).topics.arm_feedback
        self.feedback = Relay(self.probe, JointState, arm, _relayed(arm), sensor)
        self.clock = SimulatedClock(self.probe)
        self.set_parameters(POLICY, camera_frozen_after_s=FROZEN_AFTER_S, **topics)

    def _end(self) -> None:
        for number, limit_s in ((signal.SIGCONT, 0.0), (signal.SIGINT, STOP_S), (signal.SIGKILL, STOP_S)):
            running = [process for process in self._processes.values() if process.poll() is None]
            for process in running:
                with contextlib.suppress(ProcessLookupError):
                    process.send_signal(number)
            deadline = time.monotonic() + limit_s
            for process in running:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(max(deadline - time.monotonic(), 0.0))


class SimulatedClock:
    """/clock: this machine's time, set back by what `set_back` was told."""

    def __init__(self, probe: Probe) -> None:
        self._probe, self._behind_ns, self._running = probe, 0, False
        self._publisher = probe.publisher(Clock, "/clock", qos.stream("best_effort", 1))

    def start(self) -> bool:
        """False when it was running already."""
        if self._running:
            return False
        self._running = True
        self._probe.every(CLOCK_PERIOD_S, self._publish)
        return True

    def set_back(self, seconds: float) -> None:
        self._behind_ns += round(seconds * 1e9)

    def _publish(self) -> None:
        self._publisher.publish(Clock(clock=time_message(time.time_ns() - self._behind_ns)))


def _leader() -> Node:
    parameters: Mapping[str, Any] = {"autostart": True}
    file = share("r1lite_sim") / "config" / f"{LEADER}.param.yaml"
    return Node("r1lite_sim", LEADER, LEADER, parameter_file=file, parameters=parameters)


def _succeeds(request: Callable[[], Any]) -> Callable[[], bool]:
    def succeeded() -> bool:
        try:
            return request().success
        except AssertionError:  # a server that was started a moment ago may not know this client yet
            return False

    return succeeded


def _relayed(topic: str) -> str:
    return f"/relay{topic}"


def _with_noise() -> Callable[[CompressedImage], tuple[CompressedImage]]:
    """No two images of a real camera are the same; rendered ones of a still scene are. Decoders stop before the end."""
    numbers = itertools.count()

    def change(message: CompressedImage) -> tuple[CompressedImage]:
        message.data.extend(next(numbers).to_bytes(4, "big"))
        return (message,)

    return change
