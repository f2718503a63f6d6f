"""Seeds through the real node graph, recorded and scored, with a policy that knows nothing."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest

from depthvla_evaluation.bags.bag import Bag
from depthvla_evaluation.bags.notes import read_notes

pytestmark = pytest.mark.xdist_group("graph")


def test_a_seed_through_the_graph_is_scored_and_its_recording_goes_to_the_report(
    ros, checkpoint, tmp_path, monkeypatch, capsys
):
    from r1lite_bringup import evaluate
    from r1lite_sim.envs import TaskEnv

    out, reported = tmp_path / "runs", []

    def write_comparison(bags, folder, *, video):
        reported.extend(bags)
        return SimpleNamespace(html=folder / "report.html")

    monkeypatch.setattr(evaluate.report, "write_comparison", write_comparison)
    words = f"--policy {checkpoint} --seeds 1 --first-seed 7 --time-limit-s 3 --setting tiny --no-depth --out {out}"
    assert evaluate.main([*words.split(), "--task-options", "colour=random", "side=random"]) == 0
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

    assert reported == [out / "seed_7"]
    with Bag(out / "seed_7") as bag:
        notes = read_notes(bag.custom_data)
        told = {chunk.instruction for _, _, chunk in bag.messages(["/policy_node/action_chunk"])}
    assert told == {task.instruction}
    assert (notes.task, notes.setting, notes.scene, notes.outcome) == ("lift", "tiny", "seed 7", "failure")
    assert notes.policy == found["model_id"] and not notes.failure
    assert "report.html" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["--seeds", "0"], "seeds is 0"),
        (["--task-options", "colour=pink"], "colour is 'pink'"),
        (["--task-options", "size=1"], "task option size=1"),
        (["--time-limit-s", "0"], "time_limit_s is 0.0"),
        (["--policy", "nothing"], "model:='nothing'"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_started(ros, tmp_path, capsys, words, complaint):
    from r1lite_bringup import evaluate

    assert evaluate.main(["--out", str(tmp_path / "runs"), *words]) == 1
    assert complaint in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


def test_recordings_are_not_overwritten(ros, checkpoint, tmp_path, capsys):
    from r1lite_bringup import evaluate

    (tmp_path / "seed_0").mkdir()
    assert evaluate.main(["--policy", str(checkpoint), "--out", str(tmp_path)]) == 1
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
    ("words", "options"),
    [
        (["--task", "lift"], {"colour": "red", "side": "right"}),
        (["--task", "touch", "--task-options", "side=left"], {"colour": "random", "side": "left"}),
        (["--task", "table_bussing"], {}),
    ],
)
def test_an_option_that_is_left_out_is_the_one_of_the_simulated_time(ros, words, options):
    import tyro

    from r1lite_bringup import evaluate

    assert evaluate._checked(tyro.cli(evaluate.EvaluateConfig, args=words))[0] == options


def test_a_scene_that_is_not_the_seeds_is_an_error(ros):
    from r1lite_bringup.evaluate import EvaluationError, Scenes

    scenes = Scenes("touch", {"colour": "random", "side": "random"})
    try:
        with pytest.raises(EvaluationError, match="seed 3 is 'touch the .*; the graph staged 'touch the moon'"):
            scenes.options(3, "touch the moon")
    finally:
        scenes.close()
