"""One episode's page: replay, numbers, pictures (embedded), what was said about it, and tables."""

from __future__ import annotations

import json
from collections.abc import Sequence
from html import escape
from pathlib import Path

from depthvla_evaluation.report.page_parts import (
    card,
    document,
    facts,
    folded,
    image,
    notes,
    percent,
    section,
    table,
    tiles,
    with_unit,
)
from depthvla_evaluation.report.player import seek_button
from depthvla_evaluation.report.summary import success_time

PictureFiles = dict[str, list[tuple[str, Path]]]  # section -> [(caption, PNG file)]


def render(
    summary: dict,
    findings: Sequence[str],
    pictures: PictureFiles,
    topics: Sequence[tuple[str, str, str, str]],
    player: str = "",
) -> str:
    """The page as text.

    summary: what `summary.summarise_episode` gives, and the bag. findings: sentences for the box on top. topics: rows
    of name, type, count, rate. player: the card with the video, where there is one.
    """
    title = summary["instruction"] or "Recorded episode"
    depth_lead = (
        "Camera image, depth predicted by the policy and true depth on one colour scale, and the relative error."
    )
    run_lead = "Progress of the task, who was in command, and how many steps of a chunk were still to come."
    joints_lead = "Commanded and measured positions. Red lines are the limits of motion."
    parts = [
        _header(title, summary),
        tiles(_tiles(summary)),
        notes(findings),
        player,
        _about(summary, live=bool(player)),
        section("What the cameras saw", "", _pictures("What the cameras saw", pictures.get("film"))),
        section("Depth", depth_lead, _pictures("Depth", pictures.get("depth"), pictures.get("depth_error"))),
        section("The run", run_lead, _pictures("The run", pictures.get("timeline"))),
        section("Joints", joints_lead, _pictures("Joints", pictures.get("joints"))),
        section("Timing", "", _pictures("Timing", None, pictures.get("timing"))),
        _topics(topics),
        _footer(summary),
    ]
    return document(title, parts, style=_tab_rules(pictures))


def _header(title: str, summary: dict) -> str:
    badge, kind = {True: ("success", "good"), False: ("no success", "bad"), None: ("not scored", "none")}[
        summary["success"]
    ]
    if not summary["counted"] and summary["outcome"]:
        badge, kind = summary["outcome"], "none"
    words = [summary["task"], summary["setting"], summary["scene"]]
    words += [summary["policy"] or summary["model_id"] or "no policy", summary["robot"], summary["started"]]
    return (
        f'<header><h1>{escape(title)}<span class="badge {kind}">{badge}</span></h1>'
        f"<p>{escape(' · '.join(word for word in words if word))}</p></header>"
    )


def _tiles(summary: dict) -> list[tuple[str, str, str]]:
    latency, jitter = summary["chunk_latency_ms"] or {}, summary["executor_jitter_ms"] or {}
    success = success_time(summary) if summary["success"] else "of the task's substeps"
    if summary["points"] is not None:
        success = f"{summary['points']} of {summary['total']} points" + (f", {success}" if summary["success"] else "")
    return [
        ("Progress", percent(summary["progress"]), success),
        (
            "Chunk rate",
            with_unit(summary["chunk_rate_hz"], ".1f", "Hz"),
            f"{summary['chunks']} chunks, {summary['chunks_refused'] or 0} refused",
        ),
        (
            "Chunk latency",
            with_unit(latency.get("p50"), ".0f", "ms"),
            f"p95 {with_unit(latency.get('p95'), '.0f', 'ms')}, max {with_unit(latency.get('max'), '.0f', 'ms')}",
        ),
        (
            "Commands",
            with_unit(summary["commands_sent"], "d", ""),
            f"at {with_unit(summary['command_rate_hz'], '.2f', 'Hz')} a limb",
        ),
        ("Missed ticks", with_unit(summary["missed_ticks"], "d", ""), f"of {summary['ticks'] or 0}"),
        (
            "Executor jitter",
            with_unit(jitter.get("p50"), ".1f", "ms"),
            f"p95 {with_unit(jitter.get('p95'), '.1f', 'ms')}, max {with_unit(jitter.get('max'), '.1f', 'ms')}",
        ),
        (
            "Depth AbsRel",
            "-" if summary["depth_abs_rel"] is None else f"{summary['depth_abs_rel']:.1%}",
            f"over {summary['depth_images']} images",
        ),
        ("Duration", f"{summary['duration_s']:.1f} s", "from the first observation answered"),
    ]


