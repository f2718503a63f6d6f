"""What is written is what comes back, whole episodes only, in the layout that LeRobot reads."""

from __future__ import annotations

import json

import cv2
import lerobot_samples as samples
import numpy as np
import pyarrow.parquet as pq
import pytest
from lerobot_samples import CAMERAS, ROBOT

from depthvla_policy.data.demonstrations import Demonstrations
from depthvla_policy.data.images import decode_depth
from depthvla_policy.data.lerobot_writer import DatasetWriter
from depthvla_policy.policy.images import ImageFit
from depthvla_policy.policy.normalise import Normaliser


def read(folder):
    return Demonstrations([folder], ROBOT, CAMERAS, fit=ImageFit(36, "crop"), depth_size=36, horizon=4)


def files(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def table(folder, number=0):
    return pq.read_table(folder / f"data/chunk-000/file-{number:03d}.parquet")


def test_the_files_are_those_of_layout_v3(tmp_path):
    with DatasetWriter(tmp_path, ROBOT) as writer:
        samples.write(writer, [20, 3])
    assert files(tmp_path) == [
        "data/chunk-000/file-000.parquet",
        "data/chunk-000/file-001.parquet",
        "meta/episodes/chunk-000/file-000.parquet",
        "meta/info.json",
        "meta/stats.json",
        "meta/tasks.parquet",
    ]
    info = json.loads((tmp_path / "meta/info.json").read_text())
    assert (info["codebase_version"], info["robot_type"], info["fps"]) == ("v3.0", "r1lite", 15)
    assert (info["total_episodes"], info["total_frames"], info["total_tasks"]) == (2, 23, 2)
    assert info["features"]["observation.state.left_arm"]["shape"] == [6]
    assert info["features"]["action.right_gripper"]["shape"] == [1]
    assert info["features"]["observation.images.left_wrist_rgb"]["dtype"] == "image"
    assert info["features"]["observation.depth.head"]["info"] == {"is_depth_map": True, "depth_unit": "mm"}


def test_indices_count_through_the_dataset(tmp_path):
    with DatasetWriter(tmp_path, ROBOT) as writer:
        samples.write(writer, [20, 3])
    second = table(tmp_path, 1)
    assert second["index"].to_pylist() == [20, 21, 22]
    assert second["frame_index"].to_pylist() == [0, 1, 2]
    assert second["task_index"].to_pylist() == [1, 1, 1]
    np.testing.assert_allclose(second["timestamp"].to_numpy(), np.arange(3) / 15, rtol=1e-6)
    (first, last) = pq.read_table(tmp_path / "meta/episodes/chunk-000/file-000.parquet").to_pylist()
    assert (first["dataset_from_index"], first["dataset_to_index"]) == (0, 20)
    assert (last["dataset_from_index"], last["dataset_to_index"], last["tasks"]) == (20, 23, ["lift 1"])
    assert (first["seed"], last["seed"]) == (1000, 1001)


def test_image_bytes_are_kept_as_they_came(tmp_path):
    data = samples.encode(np.random.default_rng(0).integers(0, 255, (36, 64, 3), dtype=np.uint8), ".jpg")
    with DatasetWriter(tmp_path, ROBOT) as writer:
        samples.write(writer, [2], images=dict.fromkeys(CAMERAS, data))
    assert table(tmp_path)["observation.images.head_rgb"][1].as_py()["bytes"] == data


def test_depth_comes_back_within_half_a_millimetre_up_to_65_metres(tmp_path):
    depth_m = np.random.default_rng(0).uniform(0.001, 65.5, (36, 64))
    stored = np.rint(depth_m * 1000).astype(np.uint16)
    with DatasetWriter(tmp_path, ROBOT) as writer:
        samples.write(writer, [1], depth=dict.fromkeys(CAMERAS, samples.encode(stored)))
    back = decode_depth(table(tmp_path)["observation.depth.head"][0].as_py()["bytes"])
    assert np.abs(back - depth_m).max() <= 0.5001e-3


def test_unknown_depth_is_nan(tmp_path):
    with DatasetWriter(tmp_path, ROBOT) as writer:
        samples.write(writer, [2])
    depth_m = read(tmp_path)[1]["depth_m"]
    assert np.isnan(depth_m[:, :, :18]).all()
    np.testing.assert_allclose(depth_m[:, :, 18:], 1.001)


def test_a_video_shows_the_frame_of_every_index(tmp_path):
    with DatasetWriter(tmp_path, ROBOT, images="video") as writer:
        samples.write(writer, [20, 9])
    found = read(tmp_path)
    assert "videos/observation.images.head_rgb/chunk-000/file-001.mp4" in files(tmp_path)
    assert "observation.images.head_rgb" not in table(tmp_path).column_names
    for i, (episode, frame) in {0: (0, 0), 19: (0, 19), 7: (0, 7), 28: (1, 8), 20: (1, 0)}.items():
        for camera, image in enumerate(found[i]["images"]):
            assert abs(image.mean() - samples.picture(episode, frame, camera).mean()) < 1.5


def test_an_interrupted_episode_leaves_no_trace(tmp_path):
    with pytest.raises(KeyboardInterrupt), DatasetWriter(tmp_path, ROBOT, images="video") as writer:
        samples.write(writer, [5])
        writer.begin_episode("lift 9")
        writer.add_frame(samples.frame(1, 0))
        raise KeyboardInterrupt
    found = read(tmp_path)
    assert list(found.lengths) == [5] and found.instructions == ["lift 0"]
    assert not (tmp_path / ".part").exists()


def test_a_killed_writer_is_continued_as_if_it_had_not_been(tmp_path):
    writer = DatasetWriter(tmp_path / "killed", ROBOT)
    samples.write(writer, [20, 3])
    writer.begin_episode("lift 9")
    writer.add_frame(samples.frame(2, 0))  # and nobody closes it
    assert list(read(tmp_path / "killed").lengths) == [20, 3]
    data = tmp_path / "killed/data/chunk-000"
    (data / "file-002.parquet").write_bytes((data / "file-001.parquet").read_bytes())  # moved, but not in the table
    with DatasetWriter(tmp_path / "killed", ROBOT):
        assert not (data / "file-002.parquet").exists()
    with DatasetWriter(tmp_path / "killed", ROBOT) as again:
        assert [row["seed"] for row in again.episodes] == [1000, 1001]
        samples.write(again, [4])
    with DatasetWriter(tmp_path / "whole", ROBOT) as whole:
        samples.write(whole, [20, 3, 4])
    assert files(tmp_path / "killed") == files(tmp_path / "whole")
    for name in files(tmp_path / "whole"):
        assert (tmp_path / "killed" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name


def test_a_dropped_episode_is_not_there(tmp_path):
    with DatasetWriter(tmp_path, ROBOT) as writer:
        writer.begin_episode("lift 9")
        writer.add_frame(samples.frame(0, 0))
        writer.discard_episode()
        samples.write(writer, [3])
    assert read(tmp_path).instructions == ["lift 0"]


def test_the_episode_table_goes_on_in_another_file(tmp_path, monkeypatch):
    monkeypatch.setattr("depthvla_policy.data.lerobot_writer.EPISODES_PER_FILE", 2)
    for lengths in ([1, 2, 3], [4, 5]):
        with DatasetWriter(tmp_path, ROBOT) as writer:
            samples.write(writer, lengths)
    assert list(read(tmp_path).lengths) == [1, 2, 3, 4, 5]
    assert len(list((tmp_path / "meta/episodes/chunk-000").iterdir())) == 3


def test_statistics_are_those_of_all_frames(tmp_path):
    with DatasetWriter(tmp_path, ROBOT) as writer:
        samples.write(writer, [20, 3])
    stats = json.loads((tmp_path / "meta/stats.json").read_text())
    states = read(tmp_path).states()
    arm = stats["observation.state.right_arm"]
    np.testing.assert_allclose(arm["mean"], states[:, 7:13].mean(0))
    np.testing.assert_allclose(arm["std"], states[:, 7:13].std(0))
    np.testing.assert_allclose([arm["min"], arm["max"]], [states[:, 7:13].min(0), states[:, 7:13].max(0)])
    assert arm["count"] == [23]
    image = stats["observation.images.head_rgb"]
    assert np.shape(image["mean"]) == (3, 1, 1)
    assert image["min"][0][0][0] == pytest.approx(20 / 255)


def test_an_unknown_target_does_not_spoil_the_statistics(tmp_path):
    with DatasetWriter(tmp_path, ROBOT) as writer:
        samples.write(writer, [3], target_m=np.full(3, np.nan))
        samples.write(writer, [3])
    assert json.loads((tmp_path / "meta/stats.json").read_text())["observation.target"]["count"] == [3]
    assert np.isnan(read(tmp_path)[0]["target_m"]).all()


def test_an_action_that_nobody_knows_comes_back_as_nan_and_leaves_the_statistics_alone(tmp_path):
    with DatasetWriter(tmp_path, ROBOT) as writer:
        for action in (None, np.full(14, np.nan)):
            writer.begin_episode("lift")
            for step in range(3):
                writer.add_frame(samples.frame(0, step, **({} if action is None else {"action": action})))
            writer.save_episode()
    found = read(tmp_path)
    assert np.isfinite(found[0]["actions"]).all() and np.isnan(found[3]["actions"]).all()
    known = found.subset([0])
    both = Normaliser.fit(found.states(), found.chunks(), ROBOT.gripper_mask)
    np.testing.assert_array_equal(
        both.action_mean, Normaliser.fit(known.states(), known.chunks(), ROBOT.gripper_mask).action_mean
    )
    with pytest.raises(ValueError, match="no action is known"):
        Normaliser.fit(*(getattr(found.subset([1]), name)() for name in ("states", "chunks")), ROBOT.gripper_mask)


def test_camera_matrices_stand_with_their_images(tmp_path):
    with DatasetWriter(tmp_path, ROBOT, camera_matrices={"wrist_left": np.eye(3)}) as writer:
        samples.write(writer, [1])
    described = json.loads((tmp_path / "meta/info.json").read_text())["features"]
    assert described["observation.images.left_wrist_rgb"]["info"]["camera_matrix"] == np.eye(3).tolist()
    assert "camera_matrix" not in described["observation.images.head_rgb"]["info"]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"state": np.full(14, np.nan)}, "14 finite numbers"),
        ({"action": np.zeros(13)}, "14 finite numbers"),
        ({"action": np.array([np.nan, *np.zeros(13)])}, "14 finite numbers"),
        ({"depth": dict.fromkeys(CAMERAS, samples.encode(np.zeros((36, 64), np.uint8)))}, "16-bit"),
        ({"images": dict.fromkeys(CAMERAS, b"no image")}, "not a JPEG or PNG"),
    ],
)
def test_a_frame_that_is_no_good_is_refused(tmp_path, changed, message):
    with DatasetWriter(tmp_path, ROBOT) as writer, pytest.raises(ValueError, match=message):
        writer.begin_episode("lift")
        writer.add_frame(samples.frame(0, 0, **changed))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"depth": {}}, "observation.depth.head"),
        ({"target_m": None}, "observation.target"),
        ({"images": dict.fromkeys(CAMERAS, samples.encode(np.zeros((18, 32, 3), np.uint8)))}, "images.head_rgb"),
    ],
)
def test_an_episode_of_another_kind_is_refused(tmp_path, changed, message):
    with DatasetWriter(tmp_path, ROBOT) as writer:
        samples.write(writer, [2])
        with pytest.raises(ValueError, match=message):
            samples.write(writer, [2], **changed)
    assert list(read(tmp_path).lengths) == [2]


