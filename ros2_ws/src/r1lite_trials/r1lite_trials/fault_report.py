"""The faults' figures as a table: for a terminal, and in a Markdown file between two markers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from r1lite_trials.fault_table import Fault, Stops

BEGIN, END = "<!-- faults: begin -->", "<!-- faults: end -->"


def text(result: dict) -> str:
    lines = [
        f"{'fault':44} {'n':>3} {'detected':>13} {'held [ms]':>13} {'resumed':>13} {'step':>7} {'acc':>5} problems"
    ]
    for name, row in result["faults"].items():
        times = " ".join(f"{_spread(row[key]):>13}" for key in ("detected_ms", "held_ms", "resumed_ms"))
        moved = f"{row['largest_step_rad']:7.3f} {row['largest_acceleration_share']:5.0%}"
        lines.append(f"{name[:44]:44} {row['n']:3} {times} {moved} {row['problems'] or ''}")
    return "\n".join(lines)


def markdown(result: dict, faults: Sequence[Fault]) -> str:
    """Times are p50 / max."""
    lines = [
        f"`{result['command']}`, {result['date']}; {result['machine']}.",
        "",
        "| fault | how it is detected | detected [ms] | held [ms] | runs | what happens | how to leave it |",
        "|---|---|---|---|---|---|---|",
    ]
    for fault in faults:
        row = result["faults"][fault.name]
        held = "goes on" if fault.stops is Stops.NOTHING else _spread(row["held_ms"])
        cells = (fault.name, fault.detection, _spread(row["detected_ms"]), held, str(row["n"]))
        lines.append("| " + " | ".join((*cells, fault.happens, fault.how_to_leave)) + " |")
    rows = result["faults"].values()
    misnamed = [f"{name}, {row['misnamed']} of {row['n']}" for name, row in result["faults"].items() if row["misnamed"]]
    lines += [
        "",
        "Over all runs the largest step of an arm joint's command was"
        f" {max(r['largest_step_rad'] for r in rows):.3f} rad,"
        f" at {max(r['largest_velocity_share'] for r in rows):.0%} of the velocity limit and"
        f" {max(r['largest_acceleration_share'] for r in rows):.0%} of the acceleration limit at most (differences at"
        f" the control period). Runs with a problem: {sum(r['problems'] for r in rows)} of"
        f" {sum(r['n'] for r in rows)}.",
    ]
    if misnamed:
        lines += ["", f"Runs that were held for a neighbour's silence instead: {'; '.join(misnamed)}."]
    return "\n".join(lines)


def replace(document: Path, table: str) -> None:
    """Puts the table between the markers. Raises ValueError where they are missing."""
    content = document.read_text()
    before, begin, rest = content.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise ValueError(f"{document} has no {BEGIN} and {END}")
    document.write_text(f"{before}{BEGIN}\n{table}\n{END}{after}")


def _spread(values: dict[str, float]) -> str:
    return f"{values['p50']:.0f} / {values['max']:.0f}" if values else "-"
