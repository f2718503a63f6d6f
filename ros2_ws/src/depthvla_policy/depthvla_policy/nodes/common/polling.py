"""Subscriptions that are read when their data is needed instead of calling back for every message.

A callback through an rclpy executor costs several times what taking a message does; joint feedback comes 800 times a
second and is looked at fifteen times.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from rclpy.callback_groups import CallbackGroup
from rclpy.node import Node
from rclpy.qos import QoSProfile


class PolledSubscription:
    """Keeps up to the profile's depth of messages in the middleware. One thread may read."""

    def __init__(self, node: Node, message_type: type, topic: str, profile: QoSProfile, *, raw: bool = False) -> None:
        """`raw` leaves messages serialised, as bytes."""
        self._node, self._raw = node, raw
        self._subscription = node.create_subscription(
            message_type, topic, _no_callback, profile, callback_group=_Never(), raw=raw
        )

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


def _no_callback(message: Any) -> None:
    raise AssertionError("a polled subscription is never executed")
