"""What was seen and commanded in a recorded episode, at the control rate.

Images and states are matched by the buffer of the live policy node, message by message in the order of reception.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from depthvla_control.arbiter import Mode
from depthvla_evaluation.bags.bag import Bag, JointStream, joint_stream, stamp_ns
from depthvla_evaluation.bags.complete_frames import ObservationFeed
from depthvla_evaluation.bags.recorded_graph import EXECUTOR, POLICY
from depthvla_policy.policy.images import decode_jpeg
from depthvla_policy.policy.observation_buffer import ObservationLimits, RawObservation
from r1lite_description.robot import Robot

COMPRESSED = "sensor_msgs/msg/CompressedImage"
COMMAND_GAP = 2.5  # control periods between two commands beyond which there is no stream
IN_COMMAND = (Mode.POLICY, Mode.TELEOP)


@dataclass(frozen=True)
class BagFrame:
    """images: camera -> bytes as published. state, action: (size,) robot units. mode: POLICY or TELEOP."""

    stamp_ns: int
    images: dict[str, bytes]
    state: np.ndarray
    action: np.ndarray
    mode: Mode
    instruction: str


class BagFrames:
    """Iterate to get the frames in order, one a control period. `left_out` counts the head frames that gave none, by
    reason.

    The action of a frame is what was commanded when its image was taken, `lead_steps` control periods later for other
    data: step k of a chunk is due at the image's stamp + k periods.

    Raises:
        ValueError: a camera was not recorded as compressed images, or the bag has no commands or no executor status.
    """

    def __init__(self, bag: Bag, robot: Robot, *, limits: ObservationLimits, lead_steps: int = 0) -> None:
        self._bag, self._robot, self._limits = bag, robot, limits
        self._period_ns = round(robot.period_s * 1e9)
        self._lead_ns = lead_steps * self._period_ns
        for camera in robot.cameras:
            kind = bag.topics[camera.topic].type if camera.topic in bag.topics else "missing"
            if kind != COMPRESSED:
                raise ValueError(f"bag {bag.path}: {camera.topic} is {kind}; it must be {COMPRESSED}")
        self._read_streams()
        self.left_out: Counter[str] = Counter()
        self.total = bag.topics[robot.cameras[0].topic].count  # of head frames, before a faster camera loses some

    def __iter__(self) -> Iterator[BagFrame]:
        for raw in self._observations():
            frame = self._frame(raw)
            if isinstance(frame, str):
                self.left_out[frame] += 1
            else:
                yield frame

    def _observations(self) -> Iterator[RawObservation]:
        feed, taken = ObservationFeed(self._robot, self._limits), 0
        for topic, now_ns, message in self._bag.messages([*feed.cameras, *feed.joints]):
            if topic in feed.joints:
                feed.add_joints(topic, message, now_ns)
            else:
                feed.add_image(topic, stamp_ns(message), bytes(message.data), now_ns)
            for raw in feed.observations(now_ns):
                taken += 1
                yield raw
        self.left_out["no complete observation"] = feed.frames - taken

    def _frame(self, raw: RawObservation) -> BagFrame | str:
        """The frame, or why there is none."""
        tick = int(np.searchsorted(self._ticks_ns, raw.stamp_ns, side="right")) - 1
        if tick < 0 or tick + 1 >= len(self._ticks_ns):
            return "executor not running"
        mode, following = self._modes[tick], self._modes[tick + 1]
        if mode not in IN_COMMAND:
            return Mode(mode).name
        if mode != following:
            return "change of command"
        action = np.empty(self._robot.size)
        for where, stream in self._commands:
            value = _at(stream, raw.stamp_ns + self._lead_ns, COMMAND_GAP * self._period_ns)
            if value is None:
                return "no command"
            action[where] = value
        for camera, data in raw.images.items():
            try:
                decode_jpeg(data)
            except ValueError:
                return f"damaged image of {camera}"
        return BagFrame(raw.stamp_ns, raw.images, raw.state, action, Mode(mode), self._instruction(raw.stamp_ns))

    def _instruction(self, time_ns: int) -> str:
        """In force at a time: the newest that the policy spoke of, the first one before that."""
        at = int(np.searchsorted(self._instruction_ns, time_ns, side="right")) - 1
        return self._instructions[max(at, 0)]

    def _read_streams(self) -> None:
        robot, bag = self._robot, self._bag
        topics = [topic for limb in robot.limbs for topic in (limb.topics.arm_command, limb.topics.gripper_command)]
        streams = bag.read([*topics, f"{EXECUTOR}/status", f"{POLICY}/status", f"{POLICY}/action_chunk"])
        silent = [topic for topic in (*topics, f"{EXECUTOR}/status") if not streams[topic]]
        if silent:
            raise ValueError(f"bag {bag.path} has no messages of {', '.join(silent)}")
        self._commands: list[tuple[slice, JointStream]] = []
        for limb in robot.limbs:
            for where, topic in ((limb.arm, limb.topics.arm_command), (limb.opening, limb.topics.gripper_command)):
                self._commands.append((where, joint_stream(streams[topic], robot, where)))
        ticks = [message for _, message in streams[f"{EXECUTOR}/status"]]
        self._ticks_ns = np.array([stamp_ns(message) for message in ticks], dtype=np.int64)
        self._modes = [message.mode for message in ticks]
        sentences = [*streams[f"{POLICY}/status"], *streams[f"{POLICY}/action_chunk"]]
        sentences = sorted((stamp_ns(message), message.instruction) for _, message in sentences if message.instruction)
        sentences = sentences or [(0, bag.custom_data.get("instruction", ""))]
        if not sentences[0][1]:
            raise ValueError(f"bag {bag.path} tells no instruction")
        self._instruction_ns = np.array([stamp for stamp, _ in sentences], dtype=np.int64)
        self._instructions = [instruction for _, instruction in sentences]


def _at(stream: JointStream, time_ns: int, gap_ns: float) -> np.ndarray | None:
    """Positions between the two samples around a time; None where these are too far apart, or there is only one."""
    after = int(np.searchsorted(stream.stamp_ns, time_ns, side="left"))
    if after < len(stream.stamp_ns) and stream.stamp_ns[after] == time_ns:
        return stream.positions[after]
    if not 0 < after < len(stream.stamp_ns):
        return None
    begin, end = stream.stamp_ns[after - 1], stream.stamp_ns[after]
    if end - begin > gap_ns:
        return None
    share = (time_ns - begin) / (end - begin)
    return stream.positions[after - 1] * (1 - share) + stream.positions[after] * share
