"""The recorder as a process over real DDS: what it was sent is in the bag, and what goes wrong is said."""

from __future__ import annotations

import json
import random
import signal
import time

import numpy as np
import pytest

from depthvla_evaluation.bags.bag import Bag, camera_matrix, stamp_ns
from depthvla_evaluation.bags.recover import recover

MODULE = "depthvla_evaluation.nodes.episode_recorder_node"
NODE = "/episode_recorder_node"
EVENTS = f"{NODE}/event"
IDLE, RECORDING, FAILED = range(3)
MAY_BE_LOST_NS = 1_000_000_000  # of what was published before the recorder was killed


def stamped(message, number: int):
    message.header.stamp.sec = number
    return message


def send(probe, publisher, messages) -> None:
    probe.wait_for(publisher.get_subscription_count, what="the recorder's subscription")
    for message in messages:
        publisher.publish(message)


def health(probe, heard) -> dict:
    """The recorder's newest values on /diagnostics."""
    statuses = [status for message in heard for status in message.status if status.name.startswith(NODE[1:])]
    return {item.key: item.value for item in statuses[-1].values} if statuses else {}


def wait_for_messages(probe, heard, count: int) -> None:
    probe.wait_for(lambda: int(health(probe, heard).get("messages", -1)) >= count, what=f"{count} recorded messages")


def test_what_was_published_is_in_the_bag_with_types_and_qos(ros, robot, tmp_path):
    from depthvla_msgs.msg import ActionChunk
    from diagnostic_msgs.msg import DiagnosticArray
    from sensor_msgs.msg import CameraInfo, JointState

    from depthvla_control.ros import qos

    limb, camera = robot.limbs[0], robot.cameras[0]
    topics = ["{limb.topics.arm_feedback}", "{camera.camera_info} max_rate_hz=0.01", "/policy_node/action_chunk"]
    with (
        ros.Probe() as probe,
        ros.NodeProcess(MODULE, {"autostart": True, "bag": str(tmp_path / "bag"), "topics": topics}) as node,
    ):
        heard = probe.listen(DiagnosticArray, "/diagnostics")
        feedback = probe.publisher(JointState, limb.topics.arm_feedback, qos.stream("best_effort", 10))
        info = probe.publisher(CameraInfo, camera.camera_info, qos.stream("reliable", 10))
        chunks = probe.publisher(ActionChunk, "/policy_node/action_chunk", qos.chunks())
        send(probe, feedback, [stamped(JointState(position=[0.1 * i] * 6), i) for i in range(5)])
        send(probe, info, [stamped(CameraInfo(k=np.arange(9.0)), i) for i in range(5)])
        send(probe, chunks, [stamped(ActionChunk(sequence=7, instruction="lift", model_id="tiny"), 3)])
        wait_for_messages(probe, heard, 8)  # one of them is the event of the start
        assert node.stop() == 0, node.output()
        assert "closed" in node.output()

    with Bag(tmp_path / "bag") as bag:
        counts = {name: topic.count for name, topic in bag.topics.items()}
        assert counts.pop(EVENTS) == 2
        assert counts == {limb.topics.arm_feedback: 5, camera.camera_info: 1, "/policy_node/action_chunk": 1}
        recorded = bag.read(counts)
        assert [message.position[0] for _, message in recorded[limb.topics.arm_feedback]] == pytest.approx(
            [0.0, 0.1, 0.2, 0.3, 0.4]
        )
        ((received_ns, chunk),) = recorded["/policy_node/action_chunk"]
        assert (chunk.sequence, chunk.instruction, stamp_ns(chunk)) == (7, "lift", 3_000_000_000)
        assert received_ns > 1_600_000_000 * 10**9
        ((_, calibration),) = recorded[camera.camera_info]
        np.testing.assert_array_equal(camera_matrix(calibration), np.arange(9.0).reshape(3, 3))
        assert json.loads(bag.custom_data["messages_lost"]) == {}
        assert json.loads(bag.custom_data["machine"])["cores"] >= 1
        assert "r1lite" in bag.custom_data["robot"]
        assert '<robot name="r1lite"' in bag.custom_data["urdf"]
        assert json.loads(bag.custom_data["calibration"]) == [camera.camera_info]
        assert len(json.loads(bag.custom_data["calibration_missing"])) == len(robot.cameras) - 1
        assert bag.custom_data["outcome"] == ""
        assert json.loads(bag.custom_data["topics_missing"]) == []

    import yaml

    metadata = yaml.safe_load((tmp_path / "bag" / "metadata.yaml").read_text())["rosbag2_bagfile_information"]
    described = {
        item["topic_metadata"]["name"]: item["topic_metadata"] for item in metadata["topics_with_message_count"]
    }
    assert described[limb.topics.arm_feedback]["offered_qos_profiles"][0]["reliability"] == "best_effort"
    assert described["/policy_node/action_chunk"]["offered_qos_profiles"][0]["reliability"] == "reliable"
    assert metadata["storage_identifier"] == "mcap"


