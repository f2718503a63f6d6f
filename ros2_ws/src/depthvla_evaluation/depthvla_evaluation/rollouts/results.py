"""Results of an evaluation as one dictionary, written as JSON: rates with intervals, and a row for every seed.

The same whether the episodes ran in simulated time or through the ROS graph.
"""

from __future__ import annotations

import datetime
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from depthvla_evaluation.metrics import bootstrap_interval, summarise, wilson_interval
from depthvla_evaluation.rollouts.rollout import OWN, EpisodeResult
from r1lite_description import files


def collect(about: Mapping[str, Any], episodes: Sequence[EpisodeResult]) -> dict:
    """`about`: policy, model_id, environment, through, settings and whatever else is to stand before the numbers."""
    episodes = sorted(episodes, key=lambda item: item.seed)
    return {
        **about,
        "made": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d %H:%M:%S UTC"),
        "first_seed": episodes[0].seed,
        "seeds": len(episodes),
        **summarise_episodes(episodes),
        "episodes": [_row(item) for item in episodes],
    }


def summarise_episodes(episodes: Sequence[EpisodeResult]) -> dict:
    """Rates over episodes with 95 % intervals (Wilson for success, bootstrap for progress; None where unknown)."""
    successes = sum(item.success for item in episodes)
    progress = np.array([item.progress for item in episodes])
    interval = bootstrap_interval(progress)
    depth: dict[str, list[float]] = {}
    for item in episodes:
        for camera, values in item.depth_abs_rel.items():
            depth.setdefault(camera, []).extend(values)
    latency_ms = np.array([value for item in episodes for value in item.inference_s]) * 1e3
    names = dict.fromkeys(name for item in episodes for name in item.substeps)
    return {
        "success_rate": successes / len(episodes),
        "success_interval": [round(bound, 4) for bound in wilson_interval(successes, len(episodes))],
        "progress": round(float(progress.mean()), 4),
        "progress_interval": interval and [round(bound, 4) for bound in interval],
        "substeps": {name: _mean([item.substeps.get(name) is not None for item in episodes]) for name in names},
        "depth_abs_rel": _mean([value for values in depth.values() for value in values]),
        "depth_abs_rel_by_camera": {camera: _mean(values) for camera, values in depth.items()},
        "inference_ms": {name: round(value, 2) for name, value in summarise(latency_ms).items()},
    }


def read(path: Path) -> dict:
    """Results that were written as JSON.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it holds something else; the message names file and missing key.
    """
    results = files.read_json(path, "results of an evaluation")
    for key in ("environment", "success_rate", "progress", "episodes"):
        if not isinstance(results, dict) or key not in results:
            raise ValueError(f"{path} holds no results of an evaluation: it has no {key!r}")
    return results


def write(path: Path, results: dict) -> None:
    """As a whole: what was there stays until all of it is written."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.tmp")
    temporary.write_text(json.dumps(results, indent=1) + "\n")
    files.put(temporary, path)


def text(results: dict) -> str:
    """The results for a terminal; with baselines, a table of them below."""
    first, last = results["first_seed"], results["first_seed"] + results["seeds"] - 1
    settings = results["settings"]
    rows = [
        ("task", f"{results['environment']}, seeds {first} to {last}"),
        ("options", " ".join(settings.get("task_options", ()))),
        ("policy", results["model_id"] or "-"),
        ("baseline", settings.get("baseline", OWN)),
        ("success", _rate(results, "success_rate", "success_interval")),
        ("progress", _rate(results, "progress", "progress_interval")),
        ("substeps", ", ".join(f"{name} {share:.0%}" for name, share in results["substeps"].items())),
    ]
    if results["depth_abs_rel"] is not None:
        cameras = ", ".join(f"{name} {value:.1%}" for name, value in results["depth_abs_rel_by_camera"].items())
        rows.append(("depth AbsRel", f"{results['depth_abs_rel']:.1%}  ({cameras})"))
    if results["inference_ms"]:
        latency = results["inference_ms"]
        rows.append(("inference", f"p50 {latency['p50']:.1f}  p95 {latency['p95']:.1f}  max {latency['max']:.1f}  ms"))
    width = max(len(name) for name, _ in rows)
    lines = [f"  {name:<{width}}  {value}" for name, value in rows if value]
    return "\n".join([*lines, *_baselines(results)])


def _baselines(results: dict) -> list[str]:
    if not results.get("baselines"):
        return []
    rows = [("", "success", "progress")]
    for name, found in {"policy": results, **results["baselines"]}.items():
        rows.append(
            (name, _rate(found, "success_rate", "success_interval"), _rate(found, "progress", "progress_interval"))
        )
    return ["", *aligned(rows)]


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines of a table for a terminal."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [("  " + "  ".join(map(str.ljust, row, widths))).rstrip() for row in rows]


def _rate(results: dict, key: str, interval: str) -> str:
    known = results[interval]
    return f"{results[key]:.1%}" + ("  (95 % interval {:.1%} to {:.1%})".format(*known) if known else "")


def _row(episode: EpisodeResult) -> dict:
    row = asdict(episode)
    row |= row.pop("kept")
    row["inference_s"], row["latency_steps"] = _mean(episode.inference_s), _mean(episode.latency_steps)
    row["chunks_by_latency"] = {str(steps): n for steps, n in sorted(Counter(episode.latency_steps).items())}
    row["depth_abs_rel"] = {camera: _mean(values) for camera, values in episode.depth_abs_rel.items()}
    return row


def _mean(values: Sequence[float]) -> float | None:
    return round(float(np.mean(values)), 5) if values else None
