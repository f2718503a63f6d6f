from __future__ import annotations

import numpy as np
import pytest
from executor_loop import ARMS, PERIOD, PERIOD_S, ROBOT, Loop
from hypothesis import event, given
from hypothesis import strategies as st
from motion_limits import excess

from depthvla_control.arbiter import Mode
from depthvla_control.executor import AWAY_RAD
from depthvla_control.executor_config import ExecutorConfig
from depthvla_control.refusal import Reason
from depthvla_control.timeline import STRATEGIES


def test_nothing_is_commanded_before_arm_and_after_disarm(loop):
    loop.offer(loop.chunk())
    assert loop.tick() is None
    loop.executor.arm(loop.now)
    assert loop.tick() is not None
    loop.executor.disarm()
    assert loop.tick() is None
    assert loop.executor.mode is Mode.DISARMED


def test_armed_it_holds_the_measured_pose_whatever_the_policy_sends(make, home):
    loop = make(Mode.HOLD)
    for sequence in range(1, 5):
        assert loop.offer(loop.chunk(sequence)) is None
        np.testing.assert_array_equal(loop.tick().positions, home)
    assert loop.executor.state.mode is Mode.HOLD and not loop.executor.engaged


def test_due_steps_are_followed_in_time(engaged):
    engaged.offer(chunk := engaged.chunk())
    for k in range(1, 15):
        # The first step of a motion from rest is within the acceleration limit only after two periods.
        np.testing.assert_allclose(engaged.tick().positions, chunk.positions[k], atol=0.02 if k < 3 else 1e-6)
        state = engaged.executor.state
        assert (state.mode, state.sequence, state.step, state.steps_left) == (Mode.POLICY, 1, k, 15 - k)
        assert state.chunk_age_ns == k * PERIOD


def test_late_ticks_follow_the_clock_and_not_a_queue(engaged):
    engaged.offer(chunk := engaged.chunk(slope=0.005))
    engaged.tick()
    engaged.tick(ns=4 * PERIOD)
    np.testing.assert_allclose(engaged.tick().positions, chunk.positions[6], atol=1e-6)


def test_a_late_tick_is_not_made_up_for_by_a_larger_step(engaged):
    engaged.offer(engaged.chunk(slope=0.07))
    before = engaged.ticks(3)[-1]
    after = engaged.tick(ns=3 * PERIOD).positions
    most = engaged.robot.command_velocity * PERIOD_S
    assert np.all(np.abs(after - before) <= most + 1e-9) and np.any(np.isclose(after - before, most))


def test_exhaustion_comes_to_a_stand_within_the_limits_and_keeps_streaming(engaged):
    engaged.offer(engaged.chunk(steps=4, slope=0.06))
    commands = np.array([engaged.pose, *engaged.ticks(12)])
    assert np.all(excess(commands, PERIOD_S) <= 1e-6)
    np.testing.assert_array_equal(commands[-1], commands[-4])
    state = engaged.executor.state
    assert (state.mode, state.sequence) == (Mode.HOLD, 0)
    assert "policy silent" in state.cause and "chunk 1" in state.cause


def test_the_policy_resumes_after_silence_by_itself(engaged):
    engaged.offer(engaged.chunk(steps=2))
    engaged.ticks(5)
    assert engaged.executor.mode is Mode.HOLD
    engaged.offer(engaged.chunk(sequence=2))
    engaged.tick()
    assert engaged.executor.mode is Mode.POLICY


def test_a_lost_policy_brakes_at_the_next_tick(engaged):
    engaged.offer(engaged.chunk(slope=0.06))
    before = engaged.ticks(6)
    engaged.executor.policy_lost("the policy's publisher is gone")
    after = engaged.ticks(6)
    assert np.all(excess(np.array([*before, *after]), PERIOD_S) <= 1e-6)
    # 0.9 rad/s are gone after v / a + a / j = 0.05 s, within one tick.
    np.testing.assert_allclose(after, np.tile(after[0], (6, 1)), atol=1e-6)
    assert engaged.executor.state.cause == "the policy's publisher is gone"


def test_stop_holds_whatever_the_policy_sends_until_it_is_put_in_command_again(engaged):
    engaged.offer(engaged.chunk())
    engaged.ticks(3)
    assert engaged.executor.stop("stop was called") is None
    held = engaged.ticks(4)[-1]
    for sequence in range(2, 6):
        assert engaged.offer(engaged.chunk(sequence=sequence, slope=0.05)) is None
        np.testing.assert_array_equal(engaged.tick().positions, held)
    assert engaged.executor.state.cause == "stop was called"
    assert engaged.executor.arm(engaged.now) is None and not engaged.executor.engaged
    assert engaged.ask(Mode.POLICY).refusal is None
    assert np.any(engaged.tick().positions != held)


