"""Results of evaluations in the comparison of episodes: what a row becomes, and what stands beside what."""

from __future__ import annotations

import json
from collections.abc import Collection
from pathlib import Path

import numpy as np
import pytest
from synthetic_bag import SyntheticBag

from depthvla_evaluation.bags.notes import EpisodeNotes
from depthvla_evaluation.report import build as report
from depthvla_evaluation.report import episode_report, figures, simulated
from depthvla_evaluation.rollouts import results
from depthvla_evaluation.rollouts.rollout import EpisodeResult


@pytest.fixture(autouse=True)
def coarse(monkeypatch):
    monkeypatch.setattr(figures, "DPI", 30)


def evaluated(progress: dict[int, float], *, model="small@1", policy="models/small", through="simulation", **settings):
    """Of the task lift with the substeps near and lifted, 30 steps an episode; lifted after 15 where all was done."""
    episodes = [
        EpisodeResult(
            seed,
            "lift the red block",
            success=value == 1.0,
            progress=value,
            substeps={"near": 6, "lifted": 15 if value == 1.0 else None},
            steps=30,
            chunks=3,
            inference_s=[0.08, 0.12],
            latency_steps=[] if through == "ros" else [1, 1, 3],
        )
        for seed, value in progress.items()
    ]
    about = {"policy": policy, "model_id": model, "environment": "r1lite_sim/Lift-v0", "through": through}
    return results.collect({**about, "settings": settings}, episodes)


def standing(progress: dict[int, float], **settings) -> dict:
    return evaluated(progress, model=None, policy=None, baseline="do_nothing", **settings)


def compared(*found: dict, recorded: Collection[str] = ()) -> dict:
    """Name -> episode, of files 0.json, 1.json, ..."""
    runs = [simulated.Run(f"{number}.json", Path(f"{number}.json"), each) for number, each in enumerate(found)]
    return simulated.compared_episodes(runs, Path("out"), recorded)


def written(path: Path, found: dict) -> Path:
    results.write(path, found)
    return path


def policies(*found: dict) -> list[str]:
    return list(dict.fromkeys(episode.score.policy for episode in compared(*found).values()))


def test_a_row_becomes_a_score_in_seconds():
    episodes = compared(evaluated({3: 1.0, 4: 0.5}))
    done, half = episodes["0.json seed 3"], episodes["0.json seed 4"]
    score = done.score
    assert (score.task, score.setting, score.policy, score.scene) == ("lift", "", "small@1", "seed 3")
    assert (score.progress, score.success, score.duration_s) == (1.0, True, 2.0)
    assert score.substeps_s == {"near": 0.4, "lifted": 1.0} and score.success_time_s == 1.0
    assert half.score.substeps_s == {"near": 0.4, "lifted": None} and half.score.success_time_s is None
    assert half.score.success is False and half.score.counted
    assert done.inference_s == pytest.approx(0.1)
    np.testing.assert_allclose(done.chunk_latency_s * 15, [1, 1, 3])
    assert done.started is None and done.made.endswith("UTC")


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"task_options": ["side=left", "colour=blue"]}, "colour=blue side=left"),
        ({"execute": 4, "latency_steps": 0, "strategy": "blend", "depth_every": 1}, ""),
        ({"latency_steps": None, "execute": 8}, "execute 8, latency measured"),
        ({"latency_steps": 1, "strategy": "replace"}, "latency 1 step, strategy replace"),
        ({"setting": "few-shot", "task_options": ["side=left"], "time_limit_s": 20.0}, "few-shot, side=left"),
    ],
)
def test_a_setting_is_the_task_options_and_what_is_not_the_default(settings, words):
    assert simulated.setting_words(settings) == words


@pytest.mark.parametrize(
    ("environment", "task"),
    [
        ("r1lite_sim/Lift-v0", "lift"),
        ("r1lite_sim/TableBussing-v0", "table_bussing"),
        ("other/Lift-v0", "other/Lift-v0"),
        ("r1lite_sim/Lift-v1", "r1lite_sim/Lift-v1"),
    ],
)
def test_a_task_has_the_name_that_recordings_have(environment, task):
    assert simulated.task_name(environment) == task


