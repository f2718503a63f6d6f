"""What becomes of the command stream when an arm may be, or is, elsewhere than it was sent; and how a stream ends."""

from __future__ import annotations

import numpy as np
import pytest
from executor_loop import ARMS, PERIOD, PERIOD_S
from motion_limits import excess

from depthvla_control.arbiter import Mode
from depthvla_control.refusal import Reason

RESUMES_NS = 300_000_000  # longer than feedback may be old, shorter than it takes to be lost


def silent(loop, seconds):
    """Ticks without feedback; chunks keep coming. What was commanded."""
    commands = []
    for sequence in range(100, 100 + round(seconds / PERIOD_S)):
        loop.offer(loop.chunk(sequence=sequence, slope=0.03))
        commands.append(loop.tick(feedback=False))
    return commands


def offer_and_tick(loop, sequence, **options):
    loop.offer(loop.chunk(sequence=sequence, **options))
    return loop.tick()


@pytest.mark.parametrize("mode", [Mode.POLICY, Mode.TELEOP, Mode.HOLD])
def test_lost_feedback_ends_the_stream_and_nobody_is_in_command_when_it_is_back(make, mode):
    loop = make(mode)
    loop.offer(loop.chunk(slope=0.03))
    loop.ticks(3)
    sent = [loop.pose, *(command.positions for command in silent(loop, 0.9) if command is not None)]
    assert np.all(excess(np.array([sent[0], *sent]), PERIOD_S)[[0, 1]] <= 1e-6) and 5 <= len(sent) <= 9
    state = loop.executor.state
    assert state.mode is Mode.HOLD and not loop.executor.engaged and loop.executor.lost
    assert "feedback of arm left" in state.cause and "no commands until it is back" in state.cause
    loop.pose = loop.pose + np.where(ARMS, 0.4, 0.0)  # the arms sank, or somebody moved them
    moved = loop.pose.copy()
    for sequence in range(200, 210):
        np.testing.assert_allclose(offer_and_tick(loop, sequence, start=moved).positions, moved)
    assert loop.executor.mode is Mode.HOLD and "put a source in command again" in loop.executor.state.cause
    assert loop.ask(Mode.POLICY).refusal is None
    assert np.any(offer_and_tick(loop, 300, slope=0.03).positions != moved)


def test_a_closed_gripper_stays_closed_on_what_it_holds_while_feedback_is_lost(make, home):
    grip = home.copy()
    loop = make(Mode.HOLD, pose=grip)
    loop.offer(loop.chunk())
    gripper = loop.robot.limb("left").gripper_index
    silent(loop, 0.9)
    loop.pose = loop.pose.copy()
    loop.pose[gripper] += 30.0  # the width of the thing
    assert loop.tick().positions[gripper] == pytest.approx(home[gripper])


def test_after_short_silence_an_arm_that_was_moved_is_not_pulled_back_and_the_policy_waits(engaged):
    engaged.offer(engaged.chunk(slope=0.03))
    engaged.ticks(3)
    silent(engaged, RESUMES_NS * 1e-9)
    assert engaged.executor.mode is Mode.HOLD and engaged.executor.engaged
    joint, held = engaged.robot.limb("right").offset, engaged.pose.copy()
    engaged.pose = held.copy()
    engaged.pose[joint] += 0.3
    command = offer_and_tick(engaged, 200)
    np.testing.assert_allclose(command.positions[joint], held[joint] + 0.3)
    np.testing.assert_allclose(np.delete(command.positions, joint), np.delete(held, joint), atol=1e-6)
    offer_and_tick(engaged, 201)
    assert engaged.executor.mode is Mode.HOLD and not engaged.executor.engaged
    assert "right_arm_joint1 is 0.30 rad from where it was held" in engaged.executor.state.cause


def test_after_short_silence_an_arm_that_stayed_goes_on(engaged):
    engaged.offer(engaged.chunk(slope=0.03))
    engaged.ticks(3)
    silent(engaged, RESUMES_NS * 1e-9)
    offer_and_tick(engaged, 200, slope=0.03)
    assert engaged.executor.mode is Mode.POLICY


def test_silence_of_any_length_does_not_let_a_jump_pass(engaged):
    """What is heard after silence is no jump; it must not become one that is let through either."""
    silent(engaged, 10.0)
    far = engaged.pose + np.where(ARMS, 0.9, 0.0)
    engaged.pose = np.clip(far, engaged.robot.position_min, engaged.robot.position_max)
    moved = engaged.pose.copy()
    np.testing.assert_allclose(engaged.tick().positions, moved)
    assert engaged.executor.mode is Mode.HOLD and not engaged.executor.engaged


