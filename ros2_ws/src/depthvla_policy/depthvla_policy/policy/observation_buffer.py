"""Matches camera frames and joint feedback in time: one raw observation per reference frame, or the reason why not.

Images stay as they came; of their payload only `==` is asked. Nothing is ever filled in for a stream that is missing,
late or frozen.
"""

from __future__ import annotations

import dataclasses
import threading
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from depthvla_control.limb_feedback import arm_positions, arm_stream, gripper_opening, gripper_stream
from depthvla_control.refusal import Reason, Refusal
from r1lite_description.robot import Robot

CAMERA_DEPTH = 8
JOINT_DEPTH = 256  # more than a second at the robot's 200 Hz
# A clock that steps back further than this was reset (simulation restarted). Less is clock discipline, or two threads
# that read the clock before they waited for one another.
CLOCK_RESET_NS = 1_000_000_000


@dataclass(frozen=True)
class ObservationLimits:
    """Age: newest sample of a stream against now. Skew: matched sample against the reference frame's stamp. Frozen: how
    long a camera may send the same image to the bit; no real one does, and 0, for rendered images, allows it.
    """

    camera_max_age_s: float = 0.25
    camera_frozen_after_s: float = 0.5
    camera_max_skew_s: float = 0.05  # below the frame period, so that a frame on its way is waited for
    joint_max_age_s: float = 0.2
    joint_max_skew_s: float = 0.05
    max_future_s: float = 0.05

    def __post_init__(self) -> None:
        for item in dataclasses.fields(self):
            value = getattr(self, item.name)
            may_be_zero = item.name == "camera_frozen_after_s"
            if not np.isfinite(value) or value < 0 or (value == 0 and not may_be_zero):
                raise ValueError(f"{item.name} is {value!r}; it must be a number above 0{' or 0' * may_be_zero}")


@dataclass(frozen=True)
class RawObservation:
    stamp_ns: int  # of the reference frame
    images: dict[str, Any]  # camera -> payload as it was added
    stamps_ns: dict[str, int]  # stream -> stamp of the sample that was taken
    state: np.ndarray  # (14,) measured positions in `Robot` order, rad and mm


def camera_stream(camera: str) -> str:
    return f"camera {camera}"


