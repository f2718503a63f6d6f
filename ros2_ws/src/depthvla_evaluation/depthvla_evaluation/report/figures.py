"""The pictures of a report, one function each: an `Episode` (and views) in, a matplotlib figure out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from depthvla_control.arbiter import Mode
from depthvla_evaluation.bags.bag import JointStream
from depthvla_evaluation.bags.episode import Episode
from depthvla_evaluation.bags.pictures import DepthFrame, View
from depthvla_evaluation.metrics import summarise

INK, GREY, LIGHT = "#1c2733", "#8a94a0", "#dfe3e8"
BLUE, ORANGE, GREEN, RED = "#2563c9", "#e07b1a", "#2e9e5b", "#cf3a3a"
MODE_COLOURS = {
    Mode.DISARMED: LIGHT,
    Mode.HOLD: "#f0b95a",
    Mode.TELEOP: "#8f6fd1",
    Mode.POLICY: "#5b93e6",
    Mode.FAULT: RED,
}
CAMERA_COLOURS = (BLUE, ORANGE, GREEN, "#8f6fd1")
ERROR_MAX = 0.3  # relative depth error at the top of the colour scale
MEASURED = {"color": GREY, "linewidth": 2.6, "alpha": 0.7, "label": "measured"}
COMMANDED = {"color": BLUE, "linewidth": 1.1, "label": "commanded"}
DEPTH_TICKS_M = (0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 1.0, 1.5, 2.0, 3.0, 5.0)
WIDTH_IN = 11.0
DPI = 140
STYLE = {
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": GREY,
    "axes.titlesize": 9.5,
    "axes.titleweight": "bold",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#eceff2",
    "xtick.color": INK,
    "ytick.color": INK,
    "legend.facecolor": "white",
    "legend.edgecolor": "none",
    "legend.framealpha": 0.85,
    "figure.facecolor": "white",
}


def depth_figure(views: Sequence[View]) -> Figure:
    """A row a camera: image, predicted and true depth on one colour scale, relative error. Missing columns stay out."""
    views = [view for view in views if view.predicted_m is not None]
    with_truth = any(view.true_m is not None for view in views)
    columns = 4 if with_truth else 2
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(
            len(views),
            columns,
            figsize=(WIDTH_IN, WIDTH_IN / 4 * len(views) * 0.93),
            squeeze=False,
            layout="constrained",
        )
        for row, view in zip(axes, views, strict=True):
            for axis in row:
                axis.set(xticks=[], yticks=[])
                axis.grid(False)
                axis.spines[:].set_visible(False)
            reference = view.predicted_m if view.true_m is None else view.true_m
            scale = {"cmap": _colour_map("Spectral"), "norm": LogNorm(*_range(reference))}
            if view.fitted is not None:
                row[0].imshow(view.fitted)
            row[0].set_ylabel(view.camera.replace("_", " "), fontsize=11, fontweight="bold")
            depth = row[1].imshow(view.predicted_m, **scale)
            if view.true_m is not None:
                depth = row[2].imshow(view.true_m, **scale)
                relative = np.abs(view.predicted_m - view.true_m) / view.true_m
                error = row[3].imshow(relative, cmap=_colour_map("magma"), vmin=0, vmax=ERROR_MAX)
                bar = figure.colorbar(error, ax=row[3], fraction=0.046, pad=0.03, format=PercentFormatter(1.0))
                _plain(bar)
                row[3].set_xlabel(f"mean {np.nanmean(relative):.1%}", labelpad=3)
            bar = figure.colorbar(
                depth, ax=row[2 if with_truth else 1], fraction=0.046, pad=0.03, format="%g m", ticks=DEPTH_TICKS_M
            )
            bar.minorticks_off()
            _plain(bar)
        titles = ("camera", "predicted depth", "true depth", "relative error")
        for axis, title in zip(axes[0], titles, strict=False):
            axis.set_title(title, pad=8)
    return figure


def film_figure(moments: Sequence[Sequence[View]], episode: Episode) -> Figure:
    """What the cameras saw: a row a camera, a column a moment."""
    cameras = [camera.name for camera in episode.robot.cameras]
    with plt.rc_context(STYLE):
        first = next(view.image for views in moments for view in views if view.image is not None)
        ratio = first.shape[0] / first.shape[1]
        cell = WIDTH_IN / len(moments)
        figure, axes = plt.subplots(
            len(cameras),
            len(moments),
            figsize=(WIDTH_IN, cell * ratio * len(cameras) + 0.35),
            squeeze=False,
            gridspec_kw={"wspace": 0.03, "hspace": 0.04, "left": 0.03, "right": 0.998, "bottom": 0.005, "top": 0.93},
        )
        for column, views in enumerate(moments):
            for row, view in enumerate(views):
                axis = axes[row, column]
                axis.set(xticks=[], yticks=[])
                axis.grid(False)
                axis.spines[:].set_visible(False)
                if view.image is not None:
                    axis.imshow(view.image, aspect="auto")
                if column == 0:
                    axis.set_ylabel(view.camera.replace("_", " "))
                if row == 0:
                    axis.set_title(f"{episode.seconds(view.stamp_ns):.1f} s", fontweight="normal")
    return figure


def joints_figure(episode: Episode) -> Figure:
    """Commanded and measured joints of every limb over time, with the limits of motion."""
    robot = episode.robot
    rows = max(len(limb.names) for limb in robot.limbs)
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(
            rows, len(robot.limbs), figsize=(WIDTH_IN, 1.28 * rows), sharex=True, squeeze=False, layout="constrained"
        )
        for column, limb in enumerate(robot.limbs):
            streams = episode.limbs[limb.name]
            axes[0, column].set_title(f"{limb.name} arm")
            for row, name in enumerate(limb.names):
                gripper = name == limb.gripper
                measured = streams.gripper_measured if gripper else streams.arm_measured
                commanded = streams.gripper_commanded if gripper else streams.arm_commanded
                joint = 0 if gripper else row
                axis = axes[row, column]
                _limits(axis, robot.position_min[limb.offset + row], robot.position_max[limb.offset + row])
                for stream, style in ((measured, MEASURED), (commanded, COMMANDED)):
                    axis.plot(episode.seconds(stream.stamp_ns), stream.positions[:, joint], **style)
                _note_difference(axis, commanded, measured, joint, "mm" if gripper else "rad")
                if column == 0:
                    axis.set_ylabel("gripper [mm]" if gripper else f"joint {row + 1} [rad]")
            axes[-1, column].set_xlabel("time [s]")
        handles, labels = axes[0, 0].get_legend_handles_labels()
        figure.legend(handles[::-1], labels[::-1], loc="outside upper center", ncols=len(labels))
        axes[0, 0].set_xlim(*_span(episode))
        figure.align_ylabels()
    return figure


def timeline_figure(episode: Episode) -> Figure:
    """Over time: progress of the task, mode of the executor, chunks and how far the buffer reached ahead."""
    ticks, progress = episode.ticks, episode.progress
    with plt.rc_context(STYLE):
        figure, (top, middle, bottom) = plt.subplots(
            3, 1, figsize=(WIDTH_IN, 3.9), sharex=True, layout="constrained", height_ratios=(2.2, 0.7, 2.0)
        )
        top.set(ylim=(-0.05, 1.12), ylabel="progress")
        top.yaxis.set_major_formatter(PercentFormatter(1.0))
        top.step(episode.seconds(progress.stamp_ns), progress.progress, where="post", color=GREEN, linewidth=2)
        if progress.success.any() and not progress.success[0]:
            time_s = episode.seconds(progress.stamp_ns[np.argmax(progress.success)])
            top.axvline(time_s, color=GREEN, linestyle="--", linewidth=1)
            top.annotate(f"success {time_s:.1f} s", (time_s, 0.05), (5, 0), textcoords="offset points", color=GREEN)
        for mark in episode.notes.marks:
            time_s = episode.seconds(mark.time_ns)
            top.axvline(time_s, color=ORANGE, linewidth=1)
            top.annotate(mark.substep, (time_s, 0.97), (3, 0), textcoords="offset points", rotation=90, va="top")
        if not episode.notes.marks:
            _note_if_empty(top, progress.stamp_ns, "nobody reported progress")

        middle.set(yticks=[], ylabel="mode")
        middle.grid(False)
        spans = [span for span in mode_spans(episode) if span[2] > _span(episode)[0]]
        for mode, begin_s, end_s in spans:
            middle.axvspan(begin_s, end_s, color=MODE_COLOURS[mode], linewidth=0)
        for change in episode.mode_changes:
            if change.intervention:
                middle.axvline(episode.seconds(change.stamp_ns), color=RED, linewidth=2)
        shown = sorted({mode for mode, _, _ in spans})
        patches = [plt.Rectangle((0, 0), 1, 1, color=MODE_COLOURS[mode]) for mode in shown]
        middle.legend(
            patches, [mode.name for mode in shown], loc="center left", bbox_to_anchor=(1.0, 0.5), handlelength=1.0
        )
        _note_if_empty(middle, ticks.stamp_ns, "no executor status")

        bottom.step(episode.seconds(ticks.stamp_ns), ticks.steps_left, where="post", color=BLUE, linewidth=1.2)
        bottom.plot(
            episode.seconds(episode.chunks.received_ns),
            np.zeros(len(episode.chunks.received_ns)),
            "|",
            color=INK,
            markersize=9,
            clip_on=False,
        )
        bottom.set(ylabel="steps left", xlabel="time [s]  (ticks on the axis: chunks)", ylim=(0, None))
        bottom.set_xlim(*_span(episode))
        figure.align_ylabels()
    return figure


def latency_figure(episode: Episode) -> Figure:
    """Histogram of the time from an observation to its chunk's arrival at the executor, and what it is made of."""
    chunks = episode.chunks
    with plt.rc_context(STYLE):
        figure, (left, right) = plt.subplots(
            1, 2, figsize=(WIDTH_IN, 2.9), layout="constrained", width_ratios=(1.55, 1)
        )
        _histogram(left, episode.chunk_latency_s * 1e3, BLUE)
        left.set(xlabel="observation to executor [ms]", ylabel="chunks", title="Chunk latency")

        total = summarise(episode.chunk_latency_s).get("p50")
        parts = [
            ("pre-processing", _median(chunks.preprocess_s)),
            ("network", _median(chunks.inference_s)),
            ("rest of the policy node", _median(chunks.total_s - chunks.preprocess_s - chunks.inference_s)),
        ]
        if total is not None:
            parts.append(("waiting and transport", max(0.0, total - _median(chunks.total_s))))
        names, values = zip(*parts, strict=True)
        bars = right.barh(names, np.array(values) * 1e3, color=[BLUE, BLUE, BLUE, LIGHT], height=0.6)
        right.bar_label(bars, fmt="%.1f ms", padding=4)
        right.invert_yaxis()
        right.margins(x=0.22)
        right.grid(axis="y", visible=False)
        right.set(xlabel="median [ms]", title="Where the time goes")
    return figure


