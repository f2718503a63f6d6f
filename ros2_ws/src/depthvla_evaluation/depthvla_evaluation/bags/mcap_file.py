"""Files of the MCAP format, read with their checksums, and as far as they are whole.

Own code beside the library, which does not check the index's checksum nor say where damage is, takes what is cut short
as it is, and reads nothing behind damage.
"""

from __future__ import annotations

import io
import mmap
import re
import struct
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple
from zlib import crc32

from mcap.exceptions import EndOfFile, McapError
from mcap.opcode import Opcode
from mcap.reader import FOOTER_SIZE, NonSeekingReader, SeekingReader
from mcap.records import Channel, Chunk, ChunkIndex, Footer, McapRecord, Message, Schema
from mcap.stream_reader import MAGIC_SIZE, CRCValidationError, StreamReader, get_chunk_data_stream
from mcap.writer import MCAP0_MAGIC as MAGIC

KINDS = frozenset(Opcode)
RECOVERED = {Opcode.SCHEMA, Opcode.CHANNEL, Opcode.MESSAGE, Opcode.CHUNK, Opcode.METADATA}  # the others are an index
RECORD = struct.Struct("<BQ")  # kind, length
CRC_SIZE = 4
COMPRESSIONS = ("zstd", "lz4", "")
COMPRESSED_CHUNK = re.compile(rb"\x06(?=(.{8}).{28}(?:\x04\0\0\0zstd|\x03\0\0\0lz4))", re.DOTALL)
NEVER_NS = 2**63 - 1
NOT_ITS_SUM = "does not have the checksum that was written with it"


class DamageError(ValueError):
    """The file is not what was written."""


class Connection(NamedTuple):
    """A topic of a file. encoding, definition: of its type, as the recorder kept it; empty where it kept none. qos:
    text or lists. count: of its messages.
    """

    topic: str
    msgtype: str
    encoding: str
    definition: str
    qos: Any
    count: int = 0


def connection(channel: Channel, schema: Schema | None) -> Connection:
    name, encoding, text = (schema.name, schema.encoding, schema.data) if schema else ("", "", b"")
    qos = channel.metadata.get("offered_qos_profiles", "")
    return Connection(channel.topic, name, encoding, text.decode(errors="replace"), qos)


class _StrictReader(io.BufferedReader):
    """Gives as many bytes as are asked for or raises EndOfFile, whatever size damage makes of it."""

    def __init__(self, raw: io.FileIO | io.BytesIO) -> None:
        super().__init__(raw)
        self.end = self.seek(0, io.SEEK_END)
        self.seek(0)

    def read(self, size: int) -> bytes:
        if size > self.end - self.tell():
            raise EndOfFile("it ends too early")
        return super().read(size)

    def frame(self, at: int) -> tuple[int, int]:
        """Kind of the record at a byte, and where it ends; 0, 0 where it reaches beyond the end."""
        self.seek(at)
        if at + RECORD.size > self.end:
            return 0, 0
        kind, length = RECORD.unpack(self.read(RECORD.size))
        behind = at + RECORD.size + length
        return (kind, behind) if behind <= self.end else (0, 0)

    def record(self, at: int, behind: int) -> McapRecord:
        self.seek(at)
        frame = _StrictReader(io.BytesIO(self.read(behind - at)))
        return next(StreamReader(frame, skip_magic=True, emit_chunks=True).records)

    def frames(self) -> Iterator[tuple[int, int]]:
        """Begin and end of each record; those of other kinds than RECOVERED are left out."""
        at = 0
        while at < self.end:
            kind, behind = self.frame(at)
            if not behind:
                raise EndOfFile("a record in it reaches beyond its end")
            if kind in RECOVERED:
                yield at, behind
            at = behind

    def footer(self) -> Footer:
        self.seek(max(self.end - FOOTER_SIZE - MAGIC_SIZE, 0))
        (footer,) = StreamReader(self, skip_magic=True).records
        return footer


