"""Files of the MCAP format (https://mcap.dev/spec): written with checksums, read with them, and read as far as they are
whole. Knows nothing of ROS.
"""

from __future__ import annotations

import heapq
import mmap
import struct
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, NamedTuple
from zlib import crc32

import lz4.frame
from backports import zstd

MAGIC = b"\x89MCAP0\r\n"
HEADER, FOOTER, SCHEMA, CHANNEL, MESSAGE, CHUNK, MESSAGE_INDEX, CHUNK_INDEX = range(0x01, 0x09)
STATISTICS, METADATA, METADATA_INDEX, SUMMARY_OFFSET, DATA_END = range(0x0B, 0x10)
RECORD = struct.Struct("<BQ")  # kind, length
CHUNK_HEADER = struct.Struct("<QQQI")  # first and last time, size, CRC-32; then compression and data
MESSAGE_HEADER = struct.Struct("<HIQQ")  # channel, sequence, log time, publish time
FOOTER_RECORD = struct.Struct("<BQQQI")  # kind, length, begin of the summary, begin of its offsets, its CRC-32
DECOMPRESS = {"": bytes, "lz4": lz4.frame.decompress, "zstd": zstd.decompress}
CHUNK_BYTES = 2**20
NEVER_NS = 2**63 - 1
NOT_ITS_SUM = "does not have the checksum that was written with it"


class Schema(NamedTuple):
    name: str
    encoding: str
    text: bytes


class Channel(NamedTuple):
    """`schema` is a number; 0 where there is none."""

    schema: int
    topic: str
    encoding: str
    metadata: tuple[tuple[str, str], ...]


class Block(NamedTuple):
    """A chunk, or a message outside of chunks, at `offset` in the file. channels: those of its messages; None: all."""

    begin_ns: int
    end_ns: int
    offset: int
    channels: frozenset[int] | None


class DamageError(ValueError):
    """The file is not what was written."""


