"""One frame of an episode's video: what every camera saw, the depth predicted, joints, mode and substeps done."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import cv2
import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from matplotlib import font_manager
from PIL import Image, ImageDraw, ImageFont

from depthvla_control.arbiter import Mode
from depthvla_evaluation.bags.bag import JointStream, depth_image
from depthvla_evaluation.bags.episode import Episode
from depthvla_evaluation.bags.recorded_graph import picture_topics
from depthvla_evaluation.metrics import resample
from depthvla_evaluation.report.figures import GREY, INK, LIGHT, MODE_COLOURS, RED, STYLE, mode_spans
from depthvla_policy.policy.camera_images import camera_image

WIDTH = 1280
GAP = 8
BANNER, CHIPS, JOINTS = 48, 32, 256  # heights
CELL_RATIO = 9 / 16
DEPTH_RANGE_M = (0.05, 3.0)  # the same in every video, so that two can be compared
NOTHING = (230, 230, 230)  # no image yet, or no depth there
INTERVENTION_SHOWN_S = 2.0
JOINT_COLOURS = ("#2563c9", "#e07b1a", "#2e9e5b", "#8f6fd1", "#c2417c", "#12939a")


class Composer:
    """Keeps one canvas (H, W, 3) uint8 RGB up to date. Messages go in, `draw` gives the canvas at a moment."""

    def __init__(self, episode: Episode) -> None:
        self._episode = episode
        self._cameras = episode.robot.cameras
        self._newest: dict[str, Any] = {}  # topic -> message that is not on the canvas yet
        self._image_size: dict[str, tuple[int, int]] = {}  # image topic -> width, height
        self._marks = [(mark.substep, mark.time_ns) for mark in episode.notes.marks]
        self._cell = (WIDTH - GAP * (len(self._cameras) + 1)) // len(self._cameras)
        self._cell_height = round(self._cell * CELL_RATIO)
        self._cells_top = BANNER + (CHIPS if self._marks else 0)
        self._joints_top = self._cells_top + 2 * (self._cell_height + GAP)
        height = self._joints_top + JOINTS
        self.canvas = np.full((height + height % 2, WIDTH, 3), 255, np.uint8)  # H.264 wants even sizes
        self._joints, self._columns = _joint_traces(episode)
        self._banner: tuple = ()
        for column, camera in enumerate(self._cameras):
            name = camera.name.replace("_", " ")
            for row, label in enumerate((name, "predicted depth")):
                self._paste(row, column, np.full((self._cell_height, self._cell, 3), NOTHING, np.uint8), label)

    def take(self, topic: str, message: Any) -> None:
        """An image or predicted depth; it is drawn when a frame is."""
        self._newest[topic] = message

    def draw(self, time_ns: int) -> np.ndarray:
        """The canvas, which the next call changes.

        Raises:
            ValueError: a picture cannot be read.
        """
        newest, self._newest = self._newest, {}
        for column, camera in enumerate(self._cameras):
            image, depth, _ = picture_topics(camera)
            if image in newest:
                seen = camera_image(newest[image], self._episode.rectifiers.get(image))
                self._draw_image(column, camera.name, image, seen)
            if depth in newest:
                self._draw_depth(column, image, depth, depth_image(newest[depth]))
        self._draw_banner(time_ns)
        self._draw_joints(float(self._episode.seconds(time_ns)))
        return self.canvas

    def _draw_image(self, column: int, name: str, topic: str, image: np.ndarray) -> None:
        height, width = image.shape[:2]
        self._image_size[topic] = width, height
        scale = self._scale(width, height)
        interpolation = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
        shown = cv2.resize(image, (round(width * scale), round(height * scale)), interpolation=interpolation)
        self._paste(0, column, shown, name.replace("_", " "))

    def _draw_depth(self, column: int, image: str, topic: str, depth_m: np.ndarray) -> None:
        """In the camera's own geometry, where both camera matrices were recorded; else as it is."""
        matrices = self._episode.camera_matrices
        if image in self._image_size and image in matrices and topic in matrices:
            width, height = self._image_size[image]
            scale = self._scale(width, height)
            target = matrices[image].copy()
            target[:2, :2] *= scale
            target[:2, 2] = (target[:2, 2] + 0.5) * scale - 0.5
            shown = resample(depth_m, matrices[topic], target, (round(height * scale), round(width * scale)))
        else:
            height, width = depth_m.shape
            scale = self._scale(width, height)
            size = round(width * scale), round(height * scale)
            shown = cv2.resize(depth_m, size, interpolation=cv2.INTER_NEAREST)
        self._paste(1, column, depth_colours(shown), "predicted depth", bar=True)

    def _scale(self, width: int, height: int) -> float:
        return min(self._cell / width, self._cell_height / height)

    def _paste(self, row: int, column: int, picture: np.ndarray, label: str, *, bar: bool = False) -> None:
        top = self._cells_top + row * (self._cell_height + GAP)
        left = GAP + column * (self._cell + GAP)
        cell = self.canvas[top : top + self._cell_height, left : left + self._cell]
        cell[:] = NOTHING
        height, width = picture.shape[:2]
        y, x = (self._cell_height - height) // 2, (self._cell - width) // 2
        cell[y : y + height, x : x + width] = picture
        tag = _tag(label)
        cell[: tag.shape[0], : tag.shape[1]] = tag
        if bar:
            scale = _depth_bar()
            cell[-scale.shape[0] :, -scale.shape[1] :] = scale

    def _draw_banner(self, time_ns: int) -> None:
        episode = self._episode
        index = int(np.searchsorted(episode.ticks.stamp_ns, time_ns, side="right")) - 1
        mode = Mode(episode.ticks.mode[index]) if index >= 0 else None
        done = sum(mark_ns <= time_ns for _, mark_ns in self._marks)
        took_over = any(
            change.intervention and 0 <= time_ns - change.stamp_ns < INTERVENTION_SHOWN_S * 1e9
            for change in episode.mode_changes
        )
        if (mode, done, took_over) != self._banner:
            self._banner = mode, done, took_over
            instruction = episode.notes.instruction or " / ".join(episode.chunks.instructions)
            self.canvas[:BANNER] = _banner(mode, instruction, took_over)
            if self._marks:
                names = tuple(name for name, _ in self._marks)
                self.canvas[BANNER : BANNER + CHIPS] = _chips(names, done)
        clock = _clock(f"{float(episode.seconds(time_ns)):.2f} s")
        self.canvas[: clock.shape[0], -clock.shape[1] :] = clock

    def _draw_joints(self, time_s: float) -> None:
        area = self.canvas[self._joints_top : self._joints_top + JOINTS]
        area[:] = self._joints
        for left, right, top, bottom, begin_s, end_s in self._columns:
            x = left + (time_s - begin_s) / max(end_s - begin_s, 1e-9) * (right - left)
            if left <= x <= right:
                cv2.line(area, (round(x), top), (round(x), bottom), (207, 58, 58), 1)


