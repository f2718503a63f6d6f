"""Both layouts give the training the same kind of frames; what is not as it should be is named."""

from __future__ import annotations

import json
import pickle
import shutil

import lerobot_samples as samples
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from lerobot_samples import CAMERAS, ROBOT

from depthvla_policy.data.demonstrations import Demonstrations, split
from depthvla_policy.data.features import english
from depthvla_policy.data.images import VideoFrames
from depthvla_policy.data.lerobot_writer import DatasetWriter
from depthvla_policy.policy.images import ImageFit

FIT = ImageFit(36, "crop")


def read(*folders, cameras=CAMERAS, depth_size=18, horizon=4, **options):
    return Demonstrations(folders, ROBOT, cameras, fit=FIT, depth_size=depth_size, horizon=horizon, **options)


@pytest.fixture(scope="module")
def ours(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ours")
    with DatasetWriter(folder, ROBOT) as writer:
        samples.write(writer, [20, 3, 5])
    return folder


@pytest.fixture(scope="module")
def galaxea(tmp_path_factory):
    folder = tmp_path_factory.mktemp("galaxea")
    samples.write_v21(folder, [12, 4, 6])
    return folder


@pytest.fixture
def edited(galaxea, tmp_path):
    """A copy of a dataset whose info.json went through a function."""

    def edit(change):
        folder = tmp_path / "edited"
        folder.mkdir()
        for name in ("data", "videos"):
            (folder / name).symlink_to(galaxea / name)
        (folder / "meta").mkdir()
        for path in (galaxea / "meta").iterdir():
            (folder / "meta" / path.name).write_text(path.read_text())
        info = json.loads((folder / "meta/info.json").read_text())
        change(info)
        (folder / "meta/info.json").write_text(json.dumps(info))
        return folder

    return edit


def test_a_frame_of_ours_is_whole(ours):
    demonstrations = read(ours)
    assert (
        len(demonstrations) == 28
        and list(demonstrations.lengths) == [20, 3, 5]
        and demonstrations.instructions == ["lift 0", "lift 1"]
    )
    item = demonstrations[21]
    assert (item["episode"], item["frame"], item["instruction"]) == (1, 1, "lift 1")
    assert item["images"].shape == (3, 36, 36, 3) and item["images"].dtype == np.uint8
    for camera, image in enumerate(item["images"]):
        assert np.all(image == samples.picture(1, 1, camera)[:, :36])
    assert item["depth_m"].shape == (3, 18, 18) and item["depth_m"].dtype == np.float32
    assert np.isnan(item["depth_m"][:, :, :9]).all()
    np.testing.assert_allclose(item["depth_m"][:, :, 9:], 1.001)
    np.testing.assert_allclose(item["state"], samples.state(1, 1))
    np.testing.assert_allclose(item["target_m"], [0.1, 0.2, 0.01], rtol=1e-6)


def test_the_target_is_found_in_the_fitted_image_of_the_first_camera(tmp_path, ours):
    projection = [[100, 0, 0, 20], [0, 100, 0, 5], [0, 0, 1, 1]]  # column, row and depth of a 64 x 36 image
    with DatasetWriter(tmp_path, ROBOT, target_projections={"head": projection}) as writer:
        for target in ([0.1, 0.2, 0.0], [0.1, 0.2, 1.0], [0.5, 0.2, 0.0], [0.1, 0.2, -2.0], [np.nan] * 3):
            samples.write(writer, [1], target_m=np.array(target))
    np.testing.assert_allclose(
        read(tmp_path).targets_px(), [[16, 25], [1, 12.5], *[[np.nan] * 2] * 3], atol=1e-4, equal_nan=True
    )
    assert np.isnan(read(ours).targets_px()).all()


def test_a_frame_of_galaxeas_is_whole_but_for_what_they_do_not_publish(galaxea):
    demonstrations = read(galaxea)
    assert list(demonstrations.lengths) == [12, 4, 6] and demonstrations.instructions == ["Pick it up", "Put it down"]
    item = demonstrations[13]
    assert (item["episode"], item["frame"], item["instruction"]) == (1, 1, "Put it down")
    assert item["depth_m"] is None and np.isnan(item["target_m"]).all()
    assert np.abs(item["images"].astype(int) - samples.picture(1, 1)[0, 0, 0]).max() <= 1
    np.testing.assert_allclose(item["state"], samples.state(1, 1))
    np.testing.assert_allclose(item["actions"][0], samples.action(1, 1))


def test_seven_values_of_an_arm_are_six_joints_and_a_gripper(tmp_path):
    samples.write_v21(tmp_path, [3], arm_values=7)
    np.testing.assert_allclose(read(tmp_path).states()[2], samples.state(0, 2))


def renamed(folder, feature, names):
    path = folder / "meta/info.json"
    info = json.loads(path.read_text())
    info["features"][feature]["names"] = names
    path.write_text(json.dumps(info))


def test_seven_joints_of_an_arm_are_another_robots(tmp_path):
    samples.write_v21(tmp_path, [3], arm_values=7)
    renamed(tmp_path, "observation.state.left_arm", [f"joint{number}" for number in range(1, 8)])
    with pytest.raises(ValueError, match=r"observation.state.left_arm: names .*'joint7'\] number 7 joints; allowed: 6"):
        read(tmp_path)
    renamed(tmp_path, "observation.state.left_arm", None)
    path = next(tmp_path.glob("data/*/*.parquet"))
    rows = [[*row[:6], 0.3] for row in pq.read_table(path)["action.right_arm"].to_pylist()]
    samples.replace_column(path, "action.right_arm", rows)
    with pytest.raises(ValueError, match="action.right_arm has a value behind its joints that is not its gripper's"):
        read(tmp_path)


def test_joints_that_a_dataset_names_are_put_in_their_order(tmp_path):
    samples.write_v21(tmp_path, [3])
    names = list(ROBOT.limbs[0].joints)
    renamed(tmp_path, "observation.state.left_arm", {"motors": names[::-1]})
    expected = samples.state(0, 2)
    np.testing.assert_allclose(read(tmp_path).states()[2], [*expected[5::-1], *expected[6:]])
    renamed(tmp_path, "observation.state.left_arm", list(ROBOT.limbs[1].joints))
    with pytest.raises(ValueError, match="observation.state.left_arm: names are"):
        read(tmp_path)


def test_a_chunk_repeats_the_last_action_of_its_own_episode(ours):
    chunks = read(ours).chunks()
    assert chunks.shape == (28, 4, 14) and chunks.dtype == np.float64
    np.testing.assert_allclose(chunks[18, :, 0], [18.5, 19.5, 19.5, 19.5])
    np.testing.assert_allclose(chunks[22, :, 0], [102.5] * 4)
    np.testing.assert_allclose(read(ours)[18]["actions"], chunks[18])


def test_several_datasets_are_one(ours, galaxea):
    demonstrations = read(galaxea, ours)
    assert list(demonstrations.lengths) == [12, 4, 6, 20, 3, 5]
    assert demonstrations.instructions == ["Pick it up", "Put it down", "lift 0", "lift 1"]
    item = demonstrations[22 + 21]
    assert (item["episode"], item["frame"], item["instruction"]) == (4, 1, "lift 1")
    np.testing.assert_allclose(item["state"], samples.state(1, 1))
    assert np.isnan(demonstrations[0]["depth_m"]).all() and np.isfinite(item["depth_m"]).any()


def test_chosen_episodes_keep_their_numbers(ours):
    demonstrations = read(ours, episodes=[2, 0])
    assert list(demonstrations.lengths) == [5, 20] and len(demonstrations.states()) == 25
    assert [demonstrations[i]["episode"] for i in (0, 4, 5, 24)] == [2, 2, 0, 0]
    np.testing.assert_allclose(demonstrations[4]["actions"][3], samples.action(2, 4))


def test_a_split_is_by_episode(ours):
    train, held_out = split(read(ours), 0.3)
    assert list(train.lengths) == [20, 3] and list(held_out.lengths) == [5]
    assert held_out[0]["episode"] == 2 and held_out.instructions == ["lift 0"]
    with pytest.raises(ValueError, match=r"0\.9 of 3 episodes"):
        split(read(ours), 0.9)


def test_pictures_in_memory_are_those_of_the_files(ours, galaxea):
    lazy, kept = read(galaxea, ours), read(galaxea, ours, in_memory=True)
    train, held_out = split(kept, 0.2)
    for i in range(len(lazy)):
        ours_item = train[i] if i < len(train) else held_out[i - len(train)]
        for key in ("images", "depth_m"):
            np.testing.assert_allclose(ours_item[key], lazy[i][key], atol=1e-3)


def test_frames_come_in_any_order_and_from_a_copy(galaxea):
    demonstrations = read(galaxea)
    first = {i: demonstrations[i]["images"] for i in (0, 11, 3, 21, 7)}
    again = pickle.loads(pickle.dumps(demonstrations))
    for i in (7, 3, 21, 0, 11):
        np.testing.assert_array_equal(again[i]["images"], first[i])


def test_processes_that_are_forked_do_not_share_open_files(galaxea, monkeypatch):
    demonstrations = read(galaxea)
    demonstrations[0]  # opens the files
    readers = demonstrations._readers
    monkeypatch.setattr("os.getpid", lambda: -1)
    demonstrations[0]
    assert demonstrations._readers is not readers


def test_pictures_that_are_not_asked_for_are_not_there(ours):
    demonstrations = read(ours, cameras=("wrist_right",), depth_size=0)
    assert demonstrations[0]["images"].shape == (1, 36, 36, 3) and demonstrations[0]["depth_m"] is None
    assert np.all(demonstrations[0]["images"] == samples.picture(0, 0, 2)[0, 0, 0])
    assert read(ours, cameras=(), depth_size=0)[0]["images"].shape == (0, 36, 36, 3)


def test_av1_is_read(tmp_path):
    pictures = [samples.picture(0, 7 * number) for number in range(10)]
    samples.write_video(tmp_path / "a.mp4", pictures, codec="libsvtav1")
    videos = VideoFrames()
    for number in (9, 2, 3, 0):
        image = videos.read(tmp_path / "a.mp4", number / 15)
        assert np.abs(image.astype(int) - pictures[number]).max() <= 4


def test_a_video_that_is_too_short_is_named(tmp_path):
    samples.write_video(tmp_path / "a.mp4", [samples.picture(0, 0)] * 3)
    with pytest.raises(ValueError, match=r"a\.mp4 has no frame at 0\.400 s"):
        VideoFrames().read(tmp_path / "a.mp4", 0.4)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda info: info.update(fps=30), "30 frames a second.*15 Hz"),
        (lambda info: info.update(codebase_version="v1.6"), "'v1.6'; allowed: v2.1, v3.0"),
        (lambda info: info["features"].pop("observation.images.left_wrist_rgb"), "observation.images.left_wrist_rgb"),
        (lambda info: info["features"].pop("action.right_gripper"), "action.right_gripper"),
        (lambda info: info["features"]["action.left_arm"].update(shape=[5]), r"action.left_arm has shape \(5,\)"),
        (lambda info: info.pop("features"), "features"),
    ],
)
def test_a_dataset_that_is_not_as_it_should_be_is_named(edited, change, message):
    with pytest.raises(ValueError, match=message):
        read(edited(change))


