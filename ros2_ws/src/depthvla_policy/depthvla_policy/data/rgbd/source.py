"""What every reader of an RGB-D dataset is: pictures with depth, scene by scene."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

from depthvla_policy.data.images import decode_depth
from depthvla_policy.policy.images import decode_jpeg
from r1lite_description import files

Pair = tuple[Path, Path]  # the files of a picture and of its depth


class RgbdSource(Protocol):
    """Frames of a dataset, read when they are asked for. scenes: of every frame, the name of its scene, in one piece
    each.
    """

    scenes: list[str]

    def __len__(self) -> int: ...

    def __getitem__(self, i: int) -> tuple[np.ndarray, np.ndarray]:
        """(H, W, 3) uint8 RGB, and (h, w) float32 depth along the optical axis in metres, NaN where unknown."""
        ...


class PngSource:
    """An `RgbdSource` of pictures and 16-bit PNGs of millimetres, 0 where unknown.

    scenes: name -> pairs of picture and depth.

    Raises:
        FileNotFoundError: there is not one pair; the message says what `pattern` was looked for in `root`.
    """

    def __init__(self, scenes: Iterable[tuple[str, Sequence[Pair]]], root: Path, pattern: str) -> None:
        frames = [(name, pair) for name, pairs in scenes for pair in pairs]
        if not frames:
            raise FileNotFoundError(f"no {pattern} with depth in {root}")
        self.scenes = [name for name, _ in frames]
        # One array of bytes: millions of Path objects would be copied into every worker of a data loader.
        self._pairs = np.array([[os.fsencode(path) for path in pair] for _, pair in frames])

    def __len__(self) -> int:
        return len(self._pairs)

    def __getitem__(self, i: int) -> tuple[np.ndarray, np.ndarray]:
        picture, depth = (Path(os.fsdecode(bytes(path))) for path in self._pairs[i])
        return read_picture(picture), read_depth_png(depth)


def pairs_by_name(pictures: Path, depths: Path, suffix: str) -> list[Pair]:
    """Pictures `*suffix` of a folder whose depth is `<same name>.png` in another, in the order of their numbers."""
    known = {path.stem for path in depths.glob("*.png")}
    names = sorted(pictures.glob("*" + suffix), key=lambda path: (len(path.stem), path.stem))
    return [(path, depths / f"{path.stem}.png") for path in names if path.stem in known]


def read_picture(path: Path) -> np.ndarray:
    """(H, W, 3) uint8 RGB. Raises ValueError that names the file where it is no picture."""
    with files.reading(path, "a picture"):
        return decode_jpeg(path.read_bytes())


def read_depth_png(path: Path) -> np.ndarray:
    """(h, w) float32 metres, NaN for 0. Raises ValueError that names the file where it is no 16-bit PNG."""
    files.check(path, "a 16-bit grey PNG")
    try:
        return decode_depth(path.read_bytes())
    except ValueError as error:
        raise ValueError(f"{path} is not a 16-bit grey PNG: {error}") from error