def test_a_policy_is_named_by_its_model_and_by_its_folder_where_models_are_equal():
    assert policies(evaluated({0: 1.0}), evaluated({0: 1.0}, model="small@2")) == ["small@1", "small@2"]
    assert policies(evaluated({0: 1.0}), evaluated({0: 1.0}, policy="out/again")) == ["small", "again"]
    assert policies(evaluated({0: 1.0}), evaluated({1: 1.0}, policy="/elsewhere/small")) == ["small@1"]
    assert policies(evaluated({0: 1.0}), evaluated({0: 1.0}, through="ros")) == ["small@1", "small@1 through ROS"]


def test_a_baseline_has_its_own_name_and_the_policys_where_several_have_it():
    first = evaluated({0: 0.5}, baseline="shuffled_cameras")
    second = evaluated({0: 0.5}, baseline="shuffled_cameras", model="big@1")
    assert policies(first) == ["shuffled_cameras"]
    assert policies(first, second) == ["shuffled_cameras of small@1", "shuffled_cameras of big@1"]


def test_doing_nothing_counts_once_a_scene_whoever_it_stood_beside():
    episodes = compared(standing({0: 0.1, 1: 0.0}), standing({1: 0.0, 2: 0.0}), standing({0: 0.0}, latency_steps=2))
    assert [(e.score.policy, e.score.setting, e.score.scene) for e in episodes.values()] == [
        ("do_nothing", "", "seed 0"),
        ("do_nothing", "", "seed 1"),
        ("do_nothing", "", "seed 2"),
        ("do_nothing", "latency 2 steps", "seed 0"),
    ]


def test_the_same_seed_with_another_instruction_is_pointed_out():
    other = evaluated({0: 1.0, 1: 1.0}, model="small@2")
    other["episodes"][1]["instruction"] = "lift the blue block"
    doubts = {name: episode.score.doubts for name, episode in compared(evaluated({0: 1.0, 1: 1.0}), other).items()}
    assert "'lift the blue block', not 'lift the red block'" in doubts.pop("1.json seed 1")[0]
    assert not any(doubts.values())


def test_a_video_is_linked_from_the_page_only_where_there_is_one(tmp_path):
    found = evaluated({0: 1.0, 1: 1.0, 2: 1.0})
    for row in found["episodes"][:2]:
        row["video"] = str(tmp_path / f"my films/seed_{row['seed']}.mp4")
    (tmp_path / "my films").mkdir()
    (tmp_path / "my films/seed_0.mp4").touch()
    made = report.write_comparison([written(tmp_path / "a.json", found)], tmp_path / "out")
    page = made.html.read_text()
    assert '<a href="../my%20films/seed_0.mp4">a.json seed 0</a>' in page
    assert page.count("<a ") == 1 and "a.json seed 1" in page


def test_results_with_baselines_are_compared_scene_by_scene(tmp_path, capsys):
    found = evaluated({0: 1.0, 1: 0.5, 2: 1.0})
    found["baselines"] = {"do_nothing": standing({0: 0.0, 1: 0.5, 2: 0.0})}
    path = written(tmp_path / "lift.json", found)
    assert report.main([str(path), "--out", str(tmp_path / "out")]) == 0
    assert "do_nothing - small@1" in capsys.readouterr().out
    summary = json.loads((tmp_path / "out/summary.json").read_text())
    (difference,) = summary["differences"]
    assert difference["scenes"] == ["seed 0", "seed 1", "seed 2"]
    assert difference["progress"]["value"] == pytest.approx(-2 / 3)
    groups = {group["policy"]: group["all"] for group in summary["groups"]}
    assert groups["small@1"]["substeps"] == {"near": 1.0, "lifted": pytest.approx(2 / 3)}
    assert groups["small@1"]["success_time_s"] == 1.0
    timing = summary["timing"]["small@1"]
    assert timing["inference_ms"] == pytest.approx(100.0)
    assert timing["chunk_latency_ms"]["p50"] == pytest.approx(1e3 / 15) and not timing["executor_jitter_ms"]
    assert [episode["name"] for episode in summary["episodes"]][2:4] == [
        "lift.json seed 2",
        "lift.json do_nothing seed 0",
    ]
    assert summary["episodes"][0]["results"] == str(path) and summary["episodes"][0]["bag"] is None
    assert (tmp_path / "out/progress.png").exists()


