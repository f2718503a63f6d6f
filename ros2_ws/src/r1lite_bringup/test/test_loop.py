"""The whole graph with its real nodes over real DDS: simulator, policy, executor."""

from __future__ import annotations

import dataclasses
import io
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import fake_nodes
import numpy as np
import pytest

from depthvla_evaluation.bags.bag import Bag
from depthvla_evaluation.bags.notes import UNFINISHED
from r1lite_bringup import graph
from r1lite_bringup.process_launch import Launcher
from r1lite_description import robot as robot_description

pytestmark = pytest.mark.xdist_group("graph")

START_S = 90.0  # torch is imported and MuJoCo is compiled, on a machine that may have other things to do
ROBOT = robot_description.load()


class Watch:
    """What the graph says, heard from outside."""

    def __init__(self, probe) -> None:
        from depthvla_msgs.msg import ActionChunk, ExecutorStatus, PolicyStatus
        from sensor_msgs.msg import JointState

        from depthvla_control.ros import qos

        self.probe = probe
        self.chunks = probe.listen(ActionChunk, "/policy_node/action_chunk", qos.chunks())
        self.policy = probe.listen(PolicyStatus, "/policy_node/status", qos.status())
        self.executor = probe.listen(ExecutorStatus, "/chunk_executor_node/status", qos.status())
        best_effort = qos.stream("best_effort", 10)
        self.commands = [probe.listen(JointState, limb.topics.arm_command, best_effort) for limb in ROBOT.limbs]
        self.grippers = [probe.listen(JointState, limb.topics.gripper_command, best_effort) for limb in ROBOT.limbs]
        self.feedback = [probe.listen(JointState, limb.topics.arm_feedback, best_effort) for limb in ROBOT.limbs]

    def wait(self, condition, what: str, timeout_s: float = START_S):
        def everything() -> str:
            return f"{what}; policy: {self.policy[-1:]}; executor: {self.executor[-1:]}"

        try:
            return self.probe.wait_for(condition, timeout_s, what)
        except AssertionError as error:
            raise AssertionError(f"{error}: {everything()}") from None

    def wait_until_the_policy_moves_the_arms(self) -> None:
        from depthvla_msgs.msg import ExecutorStatus

        self.wait(lambda: len(self.chunks) >= 3, "chunks")
        self.wait(lambda: self.executor[-1].mode == ExecutorStatus.POLICY, "an executor that follows the policy")
        self.wait(lambda: all(len(commands) >= 15 for commands in self.commands + self.grippers), "commands")

    def wait_until_the_executor_holds(self):
        from depthvla_msgs.msg import ExecutorStatus

        return self.wait(lambda: self.executor[-1].mode == ExecutorStatus.HOLD and self.executor[-1], "HOLD", 20.0)


def positions(messages) -> np.ndarray:
    return np.array([message.position[:6] for message in messages])


def recorded(bag: Path, required_topic: str) -> bool:
    """Whether the recorder has taken a message of this topic, as it notes beside the bag it is writing."""
    notes = bag / UNFINISHED
    return notes.exists() and required_topic not in json.loads(notes.read_text())["topics_missing"]


def nanoseconds(message) -> int:
    return message.header.stamp.sec * 10**9 + message.header.stamp.nanosec


@pytest.fixture
def watch(ros):
    with ros.Probe() as probe:
        yield Watch(probe)


@pytest.fixture
def launch(checkpoint):
    """Starts the simulated graph, with parameters changed by node name."""
    started = []

    def start(**parameters: dict) -> tuple[Launcher, io.StringIO]:
        nodes = [
            dataclasses.replace(node, parameters={**node.parameters, **parameters.get(node.name, {})})
            for node in graph.graph({"model": str(checkpoint)})
        ]
        output = io.StringIO()
        started.append((Launcher(nodes, output=output), output))
        started[-1][0].start()
        return started[-1]

    yield start
    for launcher, output in started:
        launcher.stop()
        print(output.getvalue())  # pytest shows it when the test has failed


@pytest.fixture(params=["up", "launch"])
def command(request, checkpoint, tmp_path):
    """The graph started by each of the two ways, as a terminal would."""
    if request.param == "launch":
        pytest.importorskip("launch_ros", reason="launch and launch_ros come with a ROS distribution")
        from test_launch_file import LAUNCH_FILE, RUN

        words = ["-c", RUN, str(LAUNCH_FILE)]
    else:
        words = ["-m", "r1lite_bringup.process_launch"]
    with open(tmp_path / "output", "w+") as output:
        process = subprocess.Popen(
            [
                *(sys.executable, *words, f"model:={checkpoint}", "instruction:=wave: with 'both' arms"),
                *("record:=true", f"bag:={tmp_path / 'bag'}"),
            ],
            env={**os.environ, "ROS_LOG_DIR": str(tmp_path / "log")},
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        yield process, lambda: (tmp_path / "output").read_text()
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGTERM)
            process.wait(30)


