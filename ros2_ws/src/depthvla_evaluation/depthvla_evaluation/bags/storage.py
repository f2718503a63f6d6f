"""The files of a rosbag2 recording, whoever wrote them: MCAP or SQLite, whole, split or compressed, closed or not.

Own code beside rosbags' reader, which refuses a whole bag for one type without a definition.
"""

from __future__ import annotations

import shutil
import sqlite3
import tempfile
from collections.abc import Collection, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path, PurePath

import yaml
from backports import zstd

from depthvla_evaluation.bags.mcap_file import NEVER_NS, Connection, DamageError, McapFile

METADATA = "metadata.yaml"


@dataclass(frozen=True)
class Metadata:
    """files: in the order of the recording. compression: "file", "message" or none. types: topic -> type. messages: how
    many there are.
    """

    files: tuple[Path, ...]
    compression: str = ""
    distribution: str = ""
    custom: dict[str, str] = field(default_factory=dict)
    types: dict[str, str] = field(default_factory=dict)
    messages: int = 0


class Sqlite:
    """Connections and messages of one SQLite file. Nothing is written to it, not even what SQLite would repair."""

    def __init__(self, path: Path, *, repair: bool = False) -> None:
        """`repair`: let SQLite finish or undo what a killed recorder had begun, in a file that is a copy."""
        self._path = path
        self._base = sqlite3.connect(path if repair else f"{path.resolve().as_uri()}?immutable=1", uri=not repair)
        try:
            tables = {name for (name,) in self._base.execute("SELECT name FROM sqlite_master WHERE type='table'")}
            if not {"messages", "topics"} <= tables:
                raise DamageError(f"{path} has no tables of a recording")
            columns = [row[1] for row in self._base.execute("PRAGMA table_info(topics)")]
            definitions = {}
            if "message_definitions" in tables:
                columns_kept = "topic_type, encoding, encoded_message_definition"
                rows = self._base.execute(f"SELECT {columns_kept} FROM message_definitions")
                definitions = {name: (encoding, text) for name, encoding, text in rows}
            qos = "offered_qos_profiles" if "offered_qos_profiles" in columns else "''"
            self._connections = {}
            for number, topic, msgtype, form, profiles in self._base.execute(
                f"SELECT id, name, type, serialization_format, {qos} FROM topics"
            ):
                encoding, text = definitions.get(msgtype, ("", ""))
                encoding = encoding if form == "cdr" else form
                self._connections[number] = Connection(topic, msgtype, encoding, text, profiles, 0)
            self.start_ns, self.end_ns = NEVER_NS, 0
            if not repair:
                self._count()
            distribution = "SELECT ros_distro FROM schema" if "schema" in tables else "SELECT ''"
            self.distribution = (self._base.execute(distribution).fetchone() or ("",))[0]
        except sqlite3.Error as error:
            self.close()
            raise DamageError(f"{path} cannot be read as an SQLite recording: {error}") from error
        except ValueError:
            self.close()
            raise

    @property
    def connections(self) -> list[Connection]:
        return list(self._connections.values())

    def _count(self) -> None:
        for number, count in self._base.execute("SELECT topic_id, count(*) FROM messages GROUP BY topic_id"):
            if number in self._connections:
                self._connections[number] = self._connections[number]._replace(count=count)
        start_ns, end_ns = self._base.execute("SELECT min(timestamp), max(timestamp) FROM messages").fetchone()
        if start_ns is not None:
            self.start_ns, self.end_ns = start_ns, end_ns

    def messages(self, topics: Collection[str]) -> Iterator[tuple[Connection, int, bytes]]:
        """(connection, time of reception in ns, data) in order of time. SQLite keeps no checksums."""
        wanted = [number for number, item in self._connections.items() if item.topic in topics]
        marks = ", ".join("?" * len(wanted))
        query = f"SELECT topic_id, timestamp, data FROM messages WHERE topic_id IN ({marks}) ORDER BY timestamp, id"
        try:
            for number, time_ns, data in self._base.execute(query, wanted):
                yield self._connections[number], time_ns, data
        except sqlite3.Error as error:
            raise DamageError(f"{self._path} is damaged: {error}") from error

    def whole_messages(self) -> Iterator[tuple[Connection, int, bytes] | str]:
        """Every message that can be read, in the order in which they were written; a text in place of those between
        that cannot.
        """
        last, done, step = 0, 0, 1
        with suppress(sqlite3.Error):
            (last,) = self._base.execute("SELECT max(id) FROM messages").fetchone()
        query = "SELECT id, topic_id, timestamp, data FROM messages WHERE id > ? ORDER BY id"
        while True:
            try:
                for number, topic, time_ns, data in self._base.execute(query, (done,)):
                    done, step = number, 1
                    if topic in self._connections:
                        yield self._connections[topic], time_ns, data
                return
            except sqlite3.Error as error:
                yield f"{self._path.name}: messages behind number {done} ({error})"
                done, step = done + step, 2 * step
            if done >= (last or 0):
                return

    def close(self) -> None:
        self._base.close()


