"""The picture: one joint around the largest gaps, and the largest steps at seams."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from depthvla_control.timeline import STRATEGIES
from depthvla_evaluation.colours import BLUE, GREEN, GREY, LIGHT, ORANGE, RED
from depthvla_evaluation.report.figures import STYLE, WIDTH_IN
from r1lite_description.robot import Robot
from r1lite_trials.chunk_boundaries_play import FAST_HZ, INDEPENDENT, Played
from r1lite_trials.trial import save_with_palette

COLOURS = dict(zip(STRATEGIES, (RED, BLUE, GREEN, ORANGE), strict=True))
SHOWN_S = 1.3  # of motion around a seam in the figure
UNITS = ("position [mrad]", "velocity [rad/s]", "acceleration [rad/s²]")


def draw(path: Path, rows: Sequence[dict], robot: Robot, played: Mapping[tuple[str, float], Played]) -> None:
    """One joint around the largest gap of every latency, a column a strategy; below it, the largest steps.

    rows: of `measure`, by strategy and latency. played: by strategy and latency [ms].
    """
    latencies = list(dict.fromkeys(latency for _, latency in played))
    heights = (2.0 * len(latencies), 2.4)
    with rc_context(STYLE):
        figure = Figure(figsize=(WIDTH_IN, sum(heights)), layout="constrained")
        above, below = figure.subfigures(2, 1, height_ratios=heights)
        axes = above.subplots(len(latencies), len(STRATEGIES), sharey="row", sharex="row", squeeze=False)
        for row, latency in zip(axes, latencies, strict=True):
            joint, center_s = _worst(played["replace", latency], robot)
            for axis, strategy in zip(row, STRATEGIES, strict=True):
                _draw_motion(axis, played[strategy, latency], joint, center_s, robot.control_rate_hz)
            row[0].set_ylabel(f"{latency:.0f} ms\n{robot.joint_names[joint].replace('_', ' ')} [rad]")
        for axis, strategy in zip(axes[0], STRATEGIES, strict=True):
            axis.set_title(f"{strategy}, {'recorded chunks' if strategy in INDEPENDENT else 'inferred chunks'}")
        for axis in axes[-1]:
            axis.set_xlabel("time [s]")
        axes[0, 0].legend(fontsize=7)
        _draw_bars(below.subplots(1, 5), rows, latencies)
    save_with_palette(figure, path, dpi=110, colours=128)


def _worst(run: Played, robot: Robot) -> tuple[int, float]:
    """Joint of the largest gap and its time since the first observation [s], not too near to that."""
    if not len(run.gaps):
        return 0, SHOWN_S / 2
    seam, joint = np.unravel_index(np.argmax(np.abs(run.gaps) * ~robot.gripper_mask), run.gaps.shape)
    return int(joint), max(float(run.arrivals_ns[seam] - run.begin_ns) * 1e-9, SHOWN_S / 2)


def _draw_motion(axis: Axes, run: Played, joint: int, center_s: float, rate: float) -> None:
    shown = center_s - SHOWN_S / 2, center_s + SHOWN_S / 2
    for chunk in run.chunks:
        begin_s = (chunk.stamp_ns - run.begin_ns) * 1e-9
        line = {"color": LIGHT, "linewidth": 1.2, "label": "chunks" if chunk is run.chunks[0] else None}
        _draw(axis, begin_s, chunk.period_ns * 1e-9, chunk.positions[:, joint], shown, **line)
        arrival_s = begin_s + run.latency_ns * 1e-9
        if shown[0] <= arrival_s <= shown[1]:
            axis.axvline(arrival_s, color=GREY, linewidth=0.6, linestyle=":")
    dots = {"color": GREY, "marker": "o", "markersize": 2.5, "linewidth": 0.6, "label": f"command, {rate:.0f} Hz"}
    _draw(axis, 0.0, 1.0 / rate, run.command[rate][:, joint], shown, **dots)
    line = {"color": COLOURS[run.strategy], "linewidth": 1.4, "label": f"motion, {FAST_HZ:.0f} Hz"}
    _draw(axis, 0.0, 1.0 / FAST_HZ, run.motion[FAST_HZ][:, joint], shown, **line)
    axis.set_xlim(shown)


def _draw(axis: Axes, begin_s: float, period_s: float, values: np.ndarray, shown: tuple[float, float], **style) -> None:
    times = begin_s + period_s * np.arange(len(values))
    inside = (times >= shown[0]) & (times <= shown[1])
    axis.plot(times[inside], values[inside], **style)


def _draw_bars(axes: Sequence[Axes], rows: Sequence[dict], latencies: Sequence[float]) -> None:
    """Of the chunks that are shown above."""
    width = 0.8 / len(STRATEGIES)
    titles = (
        *(f"largest step at a seam:\n{unit}" for unit in UNITS),
        "gap, median\n[mrad]",
        "lag of the command, rms\n[mrad]",
    )
    for axis, title in zip(axes, titles, strict=True):
        axis.set_title(title, fontsize=8.5)
        axis.set_xticks(range(len(latencies)), [f"{latency:.0f} ms" for latency in latencies])
    for row in rows:
        if (row["chunks"] == "recorded") != (row["strategy"] in INDEPENDENT):
            continue
        position = latencies.index(row["latency_ms"]) + (STRATEGIES.index(row["strategy"]) - 1.5) * width
        gap = (row["gap_mrad"] or {"p50": np.nan})["p50"]
        seam = row["seam"].values() if row["seams"] else [np.nan] * 3
        for axis, value in zip(axes, (*seam, gap, row["lag_rms_mrad"]), strict=True):
            label = row["strategy"] if row["latency_ms"] == latencies[0] else None
            axis.bar(position, value, width * 0.9, color=COLOURS[row["strategy"]], label=label)
            if not value >= 0.005:
                axis.annotate("-" if np.isnan(value) else "0", (position, 0), ha="center", va="bottom", fontsize=7)
    axes[0].legend(fontsize=7)
