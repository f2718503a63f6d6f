"""What was measured, as plain data: endpoints of the graph, samples of a stream, pictures, camera matrices."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Endpoint:
    """A publisher or a subscription of somebody else. `conflicts`: reliability that our side would use -> why nothing
    would pass between the two, as the middleware says it.
    """

    node: str
    message_type: str
    reliability: str
    conflicts: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Graph:
    """Nodes by their full names; topics with their endpoints."""

    nodes: tuple[str, ...] = ()
    publishers: Mapping[str, tuple[Endpoint, ...]] = field(default_factory=dict)
    subscriptions: Mapping[str, tuple[Endpoint, ...]] = field(default_factory=dict)

    def publishes(self, topic: str, message_type: str) -> bool:
        return any(endpoint.message_type == message_type for endpoint in self.publishers.get(topic, ()))


@dataclass(frozen=True)
class Sample:
    """Some seconds of one topic. Times are of the system clock, when the middleware received a message, and of its
    header. `lost`: messages that were sent between those received and did not arrive, where the middleware counts them.
    """

    topic: str
    received_ns: tuple[int, ...] = ()
    stamps_ns: tuple[int, ...] = ()
    lost: int = 0
    values: tuple[Any, ...] = ()  # `Joints` of joint states; of images and camera matrices the newest alone

    def __len__(self) -> int:
        return len(self.received_ns)

    @property
    def rate_hz(self) -> float:
        """NaN for fewer than two messages."""
        if len(self) < 2:
            return float("nan")
        return (len(self) - 1) * 1e9 / max(self.received_ns[-1] - self.received_ns[0], 1)

    @property
    def largest_gap_s(self) -> float:
        return float(np.max(np.diff(self.received_ns), initial=0)) * 1e-9

    @property
    def delays_s(self) -> np.ndarray:
        """(n,) from the stamp to the reception; negative where the sender's clock is ahead."""
        return (np.array(self.received_ns, dtype=np.int64) - np.array(self.stamps_ns, dtype=np.int64)) * 1e-9


@dataclass(frozen=True)
class Joints:
    """A JointState: positions [rad, mm] and the names that came with them."""

    positions: tuple[float, ...]
    names: tuple[str, ...] = ()


@dataclass(frozen=True)
class Picture:
    """One decoded image. `problem`: why it is none. `contrast`: standard deviation of all its values, 0 to 127."""

    encoding: str
    width: int = 0
    height: int = 0
    contrast: float = 0.0
    problem: str = ""


@dataclass(frozen=True)
class Calibration:
    """A CameraInfo: size of the image it is for [px], `k` (9,) row by row, distortion coefficients."""

    width: int
    height: int
    k: tuple[float, ...]
    d: tuple[float, ...] = ()
