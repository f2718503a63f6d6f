"""The figures of the bad networks as tables, for a terminal or a document."""

from __future__ import annotations

from collections.abc import Callable, Sequence

CASES = (
    "executor on",
    "link",
    "commands [Hz]",
    "longest gap [ms]",
    "velocity",
    "acceleration",
    "step over missing [rad]",
    "age p50 / p99 [ms]",
    "in HOLD",
    "chunks sent / taken",
    "refused",
)
CUTS = (
    "executor on",
    "link",
    "cuts",
    "hold [ms]",
    "arms stand [ms]",
    "commands meanwhile",
    "first command [ms]",
    "chunk followed [ms]",
    "command ahead of arm [rad]",
    "arm speed then [rad/s]",
)


def text(result: dict) -> str:
    return "\n".join([*_about(result), "", *_blocks(result, _aligned)])


def markdown(result: dict) -> str:
    return "\n".join(["; ".join(_about(result)) + ".", "", *_blocks(result, _piped)])


def _about(result: dict) -> list[str]:
    rows = result["rows"]
    link = [report for row in rows for report in row["link"]]
    carried, overflowed, seconds = (
        sum(report[name] for report in link) for name in ("carried", "overflowed", "seconds")
    )
    return [
        result["machine"],
        ", ".join(sorted({row["date"] for row in rows})),
        f"load average {min(r['load_average'] for r in rows):.1f} to {max(r['load_average'] for r in rows):.1f}",
        f"the link carried {carried / seconds:.0f} frames/s, dropped {overflowed} of its own and was"
        f" {max(report['late_ms']['p99'] for report in link):.2f} ms late at most (p99 of a run)",
    ]


def _blocks(result: dict, layout: Callable[[Sequence[Sequence[str]]], list[str]]) -> list[str]:
    rows = result["rows"]
    lines = layout([CASES, *(_case(row) for row in rows)])
    cut = [row for row in rows if row.get("cuts")]
    return lines + (["", *layout([CUTS, *(_cut(row) for row in cut)])] if cut else [])


def _case(row: dict) -> tuple[str, ...]:
    refused = ", ".join(f"{count} {reason}" for reason, count in row["chunks"]["refused"].items())
    return (
        row["side"],
        row["case"],
        f"{row['rate_hz']:.1f}",
        f"{row['gap_ms']['max']:.0f}",
        f"{row['velocity_share']:.0%}",
        f"{row['acceleration_share']:.0%}",
        f"{row['step_over_missing_rad']:.3f}" if row["step_over_missing_rad"] else "",
        f"{row['age_ms']['p50']:.0f} / {row['age_ms']['p99']:.0f}" if row["age_ms"] else "",
        f"{row['modes'].get('HOLD', 0.0):.0%}",
        f"{row['chunks']['sent']} / {row['chunks']['accepted']}",
        refused,
    )


def _cut(row: dict) -> tuple[str, ...]:
    """The ranges over all cuts."""

    def range_of(name: str, digits: int = 0) -> str:
        values = [cut[name] for cut in row["cuts"]]
        if None in values:
            return "never"
        low, high = (f"{value:.{digits}f}" for value in (min(values), max(values)))
        return low if low == high else f"{low} to {high}"

    times = (range_of(name) for name in ("hold_ms", "arms_stand_ms", "commands_meanwhile", "first_command_ms"))
    cells = (*times, range_of("followed_ms"), range_of("ahead_of_arm_rad", 3), range_of("arm_speed_rad_s", 2))
    return (row["side"], row["case"], str(len(row["cuts"])), *cells)


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def _piped(rows: Sequence[Sequence[str]]) -> list[str]:
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    return [lines[0], "|" + "---|" * len(rows[0]), *lines[1:]]