def _about(summary: dict, *, live: bool) -> str:
    """What people said, what they marked and when a person took over; how it was recorded is folded."""
    marks = "<br>".join(
        f"{escape(mark['substep'])} at {seek_button(mark['time_s'], live=live)}" for mark in summary["marks"]
    )
    interventions = "<br>".join(
        f"{seek_button(item['time_s'], live=live)} {escape(item['cause'])}" for item in summary["interventions"]
    )
    missing = [
        f"{name}: {', '.join(summary[key])}"
        for name, key in (
            ("topics", "topics_missing"),
            ("calibration", "calibration_missing"),
            ("parameters", "parameters_missing"),
        )
        if summary[key]
    ]
    words = ("task", "setting", "scene", "policy", "outcome", "notes", "failure")
    said = facts(
        [(word, escape(summary[word])) for word in words]
        + [
            ("substeps", marks),
            ("interventions", interventions),
            ("model", escape(summary["model_id"] or "")),
            ("revision", escape(summary["git_revision"])),
            ("missing", escape("; ".join(missing))),
        ]
    )
    parameters = "".join(
        f"<p>{escape(node)}</p><pre>{escape(json.dumps(values, indent=1, sort_keys=True))}</pre>"
        for node, values in summary["parameters"].items()
    )
    return section("The episode", "", said) + card(folded("Parameters of the nodes", parameters))


def _pictures(title: str, choice: list[tuple[str, Path]] | None, below: list[tuple[str, Path]] | None = None) -> str:
    """Pictures of which one at a time is shown, and pictures below them that always are."""
    shown = "".join(image(path, title) for _, path in below or ())
    if choice and len(choice) == 1:
        return image(choice[0][1], title) + shown
    return (_tabs(title, choice) if choice else "") + shown


def _tabs(title: str, pictures: list[tuple[str, Path]]) -> str:
    labels = "".join(
        f'<input type="radio" name="tab" id="tab{i}"{" checked" if i == len(pictures) // 2 else ""}>'
        f'<label for="tab{i}">{escape(caption)}</label>'
        for i, (caption, _) in enumerate(pictures)
    )
    panels = "".join(
        f'<div id="panel{i}">{image(path, f"{title} at {caption}")}</div>' for i, (caption, path) in enumerate(pictures)
    )
    return f'<div class="tabs">{labels}{panels}</div>'


def _tab_rules(pictures: dict[str, list[tuple[str, Path]]]) -> str:
    count = max((len(items) for items in pictures.values()), default=0)
    return "".join(f"#tab{i}:checked ~ #panel{i} {{ display: block; }}\n" for i in range(count))


def _topics(topics: Sequence[tuple[str, str, str, str]]) -> str:
    rows = [[escape(cell) for cell in row] for row in topics]
    listed = table(("topic", "type", "messages", "rate"), rows, numbers=2, kind="topics")
    return card(folded(f"Recorded topics ({len(topics)})", listed))


def _footer(summary: dict) -> str:
    machine = summary["machine"]
    words = [f"Bag {summary['bag']['name']}: {summary['bag']['messages']} messages, {summary['bag']['size_mb']} MB"]
    if machine:
        words.append("recorded on " + ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in machine.items()))
    return f"<footer>{escape('; '.join(words))}</footer>"