def test_stop_never_starts_a_stream(loop):
    assert loop.executor.stop() is None
    assert loop.tick() is None
    assert loop.ask(Mode.HOLD).refusal.reason is Reason.NOT_ALLOWED


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


def test_stale_feedback_holds_and_the_policy_goes_on_when_it_is_back(engaged):
    engaged.offer(engaged.chunk())
    engaged.tick()
    held = engaged.ticks(6, feedback=False)
    np.testing.assert_array_equal(held[-1], held[-2])
    state = engaged.executor.state
    assert state.mode is Mode.HOLD and "feedback of arm left is" in state.cause
    engaged.tick()
    assert engaged.executor.mode is Mode.POLICY


@pytest.mark.parametrize("bad", [np.nan, np.inf, 1e6])
def test_bad_feedback_does_not_count_as_feedback(engaged, bad):
    for _ in range(6):
        engaged.tick(feedback=False)
        for limb in engaged.robot.limbs:
            engaged.executor.feedback_arm(limb.name, [bad] * 6, engaged.now)
            engaged.executor.feedback_gripper(limb.name, [50.0], engaged.now)
    engaged.offer(engaged.chunk())
    engaged.tick(feedback=False)
    assert engaged.executor.mode is Mode.HOLD
    assert sum(engaged.executor.feedback_refusals.values()) == 12


def test_feedback_that_jumps_is_a_fault(engaged):
    engaged.offer(engaged.chunk())
    engaged.tick()
    engaged.pose = engaged.pose + np.where(ARMS, 0.6, 0.0)
    engaged.tick()
    state = engaged.executor.state
    assert state.mode is Mode.FAULT and "jumped by 0.6" in state.cause and "rad in 67 ms" in state.cause
    assert engaged.executor.feedback_refusals["arm left", Reason.JUMP] == 1


def test_feedback_that_moves_fast_is_none(engaged):
    for _ in range(10):
        engaged.now += PERIOD
        engaged.pose = engaged.pose + np.where(ARMS, 0.2, 0.0)  # 3 rad/s, which the tracker can do
        engaged.feedback()
    engaged.executor.tick(engaged.now)
    assert engaged.executor.mode is not Mode.FAULT


def test_an_arm_that_does_not_follow_is_a_fault(make):
    loop = make(Mode.POLICY)
    blocked = loop.pose.copy()
    for k in range(30):
        loop.offer(loop.chunk(sequence=k + 1, slope=0.06, start=loop.pose))
        loop.now += PERIOD
        commanded, loop.pose = loop.pose, blocked
        loop.feedback()
        loop.pose = commanded
        loop.pose = loop.executor.tick(loop.now).positions
    state = loop.executor.state
    assert state.mode is Mode.FAULT and "from its command (limit 0.50 rad)" in state.cause


def test_a_refused_chunk_is_counted_with_its_reason_and_moves_nothing(engaged):
    chunk = engaged.chunk(slope=0.05)
    chunk.positions[15, 0] = np.nan
    before = engaged.tick().positions
    assert engaged.offer(chunk).reason is Reason.NON_FINITE
    np.testing.assert_array_equal(engaged.tick().positions, before)
    state = engaged.executor.state
    assert (state.chunks_accepted, state.chunks_refused) == (0, 1)
    assert "non-finite" in state.last_refusal and engaged.executor.refusals[Reason.NON_FINITE] == 1


@pytest.mark.parametrize(("mode", "after"), [(Mode.POLICY, Mode.FAULT), (Mode.TELEOP, Mode.TELEOP)])
def test_a_chunk_far_outside_the_limits_is_a_fault_of_a_policy_that_is_engaged(make, mode, after):
    loop = make(mode)
    chunk = loop.chunk()
    chunk.positions[7, 3] = 4.0
    assert loop.offer(chunk).reason is Reason.OUT_OF_RANGE
    loop.tick()
    assert loop.executor.mode is after
    near = loop.chunk(sequence=2)
    near.positions[7, 3] = loop.robot.position_max[3] + 0.3
    assert loop.offer(near) is None, "small excursions are clamped"


