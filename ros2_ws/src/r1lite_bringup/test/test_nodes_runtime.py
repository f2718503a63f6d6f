"""What every node's process does with its arguments, and what it says of subscriptions that hear nothing."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from r1lite_bringup import graph

EXECUTABLES = {f"{package}.nodes.{name}": name for name, package in graph.NODES.items()}
LEADER = "r1lite_sim.nodes.leader_node"


def call(ros, module, *words):
    paths = [*ros.SOURCE_PATHS]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([*paths, os.environ.get("PYTHONPATH", "")])}
    return subprocess.run([sys.executable, "-m", module, *words], env=env, capture_output=True, text=True, timeout=120)


@pytest.mark.parametrize("module", EXECUTABLES)
def test_help_prints_usage_and_parameters_and_starts_no_node(ros, module):
    said = call(ros, module, "--help")
    assert said.returncode == 0 and not said.stderr
    assert said.stdout.startswith(f"usage: {EXECUTABLES[module]} [--help] [--ros-args")
    assert "autostart" in said.stdout and "robot_file" in said.stdout or "executor" in said.stdout


def test_help_has_the_parameters_that_depend_on_the_robot(ros):
    assert (
        "cameras.head.topic"
        in call(ros, "depthvla_policy.nodes.policy_node", "-h", "--ros-args", "-p", "model:=x").stdout
    )
    assert "leader.left.arm_topic" in call(ros, "depthvla_control.nodes.chunk_executor_node", "-h").stdout


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["--hlep"], "unknown arguments ['--hlep']; allowed: --help, and what follows --ros-args"),
        (["--ros-args", "--parameter", "x"], "unknown ROS arguments ['--parameter', 'x']"),
        (["--ros-args", "-p", "autostart"], "Failed to parse ROS arguments: Couldn't parse parameter override rule"),
        (["--ros-args", "--params-file", "/nowhere"], "Couldn't parse params file: '--params-file /nowhere'"),
    ],
)
def test_arguments_that_make_no_sense_are_named_and_start_no_node(ros, words, text):
    said = call(ros, LEADER, *words)
    assert said.returncode == 2 and text in said.stderr and "Traceback" not in said.stderr


@pytest.mark.parametrize("single_first", [True, False])
def test_a_single_parameter_overrides_a_file_wherever_it_stands(ros, tmp_path, single_first):
    """`-p autostart:=true` before a file with `autostart: false` would leave the node waiting without a word."""
    file = tmp_path / "file.yaml"
    file.write_text("leader_node:\n  ros__parameters:\n    autostart: false\n    seed: 7\n")
    single, files = ["-p", "autostart:=true"], ["--params-file", str(file)]
    words = [*single, *files] if single_first else [*files, *single]
    process = subprocess.Popen(
        [sys.executable, "-m", LEADER, "--ros-args", *words, "-r", "__node:=leader_node"],
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    try:
        said = next(line for line in process.stderr if "leader arms" in line)
        assert said.rstrip().endswith("seed 7")
    finally:
        process.terminate()
        assert process.wait(60) == 0
        process.stderr.close()


def test_files_keep_their_order_among_themselves(ros):
    from depthvla_control.ros.runtime import _files_first

    words = "node --ros-args -p a:=1 --params-file x -r b:=c --params-file y -- --flag".split()
    assert _files_first(words) == [
        *("node", "--ros-args", "--params-file", "x", "--params-file", "y", "--"),
        *("--ros-args", "-p", "a:=1", "-r", "b:=c", "--", "--flag"),
    ]
    assert _files_first(["node", "--params-file", "x"]) == ["node", "--params-file", "x"]


def test_a_publisher_that_cannot_be_heard_is_logged_and_in_diagnostics_while_it_is_there(ros, robot):
    from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
    from sensor_msgs.msg import JointState

    from depthvla_control.ros import qos

    topic = robot.limbs[0].topics.arm_feedback
    parameters = {"autostart": True, "sensor_reliability": "reliable"}
    with (
        ros.Probe("vendor") as vendor,
        ros.NodeProcess("depthvla_control.nodes.chunk_executor_node", parameters) as node,
    ):
        heard = vendor.listen(DiagnosticArray, "/diagnostics")

        def newest():
            found = [s for message in heard for s in message.status if s.name.startswith("chunk_executor_node")]
            return found[-1] if found else DiagnosticStatus()

        publisher = vendor.publisher(JointState, topic, qos.stream("best_effort", 1))
        text = f"{topic} is not received from /vendor (Best effort publisher and reliable subscription)"
        node.wait_for_output(text)
        vendor.wait_for(lambda: newest().level == DiagnosticStatus.WARN and newest().message == text, what="a warning")
        vendor.node.destroy_publisher(publisher)
        vendor.wait_for(lambda: newest().level == DiagnosticStatus.OK, what="no warning")
        assert node.stop() == 0


def test_a_thread_that_dies_or_hangs_is_told_and_one_that_ends_is_not():
    from depthvla_control.worker import Worker

    def die():
        raise SystemExit("enough")

    now = [0.0]
    dead, ended = Worker("disk", die), Worker("disk", lambda: None)
    for worker in (dead, ended):
        worker.start()
        assert worker.join(10.0)
    assert dead.problem == "the disk thread died: SystemExit: enough" and "Traceback" in dead.traceback
    assert not ended.problem
    alive = Worker("simulation", lambda: None, 5.0, lambda: now[0])
    alive.beat()
    now[0] = 5.0
    assert not alive.problem
    now[0] = 5.1
    assert alive.problem == "the simulation thread hangs: no sign of life for 5.1 s"
    alive.beat()
    assert not alive.problem