def test_a_folder_without_a_dataset_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"meta/info\.json"):
        read(tmp_path)


def test_a_missing_file_is_named(tmp_path):
    samples.write_v21(tmp_path, [3, 3])
    (tmp_path / "data/chunk-000/episode_000001.parquet").unlink()
    with pytest.raises(FileNotFoundError, match=r"episode_000001\.parquet"):
        read(tmp_path)


@pytest.mark.parametrize(
    ("column", "values", "message"),
    [
        ("episode_index", [0, 0, 1], "2 rows of episode 0; there must be 3"),
        ("task_index", [0, 0, 7], r"tasks \[7\]"),
        ("action.left_gripper", [0.0, float("nan"), 0.0], "action.left_gripper is not finite"),
    ],
)
def test_rows_that_are_not_as_they_should_be_are_named(tmp_path, column, values, message):
    samples.write_v21(tmp_path, [3])
    samples.replace_column(tmp_path / "data/chunk-000/episode_000000.parquet", column, values)
    with pytest.raises(ValueError, match=message):
        read(tmp_path)


@pytest.mark.parametrize("episodes", [[], [3], [0, 0], [-1]])
def test_episodes_that_are_not_there_are_named(ours, episodes):
    with pytest.raises(ValueError, match="0 to 2"):
        read(ours, episodes=episodes)


