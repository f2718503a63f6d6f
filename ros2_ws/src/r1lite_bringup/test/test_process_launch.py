from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
from pathlib import Path

import fake_nodes
import pytest
import yaml

from r1lite_bringup import graph, process_launch
from r1lite_bringup.graph import Node

QUICK = ((signal.SIGINT, 5.0), (signal.SIGTERM, 0.5), (signal.SIGKILL, 5.0))
TWO_NODES = (Node("fakes", "node", "arms", essential=True), Node("fakes", "node", "thinker"))
IGNORE_INTERRUPT = "signal.signal(signal.SIGINT, signal.SIG_IGN); print('deaf', flush=True); time.sleep(60)"


@pytest.fixture
def launch(tmp_path, monkeypatch):
    """Starts nodes with the given behaviours; gives the launcher and what it prints."""
    launchers = []

    def start(*nodes: Node, stop_limits_s=QUICK, **behaviours: str) -> tuple[process_launch.Launcher, io.StringIO]:
        executables = {(node.package, node.executable) for node in nodes}
        prefix = fake_nodes.install(tmp_path, sorted(executables), behaviours)
        monkeypatch.setenv("AMENT_PREFIX_PATH", f"{prefix}{os.pathsep}{os.environ.get('AMENT_PREFIX_PATH', '')}")
        output = io.StringIO()
        launchers.append(process_launch.Launcher(nodes, output=output, stop_limits_s=stop_limits_s))
        launchers[-1].start()
        for node in nodes:
            fake_nodes.record(tmp_path, node.name)
        return launchers[-1], output

    yield start
    for launcher in launchers:
        launcher.stop()


def test_each_line_carries_the_name_of_its_node(launch):
    launcher, output = launch(*TWO_NODES)
    launcher.stop()
    assert "[arms] hello from arms\n" in output.getvalue()
    assert "[thinker] goodbye from thinker\n" in output.getvalue()


def test_stopping_interrupts_every_node_once_and_is_no_failure(launch):
    launcher, output = launch(*TWO_NODES)
    assert not launcher.wait(0.0)
    launcher.stop()
    assert launcher.wait(0.0)
    assert launcher.exit_codes == {"arms": 0, "thinker": 0}, output.getvalue()
    assert launcher.failed is None
    assert output.getvalue().count("goodbye") == 2


def test_a_node_that_is_not_essential_is_reported_and_the_others_go_on(launch):
    launcher, output = launch(*TWO_NODES)
    launcher.process("thinker").kill()
    fake_nodes.wait_until(lambda: "thinker" in launcher.exit_codes, "the death was not noticed")
    fake_nodes.wait_until(lambda: "thinker ended by SIGKILL" in output.getvalue(), "the death was not reported")
    assert launcher.process("arms").poll() is None
    assert launcher.failed is None


def test_the_end_of_an_essential_node_ends_everything(launch):
    launcher, output = launch(*TWO_NODES)
    launcher.process("arms").kill()
    assert launcher.wait(20.0)
    assert launcher.failed == "arms"
    assert launcher.exit_codes == {"arms": -signal.SIGKILL, "thinker": 0}
    assert "arms ended by SIGKILL; nothing works without it" in output.getvalue()


def test_a_node_that_finishes_ends_everything_without_a_failure(launch, tmp_path):
    player = Node("fakes", "node", "player", essential=True, finishes=True)
    play = f"while not os.path.exists({str(tmp_path / 'thinker.json')!r}): time.sleep(0.01)"
    launcher, output = launch(player, TWO_NODES[1], player=play)
    assert launcher.wait(20.0)
    assert launcher.failed is None
    assert launcher.exit_codes == {"player": 0, "thinker": 0}, output.getvalue()


def test_a_node_that_should_finish_and_fails_is_a_failure(launch):
    launcher, _ = launch(Node("fakes", "node", "player", essential=True, finishes=True), player="sys.exit(3)")
    assert launcher.wait(20.0)
    assert launcher.failed == "player"


