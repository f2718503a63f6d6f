"""Bags become episodes of one who was in command each, with the actions that were commanded, and nothing else."""

from __future__ import annotations

import sys

import lerobot_samples as samples
import numpy as np
import pyarrow.parquet as pq
import pytest
from lerobot_samples import CAMERAS, ROBOT
from synthetic_bag import SyntheticBag

from depthvla_control.arbiter import Mode
from depthvla_evaluation.bags.bag import Bag
from depthvla_evaluation.dataset.bag_frames import BagFrames
from depthvla_evaluation.dataset.from_bags import FromBagsConfig, convert, main
from depthvla_policy.data import features
from depthvla_policy.data.demonstrations import Demonstrations
from depthvla_policy.data.layout import episode_rows, read_layout
from depthvla_policy.data.lerobot_writer import DatasetWriter
from depthvla_policy.policy.images import ImageFit
from depthvla_policy.policy.observation_buffer import ObservationLimits

PERIOD_S = 1 / 15
SCORED = {"outcome": "success", "instruction": "stack the blocks"}
HOME = np.array([0.0, 1.8, -1.7, 0.0, 0.0, 0.0, 50.0] * 2)
# HOLD, the policy, a person, the policy again: 6, 20, 24 and 18 control periods.
MODES = [Mode.HOLD] * 6 + [Mode.POLICY] * 20 + [Mode.TELEOP] * 24 + [Mode.POLICY] * 18


def commanded(time_s: float) -> np.ndarray:
    return HOME + 0.02 * time_s


def write_bag(
    path,
    modes=MODES,
    custom_data=SCORED,
    *,
    camera_period_s=PERIOD_S,
    without=(),
    instruct=(),
    simulated=False,
    damaged=(),
):
    """Frames at multiples of the camera's period; commands and ticks 10 ms after multiples of the control period."""
    events = []
    with SyntheticBag(path, custom_data) as bag:
        duration_s = len(modes) * PERIOD_S

        def joints(arm_topic, gripper_topic, limb, stamp, vector):
            if arm_topic not in without:
                events.append((stamp, lambda: bag.joints(arm_topic, stamp, vector[limb.arm])))
                gripper = vector[limb.gripper_index :][:1]
                events.append((stamp, lambda: bag.joints(gripper_topic, stamp, gripper)))

        for number in range(round(duration_s / camera_period_s)):
            stamp = 0.5 + number * camera_period_s
            if number in without:
                continue
            for place, camera in enumerate(CAMERAS):
                image = samples.picture(0, number % 60, place)
                lost = 8 * ((camera, number) in damaged)
                events.append((stamp + 0.02, lambda c=camera, s=stamp, i=image, n=lost: bag.image(c, s, i, lost=n)))
        for number in range(round((duration_s + 1) * 40)):
            stamp = number / 40
            for limb in bag.robot.limbs:
                joints(limb.topics.arm_feedback, limb.topics.gripper_feedback, limb, stamp, HOME + 0.01 * stamp)
        for number, mode in enumerate(modes):
            stamp = 0.5 + number * PERIOD_S + 0.01
            events.append((stamp, lambda s=stamp, m=mode: bag.tick(s, mode=int(m))))
            for limb in bag.robot.limbs:
                joints(limb.topics.arm_command, limb.topics.gripper_command, limb, stamp, commanded(stamp))
        for stamp, words in instruct:
            events.append((stamp, lambda s=stamp, w=words: tell(bag, s, w)))
        if simulated:
            words = {"task": "lift", "instruction": "", "seed": 0, "progress": 0.0, "success": False, "done": []}
            progress = bag.make("depthvla_msgs/msg/TaskProgress", header=bag.header(0.5), **words)
            events.append((0.5, lambda: bag.add("/simulator_node/task_progress", 0.5, progress)))
        for _, add in sorted(events, key=lambda event: event[0]):
            add()
    return path


def tell(bag: SyntheticBag, stamp_s: float, instruction: str) -> None:
    message = bag.make(
        "depthvla_msgs/msg/PolicyStatus",
        header=bag.header(stamp_s),
        producing=True,
        withdrawn=False,
        reason="",
        instruction=instruction,
        model_id="",
        chunks=0,
        observations_refused=0,
    )
    bag.add("/policy_node/status", stamp_s, message)


