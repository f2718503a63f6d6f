"""The robot's side alone: `tools/setup.sh --robot-side` on Python 3.10, as on the robot's own computer.

rclpy is that of the ROS wheels, Jazzy's: that no name is used which Humble's lacks is for `test_humble.py`. The
environment stays in the working tree (.venv-robot), so that only the first run has to wait for the package index.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[4]
EXECUTOR = "ros2_ws/install-robot/depthvla_control/lib/depthvla_control/chunk_executor_node"
# What a sourced environment says of itself would lead the robot's side to it.
SOURCED = {
    *("ROS_DISTRO", "AMENT_PREFIX_PATH", "CMAKE_PREFIX_PATH", "COLCON_PREFIX_PATH"),
    *("PYTHONPATH", "LD_LIBRARY_PATH", "_ROS_WHEELS_BOOTSTRAP_COMPLETE"),
}
USABLE = """
import ensurepip, os, sys, sysconfig, venv
assert sys.version_info[:2] == (3, 10)
assert os.path.exists(sysconfig.get_paths()["include"] + "/Python.h")
"""


def bash(command: str, *arguments: object, cwd: Path, **variables: str) -> None:
    """Runs it without what the tests' own environment sets."""
    own = {name: value for name, value in os.environ.items() if name not in SOURCED}
    words = ["bash", "-ec", command, "bash", *map(str, arguments)]
    done = subprocess.run(words, cwd=cwd, env={**own, **variables}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def python_3_10() -> str:
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    found = [shutil.which("python3.10"), *map(str, sorted(pyenv.glob("versions/3.10.*/bin/python3.10")))]
    for candidate in filter(None, found):
        if subprocess.run([candidate, "-c", USABLE], capture_output=True, check=False).returncode == 0:
            return candidate
    pytest.skip("no Python 3.10 with its headers and venv is here: the robot's side was not tried")


@pytest.mark.timeout(1800)  # the first time it installs, and builds the interfaces: minutes beside other work
@pytest.mark.xdist_group("robot-side")
def test_the_executor_runs_and_hands_over_where_nothing_else_is_installed(tmp_path):
    bash("tools/setup.sh --robot-side", cwd=ROOT, PYTHON=python_3_10())
    command = 'source "$1/tools/env.sh" --robot-side && exec python "$2" "$1/$3"'
    bash(command, ROOT, Path(__file__).with_name("robot_side.py"), EXECUTOR, cwd=tmp_path)
