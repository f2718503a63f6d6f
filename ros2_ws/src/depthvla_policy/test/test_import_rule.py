"""Imports run downwards only: nodes -> policy, control, evaluation -> model; ROS stays in the nodes."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

SOURCES = Path(__file__).resolve().parents[2]
PACKAGES = ("depthvla_policy", "r1lite_sim", "r1lite_bringup")
MAY_USE_ROS = ("depthvla_policy/nodes/", "r1lite_sim/simulator_node.py", "r1lite_sim/leader_node.py", "r1lite_bringup/")
ROS = ("rclpy", "launch", "launch_ros", "rcl_interfaces", "builtin_interfaces", "sensor_msgs_py", "tf2_ros")

# part of depthvla_policy -> what it must not import, as dotted prefixes
FORBIDDEN = {
    "model": ["depthvla_policy." + part for part in ("policy", "control", "nodes", "training", "data", "evaluation")]
    + ["depthvla_policy.robot", "r1lite_sim", "r1lite_bringup"],
    "policy": ["depthvla_policy." + part for part in ("control", "nodes", "training", "data", "evaluation")]
    + ["r1lite_sim", "r1lite_bringup"],
    "control": ["depthvla_policy." + part for part in ("model", "policy", "nodes", "training", "data", "evaluation")]
    + ["r1lite_sim", "r1lite_bringup", "torch", "cv2", "transformers", "threading.Timer", "time"],
    "evaluation": ["depthvla_policy.nodes", "rclpy"],
    "training": ["depthvla_policy.nodes", "depthvla_policy.control"],
    "data": ["depthvla_policy.nodes"],
    "conversion": ["depthvla_policy." + part for part in ("control", "nodes", "training", "data", "evaluation")]
    + ["r1lite_sim", "r1lite_bringup"],
    "bench": ["depthvla_policy.nodes", "rclpy", "r1lite_sim", "r1lite_bringup"],
    "serving": ["depthvla_policy." + part for part in ("control", "nodes", "training", "evaluation")]
    + ["r1lite_sim", "r1lite_bringup"],
    "nodes": ["depthvla_policy.training", "transformers"],
}


def modules() -> list[Path]:
    return sorted(
        path for package in PACKAGES for path in (SOURCES / package / package).rglob("*.py") if path.name != "setup.py"
    )


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


def starts_with(name: str, prefix: str) -> bool:
    return name == prefix or name.startswith(prefix + ".")


def is_ros(name: str) -> bool:
    top = name.split(".")[0]
    return top in ROS or top.endswith(("_msgs", "_srvs"))


def test_the_rule_looks_at_something():
    assert len(modules()) > 30
    assert any(is_ros(name) for path in modules() for name in imports(path))


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(SOURCES)))
def test_imports_run_downwards(path):
    inside = str(path.relative_to(SOURCES)).split("/", 1)[1]
    found = imports(path)
    if not inside.startswith(MAY_USE_ROS):
        assert not [name for name in found if is_ros(name)], f"{inside} imports ROS"
    parts = inside.split("/")
    if parts[0] == "depthvla_policy" and len(parts) > 2:
        wrong = [name for name in found for prefix in FORBIDDEN[parts[1]] if starts_with(name, prefix)]
        assert not wrong, f"{inside} imports {wrong}"


@pytest.mark.parametrize(
    ("module", "absent"),
    [
        ("depthvla_policy.nodes.chunk_executor_node", ("torch", "transformers", "cv2")),
        ("depthvla_policy.nodes.visualisation_node", ("torch", "transformers", "cv2", "viser")),
        ("depthvla_policy.control.executor", ("torch", "cv2", "rclpy")),
        ("depthvla_policy.nodes.policy_node", ("torch", "transformers")),
    ],
)
def test_a_process_loads_only_what_it_needs(module, absent):
    if ".nodes." in module:
        pytest.importorskip("rclpy", reason="rclpy is not installed")
        pytest.importorskip("depthvla_msgs", reason="depthvla_msgs is not built or not sourced")
    code = f"import sys, {module}; print([name for name in {absent!r} if name in sys.modules])"
    env = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(SOURCES / "depthvla_policy"), os.environ.get("PYTHONPATH", "")]),
    }
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"
