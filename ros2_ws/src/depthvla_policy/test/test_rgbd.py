"""RGB-D datasets in the layouts they are published in, and how their frames become training images."""

from __future__ import annotations

import sys

import cv2
import numpy as np
import pytest

from depthvla_policy.data.rgbd.hypersim import FOCAL_PER_WIDTH, depth_of_distance
from depthvla_policy.data.rgbd.images import RgbdImages, open_source, split_scenes
from depthvla_policy.policy.images import ImageFit

HEIGHT, WIDTH = 12, 16


def write_picture(path, blue=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    image[:] = (blue, 100, 200)  # BGR
    cv2.imwrite(str(path), image)


def write_depth(path, millimetres, shape=(HEIGHT, WIDTH)):
    path.parent.mkdir(parents=True, exist_ok=True)
    depth = np.full(shape, millimetres, np.uint16)
    depth[0] = 0
    cv2.imwrite(str(path), depth)


def write_hypersim(root, scene="ai_001_001", distance_m=2.0):
    h5py = pytest.importorskip("h5py")
    write_picture(root / scene / "images/scene_cam_00_final_preview/frame.0003.tonemap.jpg")
    geometry = root / scene / "images/scene_cam_00_geometry_hdf5"
    geometry.mkdir(parents=True)
    distance = np.full((HEIGHT, WIDTH), distance_m, np.float16)
    distance[0] = np.nan
    with h5py.File(geometry / "frame.0003.depth_meters.hdf5", "w") as file:
        file["dataset"] = distance


def check(source, depth_m, shape=(HEIGHT, WIDTH)):
    """The one frame of `source`: colours in RGB order, unknown first row, metres elsewhere."""
    assert len(source) == len(source.scenes) == 1
    image, depth = source[0]
    assert image.shape == (HEIGHT, WIDTH, 3) and image.dtype == np.uint8 and depth.dtype == np.float32
    np.testing.assert_allclose(image.reshape(-1, 3).mean(0), [200, 100, 0], atol=3)
    assert depth.shape == shape and np.isnan(depth[0]).all()
    np.testing.assert_allclose(depth[1:], depth_m, rtol=1e-3)


def test_wildrgbd_frames_are_read_in_metres(tmp_path):
    write_picture(tmp_path / "apple/scenes/scene_007/rgb/00000.png")
    write_depth(tmp_path / "apple/scenes/scene_007/depth/00000.png", 1234)
    write_picture(tmp_path / "apple/scenes/scene_007/rgb/00001.png")  # its depth is missing
    source = open_source("wildrgbd", tmp_path)
    check(source, 1.234)
    assert source.scenes == ["apple/scenes/scene_007"]


def test_scannet_frames_are_read_in_metres_and_in_order(tmp_path):
    for frame, millimetres in ((0, 500), (2, 700), (10, 900)):
        write_picture(tmp_path / f"scene0000_00/color/{frame}.jpg")
        write_depth(tmp_path / f"scene0000_00/depth/{frame}.png", millimetres, shape=(6, 8))
    source = open_source("scannet", tmp_path)
    assert [source[i][1][1, 0] for i in range(3)] == pytest.approx([0.5, 0.7, 0.9])
    assert source[0][1].shape == (6, 8) and source[0][0].shape == (HEIGHT, WIDTH, 3)


@pytest.mark.parametrize("kind", ["depth", "render_depth"])
def test_scannetpp_prefers_rendered_depth_for_the_iphone(tmp_path, kind):
    write_picture(tmp_path / "0a7cc12c0e/iphone/rgb/frame_000000.jpg")
    write_depth(tmp_path / "0a7cc12c0e/iphone/depth/frame_000000.png", 3000)
    write_depth(tmp_path / f"0a7cc12c0e/iphone/{kind}/frame_000000.png", 2000)
    check(open_source("scannetpp", tmp_path), 2.0)


def test_scannetpp_takes_undistorted_dslr_frames(tmp_path):
    write_picture(tmp_path / "0a7cc12c0e/dslr/undistorted_images/DSC00001.JPG")
    write_depth(tmp_path / "0a7cc12c0e/dslr/undistorted_depths/DSC00001.png", 2500)
    write_picture(tmp_path / "0a7cc12c0e/dslr/resized_images/DSC00001.JPG")
    check(open_source("scannetpp", tmp_path), 2.5)


def test_hypersim_distances_become_depths(tmp_path):
    write_hypersim(tmp_path)
    source = open_source("hypersim", tmp_path)
    _, depth = source[0]
    assert np.isnan(depth[0]).all() and source.scenes == ["ai_001_001"]
    assert np.nanmax(depth) < 2.0 and np.nanmin(depth) < depth[HEIGHT // 2, WIDTH // 2]


def test_a_plane_seen_at_an_angle_to_the_axis_has_one_depth():
    x, y = np.arange(1024) - 511.5, np.arange(768) - 383.5
    focal = FOCAL_PER_WIDTH * 1024
    distance = 3.0 * np.sqrt((x[None] / focal) ** 2 + (y[:, None] / focal) ** 2 + 1.0)
    np.testing.assert_allclose(depth_of_distance(distance), 3.0, rtol=1e-6)


def test_hypersim_without_h5py_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(ModuleNotFoundError, match="pip install h5py"):
        open_source("hypersim", tmp_path)


@pytest.mark.parametrize("layout", ["wildrgbd", "scannet", "scannetpp", "hypersim"])
def test_a_folder_without_frames_is_named(tmp_path, layout):
    if layout == "hypersim":
        pytest.importorskip("h5py")
    with pytest.raises(FileNotFoundError, match=str(tmp_path)):
        open_source(layout, tmp_path)


def test_an_unknown_layout_is_named_with_those_there_are(tmp_path):
    with pytest.raises(ValueError, match="'kitti'; allowed: wildrgbd, scannet, scannetpp, hypersim"):
        open_source("kitti", tmp_path)


def test_a_file_that_is_no_depth_is_named(tmp_path):
    write_picture(tmp_path / "scene0000_00/color/0.jpg")
    write_picture(tmp_path / "scene0000_00/depth/0.png")
    with pytest.raises(ValueError, match=r"depth/0\.png is not a 16-bit grey PNG"):
        open_source("scannet", tmp_path)[0]


class Steps:
    """An `RgbdSource` whose left half is near and whose right half is far, depth at half the picture's resolution."""

    scenes = ["a", "a", "b", "c"]

    def __len__(self):
        return 4

    def __getitem__(self, i):
        image, depth = np.zeros((40, 60, 3), np.uint8), np.ones((20, 30), np.float32)
        image[:, 30:], depth[:, 15:] = 255, 2.0
        return image, depth


@pytest.mark.parametrize("fit", ["crop", "pad"])
def test_image_and_depth_are_fitted_alike(fit):
    image, depth = RgbdImages(Steps(), ImageFit(32, fit), 16)[0]
    assert image.shape == (32, 32, 3) and depth.shape == (16, 16)
    assert (image[16, :14] < 128).all() and (image[16, 18:] > 128).all()
    assert (depth[8, :7] == 1.0).all() and (depth[8, 9:] == 2.0).all()
    assert np.isnan(depth[0]).all() == (fit == "pad")


def test_whole_scenes_are_held_out():
    train, held_out = split_scenes(Steps(), ImageFit(32, "crop"), 16, 0.3)
    assert train.frames.tolist() == [0, 1, 2] and held_out.frames.tolist() == [3]
    train, held_out = split_scenes(Steps(), ImageFit(32, "crop"), 16, 0.3, limit=2)
    assert train.frames.tolist() == [0, 1] and held_out.frames.tolist() == [2]
    with pytest.raises(ValueError, match="of 1 scenes"):
        split_scenes(Steps(), ImageFit(32, "crop"), 16, 0.3, limit=1)
