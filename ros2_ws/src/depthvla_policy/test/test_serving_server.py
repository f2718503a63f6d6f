"""The policy server: its chunks are the policy's, and neither bad observations nor bad clients take it down."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import urllib.request

import numpy as np
import pytest
import serving_harness
import tiny_model
from serving_harness import Client, RunningServer, observation
from websockets.exceptions import ConnectionClosedError, ConnectionClosedOK
from websockets.sync.client import connect

from depthvla_policy.policy.observation import Observation
from depthvla_policy.policy.policy import Policy
from depthvla_policy.serve import ServeConfig, load
from depthvla_policy.serving import adapters, protocol
from depthvla_policy.serving.service import Service

SEED = 3


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return tiny_model.save_checkpoint(tmp_path_factory.mktemp("serving") / "tiny")


@pytest.fixture(scope="module")
def policy(checkpoint):
    return Policy.load(checkpoint)


@pytest.fixture(scope="module")
def port(policy):
    with RunningServer(Service(policy, adapters.load("r1lite"), SEED)) as port:
        yield port


@pytest.fixture(scope="module")
def wanted(policy, robot):
    """The policy's own chunk."""
    sent = observation(robot)
    return policy.infer(Observation(0, sent["images"], sent["state"], sent["prompt"]), seed=SEED).actions


def test_a_chunk_is_the_policys_own(port, robot, wanted):
    with Client(port) as client:
        first, second = client.ask(observation(robot)), client.ask(observation(robot))
    assert np.array_equal(first["actions"], wanted) and np.array_equal(second["actions"], wanted)
    assert first["server_timing"]["infer_ms"] > 0 and "prev_total_ms" not in first["server_timing"]
    assert second["server_timing"]["prev_total_ms"] > 0


def test_without_a_seed_the_same_observation_has_other_chunks(policy, robot):
    with RunningServer(Service(policy, adapters.load("r1lite"))) as port, Client(port) as client:
        assert not np.array_equal(*(client.ask(observation(robot))["actions"] for _ in range(2)))


def test_a_client_is_told_first_what_it_talks_to(port, policy, robot):
    with Client(port) as client:
        metadata = client.metadata
    assert metadata["model_id"] == policy.model_id and metadata["adapter"] == "r1lite" and metadata["seed"] == SEED
    assert metadata["cameras"] == ["head", "wrist_left", "wrist_right"]
    assert (metadata["image_size"], metadata["image_fit"]) == (32, "crop")
    assert (metadata["horizon"], metadata["control_rate_hz"]) == (16, 15.0)
    assert metadata["state_names"] == metadata["action_names"] == list(robot.joint_names)
    assert metadata["state_units"] == metadata["action_units"] == (["rad"] * 6 + ["mm"]) * 2
    assert set(metadata["observation"]) == {"images/head", "images/wrist_left", "images/wrist_right", "state", "prompt"}


STATE = np.zeros(14)
PICTURE = serving_harness.picture()


