from __future__ import annotations

import numpy as np
import pytest

from depthvla_control.shadow_mode import WINDOW, Shadow
from depthvla_control.shaper import CommandShaper
from depthvla_control.trajectory import standing

DT = 1.0 / 15.0


@pytest.fixture
def shadow(robot):
    return Shadow(robot, CommandShaper(robot))


def test_it_starts_where_the_robot_is_and_goes_where_the_policy_wants(shadow, home):
    commands = np.array([shadow.step(standing(home + 0.05), home, DT) for _ in range(10)])
    assert np.all(np.abs(commands[0] - home)[:6] <= 0.05) and np.any(commands[0] != home + 0.05)
    np.testing.assert_allclose(commands[-1], home + 0.05, atol=1e-6)


def test_the_error_is_what_the_policy_is_away_from_what_is_done(shadow, robot, home):
    assert np.isnan(shadow.error_rad)
    wanted = home + np.where(robot.gripper_mask, 40.0, 0.1)
    for _ in range(WINDOW + 20):
        shadow.step(standing(wanted), home, DT)
    assert shadow.error_rad == pytest.approx(0.1, abs=1e-6)  # grippers do not count


def test_without_a_chunk_there_is_no_shadow_and_it_begins_anew_afterwards(shadow, home):
    for _ in range(5):
        shadow.step(standing(home + 0.05), home, DT)
    assert shadow.step(None, home, DT) is None
    assert np.isnan(shadow.error_rad)
    elsewhere = home + 0.2
    np.testing.assert_allclose(shadow.step(standing(elsewhere), elsewhere, DT), elsewhere)