def test_recorded_and_simulated_episodes_of_the_same_seeds_are_pairs(tmp_path, monkeypatch):
    monkeypatch.setattr(episode_report, "_draw", lambda *_: {})
    bags = []
    for seed in (0, 1):
        notes = EpisodeNotes("lift", "lift the red block", "", "small", scene=f"seed {seed}")
        notes.end("failure")
        bags.append(tmp_path / f"seed_{seed}")
        with SyntheticBag(bags[-1], notes.custom_data()) as bag:
            bag.chunk(0.0, 0.1, 1, inference_s=0.04)
            bag.progress(0.5, 0.25, success=False)
            bag.tick(1.0)
    path = written(tmp_path / "a.json", evaluated({0: 1.0, 1: 0.5}))
    summary = report.write_comparison([*bags, path], tmp_path / "out", video=False).summary
    (difference,) = summary["differences"]
    assert (difference["policy"], difference["other"]) == ("small", "small@1")
    assert difference["scenes"] == ("seed 0", "seed 1")
    assert difference["progress"]["value"] == pytest.approx(-0.5)
    inference_ms = {policy: row["inference_ms"] for policy, row in summary["timing"].items()}
    assert inference_ms == pytest.approx({"small": 42.0, "small@1": 100.0})
    assert summary["episodes"][0]["page"] == "seed_0/report.html" and summary["episodes"][2]["page"] is None


def test_rows_are_never_taken_together_with_recordings_of_the_same_policy():
    episodes = compared(evaluated({0: 1.0}), standing({0: 0.0}), recorded=["small@1"])
    assert {episode.score.policy for episode in episodes.values()} == {"small@1 in simulated time", "do_nothing"}


def test_through_ros_the_latency_is_not_known_and_a_lost_recording_is_told():
    found = evaluated({0: 1.0}, through="ros")
    found["episodes"][0]["recording_failed"] = "disk full"
    (episode,) = compared(found).values()
    assert episode.chunk_latency_s.size == 0 and episode.score.counted
    assert episode.score.doubts == ("Its recording FAILED: disk full.",)


def test_results_written_before_latencies_and_times_were_counted_are_read(tmp_path):
    found = evaluated({0: 1.0})
    del found["made"], found["episodes"][0]["chunks_by_latency"]
    made = report.write_comparison([written(tmp_path / "old.json", found)], tmp_path / "out")
    assert made.summary["episodes"][0]["made"] is None
    assert "<header><h1>Policies compared</h1><p>small@1</p></header>" in made.html.read_text()


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda row: row.pop("steps"), "an episode of bad.json do_nothing has no steps"),
        (
            lambda row: row.update(progress=float("nan")),
            "progress of bad.json do_nothing seed 0 is nan; allowed: 0 to 1",
        ),
    ],
)
def test_a_file_with_a_wrong_row_is_left_out_and_named(tmp_path, capsys, change, complaint):
    bad = evaluated({0: 1.0})
    bad["baselines"] = {"do_nothing": standing({0: 0.0})}
    change(bad["baselines"]["do_nothing"]["episodes"][0])
    paths = [written(tmp_path / "bad.json", bad), written(tmp_path / "good.json", evaluated({0: 1.0}))]
    missing = tmp_path / "missing.json"
    assert report.main([*map(str, (*paths, missing)), "--out", str(tmp_path / "out")]) == 1
    complaints = capsys.readouterr().err
    assert complaint in complaints and str(missing) in complaints
    summary = json.loads((tmp_path / "out/summary.json").read_text())
    assert [episode["name"] for episode in summary["episodes"]] == ["good.json seed 0"]


def test_results_are_never_overwritten_by_their_summary(tmp_path, capsys):
    path = written(tmp_path / "summary.json", evaluated({0: 1.0}))
    before = path.read_text()
    assert report.main([str(path), "--out", str(tmp_path)]) == 1
    assert "the summary would be written over" in capsys.readouterr().err
    assert path.read_text() == before
