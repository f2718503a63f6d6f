"""Closed-loop episodes in simulated time: when chunks arrive, what the baselines do, that a seed decides everything."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from depthvla_evaluation.rollouts.results import summarise_episodes
from depthvla_evaluation.rollouts.rollout import EpisodeResult, RolloutConfig, environment_id, run_episode
from depthvla_policy.policy.images import ImageFit
from depthvla_policy.policy.policy import Prediction

HORIZON = 16


class FollowingEnv:
    """Joints are where they were told to be; true depth is 2 m everywhere. Ends after `length` steps."""

    def __init__(self, home: np.ndarray, cameras: list[str], length: int = 20, colour: int = 0) -> None:
        self.home, self.cameras, self.length, self.colour = home, cameras, length, colour
        self.actions: list[np.ndarray] = []
        self.unwrapped = SimpleNamespace(
            simulation=SimpleNamespace(render_depth=lambda camera: np.full((6, 8), 2.0, np.float32))
        )

    def reset(self, *, seed: int, options: dict | None = None):
        self.actions, self.seed, self.options = [], seed, options
        return self._observation(self.home), {}

    def step(self, action: np.ndarray):
        self.actions.append(action)
        ended = len(self.actions) >= self.length
        info = {"success": False, "progress": len(self.actions) / self.length}
        return self._observation(action), 0.0, False, ended, info

    def _observation(self, state: np.ndarray) -> dict:
        images = {name: np.full((6, 8, 3), self.colour + index, np.uint8) for index, name in enumerate(self.cameras)}
        return {"images": images, "state": state, "instruction": "lift the red block"}


class RampPolicy:
    """Moves the first joint by `slope` a step from where it is; remembers what it was asked."""

    has_depth, takes_depth = True, False
    depth_size = 4
    image_fit = ImageFit(4, "crop")
    period_s, horizon = 1 / 15, HORIZON

    def __init__(self, slope: float = 0.01, inference_s: float = 0.004) -> None:
        self.slope, self.inference_s = slope, inference_s
        self.asked: list[tuple] = []

    def infer(self, observation, *, depth: bool = False, seed: int | None = None, **continued) -> Prediction:
        self.asked.append((observation, depth, seed, continued))
        actions = np.tile(observation.state, (HORIZON, 1))
        actions[:, 0] += self.slope * np.arange(HORIZON)
        depth_m = {name: np.full((4, 4), 1.9, np.float32) for name in observation.images} if depth else {}
        return Prediction(actions, depth_m, 0.001, self.inference_s)


@pytest.fixture
def env(robot, home):
    return FollowingEnv(home, [camera.name for camera in robot.cameras])


def test_a_chunk_without_latency_is_followed_from_its_first_step(env, robot):
    run_episode(env, robot, RampPolicy(), 0, RolloutConfig(execute=8))
    moved = np.array(env.actions)[:8, 0] - env.home[0]
    np.testing.assert_allclose(moved, 0.01 * np.arange(8), atol=1e-9)


def test_the_policy_is_asked_every_so_many_steps_and_told_the_time_of_its_observation(env, robot):
    policy = RampPolicy()
    result = run_episode(env, robot, policy, 0, RolloutConfig(execute=6))
    assert [round(asked[0].stamp_ns * 15e-9) for asked in policy.asked] == [0, 6, 12, 18]
    assert (result.chunks, result.chunks_refused, result.held_steps, result.steps) == (4, 0, 0, 20)


def test_latency_holds_the_start_pose_and_then_skips_the_steps_that_are_past(env, robot):
    result = run_episode(env, robot, RampPolicy(), 0, RolloutConfig(execute=8, latency_steps=3))
    moved = np.array(env.actions)[:, 0] - env.home[0]
    np.testing.assert_array_equal(moved[:3], 0)
    # The chunk arrives at step 3 and step 3 is due. The arm catches up with it within its limits.
    assert 0.0 < moved[3] <= 0.03
    np.testing.assert_allclose(moved[6:8], [0.06, 0.07], atol=1e-6)
    assert result.held_steps == 3


def test_an_episode_ends_at_the_time_limit_that_it_was_given(env, robot):
    assert run_episode(env, robot, RampPolicy(), 0, RolloutConfig(time_limit_s=0.5)).steps == 8
    assert run_episode(env, robot, RampPolicy(), 0, RolloutConfig(time_limit_s=9.0)).steps == env.length


def test_a_chunk_continues_what_the_executor_is_about_to_do(env, robot):
    policy = RampPolicy()
    config = RolloutConfig(execute=8, latency_steps=2, realtime_chunking="trained")
    run_episode(env, robot, policy, 0, config)
    first, second = (asked[3] for asked in policy.asked[:2])
    assert not first, "nothing is in execution yet"
    assert (second["method"], second["delay"]) == ("trained", 3)
    moved = second["committed"][:, 0] - env.home[0]
    np.testing.assert_allclose(moved, 0.01 * np.arange(8, HORIZON), atol=1e-6)


def test_a_measured_latency_is_rounded_up_to_control_steps_and_the_policy_answers_one_question_at_a_time(env, robot):
    slow = RampPolicy(inference_s=0.39)  # 5.9 control steps with its preprocessing
    result = run_episode(env, robot, slow, 0, RolloutConfig(execute=4, latency_steps=None))
    assert result.latency_steps == [6, 6, 6, 6]
    assert [round(asked[0].stamp_ns * 15e-9) for asked in slow.asked] == [0, 6, 12, 18]
    assert result.held_steps == 6


def test_a_wrong_instruction_goes_to_the_policy_alone(env, robot):
    policy = RampPolicy()
    result = run_episode(env, robot, policy, 0, RolloutConfig(baseline="wrong_instruction"))
    assert {asked[0].instruction for asked in policy.asked} == {"lift the green block"} == {result.told}
    assert result.instruction == "lift the red block"


def test_options_go_to_the_environment_and_into_the_row(env, robot):
    config = RolloutConfig(task_options=("colour=blue", "order=a,b"))
    result = run_episode(env, robot, RampPolicy(), 0, config)
    assert env.options == {"colour": "blue", "order": ("a", "b")}
    assert result.options == {"colour": "blue", "order": ["a", "b"]}


def test_a_substep_is_dated_by_the_control_step_after_which_it_was_done(env, robot):
    class Task:
        substeps = ("near", "far", "never")

        @property
        def done(self) -> tuple[str, ...]:
            return tuple(name for name, step in (("near", 3), ("far", 12)) if len(env.actions) >= step)

    env.unwrapped.simulation.task = Task()
    result = run_episode(env, robot, RampPolicy(), 0, RolloutConfig())
    assert result.substeps == {"near": 3, "far": 12, "never": None}


def test_a_video_has_every_control_step_and_depth_with_every_chunk(env, robot, tmp_path):
    av = pytest.importorskip("av")
    from depthvla_evaluation.rollouts.video import RolloutVideo

    env.render = lambda: np.full((48, 64, 3), 200, np.uint8)
    policy = RampPolicy()
    with RolloutVideo(tmp_path / "videos" / "seed_0.mp4", env.cameras) as video:
        run_episode(env, robot, policy, 0, RolloutConfig(), video=video)
    assert all(asked[1] for asked in policy.asked)
    with av.open(str(tmp_path / "videos" / "seed_0.mp4")) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    assert len(frames) == 20
    assert frames[-1][240, 320].min() > 150 and frames[-1][80, -80].max() > 50  # onlooker and head camera's depth


def test_doing_nothing_holds_the_start_pose_and_asks_nobody(env, robot):
    policy = RampPolicy()
    result = run_episode(env, robot, policy, 0, RolloutConfig(baseline="do_nothing"))
    np.testing.assert_array_equal(env.actions, np.tile(env.home, (20, 1)))
    assert not policy.asked and result.chunks == 0 and result.held_steps == 20


def test_shuffled_cameras_show_another_scene_in_which_the_robot_does_the_same(env, robot, home):
    policy, other = RampPolicy(), FollowingEnv(home, [camera.name for camera in robot.cameras], colour=100)
    run_episode(env, robot, policy, 0, RolloutConfig(baseline="shuffled_cameras"), other)
    assert {int(image[0, 0, 0]) for asked in policy.asked for image in asked[0].images.values()} == {100, 101, 102}
    assert env.seed == 0 and other.seed != 0
    np.testing.assert_array_equal(env.actions, other.actions)


def test_depth_is_compared_on_every_nth_chunk(env, robot):
    policy = RampPolicy()
    result = run_episode(env, robot, policy, 0, RolloutConfig(execute=4, depth_every=2))
    assert [asked[1] for asked in policy.asked] == [True, False, True, False, True]
    assert set(result.depth_abs_rel) == {camera.name for camera in robot.cameras}
    assert result.depth_abs_rel["head"] == pytest.approx([0.05] * 3)
    assert result.inference_s == pytest.approx([0.005] * 2)


def test_the_seed_and_the_number_of_the_chunk_decide_the_noise(env, robot):
    first, again, other = RampPolicy(), RampPolicy(), RampPolicy()
    for policy, seed in ((first, 3), (again, 3), (other, 4)):
        run_episode(env, robot, policy, seed, RolloutConfig())
    seeds = [[asked[2] for asked in policy.asked] for policy in (first, again, other)]
    assert seeds[0] == seeds[1]
    assert len(set(seeds[0] + seeds[2])) == len(seeds[0]) + len(seeds[2])


@pytest.mark.parametrize(
    "values, complaint",
    [
        ({"execute": 0}, "execute is 0"),
        ({"latency_steps": -1}, "latency_steps is -1"),
        (
            {"baseline": "random"},
            "baseline is 'random'; allowed: none, do_nothing, shuffled_cameras, wrong_instruction",
        ),
        ({"task_options": ("colour",)}, "task option is 'colour'; allowed: NAME=VALUE"),
    ],
)
def test_a_wrong_setting_is_named(values, complaint):
    with pytest.raises(ValueError, match=complaint):
        RolloutConfig(**values)


def test_results_over_episodes_equal_the_hand_computed_ones():
    episodes = [
        EpisodeResult(0, "lift", success=True, progress=1.0, depth_abs_rel={"head": [0.02, 0.04]}, inference_s=[0.01]),
        EpisodeResult(1, "lift", success=False, progress=0.5, depth_abs_rel={"head": [0.06]}, inference_s=[0.03]),
    ]
    found = summarise_episodes(episodes)
    assert found["success_rate"] == 0.5
    assert found["success_interval"] == pytest.approx([0.0945, 0.9055], abs=1e-4)
    assert found["progress"] == 0.75
    assert found["progress_interval"] == [0.5, 1.0]
    assert found["depth_abs_rel"] == pytest.approx(0.04)
    assert found["inference_ms"]["mean"] == pytest.approx(20.0)


def test_task_names_stand_for_environments():
    assert environment_id("lift") == "r1lite_sim:r1lite_sim/Lift-v0"
    assert environment_id("table_bussing") == "r1lite_sim:r1lite_sim/TableBussing-v0"
    assert environment_id("other:some/Env-v1") == "other:some/Env-v1"


def test_the_expert_lifts_the_block_through_the_real_executor_and_does_so_again(robot):
    """With the scripted expert as policy, what is left to fail are the executor, the environment and the timing."""
    gymnasium = pytest.importorskip("gymnasium")
    pytest.importorskip("r1lite_sim")
    env = gymnasium.make(environment_id("lift"), image_width=64, image_height=48, disable_env_checker=True)
    from r1lite_sim.experts.lift import LiftExpert

    class ExpertPolicy(RampPolicy):
        has_depth = False

        def infer(self, observation, *, depth=False, seed=None) -> Prediction:
            if observation.stamp_ns == 0:
                self.expert = LiftExpert(env.unwrapped.simulation)
            return Prediction(np.tile(self.expert.act(), (HORIZON, 1)), {}, 0.0, 0.0)

    # This policy says where to be now and nothing of what comes then, so there is nothing to blend.
    config = RolloutConfig(execute=1, strategy="replace")
    first, again = (run_episode(env, robot, ExpertPolicy(), 5, config) for _ in range(2))
    env.close()
    assert first == again
    assert first.success and first.progress == 1.0
    assert first.instruction == "lift the red block with the right arm"
    assert first.options == {"colour": "red", "side": "right"}
    done = list(first.substeps.values())
    assert done == sorted(done) and None not in done
    assert first.held_steps == 0 and first.chunks_refused == 0