def test_it_is_armed_for_one_model(engaged):
    assert engaged.offer(engaged.chunk(model="m")) is None
    assert engaged.executor.state.armed_model == "m"
    engaged.ticks(30)
    refusal = engaged.offer(engaged.chunk(sequence=2, model="other"))
    assert refusal.reason is Reason.OTHER_MODEL and "'other'" in refusal.message and "'m'" in refusal.message
    assert engaged.offer(engaged.chunk(sequence=1, model="m")) is None, "a restarted policy of the same model"
    engaged.executor.disarm()
    assert engaged.offer(engaged.chunk(sequence=2, model="other")) is None
    engaged.executor.arm(engaged.now)
    assert engaged.executor.state.armed_model == "other"


def test_latency_is_arrival_minus_observation(engaged):
    engaged.offer(engaged.chunk(stamp=engaged.now - 123_000_000))
    assert engaged.executor.state.latency_ns == 123_000_000


def test_the_plan_is_what_the_policy_in_command_is_going_to_do(engaged):
    assert len(engaged.executor.plan().positions) == 0
    engaged.offer(chunk := engaged.chunk(stamp=engaged.now - 123_000_000, slope=0.001))
    assert len(engaged.executor.plan().positions) == 0, "it is not in command yet"
    engaged.tick()
    plan = engaged.executor.plan()
    assert (plan.stamp_ns, plan.sequence, plan.latency_ns) == (chunk.stamp_ns, 1, 123_000_000)
    np.testing.assert_allclose(plan.positions, chunk.positions)
    engaged.executor.stop()
    assert len(engaged.executor.plan().positions) == 0


def test_a_fault_is_latched_and_holds(engaged):
    engaged.offer(engaged.chunk())
    engaged.ticks(3)
    engaged.executor.fault("something broke")
    held = engaged.ticks(5)[-1]
    engaged.offer(engaged.chunk(sequence=2, slope=0.05))
    np.testing.assert_array_equal(engaged.tick().positions, held)
    assert engaged.executor.arm(engaged.now) is not None and engaged.ask(Mode.POLICY).refusal is not None
    assert engaged.executor.state.cause == "something broke"
    assert engaged.executor.reset_fault() is None
    np.testing.assert_array_equal(engaged.tick().positions, held)
    assert engaged.executor.mode is Mode.HOLD and not engaged.executor.engaged


def test_arming_again_starts_from_where_the_robot_is(engaged):
    engaged.offer(engaged.chunk())
    engaged.tick()
    engaged.executor.disarm(at_once=True)
    engaged.pose = engaged.pose + 0.2
    engaged.feedback()
    engaged.executor.arm(engaged.now)
    expected = engaged.pose.copy()
    np.testing.assert_allclose(engaged.tick().positions, expected)


def test_a_clock_set_back_holds_and_recovers(engaged):
    engaged.offer(engaged.chunk())
    engaged.tick()
    engaged.now -= 100 * 10**9
    held = engaged.ticks(4, feedback=False)
    np.testing.assert_array_equal(held[-1], held[-2])
    assert engaged.executor.mode is Mode.HOLD and "clock went back" in engaged.executor.state.cause
    engaged.offer(engaged.chunk())
    engaged.tick(feedback=False)
    assert engaged.executor.mode is Mode.HOLD  # feedback from before says nothing any more
    engaged.tick()
    assert engaged.offer(engaged.chunk(sequence=2)) is None
    engaged.tick()
    assert engaged.executor.mode is Mode.POLICY


def test_the_speed_cap_follows_the_commanded_speed_with_headroom(engaged):
    arm = engaged.robot.limb("left").arm
    np.testing.assert_array_equal(engaged.tick().velocity_cap[arm], 1.0)  # at rest: enough to catch up
    engaged.offer(engaged.chunk(slope=0.05))
    for _ in range(8):
        command = engaged.tick()
    np.testing.assert_allclose(command.velocity_cap[arm], 3.0 * 0.75, rtol=0.02)
    engaged.executor.set_speed_scale(0.2)
    for _ in range(5):
        command = engaged.tick()
    np.testing.assert_allclose(command.velocity_cap[arm], [0.66, 0.66, 0.66, 0.7, 0.7, 0.7], rtol=0.02)
    assert np.all(command.velocity_cap[arm] <= 0.2 * engaged.robot.tracker_velocity)
    engaged.executor.stop()
    for _ in range(5):
        command = engaged.tick()
    np.testing.assert_allclose(command.velocity_cap[arm], 0.2)


