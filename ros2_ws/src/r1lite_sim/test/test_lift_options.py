"""Lift with drawn options: another block or arm in every scene, and the scenes of named ones as they are."""

from __future__ import annotations

import numpy as np
import pytest

from r1lite_sim.simulation import Simulation

SEEDS = range(8)


@pytest.fixture(scope="module")
def named(robot):
    simulation = Simulation(robot, "lift")
    yield simulation
    simulation.close()


@pytest.fixture(scope="module")
def drawn(robot):
    simulation = Simulation(robot, "lift", task_options={"colour": "random", "side": "random"})
    yield simulation
    simulation.close()


def test_a_drawn_scene_is_the_one_of_the_drawn_names(named, drawn):
    for seed in SEEDS:
        drawn.reset(seed)
        named.reset(seed, colour=drawn.task.colour, side=drawn.task.side)
        assert drawn.instruction == named.instruction
        np.testing.assert_array_equal(drawn.data.qpos, named.data.qpos)


def test_a_seed_draws_the_same_each_time_and_seeds_differ(drawn):
    def instructions():
        for seed in SEEDS:
            drawn.reset(seed)
            yield drawn.instruction

    first = list(instructions())
    assert first == list(instructions())
    assert len(set(first)) > 3


def test_one_option_can_be_named_and_the_other_drawn(named):
    named.reset(0, colour="blue", side="random")
    sides = set()
    for seed in SEEDS:
        named.reset(seed)
        sides.add(named.task.side)
        assert named.task.colour == "blue"
    assert sides == {"left", "right"}


def test_progress_follows_the_drawn_block_and_arm(drawn):
    from r1lite_sim.experts import make_expert

    drawn.reset(5)
    assert drawn.task.side == "left"
    expert = make_expert("lift", drawn)
    while not drawn.success() and drawn.time_s < drawn.task.time_limit_s:
        drawn.command(expert.act())
        drawn.step(drawn.robot.period_s)
    assert drawn.success()
