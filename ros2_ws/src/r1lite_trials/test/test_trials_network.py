"""The network trial: figures of streams made by hand, and its two namespaces, for which it needs root."""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="rclpy is not installed")
pytest.importorskip("depthvla_msgs", reason="depthvla_msgs is not built or not sourced")

from depthvla_msgs.msg import Counter as CounterMessage  # noqa: E402
from depthvla_msgs.msg import ExecutorStatus  # noqa: E402

from depthvla_control.arbiter import Mode  # noqa: E402
from depthvla_control.ros.messages import duration_message, time_message  # noqa: E402
from depthvla_control.ros.probe import wait_until  # noqa: E402
from r1lite_description import robot as robot_description  # noqa: E402
from r1lite_trials import network  # noqa: E402
from r1lite_trials.network_emulation import Conditions  # noqa: E402
from r1lite_trials.network_figures import Commands, Window, figures  # noqa: E402
from r1lite_trials.network_fragments import shares  # noqa: E402
from r1lite_trials.network_namespaces import ADDRESSES, SplitNetwork, unavailable  # noqa: E402
from r1lite_trials.stream import Stream  # noqa: E402

pytestmark = pytest.mark.xdist_group("graph")

ROBOT = robot_description.load()
HOME = (ROBOT.position_min + ROBOT.position_max) / 2
ARMS = ~ROBOT.gripper_mask
PERIOD_NS = round(ROBOT.period_s * 1e9)
MS = 1_000_000
BEGIN_NS = 10**9
TRANSIT_NS = 10 * MS
CHUNK_AGE_NS = 100 * MS
REPORT = {"seconds": 1.0, "carried": 1000, "lost": 0, "overflowed": 0, "late_ms": {"p50": 0.0, "p99": 0.1, "max": 0.2}}

needs_namespaces = pytest.mark.skipif(bool(unavailable()), reason=unavailable() or "-")


def status(tick: int, mode: Mode, accepted: int = 0, refused: int = 0) -> ExecutorStatus:
    message = ExecutorStatus(mode=int(mode), sequence=int(mode is Mode.POLICY), chunks_accepted=accepted)
    message.header.stamp = time_message(BEGIN_NS + tick * PERIOD_NS)
    message.chunk_age = duration_message(CHUNK_AGE_NS)
    message.refusals = [
        CounterMessage(name="chunk: old", count=refused),
        CounterMessage(name="arm left: stale", count=9),
    ]
    return message


