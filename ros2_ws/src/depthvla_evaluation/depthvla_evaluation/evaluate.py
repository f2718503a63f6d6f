"""Evaluate a policy over seeds in closed loop: `python -m depthvla_evaluation.evaluate --policy DIR --json FILE`.

The success rates of the README and the model cards come from here. `--through ros` hands the same seeds to
`r1lite_bringup.evaluate`, a process of its own because nothing below the nodes may know ROS.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal

import tyro
from tqdm import tqdm

from depthvla_evaluation.rollouts import paired, results
from depthvla_evaluation.rollouts.results import OWN
from depthvla_evaluation.rollouts.rollout import BASELINES, RolloutConfig, environment_id, run_episodes

ALL = "all"
THROUGH_ROS = "r1lite_bringup.evaluate"
# Settings with ROS.
OF_BOTH = (
    *("policy", "task", "task_options", "time_limit_s", "seeds", "first_seed", "realtime_chunking"),
    *("json", "through", "out"),
)


@dataclass(frozen=True)
class EvaluateConfig:
    """Closed-loop evaluation in simulated time, through the chunk executor that drives the robot."""

    policy: Path | None = None  # checkpoint folder; not needed for the baseline do_nothing
    task: str = "lift"  # a task of r1lite_sim, or a Gymnasium id
    task_options: tuple[str, ...] = ()  # NAME=VALUE, as colour=blue side=left; the value random is drawn for each seed
    time_limit_s: float | None = None  # of an episode; the simulated task's own when left out
    seeds: int = 40  # number of scenes
    first_seed: int = 0  # seed of the first scene
    json: Path | None = None  # file for the results; an earlier one is replaced
    # What takes the policy's place; all: the policy, and every baseline beside it.
    baseline: Literal["none", "do_nothing", "shuffled_cameras", "wrong_instruction", "all"] = "none"
    execute: int = 4  # control steps between two observations that the policy is asked about
    latency: Literal["steps", "measured"] = "steps"  # measured: each inference's own time, rounded up to control steps
    latency_steps: int = 0  # control steps from an observation to its chunk's arrival
    depth_every: int = 4  # predicted depth of every n-th chunk is compared with the truth; 0 for none
    strategy: Literal["replace", "blend", "ensemble"] = "blend"  # how the executor joins chunks
    # how a chunk continues the one in execution: not, guided (any policy), or as it was trained with loss.max_delay
    realtime_chunking: Literal["off", "guided", "trained"] = "off"
    workers: int = 2  # processes
    videos: Path | None = None  # folder for videos of the first seeds, one each
    video_seeds: int = 5  # how many of them
    through: Literal["simulation", "ros"] = "simulation"  # ros: the real node graph, in real time
    out: Path | None = None  # with --through ros: folder for the recordings and their report
    compare: tuple[Path, Path] | None = None  # instead: two results, seed by seed
    # Folder for the report of the results, or of the two compared; without --json it gets results.json, too.
    report: Path | None = None


def main() -> int:
    config = tyro.cli(EvaluateConfig)
    try:
        if config.compare:
            print(paired.text(paired.compare(*map(results.read, config.compare)), tuple(map(str, config.compare))))
            return _report(config.compare, config.report) if config.report else 0
        if config.through == "ros":
            return subprocess.call(ros_words(config))
        if config.report and not config.json:
            config = replace(config, json=config.report / "results.json")
        found = evaluate(config)
    except (OSError, ValueError) as error:
        print(f"evaluate: {error}", file=sys.stderr)
        return 1
    print(results.text(found))
    if config.json:
        results.write(config.json, found)
        print(f"\n{config.json}")
    return _report([config.json], config.report) if config.report else 0


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
    if config.video_seeds < 0:
        raise ValueError(f"video_seeds is {config.video_seeds}; allowed: 0 or more")
    rollout = RolloutConfig(
        config.execute,
        None if config.latency == "measured" else config.latency_steps,
        OWN if config.baseline == ALL else config.baseline,
        config.depth_every,
        config.strategy,
        config.realtime_chunking,
        config.task_options,
        config.time_limit_s,
    )
    if config.json:
        config.json.parent.mkdir(parents=True, exist_ok=True)
    found = _run(config, rollout, config.videos)
    if config.baseline == ALL:
        others = [name for name in BASELINES if name != OWN]
        found["baselines"] = {name: _run(config, replace(rollout, baseline=name), None) for name in others}
    return found


def ros_words(config: EvaluateConfig) -> list[str]:
    """The command that runs the same seeds through the ROS graph.

    Raises:
        ValueError: a setting that only simulated time has is not at its default.
    """
    default = EvaluateConfig()
    wrong = [name for name, value in vars(config).items() if value != getattr(default, name) and name not in OF_BOTH]
    if wrong:
        raise ValueError(f"{', '.join(wrong)}: not with --through ros; allowed: {', '.join(OF_BOTH)}")
    if config.policy is None:
        raise ValueError("--through ros needs a policy: --policy FOLDER")
    words = [sys.executable, "-m", THROUGH_ROS, "--policy", str(config.policy), "--task", config.task]
    words += ["--seeds", str(config.seeds), "--first-seed", str(config.first_seed)]
    words += ["--realtime-chunking", config.realtime_chunking]
    for flag, value in (("--time-limit-s", config.time_limit_s), ("--json", config.json), ("--out", config.out)):
        words += [flag, str(value)] if value is not None else []
    return words + (["--task-options", *config.task_options] if config.task_options else [])


def _run(config: EvaluateConfig, rollout: RolloutConfig, videos: Path | None) -> dict:
    policy = None if rollout.baseline == "do_nothing" else config.policy
    model_id = _model_id(policy) if policy else None
    seeds = range(config.first_seed, config.first_seed + config.seeds)
    begin = time.perf_counter()
    episodes = []
    with tqdm(total=len(seeds), desc=rollout.baseline, unit="episode", disable=None) as bar:
        films = {"videos": videos, "video_seeds": config.video_seeds}
        for episode in run_episodes(policy, config.task, seeds, rollout, workers=config.workers, **films):
            episodes.append(episode)
            bar.set_postfix_str(f"success {sum(item.success for item in episodes)}/{len(episodes)}")
            bar.update()
    about = {
        "policy": str(policy) if policy else None,
        "model_id": model_id,
        "environment": environment_id(config.task).split(":")[-1],
        "through": config.through,
        "settings": asdict(rollout),
        "wall_s": round(time.perf_counter() - begin, 1),
    }
    found = results.collect(about, episodes)
    for row in found["episodes"][: config.video_seeds] if videos else []:
        row["video"] = str(videos / f"seed_{row['seed']}.mp4")
    return found


def _report(files: Sequence[Path], out: Path) -> int:
    # Not on top: every worker process imports this module, and none needs what draws.
    from depthvla_evaluation.report import build as report

    print()
    return report.main([*map(str, files), "--out", str(out)])


def _model_id(folder: Path) -> str:
    """Also finds out what is wrong with a checkpoint before processes are started for it."""
    from depthvla_policy.policy.policy import Policy

    return Policy.load(folder).model_id


if __name__ == "__main__":
    sys.exit(main())
