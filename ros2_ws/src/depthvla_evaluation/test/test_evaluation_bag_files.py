"""Bags of every recorder are read as far as they can be; what is damaged or not defined is named, with what to do."""

from __future__ import annotations

import sqlite3
import struct
import sys
from pathlib import Path
from zlib import crc32

import pytest
import yaml
from backports import zstd
from mcap.reader import make_reader
from mcap.records import Chunk, Footer
from mcap.stream_reader import StreamReader
from mcap.writer import CompressionType
from mcap.writer import Writer as McapWriter
from rosbags.rosbag2 import Reader, StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore
from synthetic_bag import SyntheticBag
from test_data_from_bags import write_bag

from depthvla_evaluation.bags.bag import Bag
from depthvla_evaluation.bags.mcap_file import MAGIC, McapFile
from depthvla_evaluation.bags.new_bag import NewBag
from depthvla_evaluation.dataset import from_bags
from depthvla_evaluation.report import build

STRING = "std_msgs/msg/String"
TEXT = (STRING, "ros2msg", b"string data\n")


def string(text: str) -> bytes:
    data = text.encode() + b"\0"
    return b"\x00\x01\x00\x00" + struct.pack("<I", len(data)) + data


def words(path: Path) -> list[str]:
    with Bag(path) as bag:
        return [message.data for _, _, message in bag.messages(["/words"])]


def metadata(folder: Path, file: str, *, storage="mcap", mode="", topics=(("/words", STRING),), **more) -> Path:
    about = {
        "version": 5,
        "storage_identifier": storage,
        "relative_file_paths": [file] if isinstance(file, str) else list(file),
        "compression_format": "zstd" if mode else "",
        "compression_mode": mode,
        "topics_with_message_count": [
            {"message_count": 1, "topic_metadata": {"name": name, "type": kind}} for name, kind in topics
        ],
        **more,
    }
    (folder / "metadata.yaml").write_text(yaml.safe_dump({"rosbag2_bagfile_information": about}))
    return folder


