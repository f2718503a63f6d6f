"""Passes a topic's messages on under another name, as they are or spoilt: where data faults come from."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from typing import Any

from rclpy.qos import QoSProfile

from depthvla_control.ros.probe import Probe

Change = Callable[[Any], Iterable[Any]]  # a message in; the messages that are sent instead, possibly none


class Relay:
    """`change` may be set at any time and is called with every message; `restore` takes it back to the usual."""

    def __init__(
        self,
        probe: Probe,
        message_type: type,
        source: str,
        target: str,
        profile: QoSProfile,
        usual: Change | None = None,
    ) -> None:
        self._usual = usual or (lambda message: (message,))
        self.change = self._usual
        self._publisher = probe.publisher(message_type, target, profile)
        probe.node.create_subscription(message_type, source, self._pass_on, profile)

    def restore(self) -> None:
        self.change = self._usual

    def send(self, message: Any) -> None:
        self._publisher.publish(message)

    def send_later(self, message: Any, delay_s: float) -> None:
        timer = threading.Timer(delay_s, self.send, (message,))
        timer.daemon = True
        timer.start()

    def _pass_on(self, message: Any) -> None:
        for changed in self.change(message):
            self.send(changed)
