"""A recording in progress: topics subscribed to as they appear, serialised messages handed to the bag.

Topics are subscribed to with the QoS that their publishers offer, and with the weakest besides where one comes that
offers less. Those that must not be missed are subscribed to with both from the start. Messages are taken in batches.
"""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

from depthvla_msgs.msg import PolicyStatus
from rclpy.clock import Clock, ClockType
from rclpy.qos import (
    DurabilityPolicy,
    HistoryPolicy,
    QoSCompatibility,
    QoSProfile,
    ReliabilityPolicy,
    qos_check_compatible,
)
from rclpy.serialization import deserialize_message
from rosbags.interfaces import Qos, QosDurability, QosHistory, QosLiveliness, QosReliability, QosTime

from depthvla_control.ros.polling import PolledSubscription
from depthvla_control.ros.runtime import ManagedNode
from depthvla_evaluation.bags.bag_writer import BagWriter
from depthvla_evaluation.bags.message_types import message_class
from depthvla_evaluation.bags.notes import EpisodeNotes
from depthvla_evaluation.bags.topic_rules import Selector, TopicRule

QUEUE_DEPTH = 1000  # messages that wait in the middleware between two polls: 2 s of the fastest topic
DISCOVERY_PERIOD_S = 0.1  # short, because what a publisher says before it is found is not recorded
# Every publisher serves it; what is lost on the way is not sent again.
WEAKEST = QoSProfile(depth=QUEUE_DEPTH, history=HistoryPolicy.KEEP_LAST, reliability=ReliabilityPolicy.BEST_EFFORT)
SILENCE_LIMIT_S = 2.0  # of a required topic, at the start and at the end of an episode