def with_head(robot, picture):
    return observation(robot)["images"] | {"head": picture}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda r: {"images": {"head": PICTURE}}, r"images/wrist_left is missing; there are \['head'\]"),
        (lambda r: {"images": None}, "images/head is missing; there are .'images', 'prompt', 'state'"),
        (lambda r: {"images": with_head(r, PICTURE[0])}, r"images/head has shape \(64, 3\).*must be \(H, W, 3\)"),
        (lambda r: {"images": with_head(r, PICTURE[:0])}, r"images/head has shape \(0, 64, 3\)"),
        (lambda r: {"images": with_head(r, PICTURE[..., :2])}, r"images/head has shape \(36, 64, 2\)"),
        (lambda r: {"images": with_head(r, PICTURE.astype("i4"))}, "images/head .*dtype int32; .*uint8 or float"),
        (lambda r: {"images": with_head(r, PICTURE.astype("f4"))}, "images/head has values from 0 to 254; floats must"),
        (lambda r: {"images": with_head(r, np.full((8, 8, 3), np.nan))}, "images/head has values from nan"),
        (lambda r: {"images": with_head(r, b"jpeg")}, "images/head is of type bytes; it must be an array"),
        (lambda r: {"state": STATE[:13]}, r"state has shape \(13,\) and dtype float64; it must be 14 finite numbers"),
        (lambda r: {"state": STATE.astype(bool)}, "state .*dtype bool; it must be 14"),
        (lambda r: {"state": STATE.astype(str)}, "state .*dtype <U32; it must be 14"),
        (lambda r: {"state": None}, "state .*dtype object; it must be 14"),
        (lambda r: {"state": [[1], [2, 3]]}, "state is not a vector; it must be 14"),
        (lambda r: {"state": np.where(np.arange(14) == 6, np.nan, STATE)}, "state has nan for left_gripper; it must"),
        (lambda r: {"state": np.where(np.arange(14) == 0, np.inf, STATE)}, "state has inf for left_arm_joint1"),
        (lambda r: {"prompt": " "}, "prompt is ' '; it must be a text"),
        (lambda r: {"prompt": 5}, "prompt is 5; it must be a text"),
        (lambda r: {"prompt": "a " * 50}, "at most 20 fit"),
    ],
)
def test_a_bad_observation_is_refused_by_name_and_the_next_one_answered(port, robot, wanted, change, message):
    with Client(port) as client:
        refusal = client.ask(observation(robot, **change(robot)))
        assert isinstance(refusal, str)
        with pytest.raises(ValueError, match=message):
            raise ValueError(refusal)
        assert np.array_equal(client.ask(observation(robot))["actions"], wanted)


def test_what_is_no_observation_is_refused_and_the_next_one_answered(port, robot, wanted):
    with Client(port) as client:
        assert "must be a map, got list" in client.ask([1, 2])
        client.socket.send(b"\xc1")
        assert "not msgpack" in client.receive()
        client.socket.send("text")
        assert "must be bytes" in client.receive()
        assert np.array_equal(client.ask(observation(robot))["actions"], wanted)


def test_a_chunk_that_is_not_finite_never_leaves(policy, robot):
    class Broken:
        def __getattr__(self, name):
            return getattr(policy, name)

        def infer(self, *args, **kwargs):
            prediction = policy.infer(*args, **kwargs)
            prediction.actions[3, 2] = np.nan
            return prediction

    with RunningServer(Service(Broken(), adapters.load("r1lite"))) as port:
        with Client(port) as client:
            assert "the chunk is not finite" in client.ask(observation(robot))
            with pytest.raises(ConnectionClosedError) as closed:
                client.receive()
            assert closed.value.rcvd.code == 1011
        with Client(port) as client:
            assert client.metadata["horizon"] == 16


class Held:
    """A policy whose inference waits until it is let go."""

    def __init__(self, policy):
        self._policy = policy
        self.started, self.go, self.inferences = threading.Event(), threading.Event(), 0

    def __getattr__(self, name):
        return getattr(self._policy, name)

    def infer(self, *args, **kwargs):
        self.inferences += 1
        self.started.set()
        assert self.go.wait(30)
        return self._policy.infer(*args, **kwargs)


def assert_alive(port):
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz", timeout=30) as page:
        assert (page.status, page.read()) == (200, b"OK\n")


@pytest.fixture
def held(policy):
    held = Held(policy)
    with RunningServer(Service(held, adapters.load("r1lite"), SEED)) as port:
        yield held, port
        held.go.set()


def test_clients_are_served_in_turn_and_each_gets_its_own_chunk(held, policy, robot):
    held, port = held
    images = observation(robot)["images"]
    states = [robot.position_min + (robot.position_max - robot.position_min) * part for part in (0.4, 0.5, 0.6)]
    seen = [Observation(0, images, state, serving_harness.PROMPT) for state in states]
    wanted = [policy.infer(each, seed=SEED).actions for each in seen]
    clients = [Client(port) for _ in states]
    for client, state in zip(clients, states, strict=True):
        client.send(observation(robot, state=state))
    assert held.started.wait(30) and held.inferences == 1
    held.go.set()
    for client, chunk in zip(clients, wanted, strict=True):
        assert np.array_equal(client.receive()["actions"], chunk)
        client.socket.close()


