"""Closed-loop episodes in a Gymnasium environment, in simulated time: policy, real chunk executor, environment.

Nothing here waits for a wall clock: inference costs as many control steps as the settings say.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gymnasium
import numpy as np

from depthvla_policy import robot as robot_description
from depthvla_policy.control.arbiter import Mode
from depthvla_policy.control.chunk import Chunk
from depthvla_policy.control.config import ExecutorConfig
from depthvla_policy.control.executor import ChunkExecutor
from depthvla_policy.evaluation.metrics import depth_errors
from depthvla_policy.policy.observation import Observation
from depthvla_policy.robot import Robot

if TYPE_CHECKING:
    from depthvla_policy.policy.policy import Policy

OTHER_SCENE = 500  # from the seed of an episode to the one whose pictures "shuffled_cameras" shows
BASELINES = ("none", "do_nothing", "shuffled_cameras")


@dataclass(frozen=True)
class RolloutConfig:
    """How an episode is run.

    execute: control steps between two observations that the policy is asked about. latency_steps: control steps from an
    observation to its chunk's arrival at the executor. baseline: "none" is the policy itself; "do_nothing" holds the
    start pose; "shuffled_cameras" hands the policy the pictures of another scene, in which the robot does the same.
    depth_every: predicted depth of every n-th chunk is compared with the truth; 0 for none. strategy: how the executor
    joins chunks (control/timeline.py).
    """

    execute: int = 4
    latency_steps: int = 0
    baseline: str = "none"
    depth_every: int = 4
    strategy: str = ExecutorConfig.strategy

    def __post_init__(self) -> None:
        if self.execute < 1:
            raise ValueError(f"execute is {self.execute}; it must be 1 or more")
        if self.latency_steps < 0 or self.depth_every < 0:
            raise ValueError(
                f"latency_steps is {self.latency_steps} and depth_every {self.depth_every}; they must not be negative"
            )
        if self.baseline not in BASELINES:
            raise ValueError(f"baseline is {self.baseline!r}; allowed: {', '.join(BASELINES)}")


@dataclass
class EpisodeResult:
    """success and progress: as the environment saw them at the end. held_steps: steps without a chunk to follow."""

    seed: int
    instruction: str
    success: bool = False
    progress: float = 0.0
    steps: int = 0
    chunks: int = 0
    chunks_refused: int = 0
    held_steps: int = 0
    clamped_position: int = 0
    clamped_velocity: int = 0
    depth_abs_rel: dict[str, list[float]] = field(default_factory=dict)  # camera -> one value a compared image
    inference_s: list[float] = field(default_factory=list)  # wall time of every inference without depth


def environment_id(task: str) -> str:
    """Gymnasium id of a task: `lift` stands for r1lite_sim/Lift-v0; an id (with a slash) stands for itself."""
    if "/" in task:
        return task
    return f"r1lite_sim:r1lite_sim/{task.title().replace('_', '')}-v0"


def run_episode(
    env: gymnasium.Env,
    robot: Robot,
    policy: Policy | None,
    seed: int,
    config: RolloutConfig,
    pictures: gymnasium.Env | None = None,
) -> EpisodeResult:
    """Run the scene of `seed` to its end. The policy's noise depends on nothing but the seed and the chunk's number.

    env: observations {"images": {camera: (H, W, 3) uint8}, "state": (14,), "instruction": str}; actions (14,) absolute
    targets; info["success"], info["progress"]; depth truth from `env.unwrapped.simulation.render_depth(camera)`.
    policy: may be None for the baseline "do_nothing". pictures: like `env`, the other scene for "shuffled_cameras".
    """
    period_ns = round(robot.period_s * 1e9)
    executor = ChunkExecutor(robot, period_s=robot.period_s, config=ExecutorConfig(strategy=config.strategy))
    seen, _ = env.reset(seed=seed)
    shuffled = config.baseline == "shuffled_cameras"
    shown = pictures.reset(seed=seed + OTHER_SCENE)[0] if shuffled else seen
    result = EpisodeResult(seed, seen["instruction"])
    on_their_way: list[tuple[int, Chunk]] = []  # (step of arrival, chunk)
    ended = False
    while not ended:
        now_ns = result.steps * period_ns
        _feed_back(executor, robot, seen["state"], now_ns)
        if result.steps == 0:
            refusal = executor.arm(now_ns) or executor.set_mode(Mode.POLICY, now_ns).refusal
            if refusal:
                raise RuntimeError(f"the executor cannot start in scene {seed}: {refusal}")
        if policy is not None and config.baseline != "do_nothing" and result.steps % config.execute == 0:
            chunk = _ask(policy, env, {**seen, "images": shown["images"]}, now_ns, result, config)
            on_their_way.append((result.steps + config.latency_steps, chunk))
        while on_their_way and on_their_way[0][0] <= result.steps:
            executor.offer(on_their_way.pop(0)[1], now_ns)
        command = executor.tick(now_ns)
        result.held_steps += executor.mode is not Mode.POLICY
        seen, _, terminated, truncated, info = env.step(command.positions)
        shown = pictures.step(command.positions)[0] if shuffled else seen
        result.steps += 1
        ended = terminated or truncated
    result.success, result.progress = bool(info["success"]), float(info["progress"])
    state = executor.state
    result.chunks_refused = state.chunks_refused
    result.clamped_position, result.clamped_velocity = state.clamped_position, state.clamped_velocity
    return result


def run_episodes(
    policy_folder: Path | None, task: str, seeds: Sequence[int], config: RolloutConfig, *, workers: int = 1
) -> Iterator[EpisodeResult]:
    """Run scenes in worker processes of one thread each; results come as they are ready."""
    # A renderer and torch's threads do not survive a fork.
    context = multiprocessing.get_context("spawn")
    settings = (policy_folder, task, config)
    with ProcessPoolExecutor(min(workers, len(seeds)), context, _start_worker, settings) as pool:
        running = [pool.submit(_run_in_worker, seed) for seed in seeds]
        try:
            for future in as_completed(running):
                yield future.result()
        finally:
            pool.shutdown(cancel_futures=True)


_worker: dict[str, Any] = {}


def _start_worker(policy_folder: Path | None, task: str, config: RolloutConfig) -> None:
    _worker["robot"] = robot_description.load()
    _worker["config"] = config
    _worker["policy"] = None
    if policy_folder is not None:
        import torch

        from depthvla_policy.policy.policy import Policy

        torch.set_num_threads(1)
        _worker["policy"] = Policy.load(policy_folder, robot=_worker["robot"])
    _worker["env"], _worker["pictures"] = (
        gymnasium.make(environment_id(task), disable_env_checker=True) for _ in range(2)
    )


def _run_in_worker(seed: int) -> EpisodeResult:
    return run_episode(seed=seed, **_worker)


def _feed_back(executor: ChunkExecutor, robot: Robot, state: np.ndarray, now_ns: int) -> None:
    for limb in robot.limbs:
        executor.feedback_arm(limb.name, state[limb.arm], now_ns)
        executor.feedback_gripper(limb.name, [state[limb.gripper_index]], now_ns)


def _ask(
    policy: Policy, env: gymnasium.Env, seen: dict, now_ns: int, result: EpisodeResult, config: RolloutConfig
) -> Chunk:
    compare = policy.has_depth and config.depth_every > 0 and result.chunks % config.depth_every == 0
    depth_m = None
    if policy.takes_depth:
        depth_m = {name: env.unwrapped.simulation.render_depth(name) for name in seen["images"]}
    observation = Observation(now_ns, seen["images"], seen["state"], seen["instruction"], depth_m)
    noise_seed = int(np.random.SeedSequence([result.seed, result.chunks]).generate_state(1)[0])
    prediction = policy.infer(observation, depth=compare, seed=noise_seed)
    result.chunks += 1
    if compare:
        _compare_depth(policy, env, prediction.depth_m, result)
    else:
        result.inference_s.append(prediction.preprocess_s + prediction.inference_s)
    return Chunk(now_ns, result.chunks, round(policy.period_s * 1e9), prediction.actions)


def _compare_depth(policy: Policy, env: gymnasium.Env, predicted: dict[str, np.ndarray], result: EpisodeResult) -> None:
    for camera, depth_m in predicted.items():
        true = policy.image_fit.apply_depth(env.unwrapped.simulation.render_depth(camera), policy.depth_size)
        errors = depth_errors(depth_m, true)
        if errors is not None:
            result.depth_abs_rel.setdefault(camera, []).append(errors.abs_rel)
