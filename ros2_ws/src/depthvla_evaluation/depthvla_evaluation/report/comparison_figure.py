"""Progress of policies as grouped bars, a panel a setting: the layout of the paper's Fig. 4."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from depthvla_evaluation.report.comparison import Average, Estimate, Group
from depthvla_evaluation.report.figures import GREY, INK, STYLE, WIDTH_IN
from r1lite_description import files

AVERAGE = "Average"
PAPER = Path(__file__).with_name("paper") / "figure_4.yaml"
POLICY_COLOURS = ("#2563c9", "#e07b1a", "#2e9e5b", "#8f6fd1", "#c2417c", "#5f6b78")
PUBLISHED = " (paper)"  # after the name of a policy whose figures are published ones
BARS_WIDTH = 0.8  # of a task's place, shared by its bars
UNNAMED = {"task": "no task named", "setting": "no setting named", "policy": "no policy named"}

# setting -> task, or AVERAGE -> policy -> progress
Bars = dict[str, dict[str, dict[str, Estimate]]]


def measured_bars(groups: Sequence[Group], averages: Sequence[Average]) -> Bars:
    """Our own figures. The average stays out of a setting with a single task."""
    bars: Bars = {}
    for group in groups:
        bars.setdefault(group.setting, {}).setdefault(group.task, {})[group.policy] = group.all.progress
    for average in averages:
        if len(bars[average.setting]) > 1 or AVERAGE in bars[average.setting]:
            bars[average.setting].setdefault(AVERAGE, {})[average.policy] = average.progress
    return bars


def published_bars(path: str | Path = PAPER) -> Bars:
    """Read published figures: setting -> task or Average -> policy -> progress, 0 to 1.

    Raises:
        ValueError: a figure is not a share.
    """
    bars: Bars = {}
    published = files.read_yaml(Path(path), "published figures")
    try:
        figures = [
            (setting, task, policy, value)
            for setting, tasks in published.items()
            for task, policies in tasks.items()
            for policy, value in policies.items()
        ]
    except AttributeError as error:
        raise ValueError(f"{path} holds something else than setting: task: policy: share") from error
    for setting, task, policy, value in figures:
        if not isinstance(value, int | float) or not 0 <= value <= 1:
            raise ValueError(f"{path}: {setting}, {task}, {policy} is {value!r}; it must be within 0 and 1")
        bars.setdefault(setting, {}).setdefault(task, {})[policy + PUBLISHED] = Estimate(value, None)
    return bars


def merged_bars(ours: Bars, published: Bars) -> Bars:
    """Published figures beside ours, in the setting of the same name; Average comes last."""
    bars: Bars = {}
    for setting in [*ours, *(setting for setting in published if setting not in ours)]:
        mine, theirs = ours.get(setting, {}), published.get(setting, {})
        tasks = [task for task in dict.fromkeys([*mine, *theirs]) if task != AVERAGE]
        if AVERAGE in mine or AVERAGE in theirs:
            tasks.append(AVERAGE)
        bars[setting] = {task: mine.get(task, {}) | theirs.get(task, {}) for task in tasks}
    return bars


def comparison_figure(bars: Bars) -> Figure:
    """Bars with their 95 % intervals and values; published figures, which state no interval, are hatched."""
    policies = list(dict.fromkeys(policy for tasks in bars.values() for task in tasks.values() for policy in task))
    width = BARS_WIDTH / max(len(task) for tasks in bars.values() for task in tasks.values())
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(
            1,
            len(bars),
            figsize=(WIDTH_IN, 4.1),
            sharey=True,
            squeeze=False,
            layout="constrained",
            width_ratios=[len(tasks) for tasks in bars.values()],
        )
        looks = _looks(policies)
        for axis, (setting, tasks) in zip(axes[0], bars.items(), strict=True):
            _panel(axis, setting, tasks, looks, width)
        axes[0, 0].set_ylabel("progress")
        handles = [plt.Rectangle((0, 0), 1, 1, **looks[policy]) for policy in policies]
        labels = [policy or UNNAMED["policy"] for policy in policies]
        figure.legend(handles, labels, loc="outside upper center", ncols=min(len(policies), 4))
    return figure


def _panel(axis, setting: str, tasks: dict[str, dict[str, Estimate]], looks: dict[str, dict], width: float) -> None:
    for place, estimates in enumerate(tasks.values()):
        for index, (policy, estimate) in enumerate(
            sorted(estimates.items(), key=lambda item: list(looks).index(item[0]))
        ):
            x = place + (index - (len(estimates) - 1) / 2) * width
            axis.bar(x, estimate.value, 0.92 * width, **looks[policy])
            top = estimate.value
            if estimate.interval:
                low, high = estimate.interval
                axis.errorbar(
                    x,
                    estimate.value,
                    [[max(0.0, estimate.value - low)], [max(0.0, high - estimate.value)]],
                    color=INK,
                    capsize=2.5,
                    linewidth=1.0,
                )
                top = max(top, high)
            label = f"{estimate.value:.0%}"
            axis.annotate(
                label, (x, top), (0, 3), textcoords="offset points", ha="center", fontsize=8 if width > 0.25 else 7
            )
    axis.set_xticks(range(len(tasks)), [(task or UNNAMED["task"]).replace("_", "\n") for task in tasks])
    if AVERAGE in tasks and len(tasks) > 1:
        axis.axvline(len(tasks) - 1.5, color=GREY, linewidth=0.8, linestyle=":")
    axis.set(xlim=(-0.55, len(tasks) - 0.45), ylim=(0, 1.1), title=setting or UNNAMED["setting"])
    axis.set_yticks([0.0, 0.2, 0.4, 0.6, 0.8, 1.0])
    axis.yaxis.set_major_formatter(PercentFormatter(1.0))
    axis.grid(axis="x", visible=False)
    axis.tick_params(axis="x", length=0)


def _looks(policies: Sequence[str]) -> dict[str, dict]:
    """How a policy's bars are drawn. Published figures take the colour of the policy of the same name."""
    names = list(dict.fromkeys(policy.removesuffix(PUBLISHED) for policy in policies))
    looks = {}
    for policy in policies:
        colour = POLICY_COLOURS[names.index(policy.removesuffix(PUBLISHED)) % len(POLICY_COLOURS)]
        light = {"facecolor": "white", "edgecolor": colour, "hatch": "////", "linewidth": 1.0}
        looks[policy] = light if policy.endswith(PUBLISHED) else {"facecolor": colour, "edgecolor": "none"}
    return looks
