from __future__ import annotations

import dataclasses

import cv2
import numpy as np
import pytest

from depthvla_policy.data.episodes import load_episodes
from depthvla_policy.policy.images import ImageFit, decode_jpeg
from r1lite_sim.collect import CollectConfig, EpisodeCollector, main
from r1lite_sim.images import encode_depth, encode_jpeg

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
def record(config):
    return collect(config, SEED)


def test_an_episode_is_what_the_loader_of_the_training_reads(config, record):
    main(config)
    (episode,) = load_episodes(config.out, CAMERAS, ImageFit(32, "crop"), 16)
    assert episode.seed == SEED
    assert episode.instruction == "lift the red block with the right arm"
    assert episode.images.shape == (len(record["state"]), 3, 32, 32, 3)
    assert episode.depth_m.shape == (len(record["state"]), 3, 16, 16)
    np.testing.assert_array_equal(episode.action, record["action"])
    assert np.nanmin(episode.depth_m) > 0.02
    assert np.nanmax(episode.depth_m) < 5


def test_an_episode_that_is_there_is_kept(config):
    main(config)
    path = config.out / f"episode_{SEED}.npz"
    before = path.stat().st_mtime_ns
    main(config)
    assert path.stat().st_mtime_ns == before
    assert [item.name for item in config.out.iterdir()] == [path.name]


def test_labels_are_the_clean_targets_within_a_period_of_the_state(record, robot):
    ways = np.abs(record["action"] - record["state"])[:, robot.limb("right").arm]
    assert np.all(ways <= robot.command_velocity[robot.limb("right").arm] * robot.period_s + 1e-5)
    assert record["noise"]


def test_noise_changes_what_is_executed_but_not_the_scene(config, record):
    clean = collect(dataclasses.replace(config, noisy_share=0.0), SEED)
    np.testing.assert_array_equal(clean["state"][0], record["state"][0])
    np.testing.assert_array_equal(clean["action"][0], record["action"][0])
    steps = min(len(clean["state"]), len(record["state"]))
    assert np.abs(clean["state"][:steps] - record["state"][:steps]).max() > 0.005


def test_the_target_starts_on_the_table_and_ends_lifted_and_held(record, config):
    height = record["target_xyz"][:, 2] - record["target_xyz"][0, 2]
    assert np.all(height[-config.hold_steps :] > 0.05)
    assert np.abs(height[:5]).max() < 1e-3
    # The chest is level, 0.654 m high and 0.143 m ahead of the base.
    assert record["target_xyz"][0, 2] == pytest.approx(0.79 - 0.654, abs=0.02)
    assert 0.35 < record["target_xyz"][0, 0] < 0.58


def test_an_episode_that_does_not_succeed_in_time_is_dropped(config):
    assert collect(dataclasses.replace(config, max_steps=5), SEED) is None


@pytest.mark.parametrize("values", [{"first_seed": 999}, {"episodes": 0}, {"workers": 0}])
def test_a_config_that_makes_no_sense_is_refused(config, values):
    with pytest.raises(ValueError, match=next(iter(values))):
        dataclasses.replace(config, **values)


def test_jpeg_keeps_red_red():
    image = np.zeros((32, 32, 3), dtype=np.uint8)
    image[..., 0] = 200
    assert np.abs(decode_jpeg(encode_jpeg(image)).astype(int) - image).max() < 5


def test_depth_is_stored_in_millimetres_with_zero_for_unknown():
    depth = np.array([[0.5, 1.2344], [np.nan, 70.0]], dtype=np.float32)
    stored = cv2.imdecode(np.frombuffer(encode_depth(depth), dtype=np.uint8), cv2.IMREAD_UNCHANGED)
    assert stored.dtype == np.uint16
    np.testing.assert_array_equal(stored, [[500, 1234], [0, 0]])
