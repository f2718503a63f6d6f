"""Writes a LeRobot dataset of layout v3.0, frame by frame: one data file, and one video a camera, for each episode.

An episode that is interrupted leaves no trace in the dataset; a later writer goes on where the last whole one ended. It
need not have made the dataset: episodes may share files, numbers of files may have gaps, and the table of episodes may
have other columns. A file that it did not write itself is never changed or removed, but for those of the metadata.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import re
import shutil
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from depthvla_policy.data import episode_file, feature_stats, features
from depthvla_policy.data.episode_file import EpisodeFile, Frame
from depthvla_policy.data.layout import (
    EPISODES,
    INFO,
    TASKS,
    episode_rows,
    episode_tables,
    read_info,
    read_tasks,
)
from depthvla_policy.policy import calibration
from depthvla_policy.policy.calibration import Calibration
from r1lite_description import files
from r1lite_description.robot import Robot

VERSION = "v3.0"
CHUNK = 1000  # files in a folder
DATA = "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
VIDEO = "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"
EPISODE_TABLE = EPISODES + "/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
STATS = "meta/stats.json"
EPISODES_PER_FILE = 100  # the newest file of the episode table is written anew with every episode
PART = ".part"  # folder of the episode that is being written
MOVING = "moving.json"  # in it: the files of an episode that is becoming part of the dataset
IMAGES = ("jpeg", "video")
FILE_NUMBERS = re.compile(r"chunk-(\d+)/file-(\d+)\.\w+$")
_locks: dict[Path, int] = {}  # folders that this process writes to


class DatasetWriter:
    """Use as a context manager: `begin_episode`, `add_frame` for each frame, `save_episode`; leaving it writes the
    statistics.

    `images` says how RGB is kept: "jpeg" keeps the bytes that come in, "video" encodes them anew as H.264. What a frame
    holds beside images, state and action is decided by the dataset's first frame. `camera_matrices` (camera -> (3, 3)),
    `target_projections` (camera -> (3, 4), see `features`) and `rectified_by` (camera -> calibration) go into
    info.json; the last is what readers rectify images with. So does `source`, "simulation" or "real": a network is made
    for what its demonstrations are of.

    Raises:
        ValueError: `images` is neither of the two, the folder holds a dataset of another kind or one that cannot be
            read, or another process is writing to it.
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
        self._info: dict[str, Any] = {}
        self._features: dict[str, dict[str, Any]] = {}
        self._tasks: dict[str, int] = {}
        self.episodes: list[dict[str, Any]] = []  # rows of the episode table, without statistics
        self._newest: pa.Table | None = None  # of its newest file, with statistics
        self._changed = False  # since the dataset's statistics were written
        self._new_stats: list[dict[str, list]] = []  # of the episodes written here
        self._next_file = 0  # number of the next data file, and video
        self._created = not self.folder.exists()
        _lock(self.folder)
        try:
            self._remove_leftovers()
            if (self.folder / INFO).exists():
                self._resume()
            elif episode_tables(self.folder):
                raise ValueError(f"{self.folder} has episodes but no {INFO}; it cannot be continued")
            self._next_file = self._free_number()
        except BaseException:
            self._unlock()
            raise

    def __enter__(self) -> DatasetWriter:
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self.discard_episode()
            if self._changed:
                _write_json(self.folder / STATS, self._stats())
        finally:
            self._unlock()

    @property
    def frames(self) -> int:
        """Frames of whole episodes."""
        return max((row["dataset_to_index"] for row in self.episodes), default=0)

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
        self._file = EpisodeFile(
            self.folder / PART,
            self._robot,
            self._fps,
            episode=self._next_episode,
            first_index=self.frames,
            task=self._task(instruction),
            as_video=self._images == "video",
        )

    def add_frame(self, frame: Frame) -> None:
        """Add a frame to the episode.

        Raises:
            ValueError: the frame has other parts, shapes or sizes than the dataset's, or is not finite.
        """
        self._file.add(frame)
        if self._file.length == 1:
            try:
                self._compare_features()
            except ValueError:
                self.discard_episode()
                raise

    def save_episode(self, notes: Mapping[str, Any] | None = None) -> None:
        """Make the episode part of the dataset. `notes` become columns of the episode table, empty for the episodes
        that have no such note.

        Raises:
            ValueError: the episode has no frame, or a note is of another type than those of the episodes before.
        """
        if not self.length:
            raise ValueError("an episode needs a frame; there is none")
        row = self._row(dict(notes or {}))
        self._widen({name: value for name, value in row.items() if value is not None})
        stats = _flat(self._file.close())
        table = self._table(row | stats)
        numbers = self._file_numbers
        moving = {episode_file.DATA: self._data_path.format(**numbers)}
        moving |= {key: self._video_path.format(video_key=key, **numbers) for key in self._video_keys}
        _write_json(self.folder / PART / MOVING, list(moving.values()))
        for name, path in moving.items():
            (self.folder / path).parent.mkdir(parents=True, exist_ok=True)
            files.put(self._file.path(name), self.folder / path)
        self._file = None
        self._write_meta(row, table)
        self._new_stats.append(stats)
        shutil.rmtree(self.folder / PART)

    def discard_episode(self) -> None:
        """Forget the episode that was begun, if any."""
        if self._file is not None:
            self._file.abort()
            self._file = None
        self._remove_leftovers()

    def _remove_leftovers(self) -> None:
        """Of an episode that was begun: its folder, and the files that were moved, unless it came into the table."""
        journal = self.folder / PART / MOVING
        if journal.exists():
            self._changed = True
            info = read_info(self.folder) if (self.folder / INFO).exists() else {}
            referenced = set(_referenced_files(info, episode_rows(self.folder)))
            for path in files.read_json(journal, "a list of files"):
                if path not in referenced:
                    (self.folder / path).unlink(missing_ok=True)
        shutil.rmtree(self.folder / PART, ignore_errors=True)

    def _unlock(self) -> None:
        _unlock(self.folder)
        if self._created:
            with suppress(OSError):
                self.folder.rmdir()  # where nothing came into it

    def _free_number(self) -> int:
        """Behind every file that an episode names or that is there."""
        referenced = set(_referenced_files(self._info, self.episodes))
        existing = {
            str(path.relative_to(self.folder))
            for name in ("data", "videos")
            for path in (self.folder / name).rglob("*")
            if path.suffix in (".parquet", ".mp4")
        }
        if strays := sorted(existing - referenced):
            logging.warning("%s: no episode names %s; LeRobot may read them", self.folder, ", ".join(strays))
        for name in sorted(referenced & existing):
            if name.endswith(".parquet"):
                with files.reading(self.folder / name, "a file of the dataset that is to be continued (parquet)"):
                    pq.read_metadata(self.folder / name)
        matches = filter(None, map(FILE_NUMBERS.search, referenced | existing))
        return max((int(match[1]) * self._chunk + int(match[2]) + 1 for match in matches), default=0)

    @property
    def _chunk(self) -> int:
        return self._info.get("chunks_size") or CHUNK

    @property
    def _file_numbers(self) -> dict[str, int]:
        return {"chunk_index": self._next_file // self._chunk, "file_index": self._next_file % self._chunk}

    @property
    def _data_path(self) -> str:
        return self._info.get("data_path") or DATA

    @property
    def _video_path(self) -> str:
        return self._info.get("video_path") or VIDEO

    @property
    def _next_episode(self) -> int:
        return max((row["episode_index"] for row in self.episodes), default=-1) + 1

    def _task(self, instruction: str) -> int:
        return self._tasks.get(instruction, max(self._tasks.values(), default=-1) + 1)

    @property
    def _video_keys(self) -> list[str]:
        return [key for key, feature in self._features.items() if feature["dtype"] == "video"]

    def _compare_features(self) -> None:
        """The features of the episode that was begun must be those of the dataset."""
        new = self._file.features
        for camera, rectification in self._rectified_by.items():
            self._note_calibration(new[features.image_feature(self._robot, camera)], camera, rectification)
        if self._source:
            for key in new:
                if key.startswith(features.IMAGES):
                    new[key]["info"][features.SOURCE] = self._source
        if not self._features:
            self._features = new
            for camera, matrix in self._matrices.items():
                for name in (features.image_feature, features.depth_feature):
                    if feature := new.get(name(self._robot, camera)):
                        feature["info"]["camera_matrix"] = np.asarray(matrix).tolist()
            for camera, matrix in self._projections.items():
                info = new[features.image_feature(self._robot, camera)]["info"]
                info[features.TARGET_PROJECTION] = np.asarray(matrix).tolist()
            return
        if self._source and (wrong := features.sources(self._features) - {self._source, ""}):
            raise ValueError(
                f"{self.folder} holds demonstrations of source {wrong.pop()!r}; these are {self._source!r}"
            )
        kinds, known = ({key: _kind(feature) for key, feature in item.items()} for item in (new, self._features))
        if differ := sorted(key for key in {*kinds, *known} if kinds.get(key) != known.get(key)):
            raise ValueError(f"{self.folder}: a frame and the dataset differ in kind, shape or calibration of {differ}")

    def _note_calibration(self, feature: dict[str, Any], camera: str, rectification: Calibration) -> None:
        height, width, _ = feature["shape"]
        if (width, height) != (rectification.width, rectification.height):
            raise ValueError(
                f"images of {camera} are {width}x{height}; their calibration is for"
                f" {rectification.width}x{rectification.height}"
            )
        feature["info"][features.RECTIFIED_BY] = calibration.describe(rectification)

    def _row(self, notes: dict[str, Any]) -> dict[str, Any]:
        index, length, numbers = self._next_episode, self.length, self._file_numbers
        table = self._next_table()
        row = {
            "episode_index": index,
            "tasks": [self._instruction],
            "length": length,
            **{f"data/{name}": value for name, value in numbers.items()},
            "dataset_from_index": self.frames,
            "dataset_to_index": self.frames + length,
            "meta/episodes/chunk_index": table // self._chunk,
            "meta/episodes/file_index": table % self._chunk,
        }
        for key in self._video_keys:
            row |= {f"videos/{key}/{name}": value for name, value in numbers.items()}
            row |= {f"videos/{key}/from_timestamp": 0.0, f"videos/{key}/to_timestamp": length / self._fps}
        return row | notes

    def _next_table(self) -> int:
        """Number of the file of the episode table that the next row goes to."""
        tables = episode_tables(self.folder)
        if not tables:
            return 0
        match = FILE_NUMBERS.search(str(tables[-1]))
        newest = int(match[1]) * self._chunk + int(match[2]) if match else len(tables)
        full = self._newest is None or self._newest.num_rows >= EPISODES_PER_FILE
        return newest + 1 if full else newest

    def _widen(self, row: Mapping[str, Any]) -> None:
        """Give the episode table the columns of `row` that it lacks, empty so far."""
        if self._newest is None or not (fresh := [name for name in row if name not in self._newest.column_names]):
            return
        fields = list(pa.Table.from_pylist([{name: row[name] for name in fresh}]).schema)
        for path in episode_tables(self.folder):
            with files.reading(path, "a table of episodes (parquet)"):
                table = pq.read_table(path)
            for field in fields:
                if field.name not in table.column_names:
                    table = table.append_column(field, pa.nulls(len(table), field.type))
            _write_table(path, table)
            self._newest = table

    def _table(self, row: Mapping[str, Any]) -> pa.Table:
        """A row of the episode table, with the columns that it has, above those before in the same file."""
        if self._newest is None:
            return pa.Table.from_pylist([row])
        try:
            table = pa.Table.from_pylist([row], schema=self._newest.schema)
        except (pa.ArrowException, TypeError, ValueError) as error:
            raise ValueError(f"{self.folder}: the episode and those before differ in type: {error}") from error
        more = self._newest.num_rows < EPISODES_PER_FILE
        return pa.concat_tables([self._newest, table]).combine_chunks() if more else table

    def _write_meta(self, row: dict[str, Any], table: pa.Table) -> None:
        """An episode is one when its row is in the table; what the row speaks of is there before."""
        self._changed = True
        if self._instruction not in self._tasks:
            self._tasks[self._instruction] = self._task(self._instruction)
            _write_table(self.folder / TASKS, _task_table(self._tasks))
        self._write_info([*self.episodes, row])
        numbers = {name: row[f"meta/episodes/{name}"] for name in ("chunk_index", "file_index")}
        _write_table(self.folder / EPISODE_TABLE.format(**numbers), table)
        self.episodes.append(row)
        self._newest = table
        self._next_file += 1

    def _write_info(self, episodes: Sequence[Mapping[str, Any]]) -> None:
        about = {
            "codebase_version": VERSION,
            "robot_type": self._robot.name,
            "total_episodes": len(episodes),
            "total_frames": sum(row["length"] for row in episodes),
            "total_tasks": len(self._tasks),
            "chunks_size": self._chunk,
            "data_files_size_in_mb": 100,
            "video_files_size_in_mb": 200,
            "fps": self._fps,
            "splits": {"train": f"0:{len(episodes)}"},
            "data_path": self._data_path,
            "video_path": self._video_path if self._video_keys else None,
            "features": self._features,
        }
        counted = {name: about[name] for name in ("total_episodes", "total_frames", "total_tasks", "features")}
        if set(self._info.get("splits") or ("train",)) == {"train"}:  # other splits are somebody's own
            counted["splits"] = about["splits"]
        self._info = about | self._info | counted
        _write_json(self.folder / INFO, self._info)

    def _stats(self) -> dict[str, dict[str, list]]:
        """Of all episodes; of a feature that has none of its own in the table, those before and the new ones."""
        rows: list[dict] = []
        for path in episode_tables(self.folder):
            with files.reading(path, "a table of episodes (parquet)"):
                rows += pq.read_table(path).to_pylist()
        before = files.read_json(self.folder / STATS, "statistics") if (self.folder / STATS).exists() else {}
        stats = {}
        for key in self._features:
            parts = [part for row in rows if (part := _stats_of(row, key))]
            if len(parts) < len(rows) and "count" in before.get(key, {}):
                new = [part for row in self._new_stats if (part := _stats_of(row, key))]
                parts = [{name: np.array(value) for name, value in before[key].items()}, *new]
            if parts:
                stats[key] = {name: value.tolist() for name, value in feature_stats.merge(parts).items()}
        return before | stats

    def _resume(self) -> None:
        info = read_info(self.folder)
        for key, wanted in {"codebase_version": VERSION, "robot_type": self._robot.name, "fps": self._fps}.items():
            if info.get(key) != wanted:
                raise ValueError(
                    f"{self.folder} has {key} {info.get(key)!r}; only a dataset of {wanted!r} can be continued"
                )
        self._info, self._features = info, info["features"]
        self.episodes = sorted(episode_rows(self.folder), key=lambda row: row.get("episode_index", 0))
        needed = {"episode_index", "length", "dataset_to_index", "data/chunk_index", "data/file_index"}
        needed |= {f"videos/{key}/{name}" for key in self._video_keys for name in ("chunk_index", "file_index")}
        for row in self.episodes:
            if missing := sorted(name for name in needed if not isinstance(row.get(name), int)):
                raise ValueError(f"{self.folder}: the table of episodes has no number in {missing} of {row!r:.200}")
        self._tasks = {}
        if self.episodes or (self.folder / TASKS).exists():
            self._tasks = {text: index for index, text in read_tasks(self.folder).items()}
        if tables := episode_tables(self.folder):
            with files.reading(tables[-1], "a table of episodes (parquet)"):
                self._newest = pq.read_table(tables[-1]).replace_schema_metadata(None)
        if self._changed:  # by a writer that was killed, perhaps before it had written this
            self._write_info(self.episodes)


def _lock(folder: Path) -> None:
    """Two processes would give two episodes one number. A process may open a writer when it has left one behind."""
    folder.mkdir(parents=True, exist_ok=True)
    if folder.resolve() in _locks:
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(descriptor)
        raise ValueError(f"another process is writing to the dataset {folder}") from error
    except OSError:  # the file system has no locks
        pass
    _locks[folder.resolve()] = descriptor


def _unlock(folder: Path) -> None:
    if (descriptor := _locks.pop(folder.resolve(), None)) is not None:
        os.close(descriptor)


def _referenced_files(info: Mapping[str, Any], rows: Iterable[Mapping[str, Any]]) -> Iterable[str]:
    keys = [key for key, feature in info.get("features", {}).items() if feature["dtype"] == "video"]
    for row in rows:
        numbers = {name: row[f"data/{name}"] for name in ("chunk_index", "file_index")}
        yield (info.get("data_path") or DATA).format(**numbers)
        for key in keys:
            numbers = {name: row[f"videos/{key}/{name}"] for name in ("chunk_index", "file_index")}
            yield (info.get("video_path") or VIDEO).format(video_key=key, **numbers)


def _stats_of(row: Mapping[str, Any], key: str) -> dict[str, np.ndarray]:
    prefix = f"stats/{key}/"
    stats = {
        name.removeprefix(prefix): np.array(value)
        for name, value in row.items()
        if name.startswith(prefix) and value is not None
    }
    return stats if {"count", "mean", "std", "min", "max"} <= set(stats) else {}


def _kind(feature: Mapping[str, Any]) -> tuple:
    """What must not change from episode to episode."""
    return feature["dtype"], tuple(feature["shape"]), (feature.get("info") or {}).get(features.RECTIFIED_BY)


def _flat(stats: Mapping[str, feature_stats.Stats]) -> dict[str, list]:
    return {f"stats/{key}/{name}": value.tolist() for key, item in stats.items() for name, value in item.items()}


def _task_table(tasks: Mapping[str, int]) -> pa.Table:
    """As pandas writes it with the instruction as its index, by which LeRobot looks it up."""
    index = "__index_level_0__"
    ordered = sorted(tasks, key=tasks.get)
    numbers = pa.array([tasks[text] for text in ordered], pa.int64())
    table = pa.table({"task_index": numbers, index: pa.array(ordered, pa.string())})
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
    pq.write_table(table, temporary, store_schema=False)  # a table that was read would have another one
    files.put(temporary, path)


def _write_json(path: Path, value: object) -> None:
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n")
    files.put(temporary, path)
