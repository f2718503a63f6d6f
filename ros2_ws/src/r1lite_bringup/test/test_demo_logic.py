"""What the demo decides and says, without running anything."""

from __future__ import annotations

import importlib.util
import os
import signal
import sys

import pytest

pytest.importorskip("rclpy", reason="rclpy is not installed")
pytest.importorskip("depthvla_msgs", reason="depthvla_msgs is not built or not sourced")

from depthvla_msgs.msg import ExecutorStatus, PolicyStatus, TaskProgress

from r1lite_bringup import demo

GOOD = {
    "chunks": 60,
    "commands_sent": 1200,
    "commands_recorded": 1200,
    "mode_s": {"HOLD": 2.0, "POLICY": 20.0},
    "depth_images": 90,
}


def test_an_earlier_run_is_renamed_and_never_lost(tmp_path):
    out = tmp_path / "demo"
    assert demo.move_aside(out) is None
    kept = []
    for number in range(3):
        out.mkdir()
        (out / "report.html").write_text(str(number))
        os.utime(out, (1_700_000_000, 1_700_000_000))
        kept.append(demo.move_aside(out))
        assert not out.exists()
    assert len(set(kept)) == 3
    assert [(path / "report.html").read_text() for path in kept] == ["0", "1", "2"]
    assert all(path.name.startswith("demo-2023111") for path in kept)


def test_ros2_launch_is_taken_where_it_is_installed(monkeypatch):
    monkeypatch.setattr(demo.shutil, "which", lambda name: "/opt/ros/bin/ros2" if name == "ros2" else None)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    words = demo.start_words({"robot": "sim", "seed": "3", "instruction": ""})
    assert words == ["ros2", "launch", "r1lite_bringup", "depthvla.launch.py", "robot:=sim", "seed:=3"]


def test_the_own_launcher_is_taken_where_ros2_launch_is_not_complete(monkeypatch):
    monkeypatch.setattr(demo.shutil, "which", lambda name: "/opt/ros/bin/ros2")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "launch_ros" else object())
    assert demo.start_words({"robot": "sim"}) == [sys.executable, "-m", "r1lite_bringup.process_launch", "robot:=sim"]


def test_a_complete_run_misses_nothing():
    assert demo.missing_pieces(GOOD) == []


@pytest.mark.parametrize(
    "change, complaint",
    [
        ({"chunks": 0}, "no action chunk"),
        ({"commands_sent": None}, "the executor sent no command"),
        ({"commands_recorded": 0}, "no command was recorded"),
        ({"mode_s": {"HOLD": 20.0}}, "never in command"),
        ({"mode_s": {"POLICY": 5.0, "FAULT": 1.0}}, "went to FAULT"),
        ({"depth_images": 0}, "no predicted depth"),
    ],
)
def test_each_missing_piece_is_named(change, complaint):
    assert [complaint in piece for piece in demo.missing_pieces({**GOOD, **change})] == [True]


def test_a_machine_that_is_too_slow_is_told():
    fast = {"ticks": 1000, "missed_ticks": 20, "chunk_rate_hz": 3.0}
    assert demo.too_slow(fast) == ""
    assert demo.too_slow({**fast, "missed_ticks": 21}) == "21 of 1000 control ticks were missed"
    assert demo.too_slow({**fast, "chunk_rate_hz": 1.5}) == "1.5 chunks a second instead of 3.75"


def test_the_line_tells_mode_rate_progress_and_what_keeps_the_policy_from_working():
    seen = demo.Seen()
    assert "simulator ..." in seen.starting()
    seen.take(
        ExecutorStatus(
            mode=ExecutorStatus.POLICY, chunks_accepted=21, chunks_refused=3, commands_sent=400, missed_ticks=2
        )
    )
    seen.take(PolicyStatus(reason="camera head is late", instruction="lift the red block"))
    seen.take(TaskProgress(progress=0.5))
    assert "executor up" in seen.starting() and "camera head is late" in seen.starting()
    line = seen.working(5.0)
    for part in (
        "POLICY",
        "chunks 21 (4.0 Hz)",
        "refused 3",
        "commands 400",
        "missed ticks 2",
        "progress  50%",
        "camera head is late",
    ):
        assert part in line
    seen.take(TaskProgress(progress=1.0, success=True))
    seen.take(TaskProgress(progress=1.0, success=False))
    assert "done" in seen.working(6.0)


def test_a_node_that_fell_silent_is_named(monkeypatch):
    seen = demo.Seen()
    for time_s, message in ((10.0, PolicyStatus()), (11.0, ExecutorStatus()), (12.0, TaskProgress())):
        monkeypatch.setattr(demo.time, "monotonic", lambda now=time_s: now)
        seen.take(message)
    assert seen.silent(since_s=10.0) == []
    assert seen.silent(since_s=10.5) == ["policy_node"]
    assert demo.Seen().silent(since_s=0.0) == ["chunk_executor_node", "policy_node", "simulator_node"]


def test_without_a_terminal_lines_are_written_now_and_then(monkeypatch, capsys):
    now = iter([10.0, 11.0, 14.0])
    monkeypatch.setattr(demo.time, "monotonic", lambda: next(now))
    line = demo.Line(every_s=3.0)
    for text in ("one", "two", "three"):
        line.show(text)
    line.end()
    assert capsys.readouterr().out.splitlines() == ["one", "three", "three"]


def test_processes_are_interrupted_and_a_bad_end_is_an_error(tmp_path):
    log = tmp_path / "log.txt"
    ready = "import signal, sys, time; print('ready', flush=True)"
    with demo.running(
        [sys.executable, "-c", f"{ready}\ntry: time.sleep(60)\nexcept KeyboardInterrupt: pass"], log
    ) as process:
        _wait_for_text(log, "ready")
    assert process.returncode == 0
    with pytest.raises(demo.DemoError, match="exit code 3"):
        with demo.running([sys.executable, "-c", f"{ready}\nsys.exit(3)"], log) as process:
            process.wait(20)
    assert demo.tail(log) == "ready"


def test_a_process_that_does_not_end_is_killed(tmp_path, monkeypatch):
    monkeypatch.setattr(demo, "STOP_LIMIT_S", 0.2)
    log = tmp_path / "log.txt"
    deaf = (
        "import signal, time; signal.signal(signal.SIGINT, signal.SIG_IGN); print('deaf', flush=True); time.sleep(60)"
    )
    with pytest.raises(demo.DemoError, match=f"exit code -{signal.SIGKILL.value}"):
        with demo.running([sys.executable, "-c", deaf], log):
            _wait_for_text(log, "deaf")


def _wait_for_text(path, text: str) -> None:
    import fake_nodes

    fake_nodes.wait_until(lambda: text in path.read_text(), f"{text!r} was not written")
