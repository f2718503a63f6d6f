"""Scores, groups, pairs and averages against values worked out by hand."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from depthvla_control.arbiter import Mode
from depthvla_evaluation.bags.episode import ModeChange
from depthvla_evaluation.bags.notes import EpisodeNotes, read_notes
from depthvla_evaluation.metrics import (
    bootstrap_difference,
    bootstrap_interval,
    bootstrap_mean_of_means,
    wilson_interval,
)
from depthvla_evaluation.report.comparison import averages, differences, group_scores
from depthvla_evaluation.report.scores import Score, score_episode, task_substeps
from r1lite_description import tasks

SECOND = 1_000_000_000
SUBSTEPS = {"fold": ("grasped", "folded", "laid")}


def notes(*, marks=(), outcome="", task="fold", remark="", failure="", **names):
    """Marks are (substep, second)."""
    said = EpisodeNotes(task, "fold the cloth", **names)
    for substep, second in marks:
        said.mark(substep, second * SECOND)
    said.end(outcome, remark, failure)
    return read_notes(said.custom_data())


def episode(said, *, reported=(), interventions=0):
    """Ten seconds; reported: progress of the simulator at every second, 1.0 is success."""
    changes = [ModeChange(SECOND, Mode.POLICY, "", False)]
    changes += [ModeChange(SECOND, Mode.TELEOP, "taken", True)] * interventions
    progress = SimpleNamespace(
        stamp_ns=np.arange(len(reported)) * SECOND,
        progress=np.array(reported),
        success=np.array(reported) == 1.0,
        seed=4 if reported else -1,
        task="lift" if reported else "",
    )
    return SimpleNamespace(
        notes=said,
        progress=progress,
        mode_changes=changes,
        duration_s=10.0,
        chunks=SimpleNamespace(model_ids=("model@1",)),
        seconds=lambda ns: np.asarray(ns) / SECOND,
    )


def score(progress, *, task="fold", setting="", policy="a", scene="", success=None, **others) -> Score:
    values = dict.fromkeys(("points", "total", "success_time_s"))
    values |= {"duration_s": 10.0, "substeps_s": {}, "interventions": 0, "not_counted": "", "doubts": ()}
    done = progress == 1.0 if success is None else success
    return Score(task, setting, policy, scene, progress, success=done, **values | others)


def test_every_marked_substep_is_a_point():
    said = notes(marks=[("grasped", 2), ("folded", 5)], outcome="failure", setting="few-shot", policy="a", scene="3")
    made = score_episode(episode(said), SUBSTEPS)
    assert (made.points, made.total, made.success, made.counted) == (2, 3, False, True)
    assert made.progress == pytest.approx(2 / 3)
    assert made.substeps_s == {"grasped": 2.0, "folded": 5.0, "laid": None}
    assert (made.task, made.setting, made.policy, made.scene) == ("fold", "few-shot", "a", "3")
    assert (made.success_time_s, made.duration_s, made.doubts) == (None, 10.0, ())


def test_success_takes_until_the_last_mark():
    made = score_episode(
        episode(notes(marks=[("grasped", 2), ("folded", 5), ("laid", 7)], outcome="success")), SUBSTEPS
    )
    assert (made.progress, made.success, made.success_time_s) == (1.0, True, 7.0)


def test_without_an_outcome_success_is_that_everything_is_marked():
    everything = [("grasped", 2), ("folded", 5), ("laid", 7)]
    assert score_episode(episode(notes(marks=everything)), SUBSTEPS).success is True
    assert score_episode(episode(notes(marks=everything[:2])), SUBSTEPS).success is False


def test_a_failure_without_a_mark_is_a_score_of_nothing():
    made = score_episode(episode(notes(outcome="failure")), SUBSTEPS)
    assert (made.points, made.progress, made.success, made.counted) == (0, 0.0, False, True)


@pytest.mark.parametrize(
    "said, why",
    [
        (notes(marks=[("grasped", 2)], outcome="aborted", remark="cable"), "aborted: cable"),
        (notes(outcome="success", failure="disk full"), "the recording FAILED: disk full"),
        (notes(), "nobody scored it"),
    ],
)
def test_what_does_not_count_says_why(said, why):
    made = score_episode(episode(said), SUBSTEPS)
    assert not made.counted and made.not_counted == why
    assert group_scores([made]) == averages([made]) == []


def test_the_simulator_scores_where_nobody_marked():
    made = score_episode(episode(notes(task=""), reported=(0.0, 0.5, 1.0, 0.5)), {})
    assert (made.task, made.scene, made.policy) == ("lift", "seed 4", "model@1")
    assert (made.progress, made.success, made.success_time_s, made.points) == (1.0, True, 2.0, None)


def test_progress_that_is_not_finite_is_no_score():
    made = score_episode(episode(notes(task=""), reported=(float("nan"), 0.5)), {})
    assert made.progress == 0.5
    assert not score_episode(episode(notes(task=""), reported=(float("nan"),)), {}).counted


def test_marks_go_before_the_simulator():
    made = score_episode(episode(notes(marks=[("grasped", 2)]), reported=(0.0, 1.0)), SUBSTEPS)
    assert (made.points, made.success) == (1, False)


def test_interventions_are_counted():
    assert score_episode(episode(notes(outcome="failure"), interventions=2), SUBSTEPS).interventions == 2


@pytest.mark.parametrize(
    "said, doubt",
    [
        (notes(marks=[("grasped", 2)], outcome="success"), "success, but only 1 of 3 substeps"),
        (notes(marks=[("grasped", 2), ("folded", 3), ("laid", 4)], outcome="failure"), "failure, but all 3"),
        (notes(marks=[("ironed", 2)], outcome="failure"), "no substep of task 'fold': ironed"),
    ],
)
def test_what_does_not_fit_together_is_told(said, doubt):
    assert doubt in " ".join(score_episode(episode(said), SUBSTEPS).doubts)


def test_a_known_task_has_the_substeps_of_its_description_and_an_unknown_one_those_marked_anywhere():
    lift = tasks.load("lift")
    said = [
        notes(task="lift", marks=[("lifted", 1)]),
        notes(marks=[("grasped", 1)]),
        notes(marks=[("grasped", 1), ("folded", 2)]),
        notes(task=""),
    ]
    substeps, unknown = task_substeps(said)
    assert substeps == {"lift": tuple(lift.substeps), "fold": ("grasped", "folded")}
    assert unknown == ["fold"]


def test_an_outcome_of_a_task_without_substeps_is_one_point():
    made = score_episode(episode(notes(outcome="success")), {"fold": ()})
    assert (made.points, made.total, made.progress) == (1, 1, 1.0)


@pytest.mark.parametrize(
    "custom, key",
    [
        ({"substeps": "nonsense"}, "substeps"),
        ({"substeps": '[{"time_ns": 1}]'}, "substeps"),
        ({"machine": "[]"}, "machine"),
    ],
)
def test_metadata_that_cannot_be_read_is_named(custom, key):
    with pytest.raises(ValueError, match=f"^{key} is"):
        read_notes(custom)


def test_groups_have_the_hand_computed_statistics():
    scores = [
        score(1.0, interventions=2, success_time_s=4.0),
        score(0.5),
        score(0.0),
        score(0.0, not_counted="aborted"),
        score(0.25, policy="b"),
    ]
    first, second = group_scores(scores)
    assert (first.policy, first.all.n, first.all.successes, first.all.interventions) == ("a", 3, 1, 2)
    assert first.all.progress.value == 0.5
    # All 27 resamples of {0, 1/2, 1}: a mean of 0 or of 1 comes once each, 3.7 %, more than the 2.5 % cut off.
    assert first.all.progress.interval == (0.0, 1.0)
    assert first.all.success.value == pytest.approx(1 / 3)
    assert first.all.success.interval == pytest.approx(wilson_interval(1, 3))
    assert (first.all.success_time_s, first.all.intervened) == (4.0, 1)
    assert (first.undisturbed.n, first.undisturbed.progress.value) == (2, 0.25)
    assert (second.all.n, second.all.progress.interval) == (1, None)


def test_substeps_have_rates_over_the_marked_episodes():
    scores = [
        score(1.0, substeps_s={"grasped": 1.0, "folded": 2.0}),
        score(0.5, substeps_s={"grasped": 1.0, "folded": None}),
        score(0.5),
    ]
    (group,) = group_scores(scores)
    assert (group.all.marked, group.all.substeps) == (2, {"grasped": 1.0, "folded": 0.5})


def test_policies_are_compared_scene_by_scene():
    scores = [
        score(1.0, scene="1"),
        score(0.5, scene="1"),  # a scene's episodes are averaged: 0.75
        score(0.5, scene="2"),
        score(1.0, scene="only a has it"),
        score(0.25, policy="b", scene="1"),
        score(0.0, policy="b", scene="2"),
    ]
    (found,) = differences(scores)
    assert (found.policy, found.other, found.scenes) == ("a", "b", ("1", "2"))
    assert found.progress.value == 0.5  # both scenes differ by 0.5, so there is no spread
    assert found.progress.interval == (0.5, 0.5)


def test_scenes_that_differ_give_the_interval_of_all_their_resamples():
    scores = [score(p, scene=s) for s, p in (("1", 1.0), ("2", 0.0))]
    scores += [score(0.0, policy="b", scene=s) for s in ("1", "2")]
    (found,) = differences(scores)
    # Resamples of the differences {1, 0}: mean 0, 1/2, 1 with 1/4, 1/2, 1/4.
    assert (found.progress.value, found.progress.interval) == (0.5, (0.0, 1.0))


def test_with_less_than_two_common_scenes_all_episodes_are_compared():
    scores = [score(1.0, scene="1"), score(0.5, scene="2"), score(0.5, policy="b", scene="1"), score(0.5, policy="b")]
    (found,) = differences(scores)
    assert (found.scenes, found.progress.value) == ((), 0.25)
    # Of a: 1/2, 3/4, 1 with 1/4, 1/2, 1/4; of b always 1/2.
    assert found.progress.interval == (0.0, 0.5)


def test_one_episode_each_gives_a_difference_without_an_interval():
    (found,) = differences([score(1.0, scene="1"), score(0.5, policy="b", scene="1")])
    assert (found.progress.value, found.progress.interval) == (0.5, None)


def test_only_policies_of_the_same_task_and_setting_are_compared():
    scores = [score(1.0), score(0.0, policy="b", setting="few-shot"), score(0.0, policy="c", task="lift")]
    assert differences(scores) == []
    three = [score(1.0, policy=policy) for policy in "cab"]
    assert [(d.policy, d.other) for d in differences(three)] == [("a", "b"), ("a", "c"), ("b", "c")]


def test_every_task_weighs_the_same_in_the_average():
    scores = [score(1.0, task="fold")] * 6 + [score(0.0, task="lift")] * 2
    (average,) = averages(scores)
    assert (average.tasks, average.progress.value, average.success.value) == (("fold", "lift"), 0.5, 0.5)
    assert average.progress.interval == (0.5, 0.5)
    assert averages([score(1.0, task="fold"), *scores[6:]])[0].progress.interval is None  # a task with one episode


def test_bootstrap_equals_the_enumerated_resamples():
    coin = np.array([0.0, 1.0])
    assert bootstrap_interval(coin) == (0.0, 1.0)
    assert bootstrap_difference(coin, np.zeros(3)) == (0.0, 1.0)
    assert bootstrap_difference(np.zeros(3), coin) == (-1.0, 0.0)
    # The mean of two coins is 0 in 1 of 16 resamples, of three in 1 of 64: less than the 2.5 % that are cut off.
    assert bootstrap_mean_of_means([coin] * 2) == (0.0, 1.0)
    assert bootstrap_mean_of_means([coin] * 3) == pytest.approx((1 / 6, 5 / 6))


def test_a_bootstrap_of_nothing_is_refused():
    for refused in (lambda: bootstrap_difference(np.ones(2), np.array([])), lambda: bootstrap_mean_of_means([])):
        with pytest.raises(ValueError, match="at least one"):
            refused()
