"""A comparison of policies as one HTML page, and as text for a terminal. Both are made of its summary alone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote

from depthvla_evaluation.metrics import LEAST_VALUES
from depthvla_evaluation.report.comparison_figure import AVERAGE, UNNAMED
from depthvla_evaluation.report.templating import Cell, percent, with_unit
from depthvla_evaluation.report.templating import render as render_template


def render(summary: dict, figure: Path | None) -> str:
    """The page as text. summary: what `comparison_summary.summarise_comparison` gives; figure: the bar chart."""
    days = sorted(time[:10] for episode in summary["episodes"] if (time := episode["started"] or episode["made"]))
    subtitle = [", ".join(_distinct(summary, "policy")), " to ".join(dict.fromkeys((*days[:1], *days[-1:])))]
    policies = list(dict.fromkeys(group["policy"] for group in summary["groups"] if group["all"]["marked"]))
    return render_template(
        "comparison",
        title="Policies compared",
        subtitle=" · ".join(filter(None, subtitle)),
        tiles=_tiles(summary),
        findings=summary["findings"],
        least_values=LEAST_VALUES,
        progress=_without_repeats(_rows(summary), 2),
        published=summary["published"],
        figure=figure,
        differences=_without_repeats(_difference_rows(summary), 2),
        marked_policies=[policy or UNNAMED["policy"] for policy in policies],
        substeps=_without_repeats(_substep_rows(summary, policies), 2),
        timing=_timing_rows(summary),
        episodes=[_episode_row(episode) for episode in summary["episodes"]],
    )


def text(summary: dict) -> str:
    """The headline and the differences, with the findings."""
    lines = [["setting", "task", "policy", "episodes", "progress", "", "success", ""]]
    for row in _headline(summary):
        estimates = (row["progress"], row["success"])
        cells = [cell for value in estimates for cell in (percent(value["value"]), _interval(value["interval"]))]
        lines.append([row["setting"], row["task"], row["policy"], str(row["n"]), *cells])
    blocks = [_aligned(lines)]
    apart = [
        [row["setting"], row["task"], f"{row['policy']} - {row['other']}", _points(row["progress"]["value"])]
        + [_points_interval(row["progress"]["interval"]), _basis(row)]
        for row in summary["differences"]
    ]
    if apart:
        blocks.append(_aligned(apart))
    if summary["findings"]:
        blocks.append("\n".join(f"  ! {sentence}" for sentence in summary["findings"]))
    return "\n\n".join(blocks)


def _tiles(summary: dict) -> list[tuple[str, str, str]]:
    episodes = summary["episodes"]
    counted = [episode for episode in episodes if episode["counted"]]
    scenes = {(episode["task"], episode["scene"]) for episode in counted if episode["scene"]}
    tasks, settings = _distinct(summary, "task"), _distinct(summary, "setting")
    intervened = sum(episode["interventions"] > 0 for episode in counted)
    return [
        ("Episodes", f"{len(counted)}", f"counted of {len(episodes)}"),
        ("Tasks", f"{len(tasks)}", f"in {len(settings)} setting{'s' if len(settings) != 1 else ''}"),
        ("Scenes", f"{len(scenes)}", "distinct starts of a task"),
        ("Interventions", f"{intervened}", "episodes with a take-over"),
    ]


def _headline(summary: dict) -> list[dict]:
    """Groups and, after those of a setting with several tasks, its averages, as dictionaries of the same keys."""
    groups = [{**group["all"], **{key: group[key] for key in UNNAMED}} for group in summary["groups"]]
    rows = []
    for setting in dict.fromkeys(group["setting"] for group in groups):
        of_setting = [group for group in groups if group["setting"] == setting]
        rows += of_setting
        for average in summary["averages"]:
            if average["setting"] == setting and len(average["tasks"]) > 1:
                members = [group for group in of_setting if group["policy"] == average["policy"]]
                sums = {key: sum(group[key] for group in members) for key in ("n", "interventions")}
                rows.append({**average, **sums, "task": AVERAGE, "success_time_s": None})
    return [row | {key: row[key] or UNNAMED[key] for key in UNNAMED} for row in rows]


def _rows(summary: dict) -> list[list[str | Cell]]:
    return [
        [row["setting"], row["task"], row["policy"], f"{row['n']}"]
        + [Cell(percent(e["value"]), _interval(e["interval"]), bold=True) for e in (row["progress"], row["success"])]
        + [f"{row['interventions']}", with_unit(row["success_time_s"], ".1f", "s")]
        for row in _headline(summary)
    ]


def _difference_rows(summary: dict) -> list[list[str | Cell]]:
    return [
        [row["setting"] or UNNAMED["setting"], row["task"] or UNNAMED["task"]]
        + [f"{row['policy']} − {row['other']}", _basis(row)]
        + [Cell(_points(row["progress"]["value"]), _points_interval(row["progress"]["interval"]), bold=True)]
        for row in summary["differences"]
    ]


def _without_repeats(rows: Sequence[list[str | Cell]], columns: int) -> list[list[str | Cell]]:
    """Leading cells that say the same as those of the row above are left empty."""
    shown = []
    for index, row in enumerate(rows):
        same = 0
        while index and same < columns and row[: same + 1] == rows[index - 1][: same + 1]:
            same += 1
        shown.append([""] * same + row[same:])
    return shown


def _basis(row: dict) -> str:
    return f"{len(row['scenes'])} scenes in common" if row["scenes"] else "all episodes, not paired"


def _substep_rows(summary: dict, policies: Sequence[str]) -> list[list[str | Cell]]:
    """A row a substep, a column a policy."""
    rates: dict[tuple[str, str, str], dict[str, Cell]] = {}
    for group in summary["groups"]:
        for substep, rate in group["all"]["substeps"].items():
            cell = Cell(percent(rate), f"of {group['all']['marked']}")
            rates.setdefault((group["setting"], group["task"], substep), {})[group["policy"]] = cell
    return [
        [setting or UNNAMED["setting"], task, substep.replace("_", " ")]
        + [cells.get(policy, "-") for policy in policies]
        for (setting, task, substep), cells in rates.items()
    ]


def _timing_rows(summary: dict) -> list[list[str]]:
    return [
        [policy or UNNAMED["policy"], f"{row['episodes']}", with_unit(row["inference_ms"], ".1f", "ms")]
        + [
            with_unit(row[key].get(quantile), ".1f", "ms")
            for key in ("chunk_latency_ms", "executor_jitter_ms")
            for quantile in ("p50", "p95")
        ]
        for policy, row in summary["timing"].items()
    ]


def _episode_row(episode: dict) -> list[str | Cell]:
    outcome, badge = {True: ("success", "good"), False: ("no success", "bad"), None: ("-", "none")}[episode["success"]]
    if episode["not_counted"]:
        outcome, badge = episode["outcome"] or "not scored", "none"
    points = "-" if episode["points"] is None else f"{episode['points']} of {episode['total']}"
    return [
        Cell(episode["name"], link=quote(episode["page"] or episode["video"] or "")),
        *(episode[key] or "-" for key in ("task", "setting", "scene", "policy")),
        Cell(outcome, episode["not_counted"], badge=badge),
        *(points, percent(episode["progress"]), f"{episode['interventions']}"),
    ]


def _distinct(summary: dict, key: str) -> list[str]:
    return sorted({episode[key] or UNNAMED[key] for episode in summary["episodes"]})


def _interval(interval: Sequence[float] | None) -> str:
    return "" if interval is None else f"{interval[0]:.0%} to {interval[1]:.0%}"


def _points(value: float) -> str:
    return f"{value * 100:+.0f}"


def _points_interval(interval: Sequence[float] | None) -> str:
    return "" if interval is None else f"{_points(interval[0])} to {_points(interval[1])}"


def _aligned(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  " + "  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )
