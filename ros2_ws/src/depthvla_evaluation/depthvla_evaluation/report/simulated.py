"""Rows of results files (`evaluate --json`) as scored episodes, to be compared with one another and with recorded ones.

What a results file is made of is in `results`; nothing here draws or writes.
"""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from depthvla_evaluation.report.comparison_summary import ComparedEpisode
from depthvla_evaluation.report.scores import Score
from depthvla_evaluation.rollouts import results
from depthvla_evaluation.rollouts.results import OWN
from depthvla_evaluation.rollouts.rollout import RolloutConfig, environment_id
from r1lite_description import robot as robot_description

DO_NOTHING = "do_nothing"
NEEDED = ("seed", "success", "progress", "steps")  # of a row


@dataclass(frozen=True)
class Run:
    """One policy, or one baseline, over its seeds."""

    name: str  # begins the names of its episodes
    path: Path
    results: Mapping[str, Any]

    @property
    def settings(self) -> Mapping[str, Any]:
        return self.results.get("settings", {})

    @property
    def baseline(self) -> str:
        return self.settings.get("baseline", OWN)


def is_results(path: Path) -> bool:
    """Whether a path stands for a results file, and not for a bag, which is a folder."""
    return path.suffix == ".json" and not path.is_dir()


def read_runs(path: Path, name: str) -> list[Run]:
    """The policy of a results file, and the baselines beside it.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it holds something else, a row lacks something, or a progress is not within 0 and 1.
    """
    found = results.read(path)
    runs = [Run(name, path, found)]
    runs += [Run(f"{name} {baseline}", path, part) for baseline, part in found.get("baselines", {}).items()]
    for run in runs:
        for row in run.results["episodes"]:
            lacking = [key for key in NEEDED if key not in row]
            if lacking:
                raise ValueError(f"{path}: an episode of {run.name} has no {', '.join(lacking)}")
            if not 0.0 <= row["progress"] <= 1.0:
                raise ValueError(
                    f"{path}: progress of {run.name} seed {row['seed']} is {row['progress']}; allowed: 0 to 1"
                )
    return runs


def compared_episodes(runs: Sequence[Run], out: Path, recorded: Collection[str] = ()) -> dict[str, ComparedEpisode]:
    """An episode of every row, by its name. Scenes are seeds, as in recordings of the simulator.

    Doing nothing is the same whoever's baseline it is, so each scene of it counts once. out: folder of the page, from
    where videos are linked. recorded: policies of recorded episodes, with which no row is to be taken together.
    """
    period_s = robot_description.load().period_s
    episodes: dict[str, ComparedEpisode] = {}
    told: dict[tuple[str, str, str], str] = {}  # task, setting, scene -> its instruction
    stood_still = set()
    for run, policy in zip(runs, policy_names(runs), strict=True):
        policy = f"{policy} in simulated time" if policy in recorded else policy
        task, setting = task_name(run.results["environment"]), setting_words(run.settings)
        for row in run.results["episodes"]:
            scene = (task, setting, f"seed {row['seed']}")
            if run.baseline == DO_NOTHING:
                if scene in stood_still:
                    continue
                stood_still.add(scene)
            instruction = row.get("instruction", "")
            doubts = tuple(_doubts(row, told.setdefault(scene, instruction)))
            episodes[f"{run.name} seed {row['seed']}"] = ComparedEpisode(
                score=_score(row, scene, policy, doubts, period_s),
                results=str(run.path),
                video=_video(row, out),
                made=run.results.get("made"),
                inference_s=row.get("inference_s"),
                chunk_latency_s=_latency_s(row, period_s),
            )
    return episodes


def policy_names(runs: Sequence[Run]) -> list[str]:
    """Of every run: the model's id, or its folder's name where folders of other names have the same id; a baseline's
    own name, with the policy's where several policies have it.
    """
    ids = [run.results.get("model_id") or _folder(run) for run in runs]
    folders, having = defaultdict(set), defaultdict(set)  # of an id; policies that have a baseline
    for run, model_id in zip(runs, ids, strict=True):
        folders[model_id].add(_folder(run))
    models = [_folder(run) if len(folders[model_id]) > 1 else model_id for run, model_id in zip(runs, ids, strict=True)]
    for run, model in zip(runs, models, strict=True):
        having[run.baseline].add(model)
    names = []
    for run, model in zip(runs, models, strict=True):
        name = model
        if run.baseline != OWN:
            shared = run.baseline != DO_NOTHING and len(having[run.baseline]) > 1
            name = f"{run.baseline} of {model}" if shared else run.baseline
        names.append(f"{name} through ROS" if run.results.get("through") == "ros" else name)
    return names


def setting_words(settings: Mapping[str, Any]) -> str:
    """The setting's name, the task options, and what decides about the motion and is not the default of a run."""
    default = RolloutConfig()
    words = [settings.get("setting", ""), " ".join(sorted(settings.get("task_options", ())))]
    for key in ("execute", "latency_steps", "strategy", "realtime_chunking"):
        value = settings.get(key, getattr(default, key))
        if value == getattr(default, key):
            continue
        latency = "latency measured" if value is None else f"latency {value} step{'s' if value != 1 else ''}"
        words.append(latency if key == "latency_steps" else f"{key.replace('_', ' ')} {value}")
    return ", ".join(word for word in words if word)


def task_name(environment: str) -> str:
    """`lift` of r1lite_sim/Lift-v0, as recordings name it; the id itself of another environment."""
    stem = environment.removeprefix("r1lite_sim/").removesuffix("-v0")
    name = re.sub(r"(?<!^)(?=[A-Z])", "_", stem).lower()
    return name if environment_id(name).split(":")[-1] == environment else environment


def _score(
    row: Mapping[str, Any], scene: tuple[str, str, str], policy: str, doubts: tuple[str, ...], period_s: float
) -> Score:
    steps: Mapping[str, int | None] = row.get("substeps", {})
    duration_s = round(row["steps"] * period_s, 3)
    substeps_s = {name: None if step is None else round(step * period_s, 3) for name, step in steps.items()}
    all_done = bool(substeps_s) and None not in substeps_s.values()
    done_s = max(substeps_s.values()) if all_done else duration_s
    return Score(
        task=scene[0],
        setting=scene[1],
        policy=policy,
        scene=scene[2],
        progress=row["progress"],
        points=None,
        total=None,
        success=row["success"],
        duration_s=duration_s,
        success_time_s=done_s if row["success"] else None,
        substeps_s=substeps_s,
        interventions=0,
        not_counted="",
        doubts=doubts,
    )


def _doubts(row: Mapping[str, Any], instruction: str) -> Iterator[str]:
    if row.get("instruction", "") != instruction:
        yield f"Its scene is another one than before: it says {row['instruction']!r}, not {instruction!r}."
    if row.get("recording_failed"):
        yield f"Its recording FAILED: {row['recording_failed']}."


def _latency_s(row: Mapping[str, Any], period_s: float) -> np.ndarray:
    """Of every chunk, in simulated time; empty through ROS, where only the recording knows."""
    counts: Mapping[str, int] = row.get("chunks_by_latency", {})
    return np.repeat([int(steps) * period_s for steps in counts], list(counts.values()))


def _video(row: Mapping[str, Any], out: Path) -> str | None:
    path = Path(row.get("video", ""))
    return os.path.relpath(path.resolve(), out.resolve()) if path.is_file() else None


def _folder(run: Run) -> str:
    return Path(run.results.get("policy") or "").name