class ObservationBuffer:
    """Ring buffers per stream; thread-safe, so that callbacks may add while a worker takes.

    The first camera of the robot is the reference. Every rejection is counted by stream and reason.
    """

    def __init__(self, robot: Robot, cameras: Sequence[str], limits: ObservationLimits | None = None) -> None:
        """Raises ValueError when a camera is unknown or the robot's reference camera is not among them."""
        limits = limits or ObservationLimits()
        reference = robot.cameras[0].name
        known = [camera.name for camera in robot.cameras]
        unknown = [name for name in cameras if name not in known]
        if unknown or reference not in cameras:
            raise ValueError(
                f"cameras are {list(cameras)}; allowed: {known}, and the reference {reference!r} must be among them"
            )
        self._robot = robot
        self._cameras = {name: camera_stream(name) for name in cameras}
        self._reference = self._cameras[reference]
        self._max_future_ns = _ns(limits.max_future_s)
        frozen_ns = _ns(limits.camera_frozen_after_s)
        camera_limits = (_ns(limits.camera_max_age_s), _ns(limits.camera_max_skew_s), CAMERA_DEPTH, frozen_ns)
        joint_limits = (_ns(limits.joint_max_age_s), _ns(limits.joint_max_skew_s), JOINT_DEPTH, 0)
        self._streams = {name: _Stream(name, *camera_limits) for name in self._cameras.values()}
        for limb in robot.limbs:
            for name in (arm_stream(limb.name), gripper_stream(limb.name)):
                self._streams[name] = _Stream(name, *joint_limits)
        self._lock = threading.Lock()
        self._used_ns: int | None = None
        self._counted: tuple | None = None
        self._now_ns: int | None = None
        self._refusals: Counter[tuple[str, Reason]] = Counter()
        self.clock_resets = 0

    def add_image(self, camera: str, stamp_ns: int, payload: Any, now_ns: int) -> Refusal | None:
        return self._add(self._cameras[camera], stamp_ns, payload, now_ns)

    def add_arm(
        self, limb: str, stamp_ns: int, positions: Sequence[float], now_ns: int, names: Sequence[str] = ()
    ) -> Refusal | None:
        """`positions` and `names` as in a JointState."""
        value = arm_positions(self._robot, self._robot.limb(limb), positions, names)
        return self._add(arm_stream(limb), stamp_ns, value, now_ns)

    def add_gripper(
        self, limb: str, stamp_ns: int, positions: Sequence[float], now_ns: int, names: Sequence[str] = ()
    ) -> Refusal | None:
        value = gripper_opening(self._robot, self._robot.limb(limb), positions, names)
        return self._add(gripper_stream(limb), stamp_ns, value, now_ns)

    def refuse_image(self, camera: str, refusal: Refusal, now_ns: int) -> None:
        """Counts an image that could not be used, and keeps the reason for when the stream is asked for."""
        self._add(self._cameras[camera], 0, refusal, now_ns)

    def take(self, now_ns: int) -> RawObservation | Refusal:
        """The newest reference frame not used before for which every stream has a sample within its limits.

        `Reason.WAITING` means that nothing is wrong but the next frame or its partners are still on their way; it is
        not counted as a refusal. A lasting refusal is counted once per reference frame.
        """
        with self._lock:
            self._watch_clock(now_ns)
            result = self._check_streams(now_ns) or self._match(now_ns)
            if isinstance(result, Refusal):
                self._count(result)
            return result

    def skip(self) -> None:
        """The reference frames that are here will not be taken any more."""
        with self._lock:
            newest_ns = self._streams[self._reference].newest_ns
            if newest_ns is not None:
                self._used_ns = newest_ns

    def check(self, now_ns: int) -> Refusal | None:
        """What is wrong with a stream (missing, stale, frozen), counted as by `take`; no frame is used up."""
        with self._lock:
            self._watch_clock(now_ns)
            refusal = self._check_streams(now_ns)
            if refusal:
                self._count(refusal)
            return refusal

    def clear(self) -> None:
        with self._lock:
            self._clear()

    @property
    def refusals(self) -> Counter[tuple[str, Reason]]:
        """Samples and observations refused, by (stream, reason)."""
        with self._lock:
            return self._refusals.copy()

    @property
    def refused(self) -> int:
        """Observations refused, all reasons."""
        observation = (Reason.MISSING, Reason.STALE, Reason.FROZEN, Reason.SKEWED, Reason.DAMAGED)
        return sum(count for (_, reason), count in self.refusals.items() if reason in observation)

    def _add(self, name: str, stamp_ns: int, value: Any, now_ns: int) -> Refusal | None:
        with self._lock:
            self._watch_clock(now_ns)
            stream = self._streams[name]
            refusal = value if isinstance(value, Refusal) else self._check_stamp(stream, stamp_ns, now_ns)
            if refusal:
                self._refusals[name, refusal.reason] += 1
                stream.refusal = refusal
                if stamp_ns == stream.newest_ns:
                    stream.repeated_ns = now_ns
                return refusal
            stream.add(_Sample(stamp_ns, value))
            return None

    def _check_stamp(self, stream: _Stream, stamp_ns: int, now_ns: int) -> Refusal | None:
        name, ahead = stream.name, stamp_ns - now_ns
        if ahead > self._max_future_ns:
            text = f"{name} is stamped {_s(ahead)} s ahead of this clock (limit {_s(self._max_future_ns)} s)"
            return Refusal(Reason.FUTURE, text, name)
        if stream.samples and stamp_ns <= stream.newest_ns:
            behind = stream.newest_ns - stamp_ns
            text = f"{name} is not newer than its last sample (stamp is {_s(behind)} s older or the same)"
            return Refusal(Reason.OUT_OF_ORDER, text, name)
        return None

    def _watch_clock(self, now_ns: int) -> None:
        if self._now_ns is not None and now_ns < self._now_ns - CLOCK_RESET_NS:
            self._clear()
            self.clock_resets += 1
            self._now_ns = now_ns
        self._now_ns = now_ns if self._now_ns is None else max(now_ns, self._now_ns)

    def _clear(self) -> None:
        for stream in self._streams.values():
            stream.clear()
        self._used_ns = self._counted = None

    def _count(self, refusal: Refusal) -> None:
        if refusal.reason is Reason.WAITING:
            return
        occasion = (refusal.subject, refusal.reason, self._streams[self._reference].newest_ns)
        if occasion != self._counted:
            self._counted = occasion
            self._refusals[refusal.subject, refusal.reason] += 1

    def _check_streams(self, now_ns: int) -> Refusal | None:
        refusals = (_check_alive(stream, now_ns) for stream in self._streams.values())
        return next((refusal for refusal in refusals if refusal), None)

    def _match(self, now_ns: int) -> RawObservation | Refusal:
        reference = self._streams[self._reference]
        candidates = [
            frame
            for frame in reversed(reference.samples)
            if (self._used_ns is None or frame.stamp_ns > self._used_ns)
            and now_ns - frame.stamp_ns <= reference.max_age_ns
        ]
        if not candidates:
            return Refusal(Reason.WAITING, f"waiting for the next frame of {self._reference}", self._reference)
        verdicts = []
        for frame in candidates:
            verdict = self._around(frame)
            if isinstance(verdict, RawObservation):
                self._used_ns = frame.stamp_ns
                return verdict
            verdicts.append(verdict)
        return verdicts[0]  # what is said of the newest frame

    def _around(self, frame: _Sample) -> RawObservation | Refusal:
        matched = {}
        for name, stream in self._streams.items():
            if name == self._reference:
                matched[name] = frame
                continue
            sample = stream.nearest(frame.stamp_ns)
            skew = sample.stamp_ns - frame.stamp_ns
            if abs(skew) > stream.max_skew_ns:
                if stream.newest_ns < frame.stamp_ns:
                    return Refusal(Reason.WAITING, f"waiting for {name}, which is {_s(-skew)} s behind", name)
                text = (
                    f"{name} has nothing within {_s(stream.max_skew_ns)} s of the {self._reference} frame;"
                    f" the nearest is {_s(abs(skew))} s away"
                )
                return Refusal(Reason.SKEWED, text, name)
            matched[name] = sample
        state = np.empty(self._robot.size)
        for limb in self._robot.limbs:
            state[limb.arm] = matched[arm_stream(limb.name)].value
            state[limb.gripper_index] = matched[gripper_stream(limb.name)].value
        return RawObservation(
            stamp_ns=frame.stamp_ns,
            images={camera: matched[name].value for camera, name in self._cameras.items()},
            stamps_ns={name: sample.stamp_ns for name, sample in matched.items()},
            state=state,
        )