class EpisodeRecording:
    """One episode: the subscriptions, and the bag that they fill."""

    def __init__(
        self,
        node: ManagedNode,
        writer: BagWriter,
        notes: EpisodeNotes,
        rules: dict[str, TopicRule],
        *,
        on_activate: bool,
        expected: Mapping[str, str] | None = None,
    ) -> None:
        """`on_activate`: it lasts as long as the node is active, whether anything is published or not.

        `expected`: topic -> type of what must not be missed, whoever publishes it: received before it is discovered.
        """
        self.writer, self.notes, self.on_activate = writer, notes, on_activate
        self.begin_s = time.monotonic()
        self.sources: dict[str, Source] = {}
        self.published: set[str] = set()  # topics that have had a publisher
        self._expected = {topic: kind for topic, kind in (expected or {}).items() if topic in rules}
        self._counts: dict[str, int] = {}  # publishers of a topic when they were looked at
        self._looked_at = 0
        self.unknown: dict[str, str] = {}  # topics that cannot be recorded, and why
        self._node, self._rules, self._selector = node, rules, Selector(rules)
        self._timers: list = []
        self._kept: dict[str, str] = {}

    def start(self, poll: Callable[[], None]) -> None:
        for topic, kind in self._expected.items():
            self._attempt(topic, [kind], [])
        self._discover()
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        for period_s, callback in ((DISCOVERY_PERIOD_S, self._discover), (self._node.value("poll_period_s"), poll)):
            self._timers.append(self._node.create_timer(period_s, callback, clock=steady))

    def take(self) -> None:
        """Hands what waits in the middleware to the bag."""
        for topic, source in self.sources.items():
            while (taken := source.take()) is not None:
                data, received_ns = taken
                if source.message_type is PolicyStatus:
                    status = deserialize_message(data, PolicyStatus)
                    self.notes.add_policy(status.model_id, status.instruction)
                for message in self._selector.offer(topic, received_ns or time.time_ns(), data):
                    self.writer.write(*message)

    def keep(self, custom_data: dict[str, str]) -> None:
        """Keeps what is known so far, in case that this process is killed."""
        if custom_data != self._kept:
            self._kept = custom_data
            self.writer.note(custom_data)

    def close(self, custom_data: dict[str, str]) -> None:
        """Raises OSError where the bag is not whole."""
        for timer in self._timers:
            self._node.destroy_timer(timer)
        for source in self.sources.values():
            source.destroy()
        self.writer.close(custom_data)

    def missed(self) -> Counter[str]:
        """Messages that never came out of the middleware."""
        return Counter({topic: source.lost for topic, source in self.sources.items() if source.lost})

    def lost(self) -> Counter[str]:
        """Missed, and dropped on the way to the disk."""
        return self.missed() + self.writer.dropped

    def heard(self, message_type: type) -> list[str]:
        """Topics of a type of which there is at least one message."""
        return sorted(
            topic for topic, source in self.sources.items() if source.message_type is message_type and source.received
        )

    def absent(self) -> str:
        """Names required topics that have not begun in time; empty where there are none."""
        if time.monotonic() < self.begin_s + SILENCE_LIMIT_S:
            return ""
        missing = self.not_heard_since(-math.inf)
        return f"nothing came within {SILENCE_LIMIT_S:g} s on {', '.join(missing)}" if missing else ""

    def silent(self) -> str:
        """Names required topics that were not heard lately; empty where there are none."""
        missing = self.not_heard_since(time.monotonic() - SILENCE_LIMIT_S)
        return f"nothing came in the last {SILENCE_LIMIT_S:g} s on {', '.join(missing)}" if missing else ""

    def not_heard_since(self, time_s: float) -> list[str]:
        """Required topics of which no message was taken since a time on the monotonic clock."""
        required = [topic for topic, rule in self._rules.items() if rule.required]
        heard_s = {topic: source.heard_s for topic, source in self.sources.items() if source.received}
        return [topic for topic in required if topic not in heard_s or heard_s[topic] < time_s]

    def _discover(self) -> None:
        """Looks at a topic's publishers where their number changed, and at one topic's a time where it did not."""
        known = {t: types for t, types in self._node.get_topic_names_and_types() if t in self._rules}
        self._looked_at = (self._looked_at + 1) % max(len(known), 1)
        for index, (topic, types) in enumerate(known.items()):
            count = self._node.count_publishers(topic)
            if topic not in self.unknown and (index == self._looked_at or count != self._counts.get(topic)):
                self._counts[topic] = count
                if publishers := self._node.get_publishers_info_by_topic(topic):
                    self.published.add(topic)
                    self._attempt(topic, types, [publisher.qos_profile for publisher in publishers])

    def _attempt(self, topic: str, types: Sequence[str], offered: Sequence[QoSProfile]) -> None:
        try:
            self._follow(topic, types, offered)
        except (ImportError, LookupError, OSError, ValueError) as error:
            self.unknown[topic] = str(error)
            self._node.get_logger().error(f"cannot record {topic}: {error}")

    def _follow(self, topic: str, types: Sequence[str], offered: Sequence[QoSProfile]) -> None:
        """Subscribes to what all of a topic's publishers can serve."""
        if len(types) != 1:
            raise ValueError(f"it has several types: {', '.join(types)}")
        source = self.sources.get(topic)
        if source is None:
            kind = message_class(types[0])
            source = Source(
                self._subscription(kind, topic, requested_qos(offered)), lambda: self._endpoints(topic), kind
            )
            self.sources[topic] = source
            if topic in self._expected:
                source.add(self._subscription(kind, topic, WEAKEST))
        elif not source.hears_all and any(_is_deaf(source.requested, profile) for profile in offered):
            self._node.get_logger().warning(f"{topic} has a publisher of a weaker QoS: recorded with both from now on")
            source.add(self._subscription(source.message_type, topic, WEAKEST))
        if not source.received:  # the first message fixes what the bag says of its topic
            profiles = [bag_qos(profile) for profile in offered or [source.requested]]
            self.writer.add_topic(topic, types[0], profiles)

    def _subscription(self, kind: type, topic: str, profile: QoSProfile) -> PolledSubscription:
        return PolledSubscription(self._node, kind, topic, profile, raw=True, watched=False)

    def _endpoints(self, topic: str) -> frozenset[bytes]:
        return frozenset(bytes(info.endpoint_gid) for info in self._node.get_publishers_info_by_topic(topic))


