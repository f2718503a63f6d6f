"""Report of one recorded episode, from its bag alone: `python -m depthvla_policy.evaluation.report BAG --out DIR`.

Writes `report.html` (self-contained), the same pictures as PNG files and `summary.json`.
"""

from __future__ import annotations

import datetime
import json
import re
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import tyro

from depthvla_policy.evaluation import figures, page
from depthvla_policy.evaluation.bag import Bag, Topic
from depthvla_policy.evaluation.episode import Episode, machine, predicted_topic, read_episode, read_views
from depthvla_policy.evaluation.metrics import summarise

FILM_MOMENTS = 6
DEPTH_MOMENTS = (0.05, 0.5, 0.95)  # shares of the time in which depth was predicted


@dataclass(frozen=True)
class ReportConfig:
    """Report of one recorded episode."""

    bag: Annotated[Path, tyro.conf.Positional]  # rosbag2 folder of the episode
    out: Path  # folder for the report; an earlier report in it is replaced


@dataclass(frozen=True)
class Report:
    html: Path
    summary: dict


def main() -> int:
    config = tyro.cli(ReportConfig)
    try:
        report = write_report(config.bag, config.out)
    except (OSError, ValueError) as error:
        print(f"report: {error}", file=sys.stderr)
        return 1
    print(table(report.summary))
    print(f"\n{report.html}")
    return 0


def write_report(bag_path: str | Path, out: str | Path) -> Report:
    """Build the report of a bag in the folder `out`.

    Raises:
        FileNotFoundError: there is no such bag.
        ValueError: the bag cannot be read or is empty.
    """
    out = Path(out)
    with Bag(bag_path) as bag:
        episode = read_episode(bag)
        summary = summarise_episode(episode) | {"bag": _bag_summary(bag)}
        topics = sorted(bag.topics.values(), key=lambda topic: topic.name)
        times_ns = episode.start_ns + np.linspace(0.0, 0.98, FILM_MOMENTS) * episode.duration_s * 1e9
        film = read_views(bag, episode.robot, [int(time_ns) for time_ns in times_ns])
        depth = read_views(bag, episode.robot, _depth_moments(bag, episode))
    out.mkdir(parents=True, exist_ok=True)
    pictures = _draw(episode, film, depth, out)
    (out / "summary.json").write_text(json.dumps(summary, indent=2) + "\n")
    html = out / "report.html"
    html.write_text(page.render(summary, findings(episode, summary), pictures, _topic_rows(topics, episode.recorded_s)))
    return Report(html, summary)


def summarise_episode(episode: Episode) -> dict:
    """The numbers of an episode; None where the bag holds nothing to tell them from.

    duration_s and success_time_s: from the first observation that the policy answered. chunk_rate_hz: chunks a second
    between the first and the last. chunk_latency_ms: arrival at the executor - stamp of
    the observation. depth_abs_rel: mean over images of |predicted - true| / true over their valid pixels. success: the
    task was done at some time of the episode.
    """
    chunks, ticks, progress = episode.chunks, episode.ticks, episode.progress
    errors = {
        camera.name: [frame.errors for frame in episode.depth if frame.camera == camera.name]
        for camera in episode.robot.cameras
    }
    everything = [item for items in errors.values() for item in items]
    commanded = [limb.arm_commanded.stamp_ns for limb in episode.limbs.values()]
    grippers = [limb.gripper_commanded.stamp_ns for limb in episode.limbs.values()]
    success = bool(progress.success.any()) if progress.stamp_ns.size else None
    known = ticks.stamp_ns.size > 0
    return {
        "instruction": " / ".join(chunks.instructions) or None,
        "model_id": " / ".join(chunks.model_ids) or None,
        "robot": episode.robot.name,
        "started": datetime.datetime.fromtimestamp(episode.start_ns * 1e-9, datetime.timezone.utc).strftime(
            "%Y-%m-%d %H:%M:%S UTC"
        ),
        "duration_s": round(episode.duration_s, 3),
        "recorded_s": round(episode.recorded_s, 3),
        "success": success,
        "success_time_s": _round(float(episode.seconds(progress.stamp_ns[progress.success])[0])) if success else None,
        "progress": _round(float(progress.progress.max())) if progress.stamp_ns.size else None,
        "seed": progress.seed if progress.seed >= 0 else None,
        "chunks": len(chunks.stamp_ns),
        "chunk_rate_hz": _rate_hz(chunks.received_ns),
        "chunk_latency_ms": _milliseconds(episode.chunk_latency_s),
        "inference_ms": _milliseconds(chunks.inference_s),
        "chunks_refused": ticks.refused if known else None,
        "commands_sent": ticks.commands_sent if known else None,
        "commands_recorded": sum(len(stamps) for stamps in (*commanded, *grippers)),
        "command_rate_hz": _rate_hz(max(commanded, key=len)) if commanded else None,
        "ticks": ticks.ticks if known else None,
        "missed_ticks": ticks.missed if known else None,
        "executor_jitter_ms": _milliseconds(ticks.jitter_s),
        "mode_s": _mode_seconds(episode),
        "depth_abs_rel": _mean([item.abs_rel for item in everything]),
        "depth_abs_rel_by_camera": {name: _mean([item.abs_rel for item in items]) for name, items in errors.items()},
        "depth_rmse_m": _mean([item.rmse_m for item in everything]),
        "depth_delta_1": _mean([item.delta_1 for item in everything]),
        "depth_images": len(everything),
        "messages_lost": _recorded_losses(episode),
        "machine": machine(episode.custom_data),
    }


