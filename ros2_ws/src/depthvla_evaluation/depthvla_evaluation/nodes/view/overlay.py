"""The caption over RViz's picture: rviz_2d_overlay_msgs/OverlayText. The package is in no stock RViz."""

from __future__ import annotations

from html import escape

from rclpy.lifecycle import LifecycleNode
from rclpy.qos import QoSProfile
from std_msgs.msg import ColorRGBA

WIDTH_PX, HEIGHT_PX, TEXT_PT, MARGIN_PX = 620, 90, 12, 10


class Overlay:
    """Raises ImportError where rviz_2d_overlay_msgs is not installed."""

    def __init__(self, node: LifecycleNode, topic: str, profile: QoSProfile) -> None:
        from rviz_2d_overlay_msgs.msg import OverlayText

        self._type = OverlayText
        self._publisher = node.create_lifecycle_publisher(OverlayText, topic, profile)

    def show(self, text: str) -> None:
        message = self._type(action=self._type.ADD, width=WIDTH_PX, height=HEIGHT_PX, text_size=float(TEXT_PT))
        message.horizontal_alignment, message.vertical_alignment = self._type.LEFT, self._type.TOP
        message.horizontal_distance = message.vertical_distance = MARGIN_PX
        message.fg_color = ColorRGBA(r=1.0, g=1.0, b=1.0, a=1.0)
        message.bg_color = ColorRGBA(r=0.0, g=0.0, b=0.0, a=0.5)
        message.text = escape(text, quote=False)  # the plugin takes it for HTML
        self._publisher.publish(message)

    def hide(self) -> None:
        self._publisher.publish(self._type(action=self._type.DELETE))
