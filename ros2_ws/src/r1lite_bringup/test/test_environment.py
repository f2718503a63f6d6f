"""tools/env.sh over a ROS distribution, in a folder that looks like this repository after its setup."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ENV = Path(__file__).resolve().parents[4] / "tools" / "env.sh"


@pytest.fixture
def checkout(tmp_path):
    for folder in ("tools", "ros2_ws/install", ".venv/bin", ".venv/lib/python3.12/site-packages"):
        (tmp_path / folder).mkdir(parents=True)
    shutil.copy(ENV, tmp_path / "tools")
    (tmp_path / ".venv/pyvenv.cfg").write_text("include-system-site-packages = true\n")
    (tmp_path / "ros2_ws/install/setup.bash").write_text("export PYTHONPATH=/install:$PYTHONPATH\n")
    return tmp_path


def source(checkout: Path, times: int = 1, **environment: str) -> subprocess.CompletedProcess[str]:
    command = f"source {checkout}/tools/env.sh && " * times + 'echo "$PYTHONPATH"'
    environment = {"PATH": os.environ["PATH"], "HOME": str(checkout), **environment}
    return subprocess.run(["bash", "-euc", command], env=environment, capture_output=True, text=True)


def test_the_distributions_python_finds_what_pip_installed_behind_what_ros_brings(checkout):
    site = checkout / ".venv/lib/python3.12/site-packages"
    assert source(checkout, ROS_DISTRO="jazzy", PYTHONPATH="/opt/ros").stdout == f"/install:/opt/ros:{site}\n"
    assert source(checkout, 2, ROS_DISTRO="jazzy", PYTHONPATH="/opt/ros").stdout.count(str(site)) == 1


def test_an_environment_over_a_distribution_wants_it_sourced(checkout):
    result = source(checkout)
    assert result.returncode == 1
    assert "source that first" in result.stderr