def findings(episode: Episode, summary: dict) -> list[str]:
    """What an engineer has to look at, in plain sentences."""
    found = []
    if not summary["chunks"]:
        found.append("The bag holds no action chunk.")
    if summary["ticks"] is None:
        found.append("The bag holds no status of the chunk executor.")
    found += [f"Fault: {cause}" for cause in episode.ticks.fault_causes]
    if summary["missed_ticks"]:
        found.append(f"{summary['missed_ticks']} of {summary['ticks']} control ticks were missed.")
    if summary["chunks_refused"]:
        found.append(f"{summary['chunks_refused']} chunks were refused, the last one: {episode.ticks.last_refusal}")
    gaps = int(np.sum(np.maximum(np.diff(episode.chunks.sequence) - 1, 0)))
    if gaps:
        found.append(f"{gaps} chunks are missing between the recorded ones.")
    for reason, count in _alike(episode.policy_reasons):
        found.append(f"No chunk for a while, said {count} times: {reason}" if count > 1 else f"No chunk: {reason}")
    clamped = episode.ticks.clamped_position
    if clamped:
        found.append(f"{clamped} joint commands were clamped to a limit of motion.")
    lost = summary["messages_lost"] or {}
    if lost:
        most = max(lost, key=lost.__getitem__)
        found.append(
            f"{sum(lost.values())} messages are not in the bag ({len(lost)} topics, most on {most}: {lost[most]})."
        )
    return found


def table(summary: dict) -> str:
    """The summary for a terminal."""
    latency, jitter = summary["chunk_latency_ms"], summary["executor_jitter_ms"]
    depth = ", ".join(
        f"{name} {value:.1%}" for name, value in summary["depth_abs_rel_by_camera"].items() if value is not None
    )
    refused = f", {summary['chunks_refused']} refused" if summary["chunks_refused"] else ""
    rows = [
        ("instruction", summary["instruction"] or "-"),
        ("policy", summary["model_id"] or "-"),
        ("success", _success_text(summary)),
        ("duration", f"{summary['duration_s']:.1f} s"),
        ("chunks", f"{summary['chunks']}  at {_number(summary['chunk_rate_hz'], '.1f')} Hz{refused}"),
        ("chunk latency", _spread(latency)),
        (
            "commands sent",
            f"{_number(summary['commands_sent'], 'd')}  at {_number(summary['command_rate_hz'], '.2f')} Hz",
        ),
        ("missed ticks", f"{_number(summary['missed_ticks'], 'd')} of {_number(summary['ticks'], 'd')}"),
        ("executor jitter", _spread(jitter)),
        ("depth AbsRel", f"{_number(summary['depth_abs_rel'], '.1%')}" + (f"  ({depth})" if depth else "")),
    ]
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"  {name:<{width}}  {value}" for name, value in rows)


def _alike(sentences: Sequence[str]) -> list[tuple[str, int]]:
    """Sentences that differ in numbers only count as one: (the first of them, how many), in order of appearance."""
    first: dict[str, str] = {}
    counts: Counter[str] = Counter()
    for sentence in sentences:
        pattern = re.sub(r"\d+(\.\d+)?", "0", sentence)
        first.setdefault(pattern, sentence)
        counts[pattern] += 1
    return [(first[pattern], count) for pattern, count in counts.items()]


