"""How smoothly chunks are joined: `depthvla chunk-boundaries --bag BAG`. Table, JSON and plot.

The chunks of a bag are played through the timeline and the executor with each strategy and simulated latencies, once as
they were recorded and once inferred anew from the observations of the bag, for `rtc` as continuations. This is an open
loop: whatever is played, the observations are those of the recorded motion.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence

import tyro

from r1lite_trials.chunk_boundaries.compare import ChunkBoundariesConfig, compare
from r1lite_trials.chunk_boundaries.figure import plot, save


def main() -> int:
    config = tyro.cli(ChunkBoundariesConfig, description=__doc__)
    import torch

    from depthvla_policy.policy.policy import Policy

    torch.set_num_threads(config.threads)
    try:
        result = compare(config, Policy.load(config.policy, config.device))
    except (OSError, ValueError) as error:
        print(f"chunk-boundaries: {error}", file=sys.stderr)
        return 1
    config.json.parent.mkdir(parents=True, exist_ok=True)
    config.json.write_text(json.dumps(result.summary, indent=2) + "\n")
    config.plot.parent.mkdir(parents=True, exist_ok=True)
    save(plot(result), config.plot)
    print(f"{table(result.summary)}\n\n{config.json}, {config.plot}")
    return 0


def table(summary: dict) -> str:
    """What the terminal shows."""
    lines = [f"policy {summary['policy']}, seed {summary['seed']}, {summary['machine']['processor']}"]
    lines += [
        f"{bag['path']}: {bag['replayed']} of {bag['chunks']} chunks of {', '.join(bag['policies'])}"
        for bag in summary["bags"]
    ]
    above = (
        "gap at seams",
        "",
        "",
        "largest step at seams",
        "",
        "",
        "motion 200 Hz",
        "",
        "command 15 Hz",
        "",
        "",
        "",
        "100 Hz",
    )
    names = (
        "p50",
        "p95",
        "max",
        "mrad",
        "rad/s",
        "rad/s2",
        "rad/s",
        "rad/s2",
        "v/lim",
        "a/lim",
        "lag",
        "rad/s",
        "rad/s",
    )
    for chunks, about in summary["about"].items():
        lines += ["", f"chunks {chunks}: {about}", f"{'':34}" + "".join(f"{'| ' + w if w else '':8}" for w in above)]
        lines.append(f"{'strategy':10}{'ms':>4}{'seams':>6}{'starts':>7}{'wait s':>7}" + _cells(names))
        for row in (row for row in summary["rows"] if row["chunks"] == chunks):
            lines.append(
                f"{row['strategy']:10}{row['latency_ms']:4.0f}{row['seams']:6}{row['starts']:7}{row['waited_s']:7.1f}"
                + _cells(
                    (
                        *_cell_gaps(row["gap_mrad"]),
                        f"{row['seam']['position_mrad']:.1f}",
                        f"{row['seam']['velocity_rad_s']:.2f}",
                        f"{row['seam']['acceleration_rad_s2']:.1f}",
                        f"{row['motion']['200']['velocity_rad_s']:.2f}",
                        f"{row['motion']['200']['acceleration_rad_s2']:.0f}",
                        f"{row['limits']['velocity']:.0%}",
                        f"{row['limits']['acceleration']:.0%}",
                        f"{row['lag_rms_mrad']:.1f}",
                        *(f"{row['command'][rate]['velocity_rad_s']:.2f}" for rate in ("15", "100")),
                    )
                )
            )
    lines += ["", "distance from the recorded chunk in execution [mrad]: rms before and after the arrival, gap at it"]
    lines.append(f"{'chunks':12}{'ms':>4}" + _cells(("before", "after", "p50", "p95", "max")))
    for row in summary["consistency"]:
        distances = (row["committed_rms_mrad"], row["beyond_rms_mrad"])
        cells = ("-" if value is None else f"{value:.1f}" for value in distances)
        lines.append(f"{row['chunks']:12}{row['latency_ms']:4.0f}" + _cells((*cells, *_cell_gaps(row["gap_mrad"]))))
    return "\n".join(lines)


def _cell_gaps(gaps: dict[str, float] | None) -> list[str]:
    return ["-"] * 3 if gaps is None else [f"{value:.1f}" for value in gaps.values()]


def _cells(words: Sequence[str]) -> str:
    return "".join(f"{word:>8}" for word in words)


if __name__ == "__main__":
    sys.exit(main())