def test_an_exit_code_is_reported(launch):
    launcher, output = launch(*TWO_NODES, thinker="sys.exit('no such model')")
    fake_nodes.wait_until(lambda: "thinker ended with exit code 1" in output.getvalue(), "the end was not reported")
    assert "[thinker] no such model\n" in output.getvalue()


def test_the_policy_and_the_recorder_have_the_time_that_they_take_to_end(ros):
    from depthvla_policy.nodes import policy_node

    interrupt, limit_s = process_launch.STOP_LIMITS_S[0]
    assert interrupt == signal.SIGINT and limit_s > policy_node.STOP_TIMEOUT_S


def test_a_node_that_ignores_interrupts_is_terminated(launch):
    launcher, output = launch(
        *TWO_NODES, thinker=IGNORE_INTERRUPT, stop_limits_s=((signal.SIGINT, 0.5), (signal.SIGTERM, 10.0))
    )
    fake_nodes.wait_until(lambda: "deaf" in output.getvalue(), "the node did not get that far")
    launcher.stop()
    assert launcher.exit_codes == {"arms": 0, "thinker": -signal.SIGTERM}
    assert "thinker still running 0.5 s after SIGINT" in output.getvalue()


def test_an_interrupt_while_signals_are_sent_leaves_no_node_behind(launch, monkeypatch):
    launcher, output = launch(*TWO_NODES, stop_limits_s=((signal.SIGINT, 10.0), (signal.SIGKILL, 10.0)))
    send, sent = launcher._send, []

    def interrupted(number: signal.Signals) -> None:
        sent.append(number)
        if len(sent) == 1:
            raise KeyboardInterrupt
        send(number)

    monkeypatch.setattr(launcher, "_send", interrupted)
    launcher.stop()
    assert sent == [signal.SIGINT, signal.SIGKILL]
    assert set(launcher.exit_codes.values()) == {-signal.SIGKILL}, output.getvalue()


def test_a_node_that_ignores_everything_is_killed_with_its_children(launch, tmp_path):
    behaviour = (
        "import subprocess; child = subprocess.Popen(['sleep', '60']); signal.signal(signal.SIGTERM, signal.SIG_IGN); "
        f"open({str(tmp_path / 'child')!r}, 'w').write(str(child.pid)); " + IGNORE_INTERRUPT
    )
    limits_s = ((signal.SIGINT, 0.2), (signal.SIGTERM, 0.2), (signal.SIGKILL, 10.0))
    launcher, output = launch(*TWO_NODES, thinker=behaviour, stop_limits_s=limits_s)
    fake_nodes.wait_until(lambda: "deaf" in output.getvalue(), "the node did not get that far")
    launcher.stop()
    assert launcher.exit_codes["thinker"] == -signal.SIGKILL
    child = int((tmp_path / "child").read_text())
    fake_nodes.wait_until(lambda: not fake_nodes.is_running(child), "the node's own child outlives it")


@pytest.mark.parametrize(("package", "executable"), [("nowhere", "node"), ("fakes", "absent")])
def test_nothing_is_started_when_an_executable_is_missing(tmp_path, monkeypatch, package, executable):
    monkeypatch.setenv("AMENT_PREFIX_PATH", str(fake_nodes.install(tmp_path, [("fakes", "node")], {})))
    with pytest.raises(LookupError, match=f"'{package}'.*'{executable}'"):
        process_launch.Launcher([TWO_NODES[0], Node(package, executable, "lost")])


def test_parameters_keep_their_types_and_remappings_are_passed_on(launch, tmp_path):
    file = tmp_path / "arms.param.yaml"
    file.write_text(yaml.safe_dump({"arms": {"ros__parameters": {"rate_hz": 15.0}}}))
    parameters = {"text": "stack: the 'blocks' # now", "looks_boolean": "true", "flag": True, "seed": 7, "share": 0.5}
    launch(Node("fakes", "node", "arms", parameter_file=file, parameters=parameters, remappings=(("~/a", "/b/a"),)))
    started_with = fake_nodes.record(tmp_path, "arms")
    assert started_with["parameters"] == {"rate_hz": 15.0, **parameters}
    assert started_with["remappings"] == [["~/a", "/b/a"]]


