"""The faults: how each is made, what must be seen of it, and how it is left. The prose is what docs/faults.md says."""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import Enum
from random import Random

from depthvla_msgs.msg import ActionChunk, ExecutorStatus
from depthvla_msgs.srv import SetMode
from sensor_msgs.msg import JointState
from std_srvs.srv import Trigger

from depthvla_control.arbiter import Mode
from depthvla_control.ros import qos
from depthvla_control.ros.messages import nanoseconds, time_message
from depthvla_control.ros.probe import Probe
from r1lite_trials.relay import Change
from r1lite_trials.rig import EXECUTOR, LEADER, POLICY, RELAYED_LIMB, SIMULATOR, Rig

ARM, JOINT = f"{RELAYED_LIMB}_arm", 1  # what is spoilt: a joint that stays far from its limits
JUMP_RAD = 0.8
LATENCY_S = 2.0
SET_BACK_S = 5.0
STORM_REQUESTS, IN_FLIGHT = 300, 8
AGAIN_S = 0.03  # until a chunk comes once more: the executor's queue holds only the newest
ITSELF = ()
ASK = ("set_mode",)
ARM_AGAIN = ("arm_and_set_mode",)
RESET = ("reset_fault", "set_mode")

Inject = Callable[[Rig, Random], contextlib.AbstractContextManager]


class Stand(Enum):
    """What has to come to a stand."""

    COMMANDS = "commands"  # the stream goes on with one pose
    ARMS = "arms"  # there is no stream any more
    BRIEF = "brief"  # the arms are braked, and move on before it could be told whether they stand
    NOTHING = "nothing"  # the policy stays in command


@dataclass(frozen=True)
class Fault:
    """`inject` makes the fault when it is entered and mends it when left; it may yield the time [ns] of the fault.

    sign: regular expression for what the cause of the mode, or the newest refusal, has to say. Empty where the executor
        itself is gone.
    leave: requests that put the policy back in command once the fault is mended.
    stays: without those the executor does not move the arms again.
    relayed: needs the relays before the executor.
    mode: who is in command when it happens.
    lasts_s: the fault is not mended earlier.
    drags: it may take others with it, so that one of them is named.
    slow: a process that takes long to start has to be started again.
    """

    name: str
    detection: str
    happens: str
    how_to_leave: str
    inject: Inject
    sign: str
    stand: Stand = Stand.COMMANDS
    leave: tuple[str, ...] = ITSELF
    relayed: bool = False
    mode: Mode = Mode.POLICY
    lasts_s: float = 0.0
    drags: bool = False
    slow: bool = False


def ended(name: str, number: signal.Signals) -> Inject:
    """A signal that ends a process, which is started anew afterwards."""

    @contextlib.contextmanager
    def inject(rig: Rig, random: Random) -> Iterator[None]:
        rig.send(name, number)
        try:
            yield
        finally:
            rig.wait_for_end(name)
            rig.start(name)

    return inject


def stopped(name: str) -> Inject:
    """SIGSTOP, and SIGCONT afterwards."""

    @contextlib.contextmanager
    def inject(rig: Rig, random: Random) -> Iterator[None]:
        rig.send(name, signal.SIGSTOP)
        try:
            yield
        finally:
            rig.send(name, signal.SIGCONT)

    return inject


def chunks(make: Callable[[Rig, Random], Change]) -> Inject:
    """Every chunk from now on is spoilt."""

    @contextlib.contextmanager
    def inject(rig: Rig, random: Random) -> Iterator[None]:
        rig.chunks.change = make(rig, random)
        try:
            yield
        finally:
            rig.chunks.restore()

    return inject


def edited(edit: Callable[[ActionChunk, Random], None]) -> Inject:
    def make(rig: Rig, random: Random) -> Change:
        def change(message: ActionChunk) -> tuple[ActionChunk]:
            edit(message, random)
            return (message,)

        return change

    return chunks(make)


