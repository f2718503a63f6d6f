"""A simulation to look at."""

from __future__ import annotations

import pytest

from r1lite_description.robot import Robot
from r1lite_sim.simulation import Simulation


@pytest.fixture(scope="module")
def simulation(robot: Robot):
    """One simulation a module: building it takes longer than a reset."""
    simulation = Simulation(robot)
    yield simulation
    simulation.close()
