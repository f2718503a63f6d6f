"""What the report's pages are made of: style, cards, tiles, tables, embedded pictures. Nothing comes from elsewhere."""

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
table.topics td:first-child { font-family: ui-monospace, "DejaVu Sans Mono", monospace; font-size: 12px; }
details summary { cursor: pointer; font-weight: 600; font-size: 18px; } details[open] summary { margin-bottom: 12px; }
.tabs > input { position: absolute; opacity: 0; }
.tabs > label { display: inline-block; padding: 5px 14px; margin: 0 6px 12px 0; border: 1px solid var(--line);
  border-radius: 99px; font-size: 13px; cursor: pointer; color: var(--soft); }
.tabs > div { display: none; }
.tabs > input:focus-visible + label { outline: 2px solid var(--accent); }
.tabs > input:checked + label { background: var(--accent); border-color: var(--accent); color: white; }
footer { color: var(--soft); font-size: 13px; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: 4px 18px; margin: 10px 0 0; font-size: 14px; }
dt { color: var(--soft); } dd { margin: 0; overflow-wrap: anywhere; }
pre { margin: 8px 0 0; padding: 12px; background: var(--ground); border-radius: 8px; font-size: 12px;
  overflow-x: auto; }
a { color: var(--accent); }
.badge.small { margin: 0; padding: 1px 9px; font-size: 12px; }
td small { display: block; color: var(--soft); font-size: 12px; }
video { display: block; width: 100%; border-radius: 8px; background: var(--ground); }
.strip { display: block; width: 100%; margin-top: 10px; cursor: pointer; touch-action: none; }
.controls { display: flex; gap: 10px; align-items: center; margin-top: 10px; font-size: 14px; }
.controls output { margin-left: auto; font-weight: 600; font-variant-numeric: tabular-nums; }
button, select { padding: 4px 12px; border: 1px solid var(--line); border-radius: 8px; background: var(--paper);
  color: var(--ink); font: inherit; font-size: 13px; cursor: pointer; }
button.seek { padding: 0; border: 0; color: var(--accent); text-decoration: underline; }
@media (max-width: 760px) { .tiles { grid-template-columns: repeat(2, 1fr); } }
@media print { .tabs > div { display: block !important; } body { background: white; } }
"""


def document(title: str, parts: Sequence[str], *, style: str = "") -> str:
    """A page of parts; empty ones are left out."""
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{CSS}{style}</style>\n</head>\n<body>\n<main>\n"
        + "\n".join(part for part in parts if part)
        + "\n</main>\n</body>\n</html>\n"
    )


def section(title: str, lead: str, content: str) -> str:
    """A card; nothing where it would be empty."""
    if not content:
        return ""
    return f"<section><h2>{escape(title)}</h2>" + (f"<p>{escape(lead)}</p>" if lead else "") + content + "</section>"


def card(content: str) -> str:
    """A card without a title of its own."""
    return f"<section>{content}</section>" if content else ""


def tiles(items: Sequence[tuple[str, str, str]]) -> str:
    """Big numbers: name, value, detail."""
    return (
        '<div class="tiles">'
        + "".join(
            f'<div class="tile"><span class="name">{escape(name)}</span><b>{escape(value)}</b>'
            f"<span>{escape(detail)}</span></div>"
            for name, value, detail in items
        )
        + "</div>"
    )


def notes(sentences: Sequence[str]) -> str:
    """The box on top of a page."""
    if not sentences:
        return ""
    items = "".join(f"<li>{escape(sentence)}</li>" for sentence in sentences)
    return f'<div class="notes"><h2>To look at</h2><ul>{items}</ul></div>'


def table(heads: Sequence[str], rows: Sequence[Sequence[str]], *, numbers: int = 0, kind: str = "plain") -> str:
    """Cells are HTML already. The last `numbers` columns are set to the right. Empty without rows."""
    if not rows:
        return ""
    split = len(heads) - numbers

    def line(tag: str, cells: Sequence[str]) -> str:
        return "".join(
            f'<{tag} class="number">{cell}</{tag}>' if index >= split else f"<{tag}>{cell}</{tag}>"
            for index, cell in enumerate(cells)
        )

    body = "".join(f"<tr>{line('td', row)}</tr>" for row in rows)
    return f'<table class="{kind}"><tr>{line("th", heads)}</tr>{body}</table>'


def facts(items: Sequence[tuple[str, str]]) -> str:
    """Names and values (HTML) below each other; those without a value are left out."""
    rows = "".join(f"<dt>{escape(name)}</dt><dd>{value}</dd>" for name, value in items if value)
    return f"<dl>{rows}</dl>" if rows else ""


def folded(summary: str, content: str) -> str:
    """Shown when it is asked for."""
    return f"<details><summary>{escape(summary)}</summary>{content}</details>" if content else ""


def image(path: Path, text: str) -> str:
    data = base64.b64encode(path.read_bytes()).decode()
    return f'<img alt="{escape(text)}" src="data:image/png;base64,{data}">'


def with_unit(value: float | None, form: str, unit: str) -> str:
    return "-" if value is None else f"{value:{form}} {unit}".strip()


def percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.0%}"
