"""Pictures out of a dataset's files, one at a time: encoded images in parquet, frames of videos, depth.

Readers keep what is open for the next picture. They are made anew in each process: nothing of them is pickled.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path

import av
import numpy as np
import pyarrow.parquet as pq

from depthvla_policy.policy.images import decode_depth_mm
from r1lite_description import files

OPEN_FILES = 16
VIDEO = "a video, and a whole one"
# Decoding on is cheaper than seeking when the frame wanted is this near.
DECODE_ON_S = 1.0


class ImageRows:
    """Encoded images of parquet columns. One row group is read at a time and kept, for whoever reads on in order."""

    def __init__(self) -> None:
        self._files: OrderedDict[Path, _ParquetFile] = OrderedDict()

    def read(self, path: Path, row: int, columns: Sequence[str]) -> list[bytes]:
        """The bytes in `columns` of one row of a file.

        Raises:
            ValueError: the file cannot be read, or the row holds no bytes, only a path to an image elsewhere.
        """
        with files.reading(path, f"a file with images {list(columns)} (parquet)"):
            images = _opened(self._files, path, _ParquetFile).row(row, columns)
        if any(image is None for image in images):
            raise ValueError(f"{path}, row {row}: an image of {list(columns)} is not in the file")
        return images


class VideoFrames:
    """Frames of videos by time. Each video goes on from where it was, or from the key frame before the wanted one."""

    def __init__(self) -> None:
        self._files: OrderedDict[Path, _Video] = OrderedDict()

    def read(self, path: Path, time_s: float, *, fps: float | None = None) -> np.ndarray:
        """(H, W, 3) uint8 RGB of the frame at `time_s`, in a video of `fps` frames a second; None takes its own rate.

        Raises:
            ValueError: the video cannot be read, or has no frame within half a period of that time.
        """
        with files.reading(path, VIDEO):
            video = _opened(self._files, path, _Video)
            image, shown_s = video.frame(time_s, 0.5 / (fps or video.fps))
        if image is None:
            beside = "" if shown_s is None else f", the next one is at {shown_s:.3f} s"
            raise ValueError(f"{path} has no frame at {time_s:.3f} s{beside}")
        return image


def check_rows(path: Path, columns: Sequence[str]) -> None:
    """Raises ValueError where a parquet file has no image columns of these names, or rows without bytes in them."""
    with files.reading(path, f"a file with images {list(columns)} (parquet)"):
        metadata = pq.read_metadata(path)
        nulls: dict[str, int] = dict.fromkeys(columns, -1)  # -1: no such column
        for group in map(metadata.row_group, range(metadata.num_row_groups)):
            for column in map(group.column, range(group.num_columns)):
                name, _, part = column.path_in_schema.rpartition(".")
                if name in nulls and part == "bytes":
                    counted = column.statistics
                    nulls[name] = max(nulls[name], 0)
                    nulls[name] += counted.null_count if counted and counted.has_null_count else 0
        if absent := [name for name, count in nulls.items() if count < 0 and metadata.num_rows]:
            raise ValueError(f"no {absent} in it")
        if empty := [name for name, count in nulls.items() if count > 0]:
            raise ValueError(f"rows of {empty} hold no image, perhaps only the path of one")


def check_video(path: Path, frames: int, *, fps: float, exactly: bool) -> None:
    """Raises ValueError where a video is not whole, begins late or has not `frames` frames. It may have more, and gaps,
    unless it is to have them `exactly`.
    """
    with files.reading(path, VIDEO):
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise ValueError("there is no video in it")
            stream = container.streams.video[0]
            tick_s, entries = float(stream.time_base), list(stream.index_entries)
            end = max((entry.pos + entry.size for entry in entries), default=0)
            if end > path.stat().st_size:
                raise ValueError(f"its end is missing: {path.stat().st_size} bytes of {end}")
            late_s = (stream.start_time or 0) * tick_s
            gap_s = max(np.diff(sorted(entry.timestamp for entry in entries)), default=0) * tick_s
            # Some containers do not say how many there are.
            counted = stream.frames or sum(packet.size > 0 for packet in container.demux(stream))
    if counted < frames or (exactly and counted != frames):
        raise ValueError(f"{path} has {counted} frames; the dataset has {frames} rows for them")
    if late_s > 0.5 / fps:
        raise ValueError(f"{path} begins at {late_s:.3f} s; frames before are missing")
    if exactly and gap_s > 1.5 / fps:
        raise ValueError(f"{path} has no frames for {gap_s:.3f} s; it must have {fps:g} a second")


def decode_depth(data: bytes) -> np.ndarray:
    """16-bit PNG of millimetres -> (H, W) float32 metres, NaN where it says 0. Raises as `decode_depth_mm`."""
    millimetres = decode_depth_mm(data)
    metres = millimetres.astype(np.float32) / np.float32(1000.0)
    metres[millimetres == 0] = np.nan
    return metres


class _ParquetFile:
    def __init__(self, path: Path) -> None:
        self._file = pq.ParquetFile(path, memory_map=True)
        metadata = self._file.metadata
        counts = [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)]
        self._starts = np.cumsum([0, *counts])
        self._group = -1
        self._columns: dict[str, object] = {}

    def row(self, row: int, columns: Sequence[str]) -> list[bytes | None]:
        group = int(np.searchsorted(self._starts, row, side="right")) - 1
        if group != self._group:
            self._group, self._columns = group, {}
        missing = [name for name in columns if name not in self._columns]
        if missing:
            table = self._file.read_row_group(group, columns=missing, use_threads=False)
            self._columns.update({name: table[name] for name in missing})
        index = row - int(self._starts[group])
        return [self._columns[name][index].as_py()["bytes"] for name in columns]

    def close(self) -> None:
        self._file.close()


class _Video:
    def __init__(self, path: Path) -> None:
        self._container = av.open(str(path))
        self._stream = self._container.streams.video[0]
        self._stream.codec_context.thread_count = 1  # the workers of a loader are the threads
        self.fps = float(self._stream.average_rate)
        self._frames = iter(())
        self._shown: av.VideoFrame | None = None

    def frame(self, time_s: float, half_s: float) -> tuple[np.ndarray | None, float | None]:
        """The frame within `half_s` of a time, None where there is none, and when the one shown then or next is."""
        if self._shown is None or not -half_s < time_s - self._shown.time < DECODE_ON_S:
            self._container.seek(max(0, int(time_s / self._stream.time_base)), stream=self._stream)
            self._frames, self._shown = self._container.decode(self._stream), None
        while self._shown is None or self._shown.time < time_s - half_s:
            self._shown = next(self._frames, None)
            if self._shown is None:
                return None, None
        near = self._shown.time <= time_s + half_s
        return self._shown.to_ndarray(format="rgb24") if near else None, self._shown.time

    def close(self) -> None:
        self._container.close()


def _opened(files: OrderedDict, path: Path, kind: type):
    """The open file at `path`, as the newest of the few that are kept open."""
    if path not in files:
        if len(files) >= OPEN_FILES:
            files.popitem(last=False)[1].close()
        files[path] = kind(path)
    files.move_to_end(path)
    return files[path]
