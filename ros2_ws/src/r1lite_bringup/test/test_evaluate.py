"""The evaluation command: seeds in simulated time and through the real node graph, and what is made of them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from depthvla_evaluation.bags.bag import Bag
from depthvla_evaluation.bags.notes import read_notes
from depthvla_evaluation.rollouts import results
from depthvla_evaluation.rollouts.rollout import EpisodeResult
from r1lite_bringup import evaluate
from r1lite_bringup.evaluate import EvaluateConfig

pytestmark = pytest.mark.xdist_group("graph")


def test_a_seed_through_the_graph_is_scored_and_its_recording_goes_to_the_report(ros, checkpoint, tmp_path, capsys):
    from r1lite_sim.envs import TaskEnv

    out = tmp_path / "runs"
    words = f"--through ros --policy {checkpoint} --seeds 1 --first-seed 7 --time-limit-s 3 --setting tiny --no-depth"
    words += f" --out {out} --task-options colour=random side=random"
    assert evaluate.main(words.split()) == 0
    found = json.loads((out / "results.json").read_text())
    (row,) = found["episodes"]
    assert (row["seed"], row["bag"], row["recording_failed"], row["success"]) == (7, "seed_7", "", False)
    scene = TaskEnv("lift", task_options={"colour": "random", "side": "random"})
    scene.simulation.reset(7)
    task = scene.simulation.task
    scene.close()
    assert (task.colour, task.side) != ("red", "right")  # or the seed shows nothing
    assert row["instruction"] == task.instruction
    assert row["options"] == {"colour": task.colour, "side": task.side}
    assert row["substeps"] == dict.fromkeys(("reached", "grasped", "lifted"))
    assert 40 <= row["steps"] <= 60 and row["chunks"] > 0
    assert found["environment"] == "r1lite_sim/Lift-v0" and found["through"] == "ros"
    assert found["model_id"].startswith("tiny@")

    with Bag(out / "seed_7") as bag:
        notes = read_notes(bag.custom_data)
        told = {chunk.instruction for _, _, chunk in bag.messages(["/policy_node/action_chunk"])}
    assert told == {task.instruction}
    assert (notes.task, notes.setting, notes.scene, notes.outcome) == ("lift", "tiny", "seed 7", "failure")
    assert notes.policy == found["model_id"] and not notes.failure
    report = out / "report"
    assert str(report / "report.html") in capsys.readouterr().out
    (episode,) = json.loads((report / "summary.json").read_text())["episodes"]
    assert (episode["name"], episode["bag"]) == ("seed_7", str(out / "seed_7"))


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["--task-options", "colour=pink"], "colour is 'pink'"),
        (["--task-options", "size=1"], "task option size=1"),
        (["--time-limit-s", "0"], "time_limit_s is 0.0"),
        (["--policy", "nothing"], "model:='nothing'"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_started(ros, tmp_path, capsys, words, complaint):
    assert evaluate.main(["--through", "ros", "--out", str(tmp_path / "runs"), *words]) == 1
    assert complaint in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


def test_recordings_are_not_overwritten(ros, checkpoint, tmp_path, capsys):
    (tmp_path / "seed_0").mkdir()
    assert evaluate.main(["--through", "ros", "--policy", str(checkpoint), "--out", str(tmp_path)]) == 1
    assert "is not empty" in capsys.readouterr().err


def test_success_counts_from_when_it_lasts(ros):
    from depthvla_msgs.msg import TaskProgress

    from depthvla_control.ros.messages import time_message
    from r1lite_bringup.evaluate_episode import held_s

    def heard(*done: bool) -> list[TaskProgress]:
        messages = [TaskProgress(success=value) for value in done]
        for index, message in enumerate(messages):
            message.header.stamp = time_message(10**9 + index * 200_000_000)
        return messages

    assert held_s([]) == 0.0
    assert held_s(heard(True, True, True, False)) == 0.0
    assert held_s(heard(True, False, True, True, True)) == pytest.approx(0.4)


def test_substeps_are_done_when_the_simulator_says_so(ros):
    from depthvla_msgs.msg import ExecutorStatus, TaskProgress

    from depthvla_control.ros.messages import time_message
    from r1lite_bringup.evaluate_episode import substep_steps

    def at(message, step):
        message.header.stamp = time_message(10**9 + step * 66_666_667)
        return message

    status = [at(ExecutorStatus(ticks=500 + step), step) for step in range(1, 40)]
    names = ("reached", "grasped", "lifted")
    seen = ((0, ()), (6, ("reached",)), (9, ("reached",)), (12, names))
    progress = [at(TaskProgress(done=list(done)), step) for step, done in seen]
    assert substep_steps(names, progress[:3], status) == {"reached": 5, "grasped": None, "lifted": None}
    assert substep_steps(names, progress, status) == {"reached": 5, "grasped": 11, "lifted": 11}


@pytest.mark.parametrize(
    ("task", "words", "options"),
    [
        ("lift", (), {"colour": "red", "side": "right"}),
        ("touch", ("side=left",), {"colour": "random", "side": "left"}),
        ("table_bussing", (), {}),
    ],
)
def test_an_option_that_is_left_out_is_the_one_of_the_simulated_time(ros, task, words, options):
    from r1lite_bringup.evaluate_graph import scene_options

    assert scene_options(task, words) == options


def test_a_scene_that_is_not_the_seeds_is_an_error(ros):
    from r1lite_bringup.evaluate_graph import EvaluationError, Scenes

    scenes = Scenes("touch", {"colour": "random", "side": "random"})
    try:
        with pytest.raises(EvaluationError, match="seed 3 is 'touch the .*; the graph staged 'touch the moon'"):
            scenes.options(3, "touch the moon")
    finally:
        scenes.close()


@pytest.mark.parametrize(
    "settings, complaint",
    [
        ({"seeds": 0}, "seeds is 0"),
        ({"workers": 0}, "workers 0"),
        ({"video_seeds": -1}, "video_seeds -1"),
        ({"through": "ros", "execute": 2, "videos": Path("films")}, "execute, videos: not with --through ros"),
        ({"out": Path("out")}, "out: only with --through ros"),
    ],
)
def test_a_wrong_setting_is_named(settings, complaint):
    with pytest.raises(ValueError, match=complaint):
        EvaluateConfig(**settings)


@pytest.mark.parametrize(
    "words, complaint",
    [
        (["--policy", "nothing"], "model:='nothing' is not allowed"),
        (["--baseline", "do_nothing", "--task-options", "a=1", "a=2"], "task option a comes twice"),
    ],
)
def test_a_wrong_request_is_named_before_anything_runs(words, complaint, capsys):
    assert evaluate.main(words) == 1
    assert complaint in capsys.readouterr().err


def test_baselines_stand_beside_the_policy_in_results_and_table(monkeypatch, tmp_path):
    monkeypatch.setattr(evaluate, "_model_id", lambda folder: "some@model")
    done_by = {"none": 1.0, "do_nothing": 0.0, "shuffled_cameras": 0.25, "wrong_instruction": 0.5}

    def run(policy, task, seeds, config, **_):
        assert (policy is None) == (config.baseline == "do_nothing")
        return [EpisodeResult(seed, "lift", progress=done_by[config.baseline]) for seed in seeds]

    monkeypatch.setattr(evaluate, "run_episodes", run)
    found = evaluate.evaluate(EvaluateConfig(baseline="all", seeds=2, json=tmp_path / "all.json"))
    assert results.read(tmp_path / "all.json")["baselines"].keys() == found["baselines"].keys()
    assert found["progress"] == 1.0
    assert {name: part["progress"] for name, part in found["baselines"].items()} == {
        name: progress for name, progress in done_by.items() if name != "none"
    }
    rows = [line.split() for line in results.text(found).splitlines()[-5:]]
    assert [row[0] for row in rows[1:]] == ["policy", "do_nothing", "shuffled_cameras", "wrong_instruction"]


def test_the_command_runs_scenes_in_workers_and_writes_the_results(tmp_path, capsys):
    pytest.importorskip("r1lite_sim")
    path = tmp_path / "results" / "nothing.json"
    words = f"--baseline do_nothing --task lift --seeds 1 --first-seed 3 --workers 1 --json {path}"
    assert evaluate.main(words.split()) == 0
    found = json.loads(path.read_text())
    assert [row["seed"] for row in found["episodes"]] == [3]
    assert found["success_rate"] == 0.0 and found["settings"]["baseline"] == "do_nothing"
    assert "success   0.0%" in capsys.readouterr().out


def test_an_evaluation_makes_its_report_and_keeps_its_results_in_it(tmp_path, monkeypatch, capsys):
    out, films = tmp_path / "out", tmp_path / "films"

    def run(policy, task, seeds, config, *, videos, video_seeds, **_):
        assert config.baseline == "do_nothing" and videos == films
        films.mkdir()
        episodes = [EpisodeResult(seed, "lift", progress=0.5, steps=15) for seed in seeds]
        for episode in episodes[:video_seeds]:
            episode.kept["video"] = str(films / f"seed_{episode.seed}.mp4")
            Path(episode.kept["video"]).touch()
        return episodes

    monkeypatch.setattr(evaluate, "run_episodes", run)
    words = f"--baseline do_nothing --seeds 2 --first-seed 5 --videos {films} --video-seeds 1 --report {out}"
    assert evaluate.main(words.split()) == 0
    assert str(out / "report.html") in capsys.readouterr().out
    rows = results.read(out / "results.json")["episodes"]
    assert [row.get("video") for row in rows] == [str(films / "seed_5.mp4"), None]
    assert 'href="../films/seed_5.mp4"' in (out / "report.html").read_text()


def test_two_results_that_are_compared_have_a_report_as_well(tmp_path, capsys):
    for name, progress in (("a", 1.0), ("b", 0.5)):
        episodes = [EpisodeResult(seed, "lift the red block", progress=progress, steps=15) for seed in (0, 1)]
        about = {"policy": name, "model_id": f"{name}@1", "environment": "r1lite_sim/Lift-v0", "settings": {}}
        results.write(tmp_path / f"{name}.json", results.collect(about, episodes))
    words = ["--compare", str(tmp_path / "a.json"), str(tmp_path / "b.json"), "--report", str(tmp_path / "out")]
    assert evaluate.main(words) == 0
    assert "a@1 - b@1" in capsys.readouterr().out
    assert not (tmp_path / "out/results.json").exists()
