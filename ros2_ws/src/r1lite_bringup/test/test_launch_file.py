"""The launch file under the genuine launch, which a ROS distribution brings."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import fake_nodes
import pytest
from synthetic_bag import SyntheticBag
from test_graph import ROBOT_SHELL

from r1lite_bringup import graph, process_launch, replay
from r1lite_description.share import share

pytest.importorskip("launch_ros", reason="launch and launch_ros come with a ROS distribution, which is not sourced")

LAUNCH_FILE = share("r1lite_bringup") / "launch" / "depthvla.launch.py"
REPLAY_FILE = share("r1lite_bringup") / "launch" / "replay.launch.py"
# As `ros2 launch FILE name:=value` does it.
RUN = """
import sys
from launch import LaunchDescription, LaunchService
from launch.actions import IncludeLaunchDescription

service = LaunchService(argv=sys.argv[2:], noninteractive=False)
arguments = [word.split(":=", 1) for word in sys.argv[2:]]
service.include_launch_description(
    LaunchDescription([IncludeLaunchDescription(sys.argv[1], launch_arguments=arguments)])
)
sys.exit(service.run())
"""

INCLUDING = """
from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument, IncludeLaunchDescription
from launch.substitutions import LaunchConfiguration

def generate_launch_description():
    return LaunchDescription([
        DeclareLaunchArgument("lab"),
        IncludeLaunchDescription({file!r}, launch_arguments=[("model", LaunchConfiguration("model"))]),
    ])
