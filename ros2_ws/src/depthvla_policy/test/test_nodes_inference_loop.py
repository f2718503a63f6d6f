from __future__ import annotations

import threading
from types import SimpleNamespace

import numpy as np
import pytest

from depthvla_control.execution_plan import Continuation
from depthvla_control.refusal import Reason
from depthvla_policy.nodes.policy.inference_loop import InferenceLoop
from depthvla_policy.policy.observation_buffer import ObservationBuffer, camera_stream

MS = 1_000_000
T0 = 1_700_000_000_000 * MS
CAMERAS = ("head", "wrist_left")


class Bench:
    """A loop driven by hand, with a policy that answers what it is told to."""

    def __init__(self, robot, pose, **options):
        self.robot, self.pose, self.now = robot, pose, T0
        self.buffer = ObservationBuffer(robot, CAMERAS)
        self.results, self.refusals, self.asked, self.damaged = [], [], [], set()
        self.instruction, self.depth, self.answer = "lift", False, None
        self.continued, self.fitted, self.decoded = [], [], []
        self.broken = None  # what polling raises
        self.loop = InferenceLoop(
            buffer=self.buffer,
            policy=SimpleNamespace(infer=self._infer, image_fit=SimpleNamespace(apply=lambda image: image[:1])),
            decode=self._decode,
            poll=self._poll,
            instruction=lambda: self.instruction,
            depth_wanted=lambda: self.depth,
            result=self.results.append,
            refused=self.refusals.append,
            now_ns=lambda: self.now,
            steady_s=lambda: self.now * 1e-9,
            **options,
        )

    def _poll(self):
        if self.broken:
            raise self.broken

    def _decode(self, payload):
        self.decoded.append(payload)
        if payload.split("@")[0] in self.damaged:
            raise ValueError(f"{payload} is not whole")
        return np.full((2, 2, 3), len(payload), np.uint8)

    def _infer(self, observation, *, depth, fitted, **continuation):
        self.asked.append((observation, depth))
        self.fitted.append(fitted)
        self.continued.append(continuation)
        if isinstance(self.answer, Exception):
            raise self.answer
        actions = np.zeros((16, self.robot.size)) if self.answer is None else self.answer
        return SimpleNamespace(actions=actions, depth_m={}, preprocess_s=0.0, inference_s=0.0)

    def frame(self, advance_ns=66 * MS, cameras=CAMERAS):
        self.now += advance_ns
        for camera in cameras:
            payload = f"{camera}@{self.now}"
            self.loop.expect(camera, payload)
            self.buffer.add_image(camera, self.now, payload, self.now)
        for limb in self.robot.limbs:
            self.buffer.add_arm(limb.name, self.now, self.pose[limb.arm], self.now)
            self.buffer.add_gripper(limb.name, self.now, [self.pose[limb.gripper_index]], self.now)
        self.loop.attempt()


@pytest.fixture
def bench(robot, home):
    return Bench(robot, home)


def test_every_frame_gives_one_numbered_chunk(bench, home):
    for _ in range(3):
        bench.frame()
        bench.loop.attempt()
    assert [result.sequence for result in bench.results] == [1, 2, 3]
    assert [result.raw.stamp_ns for result in bench.results] == [T0 + k * 66 * MS for k in (1, 2, 3)]
    np.testing.assert_array_equal(bench.asked[0][0].state, home)
    assert bench.refusals == []


def test_depth_is_asked_for_only_while_wanted(bench):
    bench.frame()
    bench.depth = True
    bench.frame()
    bench.depth = False
    bench.frame()
    assert [depth for _, depth in bench.asked] == [False, True, False]


def test_chunks_come_no_faster_than_allowed(robot, home):
    bench = Bench(robot, home, interval_s=0.2)
    for _ in range(300):
        bench.frame()
    stamps = np.array([result.raw.stamp_ns for result in bench.results])
    # Every third image is a little early, so that now and then it has to be the fourth.
    assert set(np.diff(stamps)) == {198 * MS, 264 * MS}
    assert np.mean(np.diff(stamps)) >= 199 * MS


def test_a_chunk_is_made_of_an_image_that_has_just_come(robot, home):
    bench = Bench(robot, home, interval_s=0.2)
    bench.frame()
    bench.frame(advance_ns=150 * MS)  # too early
    bench.now += 60 * MS  # it would be time, but this image is old
    bench.loop.attempt()
    assert len(bench.results) == 1
    bench.frame(advance_ns=1 * MS)
    assert [result.raw.stamp_ns for result in bench.results] == [T0 + 66 * MS, T0 + 277 * MS]


@pytest.mark.parametrize("interval_s", [0.0, 1.0])
def test_a_camera_that_stops_is_reported_at_once_however_seldom_chunks_are_made(robot, home, interval_s):
    bench = Bench(robot, home, interval_s=interval_s)
    bench.frame()
    while not bench.refusals:
        bench.frame(advance_ns=10 * MS, cameras=["head"])
    assert (bench.refusals[0].reason, bench.refusals[0].subject) == (Reason.STALE, "camera wrist_left")
    assert bench.now - (T0 + 66 * MS) == 260 * MS


def test_between_two_chunks_only_what_is_wrong_is_reported(robot, home):
    bench = Bench(robot, home, interval_s=1.0)
    for _ in range(10):
        bench.frame()
    assert len(bench.results) == 1 and bench.refusals == []


