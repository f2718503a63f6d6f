"""A recording gives back what the live policy saw, to the bit; replayed, it gives the same chunks."""

from __future__ import annotations

import dataclasses
import io
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml

from depthvla_control.refusal import Refusal
from depthvla_evaluation.bags.bag import Bag
from depthvla_evaluation.bags.new_bag import NewBag
from depthvla_evaluation.bags.replay import observations
from depthvla_policy.policy.calibration import Calibration, describe
from depthvla_policy.policy.observation import noise_seed
from r1lite_bringup import graph, replay
from r1lite_description import robot as robot_description

pytestmark = pytest.mark.xdist_group("graph")

pytest.importorskip("rclpy", reason="rclpy is not installed")

ROBOT = robot_description.load()
SEED = 5
WIDE_K = np.array([[150.0, 0.0, 160.0], [0.0, 150.0, 90.0], [0.0, 0.0, 1.0]])
WIDE = Calibration(320, 180, "plumb_bob", WIDE_K, np.array([-0.2, 0.03, 0.0, 0.0, 0.0]), WIDE_K)
CHUNKS = 12


@pytest.fixture(scope="module")
def recording(ros, checkpoint, tmp_path_factory) -> Path:
    """A few seconds of the simulated graph, whose policy draws noise that can be drawn again and rectifies a camera."""
    from depthvla_msgs.msg import ActionChunk

    from depthvla_control.ros import qos
    from r1lite_bringup.process_launch import Launcher

    folder = tmp_path_factory.mktemp("replay")
    bag, calibrated = folder / "bag", folder / "head.yaml"
    calibrated.write_text(yaml.safe_dump(describe(WIDE)))
    parameters = {"noise_seed": SEED, "cameras.head.rectify": True, "cameras.head.calibration_file": str(calibrated)}
    arguments = {"model": str(checkpoint), "record": "true", "bag": str(bag), "instruction": "wave"}
    nodes = [
        dataclasses.replace(node, parameters={**node.parameters, **parameters}) if node.name == "policy_node" else node
        for node in graph.graph(arguments)
    ]
    output = io.StringIO()
    with ros.Probe() as probe, Launcher(nodes, output=output):
        chunks = probe.listen(ActionChunk, "/policy_node/action_chunk", qos.chunks())
        probe.wait_for(lambda: len(chunks) >= CHUNKS, 60.0, f"{CHUNKS} chunks\n{output.getvalue()}")
    return bag


@pytest.fixture
def one_thread():
    """As in the policy's node: sums are then added up in the same order."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def test_the_observations_of_a_recording_are_those_of_the_live_run_to_the_bit(recording, checkpoint, one_thread):
    from depthvla_policy.policy.policy import Policy

    policy = Policy.load(checkpoint, robot=ROBOT)
    compared = 0
    with Bag(recording) as bag:
        for recorded, seen in observations(bag, ROBOT, policy.cameras):
            if isinstance(seen, Refusal):  # the recorder joined streams that were flowing already
                assert compared == 0, seen
                continue
            again = policy.infer(seen, seed=noise_seed(SEED, seen.stamp_ns))
            np.testing.assert_array_equal(again.actions, recorded.chunk.positions)
            compared += 1
    assert compared >= CHUNKS // 2


def test_a_replay_makes_the_same_chunks_of_the_same_observations(recording, checkpoint, tmp_path):
    words = [f"bag:={recording}", f"model:={checkpoint}", f"noise_seed:={SEED}", f"out:={tmp_path}"]
    done = subprocess.run(
        [sys.executable, "-m", "r1lite_bringup.replay", *words], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "open_loop.png").stat().st_size > 10_000
    summary = json.loads((tmp_path / "open_loop.json").read_text())
    assert summary["frames"] > summary["frames_unanswered"]
    assert summary["compared"] > 0
    beside = summary["beside_recorded"]
    assert beside["chunks"] >= CHUNKS // 2
    assert beside["identical"] >= beside["chunks"] - 1, beside
    assert np.shape(summary["by_step_and_joint"]) == (summary["steps"], ROBOT.size)


def play(bag, checkpoint, out, **policy) -> tuple[bool, str]:
    """Whether a replay whose clock may stand still for ten minutes ended, and what it said."""
    from r1lite_bringup.process_launch import Launcher

    changed = {"replay_node": {"answer_limit_s": 600.0}, "policy_node": policy}
    arguments = {"bag": str(bag), "model": str(checkpoint), "out": str(out), "instruction": "wave"}
    nodes = [
        dataclasses.replace(node, parameters={**node.parameters, **changed[node.name]})
        for node in replay.replay_graph(arguments)
    ]
    output = io.StringIO()
    with Launcher(nodes, output=output) as launcher:
        ended = launcher.wait(180.0)
    return ended, output.getvalue()


def test_frames_that_lost_a_partner_are_not_waited_for(recording, checkpoint, tmp_path):
    lost, count = ROBOT.cameras[1].topic, 0
    bag = NewBag(tmp_path / "bag")
    with Bag(recording) as whole:
        numbers = {
            (found.topic, found.msgtype): bag.add_topic(
                found.topic, found.msgtype, encoding=found.encoding, definition=found.definition
            )
            for found in {connection for connection, _, _ in whole.serialised(whole.topics)}
        }
        for connection, time_ns, data in whole.serialised(whole.topics):
            count += connection.topic == lost
            if connection.topic != lost or count % 4:
                bag.write(numbers[connection.topic, connection.msgtype], time_ns, data)
        bag.close(whole.custom_data)
    ended, said = play(tmp_path / "bag", checkpoint, tmp_path / "out")
    assert ended, said
    summary = json.loads((tmp_path / "out/open_loop.json").read_text())
    assert 0 < summary["frames_incomplete"] <= summary["frames_unanswered"] < summary["frames"], said


def test_a_refusal_is_an_answer(recording, checkpoint, tmp_path):
    ended, said = play(recording, checkpoint, tmp_path / "out", instruction="")
    assert ended and "the policy made no chunk from" in said, said


def test_the_policy_of_a_replay_has_the_cameras_of_the_recording(recording, checkpoint, tmp_path):
    arguments = {"bag": str(recording), "model": str(checkpoint)}
    (policy,) = [node for node in replay.replay_graph(arguments) if node.name == "policy_node"]
    assert policy.parameters["cameras.head.rectify"] is True
    (policy,) = [n for n in replay.replay_graph({**arguments, "params_dir": str(tmp_path)}) if n.name == "policy_node"]
    assert not [name for name in policy.parameters if name.startswith("cameras.")]


def test_nothing_that_moves_a_robot_is_played(recording):
    from depthvla_evaluation.nodes.replay_node import SHOWN

    assert not [topic for topic in SHOWN if "motion_target" in topic]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "bag:='' is not allowed"),
        ({"bag": "nowhere"}, "nowhere' does not exist"),
        ({"bag": "here", "rate": "fast"}, "rate:='fast' is not allowed"),
        ({"bag": "here", "tempo": "1"}, "unknown argument 'tempo'"),
    ],
)
def test_a_wrong_argument_is_named(tmp_path, arguments, message):
    arguments = {name: str(tmp_path) if value == "here" else value for name, value in arguments.items()}
    with pytest.raises(graph.ArgumentError, match=message):
        replay.replay_graph(arguments)
