"""The loss curve of a training log as a picture."""

from __future__ import annotations

from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402

from depthvla_policy.training.log import read  # noqa: E402

NO_LOSSES = {"step", "samples_per_s", "mfu", "learning_rate", "gradient_norm"}


def plot_losses(log: Path, picture: Path) -> None:
    """Draw every loss of a `train.jsonl` over the step, on a logarithmic axis."""
    rows = read(log)
    names = sorted({name for row in rows for name in row} - NO_LOSSES)
    figure, axes = plt.subplots(figsize=(8, 4.5), layout="constrained")
    for name in names:
        points = [(row["step"], row[name]) for row in rows if row.get(name, 0) > 0]
        if points:
            axes.plot(*zip(*points, strict=True), label=name)
    axes.set(xlabel="step", ylabel="loss", yscale="log")
    axes.legend()
    axes.grid(alpha=0.3)
    figure.savefig(picture, dpi=120)
    plt.close(figure)