"""
OWN = ("lab", "sigterm_timeout")  # arguments that are not of the graph


@pytest.fixture
def launch(tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}")
    processes = []

    def start(
        behaviours: dict[str, str] | None = None, file: Path = LAUNCH_FILE, describe=graph.graph, **arguments: str
    ) -> tuple[subprocess.Popen, list[graph.Node]]:
        arguments = {"model": str(tmp_path / "model"), **arguments}
        nodes = describe({name: value for name, value in arguments.items() if name not in OWN})
        prefix = fake_nodes.install(tmp_path, [(node.package, node.executable) for node in nodes], behaviours or {})
        search = f"{prefix}{os.pathsep}{os.environ.get('AMENT_PREFIX_PATH', '')}"
        words = [f"{name}:={value}" for name, value in arguments.items()]
        processes.append(
            subprocess.Popen(
                [sys.executable, "-c", RUN, str(file), *words],
                env={**os.environ, "AMENT_PREFIX_PATH": search, "ROS_LOG_DIR": str(tmp_path / "log")},
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                start_new_session=True,
            )
        )
        return processes[-1], nodes

    yield start
    for process in processes:
        process.kill()
        process.communicate()


def press_ctrl_c(process: subprocess.Popen) -> None:
    """As a terminal does: the interrupt reaches launch and every node."""
    os.killpg(process.pid, signal.SIGINT)


def test_launch_starts_exactly_the_graph(launch, tmp_path, monkeypatch):
    for name, value in ROBOT_SHELL.items():
        monkeypatch.setenv(name, value)
    process, nodes = launch(instruction="stack: the 'blocks' # now", record="true", depth="false", seed="-1")
    for node in nodes:
        started_with = fake_nodes.record(tmp_path, node.name)
        in_file = fake_nodes.parameters_of(node.parameter_file)
        assert started_with["parameters"] == {**in_file, **node.parameters}
        assert started_with["remappings"] == [list(pair) for pair in node.remappings]
        assert not ROBOT_SHELL.items() & started_with["environment"].items()
        assert started_with["environment"]["ROS_AUTOMATIC_DISCOVERY_RANGE"] == "LOCALHOST"
    press_ctrl_c(process)
    process.communicate(timeout=60)
    assert {path.stem for path in Path(tmp_path).glob("*.json")} == {node.name for node in nodes}


def test_ctrl_c_ends_every_node_and_exits_with_0(launch, tmp_path):
    process, nodes = launch()
    pids = [fake_nodes.record(tmp_path, node.name)["pid"] for node in nodes]
    press_ctrl_c(process)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 0, output
    assert output.count("goodbye") == len(nodes)
    assert not any(map(fake_nodes.is_running, pids))


@pytest.mark.parametrize("name", ["chunk_executor_node", "simulator_node"])
def test_the_death_of_an_essential_node_ends_everything_with_a_failure(launch, tmp_path, name):
    process, nodes = launch()
    pids = {node.name: fake_nodes.record(tmp_path, node.name)["pid"] for node in nodes}
    os.kill(pids[name], signal.SIGKILL)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 1, output
    assert f"{name}-" in output and "nothing works without it" in output
    assert not any(map(fake_nodes.is_running, pids.values()))


def test_the_death_of_the_policy_leaves_the_executor_alone(launch, tmp_path):
    process, nodes = launch({"chunk_executor_node": "while True: print('tick', flush=True); time.sleep(0.05)"})
    pids = {node.name: fake_nodes.record(tmp_path, node.name)["pid"] for node in nodes}
    os.kill(pids["policy_node"], signal.SIGKILL)
    lines = iter(process.stdout.readline, "")
    assert any("policy_node" in line and "process has died" in line for line in lines)
    for _ in range(5):
        assert any("tick" in line for line in lines)
    press_ctrl_c(process)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 0, output


@pytest.mark.parametrize(("behaviour", "code"), [("print('the end')", 0), ("sys.exit(3)", 1)])
def test_a_replay_that_is_done_ends_everything_and_says_how_it_went(launch, tmp_path, behaviour, code):
    recording = tmp_path / "recording"
    with SyntheticBag(recording) as bag:
        bag.add("/tf", 0.0, bag.make("std_msgs/msg/Float32", data=0.0))
    process, _ = launch(
        {"replay_node": behaviour},
        REPLAY_FILE,
        replay.replay_graph,
        bag=str(recording),
        instruction="wave",
    )
    policy = fake_nodes.record(tmp_path, "policy_node")
    output, _ = process.communicate(timeout=60)
    assert process.returncode == code, output
    assert policy["parameters"]["use_sim_time"] is True
    assert not fake_nodes.is_running(policy["pid"])


def test_a_launch_file_that_includes_it_has_arguments_of_its_own(launch, tmp_path):
    including = tmp_path / "lab.launch.py"
    including.write_text(INCLUDING.format(file=str(LAUNCH_FILE)))
    process, nodes = launch(file=including, lab="left")
    for node in nodes:
        fake_nodes.record(tmp_path, node.name)
    press_ctrl_c(process)
    assert process.communicate(timeout=60) and process.returncode == 0


def test_nodes_have_the_time_to_end_that_up_gives_them_unless_somebody_says_otherwise():
    from launch import LaunchContext
    from launch.utilities import perform_substitutions

    from r1lite_bringup import ros_launch

    (action,) = [ros_launch._action(graph.Node("depthvla_policy", "policy_node", "policy_node"))]
    context = LaunchContext()

    def seconds() -> list[float]:
        return [float(perform_substitutions(context, t)) for t in (action.sigterm_timeout, action.sigkill_timeout)]

    assert seconds() == [process_launch.STOP_LIMITS_S[0][1], process_launch.STOP_LIMITS_S[1][1]]
    context.launch_configurations["sigterm_timeout"] = "60"
    assert seconds()[0] == 60.0


def test_what_launch_itself_takes_is_no_unknown_argument(launch):
    deaf = "signal.signal(signal.SIGINT, signal.SIG_IGN); print('deaf', flush=True); time.sleep(60)"
    process, _ = launch({"policy_node": deaf}, sigterm_timeout="0.2")
    lines = iter(process.stdout.readline, "")
    assert any("deaf" in line for line in lines)
    press_ctrl_c(process)
    output, _ = process.communicate(timeout=60)
    assert "policy_node" in output and "'SIGTERM'" in output


@pytest.mark.parametrize("word", ["device:=tpu", "model:=no-such-model", "robt:=sim"])
def test_a_bad_argument_is_named_and_starts_nothing(tmp_path, word):
    environment = {**os.environ, "ROS_LOG_DIR": str(tmp_path / "log")}
    result = subprocess.run(
        [sys.executable, "-c", RUN, str(LAUNCH_FILE), word], env=environment, capture_output=True, text=True, timeout=60
    )
    assert result.returncode == 1
    assert all(part in result.stdout + result.stderr for part in word.split(":="))
    assert "process started" not in result.stdout + result.stderr
