"""Who decides about the mode besides the executor itself: the start, other publishers, a person and the pedal."""

from __future__ import annotations

import numpy as np
import pytest
from executor_loop import ARMS, PERIOD_S, Loop

from depthvla_control.arbiter import Mode
from depthvla_control.refusal import Reason
from depthvla_control.supervisor import OtherPublisher, Supervisor

UNKNOWN = OtherPublisher("a node that is not known yet publishes", rival=False)
RIVAL = OtherPublisher("/rival publishes: stop it", rival=True)


class Publishers:
    """Who publishes besides the one who should."""

    other = None

    def rival(self, now_s):
        return self.other and self.other.text

    def check(self, now_s):
        return self.other


class Supervised(Loop):
    """Chunks come at every tick, and leader arms rest beside the robot."""

    def __init__(self, robot, pose, *, start=Mode.DISARMED, **config):
        super().__init__(robot, pose, **config)
        self.commanders, self.feedback_sources = Publishers(), Publishers()
        self.supervisor = Supervisor(
            self.executor,
            receive=lambda now_ns: None,
            start_mode=start,
            command_watch=self.commanders,
            feedback_watch=self.feedback_sources,
            pedal_timeout_s=0.5,
        )
        self.steady_s, self.pressed, self.sequence, self.leader = 0.0, None, 0, pose + np.where(ARMS, 0.05, 0.0)

    def tick(self, **options):
        self.steady_s += PERIOD_S
        if self.pressed is not None:
            self.press(self.pressed)
        self.sequence += 1
        self.offer(self.chunk(self.sequence, slope=0.002))
        self.supervisor.update(self.now, self.steady_s)
        return super().tick(**options)

    def run(self, count=10, **options):
        """Modes of that many ticks."""
        modes = set()
        for _ in range(count):
            self.tick(**options)
            modes.add(self.mode)
        return modes

    def press(self, pressed):
        """The pedal repeats itself from now on; None: it falls silent."""
        self.pressed = pressed
        return None if pressed is None else self.supervisor.pedal(pressed, self.now, self.steady_s)

    def arm(self):
        self.feedback()
        return self.supervisor.arm(self.now, self.steady_s, "armed")

    def request(self, mode):
        return self.supervisor.set_mode(mode, self.now, "asked").refusal

    @property
    def mode(self):
        return self.executor.mode

    @property
    def cause(self):
        return self.executor.state.cause


@pytest.fixture
def start(robot, home):
    """Makes a supervised executor with feedback, armed by a person and with a source in command unless told not to."""

    def start(mode=Mode.POLICY, **options):
        made = Supervised(robot, home, **options)
        if mode is not Mode.DISARMED:
            assert made.arm() is None
            made.tick()
        if mode in (Mode.POLICY, Mode.TELEOP):
            assert made.request(mode) is None
            made.run(3)
            assert made.mode is mode
        return made

    return start


def test_a_pedal_that_repeats_itself_switches_once_and_gives_back_when_it_is_released(start):
    loop = start()
    loop.press(True)
    assert loop.mode is Mode.TELEOP and loop.cause == "taken over by ~/takeover"
    assert loop.run() == {Mode.TELEOP}
    loop.press(False)
    assert loop.mode is Mode.POLICY and loop.cause == "given back by ~/takeover"
    assert loop.run() == {Mode.POLICY} and loop.executor.state.interventions == 1


def test_a_pedal_that_is_released_before_a_silent_policy_holds_the_arms(start):
    loop = start()
    loop.press(True)
    loop.executor.policy_lost("gone")
    assert loop.press(False).reason is Reason.MISSING
    assert loop.mode is Mode.HOLD and loop.cause.startswith("the policy cannot take over, holding instead")


def test_a_pedal_that_falls_silent_while_pressed_holds_the_arms_until_it_was_released(start):
    loop = start()
    loop.press(True)
    loop.press(None)
    loop.run(7)
    assert loop.mode is Mode.TELEOP
    loop.run(2)
    assert loop.mode is Mode.HOLD and loop.cause.startswith("~/takeover fell silent for 0.5 s while pressed")
    loop.press(True)  # the same press is heard again
    assert loop.run(15) == {Mode.HOLD}
    loop.press(False)
    loop.press(True)
    assert loop.mode is Mode.TELEOP


