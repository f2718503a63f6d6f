"""Statistics of demonstrations: `depthvla statistics FOLDER...`.

Of states, and for each step of the chunk of actions as they are and relative to the state they follow. No picture is
decoded. What a policy is normalised with is fitted by `policy.normalise`, which takes the same arrays.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tyro

from depthvla_policy.data.demonstrations import Demonstrations
from depthvla_policy.policy.images import ImageFit
from depthvla_policy.policy.normalise import KINDS, Normaliser
from r1lite_description import robot as robots


@dataclass(frozen=True)
class StatisticsConfig:
    """What is in some datasets, in numbers."""

    folders: tyro.conf.Positional[tuple[Path, ...]]
    """LeRobot datasets"""
    horizon: int = 16
    """steps of a chunk"""
    out: Path | None = None
    """file for all statistics (JSON)"""
    norm_stats: Path | None = None
    """file for what a policy is normalised with (norm_stats.json of a checkpoint)"""
    kind: str = "z_score"
    """z_score or quantile, for norm_stats"""

    def __post_init__(self) -> None:
        if not self.folders or self.kind not in KINDS:
            raise ValueError(f"folders are {self.folders}, kind is {self.kind!r}; allowed kinds: {', '.join(KINDS)}")


def statistics(states: np.ndarray, chunks: np.ndarray) -> dict[str, dict]:
    """Of states (N, size) and absolute chunks (N, horizon, size): "state" has (size,) of each figure, "absolute" and
    "delta" (horizon, size). Delta is the action less the state.
    """
    return {"state": _figures(states), "absolute": _figures(chunks), "delta": _figures(chunks - states[:, None])}


def main() -> int:
    try:
        _report(tyro.cli(StatisticsConfig, description=__doc__))
    except (OSError, ValueError) as error:
        print(f"statistics: {error}", file=sys.stderr)
        return 1
    return 0


def _report(config: StatisticsConfig) -> None:
    robot = robots.load()
    demonstrations = Demonstrations(
        config.folders, robot, (), fit=ImageFit(1, "crop"), depth_size=0, horizon=config.horizon
    )
    states, chunks, lengths = demonstrations.states(), demonstrations.chunks(), demonstrations.lengths
    figures = statistics(states, chunks)
    print(f"{len(lengths)} episodes of {lengths.min()} to {lengths.max()} frames, {len(demonstrations)} frames")
    for instruction in demonstrations.instructions:
        print(f"  {instruction}")
    print(_table(robot.joint_names, figures))
    if config.out:
        lists = {kind: {name: value.tolist() for name, value in item.items()} for kind, item in figures.items()}
        config.out.write_text(json.dumps({"joints": robot.joint_names, "frames": len(demonstrations), **lists}) + "\n")
    if config.norm_stats:
        Normaliser.fit(states, chunks, robot.gripper_mask, kind=config.kind).save(config.norm_stats)


def _figures(values: np.ndarray) -> dict[str, np.ndarray]:
    low, high = np.quantile(values, (0.01, 0.99), axis=0)
    return {
        "mean": values.mean(0),
        "std": values.std(0),
        "q01": low,
        "q99": high,
        "min": values.min(0),
        "max": values.max(0),
    }


def _table(joints: tuple[str, ...], figures: dict[str, dict]) -> str:
    state, delta = figures["state"], figures["delta"]
    steps = (0, len(delta["std"]) - 1)
    head = f"{'':<18} {'mean':>8} {'std':>8} {'q01':>8} {'q99':>8}"
    lines = [head + "".join(f"   delta std, step {step + 1:>2}" for step in steps) + "   [rad, mm]"]
    for joint, name in enumerate(joints):
        row = f"{name:<18}" + "".join(f" {state[key][joint]:8.3f}" for key in ("mean", "std", "q01", "q99"))
        lines.append(row + "".join(f" {delta['std'][step, joint]:20.4f}" for step in steps))
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
