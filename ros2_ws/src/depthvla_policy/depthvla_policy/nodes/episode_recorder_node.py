"""Records an episode to one rosbag2 folder while the node is active: serialised messages in, MCAP out.

Topics are subscribed to as they appear, with the QoS that their publishers offer. Messages are taken in batches and
written by a thread of `evaluation.recording.BagWriter`.
"""

from __future__ import annotations

import importlib
import json
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from ament_index_python.packages import get_package_share_directory
from rclpy.clock import Clock, ClockType
from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSProfile, ReliabilityPolicy
from rosbags.interfaces import Qos, QosDurability, QosHistory, QosLiveliness, QosReliability, QosTime

from depthvla_policy import robot as robot_description
from depthvla_policy.evaluation.recording import BagWriter, Selector, describe_machine, parse_rules
from depthvla_policy.nodes.diagnostics import ERROR, OK, WARN, Health
from depthvla_policy.nodes.parameters import Parameter
from depthvla_policy.nodes.polling import PolledSubscription
from depthvla_policy.nodes.runtime import ManagedNode, run

QUEUE_DEPTH = 1000  # messages that wait in the middleware between two polls: 2 s of the fastest topic
DISCOVERY_PERIOD_S = 0.1  # short, because what a publisher says before it is found is not recorded

PARAMETERS = (
    Parameter("robot_file", "", "Robot description; empty takes the R1 Lite's of r1lite_bringup."),
    Parameter(
        "bag",
        "out/bags/%Y-%m-%d_%H-%M-%S",
        "Folder of the bag, which must not exist; strftime codes stand for the local time at which recording starts.",
    ),
    Parameter(
        "topics",
        ["/diagnostics"],
        "What is recorded: /topic [max_rate_hz=N] [paired_with=/other], with {camera.…} and {limb.…} for every camera"
        " and limb of the robot.",
    ),
    Parameter("poll_period_s", 0.05, "How often messages are taken from the middleware.", 0.005, 0.5),
    Parameter("backlog_limit_mb", 256, "Messages beyond this, waiting for the disk, are dropped.", 1, 16384),
)


class EpisodeRecorderNode(ManagedNode):
    """Recording starts when the node is activated, and the bag is closed when it is deactivated or shut down."""

    def __init__(self, **kwargs) -> None:
        super().__init__("episode_recorder_node", PARAMETERS, **kwargs)
        self.failed = False
        self._writer: BagWriter | None = None
        self._recording_timers: list = []
        self._sources: dict[str, _Source] = {}

    def configure(self) -> None:
        path = robot_description.default_path()
        if self.value("robot_file"):
            path = Path(self.value("robot_file"))
        self._rules = parse_rules(self.value("topics"), robot_description.load(path))
        self._robot_text = path.read_text()

    def activate(self) -> None:
        path = Path(time.strftime(self.value("bag"))).expanduser()
        self._writer = BagWriter(path, self.value("backlog_limit_mb") * 2**20)
        self._selector = Selector(self._rules)
        self._unknown: dict[str, str] = {}  # topics that cannot be recorded, and why
        self._discover()
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        self._recording_timers = [
            self.create_timer(DISCOVERY_PERIOD_S, self._discover, clock=steady),
            self.create_timer(self.value("poll_period_s"), self._poll, clock=steady),
        ]
        self.get_logger().info(f"recording {len(self._rules)} topics to {path}")

    def deactivate(self) -> None:
        self._close()

    def cleanup(self) -> None:
        self._close()

    def health(self) -> Health:
        for topic, source in self._sources.items():
            source.publishers = self.count_publishers(topic)
        writer, lost = self._writer, self._lost()
        missing = sorted(topic for topic in self._rules if topic not in self._sources)
        values = {
            "bag": writer.path,
            "messages": writer.written,
            "backlog [MB]": writer.backlog_bytes / 2**20,
            "lost": sum(lost.values()),
            "dropped": sum(writer.dropped.values()),
            **{f"lost on {topic}": count for topic, count in lost.items()},
            **{f"cannot record {topic}": reason for topic, reason in self._unknown.items()},
            "nobody publishes": ", ".join(missing),
        }
        if writer.error:
            return Health(ERROR, f"cannot write {writer.path}: {writer.error}", values)
        if lost or self._unknown:
            return Health(WARN, f"recording, {sum(lost.values())} messages lost", values)
        return Health(OK, "recording", values)

    def _discover(self) -> None:
        for topic, types in self.get_topic_names_and_types():
            if topic not in self._rules or topic in self._unknown:
                continue
            if topic not in self._sources and (publishers := self.get_publishers_info_by_topic(topic)):
                try:
                    self._sources[topic] = self._subscribe(topic, types, publishers)
                except (ImportError, LookupError, OSError, ValueError) as error:
                    self._unknown[topic] = str(error)
                    self.get_logger().error(f"cannot record {topic}: {error}")

    def _subscribe(self, topic: str, types: Sequence[str], publishers: Sequence) -> _Source:
        if len(types) != 1:
            raise ValueError(f"it has several types: {', '.join(types)}")
        package, kind, name = types[0].split("/")
        message_type = getattr(importlib.import_module(f"{package}.{kind}"), name)
        offered = [publisher.qos_profile for publisher in publishers]
        self._writer.add_topic(topic, types[0], [_bag_qos(profile) for profile in offered], read_definition)
        return _Source(
            PolledSubscription(self, message_type, topic, _requested_qos(offered), raw=True), len(publishers)
        )

    def _poll(self) -> None:
        self._take()
        if self._writer.error and not self.failed:
            self.failed = True
            raise OSError(f"cannot write bag {self._writer.path}: {self._writer.error}")

    def _take(self) -> None:
        for topic, source in self._sources.items():
            while (taken := source.take()) is not None:
                data, received_ns = taken
                for message in self._selector.offer(topic, received_ns or self._now_ns(), data):
                    self._writer.write(*message)

    def _close(self) -> None:
        writer = self._writer
        if writer is None:
            return
        self._take()
        self._writer = None
        for timer in self._recording_timers:
            self.destroy_timer(timer)
        lost = self._lost() + writer.dropped
        for source in self._sources.values():
            source.subscription.destroy()
        self._sources.clear()
        custom_data = {
            "robot": self._robot_text,
            "machine": json.dumps(describe_machine()),
            "messages_lost": json.dumps(lost),
        }
        try:
            writer.close(custom_data)
        except OSError:
            self.failed = True
            raise
        self.get_logger().info(f"closed {writer.path}: {writer.written} messages")

    def _lost(self) -> Counter[str]:
        return Counter({topic: source.lost for topic, source in self._sources.items() if source.lost})

    def _now_ns(self) -> int:
        return self.get_clock().now().nanoseconds