def test_other_notes_are_refused(tmp_path):
    with DatasetWriter(tmp_path, ROBOT) as writer:
        samples.write(writer, [2])
        writer.begin_episode("lift")
        writer.add_frame(samples.frame(0, 0))
        with pytest.raises(ValueError, match="seed"):
            writer.save_episode({})


def test_a_dataset_of_another_kind_is_not_continued(tmp_path):
    samples.write_v21(tmp_path, [3])
    with pytest.raises(ValueError, match=r"v2\.1"):
        DatasetWriter(tmp_path, ROBOT)


def test_an_unknown_kind_of_images_is_named(tmp_path):
    with pytest.raises(ValueError, match="'gif'"):
        DatasetWriter(tmp_path, ROBOT, images="gif")


def test_jpeg_pictures_pass_through_the_policys_decoder(tmp_path):
    image = np.zeros((36, 64, 3), np.uint8)
    image[..., 0] = 200
    data = samples.encode(cv2.cvtColor(image, cv2.COLOR_RGB2BGR), ".jpg")
    with DatasetWriter(tmp_path, ROBOT) as writer:
        samples.write(writer, [1], images=dict.fromkeys(CAMERAS, data))
    assert np.abs(read(tmp_path)[0]["images"].astype(int) - image[:, :36]).max() < 6
