from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from synthetic_bag import SyntheticBag

from depthvla_control.refusal import Reason
from depthvla_evaluation.bags.bag import Bag
from depthvla_evaluation.bags.replay import observations, recorded_chunks
from depthvla_evaluation.viewer.bag_snapshots import BagSnapshots
from depthvla_policy.policy.observation import Observation

FRAME_S = 1 / 15
FRAMES = (4, 7, 10, 13)  # those that chunks are made from
CAMERAS = ("head", "wrist_left", "wrist_right")


def grey(camera: str, frame: int) -> int:
    """A camera's picture is of one grey, so that one can tell which it was."""
    return 80 * CAMERAS.index(camera) + 4 * frame


def pose(home: np.ndarray, time_s: float) -> np.ndarray:
    return home + 0.05 * time_s


def write_bag(
    path: Path, home: np.ndarray, *, without: tuple[str, int] | None = None, frames=FRAMES, custom_data=None
) -> Path:
    """1.3 s of an episode: cameras at 15 Hz, the wrists' 5 ms early, joints at 100 Hz, chunks 60 ms after their frame.

    A chunk holds the pose of its frame for 16 steps. `without`: a camera and the frame of it that is missing.
    """
    events = []
    with SyntheticBag(path, custom_data) as bag:
        for frame in range(20):
            for camera in CAMERAS:
                if (camera, frame) != without:
                    stamp = frame * FRAME_S - (0.0 if camera == "head" else 0.005)
                    image = np.full((18, 32, 3), grey(camera, frame), dtype=np.uint8)
                    events.append((stamp, lambda c=camera, s=stamp, i=image: bag.image(c, s, i)))
        for sample in range(130):
            stamp, values = sample * 0.01, pose(home, sample * 0.01)
            for limb in bag.robot.limbs:
                arm, gripper = values[limb.arm], [values[limb.gripper_index]]
                events.append((stamp, lambda t=limb.topics.arm_feedback, s=stamp, v=arm: bag.joints(t, s, v)))
                events.append((stamp, lambda t=limb.topics.gripper_feedback, s=stamp, v=gripper: bag.joints(t, s, v)))
        for sequence, frame in enumerate(frames, 1):
            steps = np.repeat(pose(home, frame * FRAME_S)[None], 16, axis=0)
            stamp = frame * FRAME_S
            sources = made_of(bag, frame)
            events.append((stamp + 0.06, lambda s=stamp, n=sequence, p=steps, o=sources: write_chunk(bag, s, n, p, o)))
        for _, write in sorted(events, key=lambda event: event[0]):
            write()
    return path


def made_of(bag: SyntheticBag, frame: int) -> list:
    """The samples nearest to a frame: what the policy takes."""
    joints_s = round(frame * FRAME_S / 0.01) * 0.01
    stamps_s = {f"camera {camera}": frame * FRAME_S - (0.0 if camera == "head" else 0.005) for camera in CAMERAS}
    for limb in bag.robot.limbs:
        stamps_s |= {f"arm {limb.name}": joints_s, f"gripper {limb.name}": joints_s}
    return [
        bag.make("depthvla_msgs/msg/Source", stream=stream, stamp=bag.header(stamp_s).stamp)
        for stream, stamp_s in stamps_s.items()
    ]


def trajectories(bag: SyntheticBag, header, positions: np.ndarray) -> dict:
    arms = {}
    for limb in bag.robot.limbs:
        points = [
            bag.make(
                "trajectory_msgs/msg/JointTrajectoryPoint",
                positions=np.ascontiguousarray(row[limb.slice]),
                velocities=np.array([]),
                accelerations=np.array([]),
                effort=np.array([]),
                time_from_start=bag.duration(step * FRAME_S),
            )
            for step, row in enumerate(positions)
        ]
        arms[f"{limb.name}_arm"] = bag.make(
            "trajectory_msgs/msg/JointTrajectory", header=header, joint_names=list(limb.names), points=points
        )
    return arms


def write_chunk(bag: SyntheticBag, stamp_s: float, sequence: int, positions: np.ndarray, sources: list) -> None:
    header = bag.header(stamp_s)
    arms = trajectories(bag, header, positions)
    message = bag.make(
        "depthvla_msgs/msg/ActionChunk",
        header=header,
        sequence=sequence,
        instruction=f"instruction {sequence}",
        model_id="tiny@0123456789ab",
        step_duration=bag.duration(FRAME_S),
        horizon=len(positions),
        sources=sources,
        preprocess_time=bag.duration(0.002),
        inference_time=bag.duration(0.04),
        total_time=bag.duration(0.045),
        **arms,
    )
    bag.add("/policy_node/action_chunk", stamp_s + 0.06, message)


