"""For tests of the policy server: the real one on a thread of its own, a client, observations and checkpoints."""

from __future__ import annotations

import asyncio
import dataclasses
import threading
from pathlib import Path

import numpy as np
import tiny_model
from websockets.sync.client import connect

from depthvla_policy.policy import checkpoint
from depthvla_policy.policy.checkpoint import CheckpointConfig, PolicyConfig
from depthvla_policy.policy.normalise import Normaliser
from depthvla_policy.policy.prompt import train_tokenizer
from depthvla_policy.serving import protocol
from depthvla_policy.serving.server import PolicyServer
from depthvla_policy.serving.service import Service
from r1lite_description.robot import Robot

PROMPT = "lift the red block with the right arm"


class RunningServer:
    """`with RunningServer(service) as port:`"""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()))
        self._listening = threading.Event()

    def __enter__(self) -> int:
        self._thread.start()
        assert self._listening.wait(30)
        return self._port

    def __exit__(self, *_) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(30)
        assert not self._thread.is_alive()

    async def _run(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        await PolicyServer(self._service).run("127.0.0.1", 0, self._stop, self._on_start)

    def _on_start(self, port: int) -> None:
        self._port = port
        self._listening.set()


class Client:
    """What openpi's client does, and no more. `ask` returns the answer, or the text of a refusal."""

    def __init__(self, port: int) -> None:
        self.socket = connect(f"ws://127.0.0.1:{port}", compression=None, max_size=None)
        self.metadata = protocol.unpack(self.socket.recv(30))

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_) -> None:
        self.socket.close()

    def send(self, observation: object) -> None:
        self.socket.send(protocol.pack(observation))

    def receive(self) -> dict | str:
        reply = self.socket.recv(30)
        return reply if isinstance(reply, str) else protocol.unpack(reply)

    def ask(self, observation: object) -> dict | str:
        self.send(observation)
        return self.receive()


def picture(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 255, (36, 64, 3), dtype=np.uint8)


LIBERO = {  # as examples/libero/main.py of openpi puts it together
    "observation/image": picture(0),
    "observation/wrist_image": picture(1),
    "observation/state": np.array([0.1, 0.2, 0.3, 3.1, 0.0, 0.1, 0.04, -0.04]),
    "prompt": PROMPT,
}


def observation(robot: Robot, **changes) -> dict:
    """As clients of the adapter r1lite send it."""
    images = {camera.name: picture(seed) for seed, camera in enumerate(robot.cameras)}
    return {"images": images, "state": (robot.position_min + robot.position_max) / 2, "prompt": PROMPT, **changes}


def save_checkpoint(folder: Path, robot: Robot) -> Path:
    """`tiny_model.save_checkpoint` for another robot."""
    cameras, size = len(robot.cameras), robot.size
    config = dataclasses.replace(tiny_model.CONFIG, cameras=cameras, state_dim=size, action_dim=size)
    stats = Normaliser(
        state_mean=np.zeros(size),
        state_std=np.ones(size),
        action_mean=np.zeros((config.horizon, size)),
        action_std=np.full((config.horizon, size), 0.05),
        absolute=np.ones(size, dtype=bool),
    )
    settings = CheckpointConfig(f"tiny-{robot.name}", config, PolicyConfig.of(robot))
    checkpoint.save(folder, settings, tiny_model.model(config), stats, train_tokenizer([PROMPT], config.vocab_size))
    return folder
