from __future__ import annotations

import numpy as np
import pytest

from r1lite_sim.experts.lift import LiftExpert
from r1lite_sim.kinematics import ArmKinematics


def run(simulation, seed, steps=80, **options):
    """States and actions of an episode, until the lift was held for half a second."""
    simulation.reset(seed, **options)
    expert = LiftExpert(simulation)
    states, actions, held = [], [], 0
    while held < 8 and len(states) < steps:
        states.append(simulation.state())
        actions.append(expert.act())
        simulation.command(actions[-1])
        simulation.step(simulation.robot.period_s)
        held = held + 1 if simulation.success() else 0
    return np.array(states), np.array(actions)


@pytest.mark.parametrize("seed", range(6))
def test_it_lifts_the_red_block_with_the_right_arm(simulation, robot, seed):
    states, actions = run(simulation, seed)
    assert simulation.success()
    assert simulation.progress() == 1.0
    assert np.all(actions >= robot.position_min)
    assert np.all(actions <= robot.position_max)
    ways = np.abs(actions - states)[:, robot.limb("right").arm]
    assert np.all(ways <= robot.command_velocity[robot.limb("right").arm] * robot.period_s + 1e-9)
    # The idle arm holds its pose.
    assert np.ptp(actions[:, robot.limb("left").slice], axis=0).max() == 0


@pytest.mark.parametrize(("colour", "side"), [("green", "left"), ("blue", "right"), ("yellow", "left")])
def test_it_lifts_what_is_named_with_the_arm_that_is_named(simulation, colour, side):
    try:
        run(simulation, 1, colour=colour, side=side)
        assert simulation.success()
    finally:
        simulation.reset(0, colour="red", side="right")


def test_it_starts_again_when_the_block_is_moved(simulation, robot):
    simulation.reset(2)
    expert = LiftExpert(simulation)
    for step in range(120):
        if step == 12:
            simulation.data.joint("red_block").qpos[:2] = 0.56, -0.10
        simulation.command(expert.act())
        simulation.step(robot.period_s)
    assert simulation.success()


def test_doing_nothing_lifts_nothing(simulation, robot):
    simulation.reset(0)
    start = simulation.state()
    for _ in range(30):
        simulation.command(start)
        simulation.step(robot.period_s)
    assert not simulation.success()
    assert simulation.progress() == 0.0


@pytest.mark.parametrize("limb", ["left", "right"])
def test_inverse_kinematics_finds_poses_that_the_arm_can_reach(simulation, robot, limb):
    kinematics = ArmKinematics(simulation.model, robot, limb)
    start = np.array([0.0, 1.3, -1.0, 0.5, 0.0, 0.0])
    rng = np.random.default_rng(0)
    for _ in range(20):
        goal = start + rng.uniform(-0.3, 0.3, 6)
        position, rotation = kinematics.pose(goal)
        joints, *errors = kinematics.solve(position, rotation, start)
        assert errors[0] < 1e-3
        assert errors[1] < 1e-2
        assert np.all(joints >= robot.position_min[:6])
        assert np.all(joints <= robot.position_max[:6])


def test_inverse_kinematics_reports_what_it_cannot_reach(simulation, robot):
    kinematics = ArmKinematics(simulation.model, robot, "right")
    joints, error, _ = kinematics.solve(np.array([2.0, 0, 1]), np.eye(3), np.array([0.0, 1.3, -1.0, 0.5, 0.0, 0.0]))
    assert error > 0.5
    assert np.all(np.isfinite(joints))
