"""What counts as a usable measurement of a limb. The observation buffer and the executor use the same door."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from depthvla_policy.control.refusal import Reason, Refusal
from depthvla_policy.robot import Limb, Robot

# A joint this far beyond its limits is a wrong unit or a broken encoder, not an arm at its stop.
PLAUSIBLE_MARGIN_RAD = 0.2


def arm_stream(limb: str) -> str:
    return f"arm {limb}"


def gripper_stream(limb: str) -> str:
    return f"gripper {limb}"


def arm_positions(robot: Robot, limb: Limb, values: Sequence[float]) -> np.ndarray | Refusal:
    """Joint positions [rad], shape (joints,), from an arm's feedback; a gripper value appended to them is dropped."""
    stream, count = arm_stream(limb.name), len(limb.joints)
    if len(values) not in (count, count + 1):
        return Refusal(
            Reason.WRONG_COUNT, f"{stream} reports {len(values)} values; allowed: {count} or {count + 1}", stream
        )
    positions = np.asarray(values[:count], dtype=np.float64)
    if not np.all(np.isfinite(positions)):
        return Refusal(Reason.NON_FINITE, f"{stream} reports a non-finite position: {positions.tolist()}", stream)
    low = robot.position_min[limb.arm] - PLAUSIBLE_MARGIN_RAD
    high = robot.position_max[limb.arm] + PLAUSIBLE_MARGIN_RAD
    outside = np.flatnonzero((positions < low) | (positions > high))
    if outside.size:
        joint = outside[0]
        return Refusal(
            Reason.OUT_OF_RANGE,
            f"{limb.joints[joint]} reads {positions[joint]:.3f} rad; plausible: {low[joint]:.3f} to {high[joint]:.3f}",
            stream,
        )
    return positions


def gripper_opening(robot: Robot, limb: Limb, values: Sequence[float]) -> float | Refusal:
    """Gripper opening [mm] from its feedback."""
    stream = gripper_stream(limb.name)
    if len(values) != 1:
        return Refusal(Reason.WRONG_COUNT, f"{stream} reports {len(values)} values; allowed: 1", stream)
    opening = float(values[0])
    if not np.isfinite(opening):
        return Refusal(Reason.NON_FINITE, f"{stream} reports a non-finite opening: {opening}", stream)
    high = robot.gripper_feedback_max_mm
    # A closed gripper may read below zero by as much as an open one reads above its stroke.
    low = robot.position_min[limb.gripper_index] - (high - robot.position_max[limb.gripper_index])
    if not low <= opening <= high:
        return Refusal(
            Reason.OUT_OF_RANGE, f"{limb.gripper} reads {opening:.1f} mm; plausible: {low:.1f} to {high:.1f}", stream
        )
    return opening