GAP = [number for number in range(24) if number not in (10, 11, 12)]


@pytest.mark.parametrize(
    ("shown", "slots", "message"),
    [
        (GAP, GAP, "has 21 frames; the dataset has 24 rows"),
        (range(3, 24), range(3, 24), "has 21 frames; the dataset has 24 rows"),
        (GAP, range(21), "has 21 frames; the dataset has 24 rows"),
        (range(27), range(27), "has 27 frames; the dataset has 24 rows"),
        (range(24), [*range(10), *range(13, 27)], "has no frames for 0.267 s"),
        (range(24), range(3, 27), r"begins at 0\.200 s"),
    ],
    ids=["a gap", "late", "moved up", "too many", "a gap and as many", "late and as many"],
)
def test_a_video_with_other_frames_than_the_table_has_rows_is_refused_when_it_is_opened(
    tmp_path, shown, slots, message
):
    samples.write_v21(tmp_path, [24])
    (path,) = tmp_path.glob("videos/*/observation.images.head_rgb/*.mp4")
    samples.write_video(path, [samples.picture(0, number) for number in shown], slots=list(slots))
    with pytest.raises(ValueError, match=rf"episode_000000\.mp4 {message}"):
        read(tmp_path, depth_size=0)
    assert len(read(tmp_path, cameras=("wrist_left",), depth_size=0)) == 24  # nothing is wrong with the others


