"""Open-loop errors against cases that are worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest
from synthetic_bag import SyntheticBag

from depthvla_control.chunk import Chunk
from depthvla_evaluation.bags.bag import Bag
from depthvla_evaluation.open_loop import open_loop, summarise, table
from depthvla_evaluation.open_loop_figure import open_loop_figure

PERIOD_NS = 100_000_000
STEPS = 4


@pytest.fixture
def recording(tmp_path, robot, home):
    """For 1 s every joint is commanded 0.1 a second away from home, in messages every 50 ms; measured is home."""
    with SyntheticBag(tmp_path / "bag") as bag:
        for time_s in np.arange(0, 1.001, 0.05):
            for limb in robot.limbs:
                commanded = home + 0.1 * time_s
                bag.joints(limb.topics.arm_command, time_s, commanded[limb.arm])
                bag.joints(limb.topics.gripper_command, time_s, [commanded[limb.gripper_index]])
                bag.joints(limb.topics.arm_feedback, time_s, home[limb.arm])
                bag.joints(limb.topics.gripper_feedback, time_s, [home[limb.gripper_index]])
    with Bag(tmp_path / "bag") as bag:
        yield bag


def chunk(time_s: float, positions: np.ndarray) -> Chunk:
    return Chunk(SyntheticBag.START_NS + round(time_s * 1e9), 1, PERIOD_NS, positions)


def test_what_was_commanded_between_two_messages_counts(recording, robot, home):
    """A chunk from 0.02 s on that stays at home is behind by 0.1 a second; so is standing still."""
    result = open_loop(recording, robot, [chunk(0.02, np.tile(home, (STEPS, 1)))])
    expected = -0.1 * (0.02 + 0.1 * np.arange(STEPS))
    np.testing.assert_allclose(result.errors[0], np.tile(expected[:, None], (1, robot.size)), atol=1e-9)
    np.testing.assert_allclose(result.standing, result.errors, atol=1e-9)


def test_the_means_are_those_of_absolute_errors(recording, robot, home):
    """Chunks 0.2 above and 0.1 below the command at every step: 0.15 on average."""
    way = home + 0.1 * (0.1 * np.arange(STEPS))[:, None]
    summary = summarise(open_loop(recording, robot, [chunk(0.0, way + 0.2), chunk(0.0, way - 0.1)]), robot)
    assert summary["by_step"]["arms_rad"] == pytest.approx([0.15] * STEPS)
    assert summary["by_joint"]["left_gripper"] == pytest.approx(0.15)
    assert summary["standing_by_step"]["grippers_mm"] == pytest.approx([0.0, 0.01, 0.02, 0.03])
    assert np.array(summary["by_step_and_joint"]).shape == (STEPS, robot.size)


def test_what_nobody_commanded_is_not_compared(recording, robot, home):
    summary = summarise(open_loop(recording, robot, [chunk(0.85, np.tile(home, (STEPS, 1)))]), robot)
    assert summary["compared"] == 2
    assert summary["by_step"]["arms_rad"][2:] == [None, None]
    assert "-" in table(summary)
    open_loop_figure(summary)


def test_a_gap_between_commands_is_not_bridged(tmp_path, robot, home):
    with SyntheticBag(tmp_path / "bag") as bag:
        for time_s in (0.0, 0.1, 0.5, 0.6):
            bag.joints(robot.limbs[0].topics.arm_command, time_s, home[robot.limbs[0].arm])
    with Bag(tmp_path / "bag") as bag:
        result = open_loop(bag, robot, [chunk(0.05, np.tile(home, (STEPS + 2, 1)))])
    compared = np.isfinite(result.errors[0]).any(axis=1)
    assert compared.tolist() == [True, False, False, False, False, True]


def test_bags_and_chunks_that_cannot_be_compared_are_named(tmp_path, robot, home):
    with SyntheticBag(tmp_path / "bag") as bag:
        bag.joints(robot.limbs[0].topics.arm_feedback, 0.0, home[robot.limbs[0].arm])
    with Bag(tmp_path / "bag") as bag:
        with pytest.raises(ValueError, match="0 chunks"):
            open_loop(bag, robot, [])
        with pytest.raises(ValueError, match="holds no command"):
            open_loop(bag, robot, [chunk(0.0, np.tile(home, (STEPS, 1)))])