def test_types_are_recorded_with_the_hash_of_the_installed_ones(ros, tmp_path):
    from pathlib import Path

    from ament_index_python.packages import get_package_share_directory
    from rosbags.typesys import Stores, get_typestore

    from depthvla_evaluation.bags.message_types import installed_definition, register_type

    store = get_typestore(Stores.ROS2_JAZZY)
    for name in ("ActionChunk", "EpisodeEvent", "ExecutorStatus", "PolicyStatus", "TaskProgress"):
        description = Path(get_package_share_directory("depthvla_msgs"), "msg", f"{name}.json")
        if not description.exists():
            pytest.skip("this distribution has no type hashes")
        register_type(store, f"depthvla_msgs/msg/{name}", installed_definition)
        hashes = {item["type_name"]: item["hash_string"] for item in json.loads(description.read_text())["type_hashes"]}
        assert store.hash_rihs01(f"depthvla_msgs/msg/{name}") == hashes[f"depthvla_msgs/msg/{name}"]


def test_activation_starts_a_bag_deactivation_closes_it_and_none_is_overwritten(ros, tmp_path):
    from diagnostic_msgs.msg import DiagnosticArray
    from std_msgs.msg import String

    path = tmp_path / "bag"
    with ros.Probe() as probe, ros.NodeProcess(MODULE, {"bag": str(path), "topics": ["/words"]}) as node:
        heard = probe.listen(DiagnosticArray, "/diagnostics")
        words = probe.publisher(String, "/words")
        assert probe.transition(NODE, "configure")
        assert not path.exists()
        assert probe.transition(NODE, "activate")
        send(probe, words, [String(data="kept")])
        wait_for_messages(probe, heard, 2)
        assert probe.transition(NODE, "deactivate")
        with Bag(path) as bag:
            assert [message.data for _, _, message in bag.messages(["/words"])] == ["kept"]
        probe.wait_for(lambda: words.get_subscription_count() == 0, what="the end of the subscription")

        assert not probe.transition(NODE, "activate")
        assert f"bag {path} exists already; it is not overwritten" in node.output()
        assert probe.state(NODE) == "inactive"
        assert node.stop() == 0


def test_a_stream_that_starts_later_is_recorded_and_a_missing_one_is_named(ros, tmp_path):
    from diagnostic_msgs.msg import DiagnosticArray
    from std_msgs.msg import String

    parameters = {"autostart": True, "bag": str(tmp_path / "bag"), "topics": ["/late required", "/never required"]}
    with ros.Probe() as probe, ros.NodeProcess(MODULE, parameters) as node:
        heard = probe.listen(DiagnosticArray, "/diagnostics")
        probe.wait_for(
            lambda: health(probe, heard).get("nobody publishes") == "/late, /never", what="the missing topics"
        )
        send(probe, probe.publisher(String, "/late"), [String(data="here")])
        wait_for_messages(probe, heard, 2)
        probe.wait_for(lambda: health(probe, heard)["nobody publishes"] == "/never", what="the missing topic")
        time.sleep(2.0)  # a recording from activation waits for what an episode would have failed without
        assert node.stop() == 0
        assert "nothing ever came on /never" in node.output()
    with Bag(tmp_path / "bag") as bag:
        assert json.loads(bag.custom_data["topics_missing"]) == ["/never"]