class McapFile:
    """A file that was closed; its index where it has one, else it is looked through.

    start_ns, end_ns: times of the first and the last message.

    Raises:
        DamageError: the file is cut off, or something in it does not have the checksum written with it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._schemas: dict[int, Schema] = {}
        self._channels: dict[int, Channel] = {}
        self._counts: Counter[int] = Counter()
        self.start_ns, self.end_ns = NEVER_NS, 0
        self._chunks: list[ChunkIndex] = []
        self._in_order = False
        with _StrictReader(io.FileIO(path)) as file, _as_damage(lambda: f"{path} is damaged: it"):
            self._indexed = self._read_index(file)
            if not self._indexed:
                self._look_through(file)
        self._connections: dict[int, Connection] = {}
        for number, channel in self._channels.items():
            known = connection(channel, self._schemas.get(channel.schema_id))
            if channel.message_encoding != "cdr":  # a recording of something else in the same kind of file
                known = known._replace(encoding=channel.message_encoding)
            self._connections[number] = known._replace(count=self._counts[number])

    @property
    def connections(self) -> list[Connection]:
        return list(self._connections.values())

    def messages(self, topics: Collection[str]) -> Iterator[tuple[Connection, int, bytes]]:
        """Yield (connection, time in ns, data) in order of time.

        Without an index, and not written in order of time, they are all in memory at once.
        """
        kind = SeekingReader if self._indexed else NonSeekingReader
        with _StrictReader(io.FileIO(self.path)) as file, _as_damage(lambda: self._last_read(file)):
            self._compare_heads(file)
            reader = kind(file, validate_crcs=True)
            for _, _, message in reader.iter_messages(topics, log_time_order=not self._in_order):
                yield self._connections[message.channel_id], message.log_time, message.data

    def _read_index(self, file: _StrictReader) -> bool:
        """Whether it tells of every message."""
        if file.end < MAGIC_SIZE or file.read(MAGIC_SIZE) != MAGIC:
            raise DamageError(f"{self.path} is no MCAP file")
        with _as_damage(lambda: f"{self.path} has no end: it was cut off, or its recorder was killed; its footer"):
            footer = file.footer()
            file.seek(min(footer.summary_start, file.end))
        if not footer.summary_start:
            return False
        content = file.read(file.end - MAGIC_SIZE - CRC_SIZE - footer.summary_start)
        if footer.summary_crc and crc32(content) != footer.summary_crc:
            raise DamageError(f"{self.path}: the index at its end {NOT_ITS_SUM}")
        file.seek(0)
        summary = SeekingReader(file).get_summary()
        chunks, counted = summary.chunk_indexes, summary.statistics
        if other := {chunk.compression for chunk in chunks}.difference(COMPRESSIONS):
            raise DamageError(f"{self.path} is compressed with {sorted(other)}; allowed: zstd, lz4 or nothing")
        if counted is None or not len(chunks) == counted.chunk_count >= bool(counted.message_count):
            return False
        counts = Counter(counted.channel_message_counts)
        channels = counts.keys() | set().union(*(chunk.message_index_offsets for chunk in chunks))
        schemas = {channel.schema_id for channel in summary.channels.values()}
        undefined = channels - summary.channels.keys() or schemas - {0, *summary.schemas}
        if undefined or counts.total() != counted.message_count:
            return False
        self._schemas, self._channels, self._counts, self._chunks = summary.schemas, summary.channels, counts, chunks
        if counted.message_count:
            self.start_ns, self.end_ns = counted.message_start_time, counted.message_end_time
        return True

    def _look_through(self, file: _StrictReader) -> None:
        file.seek(0)
        self._in_order = True
        for record in StreamReader(file).records:
            if isinstance(record, Schema):
                self._schemas[record.id] = record
            elif isinstance(record, Channel):
                self._channels[record.id] = record
            elif isinstance(record, Message):
                self._counts[record.channel_id] += 1
                self._in_order &= record.log_time >= self.end_ns
                self.start_ns, self.end_ns = min(self.start_ns, record.log_time), max(self.end_ns, record.log_time)

    def _compare_heads(self, file: _StrictReader) -> None:
        """A chunk whose head, with the checksum, is zeros would be read as an empty one."""
        for chunk in self._chunks:
            name = chunk.compression.encode()
            sizes = (chunk.chunk_length - RECORD.size, chunk.uncompressed_size)
            layout = struct.Struct(f"<BQ16xQ4xI{len(name)}sQ")
            file.seek(chunk.chunk_start_offset)
            head = layout.unpack(file.read(layout.size))
            if head != (Opcode.CHUNK, *sizes, len(name), name, chunk.compressed_size):
                raise ValueError("its index speaks of another one")
        file.seek(0)

    def _last_read(self, file: _StrictReader) -> str:
        passed = [chunk for chunk in self._chunks if chunk.chunk_start_offset < file.tell()]
        if not passed:
            return f"{self.path}: what is before byte {file.tell()}"
        chunk = max(passed, key=lambda chunk: chunk.chunk_start_offset)
        begin_s, end_s = ((ns - self.start_ns) * 1e-9 for ns in (chunk.message_start_time, chunk.message_end_time))
        when = f"{begin_s:.1f} to {end_s:.1f} s after the first message"
        return f"{self.path}: the chunk at byte {chunk.chunk_start_offset} ({when})"


@contextmanager
def _as_damage(what: Callable[[], str]) -> Iterator[None]:
    """Makes a DamageError of the many errors that the library and its decompressors raise."""
    try:
        yield
    except (DamageError, OSError):
        raise
    except Exception as error:
        problem = NOT_ITS_SUM if isinstance(error, CRCValidationError) else f"cannot be read ({error!r})"
        raise DamageError(f"{what()} {problem}") from error


@dataclass
class Salvaged:
    """What of a file was not whole: `damaged` says where and what, `unread_bytes` are those behind the last record."""

    damaged: list[str] = field(default_factory=list)
    unread_bytes: int = 0


def salvage(path: Path, take: Callable[[McapRecord], None]) -> Salvaged:
    """Hands every whole record of RECOVERED to `take`, those in chunks included, whatever else is wrong with the file.

    Schemas and channels come first where the file has them in an index. A chunk that does not have its checksum is left
    out but for those, without which others could not be read.
    """
    salvaged, end = Salvaged(), path.stat().st_size
    if not end:
        return salvaged
    with _StrictReader(io.FileIO(path)) as file, mmap.mmap(file.fileno(), end, access=mmap.ACCESS_READ) as data:
        with suppress(McapError, OSError, ValueError, struct.error):
            file.seek(file.footer().summary_start or end)
            for record in StreamReader(file, skip_magic=True).records:
                if isinstance(record, Schema | Channel):
                    take(record)
        at = MAGIC_SIZE if data[:MAGIC_SIZE] == MAGIC else _next_chunk(data, 0)
        if at > MAGIC_SIZE:
            if at < end:
                salvaged.damaged.append(f"{path.name}: the first {at} bytes")
            else:
                salvaged.unread_bytes = end
        while at < end and data[at : at + MAGIC_SIZE] != MAGIC:
            (kind, behind), problem = file.frame(at), ""
            if kind not in KINDS:
                behind = _next_chunk(data, at + 1)
                problem = f"{behind - at} bytes from byte {at}"
            elif kind in RECOVERED and (problem := _take(file, at, behind, take)):
                problem = f"the chunk at byte {at} {problem}"
            if problem and behind == end:  # not written to its end: what a power failure leaves, for one
                salvaged.unread_bytes = end - at
                break
            if problem:
                salvaged.damaged.append(f"{path.name}: {problem}")
                behind = min(behind, _next_chunk(data, at + 1))  # its length may be what is damaged
            at = behind
    return salvaged


def _take(file: _StrictReader, at: int, behind: int, take: Callable[[McapRecord], None]) -> str:
    """Why a record, or a chunk of them, is not whole; empty where it is."""
    problem, frames = "", [(at, behind)]
    try:
        if isinstance(chunk := file.record(at, behind), Chunk):
            stream, size = get_chunk_data_stream(chunk)
            if chunk.compression not in COMPRESSIONS or size != chunk.uncompressed_size:
                return f"has {size} bytes ({chunk.compression or 'raw'}); {chunk.uncompressed_size} were written"
            content = stream.read(size)
            if chunk.uncompressed_crc and crc32(content) != chunk.uncompressed_crc:
                problem = NOT_ITS_SUM
            file = _StrictReader(io.BytesIO(content))
            frames = list(file.frames())
    except Exception as error:  # the library and each decompressor have errors of their own
        return f"cannot be read ({error})"
    whole = not problem
    for frame in frames:
        try:
            record = file.record(*frame)
        except (McapError, ValueError, struct.error) as error:
            problem = problem or f"holds a record that cannot be read ({error})"
            continue
        if whole or isinstance(record, Schema | Channel):
            take(record)
    return problem


def _next_chunk(data: mmap.mmap, begin: int) -> int:
    """Where the next compressed chunk begins; the end where there is none."""
    for match in COMPRESSED_CHUNK.finditer(data, begin):
        if match.start() + RECORD.size + int.from_bytes(match[1], "little") <= len(data):
            return match.start()
    return len(data)
