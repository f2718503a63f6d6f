"""HyperSim: `<scene>/images/scene_<camera>_{final_preview,geometry_hdf5}` (Roberts et al. 2021).

Its `depth_meters` are distances to the camera's centre and not depths; here they become depths.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from depthvla_policy.data.rgbd.source import read_picture
from r1lite_description import files

FOCAL_PER_WIDTH = 886.81 / 1024  # pinhole of the camera that most scenes were rendered with
PICTURES, GEOMETRY = "final_preview", "geometry_hdf5"


class HyperSim:
    """An `RgbdSource`.

    Raises:
        FileNotFoundError: there is no frame under `root`.
        ModuleNotFoundError: h5py is not installed.
    """

    def __init__(self, root: Path) -> None:
        try:
            import h5py
        except ModuleNotFoundError as error:
            raise ModuleNotFoundError("HyperSim's depth is in HDF5 files: pip install h5py", name="h5py") from error
        self._open = h5py.File
        pattern = f"*/images/scene_*_{PICTURES}/frame.*.tonemap.jpg"
        both = ((picture, _distance_file(picture)) for picture in sorted(root.glob(pattern)))
        self.pairs = [(picture, distance) for picture, distance in both if distance.exists()]
        if not self.pairs:
            raise FileNotFoundError(f"no {pattern} with depth in {root}")
        self.scenes = [picture.parents[2].name for picture, _ in self.pairs]

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, i: int) -> tuple[np.ndarray, np.ndarray]:
        picture, distance = self.pairs[i]
        with files.reading(distance, "distances of HyperSim (HDF5)"), self._open(distance, "r") as file:
            distance_m = file["dataset"][:].astype(np.float32)
        return read_picture(picture), depth_of_distance(distance_m)


def depth_of_distance(distance_m: np.ndarray) -> np.ndarray:
    """(h, w) distances to the camera's centre -> (h, w) float32 depths along its axis, NaN where no surface is."""
    height, width = distance_m.shape
    x = np.arange(width) + 0.5 - width / 2
    y = np.arange(height) + 0.5 - height / 2
    focal = FOCAL_PER_WIDTH * width
    cosine = focal / np.sqrt(x[None] ** 2 + y[:, None] ** 2 + focal**2)
    return np.where(np.isfinite(distance_m) & (distance_m > 0), distance_m * cosine, np.nan).astype(np.float32)


def _distance_file(picture: Path) -> Path:
    """frame.0000.tonemap.jpg -> frame.0000.depth_meters.hdf5 in the folder beside."""
    folder = picture.parent.name.removesuffix(PICTURES) + GEOMETRY
    return picture.parents[1] / folder / picture.name.replace("tonemap.jpg", "depth_meters.hdf5")
