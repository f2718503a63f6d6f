from __future__ import annotations

import itertools

import pytest

from depthvla_policy.control.arbiter import TRANSITIONS, Arbiter, Event, Mode

D, H, T, P, F = Mode.DISARMED, Mode.HOLD, Mode.TELEOP, Mode.POLICY, Mode.FAULT
# event -> what becomes of DISARMED, HOLD, TELEOP, POLICY, FAULT with the policy engaged; None: refused
TABLE = {
    Event.ARM: (H, H, None, P, None),
    Event.DISARM: (D, D, D, D, D),
    Event.STOP: (D, H, H, H, F),
    Event.FAULT: (None, F, F, F, F),
    Event.RESET_FAULT: (None, None, None, None, H),
    Event.POLICY_READY: (None, P, None, P, None),
    Event.POLICY_LOST: (None, H, None, H, None),
}


def arbiter_in(mode: Mode, engaged: bool = True) -> Arbiter:
    arbiter = Arbiter()
    arbiter.mode, arbiter.engaged, arbiter.cause = mode, engaged, "before"
    return arbiter


@pytest.mark.parametrize(("event", "mode"), itertools.product(Event, Mode))
def test_every_pair_does_what_the_table_says(event, mode):
    arbiter, expected = arbiter_in(mode), TABLE[event][mode]
    refusal = arbiter.apply(event, "because")
    assert (refusal is not None) == (expected is None)
    assert arbiter.mode is (mode if expected is None else expected)
    if arbiter.mode is not mode:
        assert arbiter.cause == "because"
    if refusal:
        assert mode.name in refusal.message and arbiter.cause == "before"


def test_values_are_those_of_the_message():
    status = pytest.importorskip("depthvla_msgs.msg", reason="depthvla_msgs is not built or not sourced").ExecutorStatus
    assert {mode.name: mode.value for mode in Mode} == {mode.name: getattr(status, mode.name) for mode in Mode}


@pytest.mark.parametrize("event", [Event.STOP, Event.DISARM, Event.FAULT, Event.RESET_FAULT])
def test_only_arm_engages_again(event):
    arbiter = arbiter_in(Mode.FAULT if event is Event.RESET_FAULT else Mode.POLICY)
    assert arbiter.apply(event, "x") is None
    assert not arbiter.engaged
    assert arbiter.apply(Event.POLICY_READY, "chunk") is not None
    assert arbiter.mode is not Mode.POLICY


def test_policy_resumes_by_itself_after_silence():
    arbiter = arbiter_in(Mode.POLICY)
    arbiter.apply(Event.POLICY_LOST, "silent")
    assert (arbiter.mode, arbiter.cause) == (Mode.HOLD, "silent")
    arbiter.apply(Event.POLICY_READY, "chunk")
    assert arbiter.mode is Mode.POLICY


def test_the_first_cause_of_a_fault_stays():
    arbiter = arbiter_in(Mode.POLICY)
    arbiter.apply(Event.FAULT, "first")
    arbiter.apply(Event.FAULT, "second")
    arbiter.apply(Event.STOP, "stopped")
    assert arbiter.cause == "first"


def test_nothing_leads_into_the_reserved_mode():
    assert Mode.TELEOP not in TRANSITIONS.values()