def _draw(episode: Episode, film: list, depth: list, out: Path) -> dict[str, list[tuple[str, Path]]]:
    """Draw and save; section of the page -> [(caption, PNG)]."""
    has_images = any(view.image is not None for views in film for view in views)
    moments = [views for views in depth if any(view.predicted_m is not None for view in views)]
    drawings = {
        "film": [("", "film", lambda: figures.film_figure(film, episode))] if has_images else [],
        "depth": [
            (f"{episode.seconds(views[0].stamp_ns):.1f} s", f"depth_{index}", lambda v=views: figures.depth_figure(v))
            for index, views in enumerate(moments, start=1)
        ],
        "depth_error": [("", "depth_error", lambda: figures.depth_error_figure(episode))] if episode.depth else [],
        "timeline": [("", "timeline", lambda: figures.timeline_figure(episode))],
        "joints": [("", "joints", lambda: figures.joints_figure(episode))],
        "timing": [
            ("", "chunk_latency", lambda: figures.latency_figure(episode)),
            ("", "executor_jitter", lambda: figures.jitter_figure(episode)),
        ],
    }
    saved: dict[str, list[tuple[str, Path]]] = {}
    for section, items in drawings.items():
        for caption, name, draw in items:
            path = out / f"{name}.png"
            figures.save(draw(), path)
            saved.setdefault(section, []).append((caption, path))
    return saved


def _depth_moments(bag: Bag, episode: Episode) -> list[int]:
    """Times at which depth is shown: early, in the middle and late, where possible with the truth of every camera."""
    compared = Counter(frame.stamp_ns for frame in episode.depth)
    most = max(compared.values(), default=0)
    stamps = sorted(stamp for stamp, cameras in compared.items() if cameras == most)
    if not stamps:
        topic = predicted_topic(episode.robot.cameras[0].name)
        stamps = bag.stamps([topic])[topic].tolist()
    return [stamps[round(share * (len(stamps) - 1))] for share in DEPTH_MOMENTS] if stamps else []


def _bag_summary(bag: Bag) -> dict:
    return {
        "name": bag.path.name,
        "size_mb": round(bag.size_bytes / 1e6, 1),
        "messages": sum(topic.count for topic in bag.topics.values()),
    }


def _topic_rows(topics: list[Topic], duration_s: float) -> list[tuple[str, str, str, str]]:
    return [
        (topic.name, topic.type, f"{topic.count}", f"{topic.count / duration_s:.1f} Hz" if duration_s else "-")
        for topic in topics
    ]


def _mode_seconds(episode: Episode) -> dict[str, float]:
    seconds: dict[str, float] = {}
    for mode, begin_s, end_s in figures.mode_spans(episode):
        seconds[mode.name] = round(seconds.get(mode.name, 0.0) + end_s - begin_s, 3)
    return seconds


def _recorded_losses(episode: Episode) -> dict[str, int] | None:
    text = episode.custom_data.get("messages_lost")
    return None if text is None else json.loads(text)


def _rate_hz(stamps_ns: np.ndarray) -> float | None:
    if len(stamps_ns) < 2 or stamps_ns[-1] <= stamps_ns[0]:
        return None
    return _round(float((len(stamps_ns) - 1) / ((stamps_ns[-1] - stamps_ns[0]) * 1e-9)))


def _milliseconds(values_s: np.ndarray) -> dict[str, float] | None:
    return {name: _round(value * 1e3) for name, value in summarise(values_s).items()} or None


def _mean(values: list[float]) -> float | None:
    return _round(float(np.mean(values))) if values else None


def _round(value: float) -> float:
    return round(value, 5)


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def _spread(values: dict[str, float] | None) -> str:
    if not values:
        return "-"
    return "  ".join(f"{name} {values[name]:.1f}" for name in ("p50", "p95", "max")) + "  ms"


def _success_text(summary: dict) -> str:
    if summary["success"] is None:
        return "not reported"
    if summary["success"]:
        return f"yes, after {summary['success_time_s']:.1f} s"
    return f"no (progress {summary['progress']:.0%})"


if __name__ == "__main__":
    sys.exit(main())
