"""An action chunk as the control side sees it, and what makes one unusable whatever the time."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from depthvla_control.refusal import Reason, Refusal
from r1lite_description.robot import Robot

MIN_PERIOD_S, MAX_PERIOD_S = 0.005, 1.0
MAX_STEPS = 256
# A target this far outside the position limits is nonsense rather than imprecision. Nearer ones are clamped.
GROSS_RAD, GROSS_MM = 1.0, 100.0


@dataclass(frozen=True)
class Chunk:
    """Absolute joint targets, step k due at stamp + k * period. The last step stays in force for one period."""

    stamp_ns: int  # of the observation it was predicted from
    sequence: int
    period_ns: int
    positions: np.ndarray  # (steps, 14) in `Robot` order, rad and mm
    model_id: str = ""

    def due_ns(self, step: int) -> int:
        return self.stamp_ns + step * self.period_ns

    @property
    def steps(self) -> int:
        return len(self.positions)

    @property
    def end_ns(self) -> int:
        return self.due_ns(self.steps)


def check_chunk(chunk: Chunk, robot: Robot, gross_rad: float = GROSS_RAD, gross_mm: float = GROSS_MM) -> Refusal | None:
    """A chunk is taken whole or not at all. `gross_*`: how far outside the position limits a target is nonsense."""
    shape = chunk.positions.shape
    if len(shape) != 2 or shape[1] != robot.size:
        return Refusal(Reason.WRONG_COUNT, f"chunk {chunk.sequence} has shape {shape}; allowed: (steps, {robot.size})")
    if not 1 <= shape[0] <= MAX_STEPS:
        return Refusal(Reason.WRONG_COUNT, f"chunk {chunk.sequence} has {shape[0]} steps; allowed: 1 to {MAX_STEPS}")
    period_s = chunk.period_ns * 1e-9
    if not MIN_PERIOD_S <= period_s <= MAX_PERIOD_S:
        text = (
            f"chunk {chunk.sequence} has a step duration of {period_s:g} s; allowed: {MIN_PERIOD_S} to {MAX_PERIOD_S}"
        )
        return Refusal(Reason.WRONG_TIMING, text)
    finite = np.isfinite(chunk.positions)
    if not finite.all():
        step, index = np.argwhere(~finite)[0]
        text = f"chunk {chunk.sequence} has a non-finite target for {robot.joint_names[index]} at step {step}"
        return Refusal(Reason.NON_FINITE, text)
    margin = np.where(robot.gripper_mask, gross_mm, gross_rad)
    gross = (chunk.positions < robot.position_min - margin) | (chunk.positions > robot.position_max + margin)
    if gross.any():
        step, index = np.argwhere(gross)[0]
        text = (
            f"chunk {chunk.sequence} sends {robot.joint_names[index]} to {chunk.positions[step, index]:.3f} at step"
            f" {step}; limits: {robot.position_min[index]:.3f} to {robot.position_max[index]:.3f}"
        )
        return Refusal(Reason.OUT_OF_RANGE, text)
    return None
