"""The code is that of the robot's Humble, too: Python 3.10, and no name that its rclpy, launch or launch_ros lack.

Syntax newer than Python 3.10 is found by ruff (target-version), which `make lint` runs.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCES = Path(__file__).resolve().parents[2]
FILES = [
    path for path in SOURCES.rglob("*.py") if "test" not in path.relative_to(SOURCES).parts and path.name != "setup.py"
]
# vermin takes a tensor's `long` for Python 2's.
VERMIN = [sys.executable, "-c", "import vermin; vermin.main()", "--target=3.10-", "--violations", "--exclude", "long"]

# Public names of Jazzy that Humble lacks, found by comparing the sources: rclpy 3.3.15 and 7.1.3, launch 1.0.7 and
# 3.4.3, launch_ros 0.19.8 and 0.26.6. Names that our own code has, too (`path`, `parameters`), are left out.
NEW_MODULES = (
    "rclpy.event_handler",
    "rclpy.logging_service",
    "rclpy.parameter_client",
    "rclpy.type_description_service",
)
NEW_NAMES = {
    *("AsyncParameterClient", "ParameterEventHandler", "LoggingService", "ServiceIntrospectionState"),
    *("add_pre_set_parameters_callback", "add_post_set_parameters_callback"),
    *("remove_pre_set_parameters_callback", "remove_post_set_parameters_callback"),
    *("configure_introspection", "count_clients", "count_services", "get_fully_qualified_node_names"),
    *("get_logger_level", "parameter_dict_from_yaml_file", "service_name", "wait_for_node"),
    *("BEST_AVAILABLE", "DeadlineBestAvailable", "LivelinessLeaseDurationeBestAvailable", "qos_profile_best_available"),
    *("AllSubstitution", "AnySubstitution", "EqualsSubstitution", "NotEqualsSubstitution", "IfElseSubstitution"),
    *("FileContent", "LaunchLogDir", "LifecycleTransition", "PushROSNamespace", "ROSTimer", "SetROSLogDir"),
}
NEW_ARGUMENTS = {"enable_logger_service", "lifecycle_node_names", "respawn_max_retries", "use_wildcard"}


def newer_names(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """(line, name) of what Humble lacks. A `try` that answers ImportError has something else there."""
    guarded = {
        inner
        for node in ast.walk(tree)
        if isinstance(node, ast.Try) and any("ImportError" in ast.dump(handler.type) for handler in node.handlers)
        for statement in node.body
        for inner in ast.walk(statement)
    }
    for node in ast.walk(tree):
        if node in guarded:
            continue
        if isinstance(node, ast.ImportFrom):
            names = [alias.name for alias in node.names]
            modules = {node.module, *(f"{node.module}.{name}" for name in names)}
            found = [*(modules & set(NEW_MODULES)), *(NEW_NAMES & set(names))]
        elif isinstance(node, ast.Import):
            found = [alias.name for alias in node.names if alias.name in NEW_MODULES]
        elif isinstance(node, ast.Attribute):
            found = [node.attr] if node.attr in NEW_NAMES else []
        elif isinstance(node, ast.keyword):
            found = [node.arg] if node.arg in NEW_ARGUMENTS else []
        else:
            continue
        yield from ((getattr(node, "lineno", 0), name) for name in found)


def test_no_name_is_used_that_humble_lacks():
    assert len(FILES) > 100
    new = (*NEW_NAMES, *NEW_ARGUMENTS, *(module.rpartition(".")[2] for module in NEW_MODULES))
    suspects = [path for path in FILES if any(name in path.read_text() for name in new)]
    found = {str(path.relative_to(SOURCES)): list(newer_names(ast.parse(path.read_text()))) for path in suspects}
    assert not {path: names for path, names in found.items() if names}


@pytest.mark.parametrize(
    ("code", "names"),
    [
        ("from rclpy.event_handler import X", ["rclpy.event_handler"]),
        ("from rclpy import event_handler", ["rclpy.event_handler"]),
        ("import rclpy.parameter_client", ["rclpy.parameter_client"]),
        ("from launch.substitutions import EqualsSubstitution", ["EqualsSubstitution"]),
        ("node.count_clients('/name')", ["count_clients"]),
        ("Node('name', enable_logger_service=True)", ["enable_logger_service"]),
        ("try:\n  import rclpy.event_handler\nexcept ImportError:\n  pass", []),
        ("try:\n  import rclpy.event_handler\nexcept ValueError:\n  pass", ["rclpy.event_handler"]),
    ],
)
def test_a_name_that_humble_lacks_is_found(code, names):
    assert [name for _, name in newer_names(ast.parse(code))] == names


def vermin(*paths: Path) -> subprocess.CompletedProcess:
    pytest.importorskip("vermin", reason="vermin is not installed: it is in requirements-dev.txt")
    return subprocess.run([*VERMIN, *map(str, paths)], capture_output=True, text=True, timeout=120)


def test_no_module_of_python_is_used_that_3_10_lacks():
    done = vermin(*FILES)
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_module_that_python_3_10_lacks_is_found(tmp_path):
    (tmp_path / "newer.py").write_text("import tomllib\n")
    done = vermin(tmp_path / "newer.py")
    assert done.returncode != 0 and "'tomllib' module requires !2, 3.11" in done.stdout
