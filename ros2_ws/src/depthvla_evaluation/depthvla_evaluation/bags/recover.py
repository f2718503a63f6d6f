"""Makes bags whole that were damaged, or whose recorder was killed: depthvla recover BAG...

Every message that is whole, of MCAP and of SQLite files, goes into a new MCAP bag with an index and metadata, which
takes the old one's place; what is missing is named, with exit code 1. The old one is kept as BAG.broken. A bag that is
whole is left as it is.
"""

from __future__ import annotations

import dataclasses
import fcntl
import json
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro
import yaml
from backports import zstd
from mcap import records as mcap
from rosbags.rosbag2.metadata import parse_qos

from depthvla_evaluation.bags.bag import Bag
from depthvla_evaluation.bags.mcap_file import Connection, connection, salvage
from depthvla_evaluation.bags.message_types import MessageTypes
from depthvla_evaluation.bags.new_bag import NewBag
from depthvla_evaluation.bags.notes import FAILED, UNFINISHED
from depthvla_evaluation.bags.storage import METADATA, Metadata, Sqlite, read_metadata

KILLED = "the recorder ended without closing the bag"
DAMAGED = "the recording was damaged after it was closed"
SHOWN = 5  # damaged places
ZSTD = b"\x28\xb5\x2f\xfd"  # what its data begins with


@dataclass(frozen=True)
class RecoverConfig:
    """Makes bags whole whose recorder was killed, or that were damaged."""

    bags: Annotated[tuple[Path, ...], tyro.conf.Positional]  # rosbag2 folders


@dataclass(frozen=True)
class Recovered:
    """unread_bytes: at the end of the files, what was not written to its end. damaged: places before. missing: what
    else a reader will lack.
    """

    messages: int
    unread_bytes: int
    damaged: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()


def main(argv: Sequence[str] | None = None) -> int:
    config = tyro.cli(RecoverConfig, args=argv)
    code = 0
    for bag in config.bags:
        try:
            recovered = recover(bag)
        except (OSError, ValueError) as error:
            print(f"recover: {error}", file=sys.stderr)
            code = 1
            continue
        if recovered is None:
            print(f"{bag} is whole")
            continue
        print(
            f"{bag}: {recovered.messages} messages recovered into MCAP, {recovered.unread_bytes} bytes at the end were"
            f" no whole chunk; the original is {broken(bag)}"
        )
        more = len(recovered.damaged) - SHOWN
        lost = [*recovered.damaged[:SHOWN], *([f"{more} more places"] if more > 0 else []), *recovered.missing]
        for line in lost:
            print(f"{bag}: not recovered: {line}")
            code = 1
    return code


def recover(bag: str | Path) -> Recovered | None:
    """Makes a bag whole; None where it is already. Killed itself, it may simply be run again.

    Raises:
        FileNotFoundError: there is no bag.
        FileExistsError: an earlier original is in the place where this one would be kept.
        ValueError: it is of no kind that is known, or nothing in it can be read.
    """
    bag = Path(bag)
    made = bag.with_name(f".{bag.name}.recovering") / bag.name  # the file is named after the folder
    if not bag.exists() and broken(bag).exists() and made.exists():
        made.rename(bag)  # an earlier run ended between the two renames
    if not bag.is_dir():
        raise FileNotFoundError(f"bag {bag} does not exist, or is no folder")
    closed = (bag / METADATA).exists()
    if closed and _is_whole(bag):
        (bag / UNFINISHED).unlink(missing_ok=True)
        shutil.rmtree(made.parent, ignore_errors=True)
        return None
    if broken(bag).exists():
        raise FileExistsError(f"{broken(bag)} exists already; bag {bag} is left as it is")
    files = _files(bag)
    if not files:
        raise ValueError(f"bag {bag} has neither metadata.yaml nor an MCAP or SQLite (.db3) file")
    _refuse_in_progress(bag, files)
    shutil.rmtree(made.parent, ignore_errors=True)
    recovered = _rewrite(files, made, bag, closed=closed)
    bag.rename(broken(bag))
    made.rename(bag)
    made.parent.rmdir()
    return recovered


