"""How faults are made: processes ended, data spoilt on its way, another node, hundreds of requests, a clock set back.

An injection makes the fault when it is entered and mends it when left; it may yield the time [ns] of the fault.
"""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Callable, Iterator
from random import Random

from depthvla_msgs.msg import ActionChunk, ExecutorStatus
from depthvla_msgs.srv import SetMode
from sensor_msgs.msg import JointState
from std_srvs.srv import Trigger

from depthvla_control.arbiter import Mode
from depthvla_control.ros import qos
from depthvla_control.ros.messages import nanoseconds, time_message
from depthvla_control.ros.probe import Probe
from r1lite_trials.relay import Change, Relay
from r1lite_trials.simulated_graph import EXECUTOR, RELAYED_LIMB, SimulatedGraph

ARM, JOINT = f"{RELAYED_LIMB}_arm", 1  # what is spoilt: a joint that stays far from its limits
JUMP_RAD = 0.8
LATENCY_S = 2.0
SET_BACK_S = 5.0
STORM_REQUESTS, IN_FLIGHT = 300, 8
AGAIN_S = 0.03  # until a chunk comes once more: the executor's queue holds only the newest

Inject = Callable[[SimulatedGraph, Random], contextlib.AbstractContextManager]


def ended(name: str, number: signal.Signals) -> Inject:
    """A signal that ends a process, which is started anew afterwards."""

    @contextlib.contextmanager
    def inject(graph: SimulatedGraph, random: Random) -> Iterator[None]:
        graph.send(name, number)
        try:
            yield
        finally:
            graph.wait_for_end(name)
            graph.start(name)

    return inject


def stopped(name: str) -> Inject:
    """SIGSTOP, and SIGCONT afterwards."""

    @contextlib.contextmanager
    def inject(graph: SimulatedGraph, random: Random) -> Iterator[None]:
        graph.send(name, signal.SIGSTOP)
        try:
            yield
        finally:
            graph.send(name, signal.SIGCONT)

    return inject


def relayed(choose: Callable[[SimulatedGraph, Random], tuple[Relay, Change]]) -> Inject:
    """What a relay passes on is spoilt."""

    @contextlib.contextmanager
    def inject(graph: SimulatedGraph, random: Random) -> Iterator[None]:
        relay, change = choose(graph, random)
        relay.change = change
        try:
            yield
        finally:
            relay.restore()

    return inject


def chunks(make: Callable[[SimulatedGraph, Random], Change]) -> Inject:
    """Every chunk from now on is spoilt."""
    return relayed(lambda graph, random: (graph.chunks, make(graph, random)))


def edited(edit: Callable[[ActionChunk, Random], None]) -> Inject:
    def make(graph: SimulatedGraph, random: Random) -> Change:
        def change(message: ActionChunk) -> tuple[ActionChunk]:
            edit(message, random)
            return (message,)

        return change

    return chunks(make)


def camera(make: Callable[[], Change]) -> Inject:
    """One camera, drawn anew for each run."""
    return relayed(lambda graph, random: (graph.cameras[random.choice(sorted(graph.cameras))], make()))


def feedback(change: Change) -> Inject:
    return relayed(lambda graph, random: (graph.feedback, change))


def with_target(value: float) -> Callable[[ActionChunk, Random], None]:
    """One joint at one step, drawn for each chunk."""

    def edit(message: ActionChunk, random: Random) -> None:
        point = random.choice(getattr(message, ARM).points)
        point.positions[random.randrange(len(point.positions) - 1)] = value

    return edit


def wrong_joints(message: ActionChunk, random: Random) -> None:
    getattr(message, ARM).joint_names[random.randrange(6)] = "elbow"


def other_model(message: ActionChunk, random: Random) -> None:
    message.model_id = "another@0123456789ab"


