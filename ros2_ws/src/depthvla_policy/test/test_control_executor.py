from __future__ import annotations

import numpy as np
import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st

from depthvla_policy.control.arbiter import Mode
from depthvla_policy.control.chunk import Chunk
from depthvla_policy.control.executor import ChunkExecutor
from depthvla_policy.control.refusal import Reason
from depthvla_policy.robot import load

PERIOD = 66_666_667
PERIOD_S = PERIOD * 1e-9
T0 = 1_700_000_000_000_000_000
ROBOT = load()


class Loop:
    """An executor with a clock and a robot that follows its commands at once."""

    def __init__(self, robot, pose):
        self.robot, self.pose, self.now = robot, np.array(pose), T0
        self.executor = ChunkExecutor(robot, period_s=PERIOD_S)

    def feedback(self):
        for limb in self.robot.limbs:
            self.executor.feedback_arm(limb.name, self.pose[limb.arm], self.now)
            self.executor.feedback_gripper(limb.name, [self.pose[limb.gripper_index]], self.now)

    def tick(self, ns=PERIOD, feedback=True):
        self.now += ns
        if feedback:
            self.feedback()
        command = self.executor.tick(self.now)
        if command is not None:
            self.pose = command.positions
        return command

    def chunk(self, sequence=1, slope=0.02, steps=16, stamp=None, model="m"):
        """Starts at the present pose and moves every joint by `slope` a step."""
        positions = self.pose + slope * np.arange(steps)[:, None]
        return Chunk(self.now if stamp is None else stamp, sequence, PERIOD, positions, model)

    def offer(self, chunk):
        return self.executor.offer(chunk, self.now)


@pytest.fixture
def loop(robot, home):
    loop = Loop(robot, home)
    loop.feedback()
    return loop


@pytest.fixture
def armed(loop):
    assert loop.executor.arm(loop.now) is None
    return loop


def test_nothing_is_commanded_before_arm_and_after_disarm(loop):
    loop.offer(loop.chunk())
    assert loop.tick() is None
    loop.executor.arm(loop.now)
    assert loop.tick() is not None
    loop.executor.disarm()
    assert loop.tick() is None
    assert loop.executor.mode is Mode.DISARMED


def test_arm_holds_the_measured_pose(armed, home):
    command = armed.tick()
    np.testing.assert_array_equal(command.positions, home)
    np.testing.assert_array_equal(command.velocity_cap, armed.robot.tracker_velocity)
    assert armed.executor.state.mode is Mode.HOLD


def test_due_steps_are_followed_in_time(armed):
    chunk = armed.chunk()
    armed.offer(chunk)
    for k in range(1, 16):
        np.testing.assert_allclose(armed.tick().positions, chunk.positions[k], atol=1e-7)
        state = armed.executor.state
        assert (state.mode, state.sequence, state.step, state.steps_left) == (Mode.POLICY, 1, k, 15 - k)
        assert state.chunk_age_ns == k * PERIOD


def test_late_ticks_follow_the_clock_and_not_a_queue(armed):
    chunk = armed.chunk(slope=0.005)
    armed.offer(chunk)
    armed.tick()
    np.testing.assert_allclose(armed.tick(ns=4 * PERIOD).positions, chunk.positions[5], atol=1e-7)


def test_a_late_tick_is_not_made_up_for_by_a_larger_step(armed):
    armed.offer(armed.chunk(slope=0.07))
    before = armed.tick().positions
    after = armed.tick(ns=3 * PERIOD).positions
    most = armed.robot.command_velocity * PERIOD_S
    assert np.all(np.abs(after - before) <= most + 1e-9) and np.any(np.isclose(after - before, most))


def test_exhaustion_holds_the_last_commanded_pose_and_keeps_streaming(armed):
    chunk = armed.chunk(steps=4)
    armed.offer(chunk)
    commands = [armed.tick().positions for _ in range(10)]
    np.testing.assert_allclose(commands[2], chunk.positions[3], atol=1e-7)
    for command in commands[3:]:
        np.testing.assert_array_equal(command, commands[2])
    state = armed.executor.state
    assert (state.mode, state.sequence) == (Mode.HOLD, 0)
    assert "policy silent" in state.cause and "chunk 1" in state.cause


def test_the_policy_resumes_after_silence_without_being_armed_again(armed):
    armed.offer(armed.chunk(steps=2))
    for _ in range(5):
        armed.tick()
    assert armed.executor.mode is Mode.HOLD
    armed.offer(armed.chunk(sequence=2))
    armed.tick()
    assert armed.executor.mode is Mode.POLICY


