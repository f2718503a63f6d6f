"""Adapters of the policy server: whose observations they take, what they answer, which checkpoints they refuse."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import tiny_model
from serving_harness import LIBERO, PROMPT, observation, picture, save_checkpoint

from depthvla_policy.policy.checkpoint import CheckpointConfig, PolicyConfig
from depthvla_policy.policy.observation import Observation
from depthvla_policy.policy.policy import Policy
from depthvla_policy.serving import adapters, fields, protocol
from depthvla_policy.serving.service import Service

CAMERAS = ("head", "wrist_left", "wrist_right")


def galaxea_observation(robot):
    """As LeRobot gives it: images (3, H, W) float, grippers without an axis."""
    ours = observation(robot)
    images = {camera: image.transpose(2, 0, 1).astype(np.float32) / 255 for camera, image in ours["images"].items()}
    return {
        "observation.images.head_rgb": images["head"],
        "observation.images.left_wrist_rgb": images["wrist_left"],
        "observation.images.right_wrist_rgb": images["wrist_right"],
        "observation.state.left_arm": ours["state"][:6].astype(np.float32),
        "observation.state.left_gripper": ours["state"][6],
        "observation.state.right_arm": ours["state"][7:13].astype(np.float32),
        "observation.state.right_gripper": ours["state"][13:],
        "observation.state.torso": np.zeros(4),
        "task": f"把红色方块拿起来@{PROMPT}",
    }


def assert_same(one: Observation, other: Observation):
    assert one.images.keys() == other.images.keys() and one.instruction == other.instruction
    for camera, image in one.images.items():
        assert np.array_equal(image, other.images[camera])
    np.testing.assert_allclose(one.state, other.state, atol=1e-6)


def test_galaxeas_names_and_ours_give_the_same_observation(robot):
    ours = adapters.load("r1lite").observation(observation(robot), CAMERAS)
    assert_same(adapters.load("galaxea").observation(galaxea_observation(robot), CAMERAS), ours)


def test_galaxeas_answer_has_the_chunk_and_its_parts():
    chunk = np.arange(16 * 14.0).reshape(16, 14)
    answer = adapters.load("galaxea").answer(chunk)
    assert np.array_equal(answer.pop("actions"), chunk)
    assert [(name, part.shape[1]) for name, part in answer.items()] == [
        ("action.left_arm", 6),
        ("action.left_gripper", 1),
        ("action.right_arm", 6),
        ("action.right_gripper", 1),
    ]
    assert np.array_equal(np.hstack(list(answer.values())), chunk)


def test_nested_and_flat_names_are_the_same_field(robot):
    nested = observation(robot)
    flat = {f"images/{camera}": image for camera, image in nested.pop("images").items()} | nested
    adapter = adapters.load("r1lite")
    assert_same(adapter.observation(flat, CAMERAS), adapter.observation(observation(robot), CAMERAS))


def test_a_checkpoint_with_fewer_cameras_asks_for_fewer(robot):
    sent = observation(robot, images={"head": picture()})
    assert set(adapters.load("r1lite").observation(sent, ("head",)).images) == {"head"}


def test_an_image_is_the_same_in_every_form():
    image = picture()
    fractions = image.astype(np.float32) / 255
    for form in (image.transpose(2, 0, 1), fractions, fractions.transpose(2, 0, 1), fractions.astype(np.float64)):
        assert np.array_equal(fields.picture(form, "image"), image)


SIMPLER = {"image": picture(0), "state": [0.3, 0.0, 0.1, 0.0, 0.1, 0.0, 1.0], "instruction": PROMPT}


@pytest.mark.parametrize(("name", "sent", "size"), [("libero", LIBERO, 8), ("simpler", SIMPLER, 7)])
def test_a_single_arm_benchmark_gets_seven_actions_a_step(name, sent, size, tmp_path):
    adapter = adapters.load(name)
    assert adapter.robot.size == size
    policy = Policy.load(save_checkpoint(tmp_path / name, adapter.robot), robot=adapter.robot)
    service = Service(policy, adapter, seed=3)
    answer = service.answer(protocol.pack(sent))
    images = [value for value in sent.values() if isinstance(value, np.ndarray) and value.ndim == 3]
    state = np.asarray(sent.get("state", sent.get("observation/state")), dtype=np.float64)
    seen = Observation(0, dict(zip(policy.cameras, images, strict=True)), state, PROMPT)
    assert np.array_equal(answer["actions"], policy.infer(seen, seed=3).actions[:, :7])
    metadata = service.metadata
    assert len(metadata["action_names"]) == len(metadata["action_units"]) == 7
    assert len(metadata["state_names"]) == len(metadata["state_units"]) == size
    assert set(metadata["observation"]) == set(sent)


def test_simplers_raw_pose_is_refused_with_what_is_wanted():
    with pytest.raises(ValueError, match=r"state has shape \(8,\).*7 finite numbers: eef_x, .*eef_roll"):
        adapters.load("simpler").observation(SIMPLER | {"state": np.zeros(8)}, ("image",))


@pytest.mark.parametrize(
    ("checkpoint", "adapter", "message"),
    [
        ("r1lite", "libero", "'libero' needs .* the 8 state and action entries eef_x, .* 'tiny' has 14: left_arm"),
        ("r1lite", "simpler", "'simpler' needs .* the 7 state and action entries eef_x, .* 'tiny' has 14: left_arm"),
        ("libero", "simpler", "'simpler' needs .* the 7 .* 'tiny' has 8: eef_x"),
        ("simpler", "r1lite", "'r1lite' needs .* the 14 .* 'tiny' has 7: eef_x"),
    ],
)
def test_a_checkpoint_of_another_robot_is_refused_by_name_and_size(checkpoint, adapter, message):
    wired = PolicyConfig.of(adapters.load(checkpoint).robot)
    config = dataclasses.replace(tiny_model.CONFIG, cameras=len(wired.cameras))
    with pytest.raises(ValueError, match=message):
        adapters.load(adapter).check(CheckpointConfig("tiny", config, wired))


def test_a_checkpoint_with_another_camera_is_refused_by_name():
    adapter = adapters.load("libero")
    wired = dataclasses.replace(PolicyConfig.of(adapter.robot), cameras=("image", "chest"))
    config = dataclasses.replace(tiny_model.CONFIG, cameras=2)
    with pytest.raises(ValueError, match="no other cameras than image, wrist_image; 'tiny' has 2: image, chest"):
        adapter.check(CheckpointConfig("tiny", config, wired))


def test_a_checkpoint_that_takes_true_depth_is_refused(robot):
    depth = dataclasses.replace(tiny_model.CONFIG.depth, input="ground_truth", loss_weight=0.0)
    config = dataclasses.replace(tiny_model.CONFIG, depth=depth)
    with pytest.raises(ValueError, match="takes true depth, which adapter 'r1lite' has no field for"):
        adapters.load("r1lite").check(CheckpointConfig("tiny", config, PolicyConfig.of(robot)))


def test_an_unknown_adapter_is_refused():
    with pytest.raises(ValueError, match="adapter is 'aloha'; allowed: r1lite, galaxea, libero, simpler"):
        adapters.load("aloha")
