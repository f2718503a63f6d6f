"""What is said about an episode, which of its messages are recorded, and the thread that writes them to a bag.

Works on serialised messages and knows no middleware: `nodes.episode_recorder_node` hands them over.
"""

from __future__ import annotations

import json
import os
import platform
import queue
import subprocess
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from rosbags.interfaces import Qos
from rosbags.typesys import Stores, get_typestore

from depthvla_control.worker import Worker
from depthvla_evaluation.bags.bag import PAIR_TOLERANCE_NS, header_stamp_ns
from depthvla_evaluation.bags.message_types import register_type
from depthvla_evaluation.bags.new_bag import NewBag
from r1lite_description import files
from r1lite_description.robot import Robot

PAIR_HISTORY = 32  # messages of a paired topic that wait for their partner: 2 s at 15 Hz
# What a killed recorder has not handed to the file yet is lost: at most this, and one poll of the middleware.
FLUSH_PERIOD_S = 0.3
HANG_S = 10.0  # a disk that takes longer for a message does not answer
POLL_S = 0.5
NOTES_FILE = "unfinished.json"  # the custom data of a bag that is not closed yet
OUTCOMES = ("success", "failure", "aborted")
FAILED = "failed"  # outcome of a recording that is not whole, whatever was said


@dataclass(frozen=True)
class Mark:
    """A substep that was done, and when [ns since the epoch]."""

    substep: str
    time_ns: int


class EpisodeNotes:
    """What people say about an episode, and what the policy said of itself while it was recorded."""

    def __init__(
        self, task: str = "", instruction: str = "", setting: str = "", policy: str = "", *, scene: str = ""
    ) -> None:
        self.task, self.setting, self.scene = task, setting, scene
        self.marks: list[Mark] = []
        self._instruction, self._policy = instruction, policy
        self._models: list[str] = []  # in the order of appearance
        self._instructions: list[str] = []
        self._outcome, self._notes, self._failure = "", "", ""

    @property
    def substeps(self) -> list[str]:
        return [mark.substep for mark in self.marks]

    def mark(self, substep: str, time_ns: int) -> None:
        """Raises ValueError for a substep without a name, or one that counts already."""
        if not substep:
            raise ValueError("substep is empty; allowed: the name of the substep that was done")
        if substep in self.substeps:
            raise ValueError(f"substep {substep!r} is marked already; marked are {', '.join(self.substeps)}")
        self.marks.append(Mark(substep, time_ns))

    def undo(self) -> str:
        """Takes the newest mark back and returns its substep. Raises ValueError where there is none."""
        if not self.marks:
            raise ValueError("no substep is marked: there is nothing to undo")
        return self.marks.pop().substep

    def hear(self, model_id: str, instruction: str) -> None:
        """Take what the policy says of itself."""
        for value, known in ((model_id, self._models), (instruction, self._instructions)):
            if value and value not in known:
                known.append(value)

    def end(self, outcome: str, notes: str = "", failure: str = "") -> None:
        """`failure` says why the recording is not whole; empty where it is."""
        self._outcome, self._notes, self._failure = FAILED if failure else outcome, notes, failure

    def custom_data(self) -> dict[str, str]:
        """For the bag's metadata. Lists are JSON."""
        return {
            "task": self.task,
            "instruction": self._instruction or (self._instructions[0] if self._instructions else ""),
            "setting": self.setting,
            "scene": self.scene,
            "policy": self._policy or (self._models[0] if self._models else ""),
            "outcome": self._outcome,
            "notes": self._notes,
            "failure": self._failure,
            "substeps": json.dumps([{"substep": mark.substep, "time_ns": mark.time_ns} for mark in self.marks]),
            "model_id": self._models[-1] if self._models else "",
            "model_ids": json.dumps(self._models),
            "policy_instructions": json.dumps(self._instructions),
        }


@dataclass(frozen=True)
class TopicRule:
    """One topic to record.

    max_rate_hz: messages beyond this rate are left out; None keeps all.
    paired_with: keep only the message whose header stamp is nearest to that of a kept message of this other topic, and
    at most PAIR_TOLERANCE_NS away.
    required: an episode without this topic is not whole.
    """

    topic: str
    max_rate_hz: float | None = None
    paired_with: str | None = None
    required: bool = False


