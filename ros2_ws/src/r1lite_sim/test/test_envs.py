from __future__ import annotations

import warnings

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

import r1lite_sim  # noqa: F401  registers the environments
from r1lite_sim.experts.lift import LiftExpert


@pytest.fixture(scope="module")
def env():
    env = gymnasium.make("r1lite_sim/Lift-v0", image_width=96, image_height=54, render_mode="rgb_array")
    yield env
    env.close()


def test_it_keeps_to_the_interface_of_gymnasium(env):
    with warnings.catch_warnings():
        # Joint targets are in robot units on purpose, not in [-1, 1].
        warnings.filterwarnings("ignore", message=".*symmetric and normalized space.*")
        check_env(env.unwrapped)


def test_an_observation_has_the_cameras_the_state_and_the_instruction(env):
    observation, info = env.reset(seed=5)
    assert list(observation["images"]) == ["head", "wrist_left", "wrist_right"]
    assert observation["images"]["head"].shape == (54, 96, 3)
    np.testing.assert_array_equal(observation["state"], env.unwrapped.simulation.state())
    assert observation["instruction"] == "lift the red block with the right arm"
    assert info == {"success": False, "progress": 0.0, "seed": 5}


def test_images_have_been_through_jpeg(env):
    observation, _ = env.reset(seed=5)
    raw = env.unwrapped.simulation.render("head").astype(int)
    difference = np.abs(observation["images"]["head"] - raw)
    assert 0 < difference.mean() < 4


def test_images_on_demand_are_the_same_ones_until_the_next_step(env):
    env = env.unwrapped  # Gymnasium's checks want a dict
    rendered, _ = env.reset(seed=5)
    env.render_images_on_demand = True
    try:
        observation, _ = env.reset(seed=5)
        images = observation["images"]
        assert dict(images).keys() == rendered["images"].keys()
        for camera, image in rendered["images"].items():
            np.testing.assert_array_equal(images[camera], image)
        env.step(observation["state"])
        with pytest.raises(RuntimeError, match="has passed"):
            images["head"]
    finally:
        env.render_images_on_demand = False


def test_an_episode_of_the_expert_ends_with_success_and_a_return_of_one(env):
    env.reset(seed=1)
    expert = LiftExpert(env.unwrapped.simulation)
    total, terminated, truncated = 0.0, False, False
    while not (terminated or truncated):
        _, reward, terminated, truncated, info = env.step(expert.act())
        total += reward
    assert terminated
    assert info["success"]
    assert total == pytest.approx(1.0)


def test_an_episode_without_success_is_truncated():
    env = gymnasium.make("r1lite_sim/Lift-v0", image_width=32, image_height=18, max_episode_s=0.5)
    try:
        observation, _ = env.reset(seed=0)
        outcomes = [env.step(observation["state"])[2:4] for _ in range(8)]
        assert outcomes == [(False, False)] * 7 + [(False, True)]
    finally:
        env.close()


def test_options_name_another_block_and_arm(env):
    observation, _ = env.reset(seed=5, options={"colour": "yellow", "side": "left"})
    assert observation["instruction"] == "lift the yellow block with the left arm"
    assert env.observation_space["instruction"].contains(observation["instruction"])
    env.reset(seed=5, options={"colour": "red", "side": "right"})


def test_without_a_seed_scenes_are_drawn_and_reported(env):
    env.reset(seed=5)
    seeds = [env.reset()[1]["seed"] for _ in range(2)]
    assert seeds[0] != seeds[1]
    env.reset(seed=5)
    assert [env.reset()[1]["seed"] for _ in range(2)] == seeds


def test_the_onlookers_view_is_rendered(env):
    env.reset(seed=5)
    assert env.render().shape == (480, 640, 3)


@pytest.mark.parametrize("action", [np.zeros(13), np.full(14, np.nan)])
def test_a_bad_action_is_refused(env, action):
    env.reset(seed=5)
    with pytest.raises(ValueError, match="14 finite numbers"):
        env.unwrapped.step(action)


def test_an_unknown_render_mode_is_refused():
    with pytest.raises(ValueError, match="render_mode is 'human'"):
        r1lite_sim.envs.TaskEnv(render_mode="human")


@pytest.mark.parametrize("name", r1lite_sim.ENVIRONMENTS)
def test_every_environment_can_be_made_and_names_its_instruction(name):
    env = gymnasium.make(f"r1lite_sim/{name}", image_width=32, image_height=18)
    try:
        observation, info = env.reset(seed=3)
        assert env.observation_space.contains(observation)
        assert observation["instruction"] == env.unwrapped.simulation.instruction
        assert info["progress"] == 0.0
        assert env.unwrapped.max_episode_s == env.unwrapped.simulation.task.time_limit_s
    finally:
        env.close()


@pytest.mark.parametrize("mode", ["sync", "async"])
def test_environments_run_side_by_side(mode):
    # A GL context does not survive a fork.
    options = {"vector_kwargs": {"context": "spawn", "shared_memory": False}} if mode == "async" else {}
    envs = gymnasium.make_vec(
        "r1lite_sim/BlocksStacking-v0", num_envs=2, vectorization_mode=mode, image_width=32, image_height=18, **options
    )
    try:
        observations, _ = envs.reset(seed=[3, 4])
        assert observations["images"]["head"].shape == (2, 18, 32, 3)
        assert len(set(observations["instruction"])) == 2
        observations, rewards, *_ = envs.step(observations["state"])
        assert observations["state"].shape == (2, 14)
        np.testing.assert_array_equal(rewards, [0, 0])
        assert all(text.startswith("stack the ") for text in observations["instruction"])
    finally:
        envs.close()


def test_shared_memory_is_refused_instead_of_blanking_the_instructions():
    with pytest.raises(ValueError, match="shared_memory=False"):
        gymnasium.make_vec(
            "r1lite_sim/Lift-v0", num_envs=1, vectorization_mode="async", image_width=32, image_height=18
        )
