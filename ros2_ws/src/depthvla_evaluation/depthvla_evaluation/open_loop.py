"""How far predicted chunks are from what was commanded in a recording: open-loop error per step and joint.

The robot went where it was commanded, not where the chunk would have taken it: this judges predictions, not policies.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from depthvla_control.chunk import Chunk
from depthvla_evaluation.bags.bag import Bag, JointStream, joint_stream
from r1lite_description.robot import Robot

MAX_GAP_NS = 200_000_000  # between two commands, for what lies between them to count as commanded


@dataclass(frozen=True)
class OpenLoop:
    """Predicted less commanded, (chunks, steps, size) rad and mm; NaN where nothing was commanded.

    `standing` is the same for a prediction that the robot stays where it was measured at the chunk's stamp: an error is
    small when it is small beside this.
    """

    stamps_ns: np.ndarray  # (chunks,)
    period_s: float
    errors: np.ndarray
    standing: np.ndarray


def open_loop(bag: Bag, robot: Robot, chunks: Sequence[Chunk]) -> OpenLoop:
    """Compare chunks with the commands of a bag.

    Raises:
        ValueError: there is no chunk, they differ in their number of steps, or the bag holds no command.
    """
    shapes = {(chunk.positions.shape, chunk.period_ns) for chunk in chunks}
    if len(shapes) != 1:
        raise ValueError(f"{len(chunks)} chunks of {len(shapes)} shapes; need at least one chunk, all of one shape")
    (steps, _), period_ns = shapes.pop()
    commanded, measured = _streams(bag, robot, "command"), _streams(bag, robot, "feedback")
    if not any(len(stream.stamp_ns) for stream in commanded):
        raise ValueError(f"bag {bag.path} holds no command to compare with")
    stamps = np.array([chunk.stamp_ns for chunk in chunks], dtype=np.int64)
    due = stamps[:, None] + np.arange(steps) * period_ns  # (chunks, steps)
    wanted = _at(commanded, due.ravel()).reshape(len(chunks), steps, robot.size)
    start = _at(measured, stamps)[:, None]
    return OpenLoop(stamps, period_ns * 1e-9, np.stack([chunk.positions for chunk in chunks]) - wanted, start - wanted)


def summarise(result: OpenLoop, robot: Robot) -> dict:
    """Mean absolute errors: by step and joint, by joint, and for all arm joints and all grippers by step."""
    error, standing = np.abs(result.errors), np.abs(result.standing)
    kinds = {"arms_rad": ~robot.gripper_mask, "grippers_mm": robot.gripper_mask}
    return {
        "chunks": len(result.stamps_ns),
        "steps": error.shape[1],
        "period_s": result.period_s,
        "compared": int(np.isfinite(error).any(axis=2).sum()),
        "joints": list(robot.joint_names),
        "by_step_and_joint": _rounded(_mean(error, axis=0)),
        "by_joint": dict(zip(robot.joint_names, _rounded(_mean(error, axis=(0, 1))), strict=True)),
        "by_step": {kind: _rounded(_mean(error[..., mask], axis=(0, 2))) for kind, mask in kinds.items()},
        "standing_by_step": {kind: _rounded(_mean(standing[..., mask], axis=(0, 2))) for kind, mask in kinds.items()},
    }


def beside_recorded(chunks: Sequence[Chunk], recorded: Sequence[Chunk]) -> dict:
    """How chunks differ from the recorded ones of the same observation stamp, where there are any."""
    before = {chunk.stamp_ns: chunk.positions for chunk in recorded}
    pairs = [(chunk.positions, before[chunk.stamp_ns]) for chunk in chunks if chunk.stamp_ns in before]
    differences = [float(np.abs(new - old).max()) for new, old in pairs if new.shape == old.shape]
    return {
        "chunks": len(pairs),
        "identical": sum(difference == 0.0 for difference in differences),
        "largest_difference": max(differences, default=None),  # rad or mm
    }


def table(summary: dict) -> str:
    """The summary for a terminal: mean absolute errors at some steps, and by joint."""
    shown = sorted({0, *range(3, summary["steps"], 4), summary["steps"] - 1})
    lines = [f"  {summary['chunks']} chunks of {summary['steps']} steps; mean absolute error"]
    lines += [f"  {'':<24}" + "".join(f"{f'step {step}':>10}" for step in shown)]
    for kind, unit in (("arms_rad", "arms [rad]"), ("grippers_mm", "grippers [mm]")):
        for name, values in ((unit, summary["by_step"][kind]), ("  standing still", summary["standing_by_step"][kind])):
            lines.append(f"  {name:<24}" + "".join(f"{_text(values[step]):>10}" for step in shown))
    width = max(map(len, summary["by_joint"]))
    lines += [f"  {name:<{width}}  {_text(value)}" for name, value in summary["by_joint"].items()]
    return "\n".join(lines)


def _streams(bag: Bag, robot: Robot, kind: str) -> list[JointStream]:
    """Of every limb its arm and its gripper, `kind` "command" or "feedback"."""
    topics = {}
    for limb in robot.limbs:
        topics[getattr(limb.topics, f"arm_{kind}")] = limb.arm
        topics[getattr(limb.topics, f"gripper_{kind}")] = limb.opening
    messages = bag.read(topics)
    return [joint_stream(messages[topic], robot, where) for topic, where in topics.items()]


def _at(streams: Sequence[JointStream], times_ns: np.ndarray) -> np.ndarray:
    """(times, size) positions between the samples before and after; NaN where these are too far apart, or missing."""
    return np.concatenate([_stream_at(stream, times_ns) for stream in streams], axis=1)


def _stream_at(stream: JointStream, times_ns: np.ndarray) -> np.ndarray:
    stamps, order = np.unique(stream.stamp_ns, return_index=True)
    positions = stream.positions[order]
    result = np.full((len(times_ns), positions.shape[1]), np.nan)
    if len(stamps) < 2:
        return result
    after = np.clip(np.searchsorted(stamps, times_ns), 1, len(stamps) - 1)
    gap = stamps[after] - stamps[after - 1]
    known = (gap <= MAX_GAP_NS) & (times_ns >= stamps[0]) & (times_ns <= stamps[-1])
    share = ((times_ns - stamps[after - 1]) / gap)[:, None]
    between = positions[after - 1] * (1 - share) + positions[after] * share
    result[known] = between[known]
    return result


def _mean(values: np.ndarray, axis: int | tuple[int, ...]) -> np.ndarray:
    """Mean of what is known; NaN where nothing is."""
    known = np.isfinite(values)
    count = known.sum(axis=axis)
    total = np.where(known, values, 0.0).sum(axis=axis)
    return np.divide(total, count, out=np.full(count.shape, np.nan), where=count > 0)


def _rounded(values: np.ndarray) -> list:
    """For JSON, which knows no NaN."""
    if values.ndim > 1:
        return [_rounded(row) for row in values]
    return [round(float(value), 5) if np.isfinite(value) else None for value in values]


def _text(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"
