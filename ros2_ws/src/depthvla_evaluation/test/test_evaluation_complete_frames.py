"""Which frames of a recording a policy can answer is known before it is asked."""

from __future__ import annotations

import numpy as np
from test_data_from_bags import HOME, Mode, write_bag
from test_evaluation_replay import FRAME_S
from test_evaluation_replay import write_bag as write_seen

from depthvla_evaluation.bags.bag import Bag, header_stamp_ns
from depthvla_evaluation.bags.complete_frames import CompleteFrames
from r1lite_description import robot as robot_description

ROBOT = robot_description.load()
HEAD = ROBOT.cameras[0].topic


def played(path):
    """Stamps [s] of the head frames that are played, and of those a policy can answer."""
    topics = [camera.topic for camera in ROBOT.cameras]
    topics += [t for limb in ROBOT.limbs for t in (limb.topics.arm_feedback, limb.topics.gripper_feedback)]
    with Bag(path) as bag:
        frames = CompleteFrames(bag, ROBOT, topics)
        stamps = [header_stamp_ns(data) for topic, _, data in frames if topic == HEAD]
        seconds = [(ns - bag.start_ns) * 1e-9 for ns in stamps]
        return seconds, [time_s for ns, time_s in zip(stamps, seconds, strict=True) if ns in frames]


def test_a_frame_without_its_partner_is_never_complete_and_its_neighbours_are(tmp_path):
    write_seen(tmp_path / "bag", HOME, without=("wrist_left", 7))
    stamps, complete = played(tmp_path / "bag")
    assert len(stamps) == 20
    assert [round(stamp / FRAME_S) for stamp in stamps if stamp not in complete] == [7]


def test_a_faster_camera_is_played_at_the_control_rate(tmp_path):
    write_bag(tmp_path / "bag", [Mode.POLICY] * 20, camera_period_s=FRAME_S / 2)
    stamps, complete = played(tmp_path / "bag")
    assert len(stamps) == 20 and len(complete) >= 19
    np.testing.assert_allclose(np.diff(stamps), FRAME_S, atol=1e-6)


def test_without_a_stream_no_frame_is_complete(tmp_path):
    limb = ROBOT.limbs[0]
    write_bag(tmp_path / "bag", [Mode.POLICY] * 20, without=(limb.topics.arm_feedback,))
    stamps, complete = played(tmp_path / "bag")
    assert len(stamps) == 20 and not complete
