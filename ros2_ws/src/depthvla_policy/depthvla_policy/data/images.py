"""Pictures out of a dataset's files, one at a time: encoded images in parquet, frames of videos, depth.

Readers keep what is open for the next picture. They are made anew in each process: nothing of them is pickled.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path

import av
import cv2
import numpy as np
import pyarrow.parquet as pq

OPEN_FILES = 16
# Decoding on is cheaper than seeking when the frame wanted is this near.
DECODE_ON_S = 1.0


class ImageRows:
    """Encoded images of parquet columns. One row group is read at a time and kept, for whoever reads on in order."""

    def __init__(self) -> None:
        self._files: OrderedDict[Path, _ParquetFile] = OrderedDict()

    def read(self, path: Path, row: int, columns: Sequence[str]) -> list[bytes]:
        """The bytes in `columns` of one row of a file.

        Raises:
            ValueError: the row holds no bytes, only a path to an image elsewhere.
        """
        images = _opened(self._files, path, _ParquetFile).row(row, columns)
        if any(image is None for image in images):
            raise ValueError(f"{path}, row {row}: an image of {list(columns)} is not in the file")
        return images


class VideoFrames:
    """Frames of videos by time. Each video goes on from where it was, or from the key frame before the wanted one."""

    def __init__(self) -> None:
        self._files: OrderedDict[Path, _Video] = OrderedDict()

    def read(self, path: Path, time_s: float) -> np.ndarray:
        """(H, W, 3) uint8 RGB of the frame shown at `time_s`.

        Raises:
            ValueError: the video has no frame there.
        """
        return _opened(self._files, path, _Video).frame(time_s)


def decode_depth(data: bytes) -> np.ndarray:
    """16-bit PNG of millimetres -> (H, W) float32 metres, NaN where it says 0. Raises as `decode_depth_mm`."""
    millimetres = decode_depth_mm(data)
    metres = millimetres.astype(np.float32) / np.float32(1000.0)
    metres[millimetres == 0] = np.nan
    return metres


def decode_depth_mm(data: bytes) -> np.ndarray:
    """16-bit PNG -> (H, W) uint16, millimetres along the optical axis, 0 where unknown.

    Raises:
        ValueError: the bytes are not a 16-bit image of one channel.
    """
    image = cv2.imdecode(np.frombuffer(data, dtype=np.uint8), cv2.IMREAD_UNCHANGED) if data else None
    if image is None or image.dtype != np.uint16 or image.ndim != 2:
        raise ValueError(f"{len(data)} bytes are not a 16-bit image of one channel, which depth must be")
    return image


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
        at = row - int(self._starts[group])
        return [self._columns[name][at].as_py()["bytes"] for name in columns]

    def close(self) -> None:
        self._file.close()


class _Video:
    def __init__(self, path: Path) -> None:
        self._path = path
        self._container = av.open(str(path))
        self._stream = self._container.streams.video[0]
        self._stream.codec_context.thread_count = 1  # the workers of a loader are the threads
        self._half_s = 0.5 / float(self._stream.average_rate)
        self._frames = iter(())
        self._shown: av.VideoFrame | None = None

    def frame(self, time_s: float) -> np.ndarray:
        if self._shown is None or not -self._half_s < time_s - self._shown.time < DECODE_ON_S:
            self._container.seek(max(0, int(time_s / self._stream.time_base)), stream=self._stream)
            self._frames, self._shown = self._container.decode(self._stream), None
        while self._shown is None or self._shown.time < time_s - self._half_s:
            self._shown = next(self._frames, None)
            if self._shown is None:
                raise ValueError(f"{self._path} has no frame at {time_s:.3f} s")
        return self._shown.to_ndarray(format="rgb24")

    def close(self) -> None:
        self._container.close()


def _opened(files: OrderedDict, path: Path, kind: type):
    """The open file at `path`, as the newest of the few that are kept open."""
    if path not in files:
        if not path.exists():
            raise FileNotFoundError(f"{path}, a file of the dataset, does not exist")
        if len(files) >= OPEN_FILES:
            files.popitem(last=False)[1].close()
        files[path] = kind(path)
    files.move_to_end(path)
    return files[path]