def test_a_person_takes_over_and_gives_back_without_a_step(make):
    loop = make(Mode.POLICY, catch_up_scale=0.25)
    loop.leader = loop.pose + np.where(ARMS, 0.05, 0.0)
    commands, modes = [loop.pose], []
    for k in range(90):
        loop.offer(loop.chunk(sequence=k + 1, slope=0.01 if k % 40 < 20 else -0.01))
        loop.leader = loop.leader + np.where(ARMS, 0.004 * np.sin(k / 5.0), 0.0)
        if k in (30, 60):
            wanted = Mode.TELEOP if k == 30 else Mode.POLICY
            assert loop.ask(wanted).refusal is None
            assert loop.executor.mode is wanted
        commands.append(loop.tick().positions)
        modes.append(loop.executor.mode)
    assert np.all(excess(np.array(commands), PERIOD_S) <= 1e-6)
    assert modes[29:31] == [Mode.POLICY, Mode.TELEOP] and modes[60] is Mode.POLICY
    assert loop.executor.state.interventions == 1
    # In teleoperation the arms end up where the leader is.
    np.testing.assert_allclose(commands[60][:6], loop.leader[:6], atol=0.5)


def test_in_teleoperation_the_leader_is_followed(make):
    loop = make(Mode.TELEOP)
    target = loop.pose + np.where(ARMS, 0.3, 20.0)
    for _ in range(40):
        loop.leader = loop.leader + np.clip(target - loop.leader, -0.02, 0.02)
        loop.tick()
    np.testing.assert_allclose(loop.pose[:6], target[:6], atol=0.01)
    assert loop.pose[6] == pytest.approx(loop.leader[6], abs=1.0)


def test_a_take_over_from_afar_is_refused_with_the_gap_and_stops_the_policy(make):
    loop = make(Mode.POLICY)
    loop.offer(loop.chunk())
    loop.tick()
    loop.feedback()
    loop.leader = loop.pose + np.where(ARMS, 0.9, 0.0)
    loop.lead()
    answer = loop.ask(Mode.TELEOP)
    assert answer.refusal.reason is Reason.GAP and answer.gap_rad == pytest.approx(0.9)
    assert "0.90 rad" in answer.refusal.message and "limit 0.60 rad" in answer.refusal.message
    assert loop.executor.mode is Mode.HOLD and not loop.executor.engaged
    assert "take-over refused, holding instead" in loop.executor.state.cause


def test_re_anchored_a_leader_may_be_anywhere(make):
    loop = make(Mode.HOLD, take_over="reanchor")
    loop.leader = loop.pose + np.where(ARMS, 0.9, 0.0)
    loop.lead()
    answer = loop.ask(Mode.TELEOP)
    assert answer.refusal is None and answer.gap_rad == pytest.approx(0.9)
    before = loop.pose.copy()
    loop.leader = loop.leader + np.where(ARMS, 0.01, 0.0)
    np.testing.assert_allclose(loop.ticks(3)[-1][:6], before[:6] + 0.01, atol=1e-6)


def test_a_leader_that_falls_silent_holds_until_somebody_takes_over_again(make):
    loop = make(Mode.TELEOP)
    loop.tick()
    leader, loop.leader = loop.leader, None
    loop.ticks(4)
    assert loop.executor.mode is Mode.HOLD and "leader left is silent" in loop.executor.state.cause
    loop.leader = leader
    loop.ticks(3)
    assert loop.executor.mode is Mode.HOLD
    assert loop.ask(Mode.TELEOP).refusal is None


def test_nobody_takes_over_with_leaders_that_are_silent(make):
    loop = make(Mode.POLICY)
    loop.offer(loop.chunk())
    loop.tick()
    answer = loop.ask(Mode.TELEOP)
    assert "leader left has not been heard" in answer.refusal.message
    assert loop.executor.mode is Mode.HOLD


def test_giving_back_to_a_silent_policy_is_refused_and_the_person_stays_in_command(make):
    loop = make(Mode.TELEOP)
    answer = loop.ask(Mode.POLICY)
    assert answer.refusal.reason is Reason.MISSING and loop.executor.mode is Mode.TELEOP


