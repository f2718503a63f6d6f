"""Colours of reports, videos and viewers: one meaning, one colour."""

from __future__ import annotations

from depthvla_control.arbiter import Mode

INK, GREY, LIGHT = "#1c2733", "#8a94a0", "#dfe3e8"
BLUE, ORANGE, GREEN, RED, PURPLE = "#2563c9", "#e07b1a", "#2e9e5b", "#cf3a3a", "#8f6fd1"
SERIES = (BLUE, ORANGE, GREEN, PURPLE, "#c2417c", "#12939a")  # of lines and bars that only differ in name
MODE_COLOURS = {  # of areas
    Mode.DISARMED: LIGHT,
    Mode.HOLD: "#f0b95a",
    Mode.TELEOP: PURPLE,
    Mode.POLICY: "#5b93e6",
    Mode.FAULT: RED,
}
