"""Two results of an evaluation seed by seed: `evaluate --compare A.json B.json`."""

from __future__ import annotations

import numpy as np

from depthvla_evaluation.metrics import bootstrap_interval

MEASURES = ("success", "progress")


def compare(first: dict, second: dict) -> dict:
    """Means over the seeds that both have, and first less second with the 95 % bootstrap interval over those seeds.

    Raises:
        ValueError: they are of different environments or task options, or have no seed in common.
    """
    if first["environment"] != second["environment"]:
        raise ValueError(f"environments differ: {first['environment']} and {second['environment']}")
    rows = [{row["seed"]: row for row in results["episodes"]} for results in (first, second)]
    seeds = sorted(set(rows[0]) & set(rows[1]))
    if not seeds:
        raise ValueError("the two have no seed in common")
    for seed in seeds:
        said = [found[seed]["instruction"] for found in rows]
        if said[0] != said[1]:
            raise ValueError(f"seed {seed} is not the same scene in both: {said[0]!r} and {said[1]!r}")
    compared: dict = {"environment": first["environment"], "seeds": seeds}
    for measure in MEASURES:
        values = [np.array([float(found[seed][measure]) for seed in seeds]) for found in rows]
        apart = values[0] - values[1]
        compared[measure] = {
            "first": float(values[0].mean()),
            "second": float(values[1].mean()),
            "difference": float(apart.mean()),
            "interval": bootstrap_interval(apart) if len(seeds) > 1 else None,
            "better": int((apart > 0).sum()),
            "worse": int((apart < 0).sum()),
        }
    return compared


def text(compared: dict, names: tuple[str, str]) -> str:
    """For a terminal; `names` of the two."""
    seeds = compared["seeds"]
    lines = [f"  {compared['environment']}, {len(seeds)} seeds in common", f"  A  {names[0]}", f"  B  {names[1]}", ""]
    rows = [("", "A", "B", "A - B", "95 % interval", "A better in", "B better in")]
    for measure in MEASURES:
        found = compared[measure]
        interval = "-" if found["interval"] is None else "{:+.1%} to {:+.1%}".format(*found["interval"])
        means = (f"{found['first']:.1%}", f"{found['second']:.1%}", f"{found['difference']:+.1%}")
        rows.append((measure, *means, interval, f"{found['better']}", f"{found['worse']}"))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join([*lines, *(("  " + "  ".join(map(str.ljust, row, widths))).rstrip() for row in rows)])
