"""How smoothly chunks are joined: `depthvla chunk-boundaries --bag BAG`. Table, JSON and plot.

The chunks of a bag are played through the timeline and the executor with each strategy and simulated latencies, once as
they were recorded and once inferred anew from the observations of the bag, for `rtc` as continuations. This is an open
loop: whatever is played, the observations are those of the recorded motion.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from depthvla_policy.bench.machine import describe_machine
from r1lite_description.robot import Robot
from r1lite_trials.chunk_boundaries_figure import draw
from r1lite_trials.chunk_boundaries_measure import consistency, measure
from r1lite_trials.chunk_boundaries_play import FAST_HZ, INDEPENDENT, Played, Source, flights, play
from r1lite_trials.trial import begin, finish, markdown_table, trial

if TYPE_CHECKING:
    from depthvla_policy.policy.policy import Policy

CASES = (  # what chunks they are, how they come about (see `Source`), how they are joined
    *(("recorded", "as_recorded", strategy) for strategy in INDEPENDENT),
    *(("inferred", "independent", strategy) for strategy in INDEPENDENT),
    ("inferred", "continued", "rtc"),
)
ABOUT = {
    "recorded": "the bag's own, each at its stamp plus the latency, so that several may be under way",
    "inferred": "anew from the bag's observations with fixed seeds, one at a time; for rtc as continuations",
}


@dataclass(frozen=True)
class ChunkBoundariesConfig:
    """Steps at the borders of chunks, for each strategy and latency."""

    bag: tuple[Path, ...]
    """rosbag2 folders of recorded episodes"""
    policy: Path = Path("models/r1lite-small")
    """checkpoint folder that the chunks are inferred with anew"""
    latencies_ms: tuple[float, ...] = (50.0, 210.0, 800.0)
    """from an observation to the arrival of its chunk"""
    seed: int = 0
    """of the noise that inference starts from"""
    json: Path = Path("out/seams.json")
    """where the figures go"""
    plot: Path = Path("out/seams.png")
    """where the picture goes"""

    def __post_init__(self) -> None:
        if not self.bag or not self.latencies_ms or min(self.latencies_ms) <= 0.0:
            raise ValueError(
                f"{len(self.bag)} bags, latencies_ms {self.latencies_ms}; there must be some, and latencies above 0"
            )


@trial
def main(argv: Sequence[str] | None = None) -> int:
    config, about = begin("chunk-boundaries", ChunkBoundariesConfig, argv, __doc__)
    import torch

    from depthvla_policy.policy.policy import Policy

    torch.set_num_threads(1)
    summary, robot, played = compare(config, Policy.load(config.policy, "cpu"))
    config.plot.parent.mkdir(parents=True, exist_ok=True)
    draw(config.plot, summary["rows"], robot, played)
    return finish(config.json, about | summary, f"{text(summary)}\n\n{config.json}, {config.plot}")


def compare(config: ChunkBoundariesConfig, policy: Policy) -> tuple[dict, Robot, dict[tuple[str, float], Played]]:
    """Every bag with every strategy and latency: the figures, the robot, and for the plot, by strategy and latency
    [ms], what was played of the first bag: the recorded chunks, and the inferred ones of `rtc`.

    Raises:
        FileNotFoundError: there is no such bag.
        ValueError: a bag cannot be read or holds no chunk with its observation.
    """
    read = [Source.read(path, policy, config.seed) for path in config.bag]
    sources, robot = [source for source, _ in read], read[0][1]
    rows, consistent, shown = [], [], {}
    for latency_ms in config.latencies_ms:
        latency_ns = round(latency_ms * 1e6)
        for chunks, how, strategy in CASES:
            played = [
                play(
                    getattr(source, how),
                    flights(source.stamps_ns, latency_ns, one_at_a_time=chunks == "inferred"),
                    strategy,
                    robot,
                    source.observations[0].state,
                )
                for source in sources
            ]
            case = {"chunks": chunks, "strategy": strategy, "latency_ms": latency_ms}
            rows.append(case | measure(played, robot))
            shown.setdefault((strategy, latency_ms), played[0])
        for how in ("independent", "continued"):
            case = {"chunks": how, "latency_ms": latency_ms}
            consistent.append(case | consistency(sources, how, robot, latency_ns))
    summary = {
        "machine": describe_machine(),
        "policy": policy.model_id,
        "seed": config.seed,
        "bags": [_bag_summary(path, source) for path, source in zip(config.bag, sources, strict=True)],
        "about": ABOUT,
        "rows": rows,
        "consistency": consistent,
    }
    return summary, robot, shown


def _bag_summary(path: Path, source: Source) -> dict:
    return {
        "path": str(path),
        "chunks": source.in_bag,
        "replayed": len(source.recorded),
        "policies": list(dict.fromkeys(recorded.chunk.model_id for recorded in source.recorded)),
    }


def text(summary: dict) -> str:
    lines = [f"policy {summary['policy']}, seed {summary['seed']}, {summary['machine']['processor']}"]
    lines += [
        f"{bag['path']}: {bag['replayed']} of {bag['chunks']} chunks of {', '.join(bag['policies'])}"
        for bag in summary["bags"]
    ]
    for chunks, description in summary["about"].items():
        rows = [_smoothness_cells(row) for row in summary["rows"] if row["chunks"] == chunks]
        lines += ["", f"chunks {chunks}: {description}", _table(rows)]
    rows = [_consistency_cells(row) for row in summary["consistency"]]
    lines += ["", "distance from the recorded chunk in execution", _table(rows)]
    return "\n".join(lines)


def _table(rows: Sequence[dict[str, str]]) -> str:
    return markdown_table(list(rows[0]), [list(row.values()) for row in rows])


def _smoothness_cells(row: dict) -> dict[str, str]:
    seam, motion, command = row["seam"], row["motion"][f"{FAST_HZ:.0f}"], row["command"]
    return {
        "strategy": row["strategy"],
        "latency [ms]": f"{row['latency_ms']:.0f}",
        "seams": str(row["seams"]),
        "starts": str(row["starts"]),
        "waited [s]": f"{row['waited_s']:.1f}",
        "gap p50, p95, max [mrad]": _gap_cell(row),
        "largest step at seams [mrad]": f"{seam['position_mrad']:.1f}",
        "[rad/s]": f"{seam['velocity_rad_s']:.2f}",
        "[rad/s²]": f"{seam['acceleration_rad_s2']:.1f}",
        f"motion, {FAST_HZ:.0f} Hz [rad/s]": f"{motion['velocity_rad_s']:.2f}",
        "motion [rad/s²]": f"{motion['acceleration_rad_s2']:.0f}",
        "command, share of the velocity limit": f"{row['limits']['velocity']:.0%}",
        "of the acceleration limit": f"{row['limits']['acceleration']:.0%}",
        "lag [mrad]": f"{row['lag_rms_mrad']:.1f}",
        **{
            f"command, {rate} Hz [rad/s]": f"{figures['velocity_rad_s']:.2f}"
            for rate, figures in command.items()
            if rate != f"{FAST_HZ:.0f}"
        },
    }


def _consistency_cells(row: dict) -> dict[str, str]:
    before, after = (
        "-" if row[name] is None else f"{row[name]:.1f}" for name in ("committed_rms_mrad", "beyond_rms_mrad")
    )
    return {
        "chunks": row["chunks"],
        "latency [ms]": f"{row['latency_ms']:.0f}",
        "rms before the arrival [mrad]": before,
        "after it [mrad]": after,
        "gap p50, p95, max [mrad]": _gap_cell(row),
    }


def _gap_cell(row: dict) -> str:
    return ", ".join(f"{value:.1f}" for value in row["gap_mrad"].values()) if row["gap_mrad"] else "-"


if __name__ == "__main__":
    sys.exit(main())