def test_a_jump_in_a_silence_between_two_ticks_is_not_overlooked(engaged):
    engaged.offer(engaged.chunk(slope=0.0))
    engaged.ticks(3)
    held = engaged.pose.copy()
    engaged.pose = held + np.where(ARMS, 0.4, 0.0)
    engaged.tick(ns=RESUMES_NS)  # fresh again when it comes, and too far from the last sample to call it a jump
    engaged.pose = held + np.where(ARMS, 0.4, 0.0)
    moved = engaged.pose.copy()
    for sequence in range(200, 205):
        engaged.pose = moved
        command = offer_and_tick(engaged, sequence, start=moved)
    np.testing.assert_allclose(command.positions, moved)
    assert engaged.executor.mode is Mode.HOLD and not engaged.executor.engaged


def test_in_a_fault_the_arm_is_not_sent_after_feedback_that_jumped(engaged):
    held = engaged.ticks(3)[-1]
    for _ in range(20):
        engaged.pose = held + np.where(ARMS, 0.8, 0.0)
        command = engaged.tick()
    assert engaged.executor.mode is Mode.FAULT and "jumped" in engaged.executor.state.cause
    np.testing.assert_allclose(command.positions, held)


def test_ticks_that_paused_are_as_good_as_lost_feedback(engaged):
    """The process was stopped: what it heard and sent last says nothing about where the arms are now."""
    engaged.offer(engaged.chunk(slope=0.03))
    engaged.ticks(3)
    engaged.pose = engaged.pose + np.where(ARMS, 0.3, 0.0)
    moved = engaged.pose.copy()
    assert engaged.tick(ns=3_000_000_000) is None, "what waited in the queues is from before"
    for sequence in range(200, 205):
        np.testing.assert_allclose(offer_and_tick(engaged, sequence, start=moved).positions[ARMS], moved[ARMS])
    assert engaged.executor.mode is Mode.HOLD and not engaged.executor.engaged


def test_a_clock_that_is_set_ahead_brakes_and_nobody_is_in_command(engaged):
    """Its ticks did not pause, so the stream goes on without a step."""
    engaged.offer(engaged.chunk(slope=0.06))
    steady = engaged.now
    stream = []
    for ahead in (0, 0, 0, 0, 0, 0, 2_000_000_000, 0, 0, 0, 0, 0):
        engaged.now += PERIOD + ahead
        steady += PERIOD
        engaged.feedback()
        engaged.pose = engaged.executor.tick(engaged.now, steady).positions
        stream.append(engaged.pose)
    assert np.all(excess(np.array(stream), PERIOD_S) <= 1e-6)
    np.testing.assert_array_equal(stream[-1], stream[-2])
    assert engaged.executor.mode is Mode.HOLD and not engaged.executor.engaged
    assert "the clock went ahead by 2.00 s" in engaged.executor.state.cause


def test_a_clock_that_stands_still_does_not_keep_the_arms_from_coming_to_rest(engaged):
    engaged.offer(engaged.chunk(slope=0.06))
    before = engaged.ticks(6)
    steady, last = engaged.now, before[-1]
    engaged.executor.disarm("going home")
    stream = [before[-2], last]
    for _ in range(6):
        steady += PERIOD
        command = engaged.executor.tick(engaged.now, steady)
        if command is not None:
            stream.append(command.positions)
    assert engaged.executor.mode is Mode.DISARMED and engaged.executor.state.cause == "going home"
    assert np.all(excess(np.array(stream), PERIOD_S) <= 1e-6)


def test_a_leader_that_jumps_is_not_followed(make):
    loop = make(Mode.TELEOP)
    loop.ticks(3)
    held = loop.pose.copy()
    loop.leader = loop.leader + np.where(ARMS, 1.0, 0.0)
    for _ in range(10):
        np.testing.assert_allclose(loop.tick().positions, held, atol=1e-6)
    assert loop.executor.mode is Mode.HOLD
    assert loop.executor.leader_refusals["leader left", Reason.JUMP] == 1
    assert loop.ask(Mode.TELEOP).refusal.reason is Reason.GAP


def test_feedback_that_returns_outside_the_limits_is_a_fault(engaged):
    silent(engaged, 0.9)
    engaged.pose = engaged.pose.copy()
    engaged.pose[1] = engaged.robot.position_min[1] - 0.15
    command = engaged.tick()
    assert command.positions[1] == pytest.approx(engaged.pose[1])
    assert engaged.executor.mode is Mode.FAULT and "move it back in by hand" in engaged.executor.state.cause


