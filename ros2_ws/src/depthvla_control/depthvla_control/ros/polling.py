"""Subscriptions that are read when their data is needed instead of calling back for every message.

A callback through an rclpy executor costs several times what taking a message does; joint feedback comes 800 times a
second and is looked at fifteen times.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from rclpy.callback_groups import CallbackGroup
from rclpy.node import Node
from rclpy.qos import QoSCompatibility, QoSProfile, qos_check_compatible

try:
    from rclpy.event_handler import SubscriptionEventCallbacks
except ImportError:  # Humble
    from rclpy.qos_event import SubscriptionEventCallbacks

LOOK_EVERY = 10


class PolledSubscription:
    """Keeps up to the profile's depth of messages in the middleware. One thread may read.

    A publisher whose QoS it cannot be served with is its `problem`, which a `ManagedNode` logs and has in its
    diagnostics. The graph is asked: an executor that waited for the middleware's event would be woken by every message
    that lies unread, too.
    """

    def __init__(
        self,
        node: Node,
        message_type: type,
        topic: str,
        profile: QoSProfile,
        *,
        raw: bool = False,
        watched: bool = True,
    ) -> None:
        """`raw` leaves messages serialised, as bytes. Not `watched`: publishers that it does not hear are expected."""
        self.profile = profile
        self._node, self._raw = node, raw
        self._publishers, self._problem, self._asked = 0, "", 0
        self._subscription = node.create_subscription(
            message_type,
            topic,
            _no_callback,
            profile,
            callback_group=_Never(),
            event_callbacks=SubscriptionEventCallbacks(use_default_callbacks=False),
            raw=raw,
        )
        self._listed = getattr(node, "inputs", []) if watched else []
        self._listed.append(self)

    @property
    def problem(self) -> str:
        """Which publishers are not heard, and why; empty where there are none. To be asked now and then: publishers are
        looked at where their number changed, and every tenth time.
        """
        publishers = self._node.count_publishers(self._subscription.topic_name)
        if publishers != self._publishers or self._asked % LOOK_EVERY == 0:
            self._publishers, self._problem = publishers, self._look()
        self._asked += 1
        return self._problem

    def _look(self) -> str:
        topic = self._subscription.topic_name
        mute = [
            f"{info.node_namespace.rstrip('/')}/{info.node_name} ({reason})"
            for info in self._node.get_publishers_info_by_topic(topic)
            if (reason := _incompatibility(info.qos_profile, self.profile))
        ]
        return f"{topic} is not received from {', '.join(mute)}" if mute else ""

    def take(self) -> tuple[Any, dict] | None:
        """The oldest message that waits, with what the middleware says about it (times, sequence number)."""
        subscription = self._subscription
        with subscription.handle:
            return subscription.handle.take_message(subscription.msg_type, self._raw)

    def drain(self) -> Iterator[Any]:
        """Messages that came since the last call, oldest first."""
        while (taken := self.take()) is not None:
            yield taken[0]

    def destroy(self) -> None:
        self._node.destroy_subscription(self._subscription)
        if self in self._listed:
            self._listed.remove(self)

    def newest(self) -> Any | None:
        message = None
        for message in self.drain():  # noqa: B007
            continue
        return message


class _Never(CallbackGroup):
    """Keeps an executor from waiting for its entities."""

    def can_execute(self, entity: Any) -> bool:
        return False

    def beginning_execution(self, entity: Any) -> bool:
        return False

    def ending_execution(self, entity: Any) -> None:
        pass


def _incompatibility(offered: QoSProfile, requested: QoSProfile) -> str:
    compatibility, reason = qos_check_compatible(offered, requested)
    return reason.removeprefix("ERROR: ").rstrip(";") if compatibility == QoSCompatibility.ERROR else ""


def _no_callback(message: Any) -> None:
    raise AssertionError("a polled subscription is never executed")