def test_a_lost_policy_is_held_at_the_next_tick(armed):
    armed.offer(armed.chunk())
    before = armed.tick().positions
    armed.executor.policy_lost("the policy's publisher is gone")
    np.testing.assert_array_equal(armed.tick().positions, before)
    assert armed.executor.state.cause == "the policy's publisher is gone"


def test_stop_holds_whatever_the_policy_sends_until_armed_again(armed):
    armed.offer(armed.chunk())
    before = armed.tick().positions
    assert armed.executor.stop("stop was called") is None
    for sequence in range(2, 6):
        assert armed.offer(armed.chunk(sequence=sequence, slope=0.05)) is None
        np.testing.assert_array_equal(armed.tick().positions, before)
    assert armed.executor.state.cause == "stop was called"
    armed.executor.arm(armed.now)
    assert np.any(armed.tick().positions != before)


def test_stop_never_starts_a_stream(loop):
    assert loop.executor.stop() is None
    assert loop.tick() is None


def test_arm_needs_feedback_of_every_limb(robot, home):
    loop = Loop(robot, home)
    refusal = loop.executor.arm(loop.now)
    assert refusal.reason is Reason.NO_FEEDBACK and "arm left" in refusal.message
    for limb in robot.limbs:
        loop.executor.feedback_arm(limb.name, home[limb.arm], loop.now)
    loop.executor.feedback_gripper("left", [50.0], loop.now)
    assert "gripper right" in loop.executor.arm(loop.now).message
    loop.executor.feedback_gripper("right", [50.0], loop.now)
    assert "0.30 s old (limit 0.20 s)" in loop.executor.arm(loop.now + 300_000_000).message
    assert loop.executor.mode is Mode.DISARMED


def test_arm_is_refused_outside_the_limits_but_not_when_folded(robot):
    folded = Loop(robot, np.zeros(robot.size))
    folded.feedback()
    assert folded.executor.arm(folded.now) is None
    pose = np.zeros(robot.size)
    pose[1] = -0.1
    outside = Loop(robot, pose)
    outside.feedback()
    refusal = outside.executor.arm(outside.now)
    assert refusal.reason is Reason.OUT_OF_RANGE and robot.joint_names[1] in refusal.message


def test_stale_feedback_holds(armed):
    armed.offer(armed.chunk())
    armed.tick()
    held = [armed.tick(feedback=False).positions for _ in range(6)]
    np.testing.assert_array_equal(held[-1], held[-2])
    state = armed.executor.state
    assert state.mode is Mode.HOLD and "feedback of arm left is" in state.cause


@pytest.mark.parametrize("bad", [np.nan, np.inf, 1e6])
def test_bad_feedback_does_not_count_as_feedback(armed, bad):
    for _ in range(6):
        armed.tick(feedback=False)
        for limb in armed.robot.limbs:
            armed.executor.feedback_arm(limb.name, [bad] * 6, armed.now)
            armed.executor.feedback_gripper(limb.name, [50.0], armed.now)
    armed.offer(armed.chunk())
    armed.tick(feedback=False)
    assert armed.executor.mode is Mode.HOLD
    assert sum(armed.executor.feedback_refusals.values()) == 12


def test_a_refused_chunk_is_counted_with_its_reason_and_moves_nothing(armed):
    chunk = armed.chunk(slope=0.05)
    chunk.positions[15, 0] = np.nan
    before = armed.tick().positions
    assert armed.offer(chunk).reason is Reason.NON_FINITE
    np.testing.assert_array_equal(armed.tick().positions, before)
    state = armed.executor.state
    assert (state.chunks_accepted, state.chunks_refused) == (0, 1)
    assert "non-finite" in state.last_refusal and armed.executor.refusals[Reason.NON_FINITE] == 1


def test_latency_is_arrival_minus_observation(armed):
    armed.offer(armed.chunk(stamp=armed.now - 123_000_000))
    assert armed.executor.state.latency_ns == 123_000_000


def test_a_fault_is_latched_and_holds(armed):
    armed.offer(armed.chunk())
    before = armed.tick().positions
    armed.executor.fault("something broke")
    armed.offer(armed.chunk(sequence=2, slope=0.05))
    np.testing.assert_array_equal(armed.tick().positions, before)
    assert armed.executor.arm(armed.now) is not None
    assert armed.executor.state.cause == "something broke"
    assert armed.executor.reset_fault() is None
    np.testing.assert_array_equal(armed.tick().positions, before)
    assert armed.executor.mode is Mode.HOLD and not armed.executor.engaged


