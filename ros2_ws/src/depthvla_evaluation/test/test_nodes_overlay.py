from __future__ import annotations

import sys
from types import ModuleType, SimpleNamespace

import pytest

pytest.importorskip("rclpy", reason="rclpy is not installed")

from depthvla_evaluation.nodes.view.overlay import Overlay  # noqa: E402

# rviz_2d_overlay_msgs/msg/OverlayText
FIELDS = {
    *("action", "width", "height", "horizontal_distance", "vertical_distance", "horizontal_alignment"),
    *("vertical_alignment", "bg_color", "line_width", "text_size", "font", "fg_color", "text"),
}


class OverlayText:
    ADD, DELETE, LEFT, RIGHT, CENTER, TOP, BOTTOM = 0, 1, 0, 1, 2, 3, 4

    def __init__(self, **fields):
        for name, value in fields.items():
            setattr(self, name, value)

    def __setattr__(self, name, value):
        assert name in FIELDS
        super().__setattr__(name, value)


@pytest.fixture
def said(monkeypatch):
    package, module = ModuleType("rviz_2d_overlay_msgs"), ModuleType("rviz_2d_overlay_msgs.msg")
    module.OverlayText = OverlayText
    monkeypatch.setitem(sys.modules, package.__name__, package)
    monkeypatch.setitem(sys.modules, module.__name__, module)
    messages = []
    publisher = SimpleNamespace(publish=messages.append)
    node = SimpleNamespace(create_lifecycle_publisher=lambda kind, topic, profile: publisher)
    return Overlay(node, "~/overlay", None), messages


def test_the_text_is_shown_and_is_no_html(said):
    overlay, messages = said
    overlay.show("HOLD: 1 < 2\nstack")
    assert (messages[0].action, messages[0].text) == (OverlayText.ADD, "HOLD: 1 &lt; 2\nstack")
    assert messages[0].fg_color.a == 1.0 and messages[0].width > 0


def test_it_is_taken_away(said):
    overlay, messages = said
    overlay.hide()
    assert messages[0].action == OverlayText.DELETE


def test_without_the_package_there_is_none(monkeypatch):
    monkeypatch.setitem(sys.modules, "rviz_2d_overlay_msgs", None)
    with pytest.raises(ImportError):
        Overlay(SimpleNamespace(), "~/overlay", None)
