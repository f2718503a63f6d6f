"""The report as one HTML page: numbers, pictures (embedded) and tables. Uses no script and nothing from elsewhere."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from html import escape
from pathlib import Path

CSS = """
:root { --ink: #1c2733; --soft: #5d6875; --line: #e3e7ec; --paper: #ffffff; --ground: #f4f6f8; --accent: #2563c9; }
* { box-sizing: border-box; }
body { margin: 0; background: var(--ground); color: var(--ink);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", "DejaVu Sans", sans-serif; }
main { max-width: 1180px; margin: 0 auto; padding: 32px 24px 64px; }
header { margin-bottom: 24px; }
h1 { margin: 0 0 4px; font-size: 28px; line-height: 1.25; letter-spacing: -0.01em; }
h2 { margin: 0 0 4px; font-size: 18px; }
p { margin: 0 0 14px; color: var(--soft); }
header p { margin: 0; }
.badge { display: inline-block; vertical-align: middle; margin-left: 12px; padding: 3px 12px; border-radius: 99px;
  font-size: 14px; font-weight: 600; letter-spacing: 0; }
.good { background: #dcf3e4; color: #1c6b3c; } .bad { background: #fbe3e1; color: #9c2a22; }
.none { background: #e7ebf0; color: #475361; }
.tiles { display: grid; grid-template-columns: repeat(4, 1fr); gap: 12px; margin-bottom: 20px; }
.tile, section, .notes { background: var(--paper); border: 1px solid var(--line); border-radius: 10px; }
.tile { padding: 14px 16px; }
.tile b { display: block; font-size: 24px; line-height: 1.25; font-variant-numeric: tabular-nums; }
.tile span { display: block; font-size: 13px; color: var(--soft); }
.tile .name { font-size: 12px; font-weight: 600; text-transform: uppercase; letter-spacing: 0.04em; }
section { padding: 20px 22px; margin-bottom: 20px; overflow-x: auto; }
.notes { padding: 14px 22px; margin-bottom: 20px; border-left: 4px solid #e0a030; }
.notes ul { margin: 4px 0 0; padding-left: 20px; }
img { display: block; width: 100%; height: auto; }
table { width: 100%; border-collapse: collapse; font-size: 13px; font-variant-numeric: tabular-nums; }
th, td { padding: 6px 10px; text-align: left; border-bottom: 1px solid var(--line); }
th { color: var(--soft); font-weight: 600; } .number { text-align: right; white-space: nowrap; }
td:first-child { font-family: ui-monospace, "DejaVu Sans Mono", monospace; font-size: 12px; }
details summary { cursor: pointer; font-weight: 600; font-size: 18px; } details[open] summary { margin-bottom: 12px; }
.tabs > input { position: absolute; opacity: 0; }
.tabs > label { display: inline-block; padding: 5px 14px; margin: 0 6px 12px 0; border: 1px solid var(--line);
  border-radius: 99px; font-size: 13px; cursor: pointer; color: var(--soft); }
.tabs > div { display: none; }
.tabs > input:focus-visible + label { outline: 2px solid var(--accent); }
.tabs > input:checked + label { background: var(--accent); border-color: var(--accent); color: white; }
footer { color: var(--soft); font-size: 13px; }
@media (max-width: 760px) { .tiles { grid-template-columns: repeat(2, 1fr); } }
@media print { .tabs > div { display: block !important; } body { background: white; } }
"""


def render(
    summary: dict,
    findings: Sequence[str],
    pictures: dict[str, list[tuple[str, Path]]],
    topics: Sequence[tuple[str, str, str, str]],
) -> str:
    """The page as text.

    summary: what `report.summarise_episode` gives. findings: sentences for the box on top. pictures: section ->
    [(caption, PNG file)]. topics: rows of name, type, count, rate.
    """
    title = summary["instruction"] or "Recorded episode"
    body = [
        _header(title, summary),
        _tiles(summary),
        _findings(findings),
        _section("What the cameras saw", "", pictures.get("film")),
        _section(
            "Depth",
            "Camera image, depth predicted by the policy and true depth on one colour scale, and the relative error.",
            pictures.get("depth"),
            pictures.get("depth_error"),
        ),
        _section(
            "The run",
            "Progress of the task, who was in command, and how many steps of a chunk were still to come.",
            pictures.get("timeline"),
        ),
        _section(
            "Joints",
            "Commanded and measured positions. Red lines are the limits of motion.",
            pictures.get("joints"),
        ),
        _section("Timing", "", None, pictures.get("timing")),
        _topics(topics),
        _footer(summary),
    ]
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{CSS}{_tab_rules(pictures)}</style>\n</head>\n<body>\n<main>\n"
        + "\n".join(part for part in body if part)
        + "\n</main>\n</body>\n</html>\n"
    )


def _header(title: str, summary: dict) -> str:
    badge, kind = {True: ("success", "good"), False: ("no success", "bad"), None: ("not scored", "none")}[
        summary["success"]
    ]
    facts = [summary["model_id"] or "no policy", summary["robot"], summary["started"]]
    if summary["seed"] is not None:
        facts.append(f"scene seed {summary['seed']}")
    return (
        f'<header><h1>{escape(title)}<span class="badge {kind}">{badge}</span></h1>'
        f"<p>{escape(' · '.join(facts))}</p></header>"
    )


def _tiles(summary: dict) -> str:
    latency, jitter = summary["chunk_latency_ms"] or {}, summary["executor_jitter_ms"] or {}
    progress = "-" if summary["progress"] is None else f"{summary['progress']:.0%}"
    success = f"after {summary['success_time_s']:.1f} s" if summary["success"] else "of the task's substeps"
    tiles = [
        ("Progress", progress, success),
        (
            "Chunk rate",
            _with_unit(summary["chunk_rate_hz"], ".1f", "Hz"),
            f"{summary['chunks']} chunks, {summary['chunks_refused'] or 0} refused",
        ),
        (
            "Chunk latency",
            _with_unit(latency.get("p50"), ".0f", "ms"),
            f"p95 {_with_unit(latency.get('p95'), '.0f', 'ms')}, max {_with_unit(latency.get('max'), '.0f', 'ms')}",
        ),
        (
            "Commands",
            _with_unit(summary["commands_sent"], "d", ""),
            f"at {_with_unit(summary['command_rate_hz'], '.2f', 'Hz')} a limb",
        ),
        ("Missed ticks", _with_unit(summary["missed_ticks"], "d", ""), f"of {summary['ticks'] or 0}"),
        (
            "Executor jitter",
            _with_unit(jitter.get("p50"), ".1f", "ms"),
            f"p95 {_with_unit(jitter.get('p95'), '.1f', 'ms')}, max {_with_unit(jitter.get('max'), '.1f', 'ms')}",
        ),
        (
            "Depth AbsRel",
            "-" if summary["depth_abs_rel"] is None else f"{summary['depth_abs_rel']:.1%}",
            f"over {summary['depth_images']} images",
        ),
        ("Duration", f"{summary['duration_s']:.1f} s", "from the first observation answered"),
    ]
    return (
        '<div class="tiles">'
        + "".join(
            f'<div class="tile"><span class="name">{escape(name)}</span><b>{escape(value)}</b>'
            f"<span>{escape(detail)}</span></div>"
            for name, value, detail in tiles
        )
        + "</div>"
    )


def _findings(findings: Sequence[str]) -> str:
    if not findings:
        return ""
    items = "".join(f"<li>{escape(sentence)}</li>" for sentence in findings)
    return f'<div class="notes"><h2>To look at</h2><ul>{items}</ul></div>'


def _section(
    title: str, lead: str, choice: list[tuple[str, Path]] | None, below: list[tuple[str, Path]] | None = None
) -> str:
    """A card with pictures of which one at a time is shown, and pictures below them that always are."""
    if not choice and not below:
        return ""
    shown = "".join(_image(path, title) for _, path in below or ())
    if choice and len(choice) == 1:
        shown = _image(choice[0][1], title) + shown
    elif choice:
        shown = _tabs(title, choice) + shown
    return f"<section><h2>{escape(title)}</h2>" + (f"<p>{escape(lead)}</p>" if lead else "") + shown + "</section>"


def _tabs(title: str, pictures: list[tuple[str, Path]]) -> str:
    labels = "".join(
        f'<input type="radio" name="tab" id="tab{i}"{" checked" if i == len(pictures) // 2 else ""}>'
        f'<label for="tab{i}">{escape(caption)}</label>'
        for i, (caption, _) in enumerate(pictures)
    )
    panels = "".join(
        f'<div id="panel{i}">{_image(path, f"{title} at {caption}")}</div>'
        for i, (caption, path) in enumerate(pictures)
    )
    return f'<div class="tabs">{labels}{panels}</div>'


def _tab_rules(pictures: dict[str, list[tuple[str, Path]]]) -> str:
    count = max((len(items) for items in pictures.values()), default=0)
    return "".join(f"#tab{i}:checked ~ #panel{i} {{ display: block; }}\n" for i in range(count))


def _topics(topics: Sequence[tuple[str, str, str, str]]) -> str:
    rows = "".join(
        f"<tr><td>{escape(name)}</td><td>{escape(kind)}</td>"
        f'<td class="number">{count}</td><td class="number">{rate}</td></tr>'
        for name, kind, count, rate in topics
    )
    return (
        f"<section><details><summary>Recorded topics ({len(topics)})</summary><table><tr><th>topic</th><th>type</th>"
        f'<th class="number">messages</th><th class="number">rate</th></tr>{rows}</table></details></section>'
    )


def _footer(summary: dict) -> str:
    machine = summary["machine"]
    facts = [f"Bag {summary['bag']['name']}: {summary['bag']['messages']} messages, {summary['bag']['size_mb']} MB"]
    if machine:
        facts.append("recorded on " + ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in machine.items()))
    return f"<footer>{escape('; '.join(facts))}</footer>"


def _image(path: Path, text: str) -> str:
    data = base64.b64encode(path.read_bytes()).decode()
    return f'<img alt="{escape(text)}" src="data:image/png;base64,{data}">'


def _with_unit(value: float | None, form: str, unit: str) -> str:
    return "-" if value is None else f"{value:{form}} {unit}".strip()