def test_a_policy_that_is_far_away_does_not_get_the_arms(make):
    loop = make(Mode.HOLD)
    loop.offer(loop.chunk(start=loop.pose + np.where(ARMS, 0.8, 0.0)))
    answer = loop.ask(Mode.POLICY)
    assert answer.refusal.reason is Reason.GAP and answer.gap_rad == pytest.approx(0.8)
    # Engaged before it spoke, it is held back all the same, and let in once it is near.
    engaged = make(Mode.POLICY)
    engaged.offer(engaged.chunk(start=engaged.pose + np.where(ARMS, 0.8, 0.0)))
    engaged.ticks(2)
    assert engaged.executor.mode is Mode.HOLD and "0.8" in engaged.executor.state.cause
    engaged.offer(engaged.chunk(sequence=2, slope=0.0))
    engaged.ticks(4)
    assert engaged.executor.mode is Mode.POLICY


def test_a_new_source_is_caught_up_with_slowly_and_then_followed_at_its_own_speed(make):
    loop = make(Mode.POLICY, catch_up_scale=0.25)
    limit = loop.robot.command_velocity[0]
    loop.offer(loop.chunk(slope=0.01, steps=40, start=loop.pose + np.where(ARMS, 0.3, 0.0)))
    speed = np.abs(np.diff([loop.pose, *loop.ticks(35)], axis=0))[:, 0] / PERIOD_S
    assert speed.max() == pytest.approx(0.15 + 0.25 * limit, rel=1e-3)
    np.testing.assert_allclose(speed[-5:], 0.15, atol=1e-4)
    # Caught up, it may be as fast as it gets.
    assert loop.offer(loop.chunk(sequence=2, slope=0.07)) is None
    assert np.abs(np.diff(loop.ticks(6), axis=0))[:, 0].max() / PERIOD_S > 0.9


def test_the_shadow_is_what_the_policy_would_command_and_is_held_against_what_is_done(make):
    disarmed = make(Mode.DISARMED)
    disarmed.offer(disarmed.chunk(slope=0.02))
    for _ in range(10):
        assert disarmed.tick() is None
    shadow = disarmed.executor.shadow
    np.testing.assert_allclose(shadow, disarmed.pose + 0.2, atol=1e-3)
    assert disarmed.executor.state.shadow_error_rad > 0.05
    teleop = make(Mode.TELEOP)
    teleop.offer(teleop.chunk(slope=0.0))
    teleop.ticks(5)
    assert teleop.executor.state.shadow_error_rad < 1e-3
    assert teleop.ask(Mode.POLICY).refusal is None
    teleop.tick()
    assert teleop.executor.shadow is None


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"strategy": "mean"}, ["strategy", "'mean'", "blend"]),
        ({"take_over": "jump"}, ["take_over", "'jump'", "reanchor"]),
        ({"speed_scale": 0.0}, ["speed_scale", "0.0"]),
        ({"max_gap_rad": float("nan")}, ["max_gap_rad", "nan"]),
        ({"blend_s": -0.1}, ["blend_s", "-0.1"]),
    ],
)
def test_a_wrong_setting_is_named(change, named):
    with pytest.raises(ValueError) as error:
        ExecutorConfig(**change)
    assert all(text in str(error.value) for text in named)


# A history is a list of what happens between ticks. Switches in motion are what is to be tested, so most of it is
# chunks and leader arms that can be followed, and whoever lost the arms mostly gets them back.
def mostly(usual, *rare, times=6):
    return st.one_of(*[usual] * times, *rare)


