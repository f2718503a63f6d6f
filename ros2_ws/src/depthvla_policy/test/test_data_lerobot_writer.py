"""What is written is what comes back, whole episodes only, in the layout that LeRobot reads."""

from __future__ import annotations

import json
import subprocess
import sys

import cv2
import lerobot_samples as samples
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from lerobot_samples import CAMERAS, ROBOT

from depthvla_policy.data.demonstrations import Demonstrations
from depthvla_policy.data.images import decode_depth
from depthvla_policy.data.layout import episode_rows, read_tasks
from depthvla_policy.data.lerobot_writer import DatasetWriter
from depthvla_policy.policy.images import ImageFit
from depthvla_policy.policy.normalise import Normaliser

JPEG = samples.encode(np.full((36, 64, 3), 90, np.uint8), ".jpg")


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


def test_a_video_shows_the_frame_of_every_index(tmp_path):
    with DatasetWriter(tmp_path, ROBOT, images="video") as writer:
        samples.write(writer, [20, 9])
    demonstrations = read(tmp_path)
    assert "videos/observation.images.head_rgb/chunk-000/file-001.mp4" in files(tmp_path)
    assert "observation.images.head_rgb" not in table(tmp_path).column_names
    for i, (episode, frame) in {0: (0, 0), 19: (0, 19), 7: (0, 7), 28: (1, 8), 20: (1, 0)}.items():
        for camera, image in enumerate(demonstrations[i]["images"]):
            assert abs(image.mean() - samples.picture(episode, frame, camera).mean()) < 1.5


def test_an_episode_that_is_discarded_or_interrupted_leaves_no_trace(tmp_path):
    with pytest.raises(KeyboardInterrupt), DatasetWriter(tmp_path, ROBOT, images="video") as writer:
        writer.begin_episode("lift 8")
        writer.add_frame(samples.frame(0, 0))
        writer.discard_episode()
        samples.write(writer, [5])
        writer.begin_episode("lift 9")
        writer.add_frame(samples.frame(1, 0))
        raise KeyboardInterrupt
    demonstrations = read(tmp_path)
    assert list(demonstrations.lengths) == [5] and demonstrations.instructions == ["lift 0"]
    assert not (tmp_path / ".part").exists()


def abandoned(folder, lengths=()):
    """As a killed process leaves it: some episodes whole, of the last the files are there, but not in the table."""
    writer = DatasetWriter(folder, ROBOT, images="video")
    samples.write(writer, lengths)
    writer._write_meta = lambda *_: (_ for _ in ()).throw(KeyboardInterrupt)
    with pytest.raises(KeyboardInterrupt):
        samples.write(writer, [5])