def test_a_frame_more_than_half_a_period_off_is_refused(tmp_path):
    samples.write_video(tmp_path / "a.mp4", [samples.picture(0, n) for n in GAP], slots=GAP)
    videos = VideoFrames()
    for number in (12, 3, 10, 23, 11):
        if number in GAP:
            image = videos.read(tmp_path / "a.mp4", number / 15, fps=15)
            assert abs(image.mean() - samples.picture(0, number).mean()) < 1.5
        else:
            with pytest.raises(ValueError, match=rf"no frame at {number / 15:.3f} s, the next one is at 0\.867 s"):
                videos.read(tmp_path / "a.mp4", number / 15, fps=15)


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("missing", "does not exist"),
        ("pointer", "git lfs pull"),
        ("cut off", "moov|its end is missing|Invalid data|no video in it"),
        ("cut off behind its index", "its end is missing"),
        ("no video", "Invalid data"),
    ],
)
def test_a_video_that_cannot_be_read_is_named_when_it_is_opened(tmp_path, kind, message):
    samples.write_v21(tmp_path, [24, 5])
    path = next(tmp_path.glob("videos/*/observation.images.right_wrist_rgb/*000001.mp4"))
    damage(path, kind)
    with pytest.raises((FileNotFoundError, ValueError), match=rf"episode_000001\.mp4.*({message})"):
        read(tmp_path, depth_size=0)


def damage(path, kind):
    if kind == "missing":
        path.unlink()
    elif kind == "pointer":
        path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:5e\nsize 3\n")
    elif kind == "cut off behind its index":
        samples.write_video(path, [samples.picture(0, n) for n in range(5)], first_index=True)
        path.write_bytes(path.read_bytes()[:-20])
    else:
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2] if kind == "cut off" else b"no video" * 50)


@pytest.mark.parametrize("kind", ["missing", "pointer", "cut off", "no video"])
def test_a_data_file_that_cannot_be_read_is_named_when_it_is_opened(ours, tmp_path, kind):
    folder = shutil.copytree(ours, tmp_path / "d")
    damage(folder / "data/chunk-000/file-000.parquet", kind)
    with pytest.raises((FileNotFoundError, ValueError), match=r"file-000\.parquet.*wanted"):
        read(folder)


