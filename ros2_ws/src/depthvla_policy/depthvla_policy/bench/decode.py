"""How fast demonstrations are decoded on one core: `depthvla bench-decoding FOLDER`.

A sample is what the training gets: every camera's picture fitted to the network's square, depth, state and chunk.
Seconds are those of the processor; files that are not in memory yet make it wait longer.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import tyro

from depthvla_policy.data.demonstrations import Demonstrations
from depthvla_policy.policy.images import ImageFit
from r1lite_description import robot as robots


@dataclass(frozen=True)
class BenchConfig:
    """Decoding speed of one worker."""

    folder: tyro.conf.Positional[Path]
    """LeRobot dataset"""
    image_size: int = 224
    """of the network's square [px]"""
    depth_size: int = 0
    """of the depth labels; 0 leaves depth out"""
    samples: int = 300
    """how many are decoded, once in any order and once in the order of the file"""


def main() -> int:
    try:
        _report(tyro.cli(BenchConfig, description=__doc__))
    except (OSError, ValueError) as error:
        print(f"bench.decode: {error}", file=sys.stderr)
        return 1
    return 0


def _report(config: BenchConfig) -> None:
    cv2.setNumThreads(1)
    robot = robots.load()
    cameras = [camera.name for camera in robot.cameras]
    fit = ImageFit(config.image_size, "crop")
    found = Demonstrations([config.folder], robot, cameras, fit=fit, depth_size=config.depth_size, horizon=16)
    count = min(config.samples, len(found))
    size = sum(file.stat().st_size for file in config.folder.rglob("*") if file.is_file())
    print(f"{len(found)} frames of {len(cameras)} cameras, {size / len(found) / 1024:.1f} KiB a frame")
    shuffled = np.random.default_rng(0).permutation(len(found))[:count]
    for name, order in (("any order", shuffled), ("in order", np.arange(count))):
        rate = count / _seconds(found, order)
        print(f"{name:<10} {rate:7.1f} samples/s {rate * len(cameras):8.1f} pictures/s")


def _seconds(found: Demonstrations, order: Sequence[int]) -> float:
    """Of this process on its one thread: what else the machine does makes no difference."""
    found[int(order[0])]  # files are opened
    begin = time.process_time()
    for i in order:
        found[int(i)]
    return time.process_time() - begin


if __name__ == "__main__":
    sys.exit(main())