@dataclass(frozen=True)
class _Sample:
    stamp_ns: int
    value: Any


@dataclass
class _Stream:
    name: str
    max_age_ns: int
    max_skew_ns: int
    depth: int
    frozen_after_ns: int  # 0: samples are not compared
    refusal: Refusal | None = None  # of the newest message, when it was refused at the door
    repeated_ns: int | None = None  # when the newest sample's stamp came once more
    changed_ns: int | None = None  # stamp of the first of the samples that equal the newest
    samples: deque[_Sample] = field(init=False)

    def __post_init__(self) -> None:
        self.samples = deque(maxlen=self.depth)

    @property
    def newest_ns(self) -> int | None:
        return self.samples[-1].stamp_ns if self.samples else None

    def add(self, sample: _Sample) -> None:
        same = self.frozen_after_ns > 0 and self.samples and self.samples[-1].value == sample.value
        if not same:
            self.changed_ns = sample.stamp_ns
        self.samples.append(sample)
        self.refusal = self.repeated_ns = None

    def nearest(self, stamp_ns: int) -> _Sample:
        """Stamps only rise and a recent one is asked for, so the search begins with the newest."""
        best = self.samples[-1]
        for sample in reversed(self.samples):
            if abs(sample.stamp_ns - stamp_ns) > abs(best.stamp_ns - stamp_ns):
                break
            best = sample
        return best

    def clear(self) -> None:
        self.samples.clear()
        self.refusal = self.repeated_ns = self.changed_ns = None


def _check_alive(stream: _Stream, now_ns: int) -> Refusal | None:
    why = f"; last refused: {stream.refusal}" if stream.refusal else ""
    if not stream.samples:
        return Refusal(Reason.MISSING, f"{stream.name} has not been received{why}", stream.name)
    age = now_ns - stream.newest_ns
    if age > stream.max_age_ns:
        how_old = f"{_s(age)} s old (limit {_s(stream.max_age_ns)} s)"
        if stream.repeated_ns is not None and now_ns - stream.repeated_ns <= stream.max_age_ns:
            text = f"{stream.name} is frozen: messages keep coming with the same stamp, {how_old}"
            return Refusal(Reason.FROZEN, text, stream.name)
        return Refusal(Reason.STALE, f"{stream.name} is {how_old}{why}", stream.name)
    still = stream.newest_ns - stream.changed_ns
    if still > stream.frozen_after_ns:
        text = f"{stream.name} is frozen: the same image for {_s(still)} s (limit {_s(stream.frozen_after_ns)} s)"
        return Refusal(Reason.FROZEN, text, stream.name)
    return None


def _ns(seconds: float) -> int:
    return round(seconds * 1e9)


def _s(duration_ns: int) -> str:
    return f"{duration_ns * 1e-9:.3f}"
