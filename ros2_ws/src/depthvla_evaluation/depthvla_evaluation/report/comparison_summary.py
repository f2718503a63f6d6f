"""The numbers of a comparison as one dictionary, for `summary.json`, the page and the terminal."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field

import numpy as np

from depthvla_evaluation.metrics import summarise
from depthvla_evaluation.report.comparison import Average, averages, differences, group_scores
from depthvla_evaluation.report.comparison_figure import Bars, measured_bars, merged_bars
from depthvla_evaluation.report.scores import Score


@dataclass(frozen=True)
class ComparedEpisode:
    """An episode of a bag or of a results file.

    page, video: its own, relative to the comparison's page. started: of a recording; made: of results, whose episodes
    have no time of their own. no_video: why there is none. inference_s: mean over its chunks. Arrays hold a value a
    chunk or a control tick, and are empty where nothing is known.
    """

    score: Score
    bag: str | None = None
    results: str | None = None
    page: str | None = None
    video: str | None = None
    started: str | None = None
    made: str | None = None
    outcome: str = ""
    no_video: str = ""
    inference_s: float | None = None
    chunk_latency_s: np.ndarray = field(default_factory=lambda: np.empty(0))
    jitter_s: np.ndarray = field(default_factory=lambda: np.empty(0))


def summarise_comparison(
    episodes: Mapping[str, ComparedEpisode], found: Sequence[str], published: Bars
) -> tuple[dict, Bars]:
    """Summary and bars of the chart. episodes: by their names; found: findings so far."""
    scores = {name: episode.score for name, episode in episodes.items()}
    groups, means = group_scores(scores.values()), averages(scores.values())
    summary = {
        "findings": [*found, *_findings(episodes, means)],
        "groups": [asdict(group) for group in groups],
        "averages": [asdict(average) for average in means],
        "differences": [asdict(difference) for difference in differences(scores.values())],
        "timing": _timing(episodes.values()),
        "published": published
        and {
            setting: {task: {policy: value.value for policy, value in row.items()} for task, row in tasks.items()}
            for setting, tasks in published.items()
        },
        "episodes": [_as_dict(name, episode) for name, episode in episodes.items()],
    }
    return summary, merged_bars(measured_bars(groups, means), published)


def _as_dict(name: str, episode: ComparedEpisode) -> dict:
    others = ("bag", "results", "page", "video", "started", "made", "outcome", "inference_s")
    return (
        {"name": name, "counted": episode.score.counted}
        | asdict(episode.score)
        | {key: getattr(episode, key) for key in others}
    )


def _timing(episodes: Iterable[ComparedEpisode]) -> dict[str, dict]:
    """Policy -> chunk latency and executor jitter [ms], pooled over all its episodes, counted or not, and the mean over
    them of their mean inference [ms].
    """
    pooled: dict[str, list[ComparedEpisode]] = {}
    for episode in episodes:
        pooled.setdefault(episode.score.policy, []).append(episode)
    return {
        policy: {
            "episodes": len(members),
            "chunk_latency_ms": summarise(np.concatenate([member.chunk_latency_s for member in members]) * 1e3),
            "executor_jitter_ms": summarise(np.concatenate([member.jitter_s for member in members]) * 1e3),
            "inference_ms": _mean([member.inference_s * 1e3 for member in members if member.inference_s is not None]),
        }
        for policy, members in sorted(pooled.items())
    }


def _mean(values: Sequence[float]) -> float | None:
    return float(np.mean(values)) if values else None


def _findings(episodes: Mapping[str, ComparedEpisode], means: Sequence[Average]) -> list[str]:
    found = [f"{name} does not count: {e.score.not_counted}." for name, e in episodes.items() if not e.score.counted]
    found += [f"{name}: {doubt}" for name, episode in episodes.items() for doubt in episode.score.doubts]
    counted = [episode.score for episode in episodes.values() if episode.score.counted]
    intervened = sum(score.interventions > 0 for score in counted)
    if intervened:
        found.append(
            f"In {intervened} of the {len(counted)} episodes counted a person took over; summary.json has the figures"
            " without them, too (undisturbed)."
        )
    simulated = sum(score.points is None for score in counted)
    if simulated:
        found.append(f"{simulated} of the {len(counted)} episodes counted were scored by the simulator, not by marks.")
    for setting in dict.fromkeys(average.setting for average in means):
        tasks = {average.policy: set(average.tasks) for average in means if average.setting == setting}
        everything = set().union(*tasks.values())
        for policy, done in tasks.items():
            if done != everything:
                lacking = ", ".join(sorted(everything - done))
                found.append(f"The average of {policy} in setting {setting!r} is without {lacking}: do not compare it.")
    for reason, count in Counter(episode.no_video for episode in episodes.values() if episode.no_video).items():
        found.append(f"{count} of {len(episodes)} episodes have no video: {reason}.")
    return found
