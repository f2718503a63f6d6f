from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from depthvla_control.refusal import Reason, Refusal
from depthvla_policy.policy.observation_buffer import ObservationBuffer, ObservationLimits, RawObservation

MS = 1_000_000
T0 = 1_700_000_000_000 * MS
CAMERAS = ("head", "wrist_left", "wrist_right")


class Scene:
    """A robot whose streams are fed by hand."""

    def __init__(self, robot, pose, limits=None):
        self.robot, self.pose = robot, pose
        self.buffer = ObservationBuffer(robot, CAMERAS, limits)

    def images(self, stamp_ns, cameras=CAMERAS, now_ns=None):
        for camera in cameras:
            self.buffer.add_image(camera, stamp_ns, f"{camera}@{stamp_ns}", now_ns or stamp_ns)

    def joints(self, stamp_ns, now_ns=None, offset=0.0):
        for limb in self.robot.limbs:
            now = now_ns or stamp_ns
            self.buffer.add_arm(limb.name, stamp_ns, self.pose[limb.arm] + offset, now)
            self.buffer.add_gripper(limb.name, stamp_ns, [self.pose[limb.gripper_index]], now)


@pytest.fixture
def scene(robot, home):
    return Scene(robot, home)


def test_complete_streams_make_an_observation_stamped_by_the_head_frame(scene, home):
    scene.images(T0)
    scene.joints(T0 + 2 * MS)
    observation = scene.buffer.take(T0 + 10 * MS)
    assert isinstance(observation, RawObservation)
    assert observation.stamp_ns == T0
    assert observation.images == {camera: f"{camera}@{T0}" for camera in CAMERAS}
    np.testing.assert_array_equal(observation.state, home)


def test_every_image_keeps_its_own_stamp(scene):
    scene.joints(T0)
    stamps = {camera: T0 - index * MS for index, camera in enumerate(CAMERAS)}
    for camera, stamp_ns in stamps.items():
        scene.buffer.add_image(camera, stamp_ns, camera, T0)
    taken = scene.buffer.take(T0 + MS).stamps_ns
    assert {camera: taken[f"camera {camera}"] for camera in CAMERAS} == stamps
    assert {stamp_ns for stream, stamp_ns in taken.items() if not stream.startswith("camera")} == {T0}


def test_a_head_frame_is_used_once(scene):
    scene.images(T0)
    scene.joints(T0)
    assert isinstance(scene.buffer.take(T0), RawObservation)
    again = scene.buffer.take(T0 + MS)
    assert again.reason is Reason.WAITING
    assert scene.buffer.refused == 0


def test_nearest_samples_are_matched(scene):
    scene.images(T0)
    for k in range(-10, 11):
        scene.joints(T0 + k * 5 * MS, now_ns=T0 + 50 * MS, offset=k * 1e-3)
    observation = scene.buffer.take(T0 + 50 * MS)
    np.testing.assert_array_equal(observation.state, scene.pose)


@pytest.mark.parametrize("missing", [*[f"camera {name}" for name in CAMERAS], "arm left", "gripper right"])
def test_a_stream_that_never_came_is_named(scene, robot, missing):
    kind, name = missing.split()
    if kind == "camera":
        scene.images(T0, [camera for camera in CAMERAS if camera != name])
        scene.joints(T0)
    else:
        scene.images(T0)
        for limb in robot.limbs:
            if ("arm", limb.name) != (kind, name):
                scene.buffer.add_arm(limb.name, T0, scene.pose[limb.arm], T0)
            if ("gripper", limb.name) != (kind, name):
                scene.buffer.add_gripper(limb.name, T0, [50.0], T0)
    refusal = scene.buffer.take(T0)
    assert (refusal.reason, refusal.subject) == (Reason.MISSING, missing)
    assert missing in refusal.message


