"""WildRGB-D: `<category>/scenes/<scene>/{rgb,depth}/<number>.png`, depth in 16-bit millimetres (Xia et al. 2024)."""

from __future__ import annotations

from pathlib import Path

from depthvla_policy.data.rgbd.source import PngSource, pairs_by_name


def open_wildrgbd(root: Path) -> PngSource:
    """All scenes of all categories under `root`. Raises FileNotFoundError where there are none."""
    pattern = "*/scenes/*/rgb"
    folders = sorted(root.glob(pattern))
    scenes = (
        (str(folder.parent.relative_to(root)), pairs_by_name(folder, folder.with_name("depth"), ".png"))
        for folder in folders
    )
    return PngSource(scenes, root, pattern + "/*.png")
