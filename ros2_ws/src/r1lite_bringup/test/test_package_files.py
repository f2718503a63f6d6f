"""Every package.xml is valid, and says of licence, version and dependencies what is so."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

catkin_package = pytest.importorskip("catkin_pkg.package", reason="catkin_pkg comes with colcon")

SOURCES = Path(__file__).resolve().parents[2]
PACKAGES = {path.parent.name: path for path in sorted(SOURCES.glob("*/package.xml"))}
LICENCE = (SOURCES.parents[1] / "LICENSE").read_text()
ROS = ("ament_index_python", "launch", "launch_ros", "rclpy", "rcl_interfaces", "builtin_interfaces", "sensor_msgs_py")
IMPORT = re.compile(r"^ *(?:from|import) (\w+)", re.MULTILINE)
OPTIONAL = {"rviz_2d_overlay_msgs"}  # what needs it is left out without it
# Its scenes are evaluated in tests that are skipped without it; it depends on depthvla_policy.
UPWARDS = {("depthvla_policy", "r1lite_sim")}


def imported(folder: Path) -> set[str]:
    """ROS packages that the Python files below a folder import, wherever in them."""
    names = {name for path in folder.rglob("*.py") for name in IMPORT.findall(path.read_text())}
    return {name for name in names if name in (*ROS, *PACKAGES) or name.endswith(("_msgs", "_srvs"))}


def arguments_of_setup(path: Path) -> dict[str, object]:
    calls = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
    (call,) = [node for node in calls if isinstance(node.func, ast.Name) and node.func.id == "setup"]
    return {item.arg: item.value.value for item in call.keywords if isinstance(item.value, ast.Constant)}


@pytest.mark.parametrize("name", PACKAGES)
def test_a_package_file_is_valid(name):
    warnings: list[str] = []
    package = catkin_package.parse_package(str(PACKAGES[name]), warnings=warnings)
    package.validate(warnings=warnings)
    assert not warnings
    assert (package.name, package.package_format) == (name, 3)


@pytest.mark.parametrize("name", PACKAGES)
def test_licence_version_and_maintainer_are_the_same_everywhere(name):
    package = catkin_package.parse_package(str(PACKAGES[name]))
    assert [str(licence) for licence in package.licenses] == ["Apache-2.0"]
    assert LICENCE.split()[:4] == ["Apache", "License", "Version", "2.0,"]
    setup = PACKAGES[name].with_name("setup.py")
    if setup.exists():
        (maintainer,) = package.maintainers
        expected = {"version": package.version, "license": "Apache-2.0"}
        expected |= {"maintainer": maintainer.name, "maintainer_email": maintainer.email}
        assert {key: value for key, value in arguments_of_setup(setup).items() if key in expected} == expected


@pytest.mark.parametrize("name", [name for name, path in PACKAGES.items() if (path.parent / name).is_dir()])
def test_a_package_depends_on_what_it_imports(name):
    package = catkin_package.parse_package(str(PACKAGES[name]))
    at_run, in_tests = ({item.name for item in items} for items in (package.exec_depends, package.test_depends))
    folder = PACKAGES[name].parent
    assert not imported(folder / name) - at_run - OPTIONAL - {name}
    assert not {
        other for other in imported(folder / "test") - at_run - in_tests - {name} if (name, other) not in UPWARDS
    }
