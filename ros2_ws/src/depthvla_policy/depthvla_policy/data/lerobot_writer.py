"""Writes a LeRobot dataset of layout v3.0, frame by frame: one data file, and one video a camera, for each episode.

An episode that is interrupted leaves no trace in the dataset; a later writer goes on where the last whole one ended.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from depthvla_policy.data import episode_file, feature_stats, features
from depthvla_policy.data.episode_file import EpisodeFile, Frame, Place
from depthvla_policy.data.layout import EPISODES, INFO, TASKS, episode_rows, read_tasks
from depthvla_policy.policy import calibration
from depthvla_policy.policy.calibration import Calibration
from depthvla_policy.robot import Robot

VERSION = "v3.0"
CHUNK = 1000  # files in a folder
DATA = "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
VIDEO = "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"
STATS = "meta/stats.json"
EPISODES_PER_FILE = 100  # the newest file of the episode table is written anew with every episode
PART = ".part"  # folder of the episode that is being written
IMAGES = ("jpeg", "video")


class DatasetWriter:
    """Use as a context manager: `begin_episode`, `add_frame` for each frame, `save_episode`; leaving it writes the
    statistics.

    `images` says how RGB is kept: "jpeg" keeps the bytes that come in, "video" encodes them anew as H.264. What a frame
    holds beside images, state and action is decided by the dataset's first frame. `camera_matrices` (camera -> (3, 3)),
    `target_projections` (camera -> (3, 4), see `features`) and `rectified_by` (camera -> calibration) go into
    info.json; the last is what readers rectify images with. So does `source`, "simulation" or "real": a network is made
    for what its demonstrations are of.

    Raises:
        ValueError: `images` is neither of the two, or the folder holds a dataset of another kind.
    """

    def __init__(
        self,
        folder: Path,
        robot: Robot,
        *,
        images: str = "jpeg",
        camera_matrices: Mapping[str, np.ndarray] | None = None,
        target_projections: Mapping[str, np.ndarray] | None = None,
        rectified_by: Mapping[str, Calibration] | None = None,
        source: str = "",
    ) -> None:
        if images not in IMAGES:
            raise ValueError(f"images is {images!r}; allowed: {', '.join(IMAGES)}")
        self.folder, self._robot, self._images = Path(folder), robot, images
        self._matrices, self._rectified_by = camera_matrices or {}, rectified_by or {}
        self._projections, self._source = target_projections or {}, source
        self._fps = round(robot.control_rate_hz)
        if self._fps != robot.control_rate_hz:
            raise ValueError(f"a dataset has whole frames a second; the robot has {robot.control_rate_hz:g}")
        self._file: EpisodeFile | None = None
        self._instruction = ""
        self._features: dict[str, dict[str, Any]] = {}
        self._tasks: list[str] = []
        self.episodes: list[dict[str, Any]] = []  # rows of the episode table, without statistics
        self._newest: list[dict[str, Any]] = []  # rows of its newest file, with statistics
        if (self.folder / INFO).exists():
            self._resume()
        self._remove_leftovers()

    def __enter__(self) -> DatasetWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self.discard_episode()
        if self.episodes:
            _write_json(self.folder / STATS, self._stats())

    @property
    def frames(self) -> int:
        """Frames of whole episodes."""
        return self.episodes[-1]["dataset_to_index"] if self.episodes else 0

    @property
    def length(self) -> int:
        """Frames of the episode that is being written."""
        return self._file.length if self._file else 0

    def begin_episode(self, instruction: str) -> None:
        """Start an episode; one that was begun before and not saved is dropped."""
        if not instruction:
            raise ValueError("an episode needs an instruction; it is empty")
        self.discard_episode()
        (self.folder / PART).mkdir(parents=True)
        self._instruction = instruction
        task = self._tasks.index(instruction) if instruction in self._tasks else len(self._tasks)
        place = Place(len(self.episodes), self.frames, task)
        as_video = self._images == "video"
        self._file = EpisodeFile(self.folder / PART, self._robot, self._fps, place, as_video=as_video)

    def add_frame(self, frame: Frame) -> None:
        """Add a frame to the episode.

        Raises:
            ValueError: the frame has other parts, shapes or sizes than the dataset's, or is not finite.
        """
        self._file.add(frame)
        if self._file.length == 1:
            self._compare_features()

    def save_episode(self, notes: Mapping[str, Any] | None = None) -> None:
        """Make the episode part of the dataset. `notes` become columns of the episode table.

        Raises:
            ValueError: the episode has no frame, or the notes have other names than those of the episodes before.
        """
        if not self.length:
            raise ValueError("an episode needs a frame; there is none")
        row = self._row(dict(notes or {}))
        if self.episodes and set(row) != set(self.episodes[0]):
            names = sorted(set(row) ^ set(self.episodes[0]))
            raise ValueError(f"the notes of this episode and of those before differ in {names}")
        stats = self._file.close()
        files = {episode_file.DATA: DATA.format(**_file_place(row["episode_index"]))}
        for key in self._video_keys:
            files[key] = VIDEO.format(video_key=key, **_file_place(row["episode_index"]))
        for name, path in files.items():
            (self.folder / path).parent.mkdir(parents=True, exist_ok=True)
            self._file.path(name).replace(self.folder / path)
        self._file = None
        shutil.rmtree(self.folder / PART)
        if self._instruction not in self._tasks:
            self._tasks.append(self._instruction)
        if row["episode_index"] % EPISODES_PER_FILE == 0:
            self._newest = []
        self.episodes.append(row)
        self._newest.append(row | _flat(stats))
        self._write_meta()

    def discard_episode(self) -> None:
        """Forget the episode that was begun, if any."""
        if self._file is not None:
            self._file.abort()
            self._file = None
        shutil.rmtree(self.folder / PART, ignore_errors=True)

    def _remove_leftovers(self) -> None:
        """Of a writer that was killed: an episode begun, and files of one that is not in the table."""
        shutil.rmtree(self.folder / PART, ignore_errors=True)
        place = _file_place(len(self.episodes))
        for path in (DATA.format(**place), VIDEO.format(video_key="*", **place)):
            for file in self.folder.glob(path):
                file.unlink()

    @property
    def _video_keys(self) -> list[str]:
        return [key for key, feature in self._features.items() if feature["dtype"] == "video"]

    def _compare_features(self) -> None:
        """The features of the episode that was begun must be those of the dataset."""
        mine = self._file.features
        for camera, known in self._rectified_by.items():
            self._note_calibration(mine[features.image_feature(self._robot, camera)], camera, known)
        if self._source:
            for key in mine:
                if key.startswith(features.IMAGES):
                    mine[key]["info"][features.SOURCE] = self._source
        if not self.episodes:
            self._features = mine
            for camera, matrix in self._matrices.items():
                for name in (features.image_feature, features.depth_feature):
                    if feature := mine.get(name(self._robot, camera)):
                        feature["info"]["camera_matrix"] = np.asarray(matrix).tolist()
            for camera, matrix in self._projections.items():
                info = mine[features.image_feature(self._robot, camera)]["info"]
                info[features.TARGET_PROJECTION] = np.asarray(matrix).tolist()
            return
        kinds = [{key: _kind(feature) for key, feature in described.items()} for described in (mine, self._features)]
        differ = sorted(key for key in {*kinds[0], *kinds[1]} if kinds[0].get(key) != kinds[1].get(key))
        if self._source and (wrong := features.sources(self._features) - {self._source, ""}):
            self.discard_episode()
            raise ValueError(
                f"{self.folder} holds demonstrations of source {wrong.pop()!r}; these are {self._source!r}"
            )
        if differ:
            self.discard_episode()
            raise ValueError(f"{self.folder}: a frame and the dataset differ in kind, shape or calibration of {differ}")

    def _note_calibration(self, feature: dict[str, Any], camera: str, known: Calibration) -> None:
        height, width, _ = feature["shape"]
        if (width, height) != (known.width, known.height):
            self.discard_episode()
            raise ValueError(
                f"images of {camera} are {width}x{height}; their calibration is for {known.width}x{known.height}"
            )
        feature["info"][features.RECTIFIED_BY] = calibration.describe(known)

    def _row(self, notes: dict[str, Any]) -> dict[str, Any]:
        index, length = len(self.episodes), self.length
        place = _file_place(index)
        row = {
            "episode_index": index,
            "tasks": [self._instruction],
            "length": length,
            **{f"data/{name}": value for name, value in place.items()},
            "dataset_from_index": self.frames,
            "dataset_to_index": self.frames + length,
            "meta/episodes/chunk_index": 0,
            "meta/episodes/file_index": index // EPISODES_PER_FILE,
        }
        for key in self._video_keys:
            row |= {f"videos/{key}/{name}": value for name, value in place.items()}
            row |= {f"videos/{key}/from_timestamp": 0.0, f"videos/{key}/to_timestamp": length / self._fps}
        return row | notes

    def _write_meta(self) -> None:
        """An episode is one when its row is in the table; what the row speaks of is there before."""
        number = self._newest[0]["meta/episodes/file_index"]
        _write_table(self.folder / TASKS, _task_table(self._tasks))
        _write_table(_episodes_path(self.folder, number), pa.Table.from_pylist(self._newest))
        info = {
            "codebase_version": VERSION,
            "robot_type": self._robot.name,
            "total_episodes": len(self.episodes),
            "total_frames": self.frames,
            "total_tasks": len(self._tasks),
            "chunks_size": CHUNK,
            "data_files_size_in_mb": 100,
            "video_files_size_in_mb": 200,
            "fps": self._fps,
            "splits": {"train": f"0:{len(self.episodes)}"},
            "data_path": DATA,
            "video_path": VIDEO if self._video_keys else None,
            "features": self._features,
        }
        _write_json(self.folder / INFO, info)

    def _stats(self) -> dict[str, dict[str, list]]:
        rows: list[dict] = []
        for number in range(self.episodes[-1]["meta/episodes/file_index"] + 1):
            rows += pq.read_table(_episodes_path(self.folder, number)).to_pylist()
        stats = {}
        for key in self._features:
            prefix = f"stats/{key}/"
            parts = [
                {name.removeprefix(prefix): np.array(row[name]) for name in row if name.startswith(prefix)}
                for row in rows
            ]
            stats[key] = {name: value.tolist() for name, value in feature_stats.merge(parts).items()}
        return stats

    def _resume(self) -> None:
        info = json.loads((self.folder / INFO).read_text())
        found = (info["codebase_version"], info["robot_type"], info["fps"])
        wanted = (VERSION, self._robot.name, self._fps)
        if found != wanted:
            raise ValueError(f"{self.folder} is a dataset of {found}; only one of {wanted} can be continued")
        self._features = info["features"]
        self.episodes = episode_rows(self.folder)
        tasks = read_tasks(self.folder)
        self._tasks = [tasks[index] for index in sorted(tasks)]
        newest = _episodes_path(self.folder, self.episodes[-1]["meta/episodes/file_index"])
        self._newest = pq.read_table(newest).to_pylist()


def _kind(feature: Mapping[str, Any]) -> tuple:
    """What must not change from episode to episode."""
    return feature["dtype"], tuple(feature["shape"]), feature.get("info", {}).get(features.RECTIFIED_BY)


def _file_place(index: int) -> dict[str, int]:
    return {"chunk_index": index // CHUNK, "file_index": index % CHUNK}


def _episodes_path(folder: Path, number: int) -> Path:
    return folder / EPISODES / f"chunk-000/file-{number:03d}.parquet"


def _flat(stats: Mapping[str, feature_stats.Stats]) -> dict[str, list]:
    return {f"stats/{key}/{name}": value.tolist() for key, item in stats.items() for name, value in item.items()}


def _task_table(tasks: Sequence[str]) -> pa.Table:
    """As pandas writes it with the instruction as its index, by which LeRobot looks it up."""
    index = "__index_level_0__"
    table = pa.table({"task_index": pa.array(range(len(tasks)), pa.int64()), index: pa.array(tasks, pa.string())})
    columns = [
        {"name": "task_index", "field_name": "task_index", "pandas_type": "int64", "numpy_type": "int64"},
        {"name": None, "field_name": index, "pandas_type": "unicode", "numpy_type": "object"},
    ]
    described = [{**column, "metadata": None} for column in columns]
    pandas = {"index_columns": [index], "column_indexes": [], "columns": described}
    return table.replace_schema_metadata({"pandas": json.dumps(pandas)})


def _write_table(path: Path, table: pa.Table) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp")
    pq.write_table(table, temporary)
    temporary.replace(path)


def _write_json(path: Path, value: object) -> None:
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n")
    temporary.replace(path)
