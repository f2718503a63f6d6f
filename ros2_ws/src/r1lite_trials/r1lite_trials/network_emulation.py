"""A bad cable: the kernel's netem where it has one (`Netem`), else in user space, for kernels that are built without:
`Link` carries frames between two file descriptors with delay, jitter, loss and cuts.
"""

from __future__ import annotations

import contextlib
import heapq
import itertools
import json
import math
import os
import select
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from random import Random

FRAME_BYTES = 2048  # more than an Ethernet frame with the usual 1500 bytes inside
BURST = 64  # frames read from one side before the other side's turn


@dataclass(frozen=True)
class Conditions:
    """What a link does to every frame, in each direction.

    As in netem, each frame's delay is drawn on its own, so that with jitter a frame can overtake another.
    """

    delay_s: float = 0.0  # one way
    jitter_s: float = 0.0  # the delay is drawn evenly from delay_s - jitter_s to delay_s + jitter_s
    loss: float = 0.0  # probability that a frame is lost
    cut: bool = False  # nothing enters; what is on its way arrives

    def __post_init__(self) -> None:
        if not 0.0 <= self.jitter_s <= self.delay_s < math.inf:
            raise ValueError(f"delay_s is {self.delay_s}, jitter_s {self.jitter_s}; allowed: 0 to delay_s")
        if not 0.0 <= self.loss <= 1.0:
            raise ValueError(f"loss is {self.loss}; allowed: 0 to 1")


class Direction:
    """Frames on their way from one end to the other. What becomes of the n-th frame depends on the seed only."""

    def __init__(self, seed: str) -> None:
        self._random = Random(seed)
        self._order = itertools.count()  # of frames that are due at the same time
        self._waiting: list[tuple[int, int, bytes]] = []

    def enter(self, frame: bytes, now_ns: int, conditions: Conditions) -> bool:
        """False when the frame is lost."""
        lost, share = self._random.random() < conditions.loss, self._random.uniform(-1.0, 1.0)
        if lost or conditions.cut:
            return False
        delay_ns = round((conditions.delay_s + share * conditions.jitter_s) * 1e9)
        heapq.heappush(self._waiting, (now_ns + delay_ns, next(self._order), frame))
        return True

    @property
    def next_ns(self) -> int | None:
        """When the next frame is due; None when none is on its way."""
        return self._waiting[0][0] if self._waiting else None

    def leave(self, now_ns: int) -> Iterator[tuple[int, bytes]]:
        """The frames that are due, each with the time at which it was."""
        while self._waiting and self._waiting[0][0] <= now_ns:
            due_ns, _, frame = heapq.heappop(self._waiting)
            yield due_ns, frame


class Link:
    """Carries frames both ways as long as somebody calls `step`. Change `conditions` at any time.

    Args:
        ends: two file descriptors that give one frame a read and take one a write; they are made non-blocking.
        seed: the same frames meet the same fate under the same seed.
        clock: monotonic, ns.
    """

    def __init__(self, ends: tuple[int, int], seed: int = 0, clock: Callable[[], int] = time.monotonic_ns) -> None:
        for end in ends:
            os.set_blocking(end, False)
        self.conditions = Conditions()
        self._clock = clock
        self._ways = [(*way, Direction(f"{seed} {number}")) for number, way in enumerate((ends, ends[::-1]))]
        self.forget()

    def forget(self) -> None:
        """Begins to count anew."""
        self.carried = self.lost = 0
        self.overflowed = 0  # frames that an end did not take
        self.since_ns = self._clock()
        self.late_ns: list[int] = []  # by frame: how much later than due it was written

    def change(self, conditions: Conditions) -> None:
        """From now on."""
        self.conditions = conditions

    def step(self, limit_s: float, *others: int) -> list[int]:
        """Waits until a frame comes or is due, at most so long, and carries. Returns which of `others` are readable."""
        readable, _, _ = select.select(
            [source for source, *_ in self._ways] + list(others), (), (), self._wait_s(limit_s)
        )
        now_ns = self._clock()
        for source, _, direction in self._ways:
            if source in readable:
                for frame in _waiting(source):
                    self.lost += not direction.enter(frame, now_ns, self.conditions)
        for _, target, direction in self._ways:
            for due_ns, frame in direction.leave(self._clock()):
                self._write(target, frame, due_ns)
        return [other for other in others if other in readable]

    def _wait_s(self, limit_s: float) -> float:
        due = [direction.next_ns for *_, direction in self._ways if direction.next_ns is not None]
        return min(limit_s, max(min(due) - self._clock(), 0) * 1e-9) if due else limit_s

    def _write(self, target: int, frame: bytes, due_ns: int) -> None:
        try:
            os.write(target, frame)
        except OSError:  # its queue is full, or the device is down
            self.overflowed += 1
            return
        self.carried += 1
        self.late_ns.append(self._clock() - due_ns)


def kernel_has_netem() -> bool:
    """Found out by trying, in a network namespace that ends with the trial."""
    with contextlib.suppress(OSError):
        words = ["unshare", "--net", "tc", "qdisc", "add", "dev", "lo", "root", "netem", "delay", "1ms"]
        return subprocess.run(words, capture_output=True).returncode == 0
    return False


class Netem:
    """tc's netem on a device of this name in two network namespaces; the counterpart of `Link`.

    Args:
        device: at both ends.
        namespaces: their files.
    """

    def __init__(self, device: str, namespaces: Sequence[str]) -> None:
        self._device, self._namespaces = device, namespaces
        self._tc("add", Conditions())
        self.forget()

    def forget(self) -> None:
        """Begins to count anew."""
        self.since_ns, self._before = time.monotonic_ns(), self._counts()
        self.overflowed, self.late_ns = 0, []  # not told

    @property
    def carried(self) -> int:
        return self._counts()[0] - self._before[0]

    @property
    def lost(self) -> int:
        return self._counts()[1] - self._before[1]

    def change(self, conditions: Conditions) -> None:
        """From now on; what is on its way arrives."""
        self._tc("change", conditions)

    def step(self, limit_s: float, *others: int) -> list[int]:
        """Waits, at most so long, until some of `others` are readable, and returns them."""
        return select.select(others, (), (), limit_s)[0]

    def _tc(self, verb: str, conditions: Conditions) -> None:
        loss = 1.0 if conditions.cut else conditions.loss
        words = f"qdisc {verb} dev {self._device} root netem limit 100000 loss {loss:.3%}"
        words += f" delay {conditions.delay_s * 1e3:g}ms {conditions.jitter_s * 1e3:g}ms"
        for namespace in self._namespaces:
            subprocess.run(["nsenter", f"--net={namespace}", "tc", *words.split()], check=True)

    def _counts(self) -> tuple[int, int]:
        """Frames carried and lost since the beginning."""
        counts = [
            json.loads(subprocess.check_output(["nsenter", f"--net={namespace}", "tc", *words]))[0]
            for namespace in self._namespaces
            for words in [("-s", "-j", "qdisc", "show", "dev", self._device, "root")]
        ]
        return sum(one["packets"] for one in counts), sum(one["drops"] for one in counts)


def _waiting(source: int) -> Iterator[bytes]:
    with contextlib.suppress(BlockingIOError):
        for _ in range(BURST):
            yield os.read(source, FRAME_BYTES)
