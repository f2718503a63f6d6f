"""Recorded images reach a training and a replay as the live policy had them: rectified, or not."""

from __future__ import annotations

import json

import numpy as np
import pytest
import yaml
from synthetic_bag import SyntheticBag
from test_data_from_bags import config, frames_of, write_bag
from test_evaluation_replay import write_bag as write_bag_of_chunks

from depthvla_evaluation.bags.bag import Bag
from depthvla_evaluation.bags.episode import read_episode
from depthvla_evaluation.bags.pictures import read_pictures
from depthvla_evaluation.bags.recorded_graph import calibrations, recorded_calibrations, recorded_robot
from depthvla_evaluation.bags.replay import observations
from depthvla_evaluation.dataset.from_bags import FromBagsConfig, convert
from depthvla_evaluation.viewer.bag_snapshots import BagSnapshots
from depthvla_policy.data.demonstrations import Demonstrations
from depthvla_policy.policy import calibration
from depthvla_policy.policy.calibration import Rectifier
from depthvla_policy.policy.images import ImageFit, decode_jpeg
from r1lite_description.robot import load

ROBOT = load()
CAMERAS = tuple(camera.name for camera in ROBOT.cameras)
HEAD_INFO = ROBOT.camera("head").camera_info
K = np.array([[50.0, 0.0, 31.5], [0.0, 50.0, 17.5], [0.0, 0.0, 1.0]])
BENT = [-0.3, 0.08, 0.001, 0.0, 0.0]
WIDTH, HEIGHT = 64, 36
SCORED = {"outcome": "success", "instruction": "stack the blocks"}


def gradient(_episode, number, _camera):
    """A picture whose every pixel tells where it is, and its blue which picture it is."""
    image = np.full((HEIGHT, WIDTH, 3), 4 * number, np.uint8)
    image[..., 0] = np.linspace(0, 255, WIDTH)
    image[..., 1] = np.linspace(0, 255, HEIGHT)[:, None]
    return image


def description(width=WIDTH, height=HEIGHT, d=BENT):
    return {
        "image_width": width,
        "image_height": height,
        "camera_matrix": {"data": K.ravel().tolist()},
        "distortion_model": "plumb_bob",
        "distortion_coefficients": {"data": d},
    }


def written(path, **changes):
    path.write_text(yaml.safe_dump(description(**changes)))
    return path


def recorded_with(**parameters):
    return {**SCORED, "parameters": json.dumps({"/policy_node": parameters})}


def write_infos(path, *coefficients, topic=HEAD_INFO, custom_data=SCORED):
    """A bag of CameraInfo only."""
    with SyntheticBag(path, custom_data) as bag:
        for second, d in enumerate(coefficients):
            bag.camera_info(topic, float(second), K, WIDTH, HEIGHT, d)
    return path


@pytest.fixture
def bag_of_frames(tmp_path, monkeypatch):
    """A bag of demonstrations whose pictures are not of one colour."""
    monkeypatch.setattr("lerobot_samples.picture", gradient)
    return lambda **parameters: write_bag(tmp_path / "bag", custom_data=recorded_with(**parameters))


def test_a_training_sees_what_the_live_policy_sees_to_the_bit(bag_of_frames, tmp_path):
    path, file = bag_of_frames(), written(tmp_path / "head.yaml")
    convert(path, config(path, tmp_path / "out", rectify=("head",), calibration_files={"head": file}))
    fit = ImageFit(24, "crop")
    found = Demonstrations([tmp_path / "out"], ROBOT, CAMERAS, fit=fit, depth_size=0, horizon=4)
    assert found.rectified == ("head",)
    recorded = frames_of(path)[0].images
    head, wrist = decode_jpeg(recorded["head"]), decode_jpeg(recorded["wrist_left"])
    images = found[0]["images"]
    np.testing.assert_array_equal(images[0], fit.apply(Rectifier(calibration.load(file))(head)))
    np.testing.assert_array_equal(images[1], fit.apply(wrist))
    assert not np.array_equal(images[0], fit.apply(head))


def test_a_dataset_is_rectified_as_the_recorded_policy_was_and_not_unasked(bag_of_frames, tmp_path):
    file = str(written(tmp_path / "left.yaml"))
    path = bag_of_frames(**{"cameras.wrist_left.rectify": True, "cameras.wrist_left.calibration_file": file})
    for out, rectify, expected in (("as recorded", None, ("wrist_left",)), ("as they came", (), ())):
        convert(path, config(path, tmp_path / out, rectify=rectify))
        found = Demonstrations(
            [tmp_path / out], ROBOT, CAMERAS, fit=ImageFit(24, "crop"), depth_size=0, horizon=4, in_memory=True
        )
        assert found.rectified == expected


def test_a_dataset_has_one_calibration(bag_of_frames, tmp_path):
    path = bag_of_frames()
    convert(path, config(path, tmp_path / "out"))
    options = {"rectify": ("head",), "calibration_files": {"head": written(tmp_path / "head.yaml")}}
    with pytest.raises(ValueError, match="differ in .* calibration of .'observation.images.head_rgb'"):
        convert(path, config(path, tmp_path / "out", **options))


def test_a_calibration_for_another_size_makes_no_dataset(bag_of_frames, tmp_path):
    path = bag_of_frames()
    options = {"rectify": ("head",), "calibration_files": {"head": written(tmp_path / "head.yaml", width=1280)}}
    with pytest.raises(ValueError, match="images of head are 64x36; their calibration is for 1280x36"):
        convert(path, config(path, tmp_path / "out", **options))