@pytest.mark.parametrize("stopped", CAMERAS)
def test_a_camera_that_stops_is_stale_after_its_age_limit(scene, stopped):
    scene.images(T0)
    for k in range(1, 20):
        now = T0 + k * 20 * MS
        scene.images(now, [camera for camera in CAMERAS if camera != stopped])
        scene.joints(now)
        result = scene.buffer.take(now)
        if now - T0 > 250 * MS:
            assert (result.reason, result.subject) == (Reason.STALE, f"camera {stopped}")
            assert "limit 0.250 s" in result.message
        elif now - T0 > 50 * MS:
            assert isinstance(result, Refusal)


def test_feedback_that_stops_gives_no_observation(scene):
    scene.images(T0)
    scene.joints(T0)
    later = T0 + 220 * MS
    scene.images(later)
    refusal = scene.buffer.take(later)
    assert (refusal.reason, refusal.subject) == (Reason.STALE, "arm left")


def test_a_lasting_refusal_is_counted_once_per_head_frame(scene):
    scene.joints(T0)
    for k in range(5):
        scene.images(T0 + k * MS, ["head"])
        for _ in range(3):
            scene.buffer.take(T0 + k * MS)
    assert scene.buffer.refusals["camera wrist_left", Reason.MISSING] == 5
    assert scene.buffer.refused == 5


def test_a_late_partner_is_waited_for_and_not_counted(scene):
    scene.images(T0 - 66 * MS)
    scene.joints(T0 - 66 * MS)
    assert isinstance(scene.buffer.take(T0 - 60 * MS), RawObservation)
    scene.joints(T0)
    scene.images(T0, ["head", "wrist_left"])
    assert scene.buffer.take(T0 + MS).reason is Reason.WAITING
    scene.images(T0, ["wrist_right"], now_ns=T0 + 5 * MS)
    assert scene.buffer.take(T0 + 5 * MS).stamp_ns == T0
    assert scene.buffer.refused == 0


def test_a_camera_with_a_long_delay_is_matched_with_an_older_head_frame(scene):
    period, delay, taken = 33 * MS, 70 * MS, []
    for k in range(30):
        now = T0 + k * period
        scene.images(now, ["head", "wrist_left"])
        scene.joints(now)
        if now - delay >= T0:
            frame = (now - delay - T0) // period * period + T0
            scene.images(frame, ["wrist_right"], now_ns=now)
        result = scene.buffer.take(now)
        if isinstance(result, RawObservation):
            taken.append(result)
    assert len(taken) > 20
    assert scene.buffer.refusals["camera wrist_right", Reason.SKEWED] == 0
    for observation in taken:
        stamp = int(observation.images["wrist_right"].split("@")[1])
        assert abs(stamp - observation.stamp_ns) <= 50 * MS


def test_what_is_said_is_said_of_the_newest_frame(scene):
    scene.images(T0, ["head", "wrist_left"])
    scene.images(T0 - 60 * MS, ["wrist_right"], now_ns=T0)
    scene.images(T0 + 55 * MS, ["wrist_right"])
    scene.images(T0 + 150 * MS, ["head", "wrist_left"])
    scene.joints(T0)
    scene.joints(T0 + 150 * MS)
    assert scene.buffer.take(T0 + 151 * MS).reason is Reason.WAITING  # although the older frame is skewed


def test_skew_beyond_the_limit_is_refused(robot, home):
    scene = Scene(robot, home, ObservationLimits(camera_max_skew_s=0.02))
    scene.images(T0, ["head", "wrist_left"])
    scene.images(T0 + 30 * MS, ["wrist_right"])
    scene.joints(T0)
    refusal = scene.buffer.take(T0 + 30 * MS)
    assert (refusal.reason, refusal.subject) == (Reason.SKEWED, "camera wrist_right")
    assert "0.030 s away" in refusal.message and "0.020 s" in refusal.message


