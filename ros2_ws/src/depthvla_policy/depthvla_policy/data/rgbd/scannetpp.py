"""ScanNet++, prepared with its own toolbox: iPhone frames with LiDAR or rendered depth, DSLR frames with rendered.

`<scene>/iphone/rgb/frame_<n>.jpg` with `iphone/render_depth/` (from the laser scan) where it was rendered, else
`iphone/depth/` (192 x 256 LiDAR); `<scene>/dslr/undistorted_images/DSC<n>.JPG` with `dslr/undistorted_depths/`; all of
them 16-bit millimetres. Raw DSLR images are fish-eye and are left out.
"""

from __future__ import annotations

from pathlib import Path

from depthvla_policy.data.rgbd.source import Pair, PngSource, pairs_by_name


def open_scannetpp(root: Path) -> PngSource:
    """All prepared scenes under `root`, its `data` folder. Raises FileNotFoundError where there are none."""
    scenes = sorted({path.parent for kind in ("iphone", "dslr") for path in root.glob(f"*/{kind}")})
    return PngSource(((scene.name, _pairs(scene)) for scene in scenes), root, "*/iphone/rgb/*.jpg")


def _pairs(scene: Path) -> list[Pair]:
    iphone, dslr = scene / "iphone", scene / "dslr"
    rendered = iphone / "render_depth"
    return [
        *pairs_by_name(iphone / "rgb", rendered if rendered.is_dir() else iphone / "depth", ".jpg"),
        *pairs_by_name(dslr / "undistorted_images", dslr / "undistorted_depths", ".JPG"),
    ]
