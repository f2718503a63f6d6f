"""RGB-D datasets whose depth is 16-bit PNGs of millimetres, in the layouts they are published in.

Every function opens all scenes under a root, and raises FileNotFoundError where there are none.
"""

from __future__ import annotations

from pathlib import Path

from depthvla_policy.data.rgbd.source import Pair, PngSource, pairs_by_name


def open_wildrgbd(root: Path) -> PngSource:
    """WildRGB-D: `<category>/scenes/<scene>/{rgb,depth}/<number>.png` (Xia et al. 2024)."""
    return _beside(root, "*/scenes/*/rgb", ".png")


def open_scannet(root: Path) -> PngSource:
    """ScanNet, exported from .sens by its own SensReader: `<scene>/color/<n>.jpg`, `<scene>/depth/<n>.png`.

    Colour and depth camera differ in resolution and by some centimetres; the depth is taken as the colour camera's.
    """
    return _beside(root, "*/color", ".jpg")


def open_scannetpp(root: Path) -> PngSource:
    """ScanNet++, prepared with its own toolbox: iPhone frames with LiDAR or rendered depth, DSLR frames with rendered.

    `<scene>/iphone/rgb/frame_<n>.jpg` with `iphone/render_depth/` (from the laser scan) where it was rendered, else
    `iphone/depth/` (192 x 256 LiDAR); `<scene>/dslr/undistorted_images/DSC<n>.JPG` with `dslr/undistorted_depths/`. Raw
    DSLR images are fish-eye and are left out. root: its `data` folder.
    """

    def pairs(scene: Path) -> list[Pair]:
        iphone, dslr = scene / "iphone", scene / "dslr"
        rendered = iphone / "render_depth"
        return [
            *pairs_by_name(iphone / "rgb", rendered if rendered.is_dir() else iphone / "depth", ".jpg"),
            *pairs_by_name(dslr / "undistorted_images", dslr / "undistorted_depths", ".JPG"),
        ]

    scenes = sorted({path.parent for kind in ("iphone", "dslr") for path in root.glob(f"*/{kind}")})
    return PngSource(((scene.name, pairs(scene)) for scene in scenes), root, "*/iphone/rgb/*.jpg")


def _beside(root: Path, pattern: str, suffix: str) -> PngSource:
    """Folders `pattern` of pictures `*suffix`, each with a folder `depth` beside it."""
    scenes = (
        (str(folder.parent.relative_to(root)), pairs_by_name(folder, folder.with_name("depth"), suffix))
        for folder in sorted(root.glob(pattern))
    )
    return PngSource(scenes, root, f"{pattern}/*{suffix}")
