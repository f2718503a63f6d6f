"""One episode's page: replay, numbers, pictures (embedded), what was said about it, and tables."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from depthvla_evaluation.report.summary import success_time
from depthvla_evaluation.report.templating import render as render_template

PictureFiles = dict[str, list[tuple[str, Path]]]  # section -> [(caption, PNG file)]


def render(
    summary: dict,
    findings: Sequence[str],
    pictures: PictureFiles,
    topics: Sequence[tuple[str, str, str, str]],
    player: dict | None = None,
) -> str:
    """The page as text.

    summary: what `summary.summarise_episode` gives, and the bag. findings: sentences for the box on top. topics: rows
    of name, type, count, rate. player: what `player.player` gives, where there is a video.
    """
    about = [summary["task"], summary["setting"], summary["scene"]]
    about += [summary["policy"] or summary["model_id"] or "no policy", summary["robot"], summary["started"]]
    missing = [
        f"{name}: {', '.join(summary[f'{name}_missing'])}"
        for name in ("topics", "calibration", "parameters")
        if summary[f"{name}_missing"]
    ]
    return render_template(
        "episode",
        title=summary["instruction"] or "Recorded episode",
        subtitle=" · ".join(filter(None, about)),
        badge=_badge(summary),
        success=_success(summary),
        summary=summary,
        findings=findings,
        player=player,
        missing="; ".join(missing),
        parameters=[
            (node, json.dumps(values, indent=1, sort_keys=True)) for node, values in summary["parameters"].items()
        ],
        pictures=pictures,
        topics=topics,
    )


def _badge(summary: dict) -> tuple[str, str]:
    if not summary["counted"] and summary["outcome"]:
        return summary["outcome"], "none"
    return {True: ("success", "good"), False: ("no success", "bad"), None: ("not scored", "none")}[summary["success"]]


def _success(summary: dict) -> str:
    success = success_time(summary) if summary["success"] else ""
    if summary["points"] is None:
        return success or "of the task's substeps"
    return ", ".join(filter(None, (f"{summary['points']} of {summary['total']} points", success)))
