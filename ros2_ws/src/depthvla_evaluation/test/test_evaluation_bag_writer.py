"""What is kept of an episode's messages, and how it reaches the disk."""

import json
import struct
import threading
import time

import pytest

from depthvla_evaluation.bags.bag import Bag, header_stamp_ns
from depthvla_evaluation.bags.bag_writer import FLUSH_PERIOD_S, BagWriter
from depthvla_evaluation.bags.notes import UNFINISHED, EpisodeNotes
from depthvla_evaluation.bags.topic_rules import Selector, TopicRule, parse_rules
from r1lite_description import robot as robot_description

STRING = "std_msgs/msg/String"


def stamped(sec: int, nanosec: int = 0, payload: bytes = b"") -> bytes:
    return b"\x00\x01\x00\x00" + struct.pack("<iI", sec, nanosec) + payload


def string_message(text: str) -> bytes:
    data = text.encode() + b"\x00"
    return b"\x00\x01\x00\x00" + struct.pack("<I", len(data)) + data


def no_definition(msgtype: str) -> str:
    raise AssertionError(f"{msgtype} should not need a definition")


def test_an_entry_stands_for_every_camera_and_limb_of_the_robot():
    robot = robot_description.load()
    rules = parse_rules(
        [
            "{camera.topic}",
            "/depth/{camera.name}/image max_rate_hz=2.5",
            "/truth/{camera.name}/image paired_with=/depth/{camera.name}/image",
            "{limb.topics.arm_command} required",
            "/diagnostics",
        ],
        robot,
    )
    assert set(rules) == (
        {camera.topic for camera in robot.cameras}
        | {f"/depth/{camera.name}/image" for camera in robot.cameras}
        | {f"/truth/{camera.name}/image" for camera in robot.cameras}
        | {limb.topics.arm_command for limb in robot.limbs}
        | {"/diagnostics"}
    )
    assert rules["/depth/head/image"] == TopicRule("/depth/head/image", max_rate_hz=2.5)
    assert [topic for topic, rule in rules.items() if rule.required] == [
        limb.topics.arm_command for limb in robot.limbs
    ]
    assert rules["/truth/head/image"] == TopicRule("/truth/head/image", paired_with="/depth/head/image")


@pytest.mark.parametrize(
    "entry, complaint",
    [
        ("joint_states", "absolute topic name"),
        ("", "absolute topic name"),
        ("/a max_rate_hz=0", "max_rate_hz is '0'"),
        ("/a max_rate_hz=fast", "max_rate_hz is 'fast'"),
        ("/a every=2", "'every=2'.*allowed: max_rate_hz"),
        ("/a required=yes", "'required=yes'.*allowed: .*required"),
        ("/a/{camera.nmae}", "unknown placeholder"),
        ("/a/{leg.name}", "unknown placeholder"),
        ("/a paired_with=/b", "paired with /b, which is not recorded"),
    ],
)
def test_a_wrong_entry_is_named(entry, complaint):
    with pytest.raises(ValueError, match=complaint):
        parse_rules([entry], robot_description.load())


def test_a_topic_listed_twice_is_an_error():
    with pytest.raises(ValueError, match="/a is listed twice"):
        parse_rules(["/a", "/a max_rate_hz=1"], robot_description.load())


def test_thinning_keeps_the_asked_rate_in_spite_of_jitter():
    selector = Selector({"/depth": TopicRule("/depth", max_rate_hz=5.0)})
    period_ns = 1_000_000_000 // 15
    times = [step * period_ns + (step % 3 - 1) * 2_000_000 for step in range(150)]
    kept = [ns for ns in times if selector.offer("/depth", ns, stamped(0))]
    assert 48 <= len(kept) <= 50


def test_thinning_starts_anew_after_a_gap():
    selector = Selector({"/depth": TopicRule("/depth", max_rate_hz=1.0)})
    kept = [
        second for second in (0.0, 0.5, 10.0, 10.5, 11.0) if selector.offer("/depth", int(second * 1e9), stamped(0))
    ]
    assert kept == [0.0, 10.0, 11.0]


