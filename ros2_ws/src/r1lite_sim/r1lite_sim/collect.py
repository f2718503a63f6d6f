"""Collect demonstrations of the scripted expert: `python -m r1lite_sim.collect --out DIR`.

One uncompressed `episode_<seed>.npz` per successful episode, readable with `numpy.load(path, allow_pickle=False)`.
T is the number of control periods, about 45. Row t is what was seen and done at the start of period t.

======================= ========== ===========================================================================
array                   type       meaning
======================= ========== ===========================================================================
state                   (T,14) f4  measured joints [rad] and gripper openings [mm], in `Robot` order
action                  (T,14) f4  the expert's absolute target for the end of the period, in robot units, without
                                   the noise that was added to what was executed
target_xyz              (T,3) f4   middle of the named block in the frame of torso_link3 [m]
instruction             () str     for example "lift the red block with the right arm"
seed                    () i8      seed of the scene
success                 () bool    always True: episodes that fail are not kept
noise                   () bool    True when noise was added to the executed arm targets
cameras                 (C,) str   camera names, the reference camera first
image_size              (2,) i8    width and height of images and depth [px]
camera_matrix_<camera>  (3,3) f8   pinhole matrix of images and depth [px]
image_<camera>          (N,) u1    the T JPEG images one after another: the bytes that the simulator node publishes
image_<camera>_offsets  (T+1,) i8  image t is image_<camera>[offsets[t]:offsets[t+1]]
depth_<camera>          (N,) u1    the T depth images, 16-bit PNG, millimetres along the optical axis, 0 invalid
depth_<camera>_offsets  (T+1,) i8  as for the images
======================= ========== ===========================================================================

Seeds: demonstrations start at 100000. Evaluation uses 0 to 999, so the collector refuses seeds below 1000.

Noise is added to the arm targets that are executed in most episodes, never to the labels, so that the expert shows the
way back from states it would not reach by itself (DART: Laskey et al., 2017, arXiv 1703.09327).
"""

from __future__ import annotations

import multiprocessing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tyro
from tqdm import tqdm

from depthvla_policy import robot as robots
from r1lite_sim.expert import LiftExpert
from r1lite_sim.images import encode_depth, encode_jpeg
from r1lite_sim.simulation import Simulation

FIRST_TRAINING_SEED = 1000
REFERENCE_BODY = "torso_link3"
NOISE_CORRELATION = 0.8  # from one control period to the next


@dataclass(frozen=True)
class CollectConfig:
    """Demonstrations of the lift task."""

    out: Path
    """folder for the episodes; created when missing, episodes that are there already are kept"""
    episodes: int = 320
    """how many seeds to try"""
    first_seed: int = 100_000
    """the seeds are first_seed, first_seed + 1, ..."""
    workers: int = 2
    """processes"""
    colour: str = "red"
    """block to lift"""
    side: str = "right"
    """arm to use"""
    noisy_share: float = 0.7
    """share of the episodes with noise on the executed arm targets"""
    noise_rad: float = 0.012
    """standard deviation of that noise"""
    hold_steps: int = 14
    """control periods recorded after the lift, so that every chunk of 16 steps has an end"""
    max_steps: int = 120
    """control periods after which an episode has failed"""
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


