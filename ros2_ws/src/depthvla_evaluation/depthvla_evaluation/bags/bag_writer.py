"""The thread that writes an episode's serialised messages to a bag. Knows no middleware."""

from __future__ import annotations

import queue
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from rosbags.interfaces import Qos
from rosbags.typesys import Stores, get_typestore

from depthvla_control.worker import Worker
from depthvla_evaluation.bags.message_types import installed_definition, register_type
from depthvla_evaluation.bags.new_bag import NewBag
from depthvla_evaluation.bags.notes import FAILED, UNFINISHED, write_unfinished

# What a killed recorder has not handed to the file yet is lost: at most this, and one poll of the middleware.
FLUSH_PERIOD_S = 0.3
HANG_S = 10.0  # a disk that takes longer for a message does not answer
POLL_S = 0.5


class BagWriter:
    """Writes serialised messages to a new rosbag2 folder (MCAP, zstd chunks) from a thread of its own.

    A disk that cannot keep up fills a backlog of at most `backlog_limit_bytes`; what does not fit is dropped and
    counted. After a write error nothing more is written, `error` says why, and `close` raises.

    A chunk reaches the file at least every FLUSH_PERIOD_S, and what `note` was told is beside it in UNFINISHED until
    the bag is closed, so that `recover` can make a bag of what a killed process leaves.

    Raises:
        FileExistsError: there is something at `path` already.
    """

    def __init__(self, path: str | Path, backlog_limit_bytes: int = 256 * 2**20) -> None:
        self.path = Path(path)
        self.error: str | None = None
        self.written = 0  # messages handed to the file
        self.dropped: Counter[str] = Counter()  # messages that found the backlog full, by topic
        self._backlog_limit_bytes = backlog_limit_bytes
        if self.path.exists():
            raise FileExistsError(f"bag {self.path} exists already; it is not overwritten")
        self._bag = NewBag(self.path)
        self._typestore = get_typestore(Stores.ROS2_JAZZY)
        self._topics: dict[str, tuple[str, Sequence[Qos]]] = {}
        self._numbers: dict[str, int] = {}
        self._queue: queue.SimpleQueue = queue.SimpleQueue()
        self._offered_bytes = 0  # counted by the caller's thread
        self._done_bytes = 0  # counted by the writer's thread
        self.worker = Worker("bag writer", self._run, HANG_S)
        self.worker.start()

    @property
    def backlog_bytes(self) -> int:
        return self._offered_bytes - self._done_bytes

    @property
    def file_bytes(self) -> int:
        """Size of what has reached the folder."""
        return sum(file.stat().st_size for file in self.path.glob("*.mcap"))

    def add_topic(
        self,
        topic: str,
        msgtype: str,
        offered_qos: Sequence[Qos] = (),
        read_definition: Callable[[str], str] = installed_definition,
    ) -> None:
        """Make a topic known before its first message. Raises as `read_definition`, which gives a type's .msg text."""
        register_type(self._typestore, msgtype, read_definition)
        self._topics[topic] = (msgtype, offered_qos)

    def write(self, topic: str, received_ns: int, data: bytes) -> bool:
        """Queue a message; False when it was dropped. Does not wait for the disk."""
        if self.error is not None or self.backlog_bytes + len(data) > self._backlog_limit_bytes:
            self.dropped[topic] += 1
            return False
        self._offered_bytes += len(data)
        self._queue.put((topic, received_ns, data))
        return True

    def note(self, custom_data: dict[str, str]) -> None:
        """Keep `custom_data` beside the messages, in case the bag is never closed. Does not wait for the disk."""
        self._queue.put(custom_data)

    def close(self, custom_data: dict[str, str] | None = None) -> None:
        """Write what is queued, the index and metadata.yaml with `custom_data`.

        Raises:
            OSError: a write failed, now or earlier; the folder holds what was written until then.
        """
        custom_data = custom_data or {}
        self.note(custom_data)
        self._queue.put(None)
        while not self.worker.join(POLL_S):
            if self.worker.problem:  # the file is in the hands of a thread that waits for the disk
                self.error = self.worker.problem
                raise OSError(f"bag {self.path} is incomplete: {self.error}")
        if self.error is None:
            try:
                self._bag.close(custom_data)
                (self.path / UNFINISHED).unlink(missing_ok=True)
                return
            except OSError as error:
                self.error = str(error)
        with suppress(OSError):
            self._bag.abort()
        with suppress(OSError):
            write_unfinished(self.path, {**custom_data, "outcome": FAILED, "failure": self.error})
        raise OSError(f"bag {self.path} is incomplete: {self.error}")

    def _run(self) -> None:
        flush_s = time.monotonic() + FLUSH_PERIOD_S
        while (item := self._next(flush_s)) is not None:
            if self.error is None:
                try:
                    with self.worker.busy():
                        self._take(item)
                        if time.monotonic() >= flush_s:
                            self._bag.flush()
                            flush_s = time.monotonic() + FLUSH_PERIOD_S
                except BaseException as error:  # whatever it is, the operator hears of it, not only this thread
                    self.error = f"{type(error).__name__}: {error}"
            if isinstance(item, tuple):
                self._done_bytes += len(item[2])

    def _next(self, until_s: float) -> tuple[str, int, bytes] | dict[str, str] | None:
        """What is to be written next: a message, or notes, which are empty when nothing came until then."""
        try:
            return self._queue.get(timeout=max(until_s - time.monotonic(), 0.0))
        except queue.Empty:
            return {}

    def _take(self, item: tuple[str, int, bytes] | dict[str, str]) -> None:
        if isinstance(item, tuple):
            topic, received_ns, data = item
            self._bag.write(self._number(topic), received_ns, data)
            self.written += 1
        elif item:
            self._bag.flush()  # notes come after the messages that they speak of
            write_unfinished(self.path, item)

    def _number(self, topic: str) -> int:
        if topic not in self._numbers:
            msgtype, offered_qos = self._topics[topic]
            definition, _ = self._typestore.generate_msgdef(msgtype, ros_version=2)
            hash_ = self._typestore.hash_rihs01(msgtype)
            self._numbers[topic] = self._bag.add_topic(
                topic, msgtype, encoding="ros2msg", definition=definition, hash_=hash_, qos=offered_qos
            )
        return self._numbers[topic]