@pytest.fixture(scope="module")
def bag(tmp_path_factory):
    return write_bag(tmp_path_factory.mktemp("bags") / "bag")


def frames_of(path, **options):
    with Bag(path) as bag:
        return list(BagFrames(bag, ROBOT, limits=ObservationLimits(), **options))


def episodes(folder):
    rows = []
    for number in range(len(list((folder / "data/chunk-000").iterdir()))):
        table = pq.read_table(folder / f"data/chunk-000/file-{number:03d}.parquet")
        rows.append((len(table), set(table["intervention"].to_pylist())))
    return rows


def config(path, out, **options):
    return FromBagsConfig((path,), out, **options)


def test_each_stretch_of_one_in_command_is_an_episode(bag, tmp_path):
    result = convert(bag, config(bag, tmp_path / "out"))
    assert episodes(tmp_path / "out") == [(19, {False}), (23, {True}), (17, {False})]
    assert result.startswith("3 episodes, 59 frames")
    assert "HOLD" in result and "change of command" in result


@pytest.mark.parametrize(
    ("keep", "expected"), [("interventions", [(23, {True})]), ("policy", [(19, {False}), (17, {False})])]
)
def test_only_what_is_asked_for_is_kept(bag, tmp_path, keep, expected):
    convert(bag, config(bag, tmp_path / "out", keep=keep))
    assert episodes(tmp_path / "out") == expected


def test_a_short_stretch_is_left_out(bag, tmp_path):
    result = convert(bag, config(bag, tmp_path / "out", min_frames=18))
    assert episodes(tmp_path / "out") == [(19, {False}), (23, {True})]
    assert "17 too short" in result


@pytest.mark.parametrize("lead_steps", [0, 1])
def test_the_action_is_what_was_commanded_when_the_image_was_taken_or_later(bag, tmp_path, lead_steps):
    frames = frames_of(bag, lead_steps=lead_steps)
    for frame in frames:
        time_s = (frame.stamp_ns - SyntheticBag.START_NS) * 1e-9
        np.testing.assert_allclose(frame.action, commanded(time_s + lead_steps * PERIOD_S), atol=1e-6)
        np.testing.assert_allclose(frame.state, HOME + 0.01 * time_s, atol=2e-4)


def test_recorded_images_are_kept_to_the_byte_and_read_by_the_training(bag, tmp_path):
    convert(bag, config(bag, tmp_path / "out"))
    recorded = frames_of(bag)
    found = Demonstrations([tmp_path / "out"], ROBOT, CAMERAS, fit=ImageFit(36, "crop"), depth_size=18, horizon=4)
    assert found.instructions == ["stack the blocks"] and len(found) == len(recorded)
    data = pq.read_table(tmp_path / "out/data/chunk-000/file-000.parquet")["observation.images.head_rgb"]
    assert data[3].as_py()["bytes"] == recorded[3].images["head"]
    np.testing.assert_allclose(found.states()[3], recorded[3].state, rtol=1e-6)


def test_a_faster_camera_gives_frames_at_the_control_rate(tmp_path):
    frames = frames_of(write_bag(tmp_path / "bag", camera_period_s=PERIOD_S / 2))
    gaps_s = np.diff([frame.stamp_ns for frame in frames if frame.mode is Mode.TELEOP]) * 1e-9
    np.testing.assert_allclose(gaps_s, PERIOD_S, atol=1e-6)


def test_a_lost_image_ends_the_episode(tmp_path):
    path = write_bag(tmp_path / "bag", [Mode.TELEOP] * 50, without=(20,))
    convert(path, config(path, tmp_path / "out"))
    assert [length for length, _ in episodes(tmp_path / "out")] == [19, 29]


def test_another_instruction_begins_another_episode(tmp_path):
    words = ((0.4, "stack the blocks"), (0.5 + 24.5 * PERIOD_S, "clear the table"))
    path = write_bag(tmp_path / "bag", [Mode.POLICY] * 50, instruct=words)
    convert(path, config(path, tmp_path / "out"))
    table = pq.read_table(tmp_path / "out/meta/episodes/chunk-000/file-000.parquet")
    assert table["tasks"].to_pylist() == [["stack the blocks"], ["clear the table"]]
    assert table["length"].to_pylist() == [24, 25]


