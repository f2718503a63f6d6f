"""Open-loop error as a picture: over the steps of a chunk, and by step and joint."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from depthvla_evaluation.report.figures import BLUE, GREY, STYLE, WIDTH_IN


def open_loop_figure(summary: dict) -> Figure:
    """`summary` as `open_loop.summarise` gives it."""
    errors = np.array(summary["by_step_and_joint"], dtype=float)  # (steps, size); None becomes NaN
    times_s = np.arange(summary["steps"]) * summary["period_s"]
    with plt.rc_context(STYLE):
        figure, axes = plt.subplot_mosaic(
            [["arms_rad", "map"], ["grippers_mm", "map"]],
            figsize=(WIDTH_IN, 5.5),
            width_ratios=(1, 1.6),
            layout="constrained",
        )
        for kind, label in (("arms_rad", "arms [rad]"), ("grippers_mm", "grippers [mm]")):
            axes[kind].plot(times_s, _numbers(summary["by_step"][kind]), color=BLUE, label="predicted")
            axes[kind].plot(times_s, _numbers(summary["standing_by_step"][kind]), color=GREY, label="standing still")
            axes[kind].set(title=f"Mean absolute error, {label}", ylim=(0, None))
            axes[kind].legend()
        axes["grippers_mm"].set_xlabel("time after the observation [s]")
        # Joints in rad and grippers in mm share no scale: each column is shown against its own largest error.
        largest = np.nanmax(np.where(np.isfinite(errors), errors, 0.0), axis=0)
        axes["map"].imshow((errors / np.where(largest > 0, largest, 1.0)).T, aspect="auto", cmap="Blues", vmin=0)
        axes["map"].set(title="By joint, against its largest", xlabel="step")
        labels = [f"{name}  ({value:.3g})" for name, value in zip(summary["joints"], largest, strict=True)]
        axes["map"].set_yticks(range(len(labels)), labels)
        axes["map"].grid(False)
    return figure


def _numbers(values: list) -> np.ndarray:
    return np.array(values, dtype=float)