def _joint_traces(episode: Episode) -> tuple[np.ndarray, list[tuple[int, int, int, int, float, float]]]:
    """Commanded (thin) and measured (broad) joints of every limb, and of each column of axes where its cursor runs:
    left, right, top and bottom [px], begin and end [s].
    """
    limbs = episode.robot.limbs
    begin_s = -(episode.recorded_s - episode.duration_s)
    end_s = max(episode.duration_s, begin_s + 0.1)
    dpi = 100
    with plt.rc_context({**STYLE, "font.size": 7.5, "axes.titlesize": 8.5, "path.simplify_threshold": 0.5}):
        figure, axes = plt.subplots(
            2,
            len(limbs),
            figsize=(WIDTH / dpi, JOINTS / dpi),
            dpi=dpi,
            sharex=True,
            squeeze=False,
            gridspec_kw={
                "height_ratios": (3, 1),
                "left": 0.05,
                "right": 0.99,
                "bottom": 0.1,
                "top": 0.9,
                "wspace": 0.1,
                "hspace": 0.15,
            },
        )
        for column, limb in enumerate(limbs):
            streams = episode.limbs[limb.name]
            arm, gripper = axes[:, column]
            arm.set_title(f"{limb.name} arm: commanded (thin), measured (broad)", pad=3)
            _traces(arm, episode, streams.arm_measured, streams.arm_commanded)
            _traces(gripper, episode, streams.gripper_measured, streams.gripper_commanded)
            for axis in (arm, gripper):
                for mode, mode_begin_s, mode_end_s in mode_spans(episode):
                    axis.axvspan(mode_begin_s, mode_end_s, color=MODE_COLOURS[mode], alpha=0.13, linewidth=0)
            gripper.set_xlim(begin_s, end_s)
            gripper.set_ylim(-5, episode.robot.position_max[limb.gripper_index] * 1.08)
        axes[0, 0].set_ylabel("joints [rad]")
        axes[1, 0].set_ylabel("gripper [mm]")
        figure.canvas.draw()
        pixels = np.asarray(figure.canvas.buffer_rgba())[..., :3].copy()
        columns = []
        for arm, gripper in axes.T:
            upper, lower = arm.get_window_extent(), gripper.get_window_extent()
            box = round(upper.x0), round(upper.x1), round(JOINTS - upper.y1), round(JOINTS - lower.y0)
            columns.append((*box, begin_s, end_s))
        plt.close(figure)
    return pixels, columns


