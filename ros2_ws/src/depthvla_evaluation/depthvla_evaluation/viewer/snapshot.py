"""What is shown of the robot and the policy at one moment. Filled from live topics or from a bag; numpy only."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from depthvla_control.arbiter import Mode
from depthvla_control.chunk import Chunk
from depthvla_control.execution_plan import Plan


@dataclass(frozen=True)
class Picture:
    """Decoding is left to whoever draws it. `decode` gives (H, W, 3) uint8 RGB, or raises ValueError."""

    stamp_ns: int
    decode: Callable[[], np.ndarray]

    def pixels(self) -> np.ndarray | None:
        """(H, W, 3) uint8 RGB; None where the bytes are no image."""
        try:
            return self.decode()
        except ValueError:
            return None


@dataclass(frozen=True)
class DepthPicture:
    """Depth of one camera image, that image, and where the robot's joints were when it was taken."""

    stamp_ns: int
    depth_m: np.ndarray  # (h, w) along the optical axis, NaN where unknown
    k: np.ndarray  # (3, 3) matrix of the depth image
    joints: Mapping[str, float]
    picture: Picture | None = None


@dataclass(frozen=True)
class Snapshot:
    """Mappings are by camera or joint name; what is not there was not heard."""

    now_ns: int
    joints: Mapping[str, float] = field(default_factory=dict)
    images: Mapping[str, Picture] = field(default_factory=dict)
    camera_matrices: Mapping[str, np.ndarray] = field(default_factory=dict)  # (3, 3) of `images`
    depth: Mapping[str, DepthPicture] = field(default_factory=dict)
    chunk: Chunk | None = None
    plan: Plan | None = None
    mode: Mode | None = None
    cause: str = ""
    instruction: str = ""
    complaint: str = ""  # why the policy makes no chunks
    latency_ms: np.ndarray = field(default_factory=lambda: np.empty((0, 2)))  # (N, 2): time [s], chunk latency [ms]

    @property
    def caption(self) -> str:
        """Who is in command and what for, in a few lines."""
        lines = [f"{self.mode.name}: {self.cause}" if self.mode is not None else "the executor is not heard"]
        lines += [f'"{self.instruction}"'] if self.instruction else []
        lines += [f"no chunks: {self.complaint}"] if self.complaint else []
        return "\n".join(lines)


def joint_positions(names: Sequence[str], positions: Sequence[float]) -> dict[str, float]:
    """A JointState as a mapping, without what is not finite."""
    return {name: float(value) for name, value in zip(names, positions, strict=False) if np.isfinite(value)}