@pytest.mark.parametrize("frozen", CAMERAS)
def test_a_camera_that_repeats_its_stamp_is_frozen_after_its_age_limit(robot, home, frozen):
    scene = Scene(robot, home, ObservationLimits(camera_frozen_after_s=0.0))
    scene.images(T0)
    scene.joints(T0)
    scene.buffer.take(T0)
    for k in range(1, 10):
        now = T0 + k * 40 * MS
        scene.images(T0, [frozen], now_ns=now)
        scene.images(now, [camera for camera in CAMERAS if camera != frozen])
        scene.joints(now)
        result = scene.buffer.take(now)
        assert (getattr(result, "reason", None) is Reason.FROZEN) == (now - T0 > 250 * MS)
    assert result.subject == f"camera {frozen}"
    assert result.message == (
        f"camera {frozen} is frozen: messages keep coming with the same stamp, 0.360 s old (limit 0.250 s)"
    )
    assert scene.buffer.refusals[f"camera {frozen}", Reason.OUT_OF_ORDER] == 9
    assert scene.buffer.refusals[f"camera {frozen}", Reason.STALE] == 0
    assert scene.buffer.refused == scene.buffer.refusals[f"camera {frozen}", Reason.FROZEN] > 0


def test_a_camera_whose_repeated_messages_stop_too_is_stale(scene):
    scene.images(T0)
    scene.joints(T0)
    scene.images(T0, ["head"], now_ns=T0 + 100 * MS)
    for milliseconds, reason in ((300, Reason.FROZEN), (340, Reason.FROZEN), (360, Reason.STALE)):
        scene.joints(T0 + milliseconds * MS)
        assert scene.buffer.check(T0 + milliseconds * MS).reason is reason


def freeze(scene, camera, times_ms):
    """Feeds every stream at `times_ms`, `camera` with the same image again and again; what `take` says each time."""
    for milliseconds in times_ms:
        now = T0 + milliseconds * MS
        scene.images(now, [name for name in CAMERAS if name != camera])
        scene.buffer.add_image(camera, now, "the same", now)
        scene.joints(now)
        yield milliseconds, scene.buffer.take(now)


@pytest.mark.parametrize("camera", CAMERAS)
def test_a_camera_that_sends_the_same_image_under_new_stamps_is_frozen_after_its_limit(scene, camera):
    for milliseconds, result in freeze(scene, camera, range(0, 600, 40)):
        if milliseconds <= 500:
            assert isinstance(result, RawObservation)
        else:
            assert (result.reason, result.subject) == (Reason.FROZEN, f"camera {camera}")
            said = f"camera {camera} is frozen: the same image for 0.{milliseconds} s (limit 0.500 s)"
            assert result.message == said
    assert scene.buffer.refusals == {(f"camera {camera}", Reason.FROZEN): 2} and scene.buffer.refused == 2


def test_a_frozen_camera_is_back_with_the_first_other_image(scene):
    *_, (_, result) = freeze(scene, "head", range(0, 600, 40))
    assert result.reason is Reason.FROZEN
    scene.images(T0 + 600 * MS)
    scene.joints(T0 + 600 * MS)
    assert scene.buffer.take(T0 + 600 * MS).stamp_ns == T0 + 600 * MS


def test_a_frozen_camera_that_stops_is_stale(scene):
    *_, (_, result) = freeze(scene, "head", range(0, 600, 40))
    assert result.reason is Reason.FROZEN
    scene.images(T0 + 860 * MS, ["wrist_left", "wrist_right"])
    scene.joints(T0 + 860 * MS)
    assert scene.buffer.take(T0 + 860 * MS).reason is Reason.STALE


def test_images_are_not_compared_when_the_limit_is_0(robot, home):
    scene = Scene(robot, home, ObservationLimits(camera_frozen_after_s=0.0))
    assert all(isinstance(result, RawObservation) for _, result in freeze(scene, "head", range(0, 3000, 40)))


def test_a_check_finds_what_take_would_and_uses_no_frame(scene):
    scene.images(T0)
    scene.joints(T0)
    assert scene.buffer.check(T0) is None
    assert isinstance(scene.buffer.take(T0), RawObservation)
    assert scene.buffer.check(T0) is None  # no frame is left, and nothing is wrong
    for _ in range(3):
        assert scene.buffer.check(T0 + 300 * MS).reason is Reason.STALE
    assert scene.buffer.refused == 1


