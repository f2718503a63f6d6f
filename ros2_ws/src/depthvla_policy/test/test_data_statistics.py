"""Statistics of demonstrations, and what a policy is normalised with."""

from __future__ import annotations

import json
import sys

import lerobot_samples as samples
import numpy as np
import pytest
from lerobot_samples import ROBOT

from depthvla_policy.bench import decode
from depthvla_policy.data import statistics
from depthvla_policy.data.lerobot_writer import DatasetWriter
from depthvla_policy.policy.normalise import KINDS, Normaliser

ABSOLUTE = np.array([False, True])


def walk(frames=2000, horizon=3):
    rng = np.random.default_rng(0)
    states = rng.normal([1.0, 50.0], [0.3, 20.0], (frames, 2))
    return states, states[:, None] + rng.normal(0, 0.1, (frames, horizon, 2)) * np.arange(1, horizon + 1)[:, None]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("demonstrations")
    with DatasetWriter(folder, ROBOT) as writer:
        samples.write(writer, [20, 9])
    return folder


def test_quantiles_put_98_of_100_values_between_minus_one_and_one():
    states, actions = walk()
    stats = Normaliser.fit(states, actions, ABSOLUTE, kind="quantile")
    for values in (stats.state(states), stats.actions(actions, states)):
        inside = np.mean(np.abs(values) <= 1.0, axis=0)
        np.testing.assert_allclose(inside, 0.98, atol=0.002)


@pytest.mark.parametrize("kind", KINDS)
def test_normalisation_survives_a_file_and_is_undone(tmp_path, kind):
    states, actions = walk()
    fitted = Normaliser.fit(states, actions, ABSOLUTE, kind=kind)
    fitted.save(tmp_path / "norm_stats.json")
    stats = Normaliser.load(tmp_path / "norm_stats.json")
    assert stats.kind == kind
    np.testing.assert_allclose(stats.state(states), fitted.state(states))
    normalised = stats.actions(actions, states)
    np.testing.assert_allclose(stats.absolute_actions(normalised, states), actions)


def test_a_file_from_before_there_were_kinds_has_z_scores(tmp_path):
    side = {"mean": [1.0, 2.0], "std": [0.5, 2.0]}
    chunk = {name: [values] for name, values in side.items()}
    older = {"norm_stats": {"state": side, "actions": chunk, "absolute": [False, True]}}
    (tmp_path / "norm_stats.json").write_text(json.dumps(older))
    stats = Normaliser.load(tmp_path / "norm_stats.json")
    np.testing.assert_allclose(stats.state(np.array([2.0, 2.0])), [2.0, 0.0])


def test_a_joint_that_never_moves_is_not_blown_up():
    states = np.tile([1.0, 50.0], (10, 1))
    stats = Normaliser.fit(states, states[:, None], ABSOLUTE, kind="quantile")
    np.testing.assert_allclose(stats.state(states + 0.001), 0.1)


def test_an_unknown_kind_is_named(tmp_path):
    states, actions = walk(10)
    with pytest.raises(ValueError, match="'log'; allowed: z_score, quantile"):
        Normaliser.fit(states, actions, ABSOLUTE, kind="log")
    (tmp_path / "norm_stats.json").write_text(json.dumps({"norm_stats": {"kind": "log"}}))
    with pytest.raises(ValueError, match="'log'; allowed: z_score, quantile"):
        Normaliser.load(tmp_path / "norm_stats.json")


@pytest.mark.parametrize(
    ("part", "name", "values", "says"),
    [
        ("state", "mean", [0.0] * 32, r"state.mean has shape \(32,\), not \(2,\)"),
        ("state", "mean", [0.0], r"shape \(1,\), not \(2,\)"),
        ("state", "std", [1.0], r"state.std has shape \(1,\)"),
        ("actions", "std", [[1.0]] * 3, r"actions.std has shape \(3, 1\), not \(3, 2\)"),
        ("actions", "std", [[1.0, 1.0]], r"actions.std has shape \(1, 2\)"),
        ("actions", "mean", [0.0, 0.0], r"actions.mean has shape \(2,\)"),
        ("actions", "mean", [[0.0, 0.0], [0.0, 0.0], [0.0]], "actions.mean is not numbers in rows of one length"),
        ("actions", "mean", [[0.0, "a"]] * 3, "actions.mean is not numbers"),
        ("state", "mean", [0.0, float("nan")], "state.mean is not finite"),
        ("state", "std", [1.0, 0.0], "state statistics must"),
        ("actions", "std", [[1.0, -1.0]] * 3, "actions statistics must"),
        ("absolute", "", [True], "absolute is \\[True\\]; it must be 2 times true or false"),
        ("absolute", "", [0.0, 1.0], "absolute is"),
        ("absolute", "", None, "openpi's file"),
    ],
)
def test_statistics_of_another_shape_or_without_sense_are_refused_by_name(tmp_path, part, name, values, says):
    stats = {
        "state": {"mean": [0.0, 0.0], "std": [1.0, 1.0]},
        "actions": {"mean": [[0.0, 0.0]] * 3, "std": [[1.0, 1.0]] * 3},
        "absolute": [False, True],
    }
    if name:
        stats[part][name] = values
    elif values is None:
        del stats[part]
    else:
        stats[part] = values
    path = tmp_path / "norm_stats.json"
    path.write_text(json.dumps({"norm_stats": stats}))
    with pytest.raises(ValueError, match=f"norm_stats.json: .*{says}"):
        Normaliser.load(path, horizon=3, size=2)


def test_actions_have_figures_for_each_step_absolute_and_relative():
    states, actions = walk()
    figures = statistics.statistics(states, actions)
    assert figures["absolute"]["mean"].shape == figures["delta"]["q99"].shape == (3, 2)
    np.testing.assert_allclose(figures["delta"]["std"][:, 0], [0.1, 0.2, 0.3], rtol=0.1)
    np.testing.assert_allclose(figures["absolute"]["mean"], np.tile([1.0, 50.0], (3, 1)), rtol=0.02)
    np.testing.assert_allclose(figures["state"]["q01"], np.quantile(states, 0.01, axis=0))


def test_the_command_writes_what_a_checkpoint_takes(folder, tmp_path, monkeypatch, capsys):
    out, norm = tmp_path / "all.json", tmp_path / "norm_stats.json"
    words = ["statistics", str(folder), "--horizon", "4", "--out", str(out), "--norm-stats", str(norm)]
    monkeypatch.setattr(sys, "argv", [*words, "--kind", "quantile"])
    assert statistics.main() == 0
    printed = capsys.readouterr().out
    assert "2 episodes of 9 to 20 frames, 29 frames" in printed and "lift 1" in printed and "right_gripper" in printed
    assert np.shape(json.loads(out.read_text())["delta"]["std"]) == (4, 14)
    stats = Normaliser.load(norm)
    assert stats.kind == "quantile" and stats.action_mean.shape == (4, 14)
    np.testing.assert_array_equal(stats.absolute, ROBOT.gripper_mask)


def test_the_command_says_what_is_wrong(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["statistics", str(tmp_path)])
    assert statistics.main() == 1
    assert "no LeRobot dataset" in capsys.readouterr().err


def test_the_bench_states_both_orders(folder, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["decode", str(folder), "--samples", "4", "--depth-size", "16"])
    assert decode.main() == 0
    printed = capsys.readouterr().out
    assert "29 frames of 3 cameras" in printed and "any order" in printed and "in order" in printed
