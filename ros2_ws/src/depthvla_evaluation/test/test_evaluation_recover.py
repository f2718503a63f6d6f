"""What a killed recorder leaves is made a bag again."""

import json
import shutil
import struct
import time

import numpy as np
import pytest
from rosbags.rosbag2 import Reader
from synthetic_bag import SyntheticBag
from test_evaluation_bag_files import db3, mcap_file

from depthvla_evaluation.bags.bag import Bag
from depthvla_evaluation.bags.bag_writer import BagWriter
from depthvla_evaluation.bags.mcap_file import MAGIC
from depthvla_evaluation.bags.new_bag import NewBag
from depthvla_evaluation.bags.notes import UNFINISHED, write_unfinished
from depthvla_evaluation.bags.recover import broken, main, recover

STRING = "std_msgs/msg/String"
ZSTD = b"\x28\xb5\x2f\xfd"  # what its data begins with
DEFINITIONS = {"own_msgs/msg/Pair": "own_msgs/Item first\nown_msgs/Item second", "own_msgs/msg/Item": "uint32 value"}


def string_message(text: str) -> bytes:
    data = text.encode() + b"\x00"
    return b"\x00\x01\x00\x00" + struct.pack("<I", len(data)) + data


def killed(path, chunks: int, per_chunk: int = 10):
    """A bag as it is while it is recorded, with `chunks` chunks in it."""
    writer = BagWriter(path)
    writer.add_topic("/words", STRING, [], DEFINITIONS.__getitem__)
    writer.add_topic("/pairs", "own_msgs/msg/Pair", [], DEFINITIONS.__getitem__)
    writer.note({"task": "count", "outcome": ""})
    for chunk in range(chunks):
        for index in range(per_chunk):
            number = chunk * per_chunk + index
            writer.write("/words", 1000 + 2 * number, string_message(str(number)))
            writer.write("/pairs", 999 + 2 * number, b"\x00\x01\x00\x00" + struct.pack("<II", number, 7))
        writer.note({"task": "count", "outcome": "", "chunk": str(chunk)})  # notes come with a chunk
    notes = path / UNFINISHED
    while not notes.exists() or json.loads(notes.read_text()).get("chunk") != str(chunks - 1):
        time.sleep(0.01)
    copy = path.with_name("killed")
    shutil.copytree(path, copy)
    writer.close()
    mcap = copy / f"{path.name}_0.mcap"
    return mcap.rename(copy / "killed_0.mcap").parent


def words(path) -> list[str]:
    with Bag(path) as bag:
        return [message.data for _, _, message in bag.messages(["/words"])]


def test_messages_types_and_notes_are_whole_again_and_the_original_is_kept(tmp_path):
    bag_path = killed(tmp_path / "bag", chunks=3)
    before = (bag_path / "killed_0.mcap").read_bytes()
    found = recover(bag_path)
    assert (found.messages, found.unread_bytes) == (60, 0)
    assert words(bag_path) == [str(number) for number in range(30)]
    with Bag(bag_path) as bag:
        assert [message.first.value for _, _, message in bag.messages(["/pairs"])] == list(range(30))
        about = bag.custom_data
    assert (about["task"], about["outcome"]) == ("count", "failed")
    assert about["failure"] == "the recorder ended without closing the bag"
    assert json.loads(about["recovered"])["original"] == "killed.broken"
    assert (broken(bag_path) / "killed_0.mcap").read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bag", "killed", "killed.broken"]


def test_recovered_bag_has_what_the_closed_one_has(tmp_path):
    bag_path = killed(tmp_path / "bag", chunks=2)
    recover(bag_path)
    with Reader(tmp_path / "bag") as closed, Reader(bag_path) as recovered:
        for one, other in zip(closed.messages(), recovered.messages(), strict=True):
            assert one[1:] == other[1:]
        for one, other in zip(closed.connections, recovered.connections, strict=True):
            assert (one.topic, one.msgtype, one.msgdef, one.digest) == (
                other.topic,
                other.msgtype,
                other.msgdef,
                other.digest,
            )
        assert (closed.start_time, closed.end_time) == (recovered.start_time, recovered.end_time)


