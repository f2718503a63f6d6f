"""Each fault once on the running simulated graph: the short form of `make faults`.

Left out are those after which the policy or the simulator has to be started again, which takes long.
"""

from __future__ import annotations

import zlib
from random import Random

import pytest

pytest.importorskip("rclpy", reason="rclpy is not installed")
pytest.importorskip("depthvla_msgs", reason="depthvla_msgs is not built or not sourced")

from r1lite_trials.fault_run import run  # noqa: E402
from r1lite_trials.fault_table import Stops  # noqa: E402
from r1lite_trials.faults import select  # noqa: E402
from r1lite_trials.simulated_graph import SimulatedGraph  # noqa: E402

pytestmark = pytest.mark.xdist_group("graph")

FAULTS = [fault for fault in select([]) if not fault.slow]


@pytest.fixture(scope="module")
def graph(tmp_path_factory):
    pytest.importorskip("torch", reason="torch is not installed")
    with SimulatedGraph(tmp_path_factory.mktemp("faults"), leader=True, relays=True) as graph:
        yield graph


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_a_fault_holds_the_arms_within_limits_and_is_left_as_documented(graph, fault):
    random = Random(zlib.crc32(fault.name.encode()))
    outcome = run(graph, fault, random)
    if outcome.problems:
        # An overloaded machine may starve a node meanwhile, which is another fault than the one on trial.
        print(outcome.problems)
        outcome = run(graph, fault, random)
    assert not outcome.problems
    assert outcome.steps.position_rad > 0.0, "the arms moved"
    assert (outcome.held_ms is None) == (fault.stops is Stops.NOTHING)
