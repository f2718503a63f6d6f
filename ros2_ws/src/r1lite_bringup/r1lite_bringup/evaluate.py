"""Evaluate a policy over seeds in closed loop: `depthvla evaluate --policy DIR --json FILE`.

The success rates of the README and the model cards come from here. An episode runs in simulated time, or through the
real node graph in real time (`--through ros`); what is made of the episodes is the same.
"""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import tyro
from tqdm import tqdm

from depthvla_evaluation.rollouts import paired, results
from depthvla_evaluation.rollouts.rollout import (
    BASELINES,
    DO_NOTHING,
    EvaluationError,
    RolloutConfig,
    Run,
    check_environment,
    environment_id,
    run_episodes,
)
from r1lite_bringup import graph

ALL = "all"
# Settings that only one of the two ways has.
IN_SIMULATED_TIME = (
    *("baseline", "execute", "latency", "latency_steps", "depth_every", "strategy", "workers", "videos", "video_seeds"),
)
THROUGH_ROS = ("out", "setting", "device", "depth")


@dataclass(frozen=True)
class EvaluateConfig:
    """Closed-loop evaluation through the chunk executor that drives the robot."""

    policy: str = "r1lite-small"  # checkpoint: a folder, or the name of one in models/
    task: str = "lift"  # a task of r1lite_sim, or in simulated time any Gymnasium id
    task_options: tuple[str, ...] = ()  # NAME=VALUE, as colour=blue side=left; the value random is drawn for each seed
    time_limit_s: float | None = None  # of an episode; the simulated task's own when left out
    seeds: int = 40  # number of scenes
    first_seed: int = 0  # seed of the first scene
    # how a chunk continues the one in execution: not, guided (any policy), or as it was trained with loss.max_delay
    realtime_chunking: Literal["off", "guided", "trained"] = "off"
    through: Literal["simulation", "ros"] = "simulation"  # ros: the real node graph, in real time
    json: Path | None = None  # file for the results, written after every episode; an earlier one is replaced
    # Folder for the report of the results, or of the two compared; without --json it gets results.json, too. Through
    # ROS, the report is that of the recorded episodes and in OUT/report when left out.
    report: Path | None = None
    compare: tuple[Path, Path] | None = None  # instead: two results, seed by seed

    # In simulated time. What takes the policy's place; all: the policy, and every baseline beside it.
    baseline: Literal["none", "do_nothing", "shuffled_cameras", "wrong_instruction", "all"] = "none"
    execute: int = 4  # control steps between two observations that the policy is asked about
    latency: Literal["steps", "measured"] = "steps"  # measured: each inference's own time, rounded up to control steps
    latency_steps: int = 0  # control steps from an observation to its chunk's arrival
    depth_every: int = 4  # predicted depth of every n-th chunk is compared with the truth; 0 for none
    strategy: Literal["replace", "blend", "ensemble"] = "blend"  # how the executor joins chunks
    workers: int = 2  # processes
    videos: Path | None = None  # folder for videos of the first seeds, one each
    video_seeds: int = 5  # how many of them

    # Through ROS: folder for recordings, results, report and log; out/evaluate/<policy>-<task> when left out
    out: Path | None = None
    setting: str = ""  # under which the report groups the recordings
    device: str = "cpu"  # where the network runs
    depth: bool = True  # predict depth as well, which is recorded and compared with the truth

    def __post_init__(self) -> None:
        if self.seeds < 1 or self.first_seed < 0 or self.workers < 1 or self.video_seeds < 0:
            raise ValueError(
                f"seeds is {self.seeds}, first_seed {self.first_seed}, workers {self.workers}, video_seeds"
                f" {self.video_seeds}; allowed: 1 or more, 0 or more, 1 or more, 0 or more"
            )
        ros = self.through == "ros"
        others = [name for name in (IN_SIMULATED_TIME if ros else THROUGH_ROS) if self._given(name)]
        if others:
            raise ValueError(f"{', '.join(others)}: {'not' if ros else 'only'} with --through ros")

    def _given(self, name: str) -> bool:
        return getattr(self, name) != type(self).__dataclass_fields__[name].default

    @property
    def folder(self) -> Path:
        """Of the recordings, through ROS."""
        return self.out or Path("out/evaluate") / f"{graph.model_folder(self.policy).name}-{self.task}"

    @property
    def results_file(self) -> Path | None:
        folder = self.folder if self.through == "ros" else self.report
        return self.json or (folder and folder / "results.json")

    @property
    def report_folder(self) -> Path | None:
        return self.report or (self.folder / "report" if self.through == "ros" else None)


