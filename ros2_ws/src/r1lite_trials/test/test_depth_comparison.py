"""The miniature comparison: what is left to do, in which order, and the table of what is there."""

from __future__ import annotations

import subprocess
from pathlib import Path

import numpy as np
import pytest

from depthvla_evaluation.rollouts import results
from depthvla_evaluation.rollouts.rollout import EpisodeResult
from r1lite_trials import depth_comparison
from r1lite_trials.depth_comparison import PI0, REFERENCE, VARIANTS, MiniatureConfig

RANDOM_DEPTH = "depthvla-small-ablation-i-random-depth"


def evaluated(progress: list[float], time_limit_s: float = 30.0) -> dict:
    episodes = [EpisodeResult(i, "lift", success=value == 1.0, progress=value) for i, value in enumerate(progress)]
    about = {"environment": "some/Env-v0", "model_id": None, "settings": {"time_limit_s": time_limit_s}}
    return results.collect(about, episodes)


def leave_training(out: Path, step: int) -> None:
    (out / "state" / f"step_{step:08d}").mkdir(parents=True)
    (out / "model.safetensors").touch()


def value(words: list[str], flag: str) -> str:
    return words[words.index(flag) + 1]


@pytest.fixture
def ran(tmp_path, monkeypatch):
    """Runs the comparison with commands that do nothing; gives back the modules and words of what was run."""
    (tmp_path / "tokenizer.json").touch()

    def run(**settings) -> list[tuple[str, list[str]]]:
        commands = []
        monkeypatch.setattr(subprocess, "run", lambda words, **_: commands.append((words[2], words[3:])))
        depth_comparison.run(MiniatureConfig(out=tmp_path, **{"training_seeds": 1, "seeds": 2, **settings}))
        return commands

    return run


def test_starts_come_before_what_starts_from_them_and_every_network_is_evaluated_on_both_tasks(ran):
    done = [
        (module, Path(value(words, "--policy" if "evaluate" in module else "--out")).name) for module, words in ran()
    ]
    assert done[:6] == [
        ("depthvla_policy.train", "depth-0"),
        ("depthvla_policy.convert", "start-pi0-small-0"),
        ("depthvla_policy.convert", "start-depthvla-small-0"),
        ("depthvla_policy.train", "depthvla-small-0"),
        ("r1lite_bringup.evaluate", "depthvla-small-0"),
        ("r1lite_bringup.evaluate", "depthvla-small-0"),
    ]
    assert len(done) == 3 + 3 * len(VARIANTS)


def test_networks_of_a_seed_are_trained_alike(ran):
    trainings = [words for module, words in ran() if module == "depthvla_policy.train" and "--model" in words]
    own = {"--model", "--out", "--init"}
    alike = [[w for w, before in zip(words[1:], words, strict=False) if before not in own] for words in trainings]
    assert all(words == alike[0] for words in alike)
    assert alike[0][-2:] == ["3", "1"], "the shares of the tasks"
    starts = {value(words, "--model"): Path(value(words, "--init")).name for words in trainings}
    assert starts[PI0] == "start-pi0-small-0"
    # Its network leaves the depth expert out of what it loads.
    assert starts[REFERENCE] == starts[RANDOM_DEPTH] == "start-depthvla-small-0"


def test_a_training_that_was_interrupted_is_resumed_and_one_that_ended_is_not_done_again(ran, tmp_path):
    leave_training(tmp_path / f"{PI0}-0", 500)
    leave_training(tmp_path / f"{REFERENCE}-0", MiniatureConfig().steps)
    trainings = {value(words, "--model"): words for _, words in ran() if "--model" in words}
    assert "--resume" in trainings[PI0] and REFERENCE not in trainings


