"""Quality of service of the topics between the nodes and the robot, in one place."""

from __future__ import annotations

from rclpy.duration import Duration
from rclpy.qos import DurabilityPolicy, HistoryPolicy, LivelinessPolicy, QoSProfile, ReliabilityPolicy

RELIABILITIES = {"best_effort": ReliabilityPolicy.BEST_EFFORT, "reliable": ReliabilityPolicy.RELIABLE}
# The policy asserts its life this often through DDS itself, so a killed or stopped process is noticed between chunks.
CHUNK_LEASE_S = 0.2


def stream(reliability: str, depth: int) -> QoSProfile:
    """Sensor streams and commands; `reliability` is one of the robot description's words."""
    return QoSProfile(depth=depth, history=HistoryPolicy.KEEP_LAST, reliability=RELIABILITIES[reliability])


def chunks(lease_s: float = CHUNK_LEASE_S) -> QoSProfile:
    """Action chunks: only the newest matters. A reader may ask for a longer lease than the writer offers; 0: none."""
    profile = QoSProfile(depth=1, history=HistoryPolicy.KEEP_LAST, reliability=ReliabilityPolicy.RELIABLE)
    if lease_s > 0.0:
        profile.liveliness = LivelinessPolicy.AUTOMATIC
        profile.liveliness_lease_duration = Duration(nanoseconds=round(lease_s * 1e9))
    return profile


def status() -> QoSProfile:
    """States: whoever comes late gets the newest."""
    return QoSProfile(
        depth=1,
        history=HistoryPolicy.KEEP_LAST,
        reliability=ReliabilityPolicy.RELIABLE,
        durability=DurabilityPolicy.TRANSIENT_LOCAL,
    )
