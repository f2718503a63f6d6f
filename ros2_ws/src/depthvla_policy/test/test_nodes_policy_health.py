"""A policy that no longer works says so, and what it says is true whenever it is read."""

from __future__ import annotations

import time
from types import SimpleNamespace

import numpy as np
import pytest
from test_nodes_policy import Robot, stamp_ns

FIXTURE = "fixtures.policy_that_breaks"
NODE = "/policy_node"
MS = 1_000_000


class Broken:
    """The policy that breaks, in front of a scripted robot, and what it says."""

    def __init__(self, ros, robot, home):
        from depthvla_msgs.msg import ActionChunk, PolicyStatus
        from diagnostic_msgs.msg import DiagnosticArray

        from depthvla_control.ros import qos

        self.probe = ros.Probe("robot")
        Robot(self.probe, robot, home)
        self.chunks = self.probe.listen(ActionChunk, f"{NODE}/action_chunk", qos.chunks())
        self.status = self.probe.listen(PolicyStatus, f"{NODE}/status", qos.status())
        self._diagnostics = self.probe.listen(DiagnosticArray, "/diagnostics")
        self.node = ros.NodeProcess(FIXTURE, {"autostart": True, "instruction": "predict", "max_rate_hz": 5.0})
        self.probe.wait_for(lambda: len(self.chunks) > 2, what="chunks")

    def tell(self, instruction):
        from depthvla_msgs.srv import SetInstruction

        request = SetInstruction.Request(instruction=instruction)
        assert self.probe.call(SetInstruction, f"{NODE}/set_instruction", request).success

    def wait_for_status(self, text):
        def found():
            return next((s for s in self.status[-3:] if s.withdrawn and not s.producing and text in s.reason), None)

        return self.probe.wait_for(found, what=f"a withdrawal with {text!r}")

    def wait_for_error(self, text):
        from diagnostic_msgs.msg import DiagnosticStatus

        def found():
            newest = [s for message in self._diagnostics[-20:] for s in message.status if "policy_node" in s.name]
            return newest and newest[-1].level == DiagnosticStatus.ERROR and text in newest[-1].message

        self.probe.wait_for(found, what=f"an error with {text!r}")

    def close(self):
        self.node.__exit__()
        self.probe.__exit__()


@pytest.fixture
def broken(ros, robot, home):
    broken = Broken(ros, robot, home)
    yield broken
    broken.close()


def test_an_inference_that_hangs_or_fails_on_withdraws_the_policy_until_it_works_again(broken):
    for instruction, text in (("hang", "the inference thread hangs"), ("fail", "RuntimeError: out of memory")):
        broken.tell(instruction)
        broken.wait_for_status(text)
        broken.wait_for_error(text)
        broken.tell("predict")
        broken.probe.wait_for(lambda: broken.status[-1].producing, what="chunks again")
    assert broken.node.stop() == 0


def test_a_thread_that_died_is_an_error_and_does_not_keep_the_node_from_ending(broken):
    broken.tell("exit")
    status = broken.wait_for_status("the inference thread died: SystemExit: this thread wants to go")
    assert stamp_ns(status) >= max(map(stamp_ns, broken.chunks))
    broken.wait_for_error("the inference thread died")
    assert broken.probe.transition(NODE, "deactivate")
    broken.tell("predict")
    assert broken.probe.transition(NODE, "activate")
    broken.probe.wait_for(lambda: broken.status[-1].producing, what="chunks of the new thread")
    assert broken.node.stop() == 0


class ByHand:
    """A policy node of this process whose inference thread is the test: nobody spins it, so every order can be had."""

    def __init__(self, node, robot):
        self.node, self.robot, self.sent = node, robot, []
        self.now = 1_700_000_000_000 * MS
        node._now_ns = lambda: self.now
        node._chunk_publisher = SimpleNamespace(publish=lambda chunk: self.sent.append(("chunk", stamp_ns(chunk))))
        node._status_publisher = SimpleNamespace(
            publish=lambda s: self.sent.append(("withdrawn" if s.withdrawn else s.reason or "producing", stamp_ns(s)))
        )

    def blind(self, after_ns=10 * MS):
        from depthvla_control.refusal import Reason, Refusal

        self.now += after_ns
        self.node._report(Refusal(Reason.STALE, "camera head is 0.3 s old", "camera head"))

    def chunk(self, of_ns, after_ns=50 * MS):
        self.now += after_ns
        prediction = SimpleNamespace(
            actions=np.zeros((16, self.robot.size)), depth_m={}, preprocess_s=0.0, inference_s=0.0
        )
        raw = SimpleNamespace(stamp_ns=of_ns, stamps_ns={}, images={})
        observation = SimpleNamespace(instruction="lift", images={})
        self.node._publish_chunk(
            SimpleNamespace(
                raw=raw,
                prediction=prediction,
                observation=observation,
                sequence=1,
                decode_s=0.0,
                begin_s=time.perf_counter(),
                continuation=None,
            )
        )


@pytest.fixture
def by_hand(ros, robot):
    import rclpy
    from fixtures.policy_that_breaks import load
    from rclpy.context import Context
    from rclpy.lifecycle import TransitionCallbackReturn

    from depthvla_policy.nodes.policy_node import PolicyNode

    context = Context()
    rclpy.init(context=context)
    node = PolicyNode(load, context=context)
    assert node.trigger_configure() == node.trigger_activate() == TransitionCallbackReturn.SUCCESS
    node._loop.stop(10.0)  # the test is its thread now
    yield ByHand(node, robot)
    node.trigger_shutdown()
    node.destroy_node()
    rclpy.shutdown(context=context)


def test_a_status_never_has_an_older_state_after_a_newer_chunk(by_hand):
    by_hand.blind()
    by_hand.chunk(of_ns=by_hand.now + 1 * MS)
    by_hand.node._publish_status()  # the executor's thread was late
    assert [what for what, _ in by_hand.sent] == ["chunk", "producing"]


def test_a_chunk_of_before_a_withdrawal_does_not_follow_it(by_hand):
    image_ns = by_hand.now
    by_hand.blind()
    by_hand.node._publish_status()
    by_hand.chunk(of_ns=image_ns)
    by_hand.chunk(of_ns=by_hand.now)
    assert [what for what, _ in by_hand.sent] == ["withdrawn", "chunk"]
    (_, withdrawn_ns), (_, chunk_ns) = by_hand.sent
    assert image_ns <= withdrawn_ns < chunk_ns


def test_a_withdrawal_is_stamped_when_it_became_true_and_no_older_than_the_chunks_that_it_withdraws(by_hand):
    ahead_ns = by_hand.now + 200 * MS  # a camera's clock may be ahead
    by_hand.chunk(of_ns=ahead_ns)
    by_hand.blind()
    by_hand.node._publish_status()
    since_ns = by_hand.sent[-1][1]
    assert since_ns == ahead_ns
    for _ in range(3):
        by_hand.blind(1000 * MS)
    by_hand.node._publish_status()
    assert by_hand.sent[-1] == ("withdrawn", since_ns)
