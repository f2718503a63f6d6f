"""What counts as a usable measurement of a limb. The observation buffer and the executor use the same door."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from depthvla_control.refusal import Reason, Refusal
from r1lite_description.robot import Limb, Robot

# A joint this far beyond its limits is a wrong unit or a broken encoder, not an arm at its stop.
PLAUSIBLE_MARGIN_RAD = 0.2


def arm_stream(limb: str) -> str:
    return f"arm {limb}"


def gripper_stream(limb: str) -> str:
    return f"gripper {limb}"


def in_place(robot: Robot, wanted: Sequence[str], values: Sequence[float], names: Sequence[str]) -> np.ndarray | str:
    """Values of a JointState in the order of `wanted`, which has a name for each; or what is wrong with their names.

    Names of the description belong to their values wherever they stand. The robot itself sends a placeholder or none
    (`name` is ['left_arm'] for six positions), and there the place counts; so it does for other names that nobody
    here knows, one a value.
    """
    grippers = tuple(limb.gripper for limb in robot.limbs)
    places = _places(tuple(names), tuple(wanted), robot.joint_names, grippers)
    return places if isinstance(places, str) else np.asarray(values, dtype=np.float64)[list(places)]


def arm_positions(robot: Robot, limb: Limb, values: Sequence[float], names: Sequence[str] = ()) -> np.ndarray | Refusal:
    """Joint positions [rad], shape (joints,), from an arm's feedback; a gripper value that comes with them is dropped.

    values, names: `position` and `name` of a JointState, see `in_place`.
    """
    stream, count = arm_stream(limb.name), len(limb.joints)
    if len(values) not in (count, count + 1):
        return Refusal(
            Reason.WRONG_COUNT, f"{stream} reports {len(values)} values; allowed: {count} or {count + 1}", stream
        )
    ordered = in_place(robot, limb.names[: len(values)], values, names)
    if isinstance(ordered, str):
        return Refusal(Reason.WRONG_JOINTS, f"{stream}: {ordered}", stream)
    positions = ordered[:count]
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


def gripper_opening(robot: Robot, limb: Limb, values: Sequence[float], names: Sequence[str] = ()) -> float | Refusal:
    """Gripper opening [mm] from its feedback: `position` and `name` of a JointState, see `in_place`."""
    stream = gripper_stream(limb.name)
    if len(values) != 1:
        return Refusal(Reason.WRONG_COUNT, f"{stream} reports {len(values)} values; allowed: 1", stream)
    ordered = in_place(robot, (limb.gripper,), values, names)
    if isinstance(ordered, str):
        return Refusal(Reason.WRONG_JOINTS, f"{stream}: {ordered}", stream)
    opening = float(ordered[0])
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


@lru_cache(maxsize=256)
def _places(
    names: tuple[str, ...], wanted: tuple[str, ...], known: tuple[str, ...], grippers: tuple[str, ...]
) -> tuple[int, ...] | str:
    """Where among the names each that is wanted stands, or why they do not tell."""
    names, count = names if any(names) else (), len(wanted)
    if set(names) & set(known):
        if sorted(names) != sorted(wanted):
            return f"names are {list(names)} for {count} values; allowed: {list(wanted)} in any order, or a placeholder"
        return tuple(names.index(name) for name in wanted)
    if len(names) not in (0, 1, count):
        return f"names are {list(names)} for {count} values; allowed: as many, a placeholder or none"
    if len(set(names)) != len(names):
        return f"names {list(names)} repeat themselves"
    if count > 1 and wanted[-1] in grippers and _numbers(names):
        return f"names {list(names)} number {count} joints; allowed: {count - 1}, and a gripper"
    if _numbers(names) != sorted(_numbers(names)):
        return f"names {list(names)} are not known, and are numbered in another order than {list(wanted)}"
    return tuple(range(count))


def _numbers(names: tuple[str, ...]) -> list[int]:
    """The numbers that all of several names differ by (joint1, joint2, ...); empty where they do not."""
    ends = [re.fullmatch(r"(.*?)(\d+)(\D*)", name) for name in names]
    if not all(ends) or len({(end[1], end[3]) for end in ends}) != 1:
        return []
    return [int(end[2]) for end in ends]
