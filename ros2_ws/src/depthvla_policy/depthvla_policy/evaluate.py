"""Evaluate a policy over seeds in closed loop: `python -m depthvla_policy.evaluate --policy DIR --json FILE`.

The success rates of the README and the model cards come from here.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import tyro
from tqdm import tqdm

from depthvla_policy.evaluation.metrics import bootstrap_interval, summarise, wilson_interval
from depthvla_policy.evaluation.rollout import EpisodeResult, RolloutConfig, environment_id, run_episodes


@dataclass(frozen=True)
class EvaluateConfig:
    """Closed-loop evaluation in simulated time, through the chunk executor that drives the robot."""

    policy: Path | None = None  # checkpoint folder; not needed for the baseline do_nothing
    task: str = "lift"  # a task of r1lite_sim, or a Gymnasium id
    seeds: int = 40  # number of scenes
    first_seed: int = 0  # seed of the first scene
    json: Path | None = None  # file for the results; an earlier one is replaced
    baseline: Literal["none", "do_nothing", "shuffled_cameras"] = "none"  # what takes the policy's place
    execute: int = 4  # control steps between two observations that the policy is asked about
    latency_steps: int = 0  # control steps from an observation to its chunk's arrival
    depth_every: int = 4  # predicted depth of every n-th chunk is compared with the truth; 0 for none
    strategy: Literal["replace", "blend", "ensemble"] = "blend"  # how the executor joins chunks
    workers: int = 2  # processes


def main() -> int:
    config = tyro.cli(EvaluateConfig)
    try:
        results = evaluate(config)
    except (OSError, ValueError) as error:
        print(f"evaluate: {error}", file=sys.stderr)
        return 1
    print(table(results))
    if config.json:
        config.json.write_text(json.dumps(results, indent=1) + "\n")
        print(f"\n{config.json}")
    return 0


def evaluate(config: EvaluateConfig) -> dict:
    """Run all episodes and put the results together.

    Raises:
        FileNotFoundError: the checkpoint does not exist.
        ValueError: a setting is not allowed.
    """
    if config.policy is None and config.baseline != "do_nothing":
        raise ValueError(f"baseline {config.baseline} needs a policy: --policy FOLDER")
    if config.seeds < 1 or config.first_seed < 0 or config.workers < 1:
        raise ValueError(
            f"seeds is {config.seeds}, first_seed {config.first_seed}, workers {config.workers};"
            " allowed: 1 or more, 0 or more, 1 or more"
        )
    if config.json:
        config.json.parent.mkdir(parents=True, exist_ok=True)
    rollout = RolloutConfig(config.execute, config.latency_steps, config.baseline, config.depth_every, config.strategy)
    policy = None if config.baseline == "do_nothing" else config.policy
    model_id = _model_id(policy) if policy else None
    seeds = range(config.first_seed, config.first_seed + config.seeds)
    begin = time.perf_counter()
    episodes: list[EpisodeResult] = []
    with tqdm(total=len(seeds), unit="episode", desc=config.task) as bar:
        for episode in run_episodes(policy, config.task, seeds, rollout, workers=config.workers):
            episodes.append(episode)
            bar.set_postfix_str(f"success {sum(item.success for item in episodes)}/{len(episodes)}")
            bar.update()
    episodes.sort(key=lambda item: item.seed)
    return {
        "policy": str(policy) if policy else None,
        "model_id": model_id,
        "environment": environment_id(config.task).split(":")[-1],
        "settings": asdict(rollout),
        "first_seed": config.first_seed,
        "seeds": config.seeds,
        **summarise_episodes(episodes),
        "wall_s": round(time.perf_counter() - begin, 1),
        "episodes": [_row(item) for item in episodes],
    }


def summarise_episodes(episodes: Sequence[EpisodeResult]) -> dict:
    """Rates over episodes with 95 % intervals (Wilson for success, bootstrap for progress)."""
    successes = sum(item.success for item in episodes)
    progress = np.array([item.progress for item in episodes])
    depth: dict[str, list[float]] = {}
    for item in episodes:
        for camera, values in item.depth_abs_rel.items():
            depth.setdefault(camera, []).extend(values)
    latency_ms = np.array([value for item in episodes for value in item.inference_s]) * 1e3
    return {
        "success_rate": successes / len(episodes),
        "success_interval": [round(bound, 4) for bound in wilson_interval(successes, len(episodes))],
        "progress": round(float(progress.mean()), 4),
        "progress_interval": [round(bound, 4) for bound in bootstrap_interval(progress)],
        "depth_abs_rel": _mean([value for values in depth.values() for value in values]),
        "depth_abs_rel_by_camera": {camera: _mean(values) for camera, values in depth.items()},
        "inference_ms": {name: round(value, 2) for name, value in summarise(latency_ms).items()},
    }


def table(results: dict) -> str:
    """The results for a terminal."""
    low, high = results["success_interval"]
    first, last = results["first_seed"], results["first_seed"] + results["seeds"] - 1
    progress_low, progress_high = results["progress_interval"]
    rows = [
        ("task", f"{results['environment']}, seeds {first} to {last}"),
        ("policy", results["model_id"] or "-"),
        ("baseline", results["settings"]["baseline"]),
        ("success", f"{results['success_rate']:.1%}  (95 % interval {low:.1%} to {high:.1%})"),
        ("progress", f"{results['progress']:.1%}  (95 % interval {progress_low:.1%} to {progress_high:.1%})"),
    ]
    if results["depth_abs_rel"] is not None:
        cameras = ", ".join(f"{name} {value:.1%}" for name, value in results["depth_abs_rel_by_camera"].items())
        rows.append(("depth AbsRel", f"{results['depth_abs_rel']:.1%}  ({cameras})"))
    if results["inference_ms"]:
        latency = results["inference_ms"]
        rows.append(("inference", f"p50 {latency['p50']:.1f}  p95 {latency['p95']:.1f}  max {latency['max']:.1f}  ms"))
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"  {name:<{width}}  {value}" for name, value in rows)


def _model_id(folder: Path) -> str:
    """Also finds out what is wrong with a checkpoint before processes are started for it."""
    from depthvla_policy.policy.policy import Policy

    return Policy.load(folder).model_id


def _row(episode: EpisodeResult) -> dict:
    row = asdict(episode)
    row["inference_s"] = _mean(episode.inference_s)
    row["depth_abs_rel"] = {camera: _mean(values) for camera, values in episode.depth_abs_rel.items()}
    return row


def _mean(values: Sequence[float]) -> float | None:
    return round(float(np.mean(values)), 5) if values else None


if __name__ == "__main__":
    sys.exit(main())
