from __future__ import annotations

import numpy as np
import pytest
from synthetic_bag import SyntheticBag
from test_evaluation_replay import FRAME_S, trajectories, write_chunk

from depthvla_control.arbiter import Mode
from depthvla_evaluation.bags.bag import Bag
from depthvla_evaluation.viewer.bag_snapshots import BagSnapshots
from depthvla_evaluation.viewer.player import Playback

K = np.array([[100.0, 0.0, 8.0], [0.0, 100.0, 4.5], [0.0, 0.0, 1.0]])


def write_plan(bag: SyntheticBag, time_s: float, positions: np.ndarray) -> None:
    header = bag.header(time_s)
    message = bag.make(
        "depthvla_msgs/msg/Plan",
        header=header,
        sequence=1,
        step_duration=bag.duration(FRAME_S),
        latency=bag.duration(0.1),
        **trajectories(bag, header, positions),
    )
    bag.add("/chunk_executor_node/plan", time_s, message)


@pytest.fixture
def recording(tmp_path, robot, home):
    with SyntheticBag(tmp_path / "bag") as bag:
        limb = robot.limb("left")
        for index, time_s in enumerate((0.0, 1.0, 2.0)):
            bag.joints(limb.topics.arm_feedback, time_s, home[limb.arm] + 0.1 * index)
            bag.image("head", time_s, np.full((9, 16, 3), 50 * index, np.uint8))
            bag.camera_info(robot.camera("head").camera_info, time_s, K, 16, 9)
            bag.tick(time_s, mode=index + 1, cause=f"cause {index}")
        bag.depth("/policy_node/depth/head/image", 1.0, np.full((4, 4), 0.5, np.float32), received_s=1.5)
        bag.camera_info("/policy_node/depth/head/camera_info", 1.0, K, 4, 4)
        for sequence, time_s in ((1, 0.5), (2, 1.5)):
            write_chunk(bag, time_s, sequence, np.tile(home, (16, 1)), [])
        for time_s, steps in ((0.6, 16), (1.6, 0)):
            write_plan(bag, time_s, np.tile(home, (steps, 1)))
    with Bag(tmp_path / "bag") as opened:
        return BagSnapshots(opened)


def test_a_snapshot_holds_the_newest_of_everything_that_had_come_by_then(recording, robot, home):
    snapshot = recording.snapshot(1.2)
    assert (snapshot.mode, snapshot.cause) == (Mode.TELEOP, "cause 1")
    assert snapshot.chunk.sequence == 1 and snapshot.instruction == "instruction 1"
    limb = robot.limb("left")
    assert snapshot.joints == pytest.approx(dict(zip(limb.joints, home[limb.arm] + 0.1, strict=True)))
    assert snapshot.images["head"].pixels().mean() == pytest.approx(50, abs=2)
    np.testing.assert_array_equal(snapshot.camera_matrices["head"], K)
    np.testing.assert_allclose(snapshot.latency_ms, [[0.56, 45.0]])
    assert not snapshot.depth, "depth of the image at 1.0 came at 1.5"


def test_the_plan_is_there_until_the_executor_takes_it_back(recording, home):
    assert recording.snapshot(0.55).plan is None
    plan = recording.snapshot(1.2).plan
    assert (plan.sequence, plan.latency_ns) == (1, 100_000_000)
    np.testing.assert_array_equal(plan.positions, np.tile(home, (16, 1)))
    assert recording.snapshot(1.7).plan is None


def test_depth_comes_with_the_joints_and_the_picture_of_its_image(recording, robot, home):
    depth = recording.snapshot(2.0).depth["head"]
    limb = robot.limb("left")
    assert depth.joints == pytest.approx(dict(zip(limb.joints, home[limb.arm] + 0.1, strict=True)))
    assert depth.picture.pixels().mean() == pytest.approx(50, abs=2)
    assert depth.depth_m.shape == (4, 4)


def test_before_the_first_message_there_is_nothing(recording):
    snapshot = recording.snapshot(-1.0)
    assert not snapshot.joints and not snapshot.images and snapshot.chunk is None and snapshot.mode is None


def test_a_playback_runs_at_its_speed_and_begins_again_after_its_end():
    playback = Playback(2.0, speed=2.0)
    playback.advance(0.5)
    assert playback.position_s == 1.0
    playback.advance(1.0)
    assert playback.position_s == 0.0


def test_a_paused_playback_stands_and_can_still_be_moved():
    playback = Playback(2.0, playing=False)
    playback.advance(1.0)
    assert playback.position_s == 0.0
    playback.seek(1.5)
    assert playback.position_s == 1.5
    playback.seek(9.0)
    assert playback.position_s == 2.0