bad_feedback = st.sampled_from([[np.nan] * 6, [99.0] * 6, [0.0] * 3])
chunks = st.tuples(
    mostly(st.integers(-6 * PERIOD, 0), st.integers(-18 * PERIOD, PERIOD // 2)),  # stamp against now
    mostly(st.integers(1, 3), st.integers(-1, 0)),  # sequence against the last one
    st.floats(-0.15, 0.15),  # rad and mm a step
    mostly(st.floats(-0.2, 0.2), st.floats(-0.8, 0.8)),  # rad and mm from where the arms are
    mostly(st.none(), st.sampled_from([np.nan, np.inf, 1e9])),  # one bad target
    mostly(st.just("m"), st.just("n"), times=12),
)
modes = st.sampled_from([Mode.POLICY, Mode.TELEOP])
requests = st.sampled_from(
    ["arm", "stop", "disarm", "fault", "reset_fault", "policy_lost", "clock_back", "jump", "leader gone"]
)
ticks = st.tuples(
    st.just("tick"),
    st.tuples(
        mostly(st.just(0), st.integers(1, 2), st.integers(10, 80)),
        st.integers(1, 12),
        mostly(st.just(True), st.just(False)),
    ),
)
actions = mostly(
    st.one_of(
        ticks,
        ticks,
        st.tuples(st.just("offer"), chunks),
        st.tuples(st.just("offer"), chunks),
        st.tuples(st.just("lead"), st.tuples(mostly(st.floats(-0.4, 0.4), st.floats(-0.9, 0.9)), st.floats(-0.1, 0.1))),
        st.tuples(st.just("recover"), modes),
        st.tuples(st.just("mode"), mostly(modes, st.sampled_from(Mode))),
    ),
    st.tuples(st.just("speed"), st.floats(0.05, 1.0)),
    st.tuples(st.just("bad feedback"), bad_feedback),
    st.tuples(requests, st.none()),
)
configs = st.fixed_dictionaries(
    {
        "strategy": st.sampled_from(STRATEGIES),
        "take_over": st.sampled_from(["ramp", "reanchor"]),
        "catch_up_scale": st.sampled_from([0.25, 1.0]),
        "position_margin_rad": st.sampled_from([0.0, 0.01]),
    }
)


@given(
    start=st.floats(-0.02, 0.02),
    rate_hz=st.sampled_from([15, 15, 50, 100]),
    config=configs,
    history=st.lists(actions, min_size=20, max_size=60),
)
def test_no_history_makes_a_command_unsafe(start, rate_hz, config, history):
    """Within position, velocity and acceleration limits across every switch, finite, and silent while DISARMED."""
    period = round(1e9 / rate_hz)
    pose = np.full(ROBOT.size, start)
    pose[ROBOT.gripper_mask] = 50.0
    loop = Loop(ROBOT, pose, period, **config)
    loop.feedback()
    loop.executor.arm(loop.now)
    loop.ask(Mode.POLICY)
    stream, sequence = [loop.pose, loop.pose], 0
    for name, value in [*history, ("tick", (1, 4, True))]:
        executor = loop.executor
        if name == "bad feedback":
            assert executor.feedback_arm("left", value, loop.now) is not None
        elif name == "offer":
            offset, ahead, slope, away, bad, model = value
            sequence += ahead
            start_at = loop.pose + away
            chunk = loop.chunk(sequence, slope, stamp=loop.now + offset, model=model, start=start_at)
            if bad is not None:
                chunk.positions[sequence % 16, sequence % ROBOT.size] = bad
            refusal = loop.offer(chunk)
            assert bad is None or refusal is not None
        elif name == "lead":
            away, move = value
            loop.leader = loop.pose + np.where(ARMS, away, 0.0)
            loop.lead()
            loop.now += 1_000_000
            loop.leader = loop.leader + np.where(ARMS, move, 0.0)
            loop.lead()
        elif name == "recover":
            loop.feedback()
            executor.reset_fault()
            if executor.mode is not Mode.DISARMED:
                loop.ask(value)
        elif name == "clock_back":
            loop.now -= 10 * 10**9
        elif name == "jump":
            loop.pose = np.clip(loop.pose + 0.9, ROBOT.position_min, ROBOT.position_max)
            loop.feedback()
            loop.pose = stream[-1] if executor.mode is not Mode.DISARMED else loop.pose
        elif name == "leader gone":
            loop.leader = None
        elif name == "mode":
            loop.ask(value)
        elif name == "speed":
            executor.set_speed_scale(value)
        elif name == "tick":
            late, count, feedback = value
            for _ in range(count):
                armed = executor.mode is not Mode.DISARMED
                if not armed:
                    stream = [loop.pose, loop.pose]
                lost = executor.lost
                command = loop.tick(period * (1 + late), feedback=feedback)
                assert (command is not None) == (armed and not executor.lost)
                event("LOST" if executor.lost else executor.mode.name)
                if command is not None:
                    # An arm that does not follow, or may have been moved, is not pulled back.
                    anew = ARMS & (lost | (np.abs(command.positions - stream[-1]) > AWAY_RAD))
                    if anew.any():
                        np.testing.assert_allclose(command.positions[anew], loop.measured[anew])
                        stream = [np.where(anew, loop.measured, pose) for pose in stream]
                    stream.append(command.positions)
        elif name in ("fault", "policy_lost"):
            getattr(executor, name)("drawn")
        elif name == "arm":
            was = executor.mode
            if executor.arm(loop.now) is None and was is Mode.DISARMED:
                stream = [loop.measured, loop.measured]
        else:
            getattr(executor, name)()
        if executor.mode is Mode.DISARMED:
            assert np.all(excess(np.array(stream), period * 1e-9) <= 1e-6)
            stream = [loop.pose, loop.pose]
    assert np.all(excess(np.array(stream), period * 1e-9) <= 1e-6)
