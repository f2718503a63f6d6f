"""The demo as a user runs it: real nodes over real DDS, with a policy that knows nothing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from types import SimpleNamespace

import pytest

pytestmark = pytest.mark.xdist_group("graph")


def demo(*words: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "r1lite_bringup.demo", *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=170, env=dict(os.environ))


def test_the_demo_records_reports_and_says_honestly_that_the_task_was_not_done(ros, checkpoint, tmp_path):
    out = tmp_path / "demo"
    out.mkdir()
    (out / "earlier").touch()
    ended = demo("--model", str(checkpoint), "--duration-s", "4", "--out", str(out), "--seed", "11")
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "success          no" in ended.stdout and str(out / "report.html") in ended.stdout
    assert len(list(tmp_path.glob("demo-*/earlier"))) == 1

    summary = json.loads((out / "summary.json").read_text())
    assert summary["success"] is False and summary["seed"] == 11
    assert summary["chunks"] > 0 and summary["commands_sent"] > 0 and summary["chunk_rate_hz"] > 0
    assert set(summary["depth_abs_rel_by_camera"]) == {"head", "wrist_left", "wrist_right"}
    assert summary["depth_images"] > 0
    assert summary["model_id"].startswith("tiny@")
    for name in ("report.html", "film.png", "depth_1.png", "joints.png", "bag/metadata.yaml", "log.txt"):
        assert (out / name).stat().st_size > 0, name


def test_a_run_of_somebody_else_in_the_same_domain_is_left_alone(ros, checkpoint, tmp_path):
    with ros.Probe("chunk_executor_node"):
        ended = demo("--model", str(checkpoint), "--out", str(tmp_path / "demo"))
    assert ended.returncode == 1
    assert "chunk_executor_node of another run" in ended.stderr and "ROS_DOMAIN_ID" in ended.stderr


@pytest.fixture
def talkative(ros):
    """A node that says what the nodes of a run say; the messages may be changed, and left out, while it speaks."""
    from depthvla_msgs.msg import ExecutorStatus, PolicyStatus, TaskProgress

    from depthvla_control.ros import qos

    with ros.Probe("talkative") as probe:
        says = {
            "/chunk_executor_node/status": ExecutorStatus(mode=ExecutorStatus.POLICY, chunks_accepted=5),
            "/policy_node/status": PolicyStatus(instruction="lift the red block"),
            "/simulator_node/task_progress": TaskProgress(progress=1.0, success=True),
        }
        publishers = {topic: probe.publisher(type(message), topic, qos.status()) for topic, message in says.items()}
        probe.every(0.05, lambda: [publishers[topic].publish(message) for topic, message in list(says.items())])
        yield says


def test_a_task_that_is_done_ends_the_run_early(talkative, monkeypatch, capsys):
    from r1lite_bringup import demo

    running = SimpleNamespace(poll=lambda: None)
    monkeypatch.setattr(demo, "AFTER_SUCCESS_S", 0.1)
    with demo.watching() as watch:
        watch.wait_for_chunks(running, ["talkative"])
        watch.follow(running, ["talkative"], duration_s=1e6)
    told = capsys.readouterr().out
    assert "instruction  lift the red block" in told and "done" in told


def test_a_node_that_says_nothing_any_more_ends_the_run(talkative, monkeypatch):
    from r1lite_bringup import demo

    running = SimpleNamespace(poll=lambda: None)
    monkeypatch.setattr(demo, "SILENCE_LIMIT_S", 0.5)
    with demo.watching() as watch:
        watch.wait_for_chunks(running, ["talkative"])
        talkative["/simulator_node/task_progress"].success = False
        del talkative["/policy_node/status"]
        with pytest.raises(demo.DemoError, match="policy_node has said nothing"):
            watch.follow(running, ["talkative"], duration_s=1e6)


def test_what_cannot_be_is_refused_before_anything_is_moved_or_started(ros, tmp_path):
    out = tmp_path / "demo"
    out.mkdir()
    for words, complaint in ((["--model", "nothing"], "model"), (["--duration-s", "0"], "duration_s is 0.0")):
        ended = demo("--out", str(out), *words)
        assert ended.returncode == 1
        assert complaint in ended.stderr
    assert list(tmp_path.iterdir()) == [out]
