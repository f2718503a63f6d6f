"""Images over a lossy cable, with the kernel's limits on fragments and with those of docs/network.md. Linux, as root.

depthvla network-fragments [--loss 0.01]. A datagram of which a frame is lost keeps its other frames in memory until
`ipfrag_time` is over; when they fill `ipfrag_high_thresh`, no datagram is put together any more.
"""

from __future__ import annotations

import contextlib
import socket
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass

import tyro

from r1lite_trials.network_emulation import Conditions
from r1lite_trials.network_namespaces import ADDRESSES, SplitNetwork, unavailable

PORT = 5000
BUFFER_BYTES = 1 << 22
IMAGE_BYTES = 40_000
RATE_HZ = 45.0  # images of all cameras together
PERIODS, PERIOD_S = 8, 5.0  # numbers in a row of the table, and the time that each is of


@dataclass(frozen=True)
class FragmentsConfig:
    """Over what the images are sent."""

    loss: float = 0.01
    """probability that a frame is lost"""


def main(argv: Sequence[str] | None = None) -> int:
    config = tyro.cli(FragmentsConfig, args=argv, description=__doc__)
    if reason := unavailable():
        print(f"error: {reason}", file=sys.stderr)
        return 2
    print(f"share of images that arrive, by {PERIOD_S:g} s")
    for name, tuned in (("kernel's limits", False), ("docs/network.md", True)):
        print(f"{name:16}", *(f"{share:5.0%}" for share in shares(config.loss, tuned=tuned)), flush=True)
    return 0


def shares(loss: float, *, tuned: bool, periods: int = PERIODS, period_s: float = PERIOD_S) -> list[float]:
    """Of the images of every period, how many arrived in it."""
    count = round(period_s * RATE_HZ)
    with SplitNetwork(tuned=tuned) as network, contextlib.ExitStack() as stack:
        with network.inside("robot"):
            camera = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        with network.inside("host"):
            policy = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        policy.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER_BYTES)
        policy.bind((ADDRESSES["host"], PORT))
        camera.sendto(b"", (ADDRESSES["host"], PORT))  # the neighbour's address is asked for before frames are lost
        policy.recv(1)
        policy.setblocking(False)
        network.set(Conditions(loss=loss))
        begin_s, arrived = time.monotonic(), [0] * periods
        for number in range(periods * count):
            time.sleep(max(begin_s + number / RATE_HZ - time.monotonic(), 0.0))
            camera.sendto(bytes(IMAGE_BYTES), (ADDRESSES["host"], PORT))
            arrived[number // count] += _waiting(policy)
        return [images / count for images in arrived]


def _waiting(end: socket.socket) -> int:
    """How many datagrams wait; they are taken."""
    number = 0
    with contextlib.suppress(BlockingIOError):
        while end.recv(1) is not None:
            number += 1
    return number


if __name__ == "__main__":
    sys.exit(main())