def test_a_killed_writer_is_continued_as_if_it_had_not_been(tmp_path):
    abandoned(tmp_path / "killed", [20, 3])
    moved = tmp_path / "killed/data/chunk-000/file-002.parquet"
    assert moved.exists() and list(read(tmp_path / "killed").lengths) == [20, 3]
    with DatasetWriter(tmp_path / "killed", ROBOT, images="video"):
        assert not moved.exists() and not list((tmp_path / "killed/videos").rglob("file-002.mp4"))
    with DatasetWriter(tmp_path / "killed", ROBOT, images="video") as again:
        assert [row["seed"] for row in again.episodes] == [1000, 1001]
        samples.write(again, [4])
    with DatasetWriter(tmp_path / "whole", ROBOT, images="video") as whole:
        samples.write(whole, [20, 3, 4])
    assert files(tmp_path / "killed") == files(tmp_path / "whole")
    for name in files(tmp_path / "whole"):
        assert (tmp_path / "killed" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name


def test_a_writer_that_was_killed_in_its_first_episode_is_continued(tmp_path):
    abandoned(tmp_path / "d")
    with DatasetWriter(tmp_path / "d", ROBOT, images="video") as again:
        samples.write(again, [3])
    assert list(read(tmp_path / "d").lengths) == [3]
    assert files(tmp_path / "d")[0] == "data/chunk-000/file-000.parquet"


def test_an_episode_that_cannot_be_stored_leaves_no_trace(tmp_path, monkeypatch):
    with DatasetWriter(tmp_path, ROBOT) as writer:
        samples.write(writer, [3])
        with monkeypatch.context() as full:
            full.setattr(writer, "_write_info", lambda *_: (_ for _ in ()).throw(OSError("no space left")))
            with pytest.raises(OSError, match="no space"):
                samples.write(writer, [4])
        samples.write(writer, [5])
    assert list(read(tmp_path).lengths) == [3, 5]
    assert [name for name in files(tmp_path) if name.startswith("data")] == [
        "data/chunk-000/file-000.parquet",
        "data/chunk-000/file-001.parquet",
    ]


def test_two_processes_do_not_write_to_one_dataset(tmp_path):
    code = f"""
import sys
from r1lite_description import robot
from depthvla_policy.data.layout import episode_rows, read_tasks
from depthvla_policy.data.lerobot_writer import DatasetWriter
with DatasetWriter({str(tmp_path)!r}, robot.load()):
    print("open", flush=True)
    sys.stdin.readline()
"""
    other = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert other.stdout.readline() == "open\n"
        with pytest.raises(ValueError, match=f"another process is writing to the dataset {tmp_path}"):
            DatasetWriter(tmp_path, ROBOT)
    finally:
        other.communicate("end\n")
    with DatasetWriter(tmp_path, ROBOT) as writer:
        samples.write(writer, [2])


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
    demonstrations = read(tmp_path)
    assert np.isfinite(demonstrations[0]["actions"]).all() and np.isnan(demonstrations[3]["actions"]).all()
    known = demonstrations.subset([0])
    both = Normaliser.fit(demonstrations.states(), demonstrations.chunks(), ROBOT.gripper_mask)
    np.testing.assert_array_equal(
        both.action_mean, Normaliser.fit(known.states(), known.chunks(), ROBOT.gripper_mask).action_mean
    )
    with pytest.raises(ValueError, match="no action is known"):
        Normaliser.fit(
            *(getattr(demonstrations.subset([1]), name)() for name in ("states", "chunks")), ROBOT.gripper_mask
        )


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
        ({"images": dict.fromkeys(CAMERAS, b"no image")}, "head_rgb: .*not a JPEG or PNG"),
        ({"depth": dict.fromkeys(CAMERAS, samples.encode(samples.depth_mm(0))[:-20])}, "depth.head: .*not a whole PNG"),
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


def test_episodes_may_have_different_notes(tmp_path, monkeypatch):
    monkeypatch.setattr("depthvla_policy.data.lerobot_writer.EPISODES_PER_FILE", 2)
    with DatasetWriter(tmp_path, ROBOT) as writer:
        samples.write(writer, [2, 2, 2])
    for notes in ({"bag": "a", "begin_ns": 5}, {}, {"seed": 9}):
        with DatasetWriter(tmp_path, ROBOT) as writer:
            writer.begin_episode("lift")
            writer.add_frame(samples.frame(0, 0))
            writer.save_episode(notes)
    rows = episode_rows(tmp_path)
    assert [row["seed"] for row in rows] == [1000, 1001, 1002, None, None, 9]
    assert [row["bag"] for row in rows] == [None, None, None, "a", None, None]
    schemas = [pq.read_schema(path) for path in sorted((tmp_path / "meta/episodes/chunk-000").iterdir())]
    assert len(schemas) == 3 and all(schema.equals(schemas[0]) for schema in schemas)  # or LeRobot cannot read them


def test_a_note_of_another_type_is_refused_and_the_dataset_stays(tmp_path):
    with DatasetWriter(tmp_path, ROBOT) as writer:
        samples.write(writer, [2])
        writer.begin_episode("lift")
        writer.add_frame(samples.frame(0, 0))
        with pytest.raises(ValueError, match="differ in type"):
            writer.save_episode({"seed": "many"})
    assert list(read(tmp_path).lengths) == [2]


def rewrite(folder, change):
    """Change the rows of the episode table, which is one file."""
    path = folder / "meta/episodes/chunk-000/file-000.parquet"
    pq.write_table(pa.Table.from_pylist(change(pq.read_table(path).to_pylist())), path)


def describe(folder, **changed):
    path = folder / "meta/info.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changed))


def states(folder):
    demonstrations = read(folder)
    return [demonstrations[i]["state"].copy() for i in range(len(demonstrations))]


@pytest.mark.parametrize("images", ["jpeg", "video"])
@pytest.mark.parametrize("gone", [{0}, {0, 1}, {2}, {1}])
def test_a_dataset_of_which_lerobot_deleted_episodes_is_continued_without_loss(tmp_path, gone, images):
    """LeRobot numbers the episodes that stay anew, and leaves their files where they are."""
    with DatasetWriter(tmp_path, ROBOT, images=images) as writer:
        samples.write(writer, [5, 6, 7])

    def stay(rows):
        kept = []
        for row in rows:
            path = tmp_path / f"data/chunk-000/file-{row['data/file_index']:03d}.parquet"
            if row["episode_index"] in gone:
                for file in (path, *tmp_path.glob(f"videos/*/chunk-000/file-{row['data/file_index']:03d}.mp4")):
                    file.unlink()
                continue
            start = kept[-1]["dataset_to_index"] if kept else 0
            end = start + row["length"]
            samples.replace_column(path, "episode_index", [len(kept)] * row["length"])
            samples.replace_column(path, "index", range(start, end))
            kept.append(row | {"episode_index": len(kept), "dataset_from_index": start, "dataset_to_index": end})
        return kept

    rewrite(tmp_path, stay)
    before, there = states(tmp_path), set(files(tmp_path))
    with DatasetWriter(tmp_path, ROBOT, images=images):
        pass
    assert set(files(tmp_path)) == there
    np.testing.assert_array_equal(states(tmp_path), before)
    with DatasetWriter(tmp_path, ROBOT, images=images) as writer:
        samples.write(writer, [4])
    after = states(tmp_path)
    np.testing.assert_array_equal(after[: len(before)], before)
    assert len(after) == len(before) + 4 and there <= set(files(tmp_path))
    info = json.loads((tmp_path / "meta/info.json").read_text())
    assert (info["total_episodes"], info["total_frames"]) == (4 - len(gone), len(after))


def merged(folder, *, chunk_size=1000, extra=()):
    """The data of two episodes in one file, as LeRobot writes them, and the file in a chunk of its own."""
    with DatasetWriter(folder, ROBOT) as writer:
        samples.write(writer, [5, 6])
    parts = [folder / f"data/chunk-000/file-{number:03d}.parquet" for number in (0, 1)]
    table = pa.concat_tables([pq.read_table(part) for part in parts])
    for part in parts:
        part.unlink()
    (folder / "data/chunk-002").mkdir()
    pq.write_table(table, folder / "data/chunk-002/file-007.parquet", row_group_size=4)
    stats = [
        name for name in pq.read_schema(folder / "meta/episodes/chunk-000/file-000.parquet").names if "stats/" in name
    ]

    def change(rows):
        place = {"data/chunk_index": 2, "data/file_index": 7}
        without = ("seed", *(stats if "stats" not in extra else ()))
        return [{name: value for name, value in (row | place).items() if name not in without} for row in rows]

    rewrite(folder, change)
    describe(folder, chunks_size=chunk_size, made_by="somebody", splits={"train": "0:1", "test": "1:2"})


@pytest.mark.parametrize("extra", [(), ("stats",)])
def test_a_dataset_of_another_tool_is_continued_behind_its_files(tmp_path, extra):
    merged(tmp_path, chunk_size=8, extra=extra)
    before = (tmp_path / "data/chunk-002/file-007.parquet").read_bytes()
    with DatasetWriter(tmp_path, ROBOT) as writer:
        samples.write(writer, [4, 3])
    assert (tmp_path / "data/chunk-002/file-007.parquet").read_bytes() == before
    assert [name for name in files(tmp_path) if "data/" in name] == [
        "data/chunk-002/file-007.parquet",
        "data/chunk-003/file-000.parquet",
        "data/chunk-003/file-001.parquet",
    ]
    assert list(read(tmp_path).lengths) == [5, 6, 4, 3]
    info = json.loads((tmp_path / "meta/info.json").read_text())
    assert info["made_by"] == "somebody" and info["splits"] == {"train": "0:1", "test": "1:2"}
    assert (info["total_episodes"], info["total_frames"], info["chunks_size"]) == (4, 18, 8)
    assert json.loads((tmp_path / "meta/stats.json").read_text())["observation.state.left_arm"]["count"] == [18]


def test_numbers_of_tasks_and_episodes_go_on_behind_gaps(tmp_path):
    with DatasetWriter(tmp_path, ROBOT) as writer:
        samples.write(writer, [2])
    path = tmp_path / "meta/tasks.parquet"
    pq.write_table(pa.table({"task": ["lift 0", "push"], "task_index": [0, 5]}), path)
    rewrite(tmp_path, lambda rows: [row | {"episode_index": 3} for row in rows])
    samples.replace_column(tmp_path / "data/chunk-000/file-000.parquet", "episode_index", [3, 3])
    with DatasetWriter(tmp_path, ROBOT) as writer:
        writer.begin_episode("pull")
        writer.add_frame(samples.frame(0, 0))
        writer.save_episode()
    assert read_tasks(tmp_path) == {0: "lift 0", 5: "push", 6: "pull"}
    assert [row["episode_index"] for row in episode_rows(tmp_path)] == [3, 4]
    assert read(tmp_path).instructions == ["lift 0", "pull"]


def test_files_that_no_episode_names_are_left_alone_and_told(tmp_path, caplog):
    with DatasetWriter(tmp_path, ROBOT) as writer:
        samples.write(writer, [2])
    stray = tmp_path / "data/chunk-000/file-001.parquet"
    stray.write_bytes(b"somebody's")
    with DatasetWriter(tmp_path, ROBOT) as writer:
        samples.write(writer, [3])
    assert stray.read_bytes() == b"somebody's" and "file-001.parquet" in caplog.text
    assert list(read(tmp_path).lengths) == [2, 3]


def test_an_empty_dataset_of_another_tool_is_continued_in_its_features(tmp_path):
    with DatasetWriter(tmp_path / "other", ROBOT) as writer:
        samples.write(writer, [2])
    described = json.loads((tmp_path / "other/meta/info.json").read_text())
    (tmp_path / "d/meta").mkdir(parents=True)
    info = described | {"total_episodes": 0, "total_frames": 0, "total_tasks": 0}
    info["features"] = {key: feature | {"info": None} for key, feature in described["features"].items()}
    (tmp_path / "d/meta/info.json").write_text(json.dumps(info))
    with DatasetWriter(tmp_path / "d", ROBOT) as writer, pytest.raises(ValueError, match="observation.target"):
        samples.write(writer, [2], target_m=None)
    with DatasetWriter(tmp_path / "d", ROBOT) as writer:
        samples.write(writer, [3])
    assert list(read(tmp_path / "d").lengths) == [3]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("meta/info.json", r"info\.json: .*git lfs pull"),
        ("meta/tasks.parquet", r"tasks\.parquet: .*git lfs pull"),
        ("meta/episodes/chunk-000/file-000.parquet", r"file-000\.parquet: .*git lfs pull"),
    ],
)
def test_metadata_that_cannot_be_read_is_named_and_left_alone(tmp_path, name, message):
    with DatasetWriter(tmp_path, ROBOT) as writer:
        samples.write(writer, [2])
    (tmp_path / name).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:5e\nsize 3\n")
    for attempt in (lambda: DatasetWriter(tmp_path, ROBOT), lambda: read(tmp_path)):
        with pytest.raises(ValueError, match=message):
            attempt()
    (tmp_path / "meta/info.json").unlink()
    with pytest.raises(ValueError, match="no meta/info.json"):
        DatasetWriter(tmp_path, ROBOT)


