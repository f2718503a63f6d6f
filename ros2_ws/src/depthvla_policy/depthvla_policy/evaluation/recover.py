"""Makes bags whole whose recorder was killed: python -m depthvla_policy.evaluation.recover BAG...

Every message of every whole chunk of the MCAP file goes into a new bag with an index and metadata, which takes the old
one's place. The old one is kept as BAG.broken. A bag that is whole is left as it is.
"""

from __future__ import annotations

import json
import shutil
import struct
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, BinaryIO

import tyro
from rosbags.rosbag2 import Writer
from rosbags.rosbag2.metadata import parse_qos
from rosbags.rosbag2.storage_mcap import decompress
from rosbags.typesys import Stores, get_types_from_msg, get_typestore

from depthvla_policy.evaluation.bags.recording import FAILED, NOTES_FILE, new_bag

# https://mcap.dev/spec
MAGIC = b"\x89MCAP0\r\n"
SCHEMA, CHANNEL, MESSAGE, CHUNK, DATA_END = 0x03, 0x04, 0x05, 0x06, 0x0F
CHUNK_HEADER = struct.Struct("<QQQI")  # first and last time, size, CRC-32; then compression and data
MESSAGE_HEADER = struct.Struct("<HIQQ")  # channel, sequence, log time, publish time
KILLED = "the recorder ended without closing the bag"


@dataclass(frozen=True)
class RecoverConfig:
    """Makes bags whole whose recorder was killed."""

    bags: Annotated[tuple[Path, ...], tyro.conf.Positional]  # rosbag2 folders


@dataclass(frozen=True)
class Recovered:
    messages: int
    unread_bytes: int  # at the end of the file: a chunk that was not written to its end


def main(argv: Sequence[str] | None = None) -> int:
    config = tyro.cli(RecoverConfig, args=argv)
    code = 0
    for bag in config.bags:
        try:
            found = recover(bag)
        except (OSError, ValueError) as error:
            print(f"recover: {error}", file=sys.stderr)
            code = 1
            continue
        if found is None:
            print(f"{bag} is whole")
        else:
            print(
                f"{bag}: {found.messages} messages recovered, {found.unread_bytes} bytes at the end were no whole"
                f" chunk; the original is {broken(bag)}"
            )
    return code


def recover(bag: str | Path) -> Recovered | None:
    """Makes a bag whole; None where it is already. Killed itself, it may simply be run again.

    Raises:
        FileNotFoundError: there is no bag.
        FileExistsError: an earlier original is in the place where this one would be kept.
        ValueError: it is no MCAP bag.
    """
    bag = Path(bag)
    made = bag.with_name(f".{bag.name}.recovering") / bag.name  # rosbags names the file after the folder
    if not bag.exists() and broken(bag).exists() and made.exists():
        made.rename(bag)  # an earlier run ended between the two renames
    if not bag.is_dir():
        raise FileNotFoundError(f"bag {bag} does not exist, or is no folder")
    if (bag / "metadata.yaml").exists():
        (bag / NOTES_FILE).unlink(missing_ok=True)
        shutil.rmtree(made.parent, ignore_errors=True)
        return None
    if broken(bag).exists():
        raise FileExistsError(f"{broken(bag)} exists already; bag {bag} is left as it is")
    files = sorted(bag.glob("*.mcap"))
    if not files:
        raise ValueError(f"bag {bag} has neither metadata.yaml nor an MCAP file")
    shutil.rmtree(made.parent, ignore_errors=True)
    found = _rewrite(files, made, _notes(bag), broken(bag).name)
    bag.rename(broken(bag))
    made.rename(bag)
    made.parent.rmdir()
    return found


def broken(bag: Path) -> Path:
    """Where the original of a recovered bag is kept."""
    return bag.with_name(f"{bag.name}.broken")


def _notes(bag: Path) -> dict[str, str]:
    notes: dict[str, str] = {}
    with suppress(OSError, ValueError):
        notes = json.loads((bag / NOTES_FILE).read_text())
    if not notes.get("outcome"):
        # Killed while it was closing, a recorder had been told the outcome and had written everything.
        notes |= {"outcome": FAILED, "failure": KILLED}
    return notes


def _rewrite(files: Sequence[Path], made: Path, notes: dict[str, str], original: str) -> Recovered:
    writer = new_bag(made)
    copy, unread = _Copy(writer), 0
    for path in files:
        with path.open("rb") as file:
            copy.begin_file()
            try:
                for kind, content in _records(file):
                    copy.add(kind, content)
            except (KeyError, struct.error) as error:
                raise ValueError(f"{path} is damaged: {error!r}") from error
            unread += path.stat().st_size - file.tell()
    found = Recovered(copy.messages, unread)
    about = {"original": original, "messages": found.messages, "unread_bytes": found.unread_bytes}
    for key, value in {**notes, "recovered": json.dumps(about)}.items():
        writer.set_custom_data(key, value)
    writer.close()
    return found


