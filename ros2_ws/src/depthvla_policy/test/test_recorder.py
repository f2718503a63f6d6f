"""The recorder as a process over real DDS: what it was sent is in the bag, and what goes wrong is said."""

from __future__ import annotations

import json

import numpy as np
import pytest

from depthvla_policy.evaluation.bag import Bag, camera_matrix, stamp_ns

MODULE = "depthvla_policy.nodes.episode_recorder_node"
NODE = "/episode_recorder_node"


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

    from depthvla_policy.nodes import qos

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
        wait_for_messages(probe, heard, 7)
        assert node.stop() == 0, node.output()
        assert "closed" in node.output()

    with Bag(tmp_path / "bag") as bag:
        counts = {name: topic.count for name, topic in bag.topics.items()}
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

    from depthvla_policy.evaluation.recording import register_type
    from depthvla_policy.nodes.episode_recorder_node import read_definition

    store = get_typestore(Stores.ROS2_JAZZY)
    for name in ("ActionChunk", "ExecutorStatus", "PolicyStatus", "TaskProgress"):
        description = Path(get_package_share_directory("depthvla_msgs"), "msg", f"{name}.json")
        if not description.exists():
            pytest.skip("this distribution has no type hashes")
        register_type(store, f"depthvla_msgs/msg/{name}", read_definition)
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
        wait_for_messages(probe, heard, 1)
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

    parameters = {"autostart": True, "bag": str(tmp_path / "bag"), "topics": ["/late", "/never"]}
    with ros.Probe() as probe, ros.NodeProcess(MODULE, parameters) as node:
        heard = probe.listen(DiagnosticArray, "/diagnostics")
        probe.wait_for(
            lambda: health(probe, heard).get("nobody publishes") == "/late, /never", what="the missing topics"
        )
        send(probe, probe.publisher(String, "/late"), [String(data="here")])
        wait_for_messages(probe, heard, 1)
        probe.wait_for(lambda: health(probe, heard)["nobody publishes"] == "/never", what="the missing topic")
        assert node.stop() == 0


def test_messages_that_never_came_are_counted(ros):
    from types import SimpleNamespace

    from depthvla_policy.nodes.episode_recorder_node import _Source

    numbers = iter([4, 5, 8, 9, 1, 2])  # two are missing; then the publisher was restarted
    source = _Source(SimpleNamespace(take=lambda: (b"", _info(next(numbers)))), publishers=1)
    for _ in range(6):
        source.take()
    assert source.lost == 2


def _info(number: int) -> dict:
    return {"publication_sequence_number": number, "received_timestamp": 0}


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
