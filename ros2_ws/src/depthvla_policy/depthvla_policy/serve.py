"""Serve a policy to openpi's websocket clients: `depthvla serve --policy DIR`. Needs no ROS.

Chunks are numbers in an answer; nothing is published to a robot.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro

from depthvla_policy.serving import adapters
from depthvla_policy.serving.server import PolicyServer
from depthvla_policy.serving.service import Service


@dataclass(frozen=True)
class ServeConfig:
    policy: Path
    """checkpoint folder"""
    adapter: Literal["r1lite", "galaxea", "libero", "simpler"] = "r1lite"
    """whose names and vectors the clients use"""
    host: str = "127.0.0.1"
    """0.0.0.0 serves every machine of the network; there is no authentication"""
    port: int = 8000
    """0 takes a free one"""
    device: str = "cpu"
    """cpu or cuda"""
    seed: int | None = None
    """of every chunk's noise: the same observation has the same chunk"""


def main() -> int:
    config = tyro.cli(ServeConfig, description=__doc__)
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        asyncio.run(_serve(load(config), config))
    except (OSError, ValueError) as error:
        print(f"serve: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:  # while the checkpoint was loaded
        pass
    return 0


def load(config: ServeConfig) -> Service:
    """The policy behind its adapter, warmed up.

    Raises:
        FileNotFoundError: the checkpoint or a file in it does not exist.
        ValueError: the checkpoint does not fit the adapter or itself, or there is no such device.
    """
    adapter = adapters.load(config.adapter)
    if not config.policy.is_dir():  # said before torch is imported, which takes seconds
        raise FileNotFoundError(f"checkpoint {config.policy} does not exist")
    from depthvla_policy.policy.checkpoint import CheckpointConfig
    from depthvla_policy.policy.policy import Policy

    adapter.check(CheckpointConfig.read(config.policy))  # before the weights, which can take minutes
    service = Service(Policy.load(config.policy, config.device, adapter.robot), adapter, config.seed)
    logging.info("warmed up in %.1f s", service.warm_up())
    return service


async def _serve(service: Service, config: ServeConfig) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    model = service.metadata["model_id"]

    def announce(port: int) -> None:
        print(f"{model} for {config.adapter} clients at ws://{config.host}:{port}; Ctrl-C ends it", flush=True)

    await PolicyServer(service).run(config.host, config.port, stop, announce)


if __name__ == "__main__":
    sys.exit(main())
