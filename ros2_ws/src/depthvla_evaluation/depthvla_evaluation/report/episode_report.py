"""Writes the report of one episode: `report.html` (its pictures embedded), the pictures as PNG, `summary.json`, and
`episode.mp4` where it can be made.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from depthvla_evaluation.bags.bag import Bag
from depthvla_evaluation.bags.episode import Episode, read_episode
from depthvla_evaluation.bags.pictures import Pictures, depth_moments, read_pictures
from depthvla_evaluation.report import figures, page
from depthvla_evaluation.report.player import player
from depthvla_evaluation.report.scores import Score, score_episode, task_substeps
from depthvla_evaluation.report.summary import findings, summarise_episode
from depthvla_evaluation.report.video import EpisodeVideo, NoVideoError

FILM_MOMENTS = 6
DEPTH_MOMENTS = (0.05, 0.5, 0.95)  # shares of the time in which depth was predicted
VIDEO = "episode.mp4"


@dataclass(frozen=True)
class EpisodeReport:
    """no_video: why there is none; empty where there is one, or none was asked for. Arrays are in seconds.

    inference_s: pictures prepared and network run, of every chunk.
    """

    html: Path
    summary: dict
    score: Score
    no_video: str
    inference_s: np.ndarray
    chunk_latency_s: np.ndarray
    jitter_s: np.ndarray
    remarks: tuple[str, ...] = ()  # of the bag


def write_episode(
    bag_path: str | Path, out: str | Path, *, video: bool = True, substeps: Mapping[str, Sequence[str]] | None = None
) -> EpisodeReport:
    """Build the report of a bag in the folder `out`; reads the bag twice.

    substeps: task -> its substeps, from `scores.task_substeps` over all bags; None takes this bag alone.

    Raises:
        FileNotFoundError: there is no such bag.
        ValueError: the bag cannot be read or is empty.
    """
    out = Path(out)
    with Bag(bag_path) as bag:
        episode = read_episode(bag)
        unknown = []
        if substeps is None:
            substeps, unknown = task_substeps([episode.notes])
        times_ns = episode.start_ns + np.linspace(0.0, 0.98, FILM_MOMENTS) * episode.duration_s * 1e9
        moments = [*(int(time_ns) for time_ns in times_ns), *depth_moments(episode, DEPTH_MOMENTS)]
        out.mkdir(parents=True, exist_ok=True)
        made, no_video = _film(out / VIDEO, episode) if video else (None, "")
        try:
            pictures = read_pictures(bag, episode, moments, made.watch if made else None)
        finally:
            if made:
                made.close()
        topics = sorted(bag.topics.values(), key=lambda topic: topic.name)
        about_bag = {
            "name": bag.path.name,
            "size_mb": round(bag.size_bytes / 1e6, 1),
            "messages": sum(topic.count for topic in topics),
        }
        remarks = bag.remarks
    score = score_episode(episode, substeps)
    summary = summarise_episode(episode, score, pictures.depth) | {"bag": about_bag}
    found = [unknown_task(task, substeps[task]) for task in unknown] + findings(episode, score, summary)
    found += [f"{remark}." for remark in remarks]
    if no_video:
        found.append(f"There is no video: {no_video}.")
    if made and made.unreadable:
        found.append(f"{made.unreadable} images could not be read and are not in the video.")
    drawn = _draw(episode, pictures, out)
    rates = [f"{topic.count / episode.recorded_s:.1f} Hz" if episode.recorded_s else "-" for topic in topics]
    rows = [(topic.name, topic.type, f"{topic.count}", rate) for topic, rate in zip(topics, rates, strict=True)]
    replay = player(episode, VIDEO, made.times_s) if made and made.times_s else ""
    (out / "summary.json").write_text(json.dumps(summary, indent=2) + "\n")
    html = out / "report.html"
    html.write_text(page.render(summary, found, drawn, rows, replay))
    inference_s = episode.chunks.preprocess_s + episode.chunks.inference_s
    times = inference_s, episode.chunk_latency_s, episode.ticks.jitter_s
    return EpisodeReport(html, summary, score, no_video, *times, tuple(remarks))


def unknown_task(task: str, substeps: Sequence[str]) -> str:
    """What is said of a task without a description."""
    if not substeps:
        return f"Task {task!r} is unknown and nothing is marked in it: success is its only point."
    return f"Task {task!r} is unknown: its points are the substeps marked in these bags ({', '.join(substeps)})."


def _film(path: Path, episode: Episode) -> tuple[EpisodeVideo | None, str]:
    """The video that is going to be made, or why there is none."""
    path.unlink(missing_ok=True)
    try:
        return EpisodeVideo(path, episode), ""
    except NoVideoError as error:
        return None, str(error)


def _draw(episode: Episode, pictures: Pictures, out: Path) -> page.PictureFiles:
    """Draw and save; section of the page -> [(caption, PNG)]."""
    film, depth = pictures.views[:FILM_MOMENTS], pictures.views[FILM_MOMENTS:]
    has_images = any(view.image is not None for views in film for view in views)
    moments = [views for views in depth if any(view.predicted_m is not None for view in views)]
    drawings: dict[str, list[tuple[str, str, Callable[[], Figure]]]] = {
        "film": [("", "film", lambda: figures.film_figure(film, episode))] if has_images else [],
        "depth": [
            (f"{episode.seconds(views[0].stamp_ns):.1f} s", f"depth_{index}", lambda v=views: figures.depth_figure(v))
            for index, views in enumerate(moments, start=1)
        ],
        "depth_error": [("", "depth_error", lambda: figures.depth_error_figure(episode, pictures.depth))]
        if pictures.depth
        else [],
        "timeline": [("", "timeline", lambda: figures.timeline_figure(episode))],
        "joints": [("", "joints", lambda: figures.joints_figure(episode))],
        "timing": [
            ("", "chunk_latency", lambda: figures.latency_figure(episode)),
            ("", "executor_jitter", lambda: figures.jitter_figure(episode)),
        ],
    }
    saved: page.PictureFiles = {}
    for part, items in drawings.items():
        for caption, name, draw in items:
            path = out / f"{name}.png"
            figures.save(draw(), path)
            saved.setdefault(part, []).append((caption, path))
    return saved
