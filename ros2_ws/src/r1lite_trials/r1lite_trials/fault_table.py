"""The faults: what must be seen of each, and how it is left. The prose is what docs/faults.md says."""

from __future__ import annotations

import signal
from dataclasses import dataclass
from enum import Enum

from depthvla_control.arbiter import Mode
from r1lite_trials import fault_injection as make
from r1lite_trials.simulated_graph import EXECUTOR, LEADER, POLICY, RELAYED_LIMB, SIMULATOR

ITSELF = ()
ASK = ("set_mode",)
ARM_AGAIN = ("arm_and_set_mode",)
RESET = ("reset_fault", "set_mode")


class Stops(Enum):
    """What has to stop."""

    COMMANDS = "commands"  # the stream goes on with one pose
    ARMS = "arms"  # there is no stream any more
    BRIEF = "brief"  # the arms are braked, and move on before it could be told whether they stand
    NOTHING = "nothing"  # the policy stays in command


@dataclass(frozen=True)
class Fault:
    """inject: how it is made (`fault_injection`).

    sign: regular expression for what the cause of the mode, or the newest refusal, has to say. Empty where the executor
        itself is gone.
    leave: requests that put the policy back in command once the fault is mended.
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
    inject: make.Inject
    sign: str
    stops: Stops = Stops.COMMANDS
    leave: tuple[str, ...] = ITSELF
    relayed: bool = False
    mode: Mode = Mode.POLICY
    lasts_s: float = 0.0
    drags: bool = False
    slow: bool = False


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
        make.ended(POLICY, signal.SIGKILL),
        "no sign of life",
        slow=True,
        drags=True,
    ),
    Fault(
        "policy stopped (SIGSTOP)",
        "the same",
        "the same",
        "by itself after SIGCONT",
        make.stopped(POLICY),
        "no sign of life",
    ),
    Fault(
        "policy ended (SIGTERM)",
        "it says so",
        "the same",
        "by itself when the policy is back",
        make.ended(POLICY, signal.SIGTERM),
        "withdrew: deactivated",
        slow=True,
    ),
    Fault(
        "executor killed (SIGKILL)",
        "by the robot: the stream ends",
        STREAM_ENDS,
        ARM_IT,
        make.ended(EXECUTOR, signal.SIGKILL),
        "",
        Stops.ARMS,
    ),
    Fault(
        "executor stopped (SIGSTOP)",
        "the same",
        STREAM_ENDS,
        ASKED,
        make.stopped(EXECUTOR),
        "",
        Stops.ARMS,
        leave=ASK,
        lasts_s=1.5,
    ),
    Fault(
        "executor ended (SIGTERM)",
        "it brakes and disarms",
        STREAM_ENDS,
        ARM_IT,
        make.ended(EXECUTOR, signal.SIGTERM),
        "",
        Stops.ARMS,
    ),
    Fault(
        "robot killed (SIGKILL of the simulator)",
        "age of the feedback, 0.2 s",
        LOST,
        ASKED + BEFORE_IT,
        make.ended(SIMULATOR, signal.SIGKILL),
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
        make.stopped(SIMULATOR),
        " s old",
        leave=ASK,
        lasts_s=1.0,
    ),
    Fault(
        "robot ended (SIGTERM of the simulator)",
        "the same",
        "the same",
        ASKED + BEFORE_IT,
        make.ended(SIMULATOR, signal.SIGTERM),
        " s old",
        leave=ARM_AGAIN,
        slow=True,
    ),
    Fault(
        "teleoperation dies (SIGKILL of the leader in TELEOP)",
        "age of the leader arms' messages, 0.2 s",
        "HOLD, also when the leader is back",
        "take over again",
        make.ended(LEADER, signal.SIGKILL),
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
        make.rival,
        "/rival publishes to|a node that is not known yet publishes to",
        leave=RESET,
    ),
    Fault(
        f"storm of {make.STORM_REQUESTS} requests, then `~/stop`",
        "the last request counts (timed from `~/stop`)",
        "every request is answered; HOLD",
        "`~/set_mode`",
        make.storm,
        "stopped by ~/stop",
        leave=ASK,
    ),
    Fault(
        "NaN in a chunk",
        "finite check of every value",
        RAN_OUT,
        RESUMES,
        make.edited(make.with_target(float("nan"))),
        "non-finite target",
        relayed=True,
    ),
    Fault(
        "wrong joints in a chunk",
        "names, count and order",
        RAN_OUT,
        RESUMES,
        make.edited(make.wrong_joints),
        "elbow",
        relayed=True,
    ),
    Fault(
        "target 1 rad and more outside the limits",
        "`gross_rad`",
        "FAULT; nearer ones are clamped and counted",
        "`~/reset_fault`, `~/set_mode`",
        make.edited(make.with_target(5.0)),
        "to 5.000 at step",
        leave=RESET,
        relayed=True,
    ),
    Fault(
        "chunk wholly past",
        "stamp against now",
        RAN_OUT,
        RESUMES,
        make.edited(make.stamped(-5.0)),
        "after its last step",
        relayed=True,
    ),
    Fault(
        "chunk from the future",
        "the same, limit 0.05 s",
        RAN_OUT,
        RESUMES,
        make.edited(make.stamped(2.0)),
        "ahead of this clock",
        relayed=True,
    ),
    Fault(
        "chunk of another model",
        "`model_id` against the armed one",
        RAN_OUT,
        "by itself with the armed model; for the other one `~/disarm`, `~/arm`, `~/set_mode`",
        make.edited(make.other_model),
        "is from model",
        relayed=True,
    ),
    Fault(
        "every chunk twice",
        "sequence and stamp",
        "the second is refused; the motion goes on",
        "-",
        make.chunks(make.twice),
        "not from a newer observation",
        Stops.NOTHING,
        relayed=True,
    ),
    Fault(
        "chunks in pairs, the newer first",
        "the same",
        "the older is refused; the motion goes on",
        "-",
        make.chunks(make.reordered),
        "not from a newer observation",
        Stops.NOTHING,
        relayed=True,
    ),
    Fault(
        f"latency spike of {make.LATENCY_S:g} s",
        "steps run out",
        "HOLD; chunks that come too late are refused as past",
        RESUMES,
        make.chunks(make.late),
        "ran out",
        lasts_s=make.LATENCY_S + 0.5,
        relayed=True,
    ),
    Fault(
        "camera stopped",
        "age of its image, 0.25 s, by the policy",
        "the policy withdraws what it predicted; HOLD",
        RESUMES,
        make.camera(make.nothing),
        "withdrew: camera",
        relayed=True,
    ),
    Fault(
        "camera frozen, same stamp",
        "the same, while messages keep coming",
        "the same",
        RESUMES,
        make.camera(make.same_message),
        "frozen: messages keep coming with the same stamp",
        relayed=True,
    ),
    Fault(
        "camera frozen, same image under new stamps",
        "equal to the bit for `camera_frozen_after_s` (0.3 s here)",
        "the same",
        RESUMES,
        make.camera(make.same_image),
        "frozen: the same image",
        relayed=True,
    ),
    Fault(
        f"feedback jumps by {make.JUMP_RAD:g} rad",
        "way since the last feedback against the tracker's speed",
        "FAULT",
        "`~/reset_fault`, `~/set_mode`",
        make.feedback(make.jumped),
        "jumped by",
        leave=RESET,
        relayed=True,
    ),
    Fault(
        "feedback of one arm stops",
        "its age, 0.2 s",
        LOST,
        ASKED,
        make.feedback(lambda message: ()),
        f"feedback of arm {RELAYED_LIMB}",
        leave=ASK,
        lasts_s=1.0,
        relayed=True,
    ),
    Fault(
        f"clock set back by {make.SET_BACK_S:g} s (`use_sim_time`)",
        "now against the last tick",
        "HOLD; whatever was stamped before is dropped",
        "by itself with feedback and a chunk of the new time",
        make.clock_set_back,
        # The policy may notice first: it has nothing left either.
        "the clock went back|has not been received",
        Stops.BRIEF,
        relayed=True,
    ),
)