@pytest.mark.parametrize(
    ("numbers", "publishers", "lost"),
    [
        ([40, 41, 42], ["A"], 0),  # joined while it flowed
        ([4, 5, 8, 9, 1, 2], ["A"], 2),  # two are missing; then the publisher was restarted
        ([4, 90, 5, 91], ["AB"], 0),  # two publishers
        ([4, 90, 91, 93, 94], ["A", "AB", "B"], 0),  # another one takes over; its first gap shows that it is one
        ([4, 90, 92, 94], ["A", "B"], 2),
    ],
)
def test_messages_that_never_came_are_counted_of_one_publisher(ros, numbers, publishers, lost):
    from types import SimpleNamespace

    from depthvla_evaluation.nodes.recorder.episode_recording import Source

    infos = [{"publication_sequence_number": number, "received_timestamp": 0} for number in numbers]
    looks = [frozenset(bytes(name, "ascii") for name in names) for names in publishers]
    source = Source(
        SimpleNamespace(take=lambda: (b"", infos.pop(0))), lambda: looks.pop(0) if len(looks) > 1 else looks[0]
    )
    for _ in numbers:
        source.take()
    assert source.lost == lost


def test_a_stream_that_flows_already_is_joined_and_what_it_lacks_is_what_is_counted(ros, recorder, tmp_path):
    from sensor_msgs.msg import JointState

    from depthvla_control.ros import qos

    topics = {"/states": qos.stream("best_effort", 10), "/commands": qos.stream("reliable", 1), "/mode": qos.status()}
    it = recorder(topics=list(topics))
    publishers = [it.probe.publisher(JointState, topic, profile) for topic, profile in topics.items()]
    sent = []

    def publish():
        sent.append(len(sent))
        for publisher in publishers:
            publisher.publish(stamped(JointState(), sent[-1]))

    it.probe.every(0.005, publish)
    for name in ("first", "second"):
        it.probe.wait_for(lambda: len(sent) > 20, what="a stream that flows")
        assert it.start(bag=str(tmp_path / name)).success
        it.probe.wait_for(lambda: it.said[-1].messages > 100, what="recorded messages")
        assert it.stop().success
        with Bag(tmp_path / name) as bag:
            found = bag.read(topics)
            counted = json.loads(bag.custom_data["messages_lost"])
        for topic in topics:
            numbers = [message.header.stamp.sec for _, message in found[topic]]
            assert counted.get(topic, 0) == numbers[-1] - numbers[0] + 1 - len(numbers)
            assert numbers[0] > 10


def test_a_publisher_that_takes_over_has_lost_nothing(ros, recorder, tmp_path):
    from std_msgs.msg import String

    it = recorder(topics=["/words"])
    first = it.probe.publisher(String, "/words")
    assert it.start(bag=str(tmp_path / "bag")).success
    send(it.probe, first, [String(data="first")])
    it.probe.wait_for(lambda: it.said[-1].messages >= 2, what="the first word")
    with ros.Probe("successor") as successor:
        heard = successor.listen(String, "/words")
        second = successor.publisher(String, "/words", 100)
        for _ in range(100):  # before the recorder finds it
            second.publish(String(data="unheard"))
        successor.wait_for(lambda: heard, what="a word at its own listener")
        it.probe.node.destroy_publisher(first)
        before = it.said[-1].messages
        successor.wait_for(lambda: second.get_subscription_count() == 2, what="the recorder's subscription")
        for word in ("second", "third"):
            second.publish(String(data=word))
        it.probe.wait_for(lambda: it.said[-1].messages >= before + 2, what="its words")
        assert it.stop().success
    with Bag(tmp_path / "bag") as bag:
        assert [message.data for _, _, message in bag.messages(["/words"])][-2:] == ["second", "third"]
        assert json.loads(bag.custom_data["messages_lost"]) == {}


@pytest.mark.parametrize(
    "parameters, complaint",
    [
        ({"topics": ["joint_states"]}, "topic entry 'joint_states' must start with an absolute topic name"),
        ({"topics": ["/a max_rate_hz=-1"]}, "max_rate_hz is '-1'"),
        (
            {"poll_period_s": 5.0},
            "parameter 'poll_period_s' is 5.0; allowed: a floating-point number from 0.005 to 0.5",
        ),
        ({"bags": "x"}, "unknown parameters ['bags']"),
        ({"topics": [EVENTS]}, f"topics has {EVENTS}, which every recording holds anyway"),
        ({"min_free_mb": 2**30}, "MB left; min_free_mb is 1073741824"),
    ],
)
def test_a_wrong_parameter_ends_the_process_with_its_name(ros, tmp_path, parameters, complaint):
    with ros.NodeProcess(MODULE, {"autostart": True, "bag": str(tmp_path / "bag"), **parameters}) as node:
        assert node.wait() == 1
        assert complaint in node.output()
    assert not (tmp_path / "bag").exists()