class _Copy:
    """Schemas, channels and messages of MCAP files on their way into a new bag."""

    def __init__(self, writer: Writer) -> None:
        self.messages = 0
        self._writer = writer
        self._connections: dict[tuple, object] = {}  # a topic may go on in the next file
        self.begin_file()

    def begin_file(self) -> None:
        """Numbers of schemas and channels count anew."""
        self._schemas: dict[int, tuple[str, str, str]] = {}
        self._channels: dict[int, tuple] = {}

    def add(self, kind: int, content: memoryview) -> None:
        if kind == SCHEMA:
            fields = _Fields(content)
            number = fields.number("<H")
            self._schemas[number] = (fields.text(), fields.text(), fields.text())
        elif kind == CHANNEL:
            fields = _Fields(content)
            number, schema = fields.number("<H"), fields.number("<H")
            topic, encoding, metadata = fields.text(), fields.text(), fields.block()
            self._channels[number] = (topic, encoding, bytes(metadata), *self._schemas[schema])
        elif kind == MESSAGE:
            number, _, time_ns, _ = MESSAGE_HEADER.unpack_from(content)
            self._writer.write(self._connection(number), time_ns, content[MESSAGE_HEADER.size :])
            self.messages += 1

    def _connection(self, number: int):
        channel = self._channels[number]
        if channel not in self._connections:
            topic, encoding, metadata, name, language, text = channel
            if language != "ros2msg":
                raise ValueError(f"topic {topic} is defined in {language!r}; allowed: 'ros2msg'")
            types = get_typestore(Stores.EMPTY)
            types.register(get_types_from_msg(text, name))
            self._connections[channel] = self._writer.add_connection(
                topic,
                name,
                msgdef=text,
                rihs01=types.hash_rihs01(name),
                serialization_format=encoding,
                offered_qos_profiles=parse_qos(_Fields(memoryview(metadata)).texts().get("offered_qos_profiles", "[]")),
            )
        return self._connections[channel]


def _records(file: BinaryIO) -> Iterator[tuple[int, memoryview]]:
    """Records of the data section, those in chunks included; afterwards the file stands where whole records ended."""
    if file.read(len(MAGIC)) != MAGIC:
        file.seek(0)
        return
    size = file.seek(0, 2)
    file.seek(len(MAGIC))
    while (begin := file.tell()) + 9 <= size:
        kind, length = struct.unpack("<BQ", file.read(9))
        if not kind or file.tell() + length > size:  # zeros are what a power failure leaves
            file.seek(begin)
            return
        content = memoryview(file.read(length))
        if kind == DATA_END:
            file.seek(0, 2)
            return
        if kind != CHUNK:
            yield kind, content
            continue
        chunk = _chunk(content)
        if chunk is None:
            file.seek(begin)
            return
        yield from _within(chunk)


def _chunk(content: memoryview) -> memoryview | None:
    """The records of a chunk; None where it is damaged."""
    try:
        _, _, size, crc = CHUNK_HEADER.unpack_from(content)
        fields = _Fields(content[CHUNK_HEADER.size :])
        compression = fields.text()
        (length,) = struct.unpack("<Q", fields.take(8))
        return memoryview(decompress(bytes(fields.take(length)), compression, size, crc))
    except Exception:  # each decompressor has errors of its own
        return None


def _within(chunk: memoryview) -> Iterator[tuple[int, memoryview]]:
    at = 0
    while at < len(chunk):
        kind, length = struct.unpack_from("<BQ", chunk, at)
        yield kind, chunk[at + 9 : at + 9 + length]
        at += 9 + length


class _Fields:
    """Reads a record's fields one after the other."""

    def __init__(self, content: memoryview) -> None:
        self._content, self._at = content, 0

    def take(self, size: int) -> memoryview:
        self._at += size
        return self._content[self._at - size : self._at]

    def number(self, layout: str) -> int:
        return struct.unpack(layout, self.take(struct.calcsize(layout)))[0]

    def block(self) -> memoryview:
        return self.take(self.number("<I"))

    def text(self) -> str:
        return bytes(self.block()).decode()

    def texts(self) -> dict[str, str]:
        """Keys and values up to the end."""
        found = {}
        while self._at < len(self._content):
            key = self.text()
            found[key] = self.text()
        return found


if __name__ == "__main__":
    sys.exit(main())