def test_a_stamp_from_the_future_is_refused_and_named(scene):
    refusal = scene.buffer.add_image("head", T0 + 1200 * MS, "frame", T0)
    assert refusal.reason is Reason.FUTURE
    scene.images(T0, ["wrist_left", "wrist_right"])
    scene.joints(T0)
    assert "1.200 s ahead" in scene.buffer.take(T0).message


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 50.0])
def test_feedback_that_is_not_a_pose_stays_outside(scene, robot, bad):
    scene.images(T0)
    scene.joints(T0)
    values = scene.pose[robot.limbs[0].arm].copy()
    values[3] = bad
    refusal = scene.buffer.add_arm("left", T0 + MS, values, T0 + MS)
    assert refusal.reason in (Reason.NON_FINITE, Reason.OUT_OF_RANGE)
    assert np.isfinite(scene.buffer.take(T0 + MS).state).all()


@pytest.mark.parametrize("count", [0, 5, 8])
def test_wrong_number_of_joints_is_refused(scene, count):
    refusal = scene.buffer.add_arm("left", T0, [0.1] * count, T0)
    assert refusal.reason is Reason.WRONG_COUNT
    assert f"{count} values" in refusal.message
    assert scene.buffer.refusals["arm left", Reason.WRONG_COUNT] == 1


def test_a_seventh_arm_value_is_dropped(scene, robot):
    arm = scene.pose[robot.limbs[0].arm]
    scene.images(T0)
    scene.joints(T0)
    assert scene.buffer.add_arm("left", T0 + MS, [*(arm + 0.01), 77.0], T0 + MS) is None
    scene.images(T0 + 2 * MS)
    np.testing.assert_array_equal(scene.buffer.take(T0 + 2 * MS).state[robot.limbs[0].arm], arm + 0.01)


def test_a_clock_set_back_forgets_everything(scene):
    scene.images(T0)
    scene.joints(T0)
    scene.buffer.take(T0)
    restarted = T0 - 60_000 * MS
    assert scene.buffer.take(restarted).reason is Reason.MISSING
    scene.images(restarted + MS)
    scene.joints(restarted + MS)
    assert scene.buffer.take(restarted + MS).stamp_ns == restarted + MS
    assert scene.buffer.clock_resets == 1


def test_a_thread_that_read_the_clock_earlier_resets_nothing(scene):
    scene.images(T0)
    scene.joints(T0)
    scene.buffer.take(T0 + 500 * MS)
    scene.joints(T0 + 10 * MS, now_ns=T0 + 20 * MS)
    scene.images(T0 + 10 * MS, now_ns=T0 + 20 * MS)
    assert scene.buffer.take(T0 + 30 * MS).stamp_ns == T0 + 10 * MS
    assert scene.buffer.clock_resets == 0


def test_buffers_are_bounded(scene):
    for k in range(5000):
        scene.joints(T0 + k * MS)
        scene.images(T0 + k * MS)
    assert {len(stream.samples) for stream in scene.buffer._streams.values()} == {8, 256}


def test_an_unusable_image_is_the_reason_given(scene):
    scene.images(T0, ["wrist_left", "wrist_right"])
    scene.joints(T0)
    scene.buffer.refuse_image("head", Refusal(Reason.WRONG_ENCODING, "/cam: encoding 'mono8' is not allowed"), T0)
    assert "mono8" in scene.buffer.take(T0).message


@pytest.mark.parametrize(
    ("name", "value"),
    [
        (field.name, value)
        for field in dataclasses.fields(ObservationLimits)
        for value in (0.0, -1.0, float("nan"))
        if (field.name, value) != ("camera_frozen_after_s", 0.0)
    ],
)
def test_a_limit_that_is_no_limit_is_refused_by_name(name, value):
    with pytest.raises(ValueError, match=name):
        ObservationLimits(**{name: value})


@pytest.mark.parametrize("cameras", [("head", "chest"), ("wrist_left",)])
def test_unknown_cameras_and_a_missing_reference_are_refused(robot, cameras):
    with pytest.raises(ValueError, match="head"):
        ObservationBuffer(robot, cameras)