def _refuse_in_progress(bag: Path, files: Sequence[Path]) -> None:
    for path in files:
        with path.open("rb") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise ValueError(f"bag {bag} is being recorded: a process writes to {path.name}") from None


def broken(bag: Path) -> Path:
    """Where the original of a recovered bag is kept."""
    return bag.with_name(f"{bag.name}.broken")


def _is_whole(bag: Path) -> bool:
    try:
        with Bag(bag) as opened:
            opened.check()
    except ValueError:
        return False
    return True


def _files(bag: Path) -> list[Path]:
    """In the order of the recording where the metadata says it; numbers in names are compared as such."""
    kinds = ("*.mcap", "*.db3", "*.mcap.zstd", "*.db3.zstd")
    paths = sorted((path for kind in kinds for path in bag.glob(kind)), key=lambda path: (len(path.name), path.name))
    with suppress(OSError, ValueError):
        paths = list(dict.fromkeys([*read_metadata(bag).files, *paths]))
    return paths


def _rewrite(files: Sequence[Path], made: Path, bag: Path, *, closed: bool) -> Recovered:
    metadata = Metadata(files=())
    with suppress(OSError, ValueError):
        metadata = read_metadata(bag)
    copy = _Copy(NewBag(made), metadata)
    with tempfile.TemporaryDirectory(dir=made.parent) as folder:
        for path in files:
            copy.add(path, Path(folder))
    recovered = copy.summary()
    lost = metadata.messages - recovered.messages
    if closed and recovered.messages and lost > 0:
        recovered = dataclasses.replace(
            recovered, missing=(*recovered.missing, f"{lost} of {metadata.messages} messages")
        )
    if closed and not recovered.messages:
        copy.bag.abort()
        raise ValueError(f"bag {bag}: nothing can be read of it: {', '.join(recovered.damaged) or 'no whole record'}")
    notes = {**copy.custom, **metadata.custom}
    with suppress(OSError, ValueError):
        notes |= json.loads((bag / UNFINISHED).read_text())
    history = {"original": broken(bag).name, **dataclasses.asdict(recovered)}
    if recovered.damaged or recovered.missing or (closed and recovered.unread_bytes):
        history["outcome"] = notes.get("outcome", "")
        notes |= {"outcome": FAILED, "failure": DAMAGED if closed else KILLED}
    elif not closed and not notes.get("outcome"):
        # Killed while it was closing, a recorder had been told the outcome and had written everything.
        notes |= {"outcome": FAILED, "failure": KILLED}
    copy.bag.close({**notes, "recovered": json.dumps(history)})
    return recovered