def camera(make: Callable[[], Change]) -> Inject:
    """One camera, drawn anew for each run."""

    @contextlib.contextmanager
    def inject(rig: Rig, random: Random) -> Iterator[None]:
        relay = rig.cameras[random.choice(sorted(rig.cameras))]
        relay.change = make()
        try:
            yield
        finally:
            relay.restore()

    return inject


def feedback(change: Change) -> Inject:
    @contextlib.contextmanager
    def inject(rig: Rig, random: Random) -> Iterator[None]:
        rig.feedback.change = change
        try:
            yield
        finally:
            rig.feedback.restore()

    return inject


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


def twice(rig: Rig, random: Random) -> Change:
    def change(message: ActionChunk) -> tuple[ActionChunk]:
        rig.chunks.send_later(message, AGAIN_S)
        return (message,)

    return change


def reordered(rig: Rig, random: Random) -> Change:
    held_back: list[ActionChunk] = []

    def change(message: ActionChunk) -> tuple[ActionChunk, ...]:
        if not held_back:
            held_back.append(message)
            return ()
        rig.chunks.send_later(held_back.pop(), AGAIN_S)
        return (message,)

    return change


def late(rig: Rig, random: Random) -> Change:
    def change(message: ActionChunk) -> tuple[()]:
        rig.chunks.send_later(message, LATENCY_S)
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
def rival(rig: Rig, random: Random) -> Iterator[int]:
    """Another node that could write, and does not: in the simulation it would only pull the arms to and fro."""
    with Probe("rival") as other:
        heard = other.listen(ExecutorStatus, f"/{EXECUTOR}/status", qos.status())
        other.wait_for(lambda: heard)  # they know of one another: the start of a participant takes DDS seconds
        begun_ns = time.time_ns()
        limb = random.choice(rig.robot.limbs)
        other.publisher(JointState, random.choice([limb.topics.arm_command, limb.topics.gripper_command]))
        yield begun_ns


@contextlib.contextmanager
def storm(rig: Rig, random: Random) -> Iterator[int]:
    """Hundreds of requests at once, in no order that makes sense, and then a stop."""
    set_mode = rig.probe.node.create_client(SetMode, f"/{EXECUTOR}/set_mode")
    triggers = [rig.probe.node.create_client(Trigger, f"/{EXECUTOR}/{name}") for name in ("arm", "stop")]
    try:
        rig.wait(lambda: all(client.service_is_ready() for client in (set_mode, *triggers)), "services")
        waiting = []
        for _ in range(STORM_REQUESTS):
            rig.wait(lambda: sum(not future.done() for future in waiting) < IN_FLIGHT, "answers")
            client = random.choice([set_mode, set_mode, *triggers])
            request = client.srv_type.Request()
            if client is set_mode:
                request.mode = random.choice([Mode.HOLD, Mode.TELEOP, Mode.POLICY]).value
            waiting.append(client.call_async(request))
        rig.wait(lambda: all(future.done() for future in waiting), f"{STORM_REQUESTS} answers")
        rig.ask(Mode.POLICY)
        rig.wait_for_mode(Mode.POLICY)
        begun_ns = time.time_ns()
        rig.trigger("stop")
        yield begun_ns
    finally:
        for client in (set_mode, *triggers):
            rig.probe.node.destroy_client(client)


@contextlib.contextmanager
def clock_set_back(rig: Rig, random: Random) -> Iterator[int]:
    """The nodes stay on the simulated clock afterwards: going back to the machine's would be another jump."""
    rig.follow_simulated_clock()
    rig.let_policy_move()
    begun_ns = time.time_ns()
    rig.clock.set_back(SET_BACK_S)
    yield begun_ns


