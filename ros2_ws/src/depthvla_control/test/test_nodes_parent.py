"""A node whose launcher is killed is stopped by nobody: it ends by itself, and in order."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from pathlib import Path

import pytest
from test_nodes_chunk_executor import MODULE, Rig

from depthvla_control.arbiter import Mode

LAUNCHER = "fixtures.launcher"


@pytest.fixture
def launched(ros, robot, home):
    """An executor that streams, and its process id; its launcher is `rig.node`."""
    made = []

    def start(**environment):
        rig = Rig(ros, robot, home, module=LAUNCHER, environment={"LAUNCHED": MODULE, **environment})
        rig.node.wait_for_output("started ")
        pid = int(re.search(r"started (\d+)", rig.node.output())[1])
        made.append((rig, pid))
        rig.arm()
        return rig, pid

    yield start
    for rig, pid in made:
        if running(pid):
            os.kill(pid, signal.SIGKILL)
        rig.close()


def running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


# What tells the node of its launcher, and whether SIGHUP is ignored, as `nohup ros2 launch` hands it on.
@pytest.mark.parametrize("environment", [{}, {"TELL": "1"}, {"TELL": "1", "NOHUP": "1"}], ids=str)
def test_an_executor_whose_launcher_is_killed_disarms_and_ends(launched, environment):
    rig, pid = launched(**environment)
    rig.node.process.kill()
    rig.node.wait_for_output("DISARMED: deactivated")
    rig.probe.wait_for(lambda: not running(pid), what="the end of the executor")


def test_what_nohup_started_by_hand_outlives_its_shell(launched):
    rig, pid = launched(NOHUP="1")
    rig.node.process.kill()
    rig.node.wait()
    rig.probe.wait_for(lambda: parent(pid) != rig.node.process.pid, what="another parent")
    heard = len(rig.status)
    rig.probe.wait_for(lambda: len(rig.status) > heard + 15, what="ticks")
    assert rig.status[-1].mode == Mode.HOLD and running(pid)


def test_a_launcher_is_missed_behind_a_wrapper_too(monkeypatch):
    from depthvla_control.ros.parent import Parent

    launcher = subprocess.Popen(["sleep", "60"])
    monkeypatch.setenv("DEPTHVLA_LAUNCHER", str(launcher.pid))  # not the parent of this process
    parent = Parent()
    assert not parent.gone
    launcher.kill()
    launcher.wait()
    assert parent.gone


def test_a_node_whose_launcher_was_killed_before_it_looked_ends(ros):
    gone = os.fork()
    if not gone:
        os._exit(0)
    os.waitpid(gone, 0)
    with ros.NodeProcess(MODULE, {"autostart": True}, environment={"DEPTHVLA_LAUNCHER": str(gone)}) as node:
        assert node.wait() == 0
        assert "the end of the process that started it" in node.output()
