"""Closed-loop episodes in a Gymnasium environment, in simulated time: policy, real chunk executor, environment.

Nothing here waits for a wall clock: inference costs as many control steps as the settings say.
"""

from __future__ import annotations

import importlib
import math
import multiprocessing
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gymnasium
import numpy as np

from depthvla_control.arbiter import Mode
from depthvla_control.chunk import Chunk
from depthvla_control.execution_plan import REALTIME_CHUNKING, Plan
from depthvla_control.executor import ChunkExecutor
from depthvla_control.executor_config import ExecutorConfig
from depthvla_evaluation.metrics import depth_errors
from depthvla_evaluation.rollouts.wrong_instruction import wrong_instruction
from depthvla_policy.policy.observation import Observation
from r1lite_description import robot as robot_description
from r1lite_description.robot import Robot
from r1lite_sim import task_options

if TYPE_CHECKING:
    from depthvla_evaluation.rollouts.video import RolloutVideo
    from depthvla_policy.policy.policy import Policy

OTHER_SCENE = 500  # from the seed of an episode to the one whose pictures "shuffled_cameras" shows
OWN, DO_NOTHING = "none", "do_nothing"  # the policy itself, among the baselines; no policy
BASELINES = (OWN, DO_NOTHING, "shuffled_cameras", "wrong_instruction")


class EvaluationError(RuntimeError):
    """The executor or the graph does not do what it was asked for; the message says what."""


@dataclass(frozen=True)
class RolloutConfig:
    """How an episode is run.

    execute: control steps between two observations that the policy is asked about. latency_steps: control steps from an
    observation to its chunk's arrival at the executor; None takes the measured time of the inference, rounded up, and
    asks no more until the chunk is there. baseline: "none" is the policy itself; "do_nothing" holds the start pose;
    "shuffled_cameras" hands the policy the pictures of another scene, in which the robot does the same;
    "wrong_instruction" tells it another instruction than the scene's, which still decides about success.
    depth_every: predicted depth of every n-th chunk is compared with the truth; 0 for none. strategy: how the executor
    joins chunks (control/timeline.py). realtime_chunking: one of REALTIME_CHUNKING. task_options: NAME=VALUE words
    (task_options.py). time_limit_s: ends an episode in simulated time, if the environment has not before.
    """

    execute: int = 4
    latency_steps: int | None = 0
    baseline: str = "none"
    depth_every: int = 4
    strategy: str = ExecutorConfig.strategy
    realtime_chunking: str = "off"
    task_options: tuple[str, ...] = ()
    time_limit_s: float | None = None

    def __post_init__(self) -> None:
        if self.execute < 1:
            raise ValueError(f"execute is {self.execute}; it must be 1 or more")
        if (self.latency_steps or 0) < 0 or self.depth_every < 0:
            raise ValueError(
                f"latency_steps is {self.latency_steps} and depth_every {self.depth_every}; they must not be negative"
            )
        if self.baseline not in BASELINES:
            raise ValueError(f"baseline is {self.baseline!r}; allowed: {', '.join(BASELINES)}")
        if self.time_limit_s is not None and not 0.0 < self.time_limit_s < math.inf:
            raise ValueError(f"time_limit_s is {self.time_limit_s}; it must be above 0")
        if self.realtime_chunking not in REALTIME_CHUNKING:
            raise ValueError(
                f"realtime_chunking is {self.realtime_chunking!r}; allowed: {', '.join(REALTIME_CHUNKING)}"
            )
        task_options.parse(self.task_options)

    @property
    def options(self) -> dict[str, Any]:
        return task_options.parse(self.task_options)


@dataclass
class EpisodeResult:
    """success and progress: as the environment saw them at the end. held_steps: steps without a chunk to follow."""

    seed: int
    instruction: str  # the scene's
    told: str = ""  # what the policy was told, where that is another one
    options: dict[str, Any] = field(default_factory=dict)  # of the task in this scene
    success: bool = False
    progress: float = 0.0
    substeps: dict[str, int | None] = field(default_factory=dict)  # -> control steps until it was done; None: never
    steps: int = 0
    chunks: int = 0
    chunks_refused: int = 0
    held_steps: int = 0
    clamped_position: int = 0
    clamped_velocity: int = 0
    depth_abs_rel: dict[str, list[float]] = field(default_factory=dict)  # camera -> one value a compared image
    inference_s: list[float] = field(default_factory=list)  # wall time of every inference without depth
    latency_steps: list[int] = field(default_factory=list)  # of every chunk
    kept: dict[str, str] = field(default_factory=dict)  # more for its row: where its video or its recording is