def mcap_file(path: Path, texts, schemas=(), begin: int = 0, **how) -> Path:
    """The messages of /words, and a message of /other of each further schema (name, encoding, text)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        writer = McapWriter(file, **how)
        writer.start("ros2", "test")
        number = writer.register_channel("/words", "cdr", writer.register_schema(*TEXT))
        for schema in schemas:
            other = writer.register_channel("/other", "cdr", writer.register_schema(*schema) if schema else 0)
            writer.add_message(other, begin, b"\0\1\0\0\1\0\0\0", begin)
        for place, text in enumerate(texts):
            writer.add_message(number, begin + place, string(text), begin + place)
        writer.finish()
    return path


def db3(path: Path, texts, *, definitions: bool, wal: bool = False) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    base = sqlite3.connect(path)
    if wal:
        base.execute("PRAGMA journal_mode=WAL")
        base.execute("PRAGMA wal_autocheckpoint=0")
    base.executescript(
        "CREATE TABLE schema(schema_version INTEGER PRIMARY KEY, ros_distro TEXT NOT NULL);"
        "CREATE TABLE topics(id INTEGER PRIMARY KEY,name TEXT,type TEXT,serialization_format TEXT,"
        "offered_qos_profiles TEXT);"
        "CREATE TABLE messages(id INTEGER PRIMARY KEY,topic_id INTEGER,timestamp INTEGER, data BLOB);"
    )
    base.execute("INSERT INTO schema VALUES(?, 'humble')", (4 if definitions else 3,))
    if definitions:
        base.execute(
            "CREATE TABLE message_definitions(id INTEGER PRIMARY KEY,topic_type TEXT,encoding TEXT,"
            "encoded_message_definition TEXT,type_description_hash TEXT)"
        )
        base.execute("INSERT INTO message_definitions VALUES(1, ?, 'ros2msg', 'string data', '')", (STRING,))
    base.execute("INSERT INTO topics VALUES(1,'/words',?,'cdr','')", (STRING,))
    rows = [(1000 + n, string(text)) for n, text in enumerate(texts)]
    base.executemany("INSERT INTO messages(topic_id,timestamp,data) VALUES(1,?,?)", rows)
    base.commit()
    if not wal:
        base.close()
    return path


def test_a_new_bag_is_named_as_rosbag2_names_it_and_read_by_another_library(tmp_path):
    bag = NewBag(tmp_path / "bag")
    topic = bag.add_topic("/words", STRING, encoding="ros2msg", definition="string data\n", hash_="RIHS01_0")
    for number in range(3000):
        bag.write(topic, 10 + number, string("x" * 1000 + str(number)))
    bag.close({"outcome": "success", "notes": "naïve: 'yes'\n- no"})
    assert sorted(path.name for path in (tmp_path / "bag").iterdir()) == ["bag_0.mcap", "metadata.yaml"]
    with Reader(tmp_path / "bag") as reader:
        assert reader.message_count == 3000 and (reader.start_time, reader.duration) == (10, 3000)
        assert [data for _, _, data in reader.messages()] == [string("x" * 1000 + str(n)) for n in range(3000)]
    with Bag(tmp_path / "bag") as opened:
        assert opened.custom_data == {"outcome": "success", "notes": "naïve: 'yes'\n- no"}
        assert opened.topics["/words"].count == 3000 and opened.duration_s == pytest.approx(2999e-9)
    assert words(tmp_path / "bag") == words(tmp_path / "bag/bag_0.mcap")


def test_bags_that_were_named_otherwise_are_still_read(tmp_path):
    mcap_file(tmp_path / "bag/bag.mcap", "ab")
    assert words(metadata(tmp_path / "bag", "bag.mcap")) == ["a", "b"]


def test_every_chunk_and_the_index_carry_a_checksum(tmp_path):
    bag = NewBag(tmp_path / "a")
    topic = bag.add_topic("/words", STRING, encoding="ros2msg", definition="string data\n")
    for place, text in enumerate("abc"):
        bag.write(topic, place, string(text))
    bag.close({})
    path = tmp_path / "a/a_0.mcap"
    data = path.read_bytes()
    found = list(StreamReader(str(path), emit_chunks=True).records)
    (footer,) = [record for record in found if isinstance(record, Footer)]
    assert footer.summary_crc == crc32(data[footer.summary_start : -12])
    assert all(record.uncompressed_crc for record in found if isinstance(record, Chunk))
    for place in range(len(MAGIC) + 30, len(data) - 8):
        path.write_bytes(data[:place] + bytes([data[place] ^ 0x10]) + data[place + 1 :])
        try:
            found = [message for _, _, message in McapFile(path).messages(["/words"])]
        except ValueError as error:
            assert str(path) in str(error)
        else:  # between the chunk and the index is nothing that is read
            assert found == [string(text) for text in "abc"], place


@pytest.mark.parametrize("size", [20, 60, 400])
def test_a_chunk_whose_head_is_zeros_is_not_read_as_an_empty_one(tmp_path, size):
    path = mcap_file(tmp_path / "a.mcap", "abcdefgh" * 10, chunk_size=500)
    (second,) = list(make_reader(path.open("rb")).get_summary().chunk_indexes)[1:2]
    data = bytearray(path.read_bytes())
    begin = second.chunk_start_offset + 20
    data[begin : begin + size] = bytes(size)
    path.write_bytes(data)
    with pytest.raises(ValueError, match=f"the chunk at byte {second.chunk_start_offset} .* s after the first message"):
        words(path)


@pytest.mark.parametrize("plugin", [StoragePlugin.MCAP, StoragePlugin.SQLITE3])
def test_another_librarys_bags_are_read(tmp_path, plugin):
    store = get_typestore(Stores.ROS2_JAZZY)
    with Writer(tmp_path / "bag", version=9, storage_plugin=plugin) as writer:
        topic = writer.add_connection("/words", STRING, typestore=store)
        for number in range(3):
            writer.write(topic, 5 + number, string(str(number)))
    assert words(tmp_path / "bag") == ["0", "1", "2"]
    with Bag(tmp_path / "bag") as bag:
        assert (bag.start_ns, bag.topics["/words"].count, bag.remarks) == (5, 3, [])


def test_split_and_compressed_bags_are_read(tmp_path):
    for number, texts in enumerate(("ab", "cd")):
        path = mcap_file(tmp_path / f"bag/bag_{number}.mcap", texts, begin=10 * number)
        path.with_suffix(".mcap.zstd").write_bytes(zstd.compress(path.read_bytes()))
        path.unlink()
    metadata(tmp_path / "bag", ["bag_0.mcap.zstd", "bag_1.mcap.zstd"], mode="FILE")
    assert words(tmp_path / "bag") == list("abcd")
    (tmp_path / "bag/bag_1.mcap.zstd").unlink()
    with pytest.raises(ValueError, match="bag_1.mcap.zstd, which is not there"):
        words(tmp_path / "bag")


@pytest.mark.parametrize("how", [{"use_chunking": False}, {"chunk_size": 1}, {"compression": CompressionType.LZ4}])
@pytest.mark.parametrize("index", [True, False])
def test_messages_of_every_kind_of_file_come_in_order_of_time(tmp_path, how, index):
    how = how if index else {**how, "use_statistics": False, "repeat_channels": False, "repeat_schemas": False}
    path = tmp_path / "a.mcap"
    with path.open("wb") as file:
        writer = McapWriter(file, **how)
        writer.start()
        number = writer.register_channel("/words", "cdr", writer.register_schema(*TEXT))
        for time_ns in (3, 1, 2):
            writer.add_message(number, time_ns, string(str(time_ns)), time_ns)
        writer.finish()
    assert words(path) == ["1", "2", "3"]
    with Bag(path) as bag:
        assert (bag.start_ns, bag.duration_s, bag.topics["/words"].count) == (1, pytest.approx(2e-9), 3)


@pytest.mark.parametrize("schema", [("a_msgs/msg/Level", "unknown", b""), ("a_msgs/action/A_F", "", b""), None])
def test_a_topic_that_nobody_defines_is_named_and_the_others_are_read(tmp_path, schema):
    path = mcap_file(tmp_path / "a.mcap", "ab", [schema])
    assert words(path) == ["a", "b"]
    with Bag(path) as bag:
        assert "/other is left out" in bag.remarks[0] and "there is no definition of" in bag.remarks[0]
        with pytest.raises(ValueError, match=r"/other at 0.0 s: there is no definition"):
            bag.read(["/other"])


def test_standard_definitions_are_taken_where_the_recorder_kept_none_and_that_is_said(tmp_path):
    db3(tmp_path / "bag/bag_0.db3", "abc", definitions=False)
    assert words(metadata(tmp_path / "bag", "bag_0.db3", storage="sqlite3")) == ["a", "b", "c"]
    with Bag(tmp_path / "bag") as bag:
        assert "no definition of std_msgs/msg/String" in bag.remarks[0] and "standard" in bag.remarks[0]


def test_our_own_messages_are_read_from_a_bag_without_definitions(tmp_path):
    with SyntheticBag(tmp_path / "bag") as bag:
        bag.tick(0.0, cause="why not")
    with Bag(tmp_path / "bag") as bag:
        ((connection, time_ns, data),) = bag.serialised(["/chunk_executor_node/status"])
    bare = NewBag(tmp_path / "bare")
    bare.write(bare.add_topic(connection.topic, connection.msgtype, encoding="", definition=""), time_ns, data)
    bare.close({})
    with Bag(tmp_path / "bare") as bag:
        ((_, _, status),) = bag.messages([connection.topic])
        assert status.cause == "why not" and "no definition of depthvla_msgs/msg/ExecutorStatus" in bag.remarks[0]


def test_bytes_that_are_no_message_are_named_with_their_topic_and_time(tmp_path):
    bag = NewBag(tmp_path / "bag")
    topic = bag.add_topic("/words", STRING, encoding="ros2msg", definition="string data")
    bag.write(topic, 0, string("a"))
    bag.write(topic, 2 * 10**9, b"\0\1\0\0\xff\0\0\0")
    bag.close({})
    with pytest.raises(ValueError, match=r"bag: /words at 2.0 s: 8 bytes are no std_msgs/msg/String"):
        words(tmp_path / "bag")


@pytest.mark.parametrize(
    ("files", "says"),
    [
        ({"metadata.yaml": "[}"}, "metadata.yaml is no rosbag2 metadata"),
        ({"metadata.yaml": "a: 1"}, "metadata.yaml is no rosbag2 metadata"),
        ({"bag_0.mcap": b"version https://git-lfs"}, "bag_0.mcap is no MCAP file"),
        ({"bag_0.mcap": b""}, "bag_0.mcap is no MCAP file"),
        ({"bag_0.mcap": MAGIC + bytes(100)}, "bag_0.mcap has no end: it was cut off"),
    ],
)
def test_what_cannot_be_read_is_named_with_its_file(tmp_path, files, says):
    (tmp_path / "bag").mkdir()
    metadata(tmp_path / "bag", "bag_0.mcap")
    for name, content in files.items():
        path = tmp_path / "bag" / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ValueError, match=says), Bag(tmp_path / "bag"):
        pass
    (tmp_path / "notes.txt").write_text("a")
    with pytest.raises(ValueError, match="notes.txt is no recording"), Bag(tmp_path / "notes.txt"):
        pass


def rotten(folder: Path) -> Path:
    """An episode's bag with one bit turned round."""
    write_bag(folder / "bag")
    path = folder / "bag/bag_0.mcap"
    data = bytearray(path.read_bytes())
    data[data.index(b"zstd") + len(data) // 3] ^= 0x10
    path.write_bytes(data)
    return folder / "bag"


def test_every_tool_names_a_damaged_chunk_and_what_to_do(tmp_path, monkeypatch, capsys):
    from depthvla_evaluation.viewer import __main__ as viewer

    bag = rotten(tmp_path)
    monkeypatch.setattr(sys, "argv", ["from_bags", str(bag), "--out", str(tmp_path / "dataset")])
    assert from_bags.main() == 1
    assert build.main([str(bag), "--out", str(tmp_path / "report"), "--no-video"]) == 1
    monkeypatch.setattr(sys, "argv", ["viewer", str(bag)])
    assert viewer.main() == 1
    said = capsys.readouterr().err.splitlines()
    assert [line.split(":")[0] for line in said if "is damaged" in line] == ["from_bags", "report", "viewer"]
    for line in said:
        assert f"bag {bag} is damaged: {bag}/bag_0.mcap: the chunk at byte" in line
        assert line.endswith(f"depthvla recover {bag}")
