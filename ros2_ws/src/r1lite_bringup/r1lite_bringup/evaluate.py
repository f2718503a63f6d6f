"""An evaluation through the real node graph, in real time: `python -m r1lite_bringup.evaluate --policy DIR`.

Every episode is recorded; the results have the layout of `depthvla_evaluation.evaluate`, and the report is that of
recorded episodes. What an episode does with the graph is in `evaluate_episode`.
"""

from __future__ import annotations

import dataclasses
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro
from tqdm import tqdm

from depthvla_control.ros.probe import private_domain
from depthvla_evaluation.report import build as report
from depthvla_evaluation.rollouts import results
from depthvla_evaluation.rollouts.rollout import environment_id
from r1lite_bringup import graph
from r1lite_bringup.evaluate_episode import Episodes, EvaluationError
from r1lite_bringup.process_launch import Launcher
from r1lite_description import robot as robots
from r1lite_sim import task_options
from r1lite_sim import tasks as simulated
from r1lite_sim.nodes.simulator_node import OPTIONS
from r1lite_sim.simulation import Simulation

START_S = 120.0  # until the first chunk: torch is imported and MuJoCo compiled


@dataclass(frozen=True)
class EvaluateConfig:
    """Closed-loop evaluation through the ROS graph, one scene after another in real time."""

    policy: str = "r1lite-small"  # checkpoint: a folder, or the name of one in models/
    task: str = "lift"  # a task of r1lite_sim
    task_options: tuple[str, ...] = ()  # NAME=VALUE, as colour=blue side=random, which is drawn for each seed
    seeds: int = 10  # number of scenes
    first_seed: int = 0  # seed of the first scene
    json: Path | None = None  # file for the results, written after every episode; an earlier one is replaced
    out: Path | None = None  # folder for recordings, report and log; out/evaluate/<policy>-<task> when left out
    time_limit_s: float | None = None  # of an episode; the simulated task's own when left out
    setting: str = ""  # under which the report groups the episodes
    device: str = "cpu"  # where the network runs
    depth: bool = True  # predict depth as well, which is recorded and compared with the truth
    realtime_chunking: Literal["off", "guided", "trained"] = "off"  # how a chunk continues the one in execution
    report: bool = True  # build the report of the recordings
    video: bool = False  # with a video of every episode


def main(argv: Sequence[str] | None = None) -> int:
    config = tyro.cli(EvaluateConfig, args=argv)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        found, out = evaluate(config)
    except (EvaluationError, LookupError, OSError, ValueError) as error:
        print(f"evaluate: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\ninterrupted; what was finished is kept", file=sys.stderr)
        return 130
    print(results.text(found))
    if config.report:
        bags = [out / row["bag"] for row in found["episodes"]]
        made = report.write_comparison(bags, out / "report", video=config.video)
        print(f"\n{made.html}")
    return 0


def evaluate(config: EvaluateConfig) -> tuple[dict, Path]:
    """The results, and the folder of the recordings.

    Raises:
        ValueError: a setting is not allowed.
        FileExistsError: the folder holds recordings already.
        EvaluationError: the graph does not do what it was asked for.
    """
    options, limit_s, substeps = _checked(config)
    policy = graph.model_folder(config.policy)
    out = config.out or Path("out/evaluate") / f"{policy.name}-{config.task}"
    if out.exists() and any(out.iterdir()):
        raise FileExistsError(f"{out} is not empty; choose another --out")
    out.mkdir(parents=True, exist_ok=True)
    about = {
        "policy": str(policy),
        "model_id": None,
        "environment": environment_id(config.task).split(":")[-1],
        "through": "ros",
        "settings": {
            "task_options": config.task_options,
            "time_limit_s": limit_s,
            "setting": config.setting,
            "realtime_chunking": config.realtime_chunking,
        },
    }
    done, failed, found = [], {}, {}
    begin = time.perf_counter()
    seeds = range(config.first_seed, config.first_seed + config.seeds)
    with (
        _running(config, policy, options, out),
        Episodes(config.task, config.setting, limit_s, substeps) as episodes,
        closing(Scenes(config.task, options)) as scenes,
    ):
        try:
            about["model_id"] = episodes.wait_for_policy(START_S)
        except EvaluationError as error:
            raise EvaluationError(f"{error}; what the nodes said is in {out / 'log.txt'}") from error
        for seed in (bar := tqdm(seeds, unit="episode", desc=config.task, disable=None)):
            episode, failed[seed] = episodes.run(seed, (out / f"seed_{seed}").absolute())
            episode.options = scenes.options(seed, episode.instruction)
            done.append(episode)
            bar.set_postfix_str(f"success {sum(item.success for item in done)}/{len(done)}")
            found = results.collect({**about, "wall_s": round(time.perf_counter() - begin, 1)}, done)
            for row in found["episodes"]:
                row |= {"bag": f"seed_{row['seed']}", "recording_failed": failed[row["seed"]]}
            results.write(config.json or out / "results.json", found)
    return found, out