RAN_OUT = (
    "the chunk is refused whole, with its reason; the arms follow the last good chunk until it runs out, then hold"
)
RESUMES = "by itself with the next good chunk"
STREAM_ENDS = "no stream; the robot's trackers stop the arms (in simulation 0.2 s after the last command)"
LOST = "HOLD; after 0.5 s the stream ends and nobody is in command"
ASKED = "`~/set_mode`: the stream starts anew where the arms are"
BEFORE_IT = "; in a simulation `~/arm` before it, since whoever publishes feedback anew might be a robot"
ARM_IT = "start it, `~/arm`, `~/set_mode` (the simulation's graph does both by itself)"

# The simulated clock comes last, because it stays.
FAULTS: tuple[Fault, ...] = (
    Fault(
        "policy killed (SIGKILL)",
        "liveliness lease of its chunk publisher, 0.5 s",
        "HOLD; the rest of the chunk is dropped",
        "by itself when the policy is back",
        ended(POLICY, signal.SIGKILL),
        "no sign of life",
        slow=True,
        drags=True,
    ),
    Fault(
        "policy stopped (SIGSTOP)",
        "the same",
        "the same",
        "by itself after SIGCONT",
        stopped(POLICY),
        "no sign of life",
    ),
    Fault(
        "policy ended (SIGTERM)",
        "it says so",
        "the same",
        "by itself when the policy is back",
        ended(POLICY, signal.SIGTERM),
        "withdrew: deactivated",
        slow=True,
    ),
    Fault(
        "executor killed (SIGKILL)",
        "by the robot: the stream ends",
        STREAM_ENDS,
        ARM_IT,
        ended(EXECUTOR, signal.SIGKILL),
        "",
        Stand.ARMS,
    ),
    Fault(
        "executor stopped (SIGSTOP)",
        "the same",
        STREAM_ENDS,
        ASKED,
        stopped(EXECUTOR),
        "",
        Stand.ARMS,
        leave=ASK,
        lasts_s=1.5,
    ),
    Fault(
        "executor ended (SIGTERM)",
        "it brakes and disarms",
        STREAM_ENDS,
        ARM_IT,
        ended(EXECUTOR, signal.SIGTERM),
        "",
        Stand.ARMS,
    ),
    Fault(
        "robot killed (SIGKILL of the simulator)",
        "age of the feedback, 0.2 s",
        LOST,
        ASKED + BEFORE_IT,
        ended(SIMULATOR, signal.SIGKILL),
        " s old",
        leave=ARM_AGAIN,
        slow=True,
        drags=True,
    ),
    Fault(
        "robot stopped (SIGSTOP of the simulator)",
        "the same",
        "the same",
        ASKED,
        stopped(SIMULATOR),
        " s old",
        leave=ASK,
        lasts_s=1.0,
    ),
    Fault(
        "robot ended (SIGTERM of the simulator)",
        "the same",
        "the same",
        ASKED + BEFORE_IT,
        ended(SIMULATOR, signal.SIGTERM),
        " s old",
        leave=ARM_AGAIN,
        slow=True,
    ),
    Fault(
        "teleoperation dies (SIGKILL of the leader in TELEOP)",
        "age of the leader arms' messages, 0.2 s",
        "HOLD, also when the leader is back",
        "take over again",
        ended(LEADER, signal.SIGKILL),
        "leader",
        leave=("take_over", "set_mode"),
        mode=Mode.TELEOP,
        drags=True,
    ),
    Fault(
        "rival publisher",
        "number of publishers of every command topic, at every tick; names where it changed",
        "HOLD while the node is not known, then FAULT, which names it",
        "stop it, `~/reset_fault`, `~/set_mode`",
        rival,
        "/rival publishes to|a node that is not known yet publishes to",
        leave=RESET,
    ),
    Fault(
        f"storm of {STORM_REQUESTS} requests, then `~/stop`",
        "the last request counts (timed from `~/stop`)",
        "every request is answered; HOLD",
        "`~/set_mode`",
        storm,
        "stopped by ~/stop",
        leave=ASK,
    ),
    Fault(
        "NaN in a chunk",
        "finite check of every value",
        RAN_OUT,
        RESUMES,
        edited(with_target(float("nan"))),
        "non-finite target",
        relayed=True,
    ),
    Fault(
        "wrong joints in a chunk",
        "names, count and order",
        RAN_OUT,
        RESUMES,
        edited(wrong_joints),
        "elbow",
        relayed=True,
    ),
    Fault(
        "target 1 rad and more outside the limits",
        "`gross_rad`",
        "FAULT; nearer ones are clamped and counted",
        "`~/reset_fault`, `~/set_mode`",
        edited(with_target(5.0)),
        "to 5.000 at step",
        leave=RESET,
        relayed=True,
    ),
    Fault(
        "chunk wholly past",
        "stamp against now",
        RAN_OUT,
        RESUMES,
        edited(stamped(-5.0)),
        "after its last step",
        relayed=True,
    ),
    Fault(
        "chunk from the future",
        "the same, limit 0.05 s",
        RAN_OUT,
        RESUMES,
        edited(stamped(2.0)),
        "ahead of this clock",
        relayed=True,
    ),
    Fault(
        "chunk of another model",
        "`model_id` against the armed one",
        RAN_OUT,
        "by itself with the armed model; for the other one `~/disarm`, `~/arm`, `~/set_mode`",
        edited(other_model),
        "is from model",
        relayed=True,
    ),
    Fault(
        "every chunk twice",
        "sequence and stamp",
        "the second is refused; the motion goes on",
        "-",
        chunks(twice),
        "not from a newer observation",
        Stand.NOTHING,
        relayed=True,
    ),
    Fault(
        "chunks in pairs, the newer first",
        "the same",
        "the older is refused; the motion goes on",
        "-",
        chunks(reordered),
        "not from a newer observation",
        Stand.NOTHING,
        relayed=True,
    ),
    Fault(
        f"latency spike of {LATENCY_S:g} s",
        "steps run out",
        "HOLD; chunks that come too late are refused as past",
        RESUMES,
        chunks(late),
        "ran out",
        lasts_s=LATENCY_S + 0.5,
        relayed=True,
    ),
    Fault(
        "camera stopped",
        "age of its image, 0.25 s, by the policy",
        "the policy withdraws what it predicted; HOLD",
        RESUMES,
        camera(nothing),
        "withdrew: camera",
        relayed=True,
    ),
    Fault(
        "camera frozen, same stamp",
        "the same, while messages keep coming",
        "the same",
        RESUMES,
        camera(same_message),
        "frozen: messages keep coming with the same stamp",
        relayed=True,
    ),
    Fault(
        "camera frozen, same image under new stamps",
        "equal to the bit for `camera_frozen_after_s` (0.3 s here)",
        "the same",
        RESUMES,
        camera(same_image),
        "frozen: the same image",
        relayed=True,
    ),
    Fault(
        f"feedback jumps by {JUMP_RAD:g} rad",
        "way since the last feedback against the tracker's speed",
        "FAULT",
        "`~/reset_fault`, `~/set_mode`",
        feedback(jumped),
        "jumped by",
        leave=RESET,
        relayed=True,
    ),
    Fault(
        "feedback of one arm stops",
        "its age, 0.2 s",
        LOST,
        ASKED,
        feedback(lambda message: ()),
        f"feedback of arm {RELAYED_LIMB}",
        leave=ASK,
        lasts_s=1.0,
        relayed=True,
    ),
    Fault(
        f"clock set back by {SET_BACK_S:g} s (`use_sim_time`)",
        "now against the last tick",
        "HOLD; whatever was stamped before is dropped",
        "by itself with feedback and a chunk of the new time",
        clock_set_back,
        # The policy may notice first: it has nothing left either.
        "the clock went back|has not been received",
        Stand.BRIEF,
        relayed=True,
    ),
)
