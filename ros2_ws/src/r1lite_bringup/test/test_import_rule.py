"""Imports run downwards only, between packages and inside them; ROS stays in nodes/ and ros/."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest
from ros_harness import SOURCE_PATHS, SOURCES

# From the ground up: a package imports only what stands below it.
PACKAGES = (
    "depthvla_msgs",
    "r1lite_description",
    "depthvla_control",
    "depthvla_policy",
    "r1lite_sim",
    "depthvla_evaluation",
    "r1lite_bringup",
    "r1lite_trials",
)
USE_ROS_THROUGHOUT = ("r1lite_bringup", "r1lite_trials")
ROS = ("rclpy", "launch", "launch_ros", "ament_index_python", "sensor_msgs_py", "tf2_ros")
# What the robot's own computer has besides ROS.
ON_THE_ROBOT = ("numpy", "ruckig", "yaml", "xacro", "rich", "prompt_toolkit")
# Parts of a package, from the ground up; those of a group do not know each other.
INSIDE = {
    "depthvla_policy": (
        ("model",),
        ("policy",),
        ("data", "conversion"),
        ("training", "serving"),
        ("bench",),
        ("ros",),
        ("nodes",),
    ),
    "depthvla_evaluation": (("bags",), ("session", "dataset", "viewer", "report"), ("rollouts",), ("nodes",)),
    "r1lite_sim": (("scene",), ("tasks",), ("experts",), ("nodes",)),
    "depthvla_control": (("ros",), ("nodes",)),
}


def modules(package: str, folder: str = "") -> list[Path]:
    return sorted((SOURCES / package / (folder or package)).rglob("*.py"))


MODULES = [path for package in PACKAGES for path in modules(package)]
TESTS = [path for package in PACKAGES for path in modules(package, "test")]


def imports(path: Path) -> set[str]:
    """Every dotted name that a module imports, wherever in it."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(), str(path))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import in line {node.lineno}"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def tops(path: Path) -> set[str]:
    return {name.split(".")[0] for name in imports(path)}


def is_ros(top: str) -> bool:
    return top in ROS or top.endswith(("_msgs", "_srvs", "_interfaces"))


def name_of(path: Path) -> str:
    return str(path.relative_to(SOURCES))


def test_the_rule_looks_at_something():
    assert len(MODULES) > 200
    assert {path.relative_to(SOURCES).parts[0] for path in MODULES} == set(PACKAGES) - {"depthvla_msgs"}
    assert any(is_ros(top) for path in MODULES for top in tops(path))


@pytest.mark.parametrize("path", [*MODULES, *TESTS], ids=name_of)
def test_a_package_imports_what_stands_below_it(path):
    package = path.relative_to(SOURCES).parts[0]
    above = set(PACKAGES[PACKAGES.index(package) + 1 :])
    assert not tops(path) & above


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_ros_stays_in_the_nodes(path):
    package, _, *inside = path.relative_to(SOURCES).parts
    if package not in USE_ROS_THROUGHOUT and inside[0] not in ("nodes", "ros"):
        assert not {top for top in tops(path) if is_ros(top)}
        own = tuple(f"{name}.{part}." for name in PACKAGES for part in ("nodes", "ros"))
        assert not {name for name in imports(path) if name.startswith(own)}


@pytest.mark.parametrize("package", INSIDE)
def test_the_parts_of_a_package_import_downwards(package):
    order = INSIDE[package]
    for level, parts in enumerate(order):
        above = {part for other in order[level + 1 :] for part in other}
        for part in parts:
            not_known = tuple(f"{package}.{name}." for name in (above | set(parts)) - {part})
            for path in modules(package, f"{package}/{part}"):
                wrong = {name for name in imports(path) if f"{name}.".startswith(not_known)}
                assert not wrong, f"{name_of(path)} imports {wrong}"


@pytest.mark.parametrize("path", modules("r1lite_description") + modules("depthvla_control"), ids=name_of)
def test_the_robots_side_needs_nothing_heavy(path):
    other = {top for top in tops(path) if top not in (*PACKAGES, *ON_THE_ROBOT) and not is_ros(top)}
    assert not other - set(sys.stdlib_module_names)


@pytest.mark.parametrize("path", sorted((SOURCES / "depthvla_control/depthvla_control").glob("*.py")), ids=name_of)
def test_control_is_told_the_time(path):
    if path.name != "worker.py":
        assert not tops(path) & {"time", "threading"}


@pytest.mark.parametrize(
    ("module", "absent"),
    [
        ("depthvla_control.nodes.chunk_executor_node", ("torch", "transformers", "cv2")),
        ("depthvla_evaluation.nodes.visualisation_node", ("torch", "transformers", "cv2", "viser")),
        ("depthvla_control.executor", ("torch", "cv2", "rclpy")),
        ("depthvla_policy.nodes.policy_node", ("torch", "transformers")),
        ("r1lite_bringup.graph", ("torch", "cv2", "mujoco")),
    ],
)
def test_a_process_loads_only_what_it_needs(module, absent):
    if ".nodes." in module:
        pytest.importorskip("rclpy", reason="rclpy is not installed")
        pytest.importorskip("depthvla_msgs", reason="depthvla_msgs is not built or not sourced")
    code = f"import sys, {module}; print([name for name in {absent!r} if name in sys.modules])"
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([*SOURCE_PATHS, os.environ.get("PYTHONPATH", "")])}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"