class EpisodeCollector:
    """Runs and records one episode at a time."""

    def __init__(self, config: CollectConfig) -> None:
        self._config = config
        self._robot = robots.load()
        self._simulation = Simulation(
            self._robot,
            "lift",
            task_options={"colour": config.colour, "side": config.side},
            image_width=config.image_width,
            image_height=config.image_height,
        )
        self._expert = LiftExpert(self._simulation)

    def collect(self, seed: int) -> dict[str, np.ndarray] | None:
        """The arrays of one episode as the module describes them, or None when it failed."""
        simulation, expert, config = self._simulation, self._expert, self._config
        rng = np.random.default_rng([seed, 1])  # apart from the scene's generator: noise must not change the scene
        noisy = bool(rng.random() < config.noisy_share)
        arm = self._robot.limb(config.side).arm
        noise = np.zeros(arm.stop - arm.start)
        simulation.reset(seed)
        expert.reset()
        states, actions, targets = [], [], []
        images = {camera.name: [] for camera in self._robot.cameras}
        depths = {camera.name: [] for camera in self._robot.cameras}
        held = 0
        for _ in range(config.max_steps):
            action = expert.act()
            states.append(simulation.state())
            actions.append(action)
            targets.append(simulation.in_frame(simulation.task.target(simulation.data)[0], REFERENCE_BODY))
            for camera in images:
                images[camera].append(encode_jpeg(simulation.render(camera)))
                depths[camera].append(encode_depth(simulation.render_depth(camera)))
            executed = action.copy()
            if noisy:
                fresh = rng.normal(0, config.noise_rad, len(noise)) * np.sqrt(1 - NOISE_CORRELATION**2)
                noise = NOISE_CORRELATION * noise + fresh
                executed[arm] += noise
                executed = np.clip(executed, self._robot.position_min, self._robot.position_max)
            simulation.command(executed)
            simulation.step(self._robot.period_s)
            held = held + 1 if expert.phase == "hold" and simulation.success() else 0
            if held >= config.hold_steps:
                break
        if held < config.hold_steps:
            return None
        record = {
            "state": np.asarray(states, dtype=np.float32),
            "action": np.asarray(actions, dtype=np.float32),
            "target_xyz": np.asarray(targets, dtype=np.float32),
            "instruction": np.array(simulation.instruction),
            "seed": np.array(seed, dtype=np.int64),
            "success": np.array(True),
            "noise": np.array(noisy),
            "cameras": np.array(list(images)),
            "image_size": np.array([config.image_width, config.image_height], dtype=np.int64),
        }
        for camera in images:
            record[f"camera_matrix_{camera}"] = simulation.camera_matrix(camera)
            record[f"image_{camera}"], record[f"image_{camera}_offsets"] = _flat(images[camera])
            record[f"depth_{camera}"], record[f"depth_{camera}_offsets"] = _flat(depths[camera])
        return record

    def close(self) -> None:
        self._simulation.close()


def main(config: CollectConfig) -> None:
    """Collect, and print how many episodes and frames were kept."""
    config.out.mkdir(parents=True, exist_ok=True)
    seeds = range(config.first_seed, config.first_seed + config.episodes)
    todo = [seed for seed in seeds if not _path(config, seed).exists()]
    # Spawned, not forked: a GL context does not survive a fork.
    context = multiprocessing.get_context("spawn")
    with context.Pool(config.workers, initializer=_start_worker, initargs=(config,)) as pool:
        frames = list(tqdm(pool.imap_unordered(_work, todo), total=len(todo), unit="episode", desc="collecting"))
    kept = [count for count in frames if count]
    print(f"{len(kept)} of {len(todo)} episodes kept, {sum(kept)} frames, in {config.out}")


_collector: EpisodeCollector | None = None
_config: CollectConfig | None = None


def _start_worker(config: CollectConfig) -> None:
    global _collector, _config
    _config, _collector = config, EpisodeCollector(config)


def _work(seed: int) -> int:
    record = _collector.collect(seed)
    if record is None:
        return 0
    path = _path(_config, seed)
    part = path.with_suffix(".part.npz")  # renamed when complete: an interrupted run leaves no half episode
    np.savez(part, **record)
    part.rename(path)
    return len(record["state"])


def _path(config: CollectConfig, seed: int) -> Path:
    return config.out / f"episode_{seed}.npz"


def _flat(items: list[bytes]) -> tuple[np.ndarray, np.ndarray]:
    offsets = np.cumsum([0, *[len(item) for item in items]], dtype=np.int64)
    return np.frombuffer(b"".join(items), dtype=np.uint8), offsets


if __name__ == "__main__":
    main(tyro.cli(CollectConfig))