def jitter_figure(episode: Episode) -> Figure:
    """Histogram of how late the executor's ticks came, with the bound beyond which a tick counts as missed."""
    with plt.rc_context(STYLE):
        figure, axis = plt.subplots(figsize=(WIDTH_IN, 2.6), layout="constrained")
        _histogram(axis, episode.ticks.jitter_s * 1e3, ORANGE, log=True)
        bound_ms = episode.robot.period_s / 2 * 1e3
        axis.axvline(bound_ms, color=RED, linewidth=1.2, linestyle="--")
        axis.annotate(
            "missed",
            (bound_ms, 0.9),
            (4, 0),
            xycoords=("data", "axes fraction"),
            textcoords="offset points",
            color=RED,
        )
        axis.set(xlabel="lateness of a tick [ms]", ylabel="ticks", title="Executor jitter")
        axis.set_xlim(0, max(bound_ms * 1.15, *(episode.ticks.jitter_s * 1e3 * 1.05), 0))
    return figure


def depth_error_figure(episode: Episode, compared: Sequence[DepthFrame]) -> Figure:
    """Mean relative depth error of every compared image over time, a line a camera."""
    with plt.rc_context(STYLE):
        figure, axis = plt.subplots(figsize=(WIDTH_IN, 2.4), layout="constrained")
        for camera, colour in zip(episode.robot.cameras, CAMERA_COLOURS, strict=False):
            frames = [frame for frame in compared if frame.camera == camera.name]
            times = episode.seconds(np.array([frame.stamp_ns for frame in frames]))
            errors = [frame.errors.abs_rel for frame in frames]
            axis.plot(
                times, errors, ".-", color=colour, linewidth=1.1, markersize=4, label=camera.name.replace("_", " ")
            )
        axis.yaxis.set_major_formatter(PercentFormatter(1.0))
        axis.set(xlabel="time [s]", ylabel="AbsRel", title="Depth error", ylim=(0, None))
        axis.set_xlim(*_span(episode))
        axis.legend(ncols=4, loc="upper right")
    return figure