def test_the_loop_closes_and_an_interrupt_ends_it_cleanly(watch, command):
    process, output = command
    watch.wait_until_the_policy_moves_the_arms()
    assert watch.chunks[-1].instruction == "wave: with 'both' arms"
    assert watch.chunks[-1].sequence > watch.chunks[0].sequence
    watch.wait(lambda: all(watch.feedback), "feedback of both arms")
    # A simulated arm that is told nothing stands still, so that what moves was commanded.
    start = [positions(feedback[:1])[0] for feedback in watch.feedback]
    watch.wait(lambda: np.ptp(positions(watch.commands[0]), axis=0).max() > 0.02, "commands that move", 30.0)
    watch.wait(lambda: np.abs(positions(watch.feedback[0][-1:])[0] - start[0]).max() > 0.01, "arms that move", 30.0)
    for commands, feedback in zip(watch.commands, watch.feedback, strict=True):
        assert np.all(np.isfinite(positions(commands)))
        assert np.abs(positions(commands[-1:]) - positions(feedback[-1:])).max() < 0.3
    os.killpg(process.pid, signal.SIGINT)
    assert process.wait(60) == 0, output()
    assert "Traceback" not in output()
    assert "exit code" not in output(), "each node ends with 0"


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_nodes_whose_launcher_is_killed_disarm_and_finish_what_they_do(watch, command, tmp_path, number):
    process, output = command
    watch.wait(lambda: watch.executor and watch.executor[-1].mode != watch.executor[-1].DISARMED, "armed arms")
    # The recorder finds publishers one after the other: this test's own subscription says nothing of its.
    watch.wait(lambda: recorded(tmp_path / "bag", "/chunk_executor_node/status"), "a bag with the executor's status")
    watch.wait(lambda: watch.policy, "a policy that speaks")
    threads = Path(f"/proc/{process.pid}/task").glob("*/children")
    nodes = [int(pid) for children in threads for pid in children.read_text().split()]
    assert len(nodes) == 4
    process.send_signal(number)
    # `up` ends its nodes on SIGTERM; `ros2 launch` ends at once.
    watch.wait(lambda: not any(map(fake_nodes.is_running, nodes)), "the end of every node", 60.0)
    # Its last message may come too late to be delivered, and nobody reads what it prints any more.
    logs = [path.read_text() for path in (tmp_path / "log").rglob("*.log")]
    assert any("DISARMED: deactivated" in text for text in logs), logs
    with Bag(tmp_path / "bag") as bag:  # which refuses one that was not closed
        assert "/chunk_executor_node/status" in bag.topics


def test_killing_the_policy_holds_the_arms(watch, launch):
    launcher, output = launch()
    watch.wait_until_the_policy_moves_the_arms()
    watch.wait(lambda: watch.executor[-1].steps_left >= 4, "the middle of a chunk")
    killed_s = time.monotonic()
    launcher.process("policy_node").kill()
    hold = watch.wait_until_the_executor_holds()
    held_s = time.monotonic()
    assert "policy" in hold.cause, hold
    watch.wait(lambda: len(watch.commands[0].since(held_s)) >= 15, "a stream of commands that goes on")
    for commands, feedback in zip(watch.commands, watch.feedback, strict=True):
        held = positions(commands.since(held_s + 0.2))
        assert np.ptp(held, axis=0).max() < 1e-9, "a held pose does not change"
        steps = np.abs(np.diff(positions(commands.since(killed_s - 1.0)), axis=0))
        assert steps.max() < ROBOT.command_velocity[:6].max() * 3 * ROBOT.period_s, "holding is no jump"
        assert np.ptp(positions(feedback[-20:]), axis=0).max() < 0.01
        assert np.abs(positions(feedback[-1:])[0] - held[-1]).max() < 0.1
    assert launcher.failed is None
    assert "policy_node ended by SIGKILL; the other nodes keep running" in output.getvalue()


def test_a_camera_that_stops_stops_the_chunks_and_is_named(watch, launch):
    from sensor_msgs.msg import CompressedImage

    from depthvla_control.ros import qos

    camera, limit_s = ROBOT.camera("wrist_left"), 0.25
    relayed = []
    profile = qos.stream("best_effort", 5)
    publisher = watch.probe.publisher(CompressedImage, "/relay/wrist_left", profile)
    connected = True

    def relay(message: CompressedImage) -> None:
        if connected:
            relayed.append(nanoseconds(message))
            publisher.publish(message)

    watch.probe.node.create_subscription(CompressedImage, camera.topic, relay, profile)
    launch(policy_node={"cameras.wrist_left.topic": "/relay/wrist_left", "camera_max_age_s": limit_s})
    watch.wait_until_the_policy_moves_the_arms()

    connected = False
    what = f"a policy that says that wrist_left is older than {limit_s} s"
    watch.wait(lambda: re.search(f"wrist_left is .* old .limit {limit_s}", watch.policy[-1].reason), what, 20.0)
    assert not watch.policy[-1].producing
    watch.wait_until_the_executor_holds()
    made_since = nanoseconds(watch.chunks[-1]) - relayed[-1]
    assert made_since < limit_s * 1e9, "the newest chunk was made from images within the age limit"

    count = len(watch.chunks)
    connected = True
    watch.wait(lambda: len(watch.chunks) > count, "chunks after the camera is back", 20.0)
    watch.wait(lambda: watch.policy[-1].producing, "a policy that says so")


def test_the_death_of_the_executor_ends_everything(watch, launch):
    launcher, output = launch()
    watch.wait_until_the_policy_moves_the_arms()
    launcher.process("chunk_executor_node").kill()
    assert launcher.wait(30.0), output.getvalue()
    assert launcher.failed == "chunk_executor_node"
    assert launcher.exit_codes == {"simulator_node": 0, "policy_node": 0, "chunk_executor_node": -signal.SIGKILL}