def test_a_paired_topic_keeps_what_belongs_to_its_partner_in_whatever_order_they_come():
    rules = {"/depth": TopicRule("/depth"), "/truth": TopicRule("/truth", paired_with="/depth")}
    selector = Selector(rules)
    kept = []
    for sec in range(6):
        kept += selector.offer("/truth", sec * 100, stamped(sec, payload=b"truth"))
        if sec == 3:  # the prediction for second 2 comes late
            kept += selector.offer("/depth", sec * 100 + 1, stamped(2))
    kept += selector.offer("/depth", 700, stamped(6))
    kept += selector.offer("/truth", 701, stamped(6, payload=b"truth"))
    kept += selector.offer("/truth", 702, stamped(6, 1, payload=b"another"))
    assert [(topic, ns, header_stamp_ns(data) // 10**9) for topic, ns, data in kept] == [
        ("/depth", 301, 2),
        ("/truth", 200, 2),
        ("/depth", 700, 6),
        ("/truth", 701, 6),
    ]


def test_a_pair_may_differ_by_the_time_between_two_cameras_but_not_by_a_frame():
    selector = Selector({"/depth": TopicRule("/depth"), "/truth": TopicRule("/truth", paired_with="/depth")})
    for nanosec in (10_000_000, 57_000_000, 124_000_000):  # 15 Hz
        assert not selector.offer("/truth", nanosec, stamped(1, nanosec))
    kept = selector.offer("/depth", 200, stamped(1, 67_000_000))
    assert [header_stamp_ns(data) % 10**9 for _, _, data in kept] == [67_000_000, 57_000_000]
    assert len(selector.offer("/depth", 300, stamped(1, 200_000_000))) == 1


def test_header_stamp_reads_both_byte_orders():
    assert header_stamp_ns(b"\x00\x01\x00\x00" + struct.pack("<iI", 7, 9)) == 7_000_000_009
    assert header_stamp_ns(b"\x00\x00\x00\x00" + struct.pack(">iI", 7, 9)) == 7_000_000_009


def test_a_written_bag_reads_back_with_its_custom_data(tmp_path):
    writer = BagWriter(tmp_path / "bag")
    writer.add_topic("/words", STRING, [], no_definition)
    for index, word in enumerate(("one", "two", "three")):
        assert writer.write("/words", 1000 + index, string_message(word))
    writer.close({"instruction": "count"})
    assert writer.written == 3 and writer.backlog_bytes == 0
    with Bag(tmp_path / "bag") as bag:
        assert [(ns, message.data) for _, ns, message in bag.messages(["/words"])] == [
            (1000, "one"),
            (1001, "two"),
            (1002, "three"),
        ]
        assert bag.custom_data == {"instruction": "count"}


def test_a_type_unknown_to_the_store_is_written_with_all_it_is_made_of(tmp_path):
    texts = {
        "own_msgs/msg/Outer": "own_msgs/Inner[] inner\nstd_msgs/Header header",
        "own_msgs/msg/Inner": "uint32 value",
    }
    writer = BagWriter(tmp_path / "bag")
    writer.add_topic("/outer", "own_msgs/msg/Outer", [], texts.__getitem__)
    inner = struct.pack("<II", 1, 42)
    writer.write("/outer", 5, b"\x00\x01\x00\x00" + inner + struct.pack("<iII", 3, 4, 1) + b"\x00")
    writer.close()
    with Bag(tmp_path / "bag") as bag:
        ((_, _, message),) = bag.messages(["/outer"])
    assert message.inner[0].value == 42
    assert message.header.stamp.sec == 3


def test_an_existing_folder_is_never_overwritten(tmp_path):
    (tmp_path / "bag").mkdir()
    with pytest.raises(FileExistsError, match="bag exists already"):
        BagWriter(tmp_path / "bag")


def test_a_full_backlog_drops_and_counts(tmp_path):
    writer = BagWriter(tmp_path / "bag", backlog_limit_bytes=10)
    writer.add_topic("/words", STRING, [], no_definition)
    assert not writer.write("/words", 1, string_message("more than ten bytes"))
    assert writer.dropped["/words"] == 1
    writer.close()


def test_a_write_error_is_kept_and_raised_when_the_bag_is_closed(tmp_path, monkeypatch):
    writer = BagWriter(tmp_path / "bag")
    writer.add_topic("/words", STRING, [], no_definition)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(writer._bag, "write", full)
    writer.write("/words", 1, string_message("lost"))
    with pytest.raises(OSError, match="is incomplete.*No space left on device"):
        writer.close()
    assert not writer.write("/words", 2, string_message("too late"))


def test_a_bag_that_was_never_closed_is_an_error_that_says_so(tmp_path):
    (tmp_path / "bag").mkdir()
    with pytest.raises(ValueError, match="killed before it closed"):
        Bag(tmp_path / "bag")
    with pytest.raises(FileNotFoundError, match="does not exist"):
        Bag(tmp_path / "nothing")


def test_messages_reach_the_file_in_time_and_notes_lie_beside_it_until_the_bag_is_closed(tmp_path):
    writer = BagWriter(tmp_path / "bag")
    writer.add_topic("/words", STRING, [], no_definition)
    writer.write("/words", 1000, string_message("one"))
    deadline_s = time.monotonic() + 10 * FLUSH_PERIOD_S
    while writer.file_bytes < 100 and time.monotonic() < deadline_s:
        time.sleep(0.01)
    assert writer.file_bytes > 100
    writer.note({"task": "count"})
    while not (tmp_path / "bag" / UNFINISHED).exists() and time.monotonic() < deadline_s:
        time.sleep(0.01)
    assert json.loads((tmp_path / "bag" / UNFINISHED).read_text()) == {"task": "count"}
    writer.close({"task": "count", "outcome": "success"})
    assert sorted(path.name for path in (tmp_path / "bag").iterdir()) == ["bag_0.mcap", "metadata.yaml"]


def test_failed_outcome_is_written_where_the_bag_cannot_be(tmp_path, monkeypatch):
    writer = BagWriter(tmp_path / "bag")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(writer._bag, "close", full)
    with pytest.raises(OSError, match="No space left"):
        writer.close({"outcome": "success", "task": "count"})
    notes = json.loads((tmp_path / "bag" / UNFINISHED).read_text())
    assert notes == {"task": "count", "outcome": "failed", "failure": "[Errno 28] No space left on device"}


def test_marks_count_once_and_can_be_taken_back():
    notes = EpisodeNotes(task="stacking", setting="seed 1")
    notes.mark("one", 5)
    notes.mark("two", 7)
    with pytest.raises(ValueError, match="'one' is marked already; marked are one, two"):
        notes.mark("one", 8)
    assert notes.undo() == "two"
    notes.mark("two", 9)
    assert json.loads(notes.custom_data()["substeps"]) == [
        {"substep": "one", "time_ns": 5},
        {"substep": "two", "time_ns": 9},
    ]
    assert (notes.undo(), notes.undo()) == ("two", "one")
    with pytest.raises(ValueError, match="nothing to undo"):
        notes.undo()
    with pytest.raises(ValueError, match="substep is empty"):
        notes.mark("", 1)


def test_what_nobody_said_is_what_the_policy_said_first():
    notes = EpisodeNotes()
    for model_id, instruction in (("model a", "lift"), ("model a", ""), ("model b", "stack")):
        notes.add_policy(model_id, instruction)
    about = notes.custom_data()
    assert (about["instruction"], about["policy"], about["model_id"]) == ("lift", "model a", "model b")
    assert json.loads(about["model_ids"]) == ["model a", "model b"]
    assert json.loads(about["policy_instructions"]) == ["lift", "stack"]
    about = EpisodeNotes(instruction="given", policy="mine").custom_data()
    assert (about["instruction"], about["policy"], about["model_id"]) == ("given", "mine", "")


def test_failed_recording_has_no_other_outcome():
    notes = EpisodeNotes()
    notes.end("success", "well done", "the disk is full")
    about = notes.custom_data()
    assert (about["outcome"], about["notes"], about["failure"]) == ("failed", "well done", "the disk is full")


def test_a_disk_that_does_not_answer_is_a_problem_and_ends_the_wait_for_it(tmp_path, monkeypatch):
    from depthvla_evaluation.bags import bag_writer

    answering = threading.Event()
    monkeypatch.setattr(bag_writer, "HANG_S", 0.05)
    monkeypatch.setattr(bag_writer, "write_unfinished", lambda *_: answering.wait(30))
    writer = BagWriter(tmp_path / "bag")
    try:
        with pytest.raises(OSError, match="is incomplete: the bag writer thread hangs"):
            writer.close({"task": "count"})
        assert writer.error and writer.worker.problem
    finally:
        answering.set()
        writer.worker.join(30)


def test_whatever_ends_the_writing_is_an_error(tmp_path, monkeypatch):
    def give_up(*_):
        raise SystemExit("no more")

    monkeypatch.setattr(BagWriter, "_take", give_up)
    writer = BagWriter(tmp_path / "bag")
    with pytest.raises(OSError, match="SystemExit: no more"):
        writer.close({"task": "count"})
