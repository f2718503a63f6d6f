from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pytest
import tiny_model
from test_evaluation_replay import write_bag

from depthvla_control.chunk import Chunk
from depthvla_control.timeline import STRATEGIES
from depthvla_evaluation.bags.replay import RecordedChunk
from depthvla_policy.policy.observation import Observation
from r1lite_trials import chunk_boundaries
from r1lite_trials.chunk_boundaries_measure import consistency, measure
from r1lite_trials.chunk_boundaries_play import Source, flights, play

PERIOD = 66_666_667
T0 = 1_700_000_000_000_000_000
MS = 1_000_000
JOINED = [strategy for strategy in STRATEGIES if strategy != "replace"]


def chunk(home, index, *, stamp=T0, offset=0.0, slope=0.0) -> Chunk:
    """Arms at `offset` rad from home at the stamp, moving by `slope` rad a step."""
    arms = np.array([n % 7 != 6 for n in range(14)])
    return Chunk(stamp, index + 1, PERIOD, home + arms * (offset + slope * np.arange(16)[:, None]), "m")


def two(home, robot, strategy, *, second_ms=400, latency_ms=50, **second):
    """Two chunks: one that stands at home, and a second that differs from it as told."""
    stamps = [T0, T0 + second_ms * MS]
    made = [chunk(home, 0), chunk(home, 1, stamp=stamps[1], **second)]
    way = flights(stamps, latency_ms * MS, one_at_a_time=False)
    return play(lambda index, plan: made[index], way, strategy, robot, home)


def test_replacing_steps_by_the_distance_of_the_chunks_and_nothing_else_does(robot, home):
    replaced = measure([two(home, robot, "replace", offset=0.1)], robot)
    assert replaced["seams"] == 1
    assert replaced["seam"] == {"position_mrad": 100.0, "velocity_rad_s": 0.0, "acceleration_rad_s2": 0.0}
    assert replaced["motion"]["200"]["position_mrad"] == pytest.approx(100.0)
    assert replaced["motion"]["15"]["position_mrad"] == pytest.approx(100.0)
    assert replaced["motion"]["200"]["velocity_rad_s"] == pytest.approx(20.0)
    for strategy in JOINED:
        joined = measure([two(home, robot, strategy, offset=0.1)], robot)
        assert joined["seam"] == {"position_mrad": 0.0, "velocity_rad_s": 0.0, "acceleration_rad_s2": 0.0}
        assert joined["gap_mrad"] == {"p50": 100.0, "p95": 100.0, "max": 100.0}
    # 0.1 rad in the 0.1 s of the blend is 1.875 rad/s at the most.
    blended = measure([two(home, robot, "blend", offset=0.1)], robot)
    assert blended["motion"]["200"]["position_mrad"] == pytest.approx(1.875 * 5.0, rel=0.01)


def test_a_step_in_velocity_is_seen(robot, home):
    row = measure([two(home, robot, "replace", latency_ms=50, slope=0.01)], robot)
    assert row["seam"]["position_mrad"] == pytest.approx(7.5, abs=0.01)
    assert row["seam"]["velocity_rad_s"] == pytest.approx(0.15, rel=1e-3)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_the_command_keeps_its_limits_whatever_the_seam(robot, home, strategy):
    row = measure([two(home, robot, strategy, offset=0.4)], robot)
    assert 0.5 < row["limits"]["velocity"] <= 1.0 + 1e-6
    assert row["limits"]["acceleration"] <= 1.0 + 1e-6
    assert row["lag_rms_mrad"] > 10.0


def test_a_chunk_that_comes_when_the_motion_is_over_starts_a_new_one_and_is_no_seam(robot, home):
    row = measure([two(home, robot, "blend", second_ms=2000, offset=0.1)], robot)
    assert (row["seams"], row["starts"], row["gap_mrad"]) == (0, 2, None)
    assert row["waited_s"] == pytest.approx(2.05 - 16 / 15, abs=2 / 15)
    assert row["motion"]["200"]["position_mrad"] == 0.0


def test_a_chunk_that_the_executor_refuses_is_counted_and_not_played(robot, home):
    row = measure([two(home, robot, "replace", offset=10.0)], robot)
    assert (row["refused"], row["seams"]) == (1, 0)