def test_rows_with_the_path_of_an_image_in_place_of_it_are_refused_when_the_dataset_is_opened(tmp_path):
    with DatasetWriter(tmp_path, ROBOT) as writer:
        samples.write(writer, [3])
    path = tmp_path / "data/chunk-000/file-000.parquet"
    table = pq.read_table(path)
    name = "observation.images.left_wrist_rgb"
    samples.replace_column(path, name, [{"bytes": None, "path": "images/0.png"}] * 3)
    with pytest.raises(ValueError, match=rf"file-000\.parquet: .*{name}.*path"):
        read(tmp_path)
    pq.write_table(table.drop_columns([name]), path)
    with pytest.raises(ValueError, match=rf"file-000\.parquet: .*{name}"):
        read(tmp_path)


def test_a_damaged_picture_is_named_by_file_row_and_camera(tmp_path):
    with DatasetWriter(tmp_path, ROBOT) as writer:
        samples.write(writer, [3])
    path = tmp_path / "data/chunk-000/file-000.parquet"
    name = "observation.images.left_wrist_rgb"
    pictures = pq.read_table(path)[name].to_pylist()
    pictures[1]["bytes"] = pictures[1]["bytes"][:-30]
    samples.replace_column(path, name, pictures)
    demonstrations = read(tmp_path)
    assert demonstrations[0]["images"].any() and demonstrations[2]["images"].any()
    with pytest.raises(ValueError, match=rf"file-000\.parquet, row 1, {name}: .* not a whole PNG"):
        demonstrations[1]


@pytest.mark.parametrize("times", [[0.0, 1 / 15, 3 / 15], [1.0, 16 / 15, 17 / 15], [0.0, float("nan"), 2 / 15]])
def test_rows_that_are_not_a_period_apart_are_refused(tmp_path, times):
    """A row that was lost shifts the pictures of a video, and the steps of a chunk."""
    with DatasetWriter(tmp_path, ROBOT) as writer:
        samples.write(writer, [3])
    samples.replace_column(tmp_path / "data/chunk-000/file-000.parquet", "timestamp", times)
    with pytest.raises(ValueError, match="episode 0: row . is at"):
        read(tmp_path)


def test_an_episode_without_frames_is_left_out(tmp_path):
    with DatasetWriter(tmp_path, ROBOT) as writer:
        samples.write(writer, [4, 5])
    path = tmp_path / "meta/episodes/chunk-000/file-000.parquet"
    rows = pq.read_table(path).to_pylist()
    empty = {"episode_index": 2, "length": 0, "dataset_from_index": 9, "dataset_to_index": 9, "data/file_index": 2}
    pq.write_table(pa.Table.from_pylist([*rows, rows[1] | empty]), path)  # its file is not even there
    assert list(read(tmp_path).lengths) == [4, 5]
    with DatasetWriter(tmp_path, ROBOT) as writer:
        samples.write(writer, [3])
    assert list(read(tmp_path).lengths) == [4, 5, 3]


def test_an_episode_that_is_described_twice_is_refused(tmp_path):
    with DatasetWriter(tmp_path, ROBOT) as writer:
        samples.write(writer, [4, 5])
    meta = tmp_path / "meta/episodes/chunk-000"
    shutil.copy(meta / "file-000.parquet", meta / "file-001.parquet")
    with pytest.raises(ValueError, match=r"episodes \[0, 1\] are described more than once"):
        read(tmp_path)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("拿起红色方块@Pick up the red block", "Pick up the red block"),
        ("拿起红色方块 @ Pick up the red block ", "Pick up the red block"),
        ("扫描 a@b.org 的标签@Scan the label a@b.org", "Scan the label a@b.org"),
        ("put the red block @ the left bin", "put the red block @ the left bin"),
        ("scan the label a@b.org", "scan the label a@b.org"),
        ("@ the left", "@ the left"),
        ("拿起红色方块@", "拿起红色方块"),
        ("拿起红色方块", "拿起红色方块"),
        (" lift the block\n", "lift the block"),
    ],
)
def test_only_galaxeas_two_languages_are_parted_at_an_at_sign(text, expected):
    assert english(text) == expected


def test_frames_without_an_instruction_are_refused(tmp_path):
    with DatasetWriter(tmp_path, ROBOT) as writer:
        writer.begin_episode(" ")
        writer.add_frame(samples.frame(0, 0))
        writer.save_episode()
    with pytest.raises(ValueError, match=r"tasks \[0\], which have no instruction"):
        read(tmp_path)