def parse_rules(entries: Sequence[str], robot: Robot) -> dict[str, TopicRule]:
    """Read entries of the form `/topic [max_rate_hz=5.0] [paired_with=/other] [required]`; topic -> rule.

    An entry with `{camera.…}` or `{limb.…}` stands for one topic of each camera or limb of the robot, for example
    `{camera.topic}`, `/policy_node/depth/{camera.name}/image`, `{limb.topics.arm_feedback}`.

    Raises:
        ValueError: an entry cannot be read; the message names it.
    """
    rules: dict[str, TopicRule] = {}
    for entry in entries:
        for text in _expand(entry, robot):
            rule = _parse_rule(text, entry)
            if rule.topic in rules:
                raise ValueError(f"topic {rule.topic} is listed twice (again by {entry!r})")
            rules[rule.topic] = rule
    for rule in rules.values():
        if rule.paired_with is not None and rule.paired_with not in rules:
            raise ValueError(f"topic {rule.topic} is paired with {rule.paired_with}, which is not recorded")
    return rules


class Selector:
    """Applies the rules to a stream of messages: what comes in is (topic, time, data), what comes out is to be kept."""

    def __init__(self, rules: dict[str, TopicRule]) -> None:
        self._rules = rules
        self._due_ns: dict[str, int] = {}
        paired = {rule.topic: rule.paired_with for rule in rules.values() if rule.paired_with}
        self._waiting: dict[str, deque] = {topic: deque(maxlen=PAIR_HISTORY) for topic in paired}
        self._unanswered: dict[str, deque] = {topic: deque(maxlen=PAIR_HISTORY) for topic in paired}
        self._followers = {partner: [t for t, p in paired.items() if p == partner] for partner in paired.values()}

    def offer(self, topic: str, received_ns: int, data: bytes) -> list[tuple[str, int, bytes]]:
        """Take a message in order of reception; return the messages that this one makes worth keeping."""
        rule = self._rules[topic]
        if rule.paired_with is not None and not self._answers(topic, header_stamp_ns(data)):
            self._waiting[topic].append((header_stamp_ns(data), received_ns, data))
            return []
        if rule.max_rate_hz is not None and not self._due(topic, received_ns, round(1e9 / rule.max_rate_hz)):
            return []
        kept = [(topic, received_ns, data)]
        for follower in self._followers.get(topic, ()):
            kept += self._release(follower, header_stamp_ns(data))
        return kept

    def _answers(self, follower: str, stamp_ns: int) -> bool:
        """Whether a kept message of the partner has waited for this stamp."""
        unanswered = self._unanswered[follower]
        nearest = min(unanswered, key=lambda asked_ns: abs(asked_ns - stamp_ns), default=None)
        if nearest is None or abs(nearest - stamp_ns) > PAIR_TOLERANCE_NS:
            return False
        unanswered.remove(nearest)
        return True

    def _release(self, follower: str, stamp_ns: int) -> list[tuple[str, int, bytes]]:
        """The waiting message that belongs to a partner's stamp; where there is none yet, the stamp is remembered."""
        waiting = self._waiting[follower]
        nearest = min(waiting, key=lambda item: abs(item[0] - stamp_ns), default=None)
        if nearest is None or abs(nearest[0] - stamp_ns) > PAIR_TOLERANCE_NS:
            self._unanswered[follower].append(stamp_ns)
            return []
        waiting.remove(nearest)
        return [(follower, *nearest[1:])]

    def _due(self, topic: str, received_ns: int, period_ns: int) -> bool:
        due_ns = self._due_ns.get(topic, received_ns)
        if received_ns < due_ns:
            return False
        # The grid is kept as long as messages come, so that jitter does not lower the mean rate.
        self._due_ns[topic] = due_ns + period_ns if received_ns < due_ns + period_ns else received_ns + period_ns
        return True


