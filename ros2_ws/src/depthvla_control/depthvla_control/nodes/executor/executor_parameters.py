"""The chunk executor's parameters."""

from __future__ import annotations

from depthvla_control.executor_config import TAKE_OVERS, ExecutorConfig
from depthvla_control.ros import qos
from depthvla_control.ros.parameters import Parameter
from depthvla_control.timeline import STRATEGIES
from r1lite_description.robot import Robot

DEFAULT = ExecutorConfig()
START_MODES = ("DISARMED", "HOLD", "POLICY")


def _choice(name: str, description: str, low: float, high: float, read_only: bool = True) -> Parameter:
    """A parameter that is a field of `ExecutorConfig`."""
    return Parameter(name, getattr(DEFAULT, name), description, low, high, read_only=read_only)


CONFIG = (
    Parameter("strategy", DEFAULT.strategy, "How an old chunk and a new one are joined.", choices=STRATEGIES),
    _choice("blend_s", "Time from the old motion to the new one.", 0.0, 2.0),
    _choice("ensemble_decay_per_s", "How fast an observation loses weight with its age.", 0.0, 100.0),
    _choice("position_margin_rad", "Kept from every arm joint's position limits.", 0.0, 0.5),
    _choice("speed_scale", "Of the velocity limits; below 1 for first runs.", 0.01, 1.0, read_only=False),
    _choice("catch_up_scale", "Of the speed limits, beyond a new source's own speed, to catch up with it.", 0.01, 1.0),
    _choice("max_gap_rad", "No change of command when an arm joint is further from where it is wanted.", 0.0, 6.3),
    Parameter(
        "take_over", DEFAULT.take_over, "ramp: go to the leader's pose; reanchor: follow its way.", choices=TAKE_OVERS
    ),
    _choice("velocity_headroom", "The tracker's speed cap over the commanded speed.", 1.0, 10.0),
    _choice("max_feedback_age_s", "Hold when feedback of a limb is older; arming needs it this fresh.", 0.02, 5.0),
    _choice(
        "feedback_lost_s",
        "Older than this, the stream ends and nobody is in command; when it is back, the stream starts where the arms"
        " are.",
        0.02,
        5.0,
    ),
    _choice("max_leader_age_s", "Hold when a leader arm that is followed is silent for longer.", 0.02, 5.0),
    _choice("max_future_s", "How far a chunk's stamp may be ahead of this clock.", 0.001, 1.0),
    _choice("gross_rad", "A chunk further outside the arm's limits latches a fault; nearer is clamped.", 0.0, 10.0),
    _choice("gross_mm", "The same for grippers.", 0.0, 1000.0),
    _choice("max_feedback_jump_rad", "Fault when a joint moves by more, beyond what its tracker can.", 0.01, 10.0),
    _choice("max_tracking_error_rad", "Fault when an arm joint stays further from its command.", 0.01, 10.0),
    _choice("tracking_s", "How long it may.", 0.0, 10.0),
)
PARAMETERS = (
    Parameter("robot_file", "", "Robot description; empty takes the R1 Lite's of r1lite_description."),
    Parameter(
        "mode_on_activate",
        "DISARMED",
        "Mode to ask for, without a person, as soon as there is feedback. Other than DISARMED for simulation only.",
        choices=START_MODES,
    ),
    Parameter(
        "feedback_publisher",
        "",
        "Full name of the node whose feedback this one may arm itself on, as mode_on_activate says; whoever publishes"
        " it alone when empty. Another publisher of feedback is refused before and a fault after.",
    ),
    Parameter(
        "policy_lease_s",
        0.5,
        "Hold when the policy's publisher gave no sign of life for this long. Chunks of a publisher that offers no"
        " liveliness lease up to this are not received; 0 turns it off and waits until the steps run out.",
        0.0,
        10.0,
    ),
    Parameter(
        "takeover_timeout_s",
        0.5,
        "Hold when ~/takeover was last heard pressed for this long: a pedal repeats itself; 0 turns it off.",
        0.0,
        10.0,
    ),
    Parameter(
        "allowed_publishers",
        [""],
        "Nodes that may have a publisher on a command topic beside this one, because they are known to stay silent:"
        " full names, /namespace/name; with @here, or @HOST as a refusal to arm has it, on that host only.",
    ),
    Parameter(
        "realtime_priority",
        10,
        "SCHED_FIFO priority of the control thread while active, where the user is allowed to have one; 0: none.",
        0,
        90,
    ),
    *CONFIG,
)


def robot_parameters(robot: Robot) -> list[Parameter]:
    """Those whose defaults or names the robot's description gives."""
    reliabilities = tuple(qos.RELIABILITIES)
    table = [
        Parameter("command_rate_hz", robot.control_rate_hz, "Rate of the command stream.", 1.0, 200.0),
        Parameter("command_reliability", robot.qos.command, "QoS of the command topics.", choices=reliabilities),
        Parameter("sensor_reliability", robot.qos.sensor, "QoS of the feedback topics.", choices=reliabilities),
    ]
    for limb in robot.limbs:
        where = f"leader.{limb.name}"
        table += [
            Parameter(f"{where}.arm_topic", limb.topics.teleop, "Joint states of its leader arm; empty: none."),
            Parameter(f"{where}.gripper_topic", "", "Openings [mm] for its gripper, if the arm's do not carry them."),
        ]
    return table