def test_one_at_a_time_leaves_out_what_was_seen_before_the_last_arrival():
    stamps = [T0 + n * 200 * MS for n in range(6)]
    assert [flight.index for flight in flights(stamps, 210 * MS, one_at_a_time=True)] == [0, 2, 4]
    assert [flight.index for flight in flights(stamps, 210 * MS, one_at_a_time=False)] == [0, 1, 2, 3, 4, 5]
    assert [flight.index for flight in flights(stamps, 200 * MS, one_at_a_time=True)] == [0, 1, 2, 3, 4, 5]


class Stub:
    """A policy that stands 0.1 rad from home, except for the steps that it continues."""

    horizon, period_s, model_id = 16, 1 / 15, "stub"

    def __init__(self, home):
        self._home = home

    def infer(self, observation, *, seed, committed=None, delay=0, method="guided"):
        actions = chunk(self._home, 0, offset=0.1).positions.copy()
        if committed is not None:
            actions[:delay] = committed[:delay]
        return SimpleNamespace(actions=actions)


@pytest.fixture
def source(home) -> Source:
    stamps = [T0, T0 + 6 * PERIOD]
    recorded = [RecordedChunk(chunk(home, n, stamp=stamp), "", stamp) for n, stamp in enumerate(stamps)]
    return Source(recorded, [Observation(stamp, {}, home, "") for stamp in stamps], Stub(home), 0)


def test_a_continuation_is_near_to_what_it_continues(source, robot):
    independent = consistency([source], "independent", robot, 210 * MS)
    continued = consistency([source], "continued", robot, 210 * MS)
    assert independent["committed_rms_mrad"] == pytest.approx(100.0)
    assert continued["committed_rms_mrad"] == pytest.approx(0.0, abs=1e-6)
    assert continued["beyond_rms_mrad"] < independent["beyond_rms_mrad"] == pytest.approx(100.0)
    # It arrives 10 ms after its fourth step; the way to the fifth, which has begun, is committed too.
    assert continued["gap_mrad"]["max"] < 1.0 < independent["gap_mrad"]["max"]


def test_rtc_is_asked_for_continuations_of_the_motion_in_execution(source, robot, home):
    way = flights(source.stamps_ns, 210 * MS, one_at_a_time=True)
    run = play(source.continued, way, "rtc", robot, home)
    first, second = run.chunks
    np.testing.assert_allclose(second.positions[:4], first.positions[6:10])
    assert measure([run], robot)["gap_mrad"]["max"] == pytest.approx(0.0, abs=1e-6)


def test_a_bag_gives_table_json_and_picture(tmp_path, home, capsys):
    bag = write_bag(tmp_path / "bag", home)
    policy = tiny_model.save_checkpoint(tmp_path / "policy")
    words = ["--bag", bag, "--policy", policy, "--latencies-ms", "50", "210"]
    words += ["--json", tmp_path / "out/seams.json", "--plot", tmp_path / "out/seams.png"]
    assert chunk_boundaries.main(list(map(str, words))) == 0
    summary = json.loads((tmp_path / "out/seams.json").read_text())
    assert summary["policy"].startswith("tiny@")
    assert summary["bags"] == [{"path": str(bag), "chunks": 4, "replayed": 4, "policies": ["tiny@0123456789ab"]}]
    kinds = {(row["chunks"], row["strategy"]) for row in summary["rows"]}
    assert kinds == {("inferred", name) for name in STRATEGIES} | {("recorded", name) for name in STRATEGIES[:3]}
    # Chunks stand at poses 0.05 rad/s apart, and there are three frames from one to the next.
    recorded = next(row for row in summary["rows"] if (row["chunks"], row["strategy"]) == ("recorded", "replace"))
    assert recorded["seams"] == 3
    assert recorded["seam"]["position_mrad"] == pytest.approx(10.0, abs=0.1)
    assert (tmp_path / "out/seams.png").stat().st_size > 10_000
    assert "chunks recorded" in capsys.readouterr().out


def test_a_bag_without_observations_is_an_error(tmp_path, home, capsys):
    bag = write_bag(tmp_path / "bag", home, frames=())
    policy = tiny_model.save_checkpoint(tmp_path / "policy")
    assert chunk_boundaries.main(["--bag", str(bag), "--policy", str(policy)]) == 1
    assert "holds no chunk" in capsys.readouterr().err


def test_a_latency_of_nothing_is_an_error(capsys):
    with pytest.raises(SystemExit):
        chunk_boundaries.main(["--bag", "somewhere", "--latencies-ms", "0"])
    assert "latencies_ms (0.0,)" in capsys.readouterr().err
