"""Many scored episodes compared: policies side by side in each task and setting, scene by scene where they can be.

Plain numbers in and out; a `Score` says what counts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from depthvla_evaluation.metrics import (
    bootstrap_difference,
    bootstrap_interval,
    bootstrap_mean_of_means,
    wilson_interval,
)
from depthvla_evaluation.report.scores import Score

LEAST_PAIRS = 2  # scenes that two policies must share to be compared scene by scene


@dataclass(frozen=True)
class Estimate:
    """A mean or rate with its 95 % interval, which is None where one value cannot tell how far others would be."""

    value: float
    interval: tuple[float, float] | None


@dataclass(frozen=True)
class Statistics:
    """Of n episodes. substeps: substep -> share of the marked episodes in which it was done."""

    n: int
    progress: Estimate  # bootstrap interval of the mean
    success: Estimate  # Wilson interval
    successes: int
    interventions: int
    intervened: int  # episodes with an intervention
    success_time_s: float | None  # mean over the episodes with success
    duration_s: float  # mean
    marked: int  # episodes in which substeps were marked
    substeps: dict[str, float]


@dataclass(frozen=True)
class Group:
    """Counted episodes of one policy in one task and setting. undisturbed: those without an intervention; None without
    any.
    """

    task: str
    setting: str
    policy: str
    all: Statistics
    undisturbed: Statistics | None


@dataclass(frozen=True)
class Average:
    """Mean over tasks of a policy's mean progress and success rate in a setting: every task weighs the same."""

    setting: str
    policy: str
    tasks: tuple[str, ...]
    progress: Estimate
    success: Estimate


@dataclass(frozen=True)
class Difference:
    """Mean progress of `policy` - that of `other`.

    Over `scenes` that both have where there are at least two, several episodes of a scene averaged; otherwise of all
    their episodes, and `scenes` is empty.
    """

    task: str
    setting: str
    policy: str
    other: str
    progress: Estimate
    scenes: tuple[str, ...]


def group_scores(scores: Iterable[Score]) -> list[Group]:
    """Statistics of every setting, task and policy, in this order."""
    return [
        Group(task, setting, policy, _statistics(members), _statistics([s for s in members if not s.interventions]))
        for (setting, task, policy), members in _by_key(scores, lambda s: (s.setting, s.task, s.policy)).items()
    ]


def averages(scores: Iterable[Score]) -> list[Average]:
    """One for each setting and policy."""
    result = []
    for (setting, policy), members in _by_key(scores, lambda score: (score.setting, score.policy)).items():
        tasks = _by_key(members, lambda score: score.task)
        progress = [np.array([score.progress for score in of_task]) for of_task in tasks.values()]
        success = [np.array([bool(score.success) for score in of_task], float) for of_task in tasks.values()]
        result.append(Average(setting, policy, tuple(tasks), _mean_of_means(progress), _mean_of_means(success)))
    return result


def differences(scores: Iterable[Score]) -> list[Difference]:
    """One for each two policies of the same task and setting."""
    result = []
    for (setting, task), members in _by_key(scores, lambda score: (score.setting, score.task)).items():
        policies = _by_key(members, lambda score: score.policy)
        for policy, other in combinations(policies, 2):
            result.append(Difference(task, setting, policy, other, *_difference(policies[policy], policies[other])))
    return result


def _difference(first: Sequence[Score], second: Sequence[Score]) -> tuple[Estimate, tuple[str, ...]]:
    mine, theirs = _scene_means(first), _scene_means(second)
    scenes = tuple(scene for scene in mine if scene in theirs)
    if len(scenes) >= LEAST_PAIRS:
        apart = np.array([mine[scene] - theirs[scene] for scene in scenes])
        return Estimate(float(apart.mean()), bootstrap_interval(apart)), scenes
    values = [np.array([score.progress for score in scores]) for scores in (first, second)]
    interval = bootstrap_difference(*values) if min(map(len, values)) > 1 else None
    return Estimate(float(values[0].mean() - values[1].mean()), interval), ()


def _scene_means(scores: Sequence[Score]) -> dict[str, float]:
    scenes = _by_key((score for score in scores if score.scene), lambda score: score.scene)
    return {scene: float(np.mean([score.progress for score in members])) for scene, members in scenes.items()}


def _statistics(scores: Sequence[Score]) -> Statistics | None:
    if not scores:
        return None
    progress = np.array([score.progress for score in scores])
    successes = sum(bool(score.success) for score in scores)
    times_s = [score.success_time_s for score in scores if score.success_time_s is not None]
    marked = [score.substeps_s for score in scores if score.substeps_s]
    names = dict.fromkeys(name for substeps in marked for name in substeps)
    return Statistics(
        n=len(scores),
        progress=Estimate(float(progress.mean()), bootstrap_interval(progress) if len(scores) > 1 else None),
        success=Estimate(successes / len(scores), wilson_interval(successes, len(scores))),
        successes=successes,
        interventions=sum(score.interventions for score in scores),
        intervened=sum(score.interventions > 0 for score in scores),
        success_time_s=float(np.mean(times_s)) if times_s else None,
        duration_s=float(np.mean([score.duration_s for score in scores])),
        marked=len(marked),
        substeps={name: float(np.mean([item.get(name) is not None for item in marked])) for name in names},
    )


def _mean_of_means(groups: Sequence[np.ndarray]) -> Estimate:
    interval = bootstrap_mean_of_means(groups) if min(map(len, groups)) > 1 else None
    return Estimate(float(np.mean([group.mean() for group in groups])), interval)


def _by_key(scores: Iterable[Score], key: Callable[[Score], object]) -> dict:
    """Counted scores by a key, in the order of the keys."""
    groups: dict = {}
    for score in scores:
        if score.counted:
            groups.setdefault(key(score), []).append(score)
    return dict(sorted(groups.items(), key=lambda item: str(item[0]).casefold()))