class McapFile:
    """A file that was closed; its index where it has one, else it is looked through. A context manager.

    schemas, channels: by their numbers. counts: messages by number of their channel. start_ns, end_ns: times of the
    first and the last message.

    Raises:
        DamageError: the file is cut off, or something in it does not have the checksum written with it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.schemas: dict[int, Schema] = {}
        self.channels: dict[int, Channel] = {}
        self.counts: Counter[int] = Counter()
        self.start_ns, self.end_ns = NEVER_NS, 0
        self._blocks: list[Block] = []
        self._file: BinaryIO = path.open("rb")
        try:
            self._open()
        except (struct.error, IndexError, UnicodeDecodeError) as error:
            self.close()
            raise DamageError(f"{path} is damaged: {error}") from error
        except ValueError:
            self.close()
            raise

    def close(self) -> None:
        self._file.close()

    def __enter__(self) -> McapFile:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def messages(self, channels: Collection[int], *, checked: bool = True) -> Iterator[tuple[int, int, bytes]]:
        """Yield (channel, time in ns, data) in order of time; only with `checked`, checksums count."""
        wanted, waiting = set(channels), []
        blocks = [b for b in self._blocks if b.channels is None or b.channels & wanted]
        for block in sorted(blocks, key=lambda b: (b.begin_ns, b.offset)):
            while waiting and waiting[0][0] < block.begin_ns:
                time_ns, _, _, channel, data = heapq.heappop(waiting)
                yield channel, time_ns, bytes(data)
            for number, (kind, content) in enumerate(self._records(block, checked)):
                if kind == MESSAGE:
                    channel, _, time_ns, _ = MESSAGE_HEADER.unpack_from(content)
                    if channel in wanted:
                        heapq.heappush(
                            waiting, (time_ns, block.offset, number, channel, content[MESSAGE_HEADER.size :])
                        )
        while waiting:
            time_ns, _, _, channel, data = heapq.heappop(waiting)
            yield channel, time_ns, bytes(data)

    def _open(self) -> None:
        self._size = size = self._file.seek(0, 2)
        self._file.seek(0)
        if self._file.read(len(MAGIC)) != MAGIC:
            raise DamageError(f"{self.path} is no MCAP file")
        footer_at = size - len(MAGIC) - FOOTER_RECORD.size
        if footer_at > len(MAGIC):
            self._file.seek(footer_at)
        footer = self._file.read(FOOTER_RECORD.size)
        kind, _, summary, _, crc = FOOTER_RECORD.unpack(footer) if len(footer) == FOOTER_RECORD.size else [0] * 5
        if kind != FOOTER or self._file.read() != MAGIC or not summary <= footer_at:
            raise DamageError(f"{self.path} has no end: it was cut off, or its recorder was killed")
        if summary:
            self._file.seek(summary)
            content = self._file.read(footer_at - summary)
            if crc and crc32(footer[:-4], crc32(content)) != crc:
                raise DamageError(f"{self.path}: the index at its end {NOT_ITS_SUM}")
            if self._read_index(memoryview(content)):
                return
        self._look_through(footer_at)

    def _read_index(self, content: memoryview) -> bool:
        """Whether the summary tells of every message."""
        chunks, counted = 0, None
        for kind, record in records(content):
            fields = Fields(record)
            if kind == SCHEMA:
                number, self.schemas[number] = read_schema(record)
            elif kind == CHANNEL:
                number, self.channels[number] = read_channel(record)
            elif kind == CHUNK_INDEX:
                begin_ns, end_ns, offset, _ = fields.numbers("<QQQQ")
                indexed = struct.iter_unpack("<HQ", fields.block())
                channels = frozenset(channel for channel, _ in indexed)
                self._blocks.append(Block(begin_ns, end_ns, offset, channels or None))
            elif kind == STATISTICS:
                counted, _, _, _, _, chunks, self.start_ns, self.end_ns = fields.numbers("<QHIIIIQQ")
                self.counts.update(dict(struct.iter_unpack("<HQ", fields.block())))
        known = {channel.schema for channel in self.channels.values()} <= {0, *self.schemas}
        if counted is not None and known and (len(self._blocks) == chunks > 0 or not counted):
            if sum(self.counts.values()) == counted:
                return True
        self.schemas, self.channels, self.counts, self._blocks = {}, {}, Counter(), []
        self.start_ns, self.end_ns = NEVER_NS, 0
        return False

    def _look_through(self, end: int) -> None:
        self._file.seek(len(MAGIC))
        while (at := self._file.tell()) + RECORD.size <= end:
            kind, length = RECORD.unpack(self._file.read(RECORD.size))
            if at + RECORD.size + length > end:
                raise DamageError(f"{self.path} is damaged: the record at byte {at} reaches beyond the end")
            if kind == DATA_END:
                return
            if kind not in (SCHEMA, CHANNEL, MESSAGE, CHUNK):
                self._file.seek(length, 1)
                continue
            content = memoryview(self._file.read(length))
            times, channels = [], set()
            for inner, record in self._within(content, at) if kind == CHUNK else ((kind, content),):
                if inner == SCHEMA:
                    number, self.schemas[number] = read_schema(record)
                elif inner == CHANNEL:
                    number, self.channels[number] = read_channel(record)
                elif inner == MESSAGE:
                    channel, _, time_ns, _ = MESSAGE_HEADER.unpack_from(record)
                    times.append(time_ns)
                    channels.add(channel)
                    self.counts[channel] += 1
            if times:
                self._blocks.append(Block(min(times), max(times), at, frozenset(channels)))
                self.start_ns, self.end_ns = min(self.start_ns, *times), max(self.end_ns, *times)

    def _records(self, block: Block, checked: bool) -> Iterator[tuple[int, memoryview]]:
        self._file.seek(block.offset)
        head = self._file.read(RECORD.size)
        kind, length = RECORD.unpack(head) if len(head) == RECORD.size else (0, 0)
        content = memoryview(self._file.read(min(length, self._size)))
        if kind not in (CHUNK, MESSAGE) or len(content) != length:
            raise DamageError(f"{self.path} is damaged: what its index says of byte {block.offset} is not there")
        return self._within(content, block.offset, block, checked) if kind == CHUNK else iter([(kind, content)])

    def _within(
        self, content: memoryview, offset: int, block: Block | None = None, checked: bool = False
    ) -> Iterator[tuple[int, memoryview]]:
        try:
            found = unpack_chunk(content)
            if found.whole or not checked:
                return records(found.content)
            problem = NOT_ITS_SUM
        except ValueError as error:
            problem = str(error)
        when = ""
        if block is not None and self.start_ns < NEVER_NS:
            begin_s, end_s = ((ns - self.start_ns) * 1e-9 for ns in (block.begin_ns, block.end_ns))
            when = f" ({begin_s:.1f} to {end_s:.1f} s after the first message)"
        raise DamageError(f"{self.path}: the chunk at byte {offset}{when} {problem}")


class Unpacked(NamedTuple):
    content: memoryview
    whole: bool  # it has the checksum that was written with it, or none was


def unpack_chunk(content: memoryview) -> Unpacked:
    """A chunk's records. Raises ValueError where they cannot be decompressed to the size that was written."""
    try:
        _, _, size, crc = CHUNK_HEADER.unpack_from(content)
        fields = Fields(content[CHUNK_HEADER.size :])
        compression = fields.text()
        data = fields.take(fields.numbers("<Q")[0])
    except (struct.error, IndexError, UnicodeDecodeError) as error:
        raise ValueError(f"cannot be read ({error})") from error
    if compression not in DECOMPRESS:
        raise ValueError(f"is compressed with {compression!r}; allowed: zstd, lz4 or nothing")
    try:
        unpacked = memoryview(DECOMPRESS[compression](bytes(data)))
    except Exception as error:  # each decompressor has errors of its own
        raise ValueError(f"cannot be decompressed ({error})") from error
    if len(unpacked) != size:
        raise ValueError(f"has {len(unpacked)} bytes; {size} were written")
    return Unpacked(unpacked, not crc or crc32(unpacked) == crc)


