"""A node's own health on /diagnostics, once a second. Built directly: diagnostic_updater is not everywhere."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from rclpy.clock import Clock, ClockType
from rclpy.node import Node

PERIOD_S = 1.0
OK, WARN, ERROR, STALE = DiagnosticStatus.OK, DiagnosticStatus.WARN, DiagnosticStatus.ERROR, DiagnosticStatus.STALE


@dataclass(frozen=True)
class Health:
    level: bytes
    message: str
    values: Mapping[str, object] = field(default_factory=dict)


class Diagnostics:
    """Publishes what `read` returns. Not managed by the lifecycle: an inactive node says that it is."""

    def __init__(self, node: Node, task: str, read: Callable[[], Health], hardware_id: str = "") -> None:
        self._node, self._read = node, read
        self._name, self._hardware_id = f"{node.get_name()}: {task}", hardware_id
        self._publisher = node.create_publisher(DiagnosticArray, "/diagnostics", 10)
        node.create_timer(PERIOD_S, self._publish, clock=Clock(clock_type=ClockType.STEADY_TIME))

    def _publish(self) -> None:
        health = self._read()
        status = DiagnosticStatus(
            level=health.level, name=self._name, message=health.message, hardware_id=self._hardware_id
        )
        status.values = [KeyValue(key=key, value=_text(value)) for key, value in health.values.items()]
        message = DiagnosticArray(status=[status])
        message.header.stamp = self._node.get_clock().now().to_msg()
        self._publisher.publish(message)


def _text(value: object) -> str:
    return f"{value:.3f}" if isinstance(value, float) else str(value)
