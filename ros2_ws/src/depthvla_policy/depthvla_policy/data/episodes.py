"""Demonstrations in memory: episode files of `r1lite_sim.collect` as samples for training.

Images and depth go through the functions of the deployed policy, so the network trains on what it will see.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from depthvla_policy.policy.images import ImageFit, decode_jpeg

MILLIMETRES = 1000.0


@dataclass(frozen=True)
class Episode:
    """One demonstration of T frames.

    images: (T, C, size, size, 3) uint8 RGB. depth_m: (T, C, depth_size, depth_size) float16, NaN where unknown; None
    without depth. state, action: (T, 14), robot units; action[t] is the target due at frame t. target_m: (T, 3),
    position of the named object in the frame of torso_link3.
    """

    images: np.ndarray
    depth_m: np.ndarray | None
    state: np.ndarray
    action: np.ndarray
    target_m: np.ndarray
    instruction: str
    seed: int


def load_episodes(
    folder: Path, cameras: tuple[str, ...], fit: ImageFit, depth_size: int, *, limit: int | None = None
) -> list[Episode]:
    """Read every `episode_*.npz` of a folder, in the order of their seeds. `depth_size` 0 leaves depth out.

    Raises:
        FileNotFoundError: the folder holds no episode.
        ValueError: an episode lacks a camera, or its arrays disagree in length.
    """
    paths = sorted(folder.glob("episode_*.npz"))[:limit]
    if not paths:
        raise FileNotFoundError(f"no episode_*.npz in {folder}")
    with ThreadPoolExecutor(2) as pool:
        read = pool.map(lambda path: _read(path, cameras, fit, depth_size), paths)
        return list(tqdm(read, total=len(paths), desc="reading episodes", unit="episode"))


def _read(path: Path, cameras: tuple[str, ...], fit: ImageFit, depth_size: int) -> Episode:
    with np.load(path, allow_pickle=False) as file:
        arrays = dict(file)
    state, action = arrays["state"], arrays["action"]
    missing = [name for name in cameras if f"image_{name}" not in arrays]
    if missing:
        raise ValueError(f"{path} has no images of {missing}")
    images = np.stack(
        [[fit.apply(decode_jpeg(blob)) for blob in _blobs(arrays, f"image_{name}")] for name in cameras], axis=1
    )
    depth = None
    if depth_size:
        maps = [
            [fit.apply_depth(_depth(blob), depth_size) for blob in _blobs(arrays, f"depth_{name}")] for name in cameras
        ]
        depth = np.stack(maps, axis=1).astype(np.float16)
    if not len(state) == len(action) == len(images) == len(arrays["target_xyz"]):
        raise ValueError(f"{path}: {len(state)} states, {len(action)} actions, {len(images)} images")
    return Episode(images, depth, state, action, arrays["target_xyz"], str(arrays["instruction"]), int(arrays["seed"]))


def _blobs(arrays: dict[str, np.ndarray], key: str) -> Iterator[np.ndarray]:
    """Encoded images stored as one byte array and the offsets between them."""
    data, offsets = arrays[key], arrays[f"{key}_offsets"]
    for begin, end in zip(offsets[:-1], offsets[1:], strict=True):
        yield data[begin:end]


def _depth(blob: np.ndarray) -> np.ndarray:
    """16-bit PNG of millimetres -> (H, W) float32 metres, NaN where it says 0."""
    millimetres = cv2.imdecode(blob, cv2.IMREAD_UNCHANGED).astype(np.float32)
    return np.where(millimetres > 0, millimetres / MILLIMETRES, np.nan)