def test_an_evaluation_of_too_few_scenes_or_another_time_limit_is_done_again(ran, tmp_path):
    path = tmp_path / f"{PI0}-0" / "lift.json"
    results.write(path, evaluated([0.5, 1.0]))

    def waits(**settings) -> bool:
        return str(path) in [words[-1] for module, words in ran(**settings) if "evaluate" in module]

    assert not waits()
    assert waits(seeds=3)
    assert waits(time_limit_s=60.0)


def test_few_shot_limits_every_training_and_keeps_apart(ran, tmp_path):
    (tmp_path / "few-shot").mkdir()
    (tmp_path / "few-shot/tokenizer.json").touch()
    trainings = [words for module, words in ran(few_shot=True) if module == "depthvla_policy.train"]
    assert {value(words, "--data.limit-episodes") for words in trainings} == {"20"}
    assert all((tmp_path / "few-shot") in Path(value(words, "--out")).parents for words in trainings)


def test_a_step_that_fails_ends_the_comparison(tmp_path, monkeypatch, capsys):
    (tmp_path / "tokenizer.json").touch()

    def fail(words, **_):
        raise subprocess.CalledProcessError(3, words)

    monkeypatch.setattr(subprocess, "run", fail)
    assert depth_comparison.main(["--out", str(tmp_path), "--training-seeds", "1"]) == 1
    assert "exit code 3 of" in capsys.readouterr().err


def test_a_wrong_setting_is_named(tmp_path, capsys):
    with pytest.raises(ValueError, match="seeds is 0; allowed: 1 or more"):
        MiniatureConfig(seeds=0)
    missing = tmp_path / "nothing"
    assert depth_comparison.main(["--out", str(tmp_path), "--demonstrations", str(missing), str(missing)]) == 1
    assert str(missing) in capsys.readouterr().err


def test_the_table_has_what_is_there_and_leaves_the_rest_blank(tmp_path):
    for variant, seed, task, progress in (
        (REFERENCE, 0, "lift", [1.0, 1.0]),
        (REFERENCE, 1, "lift", [1.0, 1.0]),
        (REFERENCE, 0, "blocks_stacking", [0.5, 0.5]),
        (PI0, 0, "lift", [0.5, 0.5, 1.0]),
        (PI0, 0, "blocks_stacking", [0.5, 0.5]),
    ):
        results.write(tmp_path / f"{variant}-{seed}" / f"{task}.json", evaluated(progress))
    for seed, flow in enumerate((0.3, 0.5)):
        lines = f'{{"step": 50, "held_out_flow": 9}}\n{{"step": 100, "held_out_flow": {flow}}}\n'
        (tmp_path / f"{REFERENCE}-{seed}" / "train.jsonl").write_text(lines)
    text = depth_comparison.write_table(MiniatureConfig(out=tmp_path))
    assert (tmp_path / "table.md").read_text() == text + "\n"
    rows = {cells[1]: cells[2:-1] for cells in ([c.strip() for c in line.split("|")] for line in text.splitlines())}
    assert rows["DepthVLA"][0] == "2" and rows["DepthVLA"][-4:] == [
        "75.0%",  # no interval: no spread, and too few scenes
        "",
        "0.400 (0.300 to 0.500)",
        "",
    ]
    assert rows["pi0 (no depth expert)"][-3] == "-25.0%", "over the scenes that both have"
    assert rows["(iv) no block-wise mask"] == ["0", *[""] * 8]


def test_the_interval_is_over_training_seeds_as_well_as_scenes():
    alike = {seed: np.full(50, 0.5) for seed in range(3)}
    apart = {seed: np.full(50, progress) for seed, progress in enumerate((0.2, 0.5, 0.8))}
    assert depth_comparison.estimate([alike]) == (0.5, None)  # without spread nothing tells it
    assert depth_comparison.estimate([apart])[1] == pytest.approx((0.2, 0.8))


def test_tasks_weigh_the_same_however_many_runs_they_have():
    many, one = {0: np.ones(2), 1: np.ones(1)}, {0: np.zeros(1)}
    assert depth_comparison.estimate([many, one])[0] == 0.5