def test_a_pedal_that_lost_teleoperation_neither_takes_it_back_nor_gives_it_to_the_policy(start):
    loop = start()
    loop.press(True)
    assert loop.request(Mode.HOLD) is None and loop.request(Mode.TELEOP) is None  # at the console: not the pedal's now
    assert loop.run() == {Mode.TELEOP}
    loop.press(False)
    assert loop.run() == {Mode.TELEOP}


def test_arming_is_refused_beside_another_publisher_and_one_that_comes_later_is_a_fault(start):
    loop = start(Mode.DISARMED)
    loop.commanders.other = RIVAL
    assert loop.arm().message == RIVAL.text and loop.mode is Mode.DISARMED
    loop.commanders.other = None
    assert loop.arm() is None
    loop.commanders.other = RIVAL
    loop.tick()
    assert loop.mode is Mode.FAULT and loop.cause == RIVAL.text


@pytest.mark.parametrize("mode", [Mode.POLICY, Mode.TELEOP])
def test_arms_are_held_until_an_unknown_publisher_turns_out_to_be_an_allowed_one(start, mode):
    loop = start(mode)
    loop.commanders.other = UNKNOWN
    assert loop.run() == {Mode.HOLD} and loop.supervisor.waits_for_publisher
    loop.commanders.other = None
    assert loop.run(2) == {mode} and not loop.supervisor.waits_for_publisher


def test_an_unknown_publisher_that_turns_out_to_be_a_rival_is_a_fault(start):
    loop = start()
    loop.commanders.other = UNKNOWN
    loop.tick()
    loop.commanders.other = RIVAL
    loop.tick()
    loop.commanders.other = None
    assert loop.run() == {Mode.FAULT}


def test_after_a_request_nothing_goes_on_by_itself_when_an_unknown_publisher_becomes_known(start):
    loop = start()
    loop.commanders.other = UNKNOWN
    loop.tick()
    loop.supervisor.attend()
    loop.executor.stop("a person")
    loop.commanders.other = None
    assert loop.run() == {Mode.HOLD}


def test_a_pedal_may_be_released_while_a_publisher_is_unknown(start):
    loop = start()
    loop.press(True)
    loop.commanders.other = UNKNOWN
    loop.tick()
    loop.press(False)
    assert loop.run() == {Mode.HOLD}
    loop.commanders.other = None
    assert loop.run(2) == {Mode.POLICY}


def test_the_start_mode_is_taken_when_there_is_feedback(start):
    loop = start(Mode.DISARMED, start=Mode.HOLD)
    assert loop.run(3, feedback=False) == {Mode.DISARMED}
    loop.run(2)
    assert loop.mode is Mode.HOLD and loop.cause == "armed on activation"


def test_the_policy_goes_on_by_itself_after_a_simulation_paused_unless_a_person_decided(start):
    loop = start(Mode.DISARMED, start=Mode.POLICY)
    for request, then in ((False, Mode.POLICY), (True, Mode.HOLD)):
        loop.run(3)
        assert loop.mode is Mode.POLICY
        if request:
            assert loop.request(Mode.HOLD) is None
        loop.run(12, feedback=False)
        assert loop.mode is Mode.HOLD and "no commands until it is back" in loop.cause
        loop.run(4)
        assert loop.mode is then


def test_an_executor_does_not_arm_itself_on_feedback_of_two_and_says_why(start):
    loop = start(Mode.DISARMED, start=Mode.HOLD)
    loop.feedback_sources.other = RIVAL
    assert loop.run() == {Mode.DISARMED} and loop.cause == f"not armed: {RIVAL.text}"
    assert loop.arm().message == RIVAL.text


def test_an_executor_that_armed_itself_sends_nothing_more_once_feedback_comes_from_two(start):
    """Not even commands that hold: to a robot, the simulation's pose is one to go to."""
    loop = start(Mode.DISARMED, start=Mode.POLICY)
    loop.run(4)
    loop.feedback_sources.other = RIVAL
    assert loop.tick() is None and loop.cause == RIVAL.text
    loop.feedback_sources.other = None
    assert loop.run() == {Mode.DISARMED}, "a person decides now"


def test_an_executor_that_armed_itself_starts_again_once_an_unknown_source_of_feedback_is_none(start):
    loop = start(Mode.DISARMED, start=Mode.POLICY)
    loop.run(4)
    loop.feedback_sources.other = UNKNOWN
    assert loop.tick() is None
    loop.feedback_sources.other = None
    loop.run(3)
    assert loop.mode is Mode.POLICY