def _traces(axis, episode: Episode, measured: JointStream, commanded: JointStream) -> None:
    for stream, style in ((measured, {"linewidth": 2.4, "alpha": 0.35}), (commanded, {"linewidth": 0.9})):
        times = episode.seconds(stream.stamp_ns)
        for joint, colour in zip(range(stream.positions.shape[1]), JOINT_COLOURS, strict=False):
            axis.plot(times, stream.positions[:, joint], color=colour, **style)


def _banner(mode: Mode | None, instruction: str, took_over: bool) -> np.ndarray:
    image = Image.new("RGB", (WIDTH, BANNER), "white")
    draw = ImageDraw.Draw(image)
    name, colour = (mode.name, MODE_COLOURS[mode]) if mode is not None else ("no status", LIGHT)
    font = _font(18, bold=True)
    width = draw.textlength(name, font)
    draw.rounded_rectangle((GAP, 9, GAP + width + 28, BANNER - 9), 15, fill=colour)
    draw.text((GAP + 14, BANNER / 2), name, INK if mode in (None, Mode.DISARMED, Mode.HOLD) else "white", font, "lm")
    left = GAP + width + 44
    if took_over:
        draw.text((left, BANNER / 2), "a person took over", RED, font, "lm")
        left += draw.textlength("a person took over", font) + 16
    draw.text((left, BANNER / 2), instruction, INK, _font(18), "lm")
    return np.asarray(image)


def _chips(names: Sequence[str], done: int) -> np.ndarray:
    image = Image.new("RGB", (WIDTH, CHIPS), "white")
    draw = ImageDraw.Draw(image)
    left = GAP
    for index, name in enumerate(names):
        text = name.replace("_", " ")
        width = draw.textlength(text, _font(14)) + 24
        good = index < done
        draw.rounded_rectangle((left, 2, left + width, CHIPS - 6), 12, fill="#dcf3e4" if good else "#eef1f4")
        draw.text((left + 12, (CHIPS - 4) / 2), text, "#1c6b3c" if good else GREY, _font(14), "lm")
        left += width + 6
    return np.asarray(image)


def _clock(text: str) -> np.ndarray:
    image = Image.new("RGB", (130, BANNER), "white")
    ImageDraw.Draw(image).text((130 - GAP, BANNER / 2), text, INK, _font(20, bold=True), "rm")
    return np.asarray(image)


@lru_cache
def _tag(label: str) -> np.ndarray:
    font = _font(13)
    width = round(font.getlength(label)) + 14
    image = Image.new("RGB", (width, 21), INK)
    ImageDraw.Draw(image).text((7, 10), label, "white", font, "lm")
    return np.asarray(image)


@lru_cache
def _depth_bar() -> np.ndarray:
    """The colour scale with its ends."""
    image = Image.new("RGB", (188, 21), INK)
    draw = ImageDraw.Draw(image)
    low, high = DEPTH_RANGE_M
    draw.text((6, 10), f"{low:g}", "white", _font(12), "lm")
    draw.text((182, 10), f"{high:g} m", "white", _font(12), "rm")
    pixels = np.array(image)
    pixels[6:15, 40:140] = depth_colours(np.geomspace(low, high, 100)[None].repeat(9, 0))
    return pixels


def depth_colours(depth_m: np.ndarray) -> np.ndarray:
    """(H, W) metres -> (H, W, 3) uint8 on the logarithmic scale of DEPTH_RANGE_M."""
    low, high = np.log(DEPTH_RANGE_M)
    valid = np.isfinite(depth_m) & (depth_m > 0)
    share = (np.log(np.where(valid, depth_m, 1.0)) - low) / (high - low)
    pixels = _table()[(np.clip(share, 0, 1) * 255).astype(np.uint8)]
    pixels[~valid] = NOTHING
    return pixels


@lru_cache
def _table() -> np.ndarray:
    """(256, 3) uint8 colours from near to far."""
    return (matplotlib.colormaps["Spectral"](np.arange(256))[:, :3] * 255).astype(np.uint8)


@lru_cache
def _font(size: int, *, bold: bool = False) -> ImageFont.FreeTypeFont:
    properties = font_manager.FontProperties(family="DejaVu Sans", weight="bold" if bold else "normal")
    return ImageFont.truetype(font_manager.findfont(properties), size)