def stamped(seconds: float) -> Callable[[ActionChunk, Random], None]:
    def edit(message: ActionChunk, random: Random) -> None:
        message.header.stamp = time_message(nanoseconds(message.header.stamp) + round(seconds * 1e9))

    return edit


def twice(graph: SimulatedGraph, random: Random) -> Change:
    def change(message: ActionChunk) -> tuple[ActionChunk]:
        graph.chunks.send_later(message, AGAIN_S)
        return (message,)

    return change


def reordered(graph: SimulatedGraph, random: Random) -> Change:
    held_back: list[ActionChunk] = []

    def change(message: ActionChunk) -> tuple[ActionChunk, ...]:
        if not held_back:
            held_back.append(message)
            return ()
        graph.chunks.send_later(held_back.pop(), AGAIN_S)
        return (message,)

    return change


def late(graph: SimulatedGraph, random: Random) -> Change:
    def change(message: ActionChunk) -> tuple[()]:
        graph.chunks.send_later(message, LATENCY_S)
        return ()

    return change


def nothing() -> Change:
    return lambda message: ()


def same_message() -> Change:
    kept = []

    def change(message) -> tuple:
        kept[:] = kept or [message]
        return tuple(kept)

    return change


def same_image() -> Change:
    kept = []

    def change(message) -> tuple:
        kept[:] = kept or [message.data]
        message.data = kept[0]
        return (message,)

    return change


def jumped(message: JointState) -> tuple[JointState]:
    message.position[JOINT] += JUMP_RAD if message.position[JOINT] < 1.6 else -JUMP_RAD
    return (message,)


@contextlib.contextmanager
def rival(graph: SimulatedGraph, random: Random) -> Iterator[int]:
    """Another node that could write, and does not: in the simulation it would only pull the arms to and fro."""
    with Probe("rival") as other:
        heard = other.listen(ExecutorStatus, f"/{EXECUTOR}/status", qos.status())
        other.wait_for(lambda: heard)  # they know of one another: the start of a participant takes DDS seconds
        begun_ns = time.time_ns()
        limb = random.choice(graph.robot.limbs)
        other.publisher(JointState, random.choice([limb.topics.arm_command, limb.topics.gripper_command]))
        yield begun_ns


@contextlib.contextmanager
def storm(graph: SimulatedGraph, random: Random) -> Iterator[int]:
    """Hundreds of requests at once, in no order that makes sense, and then a stop."""
    set_mode = graph.probe.node.create_client(SetMode, f"/{EXECUTOR}/set_mode")
    triggers = [graph.probe.node.create_client(Trigger, f"/{EXECUTOR}/{name}") for name in ("arm", "stop")]
    try:
        graph.wait(lambda: all(client.service_is_ready() for client in (set_mode, *triggers)), "services")
        waiting = []
        for _ in range(STORM_REQUESTS):
            graph.wait(lambda: sum(not future.done() for future in waiting) < IN_FLIGHT, "answers")
            client = random.choice([set_mode, set_mode, *triggers])
            request = client.srv_type.Request()
            if client is set_mode:
                request.mode = random.choice([Mode.HOLD, Mode.TELEOP, Mode.POLICY]).value
            waiting.append(client.call_async(request))
        graph.wait(lambda: all(future.done() for future in waiting), f"{STORM_REQUESTS} answers")
        graph.ask(Mode.POLICY)
        graph.wait_for_mode(Mode.POLICY)
        begun_ns = time.time_ns()
        graph.trigger("stop")
        yield begun_ns
    finally:
        for client in (set_mode, *triggers):
            graph.probe.node.destroy_client(client)


@contextlib.contextmanager
def clock_set_back(graph: SimulatedGraph, random: Random) -> Iterator[int]:
    """The nodes stay on the simulated clock afterwards: going back to the machine's would be another jump."""
    graph.follow_simulated_clock()
    graph.let_policy_move()
    begun_ns = time.time_ns()
    graph.clock.set_back(SET_BACK_S)
    yield begun_ns
