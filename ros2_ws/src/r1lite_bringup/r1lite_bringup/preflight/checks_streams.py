"""Judges streams: how often messages come, how old their stamps are, and what joint states hold."""

from __future__ import annotations

import numpy as np

from depthvla_control.limb_feedback import arm_positions, gripper_opening
from depthvla_control.refusal import Refusal
from r1lite_bringup.preflight.findings import Check, Finding
from r1lite_bringup.preflight.measure import Sample
from r1lite_description.robot import Limb, Robot

CAMERA_RATES_HZ = (15.0, 30.0, 60.0)
NEAR = 0.9  # of a rate, that still is that rate
LOST_SHARE = 0.02
AHEAD_S = 0.01  # a stamp that much before its reception is a clock, not a rounding
# The description's limits are the hard stops less one degree; further out the zero of a joint is wrong.
STOP_MARGIN_RAD = 0.02
SMALL_OPENING = 1.05  # a gripper that is closed, or open on a scale of 0 to 1 or in metres

SILENT = (
    "the topic is there and nothing arrives: too small receive buffers; a container that runs as root beside the"
    " robot's own processes (use their user, or UDP only); or too many readers of this topic (end other tools)"
)
LOSSES = "raise the receive buffers (network: receive buffers), use the cable, end other readers of the cameras"
SYNCHRONISE = "synchronise the clocks of robot and host (chrony), instead of raising the limits"


def camera_rate(subject: str, sample: Sample, usual_hz: float, max_age_s: float) -> Finding:
    rates = sorted({*CAMERA_RATES_HZ, usual_hz})
    expected = f"{' or '.join(f'{rate:g}' for rate in rates)} Hz"
    named = next((rate for rate in rates if NEAR * rate <= sample.rate_hz <= rate / NEAR), None)
    name = f" (a {named:g} Hz camera)" if named else ""
    return _rate(subject, sample, expected, usual_hz / 2, odd=not named, name=name, max_age_s=max_age_s)


def joint_rate(subject: str, sample: Sample, usual_hz: float, max_age_s: float, max_skew_s: float) -> Finding:
    """A stream that is slower than max_skew_s has no sample near enough to an image."""
    odd = not sample.rate_hz >= NEAR * usual_hz
    return _rate(subject, sample, f"{usual_hz:g} Hz", 1.0 / max_skew_s, odd=odd, max_age_s=max_age_s)


def _rate(
    subject: str, sample: Sample, expected: str, least_hz: float, *, odd: bool, max_age_s: float, name: str = ""
) -> Finding:
    rate, gap = sample.rate_hz, sample.largest_gap_s
    check = Check(f"{subject}: rate", f"{expected}, at least {least_hz:g}" if rate < least_hz else expected)
    if len(sample) < 2:
        return check.fail(f"{len(sample)} messages", SILENT)
    lost = f", {sample.lost} of {len(sample) + sample.lost} lost" if sample.lost else ""
    gaps = f", once {gap:.2f} s nothing" if gap > max_age_s else ""
    seen = f"{rate:.1f} Hz{name}{lost}{gaps}"
    if rate < least_hz:
        return check.fail(seen, f"set its rate, or {LOSSES}")
    if odd or gaps or sample.lost > LOST_SHARE * len(sample):
        return check.warn(seen, LOSSES)
    return check.passed(seen)


def stamps(subject: str, sample: Sample, max_age_s: float, max_future_s: float) -> Finding:
    """Whether stamps advance and lie within the policy's limits on the receiver's clock."""
    allowed = f"advance; at most {max_age_s:g} s old, at most {max_future_s:g} s ahead"
    check = Check(f"{subject}: stamps", allowed)
    if not len(sample):
        return check.skip("no messages")
    if not all(sample.stamps_ns):
        return check.fail("0", "its driver must stamp messages with the time of capture")
    steps = np.diff(sample.stamps_ns)
    still = int(np.sum(steps <= 0))
    if still and still >= len(steps) / 2:
        seen = f"{still} of {len(steps)} do not advance"
        return check.fail(seen, "restart its driver: it sends the same message again")
    median, least = float(np.median(sample.delays_s)), float(np.min(sample.delays_s))
    seen = f"{_age(median)} in the median, {_age(least)} at least"
    if least < -max_future_s or median > max_age_s:
        return check.fail(seen, SYNCHRONISE)
    if still:
        return check.warn(f"{seen}; {still} of {len(steps)} do not advance", LOSSES)
    if least < -AHEAD_S or median > max_age_s / 2:
        return check.warn(seen, SYNCHRONISE)
    return check.passed(seen)


def _age(seconds: float) -> str:
    size, word = abs(seconds), "ahead" if seconds < 0 else "old"
    return f"{size:.2f} s {word}" if size >= 1.0 else f"{size * 1e3:.1f} ms {word}"


def joints(subject: str, sample: Sample, robot: Robot, limb: Limb) -> Finding:
    """Count, finiteness and range of an arm's feedback, as policy and executor will judge it."""
    count = len(limb.joints)
    check = Check(f"{subject}: joints", f"{count} values, or {count + 1} with the gripper appended, within the limits")
    if not sample.values:
        return check.skip("no messages")
    for state in sample.values:
        newest = arm_positions(robot, limb, state.position, state.name)
        if isinstance(newest, Refusal):
            todo = "order and unit must be J1 to J6 in rad; look at ros2 topic echo, and calibrate the arm's zero"
            return check.fail(str(newest), todo)
    over = np.maximum(robot.position_min[limb.arm] - newest, newest - robot.position_max[limb.arm])
    if np.max(over) > STOP_MARGIN_RAD:
        worst = int(np.argmax(over))
        seen = f"{limb.joints[worst]} at {newest[worst]:.3f} rad, {over[worst]:.3f} rad outside its limits"
        return check.warn(seen, "calibrate the arm's zero, or move it by hand")
    appended = ", the gripper appended" if len(state.position) > count else ""
    named = ", by their names" if set(state.name) & set(limb.joints) else ""
    values = ", ".join(f"{value:.2f}" for value in newest)
    return check.passed(f"{len(state.position)} values{appended}{named}: {values}")


def opening(subject: str, sample: Sample, robot: Robot, limb: Limb) -> Finding:
    """Range and unit of a gripper's feedback."""
    check = Check(f"{subject}: opening", f"1 value, 0 (closed) to {robot.gripper_feedback_max_mm:g} mm")
    if not sample.values:
        return check.skip("no messages")
    for state in sample.values:
        newest = gripper_opening(robot, limb, state.position, state.name)
        if isinstance(newest, Refusal):
            return check.fail(str(newest), "its unit must be mm, its topic the gripper's own")
    if newest <= SMALL_OPENING:
        todo = "open the gripper with the vendor's tools and look again: it must read 96 mm or more, not 1 or 0.1"
        return check.warn(f"{newest:.2f}: closed, or not in mm", todo)
    return check.passed(f"{newest:.1f} mm")
