"""The deployed policy: checkpoints, images, instructions, normalisation and what it refuses."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import tiny_model
import torch
from safetensors.torch import load_file, save_file

from depthvla_policy.model import config as model_config
from depthvla_policy.policy.checkpoint import CONFIG, CheckpointConfig, load_model
from depthvla_policy.policy.images import ImageFit, decode_jpeg
from depthvla_policy.policy.normalise import Normaliser
from depthvla_policy.policy.observation import Observation
from depthvla_policy.policy.policy import Policy
from depthvla_policy.policy.prompt import BOS, Prompt, train_tokenizer
from r1lite_description import robot as robot_description

ROBOT = robot_description.load()
STATE = (ROBOT.position_min + ROBOT.position_max) / 2


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return tiny_model.save_checkpoint(tmp_path_factory.mktemp("checkpoint") / "tiny")


@pytest.fixture(scope="module")
def policy(checkpoint):
    return Policy.load(checkpoint)


def copy_of(checkpoint, folder):
    folder.mkdir()
    for path in checkpoint.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    return folder


def edit(path, change):
    values = json.loads(path.read_text())
    change(values)
    path.write_text(json.dumps(values))


def observation(**fields):
    rng = np.random.default_rng(0)
    images = {camera.name: rng.integers(0, 255, (36, 64, 3), dtype=np.uint8) for camera in ROBOT.cameras}
    return dataclasses.replace(Observation(1, images, STATE, "lift the red block with the right arm"), **fields)


def test_a_chunk_is_absolute_finite_and_near_the_state(policy):
    prediction = policy.infer(observation(), seed=3)
    arms = ~ROBOT.gripper_mask
    assert prediction.actions.shape == (16, 14) and np.all(np.isfinite(prediction.actions))
    assert np.abs(prediction.actions - STATE)[:, arms].max() < 3.0
    assert prediction.depth_m == {} and prediction.inference_s > 0


def test_the_same_seed_gives_the_same_chunk_and_another_does_not(policy):
    first, same, other = (policy.infer(observation(), seed=seed).actions for seed in (3, 3, 4))
    assert np.array_equal(first, same) and not np.array_equal(first, other)


def test_images_that_were_fitted_before_give_the_same_chunk(policy):
    seen = observation()
    fitted = {name: policy.image_fit.apply(image) for name, image in seen.images.items()}
    expected = policy.infer(seen, seed=3).actions
    np.testing.assert_array_equal(policy.infer(seen, fitted=fitted, seed=3).actions, expected)
    black = {name: np.zeros_like(image) for name, image in fitted.items()}
    assert not np.allclose(policy.infer(seen, fitted=black, seed=3).actions, expected)


def test_depth_comes_when_asked_for_and_does_not_change_the_chunk(policy):
    plain, seen = policy.infer(observation(), seed=3), policy.infer(observation(), depth=True, seed=3)
    np.testing.assert_allclose(plain.actions, seen.actions, atol=1e-5)
    assert set(seen.depth_m) == {"head", "wrist_left", "wrist_right"}
    for depth in seen.depth_m.values():
        assert depth.shape == (policy.depth_size, policy.depth_size) and depth.dtype == np.float32 and depth.min() > 0


def test_pi0_has_no_depth(tmp_path):
    policy = Policy.load(tiny_model.save_checkpoint(tmp_path / "pi0", tiny_model.PI0))
    assert not policy.has_depth and policy.infer(observation(), depth=True).depth_m == {}


def test_the_instruction_matters(policy):
    other = observation(instruction="lift the blue block with the left arm")
    assert not np.allclose(policy.infer(observation(), seed=3).actions, policy.infer(other, seed=3).actions)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"images": {}}, "no image of"),
        ({"state": STATE[:13]}, "14 finite numbers"),
        ({"state": np.where(np.arange(14) == 4, np.nan, STATE)}, "14 finite numbers"),
        ({"instruction": "  "}, "instruction is empty"),
        ({"instruction": "a " * 50}, "at most 20 fit"),
        ({"images": {camera.name: np.zeros((4, 4), np.uint8) for camera in ROBOT.cameras}}, r"\(H, W, 3\) uint8"),
    ],
)
def test_a_bad_observation_is_refused_by_name(policy, fields, message):
    with pytest.raises(ValueError, match=message):
        policy.infer(observation(**fields))


def test_a_missing_checkpoint_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere does not exist"):
        Policy.load(tmp_path / "nowhere")


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "norm_stats.json", "tokenizer.json"])
def test_a_missing_file_of_a_checkpoint_is_named(checkpoint, tmp_path, name):
    folder = copy_of(checkpoint, tmp_path / "copy")
    (folder / name).unlink()
    with pytest.raises(FileNotFoundError, match=name):
        Policy.load(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda v: v["model"].update(layers=4), "missing"),
        (lambda v: v["model"]["vlm"].update(mlp=64), "has shape"),
        (lambda v: v["model"].update(colour=1), "unknown keys .'colour'."),
        (lambda v: v["model"].pop("heads"), "missing keys .'heads'."),
        (lambda v: v["model"].update(horizon="16"), "horizon is '16'; it must be int"),
        (lambda v: v["model"].update(image_fit="squeeze"), "allowed: pad, crop"),
        (lambda v: v["policy"]["joints"].reverse(), "was trained for joints"),
        (lambda v: v["policy"]["cameras"].__setitem__(0, "chest"), "chest"),
    ],
)
def test_a_mismatched_config_is_an_error_that_names_it(checkpoint, tmp_path, change, message):
    folder = copy_of(checkpoint, tmp_path / "copy")
    edit(folder / "config.json", change)
    with pytest.raises(ValueError, match=message):
        Policy.load(folder)


def test_an_unknown_tensor_is_named(checkpoint, tmp_path):
    folder = copy_of(checkpoint, tmp_path / "copy")
    weights = load_file(folder / "model.safetensors")
    weights["stray"] = weights["state_proj.bias"].clone()
    save_file(weights, folder / "model.safetensors")
    with pytest.raises(ValueError, match="stray"):
        Policy.load(folder)


def test_weights_stay_in_the_mapped_file_where_the_dtype_allows(checkpoint):
    def mapped(dtype):
        """Whether each parameter lies in pages of the file (proc(5))."""
        model = load_model(checkpoint, tiny_model.CONFIG, "cpu", dtype)
        lines = [line.split() for line in Path("/proc/self/maps").read_text().splitlines()]
        ends = [line[0].split("-") for line in lines if line[-1] == str(checkpoint / "model.safetensors")]
        pages = [range(int(begin, 16), int(end, 16)) for begin, end in ends]
        return [any(parameter.data_ptr() in part for part in pages) for parameter in model.parameters()]

    assert all(mapped(torch.float32))
    assert not any(mapped(torch.bfloat16))


def test_statistics_must_be_finite(checkpoint, tmp_path):
    folder = copy_of(checkpoint, tmp_path / "copy")
    edit(folder / "norm_stats.json", lambda v: v["norm_stats"]["state"]["std"].__setitem__(0, 0.0))
    with pytest.raises(ValueError, match="state statistics"):
        Policy.load(folder)


def test_an_unknown_device_is_named(checkpoint):
    with pytest.raises(ValueError, match="'abacus'"):
        Policy.load(checkpoint, device="abacus")


def test_normalisation_is_undone_exactly(policy):
    rng = np.random.default_rng(0)
    actions = STATE + rng.normal(size=(16, 14))
    normalised = policy.stats.actions(actions, STATE)
    np.testing.assert_allclose(policy.stats.absolute_actions(normalised, STATE), actions, atol=1e-12)


def test_arm_actions_are_relative_and_gripper_actions_absolute():
    states = np.arange(8.0).reshape(4, 2)
    actions = states[:, None] + np.array([[[1.0, 0.0], [2.0, 0.0]]])
    stats = Normaliser.fit(states, actions, np.array([False, True]))
    np.testing.assert_allclose(stats.action_mean, [[1.0, 4.0], [2.0, 4.0]])
    np.testing.assert_allclose(stats.action_std[:, 0], 0.01)


def test_a_prompt_has_bos_text_newline_and_padding():
    prompt = Prompt(train_tokenizer(["lift the red block"], 300), 12)
    ids, mask = prompt.encode(" lift_the red block ")
    text = prompt.tokenizer.decode(ids[mask].tolist(), skip_special_tokens=False)
    assert ids[0] == prompt.tokenizer.token_to_id(BOS) and text.endswith("lift the red block\n")
    assert len(ids) == 12 and mask.sum() < 12 and set(ids[~mask]) == {prompt.pad}


def test_any_text_can_be_encoded():
    prompt = Prompt(train_tokenizer(["lift"], 300), 48)
    ids, mask = prompt.encode("把红色积木 Ω")
    assert prompt.tokenizer.decode(ids[mask][1:].tolist()) == "把红色积木 Ω\n"


def test_crop_keeps_the_centre_and_pad_keeps_everything():
    image = np.zeros((90, 160, 3), np.uint8)
    image[:, 35:125] = 200
    assert ImageFit(45, "crop").apply(image).min() == 200
    padded = ImageFit(160, "pad").apply(image)
    assert padded.shape == (160, 160, 3) and np.array_equal(padded[35:125], image) and padded[:35].max() == 0


@pytest.mark.parametrize("fit", ["crop", "pad"])
def test_a_fitted_camera_matrix_projects_onto_the_fitted_pixel(fit):
    width, height, size = 320, 180, 60
    k = np.array([[150.0, 0.0, 159.5], [0.0, 150.0, 89.5], [0.0, 0.0, 1.0]])
    row, column = 100, 200
    depth = np.full((height, width), 2.0, np.float32)
    depth[row - 4 : row + 5, column - 4 : column + 5] = 1.0
    fitted = ImageFit(size, fit).apply_depth(depth, size)
    rows, columns = np.nonzero(fitted == 1.0)
    point = np.linalg.inv(k) @ [column, row, 1.0]
    u, v, _ = ImageFit(size, fit).camera_matrix(k, width, height, size) @ point
    assert abs(rows.mean() - v) <= 0.5 and abs(columns.mean() - u) <= 0.5
    assert np.isnan(fitted).any() == (fit == "pad")


def test_bytes_that_are_no_image_are_refused():
    with pytest.raises(ValueError, match="not a JPEG or PNG"):
        decode_jpeg(b"no image")


def test_decoding_gives_rgb():
    blue = np.zeros((8, 8, 3), np.uint8)
    blue[:] = (255, 0, 0)
    _, data = cv2.imencode(".png", blue)
    assert decode_jpeg(data.tobytes())[0, 0].tolist() == [0, 0, 255]


def test_a_checkpoint_that_does_not_say_what_it_is_made_for_loads_and_one_that_says_nonsense_does_not(tmp_path):
    folder = tiny_model.save_checkpoint(tmp_path / "tiny")
    config = json.loads((folder / CONFIG).read_text())
    assert config["policy"].pop("made_for") == []
    (folder / CONFIG).write_text(json.dumps(config))
    assert CheckpointConfig.read(folder).policy.made_for == ()
    config["policy"]["made_for"] = ["robots"]
    (folder / CONFIG).write_text(json.dumps(config))
    with pytest.raises(ValueError, match=r"made_for has \['robots'\]; allowed: simulation, real"):
        CheckpointConfig.read(folder)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "norm_stats.json", "tokenizer.json"])
@pytest.mark.parametrize("kind", ["a pointer", "cut off", "empty", "a folder"])
def test_a_file_of_a_checkpoint_that_cannot_be_read_is_one_line_with_its_name(checkpoint, tmp_path, name, kind):
    folder = copy_of(checkpoint, tmp_path / "copy")
    whole = (folder / name).read_bytes()
    (folder / name).unlink()
    if kind == "a folder":
        (folder / name).mkdir()
    else:
        pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:5e\nsize 3\n"
        (folder / name).write_bytes({"a pointer": pointer, "cut off": whole[: len(whole) // 2], "empty": b""}[kind])
    with pytest.raises(ValueError, match=rf"{name}: .*wanted: ") as refused:
        Policy.load(folder)
    assert "\n" not in str(refused.value)


def test_weights_that_are_no_floating_point_numbers_are_named(checkpoint, tmp_path):
    folder = copy_of(checkpoint, tmp_path / "copy")
    weights = load_file(folder / "model.safetensors")
    name = sorted(weights)[0]
    save_file(weights | {name: weights[name].to(torch.int8)}, folder / "model.safetensors")
    with pytest.raises(ValueError, match=rf"{name} holds torch\.int8"):
        Policy.load(folder)


def test_statistics_that_are_no_numbers_are_named(checkpoint, tmp_path):
    folder = copy_of(checkpoint, tmp_path / "copy")
    edit(folder / "norm_stats.json", lambda values: values["norm_stats"]["state"].update(mean=["a"]))
    with pytest.raises(ValueError, match=r"norm_stats\.json: state.mean is not numbers"):
        Policy.load(folder)


@pytest.mark.parametrize("base", [5, "itself.json", "list.json"])
def test_a_base_that_is_no_other_file_of_dimensions_is_named(tmp_path, base):
    (tmp_path / "list.json").write_text("[]")
    (tmp_path / "itself.json").write_text(json.dumps({"base": base}))
    with pytest.raises(ValueError, match=r"itself\.json: base is .*it must be the name of another file"):
        model_config.read(tmp_path / "itself.json")