def test_a_full_disk_ends_the_process_with_an_error_that_says_so(ros, tmp_path):
    from sensor_msgs.msg import CompressedImage

    parameters = {"autostart": True, "bag": str(tmp_path / "bag"), "topics": ["/images"]}
    noise = np.random.default_rng(0)
    with ros.Probe() as probe, ros.NodeProcess("fixtures.recorder_on_a_small_disk", parameters) as node:
        images = probe.publisher(CompressedImage, "/images")
        probe.wait_for(images.get_subscription_count, what="the recorder's subscription")
        probe.every(0.02, lambda: images.publish(CompressedImage(data=noise.bytes(200_000))))
        assert node.wait() == 1
        assert f"cannot write bag {tmp_path / 'bag'}" in node.output()
        assert "File too large" in node.output()


class Recorder:
    """A recorder that waits for ~/start, and what it says of itself."""

    def __init__(self, ros, probe, folder, module=MODULE, **parameters):
        from depthvla_msgs.msg import RecorderStatus

        from depthvla_control.ros import qos

        self.probe = probe
        self.said = probe.listen(RecorderStatus, f"{NODE}/status", qos.status())
        parameters = {
            "bag_root": str(folder),
            "bag": str(folder / "default"),
            "record_on_activate": False,
            **parameters,
        }
        self.node = ros.NodeProcess(module, {"autostart": True, **parameters})

    def __enter__(self):
        self.probe.wait_for(lambda: self.said, what="the recorder's status")
        return self

    def __exit__(self, *_):
        self.node.__exit__()

    def start(self, **request):
        from depthvla_msgs.srv import StartEpisode

        return self.probe.call(StartEpisode, f"{NODE}/start", StartEpisode.Request(**request))

    def mark(self, substep="", undo=False):
        from depthvla_msgs.srv import MarkSubstep

        return self.probe.call(MarkSubstep, f"{NODE}/mark", MarkSubstep.Request(substep=substep, undo=undo))

    def stop(self, outcome="success", notes=""):
        from depthvla_msgs.srv import StopEpisode

        return self.probe.call(StopEpisode, f"{NODE}/stop", StopEpisode.Request(outcome=outcome, notes=notes))

    def wait_for_state(self, state):
        return self.probe.wait_for(lambda: self.said[-1].state == state and self.said[-1], what=f"state {state}")


@pytest.fixture
def recorder(ros, tmp_path):
    made = []

    def make(**options):
        probe = ros.Probe()
        made.append(probe)
        made.append(Recorder(ros, probe, tmp_path, **options).__enter__())
        return made[-1]

    yield make
    for item in reversed(made):
        item.__exit__()