OPEN = {".mcap": McapFile, ".db3": Sqlite}


class Files:
    """A recording's files, opened: a folder with metadata.yaml, or one file.

    connections: of all files, one for each topic and type. start_ns, end_ns: times of the first and the last message.

    Raises:
        ValueError: the metadata cannot be read, or a file is missing, of an unknown kind or not what was written.
    """

    def __init__(self, path: Path) -> None:
        self._stack = ExitStack()
        try:
            self.metadata = read_metadata(path) if path.is_dir() else Metadata(files=(path,))
            self._files = [self._open(file) for file in self.metadata.files]
        except BaseException:
            self._stack.close()
            raise
        self._connections: dict[tuple[str, str], Connection] = {}
        for connection in (connection for file in self._files for connection in file.connections):
            known = self._connections.get(self._key(connection))
            count = connection.count + (known.count if known else 0)
            better = known if known and known.definition else connection
            msgtype = connection.msgtype or self.metadata.types.get(connection.topic, "")
            self._connections[self._key(connection)] = better._replace(count=count, msgtype=msgtype)
        self.start_ns = min((file.start_ns for file in self._files), default=NEVER_NS)
        self.end_ns = max((file.end_ns for file in self._files), default=0)
        distributions = (getattr(file, "distribution", "") for file in self._files)
        self.distribution = self.metadata.distribution or next(distributions, "")

    @property
    def connections(self) -> list[Connection]:
        return list(self._connections.values())

    def messages(self, topics: Collection[str]) -> Iterator[tuple[Connection, int, bytes]]:
        """(connection, time of reception in ns, data), file after file, each in order of time."""
        for file in self._files:
            for connection, time_ns, data in file.messages(topics):
                if self.metadata.compression == "message":
                    data = _decompressed(data, connection.topic)
                yield self._connections[self._key(connection)], time_ns, data

    def close(self) -> None:
        self._stack.close()

    def _open(self, path: Path) -> McapFile | Sqlite:
        if self.metadata.compression == "file":
            folder = self._stack.enter_context(tempfile.TemporaryDirectory())
            unpacked = Path(folder) / path.stem
            try:
                with zstd.open(path) as source, unpacked.open("wb") as target:
                    shutil.copyfileobj(source, target)
            except (zstd.ZstdError, EOFError) as error:
                raise DamageError(f"{path} cannot be decompressed ({error})") from error
            path = unpacked
        if path.suffix not in OPEN:
            raise ValueError(f"{path} is no recording; allowed: a rosbag2 folder, {' or '.join(OPEN)}")
        file = OPEN[path.suffix](path)
        if isinstance(file, Sqlite):
            self._stack.callback(file.close)
        return file

    @staticmethod
    def _key(connection: Connection) -> tuple[str, str]:
        return connection.topic, connection.msgtype


def read_metadata(folder: Path) -> Metadata:
    """What metadata.yaml of a recording says.

    Raises:
        ValueError: it cannot be read, or a file that it names is missing.
    """
    path = folder / METADATA
    try:
        raw = yaml.load(path.read_text(), getattr(yaml, "CSafeLoader", yaml.SafeLoader))["rosbag2_bagfile_information"]
        # Older recorders wrote the folder's name in front.
        files = tuple(folder / PurePath(name).name for name in raw["relative_file_paths"])
        topics = [row["topic_metadata"] for row in raw.get("topics_with_message_count") or ()]
        compression = str(raw.get("compression_mode") or "").lower()
        metadata = Metadata(
            files=files,
            compression=compression if compression in ("file", "message") else "",
            distribution=str(raw.get("ros_distro") or ""),
            custom={str(key): str(value) for key, value in (raw.get("custom_data") or {}).items()},
            types={row["name"]: row["type"] for row in topics},
            messages=int(raw.get("message_count") or 0),
        )
        how = raw.get("compression_format") or "zstd"
    except (AttributeError, KeyError, TypeError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ValueError(f"{path} is no rosbag2 metadata ({error!r})") from error
    missing = [str(file) for file in files if not file.exists()]
    if missing:
        raise ValueError(f"{path} names {', '.join(missing)}, which is not there")
    if metadata.compression and how != "zstd":
        raise ValueError(f"{path}: compression_format is {how!r}; allowed: 'zstd'")
    return metadata


def _decompressed(data: bytes, topic: str) -> bytes:
    try:
        return zstd.decompress(data)
    except zstd.ZstdError as error:
        raise DamageError(f"a message of {topic} cannot be decompressed ({error})") from error
