"""Scenes of an evaluation through the real node graph: in real time, recorded, in a ROS domain of its own."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

from depthvla_control.ros.probe import private_domain
from depthvla_evaluation.rollouts.rollout import EpisodeResult, EvaluationError, Run
from r1lite_bringup import graph
from r1lite_bringup.evaluate_episode import Episodes
from r1lite_bringup.process_launch import Launcher
from r1lite_description import robot as robots
from r1lite_sim import task_options
from r1lite_sim import tasks as simulated
from r1lite_sim.instructions import STAGED
from r1lite_sim.simulation import Simulation

START_S = 120.0  # until the first chunk: torch is imported and MuJoCo compiled


@contextmanager
def run(
    policy: Path,
    task: str,
    seeds: Sequence[int],
    out: Path,
    *,
    options: Sequence[str] = (),
    time_limit_s: float | None = None,
    realtime_chunking: str = "off",
    setting: str = "",
    device: str = "cpu",
    depth: bool = True,
) -> Iterator[Run]:
    """The graph runs within the context. `out`: folder for recordings and log. `options`: NAME=VALUE words.

    Raises:
        ValueError: a setting is not allowed.
        FileExistsError: the folder holds recordings already.
        EvaluationError: the graph does not do what it was asked for.
    """
    staged = scene_options(task, options)
    description = simulated.make(task, **staged)
    limit_s = description.time_limit_s if time_limit_s is None else time_limit_s
    if limit_s <= 0:
        raise ValueError(f"time_limit_s is {limit_s}; it must be above 0")
    if out.exists() and any(out.iterdir()):
        raise FileExistsError(f"{out} is not empty; choose another --out")
    out.mkdir(parents=True, exist_ok=True)
    arguments = {
        "robot": "sim",
        "model": str(policy),
        "task": task,
        "seed": str(seeds[0]),
        "device": device,
        "depth": str(depth).lower(),
        "realtime_chunking": realtime_chunking,
        "record": "on_request",
        "bag_root": str(out),
    }
    # Arms are given to the policy by an episode only.
    added = {"simulator_node": task_options.written(staged), "chunk_executor_node": {"mode_on_activate": "DISARMED"}}
    nodes = [
        dataclasses.replace(node, parameters={**node.parameters, **added.get(node.name, {})})
        for node in graph.graph(arguments)
    ]
    with ExitStack() as stack:
        stack.enter_context(private_domain())
        log = stack.enter_context((out / "log.txt").open("w"))
        stack.enter_context(Launcher(nodes, output=log))
        episodes = stack.enter_context(Episodes(task, setting, limit_s, tuple(description.substeps)))
        scenes = stack.enter_context(closing(Scenes(task, staged)))
        try:
            model_id = episodes.wait_for_policy(START_S)
        except EvaluationError as error:
            raise EvaluationError(f"{error}; the nodes' output is in {log.name}") from error
        settings = {
            "task_options": tuple(options),
            "time_limit_s": limit_s,
            "setting": setting,
            "realtime_chunking": realtime_chunking,
        }
        yield Run(policy, model_id, settings, _episodes(episodes, scenes, seeds, out))


def scene_options(task: str, words: Sequence[str]) -> dict[str, str]:
    """Options of the task with its own defaults, as in simulated time.

    Raises:
        ValueError: the simulator node does not take one of them.
    """
    given = task_options.parse(words)
    for name, value in given.items():
        if name not in STAGED:
            raise ValueError(f"task option {name}={value}: through ROS, allowed: {', '.join(STAGED)}")
    defaults = {name: value for name, value in simulated.option_defaults(task).items() if name in STAGED}
    return {name: task_options.DRAWN if value is None else value for name, value in defaults.items()} | given


def _episodes(episodes: Episodes, scenes: Scenes, seeds: Sequence[int], out: Path) -> Iterator[EpisodeResult]:
    for seed in seeds:
        episode, failed = episodes.run(seed, (out / f"seed_{seed}").absolute())
        episode.options = scenes.options(seed, episode.instruction)
        episode.kept = {"bag": f"seed_{seed}", "recording_failed": failed}
        yield episode


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