def test_arming_again_starts_from_where_the_robot_is(armed):
    armed.offer(armed.chunk())
    armed.tick()
    armed.executor.disarm()
    armed.pose = armed.pose + 0.2
    armed.feedback()
    armed.executor.arm(armed.now)
    expected = armed.pose.copy()
    np.testing.assert_array_equal(armed.tick().positions, expected)


def test_a_clock_set_back_holds_and_recovers(armed):
    armed.offer(armed.chunk())
    before = armed.tick().positions
    armed.now -= 100 * 10**9
    np.testing.assert_array_equal(armed.tick(feedback=False).positions, before)
    assert armed.executor.mode is Mode.HOLD and "clock went back" in armed.executor.state.cause
    armed.offer(armed.chunk())
    armed.tick(feedback=False)
    assert armed.executor.mode is Mode.HOLD  # feedback from before says nothing any more
    armed.tick()
    assert armed.offer(armed.chunk(sequence=2)) is None
    armed.tick()
    assert armed.executor.mode is Mode.POLICY


bad_feedback = st.sampled_from([[np.nan] * 6, [99.0] * 6, [0.0] * 3])
chunks = st.tuples(
    st.integers(-18 * PERIOD, PERIOD // 2),  # stamp against now
    st.integers(-1, 3),  # sequence against the last one
    st.floats(-0.15, 0.15),  # rad and mm a step
    st.sampled_from([None, None, None, np.nan, np.inf, 1e9]),  # one bad target
    st.sampled_from(["m", "m", "m", "n"]),
)
requests = ["arm", "arm", "disarm", "stop", "fault", "reset_fault", "policy_lost", "clock_back"]
ticks = st.tuples(st.just("tick"), st.tuples(st.integers(0, 2 * PERIOD), st.booleans()))
offers = st.tuples(st.just("offer"), chunks)
# Motion is what is to be tested, so most of a history is chunks and ticks.
actions = st.one_of(
    ticks,
    ticks,
    ticks,
    offers,
    offers,
    st.tuples(st.just("bad feedback"), bad_feedback),
    st.tuples(st.sampled_from(requests), st.none()),
)


@settings(max_examples=200, deadline=None)
@given(start=st.floats(-0.02, 0.02), history=st.lists(actions, min_size=10, max_size=60))
def test_no_history_makes_a_command_unsafe(start, history):
    """Within limits (or on the way in from a start outside), finite, no faster than allowed, silent while DISARMED."""
    pose = np.zeros(ROBOT.size)
    for limb in ROBOT.limbs:
        pose[limb.arm] = start
    loop = Loop(ROBOT, pose)
    loop.feedback()
    loop.executor.arm(loop.now)
    loop.tick()
    last, sequence = loop.pose, 0
    low, high = np.minimum(ROBOT.position_min, pose), np.maximum(ROBOT.position_max, pose)
    for name, value in [*history, ("tick", (PERIOD, True))]:
        executor = loop.executor
        if name == "bad feedback":
            assert executor.feedback_arm("left", value, loop.now) is not None
        elif name == "offer":
            offset, ahead, slope, bad, model = value
            sequence += ahead
            chunk = loop.chunk(sequence, slope, stamp=loop.now + offset, model=model)
            if bad is not None:
                chunk.positions[sequence % 16, sequence % ROBOT.size] = bad
            refusal = loop.offer(chunk)
            assert bad is None or refusal is not None
        elif name == "clock_back":
            loop.now -= 10 * 10**9
        elif name == "tick":
            armed = executor.mode is not Mode.DISARMED
            command = loop.tick(value[0], feedback=value[1])
            assert (command is not None) == armed
            event(executor.mode.name)
            if command is None:
                last = None
                continue
            positions = command.positions
            assert np.isfinite(positions).all()
            assert np.all((positions >= low) & (positions <= high))
            if last is not None:
                assert np.all(np.abs(positions - last) <= ROBOT.command_velocity * PERIOD_S + 1e-9)
            last = positions
        elif name in ("fault", "policy_lost"):
            getattr(executor, name)("drawn")
        elif name == "arm":
            executor.arm(loop.now)
        else:
            getattr(executor, name)()
            last = None if name == "disarm" else last