@dataclass(frozen=True)
class Run:
    """Episodes as they are finished, and what was asked for."""

    policy: Path | None
    model_id: str | None
    settings: dict
    episodes: Iterator[EpisodeResult]


def environment_id(task: str) -> str:
    """Gymnasium id of a task: `lift` stands for r1lite_sim/Lift-v0; an id (with a slash) stands for itself."""
    if "/" in task:
        return task
    return f"r1lite_sim:r1lite_sim/{task.title().replace('_', '')}-v0"


def check_environment(task: str) -> None:
    """Raises ValueError where there is no such task: before workers have loaded what they need."""
    module, _, name = environment_id(task).rpartition(":")
    try:
        if module:
            importlib.import_module(module)
        gymnasium.spec(name)
    except (gymnasium.error.Error, ImportError) as error:
        raise ValueError(f"task is {task!r}: {error}") from None


def run_episode(
    env: gymnasium.Env,
    robot: Robot,
    policy: Policy | None,
    seed: int,
    config: RolloutConfig,
    pictures: gymnasium.Env | None = None,
    video: RolloutVideo | None = None,
) -> EpisodeResult:
    """Run the scene of `seed` to its end. The policy's noise depends on nothing but the seed and the chunk's number.

    env: observations {"images": {camera: (H, W, 3) uint8}, "state": (14,), "instruction": str}; actions (14,) absolute
    targets; info["success"], info["progress"]; depth truth from `env.unwrapped.simulation.render_depth(camera)`.
    policy: may be None for the baseline "do_nothing". pictures: like `env`, the other scene for "shuffled_cameras".
    video: gets every control step; the policy then predicts depth with every chunk.
    """
    period_ns = round(robot.period_s * 1e9)
    executor = ChunkExecutor(robot, period_s=robot.period_s, config=ExecutorConfig(strategy=config.strategy))
    seen = _stage(env, seed, config)
    shuffled = config.baseline == "shuffled_cameras"
    shown = _stage(pictures, seed + OTHER_SCENE, config) if shuffled else seen
    told = wrong_instruction(seen["instruction"]) if config.baseline == "wrong_instruction" else ""
    task = task_options.task(env)
    result = EpisodeResult(seed, seen["instruction"], told, task_options.of_scene(env, config.options))
    result.substeps = dict.fromkeys(getattr(task, "substeps", ()))
    on_their_way: list[tuple[int, Chunk]] = []  # (step of arrival, chunk)
    next_question = 0
    ended = False
    while not ended:
        now_ns = result.steps * period_ns
        _feed_back(executor, robot, seen["state"], now_ns)
        if result.steps == 0:
            refusal = executor.arm(now_ns) or executor.set_mode(Mode.POLICY, now_ns).refusal
            if refusal:
                raise EvaluationError(f"the executor cannot start in scene {seed}: {refusal}")
        if policy is not None and config.baseline != DO_NOTHING and result.steps >= next_question:
            asked = {**seen, "images": shown["images"], "instruction": told or seen["instruction"]}
            plan = executor.plan() if config.realtime_chunking != "off" else None
            chunk, took_s = _ask(policy, env, asked, now_ns, plan, result, config, video)
            measured = config.latency_steps is None
            latency = math.ceil(took_s / robot.period_s) if measured else config.latency_steps
            result.latency_steps.append(latency)
            on_their_way.append((result.steps + latency, chunk))
            next_question = result.steps + (max(config.execute, latency) if measured else config.execute)
        while on_their_way and on_their_way[0][0] <= result.steps:
            executor.offer(on_their_way.pop(0)[1], now_ns)
        if video:
            video.add(env.render(), shown["images"])
        command = executor.tick(now_ns)
        result.held_steps += executor.mode is not Mode.POLICY
        seen, _, terminated, truncated, info = env.step(command.positions)
        shown = pictures.step(command.positions)[0] if shuffled else seen
        result.steps += 1
        for name in getattr(task, "done", ()):
            if result.substeps[name] is None:
                result.substeps[name] = result.steps
        late = config.time_limit_s is not None and result.steps * robot.period_s >= config.time_limit_s
        ended = terminated or truncated or late
    result.success, result.progress = bool(info["success"]), float(info["progress"])
    state = executor.state
    result.chunks_refused = state.chunks_refused
    result.clamped_position, result.clamped_velocity = state.clamped_position, state.clamped_velocity
    return result