def records(content: memoryview) -> Iterator[tuple[int, memoryview]]:
    """(kind, content) of each record. Raises IndexError where one reaches beyond the end."""
    at = 0
    while at < len(content):
        kind, length = RECORD.unpack_from(content, at)
        at += RECORD.size + length
        if at > len(content):
            raise IndexError("a record reaches beyond the end")
        yield kind, content[at - length : at]


def read_schema(record: memoryview) -> tuple[int, Schema]:
    fields = Fields(record)
    return fields.numbers("<H")[0], Schema(fields.text(), fields.text(), bytes(fields.block()))


def read_channel(record: memoryview) -> tuple[int, Channel]:
    fields = Fields(record)
    number, schema = fields.numbers("<HH")
    return number, Channel(schema, fields.text(), fields.text(), tuple(Fields(fields.block()).texts()))


class Fields:
    """Reads a record's fields one after the other. Raises IndexError where they reach beyond the end."""

    def __init__(self, content: memoryview) -> None:
        self._content, self._at = content, 0

    def take(self, size: int) -> memoryview:
        self._at += size
        if self._at > len(self._content):
            raise IndexError("a field reaches beyond the end of its record")
        return self._content[self._at - size : self._at]

    def numbers(self, layout: str) -> tuple:
        return struct.unpack(layout, self.take(struct.calcsize(layout)))

    def block(self) -> memoryview:
        return self.take(self.numbers("<I")[0])

    def text(self) -> str:
        return bytes(self.block()).decode()

    def texts(self) -> Iterator[tuple[str, str]]:
        """Keys and values up to the end."""
        while self._at < len(self._content):
            yield self.text(), self.text()


@dataclass
class Salvaged:
    """What of a file was not whole: `damaged` says where and what, `unread_bytes` are those behind the last record."""

    damaged: list[str] = field(default_factory=list)
    unread_bytes: int = 0


def salvage(path: Path, take: Callable[[int, memoryview], None]) -> Salvaged:
    """Hands every record that is whole to `take`, those in chunks included, whatever else is wrong with the file.

    Schemas and channels come first where the file has them in an index. A chunk that does not have its checksum is left
    out but for those, without which others could not be read.
    """
    found = Salvaged()
    if not path.stat().st_size:
        return found
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        at, end = (len(MAGIC) if data[: len(MAGIC)] == MAGIC else _next_chunk(data, 0)), len(data)
        _take_index(data, take)
        if at < 0:
            found.unread_bytes = end
            return found
        if at != len(MAGIC):
            found.damaged.append(f"{path.name}: the first {at} bytes")
        while at < end and data[at : at + len(MAGIC)] != MAGIC:
            kind, length = RECORD.unpack(data[at : at + RECORD.size]) if at + RECORD.size <= end else (0, 0)
            if not HEADER <= kind <= DATA_END or at + RECORD.size + length > end:
                behind = _next_chunk(data, at + 1)
                if behind < 0:
                    found.unread_bytes = end - at
                    break
                found.damaged.append(f"{path.name}: {behind - at} bytes from byte {at}")
                at = behind
                continue
            content = memoryview(data[at + RECORD.size : at + RECORD.size + length])
            problem = _take(kind, content, take)
            behind = at + RECORD.size + length
            if problem and behind == end:  # not written to its end: what a power failure leaves, for one
                found.unread_bytes = end - at
                break
            if problem:
                found.damaged.append(f"{path.name}: the chunk at byte {at} {problem}")
                inner = _next_chunk(data, at + 1)  # its length may be what is damaged
                behind = inner if 0 <= inner < behind else behind
            at = behind
    return found


