"""Plays a recorded episode: where it is, and the controls for it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from viser import ViserServer

STEP_S = 0.02
SPEEDS = ("0.25", "0.5", "1", "2", "4")


@dataclass
class Playback:
    """Position in a recording of `duration_s`; starts again after its end."""

    duration_s: float
    position_s: float = 0.0
    playing: bool = True
    speed: float = 1.0

    def advance(self, elapsed_s: float) -> None:
        if self.playing:
            position_s = self.position_s + self.speed * elapsed_s
            self.position_s = 0.0 if position_s > self.duration_s else position_s

    def seek(self, position_s: float) -> None:
        self.position_s = min(max(position_s, 0.0), self.duration_s)


class Controls:
    """A time slider, play and pause, and the speed. The slider follows the playback unless a person moves it."""

    def __init__(self, server: ViserServer, playback: Playback) -> None:
        self._playback = playback
        with server.gui.add_folder("Recording"):
            length_s = max(STEP_S, round(playback.duration_s / STEP_S) * STEP_S)
            self._slider = server.gui.add_slider("time [s]", 0.0, length_s, STEP_S, 0.0)
            self._button = server.gui.add_button(_button(playback))
            self._speed = server.gui.add_dropdown("speed", SPEEDS, initial_value="1")
        self._shown_s = self._slider.value

        @self._button.on_click
        def _(_) -> None:
            playback.playing = not playback.playing
            self._button.label = _button(playback)

    def advance(self, elapsed_s: float) -> None:
        if self._slider.value != self._shown_s:
            self._playback.seek(self._slider.value)
        else:
            self._playback.speed = float(self._speed.value)
            self._playback.advance(elapsed_s)
        self._shown_s = round(self._playback.position_s / STEP_S) * STEP_S
        if self._slider.value != self._shown_s:
            self._slider.value = self._shown_s


def _button(playback: Playback) -> str:
    return "Pause" if playback.playing else "Play"