class Source:
    """A subscribed topic. `lost` counts the messages missing between those that came, as far as one can tell.

    endpoints: asks which publishers the topic has now.
    """

    def __init__(
        self,
        subscription: PolledSubscription,
        endpoints: Callable[[], frozenset[bytes]],
        message_type: type | None = None,
    ) -> None:
        self._subscriptions = [subscription]
        self._waiting: dict[int, tuple[bytes, dict]] = {}  # the oldest message of each
        self._taken: dict[tuple[int, bytes], None] = {}  # in order: what may come again by the other one
        self.message_type = message_type
        self._endpoints = endpoints
        self._publishers = endpoints()
        self.lost = 0
        self.received = 0
        self.heard_s = -math.inf  # when a message was last taken, on the monotonic clock
        self._sequence: int | None = None

    @property
    def requested(self) -> QoSProfile:
        return self._subscriptions[0].profile

    @property
    def hears_all(self) -> bool:
        """Whether no publisher's QoS is too weak for it."""
        return len(self._subscriptions) > 1

    def add(self, subscription: PolledSubscription) -> None:
        """A second subscription; what both receive counts once."""
        self._subscriptions.append(subscription)

    def destroy(self) -> None:
        for subscription in self._subscriptions:
            subscription.destroy()

    def take(self) -> tuple[bytes, int] | None:
        """The next message and when it was received [ns]; 0 where the middleware does not say."""
        while (taken := self._oldest()) is not None:
            data, info = taken
            if not self._is_repeated(data, info):
                self._count(info.get("publication_sequence_number"))  # not on Humble
                self.received += 1
                self.heard_s = time.monotonic()
                return data, info["received_timestamp"]
        return None

    def _oldest(self) -> tuple[bytes, dict] | None:
        for number, subscription in enumerate(self._subscriptions):
            if number not in self._waiting and (taken := subscription.take()) is not None:
                self._waiting[number] = taken
        if not self._waiting:
            return None
        return self._waiting.pop(min(self._waiting, key=lambda number: self._waiting[number][1]["received_timestamp"]))

    def _is_repeated(self, data: bytes, info: dict) -> bool:
        if not self.hears_all:
            return False
        message = info["source_timestamp"], data
        if message in self._taken:
            return True
        self._taken[message] = None
        if len(self._taken) > 2 * QUEUE_DEPTH:
            del self._taken[next(iter(self._taken))]
        return False

    def _count(self, sequence: int | None) -> None:
        before, self._sequence = self._sequence, sequence
        if sequence is None or before is None:
            return
        missing = sequence - before - 1
        if missing > 0 and self._has_one_publisher():
            self.lost += missing
        elif missing < 0 and self.hears_all and self._has_one_publisher():  # it came after all, by the other one
            self.lost, self._sequence = max(self.lost - 1, 0), before

    def _has_one_publisher(self) -> bool:
        """The same since this was asked last. Publishers count for themselves: of several, a gap says nothing."""
        before, self._publishers = self._publishers, self._endpoints()
        return len(before) == 1 and before == self._publishers


def requested_qos(offered: Sequence[QoSProfile]) -> QoSProfile:
    """The strictest profile that every publisher can serve."""
    reliable = all(profile.reliability == ReliabilityPolicy.RELIABLE for profile in offered)
    latched = bool(offered) and all(profile.durability == DurabilityPolicy.TRANSIENT_LOCAL for profile in offered)
    return QoSProfile(
        history=HistoryPolicy.KEEP_LAST,
        depth=QUEUE_DEPTH,
        reliability=ReliabilityPolicy.RELIABLE if reliable else ReliabilityPolicy.BEST_EFFORT,
        durability=DurabilityPolicy.TRANSIENT_LOCAL if latched else DurabilityPolicy.VOLATILE,
    )


def _is_deaf(requested: QoSProfile, offered: QoSProfile) -> bool:
    return qos_check_compatible(offered, requested)[0] == QoSCompatibility.ERROR


def bag_qos(profile: QoSProfile) -> Qos:
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