def _take(kind: int, content: memoryview, take: Callable[[int, memoryview], None]) -> str:
    """Why a record is not whole; empty where it is."""
    if kind != CHUNK:
        return _each([(kind, content)], take)
    try:
        unpacked = unpack_chunk(content)
        inner = list(records(unpacked.content))
    except (ValueError, IndexError, struct.error) as error:
        return str(error)
    if not unpacked.whole:
        _each([record for record in inner if record[0] in (SCHEMA, CHANNEL)], take)
        return NOT_ITS_SUM
    return _each(inner, take)


def _take_index(data: mmap.mmap, take: Callable[[int, memoryview], None]) -> None:
    footer_at = len(data) - len(MAGIC) - FOOTER_RECORD.size
    if footer_at > 0 and data[-len(MAGIC) :] == MAGIC:
        summary = FOOTER_RECORD.unpack(data[footer_at : footer_at + FOOTER_RECORD.size])[2]
        with suppress(IndexError, struct.error):
            index = records(memoryview(data[summary:footer_at] if summary else b""))
            _each([item for item in index if item[0] in (SCHEMA, CHANNEL)], take)


def _each(found: list[tuple[int, memoryview]], take: Callable[[int, memoryview], None]) -> str:
    problem = ""
    for kind, record in found:
        try:
            take(kind, record)
        except (IndexError, UnicodeDecodeError, struct.error) as error:
            problem = f"holds a record that cannot be read ({error})"
    return problem


def _next_chunk(data: mmap.mmap, begin: int) -> int:
    """Where the next compressed chunk begins; -1 where there is none."""
    before = RECORD.size + CHUNK_HEADER.size
    found = [
        at - before
        for name in (b"zstd", b"lz4")
        if (at := _find(data, struct.pack("<I", len(name)) + name, begin + before)) >= 0
    ]
    return min(found, default=-1)


def _find(data: mmap.mmap, mark: bytes, begin: int) -> int:
    at = data.find(mark, begin)
    while at >= 0:
        head = at - CHUNK_HEADER.size - RECORD.size
        kind, length = RECORD.unpack(data[head : head + RECORD.size])
        if kind == CHUNK and head + RECORD.size + length <= len(data):
            return at
        at = data.find(mark, at + 1)
    return -1


