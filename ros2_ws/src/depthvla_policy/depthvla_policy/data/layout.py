"""Where things lie in a LeRobot dataset, of layout v2.1 or v3.0: its metadata, read and checked.

v2.1: a parquet file and a video per episode, metadata as JSON lines. v3.0: files of many episodes, metadata as parquet.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet as pq

from r1lite_description import files

VERSIONS = ("v2.1", "v3.0")
INFO = "meta/info.json"
TASKS = "meta/tasks.parquet"
EPISODES = "meta/episodes"


@dataclass(frozen=True)
class VideoSpan:
    """Where an episode lies in a video: it begins `from_s` seconds after the video's start."""

    path: Path
    from_s: float


@dataclass(frozen=True)
class EpisodeFiles:
    index: int
    length: int  # frames
    data: Path
    videos: dict[str, VideoSpan]  # feature -> span


@dataclass(frozen=True)
class Layout:
    """features: as in info.json. tasks: task_index -> instruction. episodes: those that have a frame, in order."""

    folder: Path
    version: str
    fps: float
    features: dict[str, dict]
    tasks: dict[int, str]
    episodes: tuple[EpisodeFiles, ...]


def read_layout(folder: Path) -> Layout:
    """Read a dataset's metadata.

    Raises:
        FileNotFoundError: there is no dataset in `folder`, or a file of its metadata is missing.
        ValueError: the dataset's version is unknown or its metadata cannot be read.
    """
    info = read_info(folder)
    try:
        version = info["codebase_version"]
        if version not in VERSIONS:
            raise ValueError(f"codebase_version is {version!r}; allowed: {', '.join(VERSIONS)}")
        read = _read_v21 if version == "v2.1" else _read_v30
        tasks, episodes = read(folder, info)
        indices = Counter(episode.index for episode in episodes)
        if twice := sorted(index for index, count in indices.items() if count > 1):
            raise ValueError(f"episodes {twice[:8]} are described more than once")
        # A recording that was stopped at once leaves an episode of no frames, with or without files.
        whole = sorted((episode for episode in episodes if episode.length), key=lambda episode: episode.index)
        return Layout(folder, version, float(info["fps"]), info["features"], tasks, tuple(whole))
    except (AttributeError, IndexError, KeyError, TypeError) as error:
        raise ValueError(f"{folder}: metadata of the dataset is not what it should be ({error!r})") from error
    except ValueError as error:
        raise ValueError(error if str(folder) in str(error) else f"{folder}: {error}") from error


def read_info(folder: Path) -> dict:
    """Contents of info.json. Raises FileNotFoundError and ValueError as `read_layout`."""
    path = folder / INFO
    if not path.exists():
        raise FileNotFoundError(f"{folder} is no LeRobot dataset: it has no {INFO}")
    info = files.read_json(path, "the description of a LeRobot dataset")
    if not isinstance(info, dict) or not isinstance(info.get("features"), dict):
        raise ValueError(f"{path} describes no features; wanted: the description of a LeRobot dataset")
    return info


def read_tasks(folder: Path) -> dict[int, str]:
    """Tasks of a v3.0 dataset: task_index -> instruction."""
    with files.reading(folder / TASKS, "a table of tasks with one column beside task_index (parquet)"):
        table = pq.read_table(folder / TASKS)
        # A table of pandas: the instruction is its index, whose column is named or not.
        (column,) = [name for name in table.column_names if name != "task_index"]
        return dict(zip(table["task_index"].to_pylist(), table[column].to_pylist(), strict=True))


def episode_tables(folder: Path) -> list[Path]:
    """Files of the episode table of a v3.0 dataset, in order."""
    return sorted((folder / EPISODES).glob("*/*.parquet"))


def episode_rows(folder: Path) -> list[dict]:
    """Rows of the episode tables of a v3.0 dataset, without their statistics."""
    rows = []
    for path in episode_tables(folder):
        with files.reading(path, "a table of episodes (parquet)"):
            columns = [name for name in pq.read_schema(path).names if not name.startswith("stats/")]
            rows += pq.read_table(path, columns=columns).to_pylist()
    return rows


def _read_v30(folder: Path, info: dict) -> tuple[dict[int, str], tuple[EpisodeFiles, ...]]:
    videos = _video_features(info)
    episodes = []
    for row in episode_rows(folder):
        data = info["data_path"].format(chunk_index=row["data/chunk_index"], file_index=row["data/file_index"])
        spans = {}
        for key in videos:
            path = info["video_path"].format(
                video_key=key,
                chunk_index=row[f"videos/{key}/chunk_index"],
                file_index=row[f"videos/{key}/file_index"],
            )
            spans[key] = VideoSpan(folder / path, row[f"videos/{key}/from_timestamp"])
        episodes.append(EpisodeFiles(row["episode_index"], row["length"], folder / data, spans))
    return read_tasks(folder), tuple(episodes)


def _read_v21(folder: Path, info: dict) -> tuple[dict[int, str], tuple[EpisodeFiles, ...]]:
    tasks = {row["task_index"]: row["task"] for row in _json_lines(folder / "meta/tasks.jsonl")}
    videos = _video_features(info)
    episodes = []
    for row in _json_lines(folder / "meta/episodes.jsonl"):
        index = row["episode_index"]
        names = {"episode_chunk": index // info["chunks_size"], "episode_index": index}
        spans = {key: VideoSpan(folder / info["video_path"].format(video_key=key, **names), 0.0) for key in videos}
        data = folder / info["data_path"].format(**names)
        episodes.append(EpisodeFiles(index, row["length"], data, spans))
    return tasks, tuple(episodes)


def _video_features(info: dict) -> list[str]:
    return [key for key, feature in info["features"].items() if feature["dtype"] == "video"]


def _json_lines(path: Path) -> Iterable[dict]:
    with files.reading(path, "lines of JSON"):
        return [json.loads(line) for line in path.read_text().splitlines() if line.strip()]