def test_whole_chunks_survive_wherever_the_file_ends(tmp_path):
    original = killed(tmp_path / "bag", chunks=4)
    data = (original / "killed_0.mcap").read_bytes()
    counts = []
    for size in range(0, len(data) + 1, 41):
        copy = tmp_path / "cut"
        shutil.copytree(original, copy)
        (copy / "killed_0.mcap").rename(copy / "cut_0.mcap").write_bytes(data[:size])
        counts.append(recover(copy).messages)
        assert words(copy) == [str(number) for number in range(counts[-1] // 2)]
        shutil.rmtree(copy)
        shutil.rmtree(broken(copy))
    assert counts == sorted(counts)
    assert set(counts) == {0, 20, 40, 60, 80}


@pytest.mark.parametrize("tail", [b"\x00" * 4096, b"\x06" + b"\xff" * 50], ids=["zeros", "nonsense"])
def test_what_follows_the_whole_chunks_is_left_out(tmp_path, tail):
    bag_path = killed(tmp_path / "bag", chunks=2)
    with (bag_path / "killed_0.mcap").open("ab") as file:
        file.write(tail)
    found = recover(bag_path)
    assert (found.messages, found.unread_bytes) == (40, len(tail))


def damage(path, chunk: int, *, at: int, zeros: int) -> None:
    """Zeros over a part of a file's n-th chunk, counted from its compressed data."""
    data = bytearray(path.read_bytes())
    place = -1
    for _ in range(chunk + 1):
        place = data.index(ZSTD, place + 1)
    data[place + at : place + at + zeros] = bytes(zeros)
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("at", "zeros"), [(0, 20), (-53, 9), (-52, 8), (30, 5)], ids=["data", "head", "length", "within"]
)
def test_chunks_behind_a_damaged_one_are_recovered_and_the_damage_is_said(tmp_path, capsys, at, zeros):
    bag_path = killed(tmp_path / "bag", chunks=4)
    damage(bag_path / "killed_0.mcap", 1, at=at, zeros=zeros)
    assert main([str(bag_path)]) == 1
    said = capsys.readouterr().out
    assert f"{bag_path}: 60 messages recovered" in said and "not recovered: killed_0.mcap: " in said
    assert words(bag_path) == [str(number) for number in range(40) if not 10 <= number < 20]
    with Bag(bag_path) as bag:
        assert json.loads(bag.custom_data["recovered"])["damaged"]


def test_damaged_first_chunk_costs_its_own_messages_and_not_those_that_it_defines(tmp_path):
    bag_path = tmp_path / "bag"
    bag = NewBag(bag_path)
    topic = bag.add_topic("/words", STRING, encoding="ros2msg", definition="string data")
    texts = [bytes(part).hex() for part in np.random.default_rng(0).integers(0, 256, (4, 50_000), dtype=np.uint8)]
    for number, text in enumerate(texts):
        bag.write(topic, number, string_message(text))
        bag.flush()
    bag.close({"outcome": "success", "task": "lift"})
    path = bag_path / "bag_0.mcap"
    data = bytearray(path.read_bytes())
    data[data.index(ZSTD) : data.index(ZSTD) + 50] = bytes(50)  # what it defines is gone with it, but for the index
    path.write_bytes(data)
    with Bag(bag_path) as opened, pytest.raises(ValueError, match="to keep what is whole"):
        opened.check()
    found = recover(bag_path)
    assert found.messages == 3 and len(found.damaged) == 1 and found.missing == ("1 of 4 messages",)
    assert words(bag_path) == texts[1:]
    with Bag(bag_path) as opened:
        about = opened.custom_data
    assert (about["task"], about["outcome"]) == ("lift", "failed") and "damaged" in about["failure"]
    assert json.loads(about["recovered"])["outcome"] == "success"
    assert recover(bag_path) is None


@pytest.mark.parametrize("lost", ["metadata.yaml", "end"])
def test_closed_bag_that_lost_its_metadata_or_its_end_keeps_what_it_says(tmp_path, lost):
    bag_path = tmp_path / "bag"
    with SyntheticBag(bag_path, {"outcome": "success", "task": "lift"}) as bag:
        for number in range(20):
            bag.tick(number / 15)
    if lost == "end":
        path = bag_path / "bag_0.mcap"
        path.write_bytes(path.read_bytes()[:-20])
    else:
        (bag_path / lost).unlink()
    assert recover(bag_path).messages == 20
    with Bag(bag_path) as bag:
        assert bag.custom_data["task"] == "lift"
        assert bag.custom_data["outcome"] == ("success" if lost == "metadata.yaml" else "failed")


def test_topic_without_a_definition_is_kept_and_named(tmp_path, capsys):
    bag_path = tmp_path / "bag"
    mcap_file(bag_path / "bag_0.mcap", "abc", [("a_msgs/action/Do_Feedback", "unknown", b""), None])
    assert main([str(bag_path)]) == 1
    said = capsys.readouterr().out
    assert "4 messages recovered" in said and "1 messages of /other, which has no type" in said
    assert "a definition of a_msgs/action/Do_Feedback for the messages of /other" in said
    assert words(bag_path) == ["a", "b", "c"]


@pytest.mark.parametrize("wal", [False, True], ids=["file", "write-ahead log"])
def test_killed_sqlite_recording_becomes_a_bag(tmp_path, wal):
    db3(tmp_path / "live/killed_0.db3", "abc", definitions=True, wal=wal)
    bag_path = tmp_path / "killed"
    shutil.copytree(tmp_path / "live", bag_path)
    assert (bag_path / "killed_0.db3-wal").exists() == wal
    assert main([str(bag_path)]) == 0
    assert words(bag_path) == ["a", "b", "c"]
    assert (broken(bag_path) / "killed_0.db3").exists()


def test_killed_sqlite_recording_without_definitions_is_recovered_with_standard_ones_and_that_is_said(tmp_path, capsys):
    db3(tmp_path / "killed/killed_0.db3", "abc", definitions=False)
    assert main([str(tmp_path / "killed")]) == 1
    assert "definitions of std_msgs/msg/String: the recorder kept none" in capsys.readouterr().out
    assert words(tmp_path / "killed") == ["a", "b", "c"]


def test_messages_beside_a_damaged_page_of_an_sqlite_recording_are_recovered(tmp_path, capsys):
    texts = [f"{number} " + "x" * 2000 for number in range(100)]
    path = db3(tmp_path / "killed/killed_0.db3", texts, definitions=True)
    data = bytearray(path.read_bytes())
    page = data.index(b"50 xxx") // 4096 * 4096
    data[page : page + 4096] = bytes(4096)
    path.write_bytes(data)
    assert main([str(tmp_path / "killed")]) == 1
    assert "not recovered: killed_0.db3: messages behind number" in capsys.readouterr().out
    found = [int(text.split()[0]) for text in words(tmp_path / "killed")]
    assert 0 in found and 99 in found and 50 not in found and len(found) > 80


def test_recovering_again_changes_nothing(tmp_path, capsys):
    bag_path = killed(tmp_path / "bag", chunks=1)
    assert main([str(bag_path)]) == 0
    assert "20 messages recovered" in capsys.readouterr().out
    before = (bag_path / "killed_0.mcap").read_bytes()
    assert main([str(bag_path), str(tmp_path / "bag")]) == 0
    assert capsys.readouterr().out == f"{bag_path} is whole\n{tmp_path}/bag is whole\n"
    assert (bag_path / "killed_0.mcap").read_bytes() == before


def test_recovery_that_was_killed_itself_is_run_again(tmp_path):
    bag_path = killed(tmp_path / "bag", chunks=1)
    half = tmp_path / ".killed.recovering" / "killed"
    half.mkdir(parents=True)
    (half / "killed_0.mcap").write_bytes(MAGIC)
    assert recover(bag_path).messages == 20
    # Ended between the two renames, it has moved the original away and not put the new bag in its place.
    half.parent.mkdir()
    bag_path.rename(half)
    assert recover(bag_path) is None
    assert words(bag_path) == [str(number) for number in range(10)]


def test_recorder_killed_while_it_closed_the_bag_had_been_told_the_outcome(tmp_path):
    bag_path = killed(tmp_path / "bag", chunks=1)
    write_unfinished(bag_path, {"outcome": "success"})
    recover(bag_path)
    with Bag(bag_path) as bag:
        assert bag.custom_data["outcome"] == "success"


def test_what_is_no_bag_is_named(tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    assert main([str(tmp_path / "nothing"), str(tmp_path / "empty")]) == 1
    said = capsys.readouterr().err
    assert f"bag {tmp_path}/nothing does not exist" in said
    assert f"bag {tmp_path}/empty has neither metadata.yaml nor an MCAP or SQLite (.db3) file" in said


def test_earlier_original_is_never_overwritten(tmp_path):
    bag_path = killed(tmp_path / "bag", chunks=1)
    broken(bag_path).mkdir()
    with pytest.raises(FileExistsError, match="killed.broken exists already"):
        recover(bag_path)
    assert (bag_path / UNFINISHED).exists()


def test_a_bag_that_is_being_recorded_is_left_alone(tmp_path):
    bag = NewBag(tmp_path / "bag")
    topic = bag.add_topic("/a", "std_msgs/msg/String", encoding="ros2msg", definition="string data\n")
    bag.write(topic, 1, b"\x00\x01\x00\x00\x02\x00\x00\x00a\x00")
    bag.flush()
    with pytest.raises(ValueError, match="is being recorded: a process writes to bag_0.mcap"):
        recover(tmp_path / "bag")
    bag.close({})
    assert recover(tmp_path / "bag") is None


def test_what_a_closed_bag_lacks_is_said(tmp_path, capsys):
    """It was cut off when it was copied; its metadata.yaml still counts every message."""
    bag = NewBag(tmp_path / "bag")
    topic = bag.add_topic("/a", "std_msgs/msg/String", encoding="ros2msg", definition="string data\n")
    for number in range(300):
        bag.write(topic, 1 + number, b"\x00\x01\x00\x00\x02\x00\x00\x00a\x00" + bytes(9000))
    bag.close({})
    path = tmp_path / "bag/bag_0.mcap"
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size // 2)
    assert main([str(tmp_path / "bag")]) == 1
    said = capsys.readouterr().out
    kept = int(said.split("bag: ")[1].split()[0])
    assert kept < 300 and f"not recovered: {300 - kept} of 300 messages" in said