def test_a_file_for_a_camera_that_is_not_rectified_is_an_error(tmp_path):
    with pytest.raises(ValueError, match=r"\['head'\], which are not in rectify"):
        FromBagsConfig((tmp_path,), tmp_path, calibration_files={"head": tmp_path})


def test_a_replayed_observation_is_rectified_as_it_was(tmp_path, robot, home):
    path = write_bag_of_chunks(tmp_path / "bag", home)
    with Bag(path) as bag:
        as_they_came = next(observations(bag, robot, CAMERAS))[1].images
    file = written(tmp_path / "head.yaml", width=32, height=18)
    parameters = {"cameras.head.rectify": True, "cameras.head.calibration_file": str(file)}
    path = write_bag_of_chunks(tmp_path / "again", home, custom_data=recorded_with(**parameters))
    with Bag(path) as bag:
        seen = next(observations(bag, robot, CAMERAS))[1].images
    np.testing.assert_array_equal(seen["head"], Rectifier(calibration.load(file))(as_they_came["head"]))
    np.testing.assert_array_equal(seen["wrist_left"], as_they_came["wrist_left"])


def test_the_calibration_is_the_one_in_the_bag(tmp_path):
    path = write_infos(tmp_path / "bag", BENT, BENT, custom_data=recorded_with(**{"cameras.head.rectify": True}))
    with Bag(path) as bag:
        found = recorded_calibrations(bag, ROBOT, CAMERAS)
    assert list(found) == ["head"] and found["head"].same_as(calibration.parse(description()))


def test_a_bag_without_one_calibration_is_named(tmp_path):
    for name, coefficients, text in (
        ("none", (), "camera head is to be rectified and .* has no calibration"),
        ("several", (BENT, [0.1, 0.0, 0.0, 0.0, 0.0]), "has several calibrations; camera head needs one"),
    ):
        other = {"topic": "/other"} if name == "none" else {}
        with Bag(write_infos(tmp_path / name, *(coefficients or (BENT,)), **other)) as bag:
            with pytest.raises(ValueError, match=text):
                calibrations(bag, ROBOT, ["head"], {})


def test_a_recorded_robot_has_the_topics_that_its_policy_was_given(tmp_path):
    parameters = {"cameras.wrist_left.topic": "/left/image_rect_raw/compressed", "cameras.head.camera_info": "/calib"}
    with Bag(write_infos(tmp_path / "bag", BENT, custom_data=recorded_with(**parameters))) as bag:
        found = recorded_robot(bag)
    assert found.camera("wrist_left").topic == "/left/image_rect_raw/compressed"
    assert found.camera("head").camera_info == "/calib"
    assert found.camera("wrist_right") == ROBOT.camera("wrist_right")


def bag_of_depth(path, calibration_file=""):
    """An image of the head camera, rectified for the policy, and the depth predicted of it."""
    bent = np.array([[1.1, 0, 0], [0, 1.1, 0], [0, 0, 1]]) @ K  # what rectifies is in the file, or in the bag
    parameters = {"cameras.head.rectify": True, "cameras.head.calibration_file": calibration_file}
    with SyntheticBag(path, recorded_with(**parameters)) as bag:
        bag.camera_info(HEAD_INFO, 0.0, bent if calibration_file else K, WIDTH, HEIGHT, BENT)
        bag.camera_info("/policy_node/depth/head/camera_info", 0.0, K, WIDTH, HEIGHT)
        bag.image("head", 0.0, gradient(0, 0, "head"))
        bag.depth("/policy_node/depth/head/image", 0.0, np.full((HEIGHT, WIDTH), 1.0, np.float32))
    return path


@pytest.mark.parametrize("in_a_file", [False, True])
def test_a_report_shows_the_image_that_the_depth_was_predicted_of(tmp_path, in_a_file):
    file = str(written(tmp_path / "head.yaml")) if in_a_file else ""
    with Bag(bag_of_depth(tmp_path / "bag", file)) as bag:
        episode = read_episode(bag)
        ((head, *_),) = read_pictures(bag, episode, [bag.start_ns]).views
        came = next(decode_jpeg(message.data) for _, _, message in bag.messages([ROBOT.camera("head").topic]))
        snapshot = BagSnapshots(bag).snapshot(0.1)
    rectified = Rectifier(calibration.parse(description()))(came)
    assert not np.array_equal(rectified, came)
    for image, k in (
        (head.image, episode.camera_matrices[ROBOT.camera("head").topic]),
        (snapshot.images["head"].pixels(), snapshot.camera_matrices["head"]),
    ):
        np.testing.assert_array_equal(image, rectified)
        np.testing.assert_array_equal(k, K)
    np.testing.assert_allclose(head.fitted, rectified, atol=1)


def test_a_report_without_the_calibration_does_not_put_image_and_depth_together(tmp_path):
    with Bag(bag_of_depth(tmp_path / "bag", str(tmp_path / "elsewhere.yaml"))) as bag:
        episode = read_episode(bag)
        ((head, *_),) = read_pictures(bag, episode, [bag.start_ns]).views
        snapshot = BagSnapshots(bag).snapshot(0.1)
    assert head.image is not None and head.predicted_m is not None and head.fitted is None
    assert snapshot.images["head"].pixels() is not None and "head" not in snapshot.camera_matrices