class McapWriter:
    """A new file: messages in chunks of zstd, each with its checksum, and an index. Not thread-safe.

    Raises:
        FileExistsError: there is something at `path` already.
    """

    def __init__(self, path: Path, *, profile: str, library: str) -> None:
        self.path = path
        self._file = path.open("xb")
        self._file.write(MAGIC + _record(HEADER, _text(profile) + _text(library)))
        self._schemas: list[bytes] = []  # records, as they stand in the index too
        self._channels: list[bytes] = []
        self._chunk_indexes: list[bytes] = []
        self._counts: Counter[int] = Counter()
        self._start_ns, self._end_ns = NEVER_NS, 0
        self._begin_chunk()

    def add_schema(self, schema: Schema) -> int:
        number = len(self._schemas) + 1
        content = struct.pack("<H", number) + _text(schema.name) + _text(schema.encoding) + _block(schema.text)
        self._schemas.append(_record(SCHEMA, content))
        self._chunk += self._schemas[-1]
        return number

    def add_channel(self, channel: Channel) -> int:
        number = len(self._channels) + 1
        metadata = b"".join(_text(key) + _text(value) for key, value in channel.metadata)
        content = struct.pack("<HH", number, channel.schema) + _text(channel.topic) + _text(channel.encoding)
        self._channels.append(_record(CHANNEL, content + _block(metadata)))
        self._chunk += self._channels[-1]
        self._counts[number] = 0
        return number

    def write(self, channel: int, time_ns: int, data: bytes | memoryview) -> None:
        self._index[channel].append((time_ns, len(self._chunk)))
        self._begin_ns, self._last_ns = min(self._begin_ns, time_ns), max(self._last_ns, time_ns)
        self._chunk += RECORD.pack(MESSAGE, MESSAGE_HEADER.size + len(data))
        self._chunk += MESSAGE_HEADER.pack(channel, 0, time_ns, time_ns)
        self._chunk += data
        self._counts[channel] += 1
        if len(self._chunk) > CHUNK_BYTES:
            self._end_chunk()

    def flush(self) -> None:
        """Hand the chunk begun to the file."""
        if self._index:
            self._end_chunk()
        self._file.flush()

    def close(self, metadata: tuple[str, dict[str, str]]) -> None:
        """`metadata`: a name, and keys with their values."""
        if self._chunk:
            self._end_chunk()
        name, values = metadata
        content = _text(name) + _block(b"".join(_text(key) + _text(value) for key, value in values.items()))
        metadata_at, metadata_record = self._file.tell(), _record(METADATA, content)
        self._file.write(metadata_record + _record(DATA_END, struct.pack("<I", 0)))
        counts = b"".join(struct.pack("<HQ", *item) for item in sorted(self._counts.items()))
        numbers = (self._counts.total(), len(self._schemas), len(self._channels), 0, 1, len(self._chunk_indexes))
        groups = {
            SCHEMA: b"".join(self._schemas),
            CHANNEL: b"".join(self._channels),
            CHUNK_INDEX: b"".join(self._chunk_indexes),
            METADATA_INDEX: _record(
                METADATA_INDEX, struct.pack("<QQ", metadata_at, len(metadata_record)) + _text(name)
            ),
            STATISTICS: _record(
                STATISTICS, struct.pack("<QHIIIIQQ", *numbers, self._start_ns, self._end_ns) + _block(counts)
            ),
        }
        summary_at, summary, offsets = self._file.tell(), b"", b""
        for kind, group in groups.items():
            if group:
                offsets += _record(SUMMARY_OFFSET, struct.pack("<BQQ", kind, summary_at + len(summary), len(group)))
            summary += group
        footer = FOOTER_RECORD.pack(FOOTER, 20, summary_at, summary_at + len(summary), 0)[:-4]
        summary += offsets
        self._file.write(summary + footer + struct.pack("<I", crc32(footer, crc32(summary))) + MAGIC)
        self._file.close()

    def abort(self) -> None:
        """Close the file without an index."""
        self._file.close()

    def _begin_chunk(self) -> None:
        self._chunk = bytearray()
        self._index: dict[int, list[tuple[int, int]]] = defaultdict(list)
        self._begin_ns, self._last_ns = NEVER_NS, 0

    def _end_chunk(self) -> None:
        begin_ns, last_ns = (self._begin_ns, self._last_ns) if self._index else (0, 0)
        packed, size = zstd.compress(bytes(self._chunk)), len(self._chunk)
        head = CHUNK_HEADER.pack(begin_ns, last_ns, size, crc32(self._chunk)) + _text("zstd")
        chunk = _record(CHUNK, head + struct.pack("<Q", len(packed)) + packed)
        at, indexes, places = self._file.tell(), b"", b""
        for channel, entries in self._index.items():
            places += struct.pack("<HQ", channel, at + len(chunk) + len(indexes))
            entry = b"".join(struct.pack("<QQ", *item) for item in entries)
            indexes += _record(MESSAGE_INDEX, struct.pack("<H", channel) + _block(entry))
        self._file.write(chunk + indexes)
        content = struct.pack("<QQQQ", begin_ns, last_ns, at, len(chunk)) + _block(places)
        content += struct.pack("<Q", len(indexes)) + _text("zstd") + struct.pack("<QQ", len(packed), size)
        self._chunk_indexes.append(_record(CHUNK_INDEX, content))
        if self._index:
            self._start_ns, self._end_ns = min(self._start_ns, begin_ns), max(self._end_ns, last_ns)
        self._begin_chunk()


def _record(kind: int, content: bytes) -> bytes:
    return RECORD.pack(kind, len(content)) + content


def _block(data: bytes) -> bytes:
    return struct.pack("<I", len(data)) + data


def _text(text: str) -> bytes:
    return _block(text.encode())
