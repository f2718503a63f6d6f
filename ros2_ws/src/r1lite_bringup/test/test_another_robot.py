"""What docs/another_robot.md promises, with the R1 Lite's description changed as it says."""

from __future__ import annotations

import copy
from types import SimpleNamespace

import pytest
import yaml

from r1lite_description import robot as robot_description
from r1lite_description.share import robot_file, share

CHEST = {
    "topic": "/camera_chest/color/image_raw/compressed",
    "camera_info": "/camera_chest/color/camera_info",
    "frame_id": "camera_chest_optical_frame",
}


@pytest.fixture
def raw() -> dict:
    return yaml.safe_load(robot_file().read_text())


@pytest.fixture
def changed(raw) -> dict:
    """Another robot: a fourth camera, seven joints an arm, topics of its own."""
    changed = copy.deepcopy(raw)
    changed["name"] = "another"
    changed["cameras"]["chest"] = CHEST
    for name, limb in changed["limbs"].items():
        limb["joints"] = [f"{name}_j{number}" for number in range(7)]
        limb["topics"] = {key: f"/another/{name}/{key}" for key in limb["topics"]}
    for values in changed["arm"].values():
        values.append(values[-1])
    return changed


@pytest.fixture
def file(changed, tmp_path):
    path = tmp_path / "another.yaml"
    path.write_text(yaml.safe_dump(changed, sort_keys=False))
    return path


def topics(node) -> tuple[set[str], set[str]]:
    """What a node publishes and what it subscribes to."""
    return {item.topic_name for item in node.publishers}, {item.topic_name for item in node.subscriptions}


@pytest.fixture
def context(ros):
    import rclpy
    from rclpy.context import Context

    context = Context()
    rclpy.init(context=context)
    yield context
    rclpy.shutdown(context=context)


@pytest.fixture
def configured(context, file):
    """Makes a node for the other robot and configures it."""
    from rclpy.lifecycle import TransitionCallbackReturn
    from rclpy.parameter import Parameter

    nodes = []

    def configured(make, **arguments):
        overrides = [Parameter("robot_file", value=str(file))]
        nodes.append(make(context=context, parameter_overrides=overrides, **arguments))
        assert nodes[-1].trigger_configure() == TransitionCallbackReturn.SUCCESS
        return nodes[-1]

    yield configured
    for node in nodes:
        node.trigger_shutdown()
        node.destroy_node()


def test_a_state_vector_follows_the_description(file):
    robot = robot_description.load(file)
    assert robot.size == 16 and robot.joint_names[:2] == ("left_j0", "left_j1")
    assert robot.joint_names[7] == "left_gripper" and robot.limb("right").slice == slice(8, 16)
    assert robot.cameras[0].name == "head"


def test_a_camera_is_recorded_with_its_predicted_depth(file):
    from depthvla_evaluation.bags.topic_rules import parse_rules

    parameters = yaml.safe_load(
        (share("depthvla_evaluation") / "config" / "episode_recorder_node.param.yaml").read_text()
    )
    entries = parameters["episode_recorder_node"]["ros__parameters"]["topics"]
    rules = parse_rules(entries, robot_description.load(file))
    assert {CHEST["topic"], CHEST["camera_info"], "/policy_node/depth/chest/image"} <= set(rules)
    assert "/another/left/arm_command" in rules


def test_cameras_and_limbs_are_features_of_a_dataset(file):
    from depthvla_policy.data import features

    robot = robot_description.load(file)
    assert [part.feature for part in features.action_parts(robot)][:2] == ["action.left_arm", "action.left_gripper"]
    assert features.image_feature(robot, "chest") == "observation.images.chest_rgb"
    assert features.image_feature(robot, "wrist_left") == "observation.images.left_wrist_rgb"


def test_the_executor_commands_the_other_arms_and_no_others(configured):
    from depthvla_control.nodes.chunk_executor_node import ChunkExecutorNode

    published, subscribed = topics(configured(ChunkExecutorNode))
    assert {f"/another/{limb}/{kind}_command" for limb in ("left", "right") for kind in ("arm", "gripper")} <= published
    assert "/another/left/arm_feedback" in subscribed
    assert not [topic for topic in published | subscribed if topic.startswith(("/hdas", "/motion_target"))]


def test_the_policy_takes_the_cameras_of_its_checkpoint_and_ignores_others(configured):
    from depthvla_policy.nodes.policy_node import PolicyNode

    policy = SimpleNamespace(
        model_id="any",
        cameras=("head", "chest"),
        rectified=(),
        has_depth=True,
        horizon=16,
        image_fit="crop",
        prepare=lambda: None,
        infer=lambda *_, **__: None,
    )
    node = configured(PolicyNode, load=lambda *_: policy)
    published, subscribed = topics(node)
    assert CHEST["topic"] in subscribed and "/policy_node/depth/chest/image" in published
    assert not [topic for topic in subscribed if "wrist" in topic]
    assert node.value("cameras.chest.topic") == CHEST["topic"]


def test_a_checkpoint_for_other_cameras_or_joints_is_refused(checkpoint, raw, file, tmp_path):
    from depthvla_policy.policy.policy import Policy

    with pytest.raises(ValueError, match="joints"):
        Policy.load(str(checkpoint), "cpu", robot_description.load(file))
    del raw["cameras"]["wrist_left"]
    fewer = tmp_path / "fewer.yaml"
    fewer.write_text(yaml.safe_dump(raw, sort_keys=False))
    with pytest.raises(ValueError, match="wrist_left"):
        Policy.load(str(checkpoint), "cpu", robot_description.load(fewer))


def test_limbs_with_other_names_are_refused(changed, tmp_path):
    pytest.importorskip("depthvla_msgs", reason="depthvla_msgs is not built or not sourced")
    from depthvla_control.ros.messages import check_limbs

    changed["limbs"]["third"] = changed["limbs"].pop("left")
    path = tmp_path / "third.yaml"
    path.write_text(yaml.safe_dump(changed, sort_keys=False))
    with pytest.raises(ValueError, match="third"):
        check_limbs(robot_description.load(path))


def test_the_simulator_says_what_a_camera_lacks(raw, tmp_path):
    pytest.importorskip("mujoco", reason="mujoco is not installed")
    from r1lite_sim.simulation import Simulation

    raw["cameras"]["chest"] = CHEST
    path = tmp_path / "r1lite.yaml"
    path.write_text(yaml.safe_dump(raw, sort_keys=False))
    with pytest.raises(ValueError, match="camera_chest_optical_frame.*field of view"):
        Simulation(robot_description.load(path), "lift")