def test_episodes_are_started_scored_and_stopped_each_in_a_bag_of_its_own(ros, recorder, tmp_path):
    from depthvla_msgs.msg import EpisodeEvent, PolicyStatus
    from std_msgs.msg import String

    from depthvla_control.ros import qos

    topics = ["/words", "/policy_node/status"]
    it = recorder(topics=topics, parameters_of=["/probe", "/nobody"])
    heard = it.probe.listen(EpisodeEvent, EVENTS)
    it.probe.node.declare_parameter("gain", 2.5)
    it.probe.node.declare_parameter("weights", [0.25, 0.5])
    it.probe.publisher(PolicyStatus, "/policy_node/status", qos.status()).publish(
        PolicyStatus(model_id="tiny 0123", instruction="stack the blocks")
    )
    words = it.probe.publisher(String, "/words")
    assert not any(tmp_path.iterdir())

    answer = it.start(task="stacking", setting="seed 12", bag=str(tmp_path / "one"))
    assert answer.success and answer.bag == str(tmp_path / "one")
    send(it.probe, words, [String(data="first")])
    assert it.mark("red on blue").success
    assert it.mark("green on red").success
    assert it.mark(undo=True).message == "marked: red on blue"
    it.probe.wait_for(
        lambda: it.said[-1].substeps == ["red on blue"] and it.said[-1].messages >= 6, what="the status with the mark"
    )
    time.sleep(1.2)  # the parameters are asked for once a second
    assert it.said[-1].state == RECORDING and it.said[-1].duration_s > 1.0 and it.said[-1].bytes > 0
    assert it.stop("success", "a bit slow").success
    assert it.wait_for_state(IDLE).task == "stacking"

    assert it.start(task="stacking", instruction="stack", policy="pi0", bag=str(tmp_path / "two")).success
    send(it.probe, words, [String(data="second")])
    it.probe.wait_for(lambda: it.said[-1].messages == 3, what="the start, the word and what was latched")
    assert it.stop("failure").success
    assert it.node.stop() == 0, it.node.output()

    with Bag(tmp_path / "one") as bag:
        about = bag.custom_data
        assert [message.data for _, _, message in bag.messages(["/words"])] == ["first"]
        events = [(message.kind, message.text) for _, _, message in bag.messages([EVENTS])]
    assert events == [(0, "stacking"), (1, "red on blue"), (1, "green on red"), (2, "green on red"), (3, "success")]
    assert [(message.kind, message.text) for message in heard[:5]] == events
    expected = {"task": "stacking", "instruction": "stack the blocks", "setting": "seed 12", "policy": "tiny 0123"}
    expected |= {"outcome": "success", "notes": "a bit slow", "failure": "", "model_id": "tiny 0123"}
    assert {key: about[key] for key in expected} == expected
    (mark,) = json.loads(about["substeps"])
    assert mark["substep"] == "red on blue" and abs(mark["time_ns"] - time.time_ns()) < 60e9
    parameters = json.loads(about["parameters"])["/probe"]
    assert (parameters["gain"], parameters["weights"]) == (2.5, [0.25, 0.5])
    assert json.loads(about["parameters_missing"]) == ["/nobody"]
    with Bag(tmp_path / "two") as bag:
        assert [message.data for _, _, message in bag.messages(["/words"])] == ["second"]
        # What is latched is in every bag.
        assert bag.topics["/policy_node/status"].count == 1
        about = bag.custom_data
    assert (about["instruction"], about["policy"], about["outcome"]) == ("stack", "pi0", "failure")
    assert json.loads(about["substeps"]) == []


def test_what_makes_no_sense_is_refused_with_a_reason_and_changes_nothing(recorder, tmp_path):
    it = recorder(topics=["/words"])
    assert it.stop().message == "no episode is being recorded"
    assert it.mark("a").message == "no episode is being recorded"
    (tmp_path / "taken").mkdir()
    assert (
        it.start(bag=str(tmp_path / "taken")).message == f"bag {tmp_path}/taken exists already; it is not overwritten"
    )
    assert it.said[-1].state == IDLE

    assert it.start(bag=str(tmp_path / "one")).success
    for answer, why in (
        (it.start(bag=str(tmp_path / "two")), f"an episode is being recorded already, to {tmp_path}/one"),
        (it.stop("won"), "outcome is 'won'; allowed: success, failure, aborted"),
        (it.mark(), "substep is empty; allowed: the name of the substep that was done"),
        (it.mark(undo=True), "no substep is marked: there is nothing to undo"),
    ):
        assert not answer.success and answer.message == why
    assert it.mark("a").success
    assert it.mark("a").message == "substep 'a' is marked already; marked are a"
    assert it.mark("a", undo=True).message == "substep is 'a'; allowed with undo: nothing"
    assert not (tmp_path / "two").exists()

    assert it.node.stop() == 0  # nobody stopped the episode
    with Bag(tmp_path / "one") as bag:
        assert bag.custom_data["outcome"] == "aborted"
        assert [message.kind for _, _, message in bag.messages([EVENTS])] == [0, 1, 3]


@pytest.mark.parametrize(
    "name",
    [
        "/etc/bag",
        "../bag",
        "a/../../bag",
        "a/../b",
        "~/bag",
        "~root/bag",
        "link/bag",
        "link",
        ".",
        "a/..",
        "a\0b",
        "a\nb",
    ],
)
def test_an_episode_stays_below_the_root_folder_however_its_name_is_written(ros, tmp_path, name):
    from depthvla_evaluation.nodes.episode_recorder_node import folder_below

    root = tmp_path / "root"
    (root / "a").mkdir(parents=True)
    (root / "link").symlink_to(tmp_path)
    with pytest.raises(ValueError, match=f"bag is .*; allowed: a folder below {root}"):
        folder_below(str(root), name)


