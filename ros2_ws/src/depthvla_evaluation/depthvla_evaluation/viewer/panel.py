"""What stands beside the scene: caption, camera and depth pictures, chunk latency, and what of the scene is shown."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

import cv2
import numpy as np

from depthvla_evaluation.viewer.clouds import depth_colours
from depthvla_evaluation.viewer.scene import Scene
from depthvla_evaluation.viewer.snapshot import Snapshot
from r1lite_description.robot import Robot

if TYPE_CHECKING:
    from viser import ViserServer

HEIGHT_PX = 180
NO_PICTURE = np.zeros((HEIGHT_PX, 320, 3), dtype=np.uint8)
MODE_COLOURS = {"POLICY": "#35c46a", "TELEOP": "#4da3ff", "HOLD": "#e0b000", "FAULT": "#ff5050"}


class Panel:
    """One panel of one server."""

    def __init__(self, server: ViserServer, robot: Robot, scene: Scene, depth_range_m: tuple[float, float]) -> None:
        """`depth_range_m`: nearest and farthest distance of the depth pictures' colours."""
        from viser import uplot

        self._server, self._depth_range_m = server, depth_range_m
        self._caption = server.gui.add_markdown("")
        with server.gui.add_folder("Camera and predicted depth"):
            self._pictures = {
                camera.name: server.gui.add_image(NO_PICTURE, label=camera.name.replace("_", " "), format="jpeg")
                for camera in robot.cameras
            }
        with server.gui.add_folder("Observation to chunk [ms]"):
            self._latency = server.gui.add_uplot(
                data=(np.array([0.0]), np.array([0.0])),
                series=(uplot.Series(label="t [s]"), uplot.Series(label="ms", stroke="#e0a040", width=2)),
                scales={"x": uplot.Scale(time=False), "y": uplot.Scale(range=(0, None))},
                axes=(uplot.Axis(stroke="#a0a0a0"), uplot.Axis(stroke="#a0a0a0")),
                legend=uplot.Legend(show=False),
                height=130,
            )
        with server.gui.add_folder("Show", expand_by_default=False):
            for part in scene.parts:
                self._add_switch(scene, part)
        self._shown: dict[str, tuple] = {}

    def show(self, snapshot: Snapshot) -> None:
        with self._server.atomic():
            self._show_if_new("caption", (snapshot.caption,), lambda: _markdown(snapshot), self._caption, "content")
            for name, handle in self._pictures.items():
                picture, depth = snapshot.images.get(name), snapshot.depth.get(name)
                stamps = (picture and picture.stamp_ns, depth and depth.stamp_ns)
                self._show_if_new(name, stamps, lambda name=name: self._picture(snapshot, name), handle, "image")
            if len(snapshot.latency_ms):
                times, values = np.array(snapshot.latency_ms, dtype=np.float64).T
                self._show_if_new("latency", (times[-1], len(times)), lambda: (times, values), self._latency, "data")

    def _show_if_new(self, what: str, mark: tuple, make, handle, attribute: str) -> None:
        if self._shown.get(what) != mark:
            self._shown[what] = mark
            setattr(handle, attribute, make())

    def _picture(self, snapshot: Snapshot, name: str) -> np.ndarray:
        """The camera's picture with its depth on the right."""
        picture, depth = snapshot.images.get(name), snapshot.depth.get(name)
        image = picture and picture.pixels()
        tiles = [NO_PICTURE if image is None else image]
        tiles += [depth_colours(depth.depth_m, *self._depth_range_m)] if depth else []
        widths = [round(HEIGHT_PX * tile.shape[1] / tile.shape[0]) for tile in tiles]
        return np.hstack(
            [
                cv2.resize(tile, (width, HEIGHT_PX), interpolation=cv2.INTER_AREA)
                for tile, width in zip(tiles, widths, strict=True)
            ]
        )

    def _add_switch(self, scene: Scene, part: str) -> None:
        switch = self._server.gui.add_checkbox(part, True)

        @switch.on_update
        def _(_) -> None:
            scene.show_part(part, switch.value)


def _markdown(snapshot: Snapshot) -> str:
    mode = snapshot.mode.name if snapshot.mode is not None else "NOT HEARD"
    colour = MODE_COLOURS.get(mode, "#a0a0a0")
    lines = [f'<span style="color:{colour}">**{mode}**</span> {escape(snapshot.cause)}']
    lines += [f"*{escape(snapshot.instruction)}*"] if snapshot.instruction else []
    lines += [f"no chunks: {escape(snapshot.complaint)}"] if snapshot.complaint else []
    return "\n\n".join(lines)
