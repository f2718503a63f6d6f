from __future__ import annotations

import contextlib
import dataclasses
import os
import signal
import time
from pathlib import Path

import numpy as np
import pytest

from depthvla_control.arbiter import Mode
from depthvla_control.chunk import Chunk

MODULE = "depthvla_control.nodes.chunk_executor_node"
NODE = "/chunk_executor_node"
PERIOD_NS = 66_666_667


class Rig:
    """An executor process, scripted feedback at 100 Hz, and everything it says."""

    def __init__(self, ros, robot, home, *, module=MODULE, environment=None, **parameters):
        from depthvla_msgs.msg import ExecutorStatus, ModeChange, PolicyStatus
        from sensor_msgs.msg import JointState
        from std_msgs.msg import Bool

        from depthvla_control.ros import qos

        self.robot, self.home = robot, home
        self.probe = ros.Probe()
        self._chunks = None
        self.status = self.probe.listen(ExecutorStatus, f"{NODE}/status", qos.status())
        self.modes = self.probe.listen(ModeChange, f"{NODE}/mode", qos.status())
        self.pedal = self.probe.publisher(Bool, f"{NODE}/takeover")
        self.policy_status = self.probe.publisher(PolicyStatus, f"{NODE}/policy_status", qos.status())
        self.commands = {}
        self._feedback = []
        for limb in robot.limbs:
            for kind, where in (("arm", limb.arm), ("gripper", slice(limb.gripper_index, limb.gripper_index + 1))):
                heard = self.probe.listen(JointState, getattr(limb.topics, f"{kind}_command"))
                self.commands[kind, limb.name] = heard
                topic = getattr(limb.topics, f"{kind}_feedback")
                self._feedback.append((self.probe.publisher(JointState, topic, qos.stream("best_effort", 1)), where))
        leader = qos.stream("best_effort", 1)
        self._leaders = [(self.probe.publisher(JointState, limb.topics.teleop, leader), limb) for limb in robot.limbs]
        self.measured = home
        self.order = None  # of the entries of an arm in its feedback, with their names; None: as they stand, no names
        self.leader = None  # (14,) where the leader arms are; nobody holds them
        self.sequence = 0
        self._pedal_timer = None
        self.timer = self.probe.every(0.01, self._send_feedback)
        # On a machine that is busy, this process may be silent for longer than a robot may.
        parameters = {"autostart": True, "feedback_lost_s": 5.0, **parameters}
        self.node = ros.NodeProcess(module, parameters, environment=environment)

    def _send_feedback(self):
        from sensor_msgs.msg import JointState

        for publisher, where in self._feedback:
            message = JointState(name=["placeholder"], position=self.measured[where].tolist())
            if self.order and len(message.position) > 1:
                message.name = [self.robot.joint_names[where][place] for place in self.order]
                message.position = [message.position[place] for place in self.order]
            message.header.stamp = self.probe.node.get_clock().now().to_msg()
            publisher.publish(message)
        for publisher, limb in self._leaders if self.leader is not None else ():
            message = JointState(name=["placeholder"], position=self.leader[limb.slice].tolist())
            message.header.stamp = self.probe.node.get_clock().now().to_msg()
            publisher.publish(message)

    def press(self, pressed):
        """The pedal, which repeats itself."""
        from std_msgs.msg import Bool

        self.probe.wait_for(self.pedal.get_subscription_count, what="the pedal's subscription")
        self.let_go()
        self.pedal.publish(Bool(data=pressed))
        self._pedal_timer = self.probe.every(0.05, lambda: self.pedal.publish(Bool(data=pressed)))

    def let_go(self):
        """The pedal says nothing any more, as one that died."""
        if self._pedal_timer:
            self._pedal_timer.cancel()

    def stream(self, limb="left"):
        """(N, 6) commands of an arm so far [rad]."""
        return np.array([message.position for message in self.commands["arm", limb]])

    def commands_are_all_heard(self, status):
        """Whether what the executor says it has sent, one message for each arm and gripper, has arrived."""
        return all(len(heard) == status.commands_sent // len(self.commands) for heard in self.commands.values())

    def ask(self, mode):
        from depthvla_msgs.srv import SetMode

        return self.probe.call(SetMode, f"{NODE}/set_mode", SetMode.Request(mode=int(mode)))

    def engage(self):
        self.arm()
        assert self.ask(Mode.POLICY).success

    def arm(self):
        self.probe.wait_for(lambda: self.status, what="the executor's status")
        self.probe.wait_for(lambda: self.probe.trigger(f"{NODE}/arm").success, what="arming")
        self.probe.wait_for(lambda: self.newest() is not None, what="the first commands")

    def chunk(self, slope=0.01, steps=16, age_ns=0):
        self.sequence += 1
        self.chunk_ends_ns = self.probe.now_ns() - age_ns + steps * PERIOD_NS
        positions = self.home + slope * np.arange(steps)[:, None]
        return Chunk(self.probe.now_ns() - age_ns, self.sequence, PERIOD_NS, positions, "scripted")

    def send(self, chunk, change=lambda message: None):
        from depthvla_msgs.msg import ActionChunk

        from depthvla_control.ros import qos
        from depthvla_control.ros.messages import chunk_to_message

        if self._chunks is None:
            self._chunks = self.probe.publisher(ActionChunk, f"{NODE}/action_chunk", qos.chunks())
            self.probe.wait_for(self._chunks.get_subscription_count, what="the executor's chunk subscription")
        message = chunk_to_message(chunk, self.robot)
        change(message)
        self._chunks.publish(message)

    def newest(self):
        """(14,) the newest command of every limb; None before there is one of each."""
        if not all(self.commands.values()):
            return None
        pose = np.empty(self.robot.size)
        for limb in self.robot.limbs:
            pose[limb.arm] = self.commands["arm", limb.name][-1].position
            pose[limb.gripper_index] = self.commands["gripper", limb.name][-1].position[0]
        return pose

    def wait_for_mode(self, mode, text=""):
        def reached():
            status = self.status[-1] if self.status else None
            return status if status and status.mode == mode and text in status.cause else None

        try:
            return self.probe.wait_for(reached, what=f"{mode.name} {text!r}")
        except AssertionError as error:
            raise AssertionError(f"{error}; last: {self.status[-1:]}\n{self.node.output()}") from None

    def command_count(self):
        return sum(map(len, self.commands.values()))

    def close(self):
        self.node.__exit__()
        self.probe.__exit__()


@pytest.fixture
def rig(ros, robot, home):
    rigs = []

    def make(**options):
        rigs.append(Rig(ros, robot, home, **options))
        return rigs[-1]

    yield make
    for item in rigs:
        item.close()


def test_chunks_become_commands_of_the_right_values_at_the_control_rate(rig, robot):
    rig = rig()
    rig.engage()
    np.testing.assert_allclose(rig.newest(), rig.home)
    chunk = rig.chunk()
    rig.send(chunk)
    rig.wait_for_mode(Mode.POLICY)
    final = rig.wait_for_mode(Mode.HOLD, "policy silent")
    # Commands lie where the chunk is at their own stamps.
    arm = rig.commands["arm", "right"]
    stamps = np.array([message.header.stamp.sec * 10**9 + message.header.stamp.nanosec for message in arm])
    during = (stamps > chunk.stamp_ns + 4 * PERIOD_NS) & (stamps < chunk.stamp_ns + 14 * PERIOD_NS)
    assert during.sum() >= 7
    for message, stamp in zip(np.array(arm, dtype=object)[during], stamps[during], strict=True):
        expected = rig.home[robot.limb("right").arm] + 0.01 * (stamp - chunk.stamp_ns) / PERIOD_NS
        np.testing.assert_allclose(message.position, expected, atol=1e-5)
        assert list(message.name) == list(robot.limb("right").joints)
        np.testing.assert_array_equal(message.velocity, 1.0)
    np.testing.assert_allclose(np.median(np.diff(stamps)) * 1e-9, 1 / 15, rtol=0.1)
    assert final.chunks_accepted == 1 and final.commands_sent >= 4 * 16
    np.testing.assert_allclose(rig.newest(), chunk.positions[-1], atol=1e-6)


def test_nothing_is_published_unless_armed(rig):
    rig = rig()
    rig.probe.wait_for(lambda: len(rig.status) > 5, what="status")
    rig.send(rig.chunk())
    rig.probe.wait_for(lambda: rig.status[-1].chunks_accepted == 1, what="the chunk")
    heard = len(rig.status)
    rig.probe.wait_for(lambda: len(rig.status) > heard + 10, what="ticks")
    assert rig.command_count() == 0
    assert {status.mode for status in rig.status} == {Mode.DISARMED}
    rig.arm()
    assert rig.probe.trigger(f"{NODE}/disarm").success
    rig.wait_for_mode(Mode.DISARMED, "~/disarm")
    time.sleep(0.1)  # what was on its way arrives
    count, heard = rig.command_count(), len(rig.status)
    rig.probe.wait_for(lambda: len(rig.status) > heard + 10, what="ticks")
    assert rig.command_count() == count


def test_bad_chunks_are_refused_with_a_reason_and_move_nothing(rig):
    rig = rig()
    rig.arm()
    bad = rig.chunk(slope=0.05)
    bad.positions[9, 4] = np.nan
    rig.send(bad)
    status = rig.probe.wait_for(lambda: next((s for s in rig.status if s.chunks_refused == 1), None), what="a refusal")
    assert "non-finite" in status.last_refusal and "left_arm_joint5" in status.last_refusal

    def rename(message):
        message.right_arm.joint_names[2] = "elbow"

    rig.send(rig.chunk(slope=0.05), rename)
    status = rig.probe.wait_for(lambda: next((s for s in rig.status if s.chunks_refused == 2), None), what="a refusal")
    assert "elbow" in status.last_refusal
    rig.send(rig.chunk(age_ns=5 * 10**9))
    rig.probe.wait_for(lambda: rig.status[-1].chunks_refused == 3, what="a refusal")
    assert rig.status[-1].mode == Mode.HOLD and rig.status[-1].chunks_accepted == 0
    np.testing.assert_allclose(rig.newest(), rig.home)


def test_stop_holds_until_the_policy_is_put_in_command_again(rig):
    rig = rig()
    rig.engage()
    timer = rig.probe.every(0.1, lambda: rig.send(rig.chunk(slope=0.002)))
    rig.wait_for_mode(Mode.POLICY)
    assert rig.probe.trigger(f"{NODE}/stop").success
    rig.wait_for_mode(Mode.HOLD, "~/stop")
    accepted = rig.status[-1].chunks_accepted
    rig.probe.wait_for(lambda: rig.status[-1].chunks_accepted > accepted + 3, what="chunks while stopped")
    assert rig.status[-1].mode == Mode.HOLD
    held = rig.newest()
    assert rig.probe.trigger(f"{NODE}/arm").success and rig.status[-1].mode == Mode.HOLD
    assert rig.ask(Mode.POLICY).success
    rig.wait_for_mode(Mode.POLICY)
    timer.cancel()
    assert np.isfinite(held).all()


def test_a_person_takes_over_and_gives_back_by_pedal(rig):
    rig = rig()
    rig.engage()
    timer = rig.probe.every(0.1, lambda: rig.send(rig.chunk(slope=0.002)))
    rig.wait_for_mode(Mode.POLICY)
    rig.leader = rig.home + np.where(rig.robot.gripper_mask, 0.0, 0.05)
    rig.probe.wait_for(lambda: rig.ask(Mode.TELEOP).success, what="the leader arms")
    assert rig.ask(Mode.POLICY).success
    for pressed, mode in ((True, Mode.TELEOP), (False, Mode.POLICY)):
        rig.press(pressed)
        rig.wait_for_mode(mode, "~/takeover")
        if mode is Mode.TELEOP:
            rig.probe.wait_for(lambda: np.allclose(rig.newest(), rig.leader, atol=1e-3), what="arms at the leader")
    changes = [(change.previous, change.mode) for change in rig.modes if "~/takeover" in change.cause]
    assert changes == [(Mode.POLICY, Mode.TELEOP), (Mode.TELEOP, Mode.POLICY)], "repeating itself it switches once"
    assert [change.intervention for change in rig.modes if "~/takeover" in change.cause] == [True, False]
    # A policy that is silent when the pedal is released does not get the arms; nobody has them.
    rig.press(True)
    rig.wait_for_mode(Mode.TELEOP)
    timer.cancel()
    newest = rig.status[-1].sequence
    rig.probe.wait_for(lambda: rig.probe.now_ns() > rig.chunk_ends_ns, what=f"the end of chunk {newest}")
    rig.press(False)
    rig.wait_for_mode(Mode.HOLD, "the policy cannot take over, holding instead")


def test_a_pedal_that_falls_silent_while_pressed_holds_the_arms(rig):
    rig = rig()
    rig.arm()
    rig.leader = rig.home
    rig.probe.wait_for(lambda: rig.ask(Mode.TELEOP).success and rig.ask(Mode.HOLD).success, what="the leader arms")
    rig.press(True)
    rig.wait_for_mode(Mode.TELEOP, "~/takeover")
    rig.let_go()
    rig.wait_for_mode(Mode.HOLD, "~/takeover fell silent for 0.5 s while pressed")
    rig.press(True)  # the same press is heard again
    heard = len(rig.status)
    rig.probe.wait_for(lambda: len(rig.status) > heard + 15, what="ticks with the pedal back")
    assert {status.mode for status in rig.status[heard:]} == {Mode.HOLD}
    rig.press(False)
    rig.press(True)
    rig.wait_for_mode(Mode.TELEOP, "~/takeover")


def test_a_pedal_that_lost_teleoperation_neither_takes_it_back_nor_gives_it_to_the_policy(rig):
    rig = rig()
    rig.arm()
    rig.leader = rig.home
    timer = rig.probe.every(0.1, lambda: rig.send(rig.chunk(slope=0.0)))
    rig.probe.wait_for(lambda: rig.ask(Mode.TELEOP).success and rig.ask(Mode.HOLD).success, what="the leader arms")
    rig.press(True)
    rig.wait_for_mode(Mode.TELEOP, "~/takeover")
    assert rig.probe.trigger(f"{NODE}/stop").success
    assert rig.ask(Mode.TELEOP).success  # at the console: no longer the pedal's
    rig.press(False)
    heard = len(rig.status)
    rig.probe.wait_for(lambda: len(rig.status) > heard + 15, what="ticks after the release")
    timer.cancel()
    assert {status.mode for status in rig.status[heard:]} == {Mode.TELEOP}


def test_a_switch_over_a_gap_is_refused_with_the_gap_in_the_answer(rig):
    rig = rig()
    rig.arm()
    rig.leader = rig.home + np.where(rig.robot.gripper_mask, 0.0, 0.8)
    rig.probe.wait_for(lambda: rig.ask(Mode.TELEOP).gap_rad > 0.0, what="the leader arms")
    answer = rig.ask(Mode.TELEOP)
    assert not answer.success and answer.gap_rad == pytest.approx(0.8, abs=1e-3)
    assert "0.80 rad" in answer.message and "limit 0.60 rad" in answer.message
    for mode in (Mode.FAULT, 99):
        assert not (answer := rig.ask(mode)).success
        assert answer.message == f"mode is {int(mode)}; allowed: 0 DISARMED, 1 HOLD, 2 TELEOP, 3 POLICY"
    np.testing.assert_allclose(rig.newest(), rig.home)


def test_the_mode_is_latched_with_its_cause(rig):
    from depthvla_msgs.msg import ModeChange

    from depthvla_control.ros import qos

    rig = rig()
    rig.arm()
    late = rig.probe.listen(ModeChange, f"{NODE}/mode", qos.status())
    rig.probe.wait_for(lambda: late, what="the mode for a late listener")
    assert late[-1].mode == Mode.HOLD and late[-1].previous == Mode.DISARMED and "~/arm" in late[-1].cause


def test_a_cause_whose_numbers_change_at_every_tick_is_said_once(rig):
    rig = rig()
    rig.engage()
    far = np.where(rig.robot.gripper_mask, 0.0, 0.9)
    chunk = rig.chunk(slope=0.01)
    rig.send(dataclasses.replace(chunk, positions=chunk.positions + far))
    rig.wait_for_mode(Mode.HOLD, "the policy wants an arm joint")
    rig.probe.wait_for(lambda: len({s.cause for s in rig.status if "wants an arm" in s.cause}) > 3, what="numbers")
    assert len([change for change in rig.modes if "wants an arm" in change.cause]) == 1
    assert rig.node.output().count("HOLD: the policy wants an arm joint") == 1


def test_a_policy_that_withdraws_is_held_although_steps_are_left(rig):
    from depthvla_msgs.msg import PolicyStatus

    rig = rig()
    rig.engage()
    rig.send(rig.chunk(slope=0.002))
    rig.wait_for_mode(Mode.POLICY)
    rig.policy_status.publish(PolicyStatus(withdrawn=True, reason="camera head is frozen"))
    status = rig.wait_for_mode(Mode.HOLD, "camera head is frozen")
    assert status.chunk_age.sec == 0


def test_a_withdrawal_that_comes_after_a_newer_chunk_drops_nothing(rig):
    from depthvla_msgs.msg import PolicyStatus

    from depthvla_control.ros.messages import time_message

    rig = rig()
    rig.engage()
    rig.send(rig.chunk(slope=0.002))
    rig.wait_for_mode(Mode.POLICY)
    late = PolicyStatus(withdrawn=True, reason="camera head is frozen")
    late.header.stamp = time_message(rig.probe.now_ns() - 500_000_000)
    rig.policy_status.publish(late)
    rig.send(rig.chunk(slope=0.002))
    rig.probe.wait_for(lambda: rig.status[-1].sequence == 2, what="the next chunk in execution")
    assert not any("withdrew" in status.cause for status in rig.status)


def in_motion(rig):
    """In POLICY, with chunks that come and an arm that moves at 0.6 rad/s."""
    rig.engage()
    begin = rig.probe.now_ns()

    def send():
        rig.sequence += 1
        passed = (rig.probe.now_ns() - begin) * 1e-9
        positions = rig.home + 0.6 * (passed + np.arange(16)[:, None] / 15.0) * ~rig.robot.gripper_mask
        rig.send(Chunk(rig.probe.now_ns(), rig.sequence, PERIOD_NS, np.minimum(positions, rig.home + 1.0), "scripted"))

    timer = rig.probe.every(0.1, send)
    rig.probe.wait_for(lambda: speed(rig) > 0.5, what="arms in motion")
    return timer


def speed(rig):
    """rad/s, of the newest commands."""
    stream = rig.stream()
    return float(np.abs(stream[-1] - stream[-2]).max()) * 15.0 if len(stream) > 1 else 0.0


@pytest.mark.parametrize("end", ["disarm", "set_mode", "deactivate", "SIGTERM", "SIGINT"])
def test_a_stream_that_is_ended_in_motion_brakes_first(rig, end):
    """Its last command repeats a pose at rest; nothing comes after it."""
    from lifecycle_msgs.msg import Transition
    from lifecycle_msgs.srv import ChangeState

    rig = rig()
    in_motion(rig)
    if end == "disarm":
        assert rig.probe.trigger(f"{NODE}/disarm").success
    elif end == "set_mode":
        assert rig.ask(Mode.DISARMED).success
    elif end == "deactivate":
        request = ChangeState.Request(transition=Transition(id=Transition.TRANSITION_DEACTIVATE))
        assert rig.probe.call(ChangeState, f"{NODE}/change_state", request).success
    else:
        assert rig.node.stop(getattr(signal, end)) == 0
    status = rig.wait_for_mode(Mode.DISARMED)
    assert status.cause in ("disarmed by ~/disarm", "asked for by ~/set_mode", "deactivated")
    rig.probe.wait_for(lambda: rig.commands_are_all_heard(status), what="the last commands")
    steps = np.abs(np.diff(rig.stream(), axis=0)).max(axis=1)
    assert steps[-5:-1].max() > 0.005 and steps[-1] < 1e-6


def test_the_speed_scale_survives_a_deactivation(rig):
    from lifecycle_msgs.msg import Transition
    from lifecycle_msgs.srv import ChangeState
    from rcl_interfaces.msg import Parameter, ParameterType, ParameterValue
    from rcl_interfaces.srv import SetParameters

    rig = rig()
    rig.arm()
    value = ParameterValue(type=ParameterType.PARAMETER_DOUBLE, double_value=0.2)
    request = SetParameters.Request(parameters=[Parameter(name="speed_scale", value=value)])
    assert rig.probe.call(SetParameters, f"{NODE}/set_parameters", request).results[0].successful
    for transition in (Transition.TRANSITION_DEACTIVATE, Transition.TRANSITION_ACTIVATE):
        request = ChangeState.Request(transition=Transition(id=transition))
        assert rig.probe.call(ChangeState, f"{NODE}/change_state", request).success
    rig.engage()
    timer = rig.probe.every(0.1, lambda: rig.send(rig.chunk(slope=0.05)))
    rig.probe.wait_for(lambda: speed(rig) > 0.1, what="arms in motion")
    heard = len(rig.status)
    rig.probe.wait_for(lambda: len(rig.status) > heard + 15, what="more commands")
    timer.cancel()
    speeds = np.abs(np.diff(rig.stream(), axis=0)) * 15.0
    limit = 0.2 * rig.robot.command_velocity[rig.robot.limb("left").arm]
    assert np.all(speeds <= limit + 1e-3)
    caps = np.array([message.velocity for message in rig.commands["arm", "left"]])
    assert np.all(caps[-10:] <= 0.2 * rig.robot.tracker_velocity + 1e-9)


def test_when_feedback_was_lost_nothing_moves_by_itself(rig):
    rig = rig(feedback_lost_s=0.5)
    chunks = in_motion(rig)
    rig.timer.cancel()
    rig.wait_for_mode(Mode.HOLD, "no commands until it is back")
    sent = rig.status[-1].commands_sent
    heard = len(rig.status)
    rig.probe.wait_for(lambda: len(rig.status) > heard + 5, what="more ticks")
    assert rig.status[-1].commands_sent == sent
    rig.measured = rig.home + np.where(rig.robot.gripper_mask, 0.0, -0.3)
    rig.timer.reset()
    rig.wait_for_mode(Mode.HOLD, "feedback was lost and is back")
    rig.probe.wait_for(lambda: len(rig.stream()) and rig.status[-1].commands_sent > sent + 40, what="commands again")
    arms = ~rig.robot.gripper_mask
    np.testing.assert_allclose(rig.newest()[arms], rig.measured[arms])
    assert rig.status[-1].mode == Mode.HOLD
    chunks.cancel()
    rig.probe.wait_for(lambda: rig.ask(Mode.POLICY).success, what="the policy in command, once its last chunk is over")


def test_in_a_simulation_the_policy_goes_on_by_itself_after_a_pause_unless_a_person_decided(rig):
    rig = rig(feedback_lost_s=0.5, mode_on_activate="POLICY")
    timer = rig.probe.every(0.1, lambda: rig.send(rig.chunk(slope=0.0)))
    rig.wait_for_mode(Mode.POLICY)
    for asked, then in ((False, Mode.POLICY), (True, Mode.HOLD)):
        if asked:
            assert rig.ask(Mode.HOLD).success
        rig.timer.cancel()
        rig.wait_for_mode(Mode.HOLD, "no commands until it is back")
        rig.timer.reset()
        rig.wait_for_mode(then, "the policy sends chunks" if then is Mode.POLICY else "feedback was lost and is back")
    timer.cancel()


def test_an_executor_that_was_stopped_itself_starts_anew_where_the_arms_are(rig):
    rig = rig(feedback_lost_s=0.5)
    in_motion(rig)
    rig.node.process.send_signal(signal.SIGSTOP)
    stopped_ns = rig.probe.now_ns()
    rig.measured = rig.home + np.where(rig.robot.gripper_mask, 0.0, -0.3)
    rig.probe.wait_for(lambda: rig.probe.now_ns() - stopped_ns > 1_500_000_000, what="a pause that counts")
    heard = len(rig.stream())
    rig.node.process.send_signal(signal.SIGCONT)
    rig.wait_for_mode(Mode.HOLD, "feedback was lost and is back")
    rig.probe.wait_for(lambda: len(rig.stream()) > heard + 10, what="commands again")
    stream = rig.stream()[heard + 1 :]
    np.testing.assert_allclose(stream, np.broadcast_to(rig.measured[rig.robot.limb("left").arm], stream.shape))


def test_what_is_going_to_be_done_is_published_while_the_policy_is_in_command(rig, robot):
    from depthvla_msgs.msg import Plan

    from depthvla_control.ros import qos
    from depthvla_control.ros.messages import plan_from_message

    rig = rig()
    plans = rig.probe.listen(Plan, f"{NODE}/plan", qos.chunks(0.0))
    rig.engage()
    rig.send(rig.chunk(slope=0.002, age_ns=300_000_000))
    rig.probe.wait_for(lambda: plans and plans[-1].sequence == 1, what="a plan when the policy takes command")
    chunk = rig.chunk(slope=0.002, age_ns=80_000_000)
    rig.send(chunk)
    rig.probe.wait_for(lambda: plans[-1].sequence == 2, what="a plan for the next chunk")
    plan = plan_from_message(plans[-1], robot)
    assert (plan.stamp_ns, plan.sequence) == (chunk.stamp_ns, chunk.sequence)
    assert plan.latency_ns > 80_000_000 and plan.positions.shape == (16, 14)
    rig.wait_for_mode(Mode.HOLD)
    rig.probe.wait_for(lambda: len(plan_from_message(plans[-1], robot).positions) == 0, what="an empty plan")


def test_before_it_is_armed_the_policy_moves_a_shadow_only(rig, robot):
    from sensor_msgs.msg import JointState

    rig = rig()
    limb = robot.limb("left")
    shadow = rig.probe.listen(JointState, f"{NODE}/shadow{limb.topics.arm_command}")
    timer = rig.probe.every(0.1, lambda: rig.send(rig.chunk(slope=0.01)))
    rig.probe.wait_for(lambda: len(shadow) > 10, what="shadow commands")
    timer.cancel()
    assert rig.command_count() == 0
    assert np.ptp([message.position for message in shadow], axis=0).max() > 0.003
    assert rig.status[-1].mode == Mode.DISARMED and 0.0 < rig.status[-1].shadow_error_rad < 0.2


def test_arming_is_refused_beside_another_publisher_and_one_that_comes_later_is_a_fault(ros, rig, robot):
    from sensor_msgs.msg import JointState

    rig = rig()
    rig.probe.wait_for(lambda: rig.status, what="status")
    topic = robot.limb("right").topics.gripper_command
    with ros.Probe("rival") as rival:
        publisher = rival.publisher(JointState, topic)

        def refusal():
            answer = rig.probe.trigger(f"{NODE}/arm")
            rig.probe.trigger(f"{NODE}/disarm")  # the rival may not have been discovered yet
            return not answer.success and f"/rival publishes to {topic}" in answer.message

        rig.probe.wait_for(refusal, what="a refusal that names the rival")
        rival.node.destroy_publisher(publisher)
        rig.arm()
        rival.publisher(JointState, topic)
        rig.wait_for_mode(Mode.FAULT, "/rival publishes to")
        assert not rig.ask(Mode.POLICY).success
    assert rig.probe.trigger(f"{NODE}/reset_fault").success
    rig.wait_for_mode(Mode.HOLD)


def test_a_node_that_is_known_to_stay_silent_may_have_a_publisher(ros, rig, robot):
    from sensor_msgs.msg import JointState

    rig = rig(allowed_publishers=["/rival@here"])
    with ros.Probe("rival") as rival:
        rival.publisher(JointState, robot.limb("right").topics.gripper_command)
        rig.arm()
        heard = len(rig.status)
        rig.probe.wait_for(lambda: len(rig.status) > heard + 20, what="ticks")
        assert rig.status[-1].mode == Mode.HOLD


class LateWriter:
    """A node called `late`, which the executor does not know by name before `become_known`."""

    def __init__(self, ros, robot, names):
        self._probe, self._topic, self._names = ros.Probe("late"), robot.limb("left").topics.arm_command, names

    def come(self, rig):
        from sensor_msgs.msg import JointState

        self._publisher = self._probe.publisher(JointState, self._topic)
        rig.wait_for_mode(Mode.HOLD, f"a node that is not known yet publishes to {self._topic}")

    def become_known(self):
        self._names.touch()

    def forget(self):
        self._names.unlink()

    def leave(self):
        self._probe.node.destroy_publisher(self._publisher)

    def close(self):
        self._probe.__exit__()


@pytest.fixture
def late(ros, robot, tmp_path):
    writer = LateWriter(ros, robot, tmp_path / "names")
    yield writer
    writer.close()


@pytest.fixture
def moving(rig, tmp_path):
    """Makes a rig that learns names late, with the policy in command."""

    def make(**parameters):
        environment = {"NAMES_FILE": str(tmp_path / "names")}
        made = rig(module="fixtures.executor_that_learns_names_late", environment=environment, **parameters)
        made.engage()
        made.probe.every(0.1, lambda: made.send(made.chunk(slope=0.002)))
        made.wait_for_mode(Mode.POLICY)
        return made

    return make


def test_arms_are_held_until_an_unknown_publisher_turns_out_to_be_an_allowed_one(moving, late):
    rig = moving(allowed_publishers=["/late"])
    late.come(rig)
    heard, taken = len(rig.status), rig.status[-1].chunks_accepted
    rig.probe.wait_for(lambda: rig.status[-1].chunks_accepted > taken + 2, what="more chunks")
    assert {status.mode for status in rig.status[heard:]} <= {Mode.HOLD}
    late.become_known()
    rig.wait_for_mode(Mode.POLICY)


def test_a_person_who_was_interrupted_goes_on_and_may_give_back_meanwhile(moving, late):
    rig = moving(allowed_publishers=["/late"])
    rig.leader = rig.home + np.where(rig.robot.gripper_mask, 0.0, 0.05)
    rig.probe.wait_for(lambda: rig.ask(Mode.TELEOP).success, what="teleoperation")
    rig.press(True)
    rig.wait_for_mode(Mode.TELEOP, "~/takeover")
    late.come(rig)
    late.become_known()
    rig.wait_for_mode(Mode.TELEOP, "is an allowed one")
    late.leave()
    late.forget()
    late.come(rig)
    rig.press(False)
    heard = len(rig.status)
    rig.probe.wait_for(lambda: len(rig.status) > heard + 10, what="ticks")
    assert {status.mode for status in rig.status[heard:]} == {Mode.HOLD}
    late.become_known()
    rig.wait_for_mode(Mode.POLICY)


def test_an_unknown_publisher_that_turns_out_to_be_a_rival_is_a_fault(moving, late):
    rig = moving()
    late.come(rig)
    late.become_known()
    rig.wait_for_mode(Mode.FAULT, "/late publishes to")


def test_an_unknown_publisher_that_leaves_unknown_is_a_fault(moving, late):
    rig = moving(allowed_publishers=["/late"])
    late.come(rig)
    late.leave()
    rig.wait_for_mode(Mode.FAULT, "left before it was known")


def test_after_a_request_nothing_goes_on_by_itself_when_an_unknown_publisher_becomes_known(moving, late):
    rig = moving(allowed_publishers=["/late"])
    late.come(rig)
    assert rig.probe.trigger(f"{NODE}/stop").success
    late.become_known()
    heard = len(rig.status)
    rig.probe.wait_for(lambda: len(rig.status) > heard + 10, what="ticks")
    assert {status.mode for status in rig.status[heard:]} == {Mode.HOLD}
    assert rig.ask(Mode.POLICY).success
    rig.wait_for_mode(Mode.POLICY)


def test_the_speed_scale_may_be_changed_while_running(ros, rig, robot):
    from rcl_interfaces.msg import Parameter, ParameterValue
    from rcl_interfaces.srv import SetParameters

    rig = rig(catch_up_scale=1.0)
    rig.engage()

    def set_scale(value):
        parameter = Parameter(name="speed_scale", value=ParameterValue(type=3, double_value=value))
        return rig.probe.call(SetParameters, f"{NODE}/set_parameters", SetParameters.Request(parameters=[parameter]))

    assert set_scale(0.1).results[0].successful
    assert not set_scale(7.0).results[0].successful
    rig.send(rig.chunk(slope=0.05))
    rig.wait_for_mode(Mode.POLICY)
    rig.wait_for_mode(Mode.HOLD)
    commands = np.array([message.position for message in rig.commands["arm", "left"]])
    most = 0.1 * robot.command_velocity[0] / 15
    assert 0.5 * most < np.abs(np.diff(commands[:, 0])).max() <= most * 1.1


def test_arm_is_refused_without_feedback(rig):
    rig = rig()
    rig.timer.cancel()
    rig.probe.wait_for(lambda: rig.status, what="status")
    time.sleep(0.3)  # what was sent goes stale
    response = rig.probe.trigger(f"{NODE}/arm")
    assert not response.success and "feedback of arm left" in response.message
    assert rig.command_count() == 0


def test_joints_are_known_by_their_names(rig, robot, home):
    rig = rig()
    rig.order = [0, 1, 2, 5, 4, 3]
    rig.measured = home + np.where(robot.gripper_mask, 0.0, 0.01 * np.arange(robot.size))
    rig.arm()
    np.testing.assert_allclose(rig.newest(), rig.measured, atol=1e-3)


def test_joints_of_another_arm_are_no_feedback(rig, robot):
    rig = rig()
    rig.order = range(6)
    (left, where), *others = rig._feedback
    rig._feedback = [(left, robot.limb("right").arm), *others]  # with the names and the pose of the right one
    rig.probe.wait_for(lambda: rig.status, what="the executor's status")

    def other_streams_are_heard():
        response = rig.probe.trigger(f"{NODE}/arm")
        assert not response.success
        return "no feedback of arm left yet" in response.message and rig.status[-1].ticks > 10

    rig.probe.wait_for(other_streams_are_heard, what="a refusal")


def test_feedback_that_stops_takes_the_arms_to_hold(rig):
    rig = rig()
    rig.engage()
    timer = rig.probe.every(0.1, lambda: rig.send(rig.chunk(slope=0.002)))
    rig.wait_for_mode(Mode.POLICY)
    rig.timer.cancel()
    rig.wait_for_mode(Mode.HOLD, "feedback of arm left")
    timer.cancel()


def test_a_mode_to_activate_with_is_taken_when_there_is_feedback(rig):
    rig = rig(mode_on_activate="HOLD")
    rig.wait_for_mode(Mode.HOLD, "armed on activation")
    rig.probe.wait_for(lambda: rig.newest() is not None, what="commands")
    np.testing.assert_allclose(rig.newest(), rig.home)


@pytest.fixture
def robot_driver(ros, robot):
    """Comes and goes: another node with a publisher on a feedback topic, as a real robot on the same network."""
    from sensor_msgs.msg import JointState

    with contextlib.ExitStack() as stack:

        def come():
            other = stack.enter_context(ros.Probe("robot_driver"))
            return other.publisher(JointState, robot.limbs[1].topics.gripper_feedback)

        yield come


def test_an_executor_does_not_arm_itself_where_a_second_node_publishes_feedback_and_says_why(rig, robot_driver):
    publisher = robot_driver()
    rig = rig(mode_on_activate="HOLD")
    cause = rig.wait_for_mode(Mode.DISARMED, f"not armed: /robot_driver publishes to {publisher.topic_name}").cause
    assert "network:=this_machine" in cause
    assert not rig.probe.trigger(f"{NODE}/arm").success
    assert rig.command_count() == 0


def test_an_executor_that_armed_itself_sends_nothing_more_once_a_second_node_publishes_feedback(rig, robot_driver):
    """Not even commands that hold: to a robot, the simulation's pose is one to go to."""
    rig = rig(mode_on_activate="HOLD")
    rig.wait_for_mode(Mode.HOLD, "armed on activation")
    robot_driver()
    sent = rig.wait_for_mode(Mode.DISARMED, "/robot_driver publishes to").commands_sent
    heard = len(rig.status)
    rig.probe.wait_for(lambda: len(rig.status) > heard + 15, what="more ticks")
    assert {(status.mode, status.commands_sent) for status in rig.status[heard:]} == {(Mode.DISARMED, sent)}
    assert not rig.probe.trigger(f"{NODE}/arm").success


def test_an_executor_does_not_arm_itself_on_feedback_that_is_not_of_its_simulation(rig):
    rig = rig(mode_on_activate="HOLD", feedback_publisher="/simulator_node")
    rig.wait_for_mode(Mode.DISARMED, "/probe publishes to")
    assert rig.command_count() == 0


def test_an_executor_arms_itself_on_the_feedback_of_its_simulation(rig):
    rig = rig(mode_on_activate="HOLD", feedback_publisher="/probe")
    rig.wait_for_mode(Mode.HOLD, "armed on activation")


def test_a_person_may_arm_beside_two_publishers_of_feedback(rig, robot_driver):
    robot_driver()
    rig().arm()


def test_a_killed_chunk_source_holds_the_last_pose_before_its_steps_run_out(ros, rig, robot, home):
    rig = rig()
    rig.engage()
    source = ros.NodeProcess("fixtures.chunk_source")
    with source:
        rig.wait_for_mode(Mode.POLICY)
        heard = len(rig.status)
        rig.probe.wait_for(lambda: len(rig.status) > heard + 15, what="ticks under the policy")
        source.process.kill()
        killed = time.monotonic()
        status = rig.wait_for_mode(Mode.HOLD, "no sign of life")
        held_after = time.monotonic() - killed
    pose, heard = rig.newest(), len(rig.status)
    rig.probe.wait_for(lambda: len(rig.status) > heard + 10, what="ticks in hold")
    np.testing.assert_array_equal(rig.newest(), pose)
    assert np.isfinite(pose).all() and np.any(pose != home)
    assert status.steps_left == 0 and status.sequence == 0
    assert held_after < 16 * PERIOD_NS * 1e-9


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_the_stream_and_the_process_cleanly(rig, number):
    rig = rig()
    rig.arm()
    assert rig.node.stop(number) == 0
    assert "Traceback" not in rig.node.output()
    assert rig.status[-1].mode == Mode.DISARMED
    time.sleep(0.1)
    count = rig.command_count()
    time.sleep(0.2)
    assert rig.command_count() == count


def test_the_control_thread_has_real_time_priority_or_says_why_not(rig):
    rig = rig()
    rig.probe.wait_for(lambda: rig.status, what="status")
    scheduler = os.sched_getscheduler(rig.node.process.pid) & ~os.SCHED_RESET_ON_FORK
    assert scheduler == os.SCHED_FIFO or "no real-time priority" in rig.node.output()


def test_lifecycle_without_autostart(rig):
    rig = rig(autostart=False)
    probe = rig.probe
    assert probe.state(NODE) == "unconfigured"
    assert not probe.transition(NODE, "activate")
    assert probe.state(NODE) == "unconfigured"
    for _ in range(2):
        assert probe.transition(NODE, "configure")
        assert not probe.trigger(f"{NODE}/arm").success
        assert probe.transition(NODE, "activate")
        rig.arm()
        assert probe.transition(NODE, "deactivate")
        assert probe.transition(NODE, "cleanup")
        assert probe.state(NODE) == "unconfigured"
        for heard in rig.commands.values():
            heard.clear()
            heard.times_s.clear()
    assert probe.transition(NODE, "configure") and probe.transition(NODE, "activate")
    rig.arm()
    assert probe.transition(NODE, "shutdown")
    assert probe.state(NODE) == "finalized"
    count = rig.command_count()
    time.sleep(0.2)
    assert rig.command_count() == count
    assert rig.node.stop() == 0


@pytest.mark.parametrize(
    ("parameters", "named"),
    [
        ({"max_feedback_age_s": 70.0}, ["max_feedback_age_s", "70.0", "0.02 to 5.0"]),
        ({"command_rate_hz": 15}, ["command_rate_hz", "15", "write 15.0"]),
        ({"command_rate_hz": 1000.0}, ["command_rate_hz", "1000.0", "1.0 to 200.0"]),
        ({"command_reliability": "sometimes"}, ["command_reliability", "sometimes", "best_effort", "reliable"]),
        ({"mode_on_activate": "TELEOP"}, ["mode_on_activate", "TELEOP", "POLICY"]),
        ({"arm_on_start": True}, ["arm_on_start", "mode_on_activate"]),
        ({"strategy": "average"}, ["strategy", "average", "ensemble"]),
        ({"speed_scale": 0.0}, ["speed_scale", "0.0", "0.01 to 1.0"]),
        ({"robot_file": "/no/such.yaml"}, ["/no/such.yaml"]),
        ({"policy_lease_s": 0.05}, ["policy_lease_s", "0.05", "0.2"]),
    ],
)
def test_a_wrong_parameter_ends_the_start_and_is_named(ros, parameters, named):
    with ros.NodeProcess(MODULE, {"autostart": True, **parameters}) as node:
        assert node.wait() == 1
        for text in named:
            assert text in node.output()


def test_its_parameter_file_is_accepted(ros, robot):

    file = Path(__file__).parents[1] / "config" / "chunk_executor_node.param.yaml"
    with ros.NodeProcess(MODULE, {"autostart": True}, params_file=file) as node:
        node.wait_for_output("DISARMED")
        assert node.stop() == 0