GRAPH = [
    ("r1lite_sim", "simulator_node"),
    ("depthvla_control", "chunk_executor_node"),
    ("depthvla_policy", "policy_node"),
]


@pytest.fixture
def command(tmp_path):
    """The real command over fake nodes."""
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}")
    commands = []

    def start(*words: str, under: str = "", **behaviours: str) -> subprocess.Popen:
        """under: a Python program that runs the command as its child."""
        prefix = fake_nodes.install(tmp_path, GRAPH, behaviours)
        search = f"{prefix}{os.pathsep}{os.environ.get('AMENT_PREFIX_PATH', '')}"
        above = ["-c", under] if under else []
        commands.append(
            subprocess.Popen(
                [sys.executable, *above, "-m", "r1lite_bringup.process_launch", f"model:={tmp_path / 'model'}", *words],
                env={**os.environ, "AMENT_PREFIX_PATH": search},
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
        )
        return commands[-1]

    yield start
    for process in commands:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_interrupted_command_ends_its_nodes_and_exits_with_0(command, tmp_path, number):
    process = command()
    pids = [fake_nodes.record(tmp_path, name)["pid"] for _, name in GRAPH]
    process.send_signal(number)
    output, _ = process.communicate(timeout=30)
    assert process.returncode == 0, output
    assert output.count("goodbye") == 3
    assert not any(map(fake_nodes.is_running, pids))


def test_a_command_whose_own_parent_is_killed_ends_its_nodes(command, tmp_path):
    process = command(under="import subprocess, sys; subprocess.run([sys.executable, *sys.argv[1:]])")
    pids = [fake_nodes.record(tmp_path, name)["pid"] for _, name in GRAPH]
    process.kill()
    fake_nodes.wait_until(lambda: not any(map(fake_nodes.is_running, pids)), "nodes outlive the command's parent")


def test_the_command_fails_when_the_executor_dies(command, tmp_path):
    process = command()
    pids = {name: fake_nodes.record(tmp_path, name)["pid"] for _, name in GRAPH}
    os.kill(pids["chunk_executor_node"], signal.SIGKILL)
    output, _ = process.communicate(timeout=30)
    assert process.returncode == 1, output
    assert not any(map(fake_nodes.is_running, pids.values()))


def test_a_second_interrupt_kills_what_does_not_end(command, tmp_path):
    process = command(policy_node="signal.signal(signal.SIGTERM, signal.SIG_IGN); " + IGNORE_INTERRUPT)
    for _, name in GRAPH:
        fake_nodes.record(tmp_path, name)
    lines = iter(process.stdout.readline, "")
    assert any("deaf" in line for line in lines)
    process.send_signal(signal.SIGINT)
    assert any("goodbye from chunk_executor_node" in line for line in lines)
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=9)  # less than the patience for a single interrupt
    assert "policy_node ended by SIGKILL" in output
    assert process.returncode == 0


@pytest.mark.parametrize(
    ("word", "complaint"),
    [
        ("robot:=gazebo", "robot:='gazebo' is not allowed; allowed: sim, real"),
        ("instrution:=x", "unknown argument 'instrution'"),
        ("robot=sim", "'robot=sim' is not an argument"),
    ],
)
def test_a_bad_argument_starts_nothing(command, tmp_path, word, complaint):
    process = command(word)
    output, _ = process.communicate(timeout=30)
    assert process.returncode == 2
    assert complaint in output
    assert not list(Path(tmp_path).glob("*.json"))


def test_show_args_lists_every_argument(capsys):
    assert process_launch.main(["--show-args"]) == 0
    shown = capsys.readouterr().out
    for argument in graph.ARGUMENTS:
        assert f"'{argument.name}'" in shown
        assert argument.description in shown
