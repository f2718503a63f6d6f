"""Two results seed by seed, and what a policy is told instead of the scene's instruction."""

from __future__ import annotations

import numpy as np
import pytest

from depthvla_evaluation.rollouts import paired, results
from depthvla_evaluation.rollouts.rollout import EpisodeResult
from depthvla_evaluation.rollouts.wrong_instruction import wrong_instruction


def evaluated(progress: dict[int, float], environment: str = "r1lite_sim/Lift-v0") -> dict:
    episodes = [EpisodeResult(seed, "lift", success=value == 1.0, progress=value) for seed, value in progress.items()]
    return results.collect({"environment": environment, "model_id": None, "settings": {}}, episodes)


def test_only_common_seeds_are_compared_and_each_with_itself():
    compared = paired.compare(evaluated({0: 1.0, 1: 0.5, 2: 1.0, 9: 0.0}), evaluated({0: 0.5, 1: 0.0, 2: 1.0, 7: 1.0}))
    assert compared["seeds"] == [0, 1, 2]
    progress = compared["progress"]
    assert progress["difference"] == pytest.approx(1 / 3)
    assert (progress["better"], progress["worse"]) == (2, 0)
    assert progress["interval"][0] >= 0.0  # unpaired, it would reach below
    assert compared["success"]["difference"] == pytest.approx(1 / 3)


def test_what_differs_everywhere_by_the_same_has_an_interval_without_width():
    shift = dict(enumerate(np.linspace(0.0, 0.5, 6)))
    compared = paired.compare(evaluated({s: v + 0.25 for s, v in shift.items()}), evaluated(shift))
    assert compared["progress"]["interval"] == pytest.approx((0.25, 0.25))


def test_the_table_names_both_and_says_which_way_the_difference_goes():
    told = paired.text(paired.compare(evaluated({0: 1.0, 1: 1.0}), evaluated({0: 0.0, 1: 1.0})), ("a.json", "b.json"))
    assert "A  a.json" in told and "+50.0%" in told


@pytest.mark.parametrize(
    ("other", "complaint"),
    [
        (evaluated({0: 1.0}, "r1lite_sim/Touch-v0"), "environments differ: r1lite_sim/Lift-v0 and r1lite_sim/Touch-v0"),
        (evaluated({5: 1.0}), "no seed in common"),
    ],
)
def test_what_cannot_be_compared_is_refused(other, complaint):
    with pytest.raises(ValueError, match=complaint):
        paired.compare(evaluated({0: 1.0}), other)


def test_seeds_of_other_scenes_are_no_pairs():
    other = evaluated({0: 1.0})
    other["episodes"][0]["instruction"] = "lift the blue block with the left arm"
    with pytest.raises(ValueError, match="seed 0 is not the same scene"):
        paired.compare(evaluated({0: 1.0}), other)


@pytest.mark.parametrize(
    ("text", "complaint"), [("{", "wanted: results of an evaluation"), ('{"episodes": []}', "has no 'environment'")]
)
def test_a_file_that_holds_no_results_is_named(tmp_path, text, complaint):
    path = tmp_path / "a.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=complaint):
        results.read(path)


@pytest.mark.parametrize(
    ("scene", "told"),
    [
        ("lift the red block with the right arm", "lift the green block with the right arm"),
        ("touch the white block with the left arm", "touch the red block with the left arm"),
        ("touch it with the left arm", "touch it with the right arm"),
        (
            "stack the green block on the red block and the blue block on the green block",
            "stack the red block on the blue block and the green block on the red block",
        ),
        ("open the microwave", "lift the red block with the right arm"),
    ],
)
def test_a_wrong_instruction_names_another_block_arm_or_task(scene, told):
    assert wrong_instruction(scene) == told