def window(offsets_rad: dict[int, float], modes: list[Mode], cut: tuple[int, int] | None = None) -> Window:
    """offsets_rad: of all arm joints from home, by tick, for the ticks whose commands came; the arms stand at home."""
    ticks = np.array(list(offsets_rad))
    stamps_ns = BEGIN_NS + ticks * PERIOD_NS
    positions = HOME + np.array(list(offsets_rad.values()))[:, None] * ARMS
    followed = np.array([modes[tick] is Mode.POLICY for tick in ticks])
    measured_ns = BEGIN_NS + PERIOD_NS // 10 * np.arange(10 * len(modes))
    return Window(
        begin_ns=BEGIN_NS,
        end_ns=BEGIN_NS + len(modes) * PERIOD_NS,
        commands=Commands(
            Stream(stamps_ns + TRANSIT_NS, positions), stamps_ns, np.where(followed, stamps_ns - CHUNK_AGE_NS, 0)
        ),
        measured=Stream(measured_ns, np.tile(HOME, (len(measured_ns), 1))),
        statuses=[status(tick, mode, accepted=tick, refused=tick // 4) for tick, mode in enumerate(modes)],
        sent=7,
        reasons=Counter({"camera head is N s old": 3}),
        link=REPORT,
        cut_ns=tuple(BEGIN_NS + tick * PERIOD_NS for tick in cut) if cut else None,
    )


def test_figures_of_a_stream_that_arrives_whole():
    moving = window({tick: 0.01 * tick for tick in range(8)}, [Mode.POLICY] * 6 + [Mode.HOLD] * 2)
    found = figures([moving, moving], ROBOT)
    assert found["commands"] == 16 and found["rate_hz"] == pytest.approx(15.0)
    assert found["step_rad"] == pytest.approx(0.01) and found["step_over_missing_rad"] == 0.0
    assert found["velocity_share"] == pytest.approx(0.01 * 15 / ROBOT.command_velocity[ARMS].min(), abs=1e-3)
    assert found["age_ms"]["p50"] == pytest.approx(110.0), "of the observation when the robot gets the command"
    assert found["modes"] == {"POLICY": 0.75, "HOLD": 0.25}
    assert found["chunks"] == {"sent": 14, "accepted": 14, "refused": {"old": 2}}
    assert found["no_chunk_because"] == {"camera head is N s old": 6}
    assert found["ahead_of_arm_rad"] == pytest.approx(0.07)
    assert "cuts" not in found


def test_a_step_over_missing_commands_is_told_apart_from_a_jump():
    found = figures([window({0: 0.0, 1: 0.05, 4: 0.2, 5: 0.25}, [Mode.POLICY] * 6)], ROBOT)
    assert found["step_rad"] == pytest.approx(0.05)
    assert found["step_over_missing_rad"] == pytest.approx(0.15)
    assert found["gap_ms"]["max"] == pytest.approx(3 * PERIOD_NS / MS, abs=0.1)
    jump = figures([window({0: 0.0, 1: 0.05, 2: 0.2}, [Mode.POLICY] * 3)], ROBOT)
    assert jump["step_rad"] == pytest.approx(0.15)
    assert any("velocity" in problem for problem in network.problems(jump))


def test_a_silence_at_the_end_is_a_gap():
    found = figures([window({0: 0.0, 1: 0.0}, [Mode.HOLD] * 30)], ROBOT)
    assert found["gap_ms"]["max"] == pytest.approx(29 * PERIOD_NS / MS - 10, abs=0.1)
    assert found["age_ms"] == {}


def test_figures_of_a_cut():
    modes = [Mode.POLICY] * 4 + [Mode.HOLD] * 5 + [Mode.POLICY] * 5
    offsets = {0: 0.0, 1: 0.01, **dict.fromkeys(range(8, 14), 0.03)}
    found = figures([window(offsets, modes, cut=(2, 8))], ROBOT)
    assert found["cuts"] == [
        {
            "hold_ms": pytest.approx(2 * PERIOD_NS / MS, abs=0.1),
            "arms_stand_ms": pytest.approx(0.0, abs=7.0),
            "commands_meanwhile": 0,
            "first_command_ms": pytest.approx(10.0, abs=0.1),
            "followed_ms": pytest.approx(2 * PERIOD_NS / MS, abs=0.1),  # the chunk at 1 is of before
            "ahead_of_arm_rad": pytest.approx(0.03),
            "arm_speed_rad_s": 0.0,
        }
    ]
    assert network.problems(found) == []


def test_a_policy_that_stays_away_after_a_cut_is_a_problem():
    modes = [Mode.POLICY] * 2 + [Mode.HOLD] * 8
    found = figures([window(dict.fromkeys(range(10), 0.0), modes, cut=(2, 6))], ROBOT)
    assert found["cuts"][0]["followed_ms"] is None
    assert network.problems(found) == ["no chunk was followed after the cut"]


def test_nothing_heard_is_an_error():
    with pytest.raises(ValueError, match="1 statuses and 1 commands came"):
        figures([window({0: 0.0}, [Mode.HOLD])], ROBOT)


def row(side: str, case: str, **more) -> dict:
    cut = window(dict.fromkeys(range(10), 0.0), [Mode.POLICY] * 10, cut=(2, 6))
    return {"side": side, "case": case, "date": "2026-01-01", "load_average": 0.5, **figures([cut], ROBOT), **more}


def test_rows_of_other_cases_in_the_file_are_kept_and_all_are_in_their_order(tmp_path):
    first, second = (case.name for case in network.CASES[:2])
    file = tmp_path / "network.json"
    rows = [row("host", second), row("robot", f"{first}, ages up to 1 s"), row("robot", second)]
    file.write_text(json.dumps(network.merged(file, rows)))
    result = network.merged(file, [row("robot", second, rate_hz=1.0), row("robot", first)])
    assert [(r["side"], r["case"], r["rate_hz"]) for r in result["rows"]] == [
        ("robot", first, 15.0),
        ("robot", second, 1.0),
        ("robot", f"{first}, ages up to 1 s", 15.0),
        ("host", second, 15.0),
    ]


def test_tables_have_a_row_for_every_case_and_every_cut(tmp_path):
    tables = network.markdown(
        network.merged(tmp_path / "network.json", [row("robot", "case a"), row("host", "case b")])
    )
    assert tables.count("case a") == tables.count("case b") == 2
    assert "1000 frames/s" in tables
    assert len({line.count("|") for line in tables.splitlines() if line.startswith("|")}) == 2


def test_cases_are_chosen_by_how_their_names_begin():
    assert [case.name for case in network.select(["0 ms, 0", "50 ms, 5"])] == ["0 ms, 0 % lost", "50 ms, 5 % lost"]
    assert len(network.select([])) == len({case.name for case in network.CASES}) == 12
    assert network.main(["--only", "nonsense"]) == 2


def test_without_root_the_reason_is_told(monkeypatch, capsys):
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert network.main(["--only", "0 ms"]) == 2
    assert "need root" in capsys.readouterr().err


@needs_namespaces
def test_two_namespaces_hear_each_other_over_the_link_only():
    with SplitNetwork() as split:
        ends = {}
        for side, address in ADDRESSES.items():
            with split.inside(side):
                ends[side] = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
                ends[side].bind((address, 5000))
        robot, host = ends["robot"], ends["host"]
        with robot, host:
            robot.sendto(bytes(20_000), (ADDRESSES["host"], 5000))  # in fragments, as an image
            host.settimeout(10.0)
            assert len(host.recv(65536)) == 20_000
            assert split.set(Conditions(cut=True))["carried"] >= 14
            robot.sendto(b"lost", (ADDRESSES["host"], 5000))
            wait_until(lambda: split.set(Conditions(cut=True))["lost"], 10.0, lambda: "a frame to be lost")
            split.set(Conditions())
            robot.sendto(b"again", (ADDRESSES["host"], 5000))
            assert host.recv(65536) == b"again"
    assert "cable" not in Path("/proc/net/dev").read_text(), "this process is back in its own namespace"


@needs_namespaces
def test_all_images_arrive_over_a_good_cable_and_none_over_a_lost_one():
    assert sum(shares(0.0, tuned=True, periods=2, period_s=0.2)) >= 2 - 2 / 9, "the last may still be on its way"
    assert shares(1.0, tuned=True, periods=2, period_s=0.2) == [0.0, 0.0]


CUT = """
import contextlib
from depthvla_msgs.msg import PolicyStatus
from depthvla_control.ros import qos
from depthvla_control.ros.probe import Probe, private_domain, wait_until
from r1lite_trials.network_emulation import Conditions
from r1lite_trials.network_namespaces import SplitNetwork
from r1lite_trials.split_graph import Host, use_template
from r1lite_trials.simulated_graph import POLICY

bad = Conditions(delay_s=0.02, jitter_s=0.01, loss=0.02)
with SplitNetwork() as split, private_domain(), contextlib.ExitStack() as stack:
    use_template()
    with split.inside("host"):
        host = stack.enter_context(Host(executor=False))
    with split.inside("robot"):
        probe = stack.enter_context(Probe())
    publisher = probe.publisher(PolicyStatus, f"/{POLICY}/status", qos.status())

    def heard():
        return [message.reason for message in host.since(0.0)[1]]

    split.set(bad)
    publisher.publish(PolicyStatus(reason="before"))
    wait_until(lambda: heard() == ["before"], 20.0, lambda: "the first status")
    split.set(Conditions(cut=True))
    publisher.publish(PolicyStatus(reason="during"))
    wait_until(lambda: split.set(Conditions(cut=True))["lost"], 10.0, lambda: "a frame to be lost")
    assert heard() == ["before"]
    split.set(bad)
    wait_until(lambda: heard() == ["before", "during"], 20.0, lambda: "the second status")
"""


@needs_namespaces
def test_what_was_published_during_a_cut_is_heard_after_it():
    """Real DDS participants, with the project's profile, over a link that is bad besides. In a process of its own:
    Fast DDS reads its profile with the first participant of a process.
    """
    trial = subprocess.run([sys.executable, "-c", CUT], capture_output=True, text=True, timeout=90.0)
    assert trial.returncode == 0, trial.stderr


TRIAL_THAT_IS_KILLED = """
import subprocess, sys, time
from r1lite_trials.network_namespaces import SplitNetwork
with SplitNetwork() as split:
    for side in ("robot", "host"):
        with split.inside(side):
            print(subprocess.Popen(["sleep", "1000"]).pid, flush=True)
    print(split._process.pid, flush=True)
    time.sleep(1000)
"""


@needs_namespaces
def test_a_trial_that_is_killed_leaves_neither_nodes_nor_namespaces():
    trial = subprocess.Popen([sys.executable, "-c", TRIAL_THAT_IS_KILLED], stdout=subprocess.PIPE, text=True)
    with trial:
        ends = [os.pidfd_open(int(trial.stdout.readline())) for _ in range(3)]
        trial.send_signal(signal.SIGKILL)
        for end in ends:
            assert select.select([end], [], [], 20.0)[0], "a process outlives its trial"
            os.close(end)