def test_rows_without_a_place_are_refused(tmp_path):
    with DatasetWriter(tmp_path, ROBOT) as writer:
        samples.write(writer, [2])
    rewrite(tmp_path, lambda rows: [{k: v for k, v in row.items() if k != "data/file_index"} for row in rows])
    with pytest.raises(ValueError, match="data/file_index"):
        DatasetWriter(tmp_path, ROBOT)


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


def test_a_damaged_picture_is_refused_wherever_it_comes(tmp_path):
    with DatasetWriter(tmp_path, ROBOT) as writer:
        writer.begin_episode("lift")
        for number in range(5):
            writer.add_frame(samples.frame(0, number, images=dict.fromkeys(CAMERAS, JPEG)))
        with pytest.raises(ValueError, match="head_rgb: .*not a whole JPEG"):
            writer.add_frame(samples.frame(0, 5, images=dict.fromkeys(CAMERAS, JPEG[:-9] + JPEG[-2:])))
        assert writer.length == 5


def test_a_dataset_with_a_file_that_is_cut_off_is_not_continued(tmp_path):
    with DatasetWriter(tmp_path / "data", ROBOT) as writer:
        samples.write(writer, [4, 5])
    path = tmp_path / "data/data/chunk-000/file-001.parquet"
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(ValueError, match=r"file-001\.parquet: .*wanted: a file of the dataset that is to be continued"):
        DatasetWriter(tmp_path / "data", ROBOT)
