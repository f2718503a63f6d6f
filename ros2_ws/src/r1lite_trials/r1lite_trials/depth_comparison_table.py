"""The table of the miniature comparison: variants of the network, each trained from several seeds, on the same scenes.

Plain numbers in, markdown out; what is trained and evaluated is decided in `r1lite_trials.depth_comparison`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

RESAMPLES = 2000

# As a training log names them -> title of the column
HELD_OUT = {"held_out_flow": "held-out flow loss", "held_out_abs_rel": "held-out depth AbsRel"}

Runs = Mapping[tuple[str, int, str], dict]  # (variant, training seed, task) -> results of an evaluation
Logs = Mapping[tuple[str, int], Mapping[str, float]]  # (variant, training seed) -> last line of the training's log


@dataclass(frozen=True)
class Cell:
    """A mean with its 95 % interval; None without anything to resample."""

    mean: float
    interval: tuple[float, float] | None

    def text(self, form: str) -> str:
        shown = f"{self.mean:{form}}"
        return shown if self.interval is None else f"{shown} ({self.interval[0]:{form}} to {self.interval[1]:{form}})"


def markdown(runs: Runs, logs: Logs, variants: Mapping[str, str], tasks: Sequence[str], reference: str) -> str:
    """Success and progress by task, progress averaged over the tasks, and that less the reference's; then what the
    trainings lost on held-out demonstrations, mean and range of the training seeds.

    variants: name -> title. A variant without any run, or an average without every task, is left blank. The difference
    is over training seeds and scenes that both have.
    """
    head = ["", "training seeds"]
    head += [f"{task} {what}" for task in tasks for what in ("success", "progress")]
    head += ["mean progress", f"less {variants[reference]}", *HELD_OUT.values()]
    lines = [head, ["---"] * len(head)]
    for variant, title in variants.items():
        seeds = sorted({seed for name, seed, _ in runs if name == variant})
        row = [title, str(len(seeds))]
        for task in tasks:
            row += [_shown([scores(runs, variant, task, measure)], ".0%") for measure in ("success", "progress")]
        progress = [scores(runs, variant, task, "progress") for task in tasks]
        row.append(_shown(progress, ".1%"))
        row.append("" if variant == reference else _shown(_less(runs, variant, reference, tasks), "+.1%"))
        ends = [log for (name, _), log in logs.items() if name == variant]
        row += [_range([log[loss] for log in ends if loss in log]) for loss in HELD_OUT]
        lines.append(row)
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def scores(runs: Runs, variant: str, task: str, measure: str) -> dict[int, dict[int, float]]:
    """Training seed -> scene -> success (0 or 1) or progress."""
    return {
        seed: {row["seed"]: float(row[measure]) for row in results["episodes"]}
        for (name, seed, of), results in sorted(runs.items(), key=lambda item: item[0])
        if (name, of) == (variant, task)
    }


def estimate(tasks: Iterable[Mapping[int, Mapping[int, float]]], seed: int = 0) -> Cell:
    """Mean over tasks of the mean over training seeds of the mean over scenes; each of `tasks` is as `scores` gives it.

    The interval is a percentile bootstrap at both levels: training seeds are resampled, and in each of them its scenes.
    With one training seed it only tells of the scenes.

    Raises:
        ValueError: a task has no run.
    """
    groups = [[np.array(list(scenes.values())) for scenes in of_task.values()] for of_task in tasks]
    if not groups or not all(groups):
        raise ValueError("a mean needs at least one run of every task")
    rng = np.random.default_rng(seed)
    mean = float(np.mean([np.mean([scenes.mean() for scenes in of_task]) for of_task in groups]))
    if all(len(of_task) == 1 and len(of_task[0]) == 1 for of_task in groups):
        return Cell(mean, None)
    means = [np.mean([_resampled(of_task, rng) for of_task in groups]) for _ in range(RESAMPLES)]
    low, high = np.quantile(means, [0.025, 0.975])
    return Cell(mean, (float(low), float(high)))


def _resampled(of_task: Sequence[np.ndarray], rng: np.random.Generator) -> float:
    chosen = [of_task[index] for index in rng.integers(0, len(of_task), len(of_task))]
    return float(np.mean([rng.choice(scenes, len(scenes)).mean() for scenes in chosen]))


def _less(runs: Runs, variant: str, reference: str, tasks: Sequence[str]) -> list[dict[int, dict[int, float]]]:
    """Progress of a variant less the reference's, where both have the training seed and the scene."""
    differences = []
    for task in tasks:
        mine, theirs = scores(runs, variant, task, "progress"), scores(runs, reference, task, "progress")
        apart = {
            seed: {scene: value - theirs[seed][scene] for scene, value in scenes.items() if scene in theirs[seed]}
            for seed, scenes in mine.items()
            if seed in theirs
        }
        differences.append({seed: scenes for seed, scenes in apart.items() if scenes})
    return differences


def _range(values: Sequence[float]) -> str:
    return f"{np.mean(values):.3f} ({min(values):.3f} to {max(values):.3f})" if values else ""


def _shown(tasks: Sequence[Mapping[int, Mapping[int, float]]], form: str) -> str:
    return estimate(tasks).text(form) if all(tasks) else ""