def test_an_arm_that_is_blocked_is_not_pressed_on(make):
    loop = make(Mode.POLICY)
    blocked, joint = loop.pose.copy(), loop.robot.limb("left").offset
    commands = []
    for k in range(40):
        loop.offer(loop.chunk(sequence=k + 1, slope=0.06, start=loop.pose))
        loop.now += PERIOD
        sent = loop.pose
        loop.pose = np.where(np.arange(loop.robot.size) == joint, blocked, sent)
        loop.feedback()
        loop.pose = sent
        loop.pose = loop.executor.tick(loop.now).positions
        commands.append(loop.pose)
    commands = np.array(commands)
    assert loop.executor.mode is Mode.FAULT and "left_arm_joint1" in loop.executor.state.cause
    assert np.ptp(commands[:, joint]) > 0.5, "it was pressed on for a while"
    np.testing.assert_allclose(commands[-1, joint], blocked[joint])
    others = np.delete(commands, joint, axis=1)
    assert np.all(np.abs(np.diff(others, axis=0)) <= np.delete(loop.robot.command_velocity, joint) * PERIOD_S + 1e-9)
    np.testing.assert_array_equal(others[-1], others[-2])


def test_disarming_in_motion_brakes_first_and_then_ends_the_stream(engaged):
    engaged.offer(engaged.chunk(slope=0.06))
    before = engaged.ticks(6)
    assert engaged.executor.disarm("going home") is None and engaged.executor.ending
    after = []
    while (command := engaged.tick()) is not None:
        after.append(command.positions)
        engaged.offer(engaged.chunk(sequence=10 + len(after), slope=0.06))
    assert np.all(excess(np.array([*before, *after, after[-1]]), PERIOD_S) <= 1e-6)
    assert 1 <= len(after) <= 6
    assert engaged.executor.mode is Mode.DISARMED and engaged.executor.state.cause == "going home"


def test_while_the_arms_come_to_rest_nobody_is_put_in_command(engaged):
    engaged.offer(engaged.chunk(slope=0.06))
    engaged.ticks(6)
    engaged.executor.disarm()
    for refusal in (
        engaged.executor.arm(engaged.now),
        engaged.ask(Mode.POLICY).refusal,
        engaged.ask(Mode.TELEOP).refusal,
    ):
        assert refusal.reason is Reason.NOT_ALLOWED and "coming to rest" in refusal.message
    assert engaged.executor.stop() is None
    while engaged.tick() is not None:
        continue
    assert engaged.executor.arm(engaged.now) is None and engaged.executor.mode is Mode.HOLD


def test_disarming_from_a_fault_in_motion_brakes_too(engaged):
    engaged.offer(engaged.chunk(slope=0.06))
    before = engaged.ticks(6)
    engaged.executor.fault("something broke")
    engaged.executor.disarm()
    first = engaged.tick().positions
    assert np.all(np.abs(first - before[-1])[ARMS] > 0.0)
    while engaged.tick() is not None:
        continue
    assert engaged.executor.mode is Mode.DISARMED


def test_the_shadow_keeps_the_speed_scale_that_was_set(make):
    loop = make(Mode.DISARMED)
    loop.executor.set_speed_scale(0.2)
    shadows = []
    for k in range(8):
        loop.offer(loop.chunk(sequence=k + 1, slope=0.07, start=loop.pose + 0.5))
        assert loop.tick() is None
        shadows.append(loop.executor.shadow)
    speed = np.abs(np.diff(shadows, axis=0)) / PERIOD_S
    assert np.all(speed <= 0.2 * loop.robot.command_velocity + 1e-6) and speed.max() > 0.0


@pytest.mark.parametrize(
    ("stamp_s", "mode"),
    [
        (-0.5, Mode.POLICY),  # older than the observation of the chunk in execution
        (0.0, Mode.HOLD),
        (0.05, Mode.HOLD),
        (None, Mode.HOLD),  # without a stamp it is taken at its word
    ],
)
def test_a_withdrawal_older_than_the_newest_chunk_drops_nothing(engaged, stamp_s, mode):
    engaged.offer(newest := engaged.chunk())
    engaged.tick()
    engaged.executor.withdraw("camera head is old", 0 if stamp_s is None else newest.stamp_ns + round(stamp_s * 1e9))
    engaged.tick()
    assert engaged.executor.mode is mode


def test_an_open_gripper_that_reads_beyond_its_stroke_is_not_sent_there(make, home):
    home = home.copy()
    gripper = make(Mode.DISARMED).robot.limb("right").gripper_index
    home[gripper] = 101.8
    for mode in (Mode.HOLD, Mode.TELEOP, Mode.POLICY):
        loop = make(mode, pose=home)
        loop.offer(loop.chunk(start=home, slope=0.0))
        for _ in range(5):
            loop.pose = home
            assert loop.tick().positions[gripper] == 100.0
