"""ScanNet, exported from .sens by its own SensReader: `<scene>/color/<n>.jpg`, `<scene>/depth/<n>.png`, millimetres.

Colour and depth camera differ in resolution and by some centimetres; the depth is taken as the colour camera's, as is.
"""

from __future__ import annotations

from pathlib import Path

from depthvla_policy.data.rgbd.source import PngSource, pairs_by_name


def open_scannet(root: Path) -> PngSource:
    """All exported scenes under `root`. Raises FileNotFoundError where there are none."""
    folders = sorted(root.glob("*/color"))
    scenes = ((folder.parent.name, pairs_by_name(folder, folder.with_name("depth"), ".jpg")) for folder in folders)
    return PngSource(scenes, root, "*/color/*.jpg")