def test_chunks_come_back_as_they_were_recorded(tmp_path, robot, home):
    with Bag(write_bag(tmp_path / "bag", home)) as bag:
        chunks = recorded_chunks(bag, robot)
    assert [item.chunk.sequence for item in chunks] == [1, 2, 3, 4]
    first = chunks[0].chunk
    np.testing.assert_array_equal(first.positions, np.repeat(pose(home, 4 * FRAME_S)[None], 16, axis=0))
    assert first.period_ns == 66_666_667 and first.model_id == "tiny@0123456789ab"
    assert chunks[0].sources["camera wrist_left"] == first.stamp_ns - 5_000_000


def test_every_chunk_gets_the_frame_it_was_made_from_and_what_lay_nearest(tmp_path, robot, home):
    with Bag(write_bag(tmp_path / "bag", home)) as bag:
        pairs = list(observations(bag, robot, CAMERAS))
    assert len(pairs) == len(FRAMES)
    for number, (frame, (recorded, seen)) in enumerate(zip(FRAMES, pairs, strict=True), 1):
        assert isinstance(seen, Observation)
        assert seen.stamp_ns == recorded.chunk.stamp_ns == SyntheticBag.START_NS + round(frame * FRAME_S * 1e9)
        assert seen.instruction == f"instruction {number}"
        for camera in CAMERAS:
            assert seen.images[camera].shape == (18, 32, 3)
            assert abs(int(seen.images[camera].mean()) - grey(camera, frame)) <= 1
        np.testing.assert_array_equal(seen.state, pose(home, round(frame * FRAME_S / 0.01) * 0.01))


def test_consecutive_frames_are_not_mixed_up(tmp_path, robot, home):
    with Bag(write_bag(tmp_path / "bag", home, frames=(4, 5, 6))) as bag:
        pairs = list(observations(bag, robot, CAMERAS))
    assert [seen.stamp_ns - recorded.chunk.stamp_ns for recorded, seen in pairs] == [0, 0, 0]


@pytest.mark.parametrize("camera", ["wrist_left", "head"])
def test_a_chunk_whose_frame_is_missing_has_no_observation_and_the_others_have_theirs(tmp_path, robot, home, camera):
    with Bag(write_bag(tmp_path / "bag", home, without=(camera, 7))) as bag:
        seen = [seen for _, seen in observations(bag, robot, CAMERAS)]
    assert [isinstance(item, Observation) for item in seen] == [True, False, True, True]
    assert seen[1].reason is Reason.MISSING
    assert f"camera {camera}" in str(seen[1])


def test_a_chunk_of_no_steps_is_an_error_that_names_it(tmp_path, robot):
    with SyntheticBag(tmp_path / "bag") as bag:
        bag.chunk(0.0, 0.06, 7)
    with Bag(tmp_path / "bag") as bag, pytest.raises(ValueError, match="chunk 7 .* \\[0, 0\\] steps"):
        recorded_chunks(bag, robot)


def test_raw_images_are_replayed_like_compressed_ones(tmp_path, robot, home, monkeypatch):
    def raw(bag, camera, stamp_s, rgb):
        height, width, _ = rgb.shape
        layout = {"height": height, "width": width, "step": 3 * width, "encoding": "rgb8", "is_bigendian": 0}
        message = bag.make("sensor_msgs/msg/Image", header=bag.header(stamp_s), data=rgb.ravel(), **layout)
        bag.add(bag.robot.camera(camera).topic, stamp_s, message)

    monkeypatch.setattr(SyntheticBag, "image", raw)
    with Bag(write_bag(tmp_path / "bag", home)) as bag:
        pairs = list(observations(bag, robot, CAMERAS))
        shown = BagSnapshots(bag).snapshot(1.0).images["wrist_left"].pixels()
    for frame, (_, seen) in zip(FRAMES, pairs, strict=True):
        assert {camera: set(seen.images[camera].ravel()) for camera in CAMERAS} == {
            c: {grey(c, frame)} for c in CAMERAS
        }
    assert shown.shape == (18, 32, 3)