def test_a_client_that_goes_in_mid_inference_or_while_it_waits_costs_the_next_one_nothing(held, robot, wanted):
    held, port = held
    working, waiting = Client(port), Client(port)
    working.send(observation(robot))
    assert held.started.wait(30)
    waiting.send(observation(robot))
    assert_alive(port)  # a whole exchange later than the observation, which by now waits for its turn
    waiting.socket.close()
    working.socket.socket.shutdown(socket.SHUT_RDWR)  # without a farewell
    with Client(port) as client:  # reconnects while the inference still runs
        client.send(observation(robot))
        held.go.set()
        assert np.array_equal(client.receive()["actions"], wanted)
    assert held.inferences == 2, "the one that ran, and the one that somebody waited for"


def test_the_server_lives_and_greets_while_the_policy_works(held, robot):
    held, port = held
    with Client(port) as client:
        client.send(observation(robot))
        assert held.started.wait(30)
        assert_alive(port)
        with Client(port) as other:
            assert other.metadata["horizon"] == 16
        held.go.set()
        assert client.receive()["actions"].shape == (16, 14)


def test_an_oversized_message_ends_its_connection_only(port, robot, wanted):
    with Client(port) as client:
        with pytest.raises((ConnectionClosedError, ConnectionResetError, BrokenPipeError)):
            client.socket.send(b"\x00" * (protocol.MAX_MESSAGE_BYTES + 1))
            client.receive()
    with Client(port) as client:
        assert np.array_equal(client.ask(observation(robot))["actions"], wanted)


def test_a_message_may_come_in_pieces(port, robot, wanted):
    data = protocol.pack(observation(robot))
    with Client(port) as client:
        client.socket.send(data[start : start + 1000] for start in range(0, len(data), 1000))
        assert np.array_equal(client.receive()["actions"], wanted)


def test_a_client_that_sends_half_a_message_and_falls_silent_holds_nobody_up(port, robot, wanted):
    silent = Client(port)
    silent.socket.socket.sendall(b"\x82\xfe\x40\x00abcd half")  # 16 kB are announced
    with Client(port) as client:
        assert np.array_equal(client.ask(observation(robot))["actions"], wanted)
    silent.socket.socket.shutdown(socket.SHUT_RDWR)


def test_a_client_that_reads_late_gets_every_answer(port, robot, wanted):
    with Client(port) as late, Client(port) as client:
        for _ in range(5):
            late.send(observation(robot))
        assert np.array_equal(client.ask(observation(robot))["actions"], wanted)
        for _ in range(5):
            assert np.array_equal(late.receive()["actions"], wanted)


def test_clients_are_told_that_the_server_goes(policy):
    running = RunningServer(Service(policy, adapters.load("r1lite")))
    with running as port:
        client = Client(port)
    with pytest.raises(ConnectionClosedOK) as closed:
        client.receive()
    assert closed.value.rcvd.code == 1001


def serve(*arguments):
    return subprocess.Popen(
        [sys.executable, "-m", "depthvla_policy.serve", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def test_a_signal_ends_the_command_with_zero(checkpoint):
    servers = {number: serve("--policy", checkpoint, "--port", 0) for number in (signal.SIGINT, signal.SIGTERM)}
    for number, server in servers.items():
        try:
            line = server.stdout.readline()
            assert "for r1lite clients at ws://127.0.0.1:" in line, server.stderr.read()
            with connect(line.split("at ")[1].split(";")[0], compression=None) as client:
                assert protocol.unpack(client.recv(30))["adapter"] == "r1lite"
                server.send_signal(number)
                output, errors = server.communicate(timeout=30)
            assert server.returncode == 0 and "Traceback" not in errors, errors
        finally:
            server.kill()
            server.communicate()


def test_a_checkpoint_that_is_not_there_is_said_with_one():
    server = serve("--policy", "nowhere")
    output, errors = server.communicate(timeout=60)
    assert server.returncode == 1 and errors == "serve: checkpoint nowhere does not exist\n"


def test_a_checkpoint_that_does_not_fit_the_adapter_is_refused_before_its_weights_are_read(checkpoint, tmp_path):
    (tmp_path / "config.json").write_text((checkpoint / "config.json").read_text())
    with pytest.raises(ValueError, match="adapter 'libero' needs a checkpoint with the 8 state and action entries"):
        load(ServeConfig(tmp_path, adapter="libero"))
