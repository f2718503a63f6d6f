"""What a policy sees at one moment. Plain numpy, without torch and without ROS."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Observation:
    """One synchronised view of the robot.

    stamp_ns: stamp of the reference camera's image, ROS time in nanoseconds.
    images: camera name -> (H, W, 3) uint8 RGB at the camera's resolution.
    state: (size,) float64 in the order of `Robot.joint_names`: rad, grippers in mm.
    instruction: what the robot is asked to do.
    depth_m: camera name -> (H, W) true depth in metres, NaN where unknown; only for a policy that takes it.
    """

    stamp_ns: int
    images: dict[str, np.ndarray]
    state: np.ndarray
    instruction: str
    depth_m: dict[str, np.ndarray] | None = None


def noise_seed(seed: int, stamp_ns: int) -> int:
    """Seed of the noise that a chunk starts from, where it must repeat: the same for the same observation."""
    return int(np.random.SeedSequence([seed, stamp_ns]).generate_state(1)[0])