def save(figure: Figure, path: Path) -> None:
    """Write a figure as PNG and let go of it."""
    figure.savefig(path, dpi=DPI)
    plt.close(figure)


def mode_spans(episode: Episode) -> list[tuple[Mode, float, float]]:
    """(mode, begin, end) in seconds, one for each stretch of one mode."""
    ticks = episode.ticks
    if not ticks.stamp_ns.size:
        return []
    times = episode.seconds(ticks.stamp_ns)
    begins = np.flatnonzero(np.diff(ticks.mode, prepend=-1) != 0)
    ends = np.append(times[begins[1:]], times[-1] + episode.robot.period_s)
    return [(Mode(ticks.mode[i]), float(times[i]), float(end)) for i, end in zip(begins, ends, strict=True)]


def _span(episode: Episode) -> tuple[float, float]:
    """What is shown of an episode [s]: a little of what was before the policy's first chunk, and all that followed."""
    before_s = episode.recorded_s - episode.duration_s
    return -min(before_s, 0.05 * episode.duration_s), max(episode.duration_s, 0.1)


def _range(depth_m: np.ndarray) -> tuple[float, float]:
    finite = depth_m[np.isfinite(depth_m) & (depth_m > 0)]
    if not finite.size:
        return 0.1, 1.0
    low, high = np.quantile(finite, [0.01, 0.99])
    return float(low), float(max(high, 1.01 * low))


