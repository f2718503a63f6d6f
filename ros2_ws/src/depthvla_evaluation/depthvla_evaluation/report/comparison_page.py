"""A comparison of policies as one HTML page, and as text for a terminal. Both are made of its summary alone."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path
from urllib.parse import quote

from depthvla_evaluation.report.comparison_figure import AVERAGE, UNNAMED
from depthvla_evaluation.report.page_parts import document, image, notes, percent, section, table, tiles, with_unit


def render(summary: dict, figure: Path | None) -> str:
    """The page as text. summary: what `comparison_summary.summarise_comparison` gives; figure: the bar chart."""
    title = "Policies compared"
    parts = [
        _header(title, summary),
        tiles(_tiles(summary)),
        notes(summary["findings"]),
        section(
            "Progress",
            "Progress: share of a task's points, one for each substep, with the 95 % bootstrap interval of its mean."
            " Success: rate with its Wilson interval. Average: every task weighs the same; intervals by bootstrap.",
            table(HEADS, _without_repeats(_rows(summary), 2), numbers=5),
        ),
        section(
            "Progress by task",
            "Mean and 95 % interval. Average: every task weighs the same."
            + (" Hatched: the averages that the paper's text states." if summary["published"] else ""),
            image(figure, "Progress by task") if figure else "",
        ),
        section(
            "Differences",
            "In points of a hundred. Scene by scene where two policies have at least two scenes in common.",
            table(DIFFERENCE_HEADS, _without_repeats(_difference_rows(summary), 2), numbers=1),
        ),
        section(
            "Substeps",
            "Share of the episodes with marks, or with substeps dated by the simulator, in which a substep was done.",
            _substeps(summary),
        ),
        section(
            "Timing",
            "Over all episodes of a policy. Latency: from the stamp of an observation to its chunk's arrival at the"
            " executor; in simulated time where the episode ran in it. Jitter: how late a control tick came. Inference:"
            " pictures prepared and network run, mean over the episodes.",
            table(TIMING_HEADS, _timing_rows(summary), numbers=6),
        ),
        section("Episodes", "", table(EPISODE_HEADS, _episode_rows(summary), numbers=3)),
    ]
    return document(title, parts)


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


HEADS = ("setting", "task", "policy", "episodes", "progress", "success", "interventions", "time to success")
DIFFERENCE_HEADS = ("setting", "task", "difference", "basis", "progress")
TIMING_HEADS = ("policy", "episodes", "inference", "latency p50", "p95", "jitter p50", "p95")
EPISODE_HEADS = ("episode", "task", "setting", "scene", "policy", "outcome", "points", "progress", "interventions")


def _header(title: str, summary: dict) -> str:
    days = sorted(time[:10] for episode in summary["episodes"] if (time := episode["started"] or episode["made"]))
    parts = [", ".join(_distinct(summary, "policy")), " to ".join(dict.fromkeys((*days[:1], *days[-1:])))]
    return f"<header><h1>{escape(title)}</h1><p>{escape(' · '.join(filter(None, parts)))}</p></header>"


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


def _rows(summary: dict) -> list[list[str]]:
    return [
        [*(escape(row[key]) for key in ("setting", "task", "policy")), f"{row['n']}"]
        + [_estimate(percent(e["value"]), _interval(e["interval"])) for e in (row["progress"], row["success"])]
        + [f"{row['interventions']}", with_unit(row["success_time_s"], ".1f", "s")]
        for row in _headline(summary)
    ]


def _difference_rows(summary: dict) -> list[list[str]]:
    return [
        [escape(row["setting"] or UNNAMED["setting"]), escape(row["task"] or UNNAMED["task"])]
        + [escape(f"{row['policy']} − {row['other']}"), _basis(row)]
        + [_estimate(_points(row["progress"]["value"]), _points_interval(row["progress"]["interval"]))]
        for row in summary["differences"]
    ]


def _estimate(value: str, interval: str) -> str:
    return f"<b>{value}</b> <small>{interval}</small>"


def _without_repeats(rows: Sequence[list[str]], columns: int) -> list[list[str]]:
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


def _substeps(summary: dict) -> str:
    """A row a substep, a column a policy."""
    policies = list(dict.fromkeys(group["policy"] for group in summary["groups"] if group["all"]["marked"]))
    rates: dict[tuple[str, str, str], dict[str, str]] = {}
    for group in summary["groups"]:
        for substep, rate in group["all"]["substeps"].items():
            cell = f"{rate:.0%} <small>of {group['all']['marked']}</small>"
            rates.setdefault((group["task"], group["setting"], substep), {})[group["policy"]] = cell
    rows = [
        [escape(setting or UNNAMED["setting"]), escape(task), escape(substep.replace("_", " "))]
        + [cells.get(policy, "-") for policy in policies]
        for (task, setting, substep), cells in rates.items()
    ]
    heads = ("setting", "task", "substep", *(escape(policy or UNNAMED["policy"]) for policy in policies))
    return table(heads, _without_repeats(rows, 2), numbers=len(policies))


def _timing_rows(summary: dict) -> list[list[str]]:
    return [
        [escape(policy or UNNAMED["policy"]), f"{row['episodes']}", with_unit(row["inference_ms"], ".1f", "ms")]
        + [
            with_unit(row[key].get(quantile), ".1f", "ms")
            for key in ("chunk_latency_ms", "executor_jitter_ms")
            for quantile in ("p50", "p95")
        ]
        for policy, row in summary["timing"].items()
    ]


def _episode_rows(summary: dict) -> list[list[str]]:
    rows = []
    for episode in summary["episodes"]:
        outcome = {True: "success", False: "no success", None: "-"}[episode["success"]]
        kind = {True: "good", False: "bad", None: "none"}[episode["success"]]
        why = episode["not_counted"]
        if why:
            outcome, kind = episode["outcome"] or "not scored", "none"
        points = "-" if episode["points"] is None else f"{episode['points']} of {episode['total']}"
        rows.append(
            [_linked(episode)]
            + [escape(episode[key]) or "-" for key in ("task", "setting", "scene", "policy")]
            + [f'<span class="badge small {kind}">{escape(outcome)}</span> <small>{escape(why)}</small>']
            + [points, percent(episode["progress"]), f"{episode['interventions']}"]
        )
    return rows


def _linked(episode: dict) -> str:
    """The episode's name, leading to its page or else its video."""
    target, name = episode["page"] or episode["video"], escape(episode["name"])
    return f'<a href="{quote(target)}">{name}</a>' if target else name


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