class _Copy:
    """Topics and messages of files on their way into a new bag."""

    def __init__(self, bag: NewBag, metadata: Metadata) -> None:
        self.bag = bag
        self.custom: dict[str, str] = {}  # as a file repeats it from its metadata.yaml
        self._messages = self._unread_bytes = 0
        self._damaged: list[str] = []
        self._lost: Counter[str] = Counter()
        self._undefined: dict[str, str] = {}
        self._types_of = metadata.types
        self._types = MessageTypes(metadata.distribution)
        self._numbers: dict[Connection, int] = {}  # a topic may go on in the next file

    def add(self, path: Path, folder: Path) -> None:
        """A file; `folder` is for what has to be unpacked or repaired."""
        if not path.exists():
            self._damaged.append(f"{path.name} is not there")
            return
        if path.suffix == ".zstd":
            path = self._unpacked(path, folder)
        if path.suffix == ".mcap":
            self._schemas: dict[int, mcap.Schema] = {}
            self._channels: dict[int, mcap.Channel] = {}
            salvaged = salvage(path, self._take)
            self._damaged += salvaged.damaged
            self._unread_bytes += salvaged.unread_bytes
        else:
            self._add_sqlite(path, folder)

    def summary(self) -> Recovered:
        missing = [f"{count} messages of {what}" for what, count in self._lost.items()]
        if self._types.foreign:
            names = ", ".join(sorted(self._types.foreign))
            missing.append(f"definitions of {names}: the recorder kept none; standard or installed ones are taken")
        missing += [f"a definition of {type_} for the messages of {topic}" for topic, type_ in self._undefined.items()]
        return Recovered(self._messages, self._unread_bytes, tuple(self._damaged), tuple(missing))

    def _take(self, record: mcap.McapRecord) -> None:
        if isinstance(record, mcap.Schema):
            self._schemas[record.id] = record
        elif isinstance(record, mcap.Channel):
            self._channels[record.id] = record
        elif isinstance(record, mcap.Metadata) and record.name == "rosbag2":
            with suppress(yaml.YAMLError, AttributeError):
                metadata = yaml.safe_load(record.metadata.get("serialized_metadata", ""))
                self.custom |= metadata.get("custom_data") or {}
        elif isinstance(record, mcap.Message):
            channel = self._channels.get(record.channel_id)
            if channel is None:
                self._lost[f"channel {record.channel_id}, which is named in a damaged part"] += 1
                return
            self._write(connection(channel, self._schemas.get(channel.schema_id)), record.log_time, record.data)

    def _write(self, source: Connection, time_ns: int, data: bytes) -> None:
        if source not in self._numbers:
            msgtype = source.msgtype or self._types_of.get(source.topic, "")
            if not msgtype:
                self._lost[f"{source.topic}, which has no type"] += 1
                return
            self._numbers[source] = self._add_topic(source._replace(msgtype=msgtype))
        if data[:4] == ZSTD:  # compressed one by one; no message of its own begins so
            data = zstd.decompress(data)
        self.bag.write(self._numbers[source], time_ns, data)
        self._messages += 1

    def _add_topic(self, source: Connection) -> int:
        topic, msgtype, encoding, text, profiles, _ = source
        self._types.add(msgtype, encoding, text)
        known = self._types.definition(msgtype)
        if msgtype in self._types.missing:
            encoding, text = ("ros2msg", known[0]) if known else ("", "")
            if not known:
                self._undefined[topic] = msgtype
        qos: list[Any] = []
        with suppress(Exception):  # quality of service in words that nobody knows is no reason to lose messages
            qos = parse_qos(profiles)
        hash_ = known[1] if known else ""
        return self.bag.add_topic(topic, msgtype, encoding=encoding, definition=text, hash_=hash_, qos=qos)

    def _add_sqlite(self, path: Path, folder: Path) -> None:
        copy = folder / path.name
        for suffix in ("", "-wal", "-shm", "-journal"):  # what SQLite had not put into the file yet
            if (beside := path.with_name(path.name + suffix)).exists():
                shutil.copyfile(beside, copy.with_name(copy.name + suffix))
        try:
            base = Sqlite(copy, repair=True)
        except ValueError as error:
            self._damaged.append(str(error).replace(str(copy), path.name))
            return
        try:
            for item in base.whole_messages():
                if isinstance(item, str):
                    self._damaged.append(item)
                else:
                    self._write(*item)
        finally:
            base.close()

    def _unpacked(self, path: Path, folder: Path) -> Path:
        """As far as it can be unpacked."""
        target = folder / path.stem
        with path.open("rb") as source, target.open("wb") as file:
            unpack = zstd.ZstdDecompressor()
            try:
                while not unpack.eof and (packed := source.read(2**20)):
                    file.write(unpack.decompress(packed))
            except zstd.ZstdError as error:
                self._damaged.append(f"{path.name}: what is behind {source.tell()} bytes of it ({error})")
        return target


if __name__ == "__main__":
    sys.exit(main())