def test_an_episode_may_lie_anywhere_below_the_root_folder(ros, tmp_path):
    from depthvla_evaluation.nodes.episode_recorder_node import folder_below

    root = tmp_path / "root"
    (root / "real").mkdir(parents=True)
    (root / "link").symlink_to(root / "real")
    (tmp_path / "to_root").symlink_to(root)
    for name in ("bag", "session/episode_01", "link/bag", "100 %Y", ".hidden"):
        assert folder_below(str(root), name) == root / name
        assert folder_below(str(root), str(root / name)) == root / name
    assert folder_below(str(tmp_path / "to_root"), str(root / "bag")) == root / "bag"


def test_a_request_for_a_bag_elsewhere_is_refused_and_writes_nothing(recorder, tmp_path):
    it = recorder(topics=["/words"], bag_root=str(tmp_path / "root"))
    for name in (str(tmp_path / "elsewhere"), "../elsewhere", "~/elsewhere"):
        answer = it.start(bag=name)
        assert not answer.success and f"allowed: a folder below {tmp_path / 'root'}" in answer.message
    assert not (tmp_path / "elsewhere").exists()
    answer = it.start(bag="sub/bag")
    assert answer.success and answer.bag == str(tmp_path / "root" / "sub" / "bag")


def test_a_command_is_recorded_whatever_its_publishers_offer_and_however_late_they_come(ros, recorder, robot, tmp_path):
    from sensor_msgs.msg import JointState

    from depthvla_control.ros import qos

    topic = robot.limbs[0].topics.arm_command
    it = recorder(topics=["{limb.topics.arm_command}"])
    executor = it.probe.publisher(JointState, topic, qos.stream("reliable", 10))
    assert it.start(bag=str(tmp_path / "bag")).success
    send(it.probe, executor, [JointState(name=["executor"], position=[float(i)]) for i in range(20)])
    with ros.Probe("rival") as rival:
        publisher = rival.publisher(JointState, topic, qos.stream("best_effort", 10))
        rival.wait_for(publisher.get_subscription_count, what="a reader that was there before")
        publisher.publish(JointState(name=["rival"], position=[1.0]))
        for i in range(20, 40):
            executor.publish(JointState(name=["executor"], position=[float(i)]))
        it.probe.wait_for(lambda: it.said[-1].messages >= 42, what="all of it")
    assert it.stop().success
    with Bag(tmp_path / "bag") as bag:
        messages = [message for _, message in bag.read([topic])[topic]]
    assert [m.position[0] for m in messages if m.name == ["executor"]] == list(range(40))
    assert [m.position[0] for m in messages if m.name == ["rival"]] == [1.0]


def test_a_publisher_of_a_weaker_qos_that_comes_later_is_recorded_too(ros, recorder, tmp_path):
    from std_msgs.msg import String

    from depthvla_control.ros import qos

    it = recorder(topics=["/words"])
    strong = it.probe.publisher(String, "/words", qos.status())
    strong.publish(String(data="latched"))
    assert it.start(bag=str(tmp_path / "bag")).success
    it.probe.wait_for(lambda: it.said[-1].messages >= 2, what="the latched word")
    weak = it.probe.publisher(String, "/words", qos.stream("best_effort", 10))
    send(it.probe, weak, [String(data="weak")])
    strong.publish(String(data="strong"))
    it.probe.wait_for(lambda: it.said[-1].messages >= 4, what="both")
    it.node.wait_for_output("/words has a publisher of a weaker QoS")
    assert it.stop().success
    with Bag(tmp_path / "bag") as bag:
        assert sorted(message.data for _, message in bag.read(["/words"])["/words"]) == ["latched", "strong", "weak"]


def test_start_is_refused_where_the_disk_is_nearly_full(recorder, tmp_path):
    it = recorder(min_free_mb=2**30)
    answer = it.start()
    assert not answer.success
    assert f"the disk of bag {tmp_path}/default has " in answer.message
    assert answer.message.endswith("MB left; min_free_mb is 1073741824")
    assert not any(tmp_path.iterdir())
    assert it.node.stop() == 0


