from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest

from r1lite_sim import tasks
from r1lite_sim.experts import EXPERTS, make_expert
from r1lite_sim.experts.__main__ import Episode, ExpertsConfig, run_episode, summarise, table
from r1lite_sim.kinematics import ArmKinematics
from r1lite_sim.simulation import Simulation
from r1lite_sim.tasks import blocks_stacking as stacking


@pytest.fixture(scope="module")
def trial(robot):
    """A simulation of a task and its expert, built once."""
    built = {}

    def get(name):
        if name not in built:
            simulation = Simulation(robot, name)
            built[name] = simulation, make_expert(name, simulation)
        return built[name]

    yield get
    for simulation, _ in built.values():
        simulation.close()


def test_every_task_has_an_expert():
    assert set(EXPERTS) == set(tasks.TASKS)


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("name", list(EXPERTS))
def test_the_expert_does_the_task_within_the_command_velocities(trial, name, seed):
    """Position limits too: the simulation refuses what is outside."""
    simulation, expert = trial(name)
    episode = run_episode(simulation, expert, seed)
    assert episode.success
    assert episode.progress == 1.0
    assert set(episode.points) == set(simulation.task.substeps)
    assert 0.5 < episode.fastest <= 1.0 + 1e-9


@pytest.mark.parametrize(("colour", "side"), [("green", "left"), ("blue", "right"), ("yellow", "left")])
def test_lift_takes_what_is_named_with_the_arm_that_is_named_and_holds_the_other_still(trial, robot, colour, side):
    simulation, expert = trial("lift")
    try:
        simulation.reset(1, colour=colour, side=side)
        expert.reset()
        actions = []
        while not simulation.success() and len(actions) < 80:
            actions.append(expert.act())
            simulation.command(actions[-1])
            simulation.step(robot.period_s)
        assert simulation.success()
        idle = robot.limb("left" if side == "right" else "right").slice
        assert np.ptp(np.array(actions)[:, idle], axis=0).max() == 0
    finally:
        simulation.reset(0, colour="red", side="right")


def test_lift_starts_again_when_the_block_is_moved(trial, robot):
    simulation, expert = trial("lift")
    simulation.reset(2)
    expert.reset()
    for step in range(120):
        if step == 12:
            simulation.data.joint("red_block").qpos[:2] = 0.56, -0.10
        simulation.command(expert.act())
        simulation.step(robot.period_s)
    assert simulation.success()


@pytest.mark.parametrize("name", ["lift", "touch", "blocks_stacking"])
def test_the_expert_says_when_it_is_done(trial, robot, name):
    simulation, expert = trial(name)
    simulation.reset(2)
    expert.reset()
    steps = 0
    while not expert.done and steps < 200:
        simulation.command(expert.act())
        simulation.step(robot.period_s)
        steps += 1
    assert 10 < steps < 200
    for _ in range(10):
        simulation.command(expert.act())
        simulation.step(robot.period_s)
    assert expert.done
    assert simulation.success()


def test_the_same_scene_is_done_the_same_way(trial):
    simulation, expert = trial("touch")
    assert run_episode(simulation, expert, 4) == run_episode(simulation, expert, 4)


def test_it_picks_up_again_what_slipped_away(trial, robot):
    simulation, expert = trial("blocks_stacking")
    simulation.reset(0)
    expert.reset()
    moved = False
    for _ in range(400):
        simulation.command(expert.act())
        simulation.step(robot.period_s)
        if not moved and simulation.task.gripped(stacking.SECOND, "left"):
            simulation.data.joint(stacking.SECOND).qpos[:3] = 0.55, 0.2, 0.79
            moved = True
        if simulation.success():
            break
    assert moved
    assert simulation.success()


def test_noise_on_the_arms_does_not_throw_it_off(trial, robot):
    """What demonstrations with noise need: the way back from states that the expert does not reach by itself."""
    simulation, expert = trial("blocks_stacking")
    rng, noise, arms = np.random.default_rng(2), np.zeros(robot.size), ~robot.gripper_mask
    simulation.reset(1)
    expert.reset()
    for _ in range(600):
        noise = 0.8 * noise + 0.6 * arms * rng.normal(0, 0.012, robot.size)
        simulation.command(np.clip(expert.act() + noise, robot.position_min, robot.position_max))
        simulation.step(robot.period_s)
        if expert.done:
            break
    assert simulation.success()


def test_an_expert_is_for_one_task(trial):
    simulation, _ = trial("touch")
    with pytest.raises(ValueError, match="no expert for task 'tidy'; known experts: lift"):
        make_expert("tidy", simulation)
    with pytest.raises(ValueError, match="stages 'touch', the expert is for 'lift'"):
        make_expert("lift", simulation)


def episode(seed, success, steps):
    return Episode("touch", seed, "touch it", success, 1.0 if success else 0.5, steps, {}, 0.7)


def test_the_summary_lists_failures_and_counts_steps_of_successes_only():
    summary = summarise([episode(3, True, 40), episode(4, False, 300), episode(5, True, 60)], 2.0)
    assert (summary["successes"], summary["seeds"], summary["first_seed"]) == (2, 3, 3)
    assert summary["failed_seeds"] == [4]
    assert summary["mean_steps"] == 50.0
    assert summary["progress"] == pytest.approx(0.8333)
    row = table([summary]).splitlines()[1]
    assert row.split()[:2] == ["touch", "2/3"]
    assert row.split()[-1] == "4"


def test_a_summary_without_success_is_no_error():
    assert "0/1" in table([summarise([episode(0, False, 300)], 1.0)])


@pytest.mark.parametrize("settings", [{"task": "tidy"}, {"seeds": 0}, {"first_seed": -1}])
def test_wrong_settings_are_refused(settings):
    with pytest.raises(ValueError, match="allowed"):
        ExpertsConfig(**settings)


def test_the_command_writes_figures_and_pictures(tmp_path):
    command = [sys.executable, "-m", "r1lite_sim.experts", "--task", "touch", "--seeds", "1"]
    command += ["--json", str(tmp_path / "figures.json"), "--pictures", str(tmp_path / "pictures")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "touch                   1/1" in done.stdout
    assert json.loads((tmp_path / "figures.json").read_text())[0]["successes"] == 1
    assert (tmp_path / "pictures" / "touch_0.png").stat().st_size > 10_000


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