class BagWriter:
    """Writes serialised messages to a new rosbag2 folder (MCAP, zstd chunks) from a thread of its own.

    A disk that cannot keep up fills a backlog of at most `backlog_limit_bytes`; what does not fit is dropped and
    counted. After a write error nothing more is written, `error` says why, and `close` raises.

    A chunk reaches the file at least every FLUSH_PERIOD_S, and what `note` was told is beside it in NOTES_FILE until
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
        self, topic: str, msgtype: str, offered_qos: Sequence[Qos], read_definition: Callable[[str], str]
    ) -> None:
        """Make a topic known before its first message. `read_definition` gives the .msg text of a type by its name."""
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
                (self.path / NOTES_FILE).unlink(missing_ok=True)
                return
            except OSError as error:
                self.error = str(error)
        with suppress(OSError):
            self._bag.abort()
        with suppress(OSError):
            write_notes(self.path, {**custom_data, "outcome": FAILED, "failure": self.error})
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
            write_notes(self.path, item)

    def _number(self, topic: str) -> int:
        if topic not in self._numbers:
            msgtype, offered_qos = self._topics[topic]
            definition, _ = self._typestore.generate_msgdef(msgtype, ros_version=2)
            hash_ = self._typestore.hash_rihs01(msgtype)
            self._numbers[topic] = self._bag.add_topic(
                topic, msgtype, encoding="ros2msg", definition=definition, hash_=hash_, qos=offered_qos
            )
        return self._numbers[topic]


def write_notes(bag: Path, custom_data: dict[str, str]) -> None:
    temporary = bag / f"{NOTES_FILE}.tmp"
    temporary.write_text(json.dumps(custom_data))
    files.put(temporary, bag / NOTES_FILE)


def describe_machine() -> dict[str, str | int | float]:
    """What the numbers of a recording were measured on."""
    cpu = Path("/proc/cpuinfo")
    models = (
        [line.partition(":")[2].strip() for line in cpu.read_text().splitlines() if line.startswith("model name")]
        if cpu.exists()
        else []
    )
    return {
        "processor": models[0] if models else platform.processor() or platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1),
        "system": platform.platform(),
        "python": platform.python_version(),
    }


def git_revision(folder: Path) -> str:
    """Commit of the checkout that has files in `folder`, with `+dirty` where files differ from it; empty without one.
    A build in a workspace that is itself a checkout is none of that checkout's.
    """

    def git(*words: str) -> str:
        done = subprocess.run(
            ["git", "-C", str(folder), *words], capture_output=True, text=True, timeout=10.0, check=True
        )
        return done.stdout.strip()

    try:
        git("ls-files", "--error-unmatch", ".")
        return git("rev-parse", "HEAD") + ("+dirty" if git("status", "--porcelain") else "")
    except (OSError, subprocess.SubprocessError):
        return ""


def _expand(entry: str, robot: Robot) -> list[str]:
    if "{camera." in entry:
        fields = [{"camera": camera} for camera in robot.cameras]
    elif "{limb." in entry:
        fields = [{"limb": limb} for limb in robot.limbs]
    else:
        fields = [{}]
    try:
        return [entry.format(**item) for item in fields]
    except (KeyError, AttributeError, IndexError, ValueError) as error:
        raise ValueError(
            f"topic entry {entry!r} has an unknown placeholder ({error}); allowed: fields of one camera or one limb"
        ) from error


def _parse_rule(text: str, entry: str) -> TopicRule:
    topic, *options = text.split() or [""]
    if not topic.startswith("/"):
        raise ValueError(f"topic entry {entry!r} must start with an absolute topic name")
    values: dict[str, float | str | bool] = {}
    for option in options:
        key, _, value = option.partition("=")
        if key == "max_rate_hz":
            try:
                values[key] = float(value)
            except ValueError:
                values[key] = -1.0
            if not 0 < values[key] < float("inf"):
                raise ValueError(f"topic entry {entry!r}: max_rate_hz is {value!r}; it must be a number above 0")
        elif key == "paired_with" and value.startswith("/"):
            values[key] = value
        elif option == "required":
            values[key] = True
        else:
            raise ValueError(
                f"topic entry {entry!r}: option {option!r}; allowed: max_rate_hz=N, paired_with=/TOPIC, required"
            )
    return TopicRule(topic, **values)
