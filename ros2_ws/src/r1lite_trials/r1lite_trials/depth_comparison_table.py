"""The table of the miniature comparison: variants of the network, each trained from several seeds, on the same scenes.

Plain numbers in, markdown out; what is trained and evaluated is in `depth_comparison`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from depthvla_evaluation.metrics import RESAMPLES, spread_is_known
from r1lite_trials.trial import markdown_table

# As a training log names them -> title of the column
HELD_OUT = {"held_out_flow": "held-out flow loss", "held_out_abs_rel": "held-out depth AbsRel"}

Runs = Mapping[tuple[str, int, str], dict]  # (variant, training seed, task) -> results of an evaluation
Logs = Mapping[tuple[str, int], Mapping[str, float]]  # (variant, training seed) -> last line of the training's log
Scores = Mapping[int, np.ndarray]  # training seed -> (scenes,) success (0 or 1) or progress


def markdown(runs: Runs, logs: Logs, variants: Mapping[str, str], tasks: Sequence[str], reference: str) -> str:
    """Success and progress by task, progress averaged over the tasks, and that less the reference's; then what the
    trainings lost on held-out demonstrations, mean and range of the training seeds.

    variants: name -> title. A variant without any run, or an average without every task, is left blank. The difference
    is over training seeds and scenes that both have.
    """
    head = ["", "training seeds", *(f"{task} {what}" for task in tasks for what in ("success", "progress"))]
    head += ["mean progress", f"less {variants[reference]}", *HELD_OUT.values()]
    rows = []
    for variant, title in variants.items():
        progress = [_scores(runs, variant, task, "progress") for task in tasks]
        row = [title, str(len({seed for name, seed, _ in runs if name == variant}))]
        for task, reached in zip(tasks, progress, strict=True):
            row += [_cell([_scores(runs, variant, task, "success")], ".0%"), _cell([reached], ".0%")]
        theirs = [_scores(runs, reference, task, "progress") for task in tasks]
        differences = [_less(*pair) for pair in zip(progress, theirs, strict=True)]
        row += [_cell(progress, ".1%"), "" if variant == reference else _cell(differences, "+.1%")]
        ends = [log for (name, _), log in logs.items() if name == variant]
        row += [_range([log[loss] for log in ends if loss in log]) for loss in HELD_OUT]
        rows.append(row)
    return markdown_table(head, rows)


def estimate(tasks: Sequence[Scores], seed: int = 0) -> tuple[float, tuple[float, float] | None]:
    """Mean over tasks of the mean over training seeds of the mean over scenes, and its 95 % interval; None where the
    scenes cannot tell it.

    The interval is a percentile bootstrap at both levels: training seeds are resampled, and in each of them its scenes.
    With one training seed it only tells of the scenes. (scipy.stats.bootstrap knows one level.)
    """
    groups = [list(scores.values()) for scores in tasks]
    mean = float(np.mean([np.mean([scenes.mean() for scenes in group]) for group in groups]))
    if not spread_is_known([np.concatenate(group) for group in groups]):
        return mean, None
    rng = np.random.default_rng(seed)
    means = [np.mean([_resampled(group, rng) for group in groups]) for _ in range(RESAMPLES)]
    low, high = np.quantile(means, [0.025, 0.975])
    return mean, (float(low), float(high))


def _resampled(group: Sequence[np.ndarray], rng: np.random.Generator) -> float:
    chosen = [group[index] for index in rng.integers(0, len(group), len(group))]
    return float(np.mean([rng.choice(scenes, len(scenes)).mean() for scenes in chosen]))


def _scores(runs: Runs, variant: str, task: str, measure: str) -> Scores:
    return {
        seed: np.array([float(row[measure]) for row in results["episodes"]])
        for (name, seed, of), results in sorted(runs.items(), key=lambda item: item[0])
        if (name, of) == (variant, task)
    }


def _less(mine: Scores, theirs: Scores) -> Scores:
    """All are evaluated on the same first scenes, so that the shorter one tells which both have."""
    common = {seed: min(len(mine[seed]), len(theirs[seed])) for seed in mine if seed in theirs}
    return {seed: mine[seed][:count] - theirs[seed][:count] for seed, count in common.items()}


def _cell(tasks: Sequence[Scores], form: str) -> str:
    if not all(tasks):
        return ""
    mean, interval = estimate(tasks)
    return f"{mean:{form}}" + (f" ({interval[0]:{form}} to {interval[1]:{form}})" if interval else "")


def _range(values: Sequence[float]) -> str:
    return f"{np.mean(values):.3f} ({min(values):.3f} to {max(values):.3f})" if values else ""