def test_episode_without_a_required_topic_is_failed_and_the_next_one_is_not(recorder, tmp_path):
    from diagnostic_msgs.msg import DiagnosticArray
    from std_msgs.msg import String

    it = recorder(topics=["/words required", "/others"])
    heard = it.probe.listen(DiagnosticArray, "/diagnostics")
    assert it.start(bag=str(tmp_path / "none")).success
    failed = it.wait_for_state(FAILED)
    assert failed.reason == "nothing came within 2 s on /words" and failed.bag == str(tmp_path / "none")

    def in_error():
        return any(
            status.level == b"\x02" and "FAILED: nothing came within 2 s on /words" in status.message
            for message in heard
            for status in message.status
        )

    it.probe.wait_for(in_error, what="an error on /diagnostics")
    assert "EPISODE FAILED" in it.node.output()
    with Bag(tmp_path / "none") as bag:
        assert (bag.custom_data["outcome"], bag.custom_data["failure"]) == ("failed", failed.reason)

    words = it.probe.publisher(String, "/words")
    assert it.start(bag=str(tmp_path / "falls silent")).success
    it.wait_for_state(RECORDING)
    send(it.probe, words, [String(data="one")])
    time.sleep(2.5)
    answer = it.stop("success")
    assert not answer.success and answer.message == "FAILED: nothing came in the last 2 s on /words"
    with Bag(tmp_path / "falls silent") as bag:
        assert bag.custom_data["outcome"] == "failed"

    assert it.start(bag=str(tmp_path / "whole")).success
    send(it.probe, words, [String(data="one")])
    assert it.stop("success").success
    assert it.wait_for_state(IDLE).reason == ""
    assert it.node.stop() == 1  # an episode failed


def test_full_disk_fails_the_episode_and_leaves_the_others_alone(recorder, tmp_path):
    from sensor_msgs.msg import CompressedImage

    it = recorder(module="fixtures.recorder_on_a_small_disk", topics=["/images"])
    images = it.probe.publisher(CompressedImage, "/images")
    noise = np.random.default_rng(0)

    def record(name, count):
        assert it.start(bag=str(tmp_path / name)).success
        send(it.probe, images, [stamped(CompressedImage(data=noise.bytes(8_000)), i + 1) for i in range(count)])

    record("before", 3)
    assert it.stop().success
    record("too much", 50)
    failed = it.wait_for_state(FAILED)
    assert f"cannot write bag {tmp_path}/too much" in failed.reason and "File too large" in failed.reason
    assert not it.stop().success
    record("after", 3)
    assert it.stop().success
    assert it.node.stop() == 1

    for name in ("before", "after"):
        with Bag(tmp_path / name) as bag:
            assert bag.topics["/images"].count == 3
    assert recover(tmp_path / "too much").messages > 0
    with Bag(tmp_path / "too much") as bag:
        assert bag.custom_data["outcome"] == "failed" and "File too large" in bag.custom_data["failure"]


@pytest.mark.parametrize("seed", range(2))
def test_killed_recorder_loses_at_most_a_second(ros, recorder, tmp_path, seed):
    from sensor_msgs.msg import JointState

    it = recorder(topics=["/fast", "/slow"])
    published = {"/fast": [], "/slow": []}
    publishers = {topic: it.probe.publisher(JointState, topic, 100) for topic in published}

    def publish(topic):
        stamp = time.time_ns()
        message = JointState(position=[0.0] * 6)
        message.header.stamp.sec, message.header.stamp.nanosec = divmod(stamp, 10**9)
        publishers[topic].publish(message)
        published[topic].append(stamp)

    assert it.start(task="stacking", bag=str(tmp_path / "bag")).success
    for topic, publisher in publishers.items():
        it.probe.wait_for(publisher.get_subscription_count, what="the recorder's subscription")
        it.probe.every({"/fast": 0.005, "/slow": 0.1}[topic], lambda topic=topic: publish(topic))
    time.sleep(1.0)
    assert it.mark("one").success
    time.sleep(random.Random(seed).uniform(1.0, 3.0))
    killed_ns = time.time_ns()
    it.node.process.send_signal(signal.SIGKILL)
    it.node.wait()

    with pytest.raises(ValueError, match="killed before it closed"):
        Bag(tmp_path / "bag")
    recover(tmp_path / "bag")
    with Bag(tmp_path / "bag") as bag:
        stamps = bag.stamps(published)
        about = bag.custom_data
    for topic, sent in published.items():
        assert not {stamp for stamp in sent if stamp < killed_ns - MAY_BE_LOST_NS} - set(stamps[topic])
    assert (about["task"], about["outcome"]) == ("stacking", "failed")
    assert [mark["substep"] for mark in json.loads(about["substeps"])] == ["one"]
