"""Scripted experts, one a task. They see the true poses and say where a policy should steer next: absolute targets
for the next control period, within the robot's command velocities and joint limits.
"""

from __future__ import annotations

from r1lite_sim.experts.blocks_stacking import BlocksStackingExpert
from r1lite_sim.experts.lift import LiftExpert
from r1lite_sim.experts.microwave_operation import MicrowaveOperationExpert
from r1lite_sim.experts.table_bussing import TableBussingExpert
from r1lite_sim.experts.touch import TouchExpert
from r1lite_sim.simulation import Simulation

EXPERTS = {
    "lift": LiftExpert,
    "touch": TouchExpert,
    "blocks_stacking": BlocksStackingExpert,
    "table_bussing": TableBussingExpert,
    "microwave_operation": MicrowaveOperationExpert,
}


def make_expert(task: str, simulation: Simulation):
    """The expert of a task: `reset()` at the begin of an episode, `act()` -> (14,) once per control period, `done`.

    Raises:
        ValueError: there is none for this task, or the simulation stages another one.
    """
    if task not in EXPERTS:
        raise ValueError(f"no expert for task {task!r}; known experts: {', '.join(EXPERTS)}")
    if simulation.task.name != task:
        raise ValueError(f"the simulation stages {simulation.task.name!r}, the expert is for {task!r}")
    return EXPERTS[task](simulation)
