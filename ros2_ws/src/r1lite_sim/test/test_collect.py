from __future__ import annotations

import dataclasses

import cv2
import numpy as np
import pytest

from depthvla_policy.data.demonstrations import Demonstrations
from depthvla_policy.data.layout import episode_rows
from depthvla_policy.policy.images import ImageFit, decode_jpeg
from r1lite_sim.collect import CollectConfig, EpisodeCollector
from r1lite_sim.collect import collect as collect_dataset
from r1lite_sim.images import encode_depth

SEED = 100_000
CAMERAS = ("head", "wrist_left", "wrist_right")


def collect(config, seed):
    collector = EpisodeCollector(config)
    try:
        return collector.collect(seed)
    finally:
        collector.close()


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    return CollectConfig(
        tmp_path_factory.mktemp("episodes"), episodes=1, workers=1, noisy_share=1.0, image_width=96, image_height=54
    )


@pytest.fixture(scope="module")
def demonstration(config):
    return collect(config, SEED)


def stacked(demonstration, name):
    return np.stack([getattr(frame, name) for frame in demonstration.frames])


def test_the_command_collects_what_the_training_reads_and_keeps_what_is_there(config, demonstration, robot):
    collect_dataset(config)
    found = Demonstrations([config.out], robot, CAMERAS, fit=ImageFit(32, "crop"), depth_size=16, horizon=16)
    assert found.instructions == ["lift the red block with the right arm"]
    assert found.sources == {"simulation"}
    np.testing.assert_array_equal(found.chunks()[:, 0], stacked(demonstration, "action"))
    np.testing.assert_array_equal(found.states(), stacked(demonstration, "state"))
    depth_m = found[20]["depth_m"]
    assert depth_m.shape == (3, 16, 16) and 0.02 < np.nanmin(depth_m) and np.nanmax(depth_m) < 5
    image = ImageFit(32, "crop").apply(decode_jpeg(demonstration.frames[20].images["wrist_left"]))
    np.testing.assert_array_equal(found[20]["images"][1], image)
    (row,) = episode_rows(config.out)
    assert (row["seed"], row["scene"], row["noise"]) == (SEED, "lift", True)

    path = config.out / "data/chunk-000/file-000.parquet"
    before = path.stat().st_mtime_ns
    collect_dataset(config)
    assert path.stat().st_mtime_ns == before and len(episode_rows(config.out)) == 1


def test_labels_are_the_clean_targets_within_a_period_of_the_state(demonstration, robot):
    ways = np.abs(stacked(demonstration, "action") - stacked(demonstration, "state"))[:, robot.limb("right").arm]
    assert np.all(ways <= robot.command_velocity[robot.limb("right").arm] * robot.period_s + 1e-5)
    assert demonstration.noisy


def test_noise_changes_what_is_executed_but_not_the_scene(config, demonstration):
    clean = collect(dataclasses.replace(config, noisy_share=0.0), SEED)
    for name in ("state", "action"):
        np.testing.assert_array_equal(getattr(clean.frames[0], name), getattr(demonstration.frames[0], name))
    steps = min(len(clean.frames), len(demonstration.frames))
    difference = stacked(clean, "state")[:steps] - stacked(demonstration, "state")[:steps]
    assert np.abs(difference).max() > 0.005


def test_noise_leaves_the_idle_arm_alone(demonstration, robot):
    idle = stacked(demonstration, "state")[:, robot.limb("left").arm]
    assert np.abs(idle - idle[0]).max() < 2e-3


def test_the_target_starts_on_the_table_and_ends_lifted_and_held(demonstration, config):
    target = stacked(demonstration, "target_m")
    height = target[:, 2] - target[0, 2]
    assert np.all(height[-config.hold_steps :] > 0.05)
    assert np.abs(height[:5]).max() < 1e-3
    # The chest is level, 0.654 m high and 0.143 m ahead of the base.
    assert target[0, 2] == pytest.approx(0.79 - 0.654, abs=0.02)
    assert 0.35 < target[0, 0] < 0.58


def test_an_episode_that_does_not_succeed_in_time_is_dropped(config):
    assert collect(dataclasses.replace(config, max_steps=5), SEED) is None


def test_stills_are_scenes_of_one_instruction_without_actions(config):
    def stills(**changes):
        collector = EpisodeCollector(dataclasses.replace(config, stills=3, **changes))
        try:
            return collector.collect_stills(SEED)
        finally:
            collector.close()

    found = stills()
    targets = stacked(found, "target_m")
    assert len(found.frames) == 3 and np.isnan(stacked(found, "action")).all()
    assert np.isfinite(targets).all() and len(np.unique(targets[:, 0])) == 3
    np.testing.assert_array_equal(stacked(stills(), "target_m"), targets)
    with pytest.raises(ValueError, match="one instruction"):
        stills(task_options=("colour=random",))


def test_the_projection_finds_the_block_in_the_head_image(config):
    collector = EpisodeCollector(dataclasses.replace(config, stills=1))
    (frame,) = collector.collect_stills(SEED).frames
    projection = collector._simulation.projection("head", "torso_link3")
    collector.close()
    column, row, depth = projection @ [*frame.target_m, 1.0]
    red, green, blue = decode_jpeg(frame.images["head"])[round(row / depth), round(column / depth)].astype(int)
    assert depth > 0.3 and red > 2 * green and red > 2 * blue


def test_options_reach_the_task(config):
    collector = EpisodeCollector(dataclasses.replace(config, task_options=("colour=blue", "side=left"), max_steps=1))
    assert collector._simulation.instruction == "lift the blue block with the left arm"
    collector.close()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"first_seed": 999}, "first_seed"),
        ({"episodes": 0}, "episodes"),
        ({"workers": 0}, "workers"),
        ({"stills": -1}, "stills is -1"),
        ({"images": "gif"}, "'gif'"),
        ({"task": "juggle"}, "'juggle'"),
        ({"task_options": ("colour",)}, "NAME=VALUE"),
        ({"task_options": ("colour=pink",)}, "pink"),
        ({"task": "blocks_stacking", "task_options": ("colours=red,green,pink",)}, "pink"),
    ],
)
def test_a_config_that_makes_no_sense_is_refused(config, values, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(config, **values)


def test_depth_is_stored_in_millimetres_with_zero_for_unknown():
    depth = np.array([[0.5, 1.2344], [np.nan, 70.0]], dtype=np.float32)
    stored = cv2.imdecode(np.frombuffer(encode_depth(depth), dtype=np.uint8), cv2.IMREAD_UNCHANGED)
    assert stored.dtype == np.uint16
    np.testing.assert_array_equal(stored, [[500, 1234], [0, 0]])