def run_episodes(
    policy_folder: Path | None,
    task: str,
    seeds: Sequence[int],
    config: RolloutConfig,
    *,
    workers: int = 1,
    videos: Path | None = None,
    video_seeds: int = 0,
) -> Iterator[EpisodeResult]:
    """Run scenes in worker processes of one thread each; results come as they are ready.

    videos: folder for one MP4 of each of the first `video_seeds` seeds.
    """
    # A renderer and torch's threads do not survive a fork.
    context = multiprocessing.get_context("spawn")
    settings = (policy_folder, task, config, videos is not None)
    with ProcessPoolExecutor(min(workers, len(seeds)), context, _start_worker, settings) as pool:
        filmed = set(seeds[:video_seeds]) if videos else set()
        running = [pool.submit(_run_in_worker, seed, videos if seed in filmed else None) for seed in seeds]
        try:
            for future in as_completed(running):
                yield future.result()
        finally:
            pool.shutdown(cancel_futures=True)


_worker: dict[str, Any] = {}


def _start_worker(policy_folder: Path | None, task: str, config: RolloutConfig, films: bool) -> None:
    _worker["robot"] = robot_description.load()
    _worker["config"] = config
    _worker["policy"] = None
    if policy_folder is not None:
        import torch

        from depthvla_policy.policy.policy import Policy

        torch.set_num_threads(1)
        _worker["policy"] = Policy.load(policy_folder, robot=_worker["robot"])
    looks = {"render_mode": "rgb_array"} if films else {}
    _worker["env"], _worker["pictures"] = (
        gymnasium.make(environment_id(task), disable_env_checker=True, **looks) for _ in range(2)
    )
    for name in ("env", "pictures"):
        if hasattr(_worker[name].unwrapped, "render_images_on_demand"):
            _worker[name].unwrapped.render_images_on_demand = True


def _run_in_worker(seed: int, videos: Path | None) -> EpisodeResult:
    if videos is None:
        return run_episode(seed=seed, **_worker)
    from depthvla_evaluation.rollouts.video import RolloutVideo

    cameras, path = [camera.name for camera in _worker["robot"].cameras], videos / f"seed_{seed}.mp4"
    with RolloutVideo(path, cameras) as video:
        result = run_episode(seed=seed, video=video, **_worker)
    result.kept["video"] = str(path)
    return result


def _stage(env: gymnasium.Env, seed: int, config: RolloutConfig) -> dict:
    return env.reset(seed=seed, options=task_options.for_reset(env, config.options))[0]


def _feed_back(executor: ChunkExecutor, robot: Robot, state: np.ndarray, now_ns: int) -> None:
    for limb in robot.limbs:
        executor.feedback_arm(limb.name, state[limb.arm], now_ns)
        executor.feedback_gripper(limb.name, [state[limb.gripper_index]], now_ns)


def _ask(
    policy: Policy,
    env: gymnasium.Env,
    seen: dict,
    now_ns: int,
    plan: Plan | None,
    result: EpisodeResult,
    config: RolloutConfig,
    video: RolloutVideo | None,
) -> tuple[Chunk, float]:
    """The chunk, which continues `plan` where there is one, and how long it took [s]."""
    compare = policy.has_depth and config.depth_every > 0 and result.chunks % config.depth_every == 0
    depth = compare or (video is not None and policy.has_depth)
    depth_m = None
    if policy.takes_depth:
        depth_m = {name: env.unwrapped.simulation.render_depth(name) for name in seen["images"]}
    observation = Observation(now_ns, dict(seen["images"]), seen["state"], seen["instruction"], depth_m)
    noise_seed = int(np.random.SeedSequence([result.seed, result.chunks]).generate_state(1)[0])
    period_ns, continued = round(policy.period_s * 1e9), {}
    going_on = plan.continuation(now_ns, period_ns=period_ns, horizon=policy.horizon) if plan else None
    if going_on:
        continued = {"committed": going_on.committed, "delay": going_on.delay, "method": config.realtime_chunking}
    prediction = policy.infer(observation, depth=depth, seed=noise_seed, **continued)
    result.chunks += 1
    took_s = prediction.preprocess_s + prediction.inference_s
    if compare:
        _compare_depth(policy, env, prediction.depth_m, result)
    if not depth:
        result.inference_s.append(took_s)
    if video:
        video.depth_m = prediction.depth_m
    return Chunk(now_ns, result.chunks, period_ns, prediction.actions), took_s


def _compare_depth(policy: Policy, env: gymnasium.Env, predicted: dict[str, np.ndarray], result: EpisodeResult) -> None:
    for camera, depth_m in predicted.items():
        true = policy.image_fit.apply_depth(env.unwrapped.simulation.render_depth(camera), policy.depth_size)
        errors = depth_errors(depth_m, true)
        if errors is not None:
            result.depth_abs_rel.setdefault(camera, []).append(errors.abs_rel)