def _colour_map(name: str):
    return matplotlib.colormaps[name].with_extremes(bad="#e6e6e6")


def _plain(colour_bar) -> None:
    colour_bar.outline.set_visible(False)
    colour_bar.ax.tick_params(length=2, labelsize=8)


def _limits(axis, low: float, high: float) -> None:
    margin = 0.08 * (high - low)
    axis.set_ylim(low - margin, high + margin)
    for begin, end in ((low - margin, low), (high, high + margin)):
        axis.axhspan(begin, end, color=RED, alpha=0.13, linewidth=0)
    axis.axhline(low, color=RED, linewidth=0.8)
    axis.axhline(high, color=RED, linewidth=0.8, label="limit of motion")


def _note_difference(axis, commanded: JointStream, measured: JointStream, joint: int, unit: str) -> None:
    if not commanded.stamp_ns.size or not measured.stamp_ns.size:
        _note_if_empty(axis, np.array([]), "not recorded")
        return
    followed = np.interp(commanded.stamp_ns, measured.stamp_ns, measured.positions[:, joint])
    largest = np.max(np.abs(commanded.positions[:, joint] - followed))
    note = f"differ by {largest:.2g} {unit} at most"
    axis.set_title(note, loc="right", fontsize=7.5, fontweight="normal", color=GREY, pad=2)


def _histogram(axis, values: np.ndarray, colour: str, *, log: bool = False) -> None:
    summary = summarise(values)
    if not summary:
        _note_if_empty(axis, np.array([]), "nothing was recorded")
        return
    axis.hist(values, bins=30, color=colour, log=log)
    for name, style in (("p50", "-"), ("p95", ":")):
        axis.axvline(summary[name], color=INK, linewidth=1.2, linestyle=style, label=f"{name}  {summary[name]:.1f} ms")
    axis.legend(loc="upper right")


def _median(values: np.ndarray) -> float:
    return summarise(values).get("p50", 0.0)


def _note_if_empty(axis, values: np.ndarray, note: str) -> None:
    if not values.size:
        axis.text(0.5, 0.5, note, transform=axis.transAxes, ha="center", va="center", color=GREY)