class Scenes:
    """What the options of a task are in the scene of a seed. Stages the scenes itself where an option is drawn."""

    def __init__(self, task: str, options: dict[str, str]) -> None:
        self._options = options
        drawn = task_options.DRAWN in options.values()
        self._simulation = Simulation(robots.load(), task, task_options=options) if drawn else None

    def options(self, seed: int, instruction: str) -> dict[str, str]:
        """Raises EvaluationError where the instruction of that scene is another one."""
        if self._simulation is None:
            return self._options
        self._simulation.reset(seed)
        if self._simulation.instruction != instruction:
            raise EvaluationError(f"seed {seed} is {self._simulation.instruction!r}; the graph staged {instruction!r}")
        return {name: getattr(self._simulation.task, name) for name in self._options}

    def close(self) -> None:
        if self._simulation:
            self._simulation.close()


def _checked(config: EvaluateConfig) -> tuple[dict[str, str], float, tuple[str, ...]]:
    """Options of the task, with its own defaults, the time limit and the substeps."""
    if config.seeds < 1 or config.first_seed < 0:
        raise ValueError(f"seeds is {config.seeds}, first_seed {config.first_seed}; allowed: 1 or more, 0 or more")
    given = task_options.parse(config.task_options)
    for name, value in given.items():
        if name not in OPTIONS:
            raise ValueError(f"task option {name}={value}: through ROS, allowed: {', '.join(OPTIONS)}")
    defaults = simulated.option_defaults(config.task)
    own = {name: task_options.DRAWN if value is None else value for name, value in defaults.items() if name in OPTIONS}
    options = own | given
    task = simulated.make(config.task, **options)
    limit_s = task.time_limit_s if config.time_limit_s is None else config.time_limit_s
    if limit_s <= 0:
        raise ValueError(f"time_limit_s is {limit_s}; it must be above 0")
    return options, limit_s, tuple(task.substeps)


@contextmanager
def _running(config: EvaluateConfig, policy: Path, options: dict, out: Path) -> Iterator[Launcher]:
    """The graph, in a ROS domain of its own. Arms are given to the policy by an episode only."""
    arguments = {
        "robot": "sim",
        "model": str(policy),
        "task": config.task,
        "seed": str(config.first_seed),
        "device": config.device,
        "depth": str(config.depth).lower(),
        "realtime_chunking": config.realtime_chunking,
        "record": "on_request",
        "bag_root": str(out),
    }
    added = {"simulator_node": task_options.written(options), "chunk_executor_node": {"mode_on_activate": "DISARMED"}}
    nodes = [
        dataclasses.replace(node, parameters={**node.parameters, **added.get(node.name, {})})
        for node in graph.graph(arguments)
    ]
    with ExitStack() as stack:
        stack.enter_context(private_domain())
        log = stack.enter_context((out / "log.txt").open("w"))
        yield stack.enter_context(Launcher(nodes, output=log))


if __name__ == "__main__":
    sys.exit(main())