class _Source:
    """A subscribed topic. `lost` counts the messages missing between those that came, as far as one can tell."""

    def __init__(self, subscription: PolledSubscription, publishers: int) -> None:
        self.subscription = subscription
        self.publishers = publishers
        self.lost = 0
        self._sequence: int | None = None

    def take(self) -> tuple[bytes, int] | None:
        """The next message and when it was received [ns]; 0 where the middleware does not say."""
        taken = self.subscription.take()
        if taken is None:
            return None
        data, info = taken
        sequence = info.get("publication_sequence_number")  # not on Humble
        # Publishers count for themselves: of several, or after a restart, a gap says nothing.
        if self.publishers == 1 and sequence is not None and self._sequence is not None and sequence > self._sequence:
            self.lost += sequence - self._sequence - 1
        self._sequence = sequence
        return data, info["received_timestamp"]


def read_definition(message_type: str) -> str:
    """The .msg text of an installed message type. Raises LookupError or OSError where there is none."""
    package, _, name = message_type.split("/")
    return Path(get_package_share_directory(package), "msg", f"{name}.msg").read_text()


def _requested_qos(offered: Sequence[QoSProfile]) -> QoSProfile:
    """The strictest profile that every publisher can serve."""
    reliable = all(profile.reliability == ReliabilityPolicy.RELIABLE for profile in offered)
    latched = all(profile.durability == DurabilityPolicy.TRANSIENT_LOCAL for profile in offered)
    return QoSProfile(
        history=HistoryPolicy.KEEP_LAST,
        depth=QUEUE_DEPTH,
        reliability=ReliabilityPolicy.RELIABLE if reliable else ReliabilityPolicy.BEST_EFFORT,
        durability=DurabilityPolicy.TRANSIENT_LOCAL if latched else DurabilityPolicy.VOLATILE,
    )


def _bag_qos(profile: QoSProfile) -> Qos:
    return Qos(
        QosHistory[profile.history.name],
        profile.depth,
        QosReliability[profile.reliability.name],
        QosDurability[profile.durability.name],
        _bag_time(profile.deadline),
        _bag_time(profile.lifespan),
        QosLiveliness[profile.liveliness.name],
        _bag_time(profile.liveliness_lease_duration),
        profile.avoid_ros_namespace_conventions,
    )


def _bag_time(duration) -> QosTime:
    return QosTime(*divmod(duration.nanoseconds, 1_000_000_000))


def main() -> int:
    recorders: list[EpisodeRecorderNode] = []

    def make() -> EpisodeRecorderNode:
        recorders.append(EpisodeRecorderNode())
        return recorders[0]

    code = run(make)
    return code or int(any(recorder.failed for recorder in recorders))


if __name__ == "__main__":
    sys.exit(main())