def main(argv: Sequence[str] | None = None) -> int:
    config = tyro.cli(EvaluateConfig, args=argv, description=__doc__)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # the nodes are ended too
    try:
        if config.compare:
            print(paired.text(paired.compare(*map(results.read, config.compare)), tuple(map(str, config.compare))))
            return _report(config.compare, config.report) if config.report else 0
        found = evaluate(config)
        print(results.text(found))
        if config.results_file:
            print(f"\n{config.results_file}")
        if not config.report_folder:
            return 0
        bags = [config.folder / row["bag"] for row in found["episodes"] if "bag" in row]
        return _report(bags or [config.results_file], config.report_folder)
    except (EvaluationError, LookupError, OSError, ValueError) as error:
        print(f"evaluate: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\ninterrupted; what was finished is kept", file=sys.stderr)
        return 130


def evaluate(config: EvaluateConfig) -> dict:
    """Run all episodes and put the results together.

    Raises:
        ValueError: a setting is not allowed, or there is no such checkpoint.
        FileExistsError: the folder for recordings holds some already.
        EvaluationError: the executor or the graph does not do what it was asked for.
    """
    file, seeds = config.results_file, range(config.first_seed, config.first_seed + config.seeds)
    if config.through == "ros":
        # Not on top: the simulated time needs no ROS.
        from r1lite_bringup import evaluate_graph

        run = evaluate_graph.run(
            graph.model_folder(config.policy),
            config.task,
            seeds,
            config.folder,
            options=config.task_options,
            time_limit_s=config.time_limit_s,
            realtime_chunking=config.realtime_chunking,
            setting=config.setting,
            device=config.device,
            depth=config.depth,
        )
        with run as episodes:
            return _collect(config, episodes, file)
    baselines = BASELINES if config.baseline == ALL else (config.baseline,)
    found = _collect(config, _simulated(config, baselines[0], seeds, config.videos), file)
    for baseline in baselines[1:]:
        found.setdefault("baselines", {})[baseline] = _collect(config, _simulated(config, baseline, seeds, None), None)
        if file:
            results.write(file, found)
    return found


def _simulated(config: EvaluateConfig, baseline: str, seeds: range, videos: Path | None) -> Run:
    check_environment(config.task)
    policy = None if baseline == DO_NOTHING else graph.model_folder(config.policy)
    rollout = RolloutConfig(
        config.execute,
        None if config.latency == "measured" else config.latency_steps,
        baseline,
        config.depth_every,
        config.strategy,
        config.realtime_chunking,
        config.task_options,
        config.time_limit_s,
    )
    films = {"videos": videos, "video_seeds": config.video_seeds}
    episodes = run_episodes(policy, config.task, seeds, rollout, workers=config.workers, **films)
    return Run(policy, _model_id(policy) if policy else None, asdict(rollout), episodes)


def _collect(config: EvaluateConfig, run: Run, file: Path | None) -> dict:
    """The results of a run. Until they are whole, those so far are in `file` with .part behind its name."""
    about = {
        "policy": str(run.policy) if run.policy else None,
        "model_id": run.model_id,
        "environment": environment_id(config.task).split(":")[-1],
        "through": config.through,
        "settings": run.settings,
    }
    part = file and file.with_name(f"{file.name}.part")
    begin, done, found = time.perf_counter(), [], {}
    with tqdm(run.episodes, total=config.seeds, desc=config.task, unit="episode", disable=None) as bar:
        for episode in bar:
            done.append(episode)
            bar.set_postfix_str(f"success {sum(item.success for item in done)}/{len(done)}")
            found = results.collect({**about, "wall_s": round(time.perf_counter() - begin, 1)}, done)
            if file:
                results.write(part, found)
    if file and done:
        part.replace(file)
    return found


def _report(sources: Sequence[Path], out: Path) -> int:
    # Not on top: every worker process imports this module, and none needs what draws.
    from depthvla_evaluation.report import build, comparison_page

    made = build.write_comparison(sources, out, video=False)
    print(f"\n{comparison_page.text(made.summary)}\n\n{made.html}")
    for reason in made.left_out.values():
        print(f"evaluate: left out: {reason}", file=sys.stderr)
    return 1 if made.left_out else 0


def _model_id(folder: Path) -> str:
    """Also finds out what is wrong with a checkpoint before processes are started for it."""
    from depthvla_policy.policy.policy import Policy

    return Policy.load(folder).model_id


if __name__ == "__main__":
    sys.exit(main())
