"""Where the files of a package are, which are not Python: config/, urdf/, launch/ and the like."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

PACKAGE = "r1lite_description"


def share(package: str = PACKAGE) -> Path:
    """A package's folder in the source tree, else `share/<package>` of the prefix that it is installed to.

    Looked up without ament's index: a computer without ROS finds it too.

    Raises:
        FileNotFoundError: the package is not installed, or without its files.
    """
    spec = find_spec(package)
    if spec is None or spec.origin is None:
        raise FileNotFoundError(f"package {package} is not installed")
    module = Path(spec.origin).resolve()
    for folder in (module.parents[1], *(parent / "share" / package for parent in module.parents)):
        if (folder / "package.xml").is_file():
            return folder
    raise FileNotFoundError(f"{package} in {module.parent} is installed without its share folder")


def robot_file() -> Path:
    """The R1 Lite's description, for `robot.load`."""
    return share() / "config" / "r1lite.yaml"


def urdf_file() -> Path:
    """The R1 Lite's links and joints, a xacro file."""
    return share() / "urdf" / "r1lite.urdf.xacro"
