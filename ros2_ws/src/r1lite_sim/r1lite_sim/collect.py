"""Collect demonstrations of a task's scripted expert: `depthvla collect --task lift --out DIR`.

A LeRobot dataset (docs/data.md), an episode for each seed at which the expert succeeds. Frame t is what was seen and
done at the start of control period t; its action is the expert's absolute target for the end of that period, without
the noise that was added to what was executed. Images are the JPEG bytes that the simulator node publishes.

Seeds: demonstrations start at 100000. Evaluation uses 0 to 999, so the collector refuses seeds below 1000. Seeds whose
episodes are in the folder already are left out, so an interrupted run is continued by the same command.

Noise is added to the arm targets that are executed in most episodes, never to the labels, so that the expert shows the
way back from states it would not reach by itself (DART: Laskey et al., 2017, arXiv 1703.09327).
"""

from __future__ import annotations

import multiprocessing
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tyro
from tqdm import tqdm

from depthvla_policy.data.lerobot_writer import IMAGES, DatasetWriter, Frame
from depthvla_policy.policy.made_for import SIMULATION
from r1lite_description import robot as robots
from r1lite_sim import task_options, tasks
from r1lite_sim.experts import EXPERTS, make_expert
from r1lite_sim.images import encode_depth, encode_jpeg
from r1lite_sim.simulation import Simulation

FIRST_TRAINING_SEED = 1000
REFERENCE_BODY, HEAD = "torso_link3", "head"  # the camera does not move in that body
NOISE_CORRELATION = 0.8  # from one control period to the next


@dataclass(frozen=True)
class CollectConfig:
    """Demonstrations of one task."""

    out: Path
    """folder of the dataset; created when missing, continued when it is there"""
    task: str = "lift"
    """name of a task with an expert"""
    task_options: tuple[str, ...] = ()
    """options of the task: colour=blue side=left; colours=red,green,blue"""
    episodes: int = 320
    """how many seeds to try"""
    first_seed: int = 100_000
    """the seeds are first_seed, first_seed + 1, ..."""
    workers: int = 2
    """processes"""
    images: str = "jpeg"
    """how RGB is kept: jpeg, the bytes as published, or video, H.264"""
    noisy_share: float = 0.7
    """share of the episodes with noise on the executed arm targets"""
    noise_rad: float = 0.012
    """standard deviation of that noise"""
    hold_steps: int = 14
    """control periods recorded after the expert is done, so that every chunk of 16 steps has an end"""
    stills: int = 0
    """scenes at their start, without actions, that make an episode in place of a demonstration: cheap pictures of what
    an instruction names, to learn its words and depth from"""
    max_steps: int | None = None
    """control periods after which an episode has failed; the task's time limit by default"""
    image_width: int = 320
    """width of the images [px]"""
    image_height: int = 180
    """height of the images [px]"""

    def __post_init__(self) -> None:
        if self.first_seed < FIRST_TRAINING_SEED:
            raise ValueError(
                f"first_seed is {self.first_seed}; 0 to 999 are for evaluation, use {FIRST_TRAINING_SEED} or more"
            )
        if self.episodes < 1 or self.workers < 1:
            raise ValueError(f"episodes is {self.episodes} and workers is {self.workers}; both must be 1 or more")
        if self.stills < 0:
            raise ValueError(f"stills is {self.stills}; allowed: 0 or more")
        if self.images not in IMAGES:
            raise ValueError(f"images is {self.images!r}; allowed: {', '.join(IMAGES)}")
        if self.task not in EXPERTS:
            raise ValueError(f"task is {self.task!r}; tasks with an expert: {', '.join(EXPERTS)}")
        tasks.make(self.task, **self.options)

    @property
    def options(self) -> dict[str, str | tuple[str, ...]]:
        return task_options.parse(self.task_options)

    @property
    def scene(self) -> str:
        """Task and options in one string; with the seed, it tells demonstrations apart."""
        words = [self.task, *sorted(self.task_options)]
        return " ".join([*words, f"stills={self.stills}"] if self.stills else words)


@dataclass(frozen=True)
class Demonstration:
    seed: int
    instruction: str
    noisy: bool
    frames: Sequence[Frame]