def test_a_chunk_continues_what_is_committed_at_its_observation(robot, home):
    continuation, asked_at = Continuation(np.ones((5, robot.size)), 2), []

    def plan(stamp_ns):
        asked_at.append(stamp_ns)
        return continuation if len(asked_at) > 1 else None

    bench = Bench(robot, home, continuation=plan, method="trained")
    bench.frame()
    bench.frame()
    assert asked_at == [result.raw.stamp_ns for result in bench.results]
    assert bench.continued == [{}, {"committed": continuation.committed, "delay": 2, "method": "trained"}]
    assert [result.continuation for result in bench.results] == [None, continuation]


def test_the_policy_gets_every_image_decoded_once_and_fitted(bench):
    bench.frame()
    bench.frame()
    assert sorted(bench.decoded) == sorted(f"{camera}@{T0 + k * 66 * MS}" for camera in CAMERAS for k in (1, 2))
    images = bench.asked[0][0].images
    assert list(images) == list(bench.fitted[0]) == list(CAMERAS)
    for camera, fitted in bench.fitted[0].items():
        np.testing.assert_array_equal(fitted, images[camera][:1])


def test_images_that_newer_ones_will_replace_are_not_decoded(robot, home):
    bench = Bench(robot, home, interval_s=0.6)
    for _ in range(11):
        bench.frame()
    used = [result.raw.stamp_ns for result in bench.results]
    assert len(used) == 2
    assert sorted(bench.decoded) == sorted(f"{camera}@{stamp}" for camera in CAMERAS for stamp in used)


def test_no_instruction_no_chunk(bench):
    bench.instruction = ""
    bench.frame()
    assert bench.results == [] and "set_instruction" in bench.refusals[0].message


def test_the_instruction_of_the_moment_is_used(bench):
    bench.frame()
    bench.instruction = "push"
    bench.frame()
    assert [observation.instruction for observation, _ in bench.asked] == ["lift", "push"]


@pytest.mark.parametrize(
    ("answer", "reason", "text"),
    [
        (ValueError("image is grey"), Reason.FAILED, "ValueError: image is grey"),
        (RuntimeError("out of memory"), Reason.FAILED, "out of memory"),
        (np.full((16, 14), np.nan), Reason.NON_FINITE, "non-finite"),
    ],
)
def test_a_failed_inference_is_a_reason_and_the_next_frame_is_tried(bench, answer, reason, text):
    bench.answer = answer
    bench.frame()
    assert bench.results == [] and bench.refusals[0].reason is reason and text in bench.refusals[0].message
    bench.answer = None
    bench.frame()
    assert [result.sequence for result in bench.results] == [1]


def test_missing_streams_are_reported_and_waiting_is_not(bench):
    bench.loop.attempt()
    assert bench.refusals[0].reason is Reason.MISSING
    bench.frame()
    bench.loop.attempt()
    assert len(bench.refusals) == 1


def test_a_result_that_comes_after_stop_is_dropped(robot, home):
    bench = Bench(robot, home)
    running, release = threading.Event(), threading.Event()

    def slow(observation, **_):
        running.set()
        release.wait(10)
        return SimpleNamespace(actions=np.zeros((16, 14)), depth_m={}, preprocess_s=0.0, inference_s=0.0)

    bench.loop._policy.infer = slow
    worker = threading.Thread(target=bench.frame)
    worker.start()
    assert running.wait(10)
    bench.loop.stop(0.0)
    release.set()
    worker.join(10)
    assert bench.results == []


def test_whatever_raises_is_a_reason_and_the_next_round_is_tried(bench):
    bench.broken = KeyError("left")
    bench.frame()
    bench.broken = None
    bench.loop._continuation, continuation = None, bench.loop._continuation
    bench.frame()
    bench.loop._continuation = continuation
    bench.loop._result, result = None, bench.loop._result
    bench.frame()
    assert [refusal.reason for refusal in bench.refusals] == [Reason.FAILED] * 3 and bench.results == []
    assert "the inference loop failed: KeyError: 'left'" in bench.refusals[0].message
    bench.loop._result = result
    bench.frame()
    assert len(bench.results) == 1 and not bench.loop.worker.problem


@pytest.mark.parametrize("death", [SystemExit("bye"), MemoryError("none left")])
def test_a_thread_that_dies_is_noticed(robot, home, death):
    def refused(_):
        raise death

    bench = Bench(robot, home)
    bench.loop._refused = refused
    bench.broken = death
    bench.loop.start()
    assert bench.loop.worker.join(10.0)
    assert bench.loop.worker.problem == f"the inference thread died: {type(death).__name__}: {death}"
    assert "Traceback" in bench.loop.worker.traceback


def test_a_round_that_takes_too_long_is_a_hang_and_waiting_is_none(robot, home):
    bench = Bench(robot, home, hang_s=1.0)
    begun, release = threading.Event(), threading.Event()

    def hang():
        begun.set()
        release.wait(10)

    bench.loop._poll = hang
    assert not bench.loop.worker.problem
    bench.loop.start()
    assert begun.wait(10)
    assert not bench.loop.worker.problem
    bench.now += 1_500 * MS
    assert bench.loop.worker.problem == "the inference thread hangs: no sign of life for 1.5 s"
    bench.loop._poll = lambda: None
    release.set()
    bench.loop.stop(10.0)
    assert not bench.loop.worker.problem


def test_a_damaged_image_is_refused_and_counted_for_its_camera(bench):
    bench.damaged = {"wrist_left"}
    for _ in range(3):
        bench.frame()
    assert bench.results == [] and {refusal.reason for refusal in bench.refusals} == {Reason.DAMAGED}
    assert "wrist_left@" in bench.refusals[-1].message and bench.refusals[-1].subject == camera_stream("wrist_left")
    assert bench.buffer.refusals[camera_stream("wrist_left"), Reason.DAMAGED] == 3
    assert bench.buffer.refused == 3
    bench.damaged = set()
    bench.frame()
    assert len(bench.results) == 1
