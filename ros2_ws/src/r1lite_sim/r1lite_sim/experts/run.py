"""Episodes of an expert, as an environment would end them: success held for half a second, or the task's time is up."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from r1lite_sim.simulation import Simulation

SUCCESS_HOLD_S = 0.5


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


def run_episode(
    simulation: Simulation,
    expert,
    seed: int,
    watch: Callable[[Simulation], None] = lambda simulation: None,
    **task_options,
) -> Episode:
    """One episode from the reset on. `watch` is called before every control period.

    Raises:
        ValueError: an option that the task does not take.
    """
    robot, task = simulation.robot, simulation.task
    simulation.reset(seed, **task_options)
    expert.reset()
    limit, hold = round(task.time_limit_s / robot.period_s), round(SUCCESS_HOLD_S / robot.period_s)
    reach = robot.command_velocity * robot.period_s
    points: dict[str, int] = {}
    steps, held, fastest = 0, 0, 0.0
    while steps < limit and held < hold:
        watch(simulation)
        action = expert.act()
        fastest = max(fastest, float(np.max(np.abs(action - simulation.state()) / reach)))
        simulation.command(action)
        simulation.step(robot.period_s)
        points |= {name: steps for name in task.done if name not in points}
        held = held + 1 if simulation.success() else 0
        steps += 1
    return Episode(task.name, seed, simulation.instruction, held == hold, simulation.progress(), steps, points, fastest)