class EpisodeCollector:
    """Runs and records one episode at a time."""

    def __init__(self, config: CollectConfig) -> None:
        self._config, self.stills = config, config.stills
        self._robot = robots.load()
        self._simulation = _simulation(config)
        self._expert = make_expert(config.task, self._simulation)
        self._max_steps = config.max_steps or round(self._simulation.task.time_limit_s / self._robot.period_s)

    def collect(self, seed: int) -> Demonstration | None:
        """One episode, or None when the expert failed."""
        simulation, expert, config = self._simulation, self._expert, self._config
        rng = np.random.default_rng([seed, 1])  # apart from the scene's generator: noise must not change the scene
        noisy = bool(rng.random() < config.noisy_share)
        simulation.reset(seed)
        joints = np.concatenate([np.arange(limb.arm.start, limb.arm.stop) for limb in self._limbs()])
        noise = np.zeros(len(joints))
        expert.reset()
        frames = []
        held = 0
        for _ in range(self._max_steps):
            action = expert.act()
            frames.append(self._frame(action))
            executed = action.copy()
            if noisy:
                fresh = rng.normal(0, config.noise_rad, len(noise)) * np.sqrt(1 - NOISE_CORRELATION**2)
                noise = NOISE_CORRELATION * noise + fresh
                executed[joints] += noise
                executed = np.clip(executed, self._robot.position_min, self._robot.position_max)
            simulation.command(executed)
            simulation.step(self._robot.period_s)
            held = held + 1 if expert.done and simulation.success() else 0
            if held >= config.hold_steps:
                return Demonstration(seed, simulation.instruction, noisy, frames)
        return None

    def collect_stills(self, seed: int) -> Demonstration:
        """Scenes that follow from `seed`, a frame of each, whose action is not known.

        Raises:
            ValueError: they have different instructions.
        """
        simulation, frames, instructions = self._simulation, [], set()
        for scene in np.random.SeedSequence([seed, 2]).generate_state(self._config.stills):
            simulation.reset(int(scene) + FIRST_TRAINING_SEED)
            frames.append(self._frame(np.full(self._robot.size, np.nan)))
            instructions.add(simulation.instruction)
        if len(instructions) > 1:
            raise ValueError(
                f"stills of an episode have one instruction; {sorted(instructions)} were drawn: fix task_options"
            )
        return Demonstration(seed, simulation.instruction, False, frames)

    def close(self) -> None:
        self._simulation.close()

    def _frame(self, action: np.ndarray) -> Frame:
        simulation = self._simulation
        focus = simulation.task.focus(simulation.data)
        cameras = [camera.name for camera in self._robot.cameras]
        return Frame(
            images={camera: encode_jpeg(simulation.render(camera)) for camera in cameras},
            depth={camera: encode_depth(simulation.render_depth(camera)) for camera in cameras},
            state=simulation.state().astype(np.float32),
            action=action.astype(np.float32),
            target_m=np.full(3, np.nan) if focus is None else simulation.in_frame(focus, REFERENCE_BODY),
        )

    def _limbs(self) -> Sequence[robots.Limb]:
        """Arms that get the noise: the one that the task names, else all."""
        side = getattr(self._simulation.task, "side", None)
        return self._robot.limbs if side is None else [self._robot.limb(side)]


def collect(config: CollectConfig) -> None:
    """Collect, and print how many episodes and frames were kept."""
    robot = robots.load()
    simulation = _simulation(config)
    simulation.reset(config.first_seed)
    described = {
        "camera_matrices": {camera.name: simulation.camera_matrix(camera.name) for camera in robot.cameras},
        "target_projections": {HEAD: simulation.projection(HEAD, REFERENCE_BODY)},  # but for an error of its mount
    }
    simulation.close()
    with DatasetWriter(config.out, robot, images=config.images, source=SIMULATION, **described) as writer:
        collected = {row["seed"] for row in writer.episodes if row.get("scene") == config.scene}
        seeds = range(config.first_seed, config.first_seed + config.episodes)
        todo = [seed for seed in seeds if seed not in collected]
        before, frames = len(writer.episodes), writer.frames
        # Spawned, not forked: a GL context does not survive a fork.
        context = multiprocessing.get_context("spawn")
        with context.Pool(config.workers, initializer=_start_worker, initargs=(config,)) as pool:
            # In the order of the seeds, so that the dataset does not depend on the number of workers.
            with tqdm(pool.imap(_work, todo), total=len(todo), unit="episode", desc="collecting") as episodes:
                for episode in episodes:
                    if episode is not None:
                        _save(writer, episode, config.scene)
        kept = len(writer.episodes) - before
        print(f"{kept} of {len(todo)} episodes kept, {writer.frames - frames} frames, in {config.out}")


def _save(writer: DatasetWriter, episode: Demonstration, scene: str) -> None:
    writer.begin_episode(episode.instruction)
    for frame in episode.frames:
        writer.add_frame(frame)
    writer.save_episode({"seed": episode.seed, "scene": scene, "noise": episode.noisy})


def _simulation(config: CollectConfig) -> Simulation:
    return Simulation(
        robots.load(),
        config.task,
        task_options=config.options,
        image_width=config.image_width,
        image_height=config.image_height,
    )


_collector: EpisodeCollector | None = None


def _start_worker(config: CollectConfig) -> None:
    global _collector
    _collector = EpisodeCollector(config)


def _work(seed: int) -> Demonstration | None:
    return _collector.collect_stills(seed) if _collector.stills else _collector.collect(seed)


def main(argv: Sequence[str] | None = None) -> int:
    try:
        collect(tyro.cli(CollectConfig, args=argv, description=__doc__))
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
