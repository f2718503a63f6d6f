"""Where the files of this package are: config/, tasks/ and urdf/."""

from __future__ import annotations

from pathlib import Path

PACKAGE = "r1lite_description"


def share() -> Path:
    """The source tree's folder of the package, else `share/r1lite_description` of the prefix that it is installed to.

    Looked up without ament's index, so that a computer without ROS finds it too.

    Raises:
        FileNotFoundError: the package is installed without its files.
    """
    here = Path(__file__).resolve()
    folders = [here.parents[1], *(parent / "share" / PACKAGE for parent in here.parents)]
    for folder in folders:
        if (folder / "config" / "r1lite.yaml").is_file():
            return folder
    raise FileNotFoundError(
        f"{PACKAGE} is installed without config/r1lite.yaml; looked in {folders[0]} to {folders[-1]}"
    )


def robot_file() -> Path:
    """The R1 Lite's description, for `robot.load`."""
    return share() / "config" / "r1lite.yaml"


def urdf_file() -> Path:
    """The R1 Lite's links and joints, a xacro file."""
    return share() / "urdf" / "r1lite.urdf.xacro"
