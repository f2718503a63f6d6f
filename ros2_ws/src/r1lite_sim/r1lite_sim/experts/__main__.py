"""How well the scripted experts do: `depthvla experts --task all --seeds 100`."""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import cv2
import numpy as np
import tyro
from scipy.stats import binomtest
from tqdm import tqdm

from r1lite_description import robot as robots
from r1lite_sim.envs import SUCCESS_HOLD_S
from r1lite_sim.experts import EXPERTS, make_expert
from r1lite_sim.scene.table import SCENE_CAMERA
from r1lite_sim.simulation import Simulation

IMAGE_SIZE = (640, 360)  # px, rendered; twice as large as shown, so that edges are smooth
CELL = (320, 180)
FRAME_PERIODS = 5  # control periods between frames of a picture
FRAMES_SHOWN = 4
ONLOOKER = (slice(75, 345), slice(100, 580))  # rows and columns of the onlooker's picture where something happens


@dataclass(frozen=True)
class ExpertsConfig:
    """Success of the scripted experts over seeded scenes."""

    task: str = "all"
    """name of a task, or all"""
    seeds: int = 100
    """number of scenes"""
    first_seed: int = 0
    """seed of the first scene"""
    json: Path | None = None
    """file for the results of every episode; an earlier one is replaced"""
    pictures: Path | None = None
    """folder for a picture of each episode from start to end: an onlooker above the head camera"""

    def __post_init__(self) -> None:
        if self.task not in ("all", *EXPERTS):
            raise ValueError(f"task is {self.task!r}; allowed: all, {', '.join(EXPERTS)}")
        if self.seeds < 1 or self.first_seed < 0:
            raise ValueError(f"seeds is {self.seeds}, first_seed {self.first_seed}; allowed: 1 or more, 0 or more")


@dataclass(frozen=True)
class Episode:
    """`points`: control period in which each substep was earned. `fastest`: largest share of the command velocities
    that a target asked for, measured from where the robot was.
    """

    task: str
    seed: int
    instruction: str
    success: bool
    progress: float
    steps: int
    points: dict[str, int]
    fastest: float


def main() -> None:
    config = tyro.cli(ExpertsConfig)
    names = list(EXPERTS) if config.task == "all" else [config.task]
    summaries = [summarise(*run(name, config)) for name in names]
    print(table(summaries))
    if config.json:
        config.json.parent.mkdir(parents=True, exist_ok=True)
        config.json.write_text(json.dumps(summaries, indent=1) + "\n")
        print(f"\n{config.json}")


def run(name: str, config: ExpertsConfig) -> tuple[list[Episode], float]:
    """All episodes of a task, and how long they took [s]."""
    simulation = Simulation(robots.load(), name, image_width=IMAGE_SIZE[0], image_height=IMAGE_SIZE[1])
    expert = make_expert(name, simulation)
    begin, episodes = time.perf_counter(), []
    with tqdm(range(config.first_seed, config.first_seed + config.seeds), unit="episode", desc=name) as bar:
        for seed in bar:
            picture = config.pictures / f"{name}_{seed}.png" if config.pictures else None
            episodes.append(run_episode(simulation, expert, seed, picture))
            bar.set_postfix_str(f"success {sum(item.success for item in episodes)}/{len(episodes)}")
    simulation.close()
    return episodes, time.perf_counter() - begin


def run_episode(simulation: Simulation, expert, seed: int, picture: Path | None = None) -> Episode:
    """One episode as an environment would end it: success held for half a second, or the task's time is up.
    `picture` shows it from start to end.
    """
    robot, task = simulation.robot, simulation.task
    simulation.reset(seed)
    expert.reset()
    limit, hold = round(task.time_limit_s / robot.period_s), round(SUCCESS_HOLD_S / robot.period_s)
    reach = robot.command_velocity * robot.period_s
    points: dict[str, int] = {}
    frames: list[np.ndarray] = []
    steps, held, fastest = 0, 0, 0.0
    while steps < limit and held < hold:
        if picture and steps % FRAME_PERIODS == 0:
            frames.append(_frame(simulation))
        action = expert.act()
        fastest = max(fastest, float(np.max(np.abs(action - simulation.state()) / reach)))
        simulation.command(action)
        simulation.step(robot.period_s)
        points |= {name: steps for name in task.done if name not in points}
        held = held + 1 if simulation.success() else 0
        steps += 1
    if picture:
        _save_picture(picture, [*frames, _frame(simulation)])
    return Episode(task.name, seed, simulation.instruction, held == hold, simulation.progress(), steps, points, fastest)


def summarise(episodes: list[Episode], wall_s: float) -> dict:
    """Figures of one task's episodes. Steps are those of the successful episodes."""
    successes = [item for item in episodes if item.success]
    interval = binomtest(len(successes), len(episodes)).proportion_ci(method="wilson")
    return {
        "task": episodes[0].task,
        "seeds": len(episodes),
        "first_seed": episodes[0].seed,
        "successes": len(successes),
        "success_interval": [round(float(bound), 4) for bound in interval],
        "progress": round(float(np.mean([item.progress for item in episodes])), 4),
        "mean_steps": round(float(np.mean([item.steps for item in successes])), 1) if successes else None,
        "fastest": round(max(item.fastest for item in episodes), 4),
        "failed_seeds": [item.seed for item in episodes if not item.success],
        "wall_s": round(wall_s, 1),
        "episodes": [asdict(item) for item in episodes],
    }


def table(summaries: list[dict]) -> str:
    """The results for a terminal."""
    columns = f"{'task':<20} {'success':>9}  {'95 % interval':<17} {'progress':>8} {'steps':>6} {'wall':>7}"
    lines = [f"{columns}  failed seeds"]
    for item in summaries:
        low, high = item["success_interval"]
        steps = "-" if item["mean_steps"] is None else f"{item['mean_steps']:.0f}"
        lines.append(
            f"{item['task']:<20} {item['successes']:>4}/{item['seeds']:<4}  {low:>6.1%} to {high:>6.1%}  "
            f"{item['progress']:>8.1%} {steps:>6} {item['wall_s']:>5.0f} s  "
            f"{', '.join(map(str, item['failed_seeds'])) or '-'}"
        )
    return "\n".join(lines)


def _frame(simulation: Simulation) -> np.ndarray:
    """An onlooker's view above what the head camera sees."""
    views = simulation.render(SCENE_CAMERA)[ONLOOKER], simulation.render(simulation.robot.cameras[0].name)
    return np.vstack([cv2.resize(view, CELL, interpolation=cv2.INTER_AREA) for view in views])


def _save_picture(path: Path, frames: list[np.ndarray]) -> None:
    """A few of the frames side by side, from the first to the last."""
    shown = [frames[index] for index in np.linspace(0, len(frames) - 1, FRAMES_SHOWN).astype(int)]
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), cv2.cvtColor(np.hstack(shown), cv2.COLOR_RGB2BGR))


if __name__ == "__main__":
    main()