def test_a_silent_stream_gives_no_frames(tmp_path):
    silent = ROBOT.limbs[1].topics.arm_feedback
    path = write_bag(tmp_path / "bag", without=(silent,))
    assert "0 episodes, 0 frames; left out: 68 no complete observation" in convert(path, config(path, tmp_path / "out"))


def test_a_bag_without_commands_is_named(tmp_path):
    silent = ROBOT.limbs[0].topics.arm_command
    path = write_bag(tmp_path / "bag", without=(silent,))
    with pytest.raises(ValueError, match=f"no messages of {silent}"):
        convert(path, config(path, tmp_path / "out"))


def test_a_bag_without_a_camera_is_named(tmp_path):
    with SyntheticBag(tmp_path / "bag", SCORED) as bag:
        bag.tick(0.0)
    with pytest.raises(ValueError, match="camera_head.*is missing"):
        convert(tmp_path / "bag", config(tmp_path / "bag", tmp_path / "out"))


@pytest.mark.parametrize(
    ("outcome", "outcomes", "taken"),
    [
        ("failure", ("success",), False),
        ("", ("success",), False),
        ("", ("unscored",), True),
        ("aborted", ("aborted",), True),
    ],
)
def test_bags_are_taken_by_their_outcome(tmp_path, outcome, outcomes, taken):
    path = write_bag(tmp_path / "bag", custom_data={**SCORED, "outcome": outcome})
    result = convert(path, config(path, tmp_path / "out", outcomes=outcomes))
    assert result.startswith("3 episodes" if taken else f"left out, its outcome is {outcome or 'unscored'}")


def test_the_command_goes_on_behind_a_bad_bag_and_takes_none_twice(tmp_path, monkeypatch, capsys):
    first = write_bag(tmp_path / "first")
    second = write_bag(tmp_path / "second", [Mode.TELEOP] * 20)
    arguments = [str(first), str(tmp_path / "nothing"), str(second), "--out", str(tmp_path / "out")]
    for _ in range(2):
        monkeypatch.setattr(sys, "argv", ["from_bags", *arguments])
        assert main() == 1
        assert [length for length, _ in episodes(tmp_path / "out")] == [19, 23, 17, 19]
    printed = capsys.readouterr()
    assert "59 in the dataset already" in printed.out and "nothing does not exist" in printed.err


def test_demonstrations_say_whether_their_robot_was_a_simulated_one_and_are_not_mixed(bag, tmp_path):
    def sources(folder):
        return features.sources(read_layout(folder).features)

    convert(bag, config(bag, tmp_path / "real"))
    assert sources(tmp_path / "real") == {"real"}
    simulated = write_bag(tmp_path / "bag", simulated=True)
    convert(simulated, config(simulated, tmp_path / "simulated"))
    assert sources(tmp_path / "simulated") == {"simulation"}
    with pytest.raises(ValueError, match="holds demonstrations of source 'real'; these are 'simulation'"):
        convert(simulated, config(simulated, tmp_path / "real"))


def test_damaged_images_are_left_out_and_counted_for_their_camera(tmp_path):
    damaged = {("wrist_right", 14), ("head", 15), ("wrist_right", 60)}
    path = write_bag(tmp_path / "bag", [Mode.POLICY] * 70, damaged=damaged)
    result = convert(path, config(path, tmp_path / "out"))
    assert "2 damaged image of wrist_right" in result and "1 damaged image of head" in result
    assert [frames for frames, _ in episodes(tmp_path / "out")] == [44]  # 16 to 59; those at the ends are too short


def test_a_dataset_of_another_tool_is_continued_and_its_own_bags_are_still_known(bag, tmp_path):
    with DatasetWriter(tmp_path / "out", ROBOT) as writer:
        writer.begin_episode("lift")
        for number in range(3):
            writer.add_frame(samples.frame(0, number, depth={}, target_m=None, intervention=False))
        writer.save_episode({"seed": 7, "scene": "lift"})
    for expected in ("3 episodes", "0 episodes"):
        assert convert(bag, config(bag, tmp_path / "out")).startswith(expected)
    rows = episode_rows(tmp_path / "out")
    assert [(row["seed"], row["scene"], row["bag"]) for row in rows] == [(7, "lift", None)] + 3 * [(None, None, "bag")]
    assert list(
        Demonstrations([tmp_path / "out"], ROBOT, CAMERAS, fit=ImageFit(36, "crop"), depth_size=0, horizon=4).lengths
    ) == [3, 19, 23, 17]
