from __future__ import annotations

import itertools

import pytest

from depthvla_control import arbiter as module
from depthvla_control.arbiter import Arbiter, Event, Mode


def written_table() -> dict[Event, list[str]]:
    """The table in the module's docstring: event -> what becomes of each mode, and of the policy's engagement."""
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in module.__doc__.splitlines() if "|" in line
    ]
    assert rows[0][1:6] == [mode.name for mode in Mode]
    return {Event[row[0]]: row[1:] for row in rows[2:]}


TABLE = written_table()


def arbiter_in(mode: Mode, engaged: bool = True) -> Arbiter:
    arbiter = Arbiter()
    arbiter.mode, arbiter.engaged, arbiter.cause = mode, engaged, "before"
    return arbiter


def test_every_event_is_in_the_written_table():
    assert set(TABLE) == set(Event)


@pytest.mark.parametrize(("event", "mode", "engaged"), itertools.product(Event, Mode, (False, True)))
def test_every_pair_does_what_the_written_table_says(event, mode, engaged):
    arbiter, cell = arbiter_in(mode, engaged), TABLE[event][mode]
    name, _, condition = cell.partition(",")
    if name == "-" or (event is Event.POLICY_READY and not engaged):
        assert condition.strip() == ("if engaged" if name == "POLICY" and mode is Mode.HOLD else "")
        refusal = arbiter.apply(event, "because")
        assert refusal is not None and (mode.name in refusal.message or "not engaged" in refusal.message)
        assert (arbiter.mode, arbiter.engaged, arbiter.cause) == (mode, engaged, "before")
        return
    assert arbiter.apply(event, "because") is None
    assert arbiter.mode is Mode[name]
    assert arbiter.engaged is {"yes": True, "no": False, "as before": engaged}[TABLE[event][5]]
    if arbiter.mode is not mode:
        assert arbiter.cause == "because"


def test_values_are_those_of_the_message():
    status = pytest.importorskip("depthvla_msgs.msg", reason="depthvla_msgs is not built or not sourced").ExecutorStatus
    assert {mode.name: mode.value for mode in Mode} == {mode.name: getattr(status, mode.name) for mode in Mode}


@pytest.mark.parametrize("event", [Event.STOP, Event.DISARM, Event.TAKE_OVER, Event.FAULT, Event.RESET_FAULT])
def test_only_a_person_engages_the_policy_again(event):
    arbiter = arbiter_in(Mode.FAULT if event is Event.RESET_FAULT else Mode.POLICY)
    assert arbiter.apply(event, "x") is None
    for machine in (Event.POLICY_READY, Event.POLICY_LOST, Event.TELEOP_LOST, Event.FEEDBACK_LOST, Event.POLICY_READY):
        arbiter.apply(machine, "chunk")
        assert arbiter.mode is not Mode.POLICY and not arbiter.engaged


def test_the_policy_resumes_by_itself_after_silence():
    arbiter = arbiter_in(Mode.POLICY)
    arbiter.apply(Event.POLICY_LOST, "silent")
    assert (arbiter.mode, arbiter.cause) == (Mode.HOLD, "silent")
    arbiter.apply(Event.POLICY_READY, "chunk")
    assert arbiter.mode is Mode.POLICY


def test_the_first_cause_of_a_fault_stays():
    arbiter = arbiter_in(Mode.POLICY)
    for event, cause in ((Event.FAULT, "first"), (Event.FAULT, "second"), (Event.STOP, "stopped")):
        arbiter.apply(event, cause)
    assert arbiter.cause == "first"


def test_an_intervention_is_a_take_over_from_the_policy():
    arbiter = arbiter_in(Mode.HOLD)
    for event in (Event.TAKE_OVER, Event.HAND_OVER, Event.TAKE_OVER, Event.TAKE_OVER, Event.STOP, Event.TAKE_OVER):
        arbiter.apply(event, "x")
    assert arbiter.interventions == 1
