"""Where motions take the grasp frames: the newest chunk, the executor's plan, and what nobody follows. numpy only.

RViz's markers and the browser viewer both draw what `paths` returns.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from depthvla_control.arbiter import Mode
from depthvla_control.chunk import Chunk
from depthvla_control.execution_plan import Plan
from r1lite_description.kinematics import Kinematics
from r1lite_description.robot import Robot

# Colour of the first and the last step, by what a path is of.
COLOURS = {
    "chunk": ((1.0, 0.85, 0.15), (0.85, 0.15, 0.35)),  # the policy is in command: yellow to red
    "plan": ((0.75, 1.0, 0.75), (0.05, 0.65, 0.30)),  # what the executor is going to do: light to dark green
    "shadow": ((0.60, 0.90, 1.0), (0.15, 0.30, 0.85)),  # nobody follows it: light to dark blue
}
DIMMED = 0.25  # opacity of a step whose time has passed: executed, or dropped because the chunk came too late for it


@dataclass(frozen=True)
class Path:
    """N steps of one arm, in the frame of the robot's root link."""

    kind: str  # a key of COLOURS
    limb: str
    positions: np.ndarray  # (N, 3) m, of the grasp frame
    closing: np.ndarray  # (N, 3) unit vectors along which the fingers move
    opening_m: np.ndarray  # (N,) between the fingers
    ahead: np.ndarray  # (N,) bool: the step's time is still to come

    @property
    def colours(self) -> np.ndarray:
        """(N, 4) red, green, blue, opacity: 0 to 1."""
        first, last = np.array(COLOURS[self.kind])
        along = np.linspace(0.0, 1.0, len(self.positions))[:, None]
        return np.hstack([first + along * (last - first), np.where(self.ahead, 1.0, DIMMED)[:, None]])

    @property
    def fingers(self) -> np.ndarray:
        """(N, 2, 3) m: where the two fingers are at each step."""
        half = self.closing * self.opening_m[:, None] / 2
        return np.stack([self.positions - half, self.positions + half], axis=1)


def motions(chunk: Chunk | None, plan: Plan | None, mode: Mode | None) -> dict[str, Chunk | Plan]:
    """What is to be drawn in which colour. Where the executor is not heard (`mode` None), nobody follows a chunk."""
    followed = mode is Mode.POLICY
    drawn: dict[str, Chunk | Plan] = {}
    if chunk is not None:
        drawn["chunk" if followed else "shadow"] = chunk
    if followed and plan is not None:
        drawn["plan"] = plan
    return drawn


def grasp_frame(limb: str) -> str:
    return f"{limb}_grasp_frame"


def kinematics_of(robot: Robot, urdf: str, frames: Kinematics | None = None) -> tuple[Kinematics, list[str]]:
    """A description's kinematics, and the frames that it lacks and that were taken from `frames`.

    Raises:
        ValueError: it cannot be read, or it is not the robot's: a grasp frame or a joint is missing.
    """
    kinematics = Kinematics(urdf)
    added = kinematics.add_frames(frames) if frames else []
    joints = [joint for limb in robot.limbs for joint in limb.joints]
    kinematics.require([grasp_frame(limb.name) for limb in robot.limbs], joints)
    return kinematics, added


def paths(
    kinematics: Kinematics,
    robot: Robot,
    drawn: Mapping[str, Chunk | Plan],
    posture: Mapping[str, float],
    now_ns: int,
) -> list[Path]:
    """Paths of all arms for `motions`; none of a motion that is over or has no steps.

    Args:
        kinematics: a description with all grasp frames and arm joints.
        robot: order of a motion's positions.
        drawn: what `motions` returns.
        posture: positions of joints that are no arm's [rad or m]: the torso that carries the arms.
        now_ns: steps before this time have passed.
    """
    result = []
    for kind, motion in drawn.items():
        due_ns = motion.stamp_ns + motion.period_ns * np.arange(len(motion.positions))
        if not len(due_ns) or now_ns > due_ns[-1] + motion.period_ns:
            continue
        for limb in robot.limbs:
            arm = dict(zip(limb.joints, motion.positions[:, limb.arm].T, strict=True))
            frame = grasp_frame(limb.name)
            pose = kinematics.poses([frame], {**posture, **arm})[frame]
            opening_m = motion.positions[:, limb.gripper_index] / 1000
            result.append(Path(kind, limb.name, pose[:, :3, 3], pose[:, :3, 1], opening_m, due_ns >= now_ns))
    return result
