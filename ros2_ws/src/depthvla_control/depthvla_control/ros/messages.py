"""Messages to plain data and back: times, action chunks and plans. No OpenCV, no torch: the executor uses this."""

from __future__ import annotations

from array import array

import numpy as np
from builtin_interfaces.msg import Duration, Time
from depthvla_msgs.msg import ActionChunk
from depthvla_msgs.msg import Plan as PlanMessage
from trajectory_msgs.msg import JointTrajectory, JointTrajectoryPoint

from depthvla_control.chunk import MAX_STEPS, Chunk
from depthvla_control.execution_plan import Plan, check_plan
from depthvla_control.refusal import Reason, Refusal
from r1lite_description.robot import Limb, Robot

# time_from_start may be off k * step_duration by rounding, not by more.
TIMING_TOLERANCE_NS = 1_000_000


def time_message(time_ns: int) -> Time:
    seconds, nanoseconds = divmod(time_ns, 10**9)
    return Time(sec=seconds, nanosec=nanoseconds)


def duration_message(duration_ns: int) -> Duration:
    seconds, nanoseconds = divmod(duration_ns, 10**9)
    return Duration(sec=seconds, nanosec=nanoseconds)


def nanoseconds(message: Time | Duration) -> int:
    return message.sec * 10**9 + message.nanosec


def doubles(values: np.ndarray) -> array:
    """The fast way into a float64[] field; assigning numpy arrays costs a hundred times more."""
    return array("d", np.ascontiguousarray(values, dtype=np.float64).tobytes())


def chunk_to_message(chunk: Chunk, robot: Robot) -> ActionChunk:
    """Without instruction and timings, which are the sender's to fill in."""
    message = ActionChunk(sequence=chunk.sequence, model_id=chunk.model_id, horizon=chunk.steps)
    _set_steps(message, chunk, robot)
    return message


def chunk_from_message(message: ActionChunk, robot: Robot) -> Chunk | Refusal:
    """The chunk, or why the message is none. Values are judged later, by `control.chunk.check_chunk`."""
    name, steps = f"chunk {message.sequence}", message.horizon
    if not 1 <= steps <= MAX_STEPS:
        return Refusal(Reason.WRONG_COUNT, f"{name} has a horizon of {steps}; allowed: 1 to {MAX_STEPS}")
    positions = _steps(message, name, steps, robot)
    if isinstance(positions, Refusal):
        return positions
    period_ns = nanoseconds(message.step_duration)
    return Chunk(nanoseconds(message.header.stamp), message.sequence, period_ns, positions, message.model_id)


def plan_to_message(plan: Plan, robot: Robot) -> PlanMessage:
    message = PlanMessage(sequence=plan.sequence, latency=duration_message(plan.latency_ns))
    _set_steps(message, plan, robot)
    return message


def plan_from_message(message: PlanMessage, robot: Robot) -> Plan | Refusal:
    """The plan, or why the message is none."""
    name, steps = f"plan {message.sequence}", len(getattr(message, _field(robot.limbs[0])).points)
    positions = _steps(message, name, steps, robot)
    if isinstance(positions, Refusal):
        return positions
    plan = Plan(
        stamp_ns=nanoseconds(message.header.stamp),
        sequence=message.sequence,
        period_ns=nanoseconds(message.step_duration),
        latency_ns=nanoseconds(message.latency),
        positions=positions,
    )
    return check_plan(plan) or plan


def check_limbs(robot: Robot) -> None:
    """Raises ValueError for a robot whose limbs an ActionChunk has no place for."""
    known = [name.removesuffix("_arm") for name in ActionChunk.get_fields_and_field_types() if name.endswith("_arm")]
    names = [limb.name for limb in robot.limbs]
    if sorted(names) != sorted(known):
        raise ValueError(f"robot {robot.name!r} has limbs {names}; action chunks are for {known}")


def _set_steps(message: ActionChunk | PlanMessage, motion: Chunk | Plan, robot: Robot) -> None:
    message.header.stamp = time_message(motion.stamp_ns)
    message.step_duration = duration_message(motion.period_ns)
    for limb in robot.limbs:
        trajectory = JointTrajectory(header=message.header, joint_names=list(limb.names))
        trajectory.points = [
            JointTrajectoryPoint(
                positions=doubles(row[limb.slice]), time_from_start=duration_message(step * motion.period_ns)
            )
            for step, row in enumerate(motion.positions)
        ]
        setattr(message, _field(limb), trajectory)


def _steps(message: ActionChunk | PlanMessage, name: str, steps: int, robot: Robot) -> np.ndarray | Refusal:
    """(steps, size) positions of both arms."""
    positions, period_ns = np.empty((steps, robot.size)), nanoseconds(message.step_duration)
    for limb in robot.limbs:
        trajectory = getattr(message, _field(limb))
        if tuple(trajectory.joint_names) != limb.names:
            text = f"{name}: {_field(limb)} has joints {list(trajectory.joint_names)}; allowed: {list(limb.names)}"
            return Refusal(Reason.WRONG_JOINTS, text)
        if len(trajectory.points) != steps:
            text = f"{name}: {_field(limb)} has {len(trajectory.points)} points; expected {steps}"
            return Refusal(Reason.WRONG_COUNT, text)
        for step, point in enumerate(trajectory.points):
            if len(point.positions) != len(limb.names):
                text = f"{name}: {_field(limb)} has {len(point.positions)} positions at step {step}"
                return Refusal(Reason.WRONG_COUNT, f"{text}; allowed: {len(limb.names)}")
            from_start = nanoseconds(point.time_from_start)
            if abs(from_start - step * period_ns) > TIMING_TOLERANCE_NS:
                text = f"{name}: {_field(limb)} step {step} is {from_start * 1e-9:.3f} s from the start"
                return Refusal(Reason.WRONG_TIMING, f"{text}; expected {step * period_ns * 1e-9:.3f} s")
            positions[step, limb.slice] = point.positions
    return positions


def _field(limb: Limb) -> str:
    return f"{limb.name}_arm"
