"""What a session says on a terminal: text out of a plan, results and a score."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from depthvla_control.operator_input import KEYS, Action
from depthvla_evaluation.metrics import bootstrap_interval
from depthvla_evaluation.session.folder import ASIDE, UNFINISHED, Aside, Plan, Result
from depthvla_evaluation.session.scoring import REDO, Scoring
from r1lite_description.tasks import Task

BAR_WIDTH = 30
CONSOLE = {action: key for key, action in KEYS.items()}
TO_POLICY = CONSOLE[Action.GIVE_BACK]
# Keys of the operator's console that give the arms to the policy, by the executor's mode.
KEYS_TO_POLICY = {
    "DISARMED": f"{CONSOLE[Action.ARM]}, then {TO_POLICY}",
    "FAULT": f"{CONSOLE[Action.RESET_FAULT]}, then {TO_POLICY}",
}
STOP = "space: STOP THE ARMS"  # at the end of every line that lists keys


def bar(done: int, total: int) -> str:
    filled = round(BAR_WIDTH * min(done / total, 1.0))
    return f"[{'#' * filled}{'.' * (BAR_WIDTH - filled)}] {done}/{total}"


def progress(plan: Plan, results: Mapping[int, Result]) -> str:
    """The session so far, on one line."""
    text = f"{bar(len(results), plan.episodes)} done"
    if not results:
        return text
    mean = sum(len(result.substeps) for result in results.values()) / len(results)
    return f"{text}, mean score {mean:.2f} of {len(plan.task.substeps)}"


def before(plan: Plan, results: Mapping[int, Result], number: int | None) -> str:
    """Before an episode; `number` is None when all are done."""
    if number is None:
        return f"\nall episodes are done\n{progress(plan, results)}"
    lines = [f"\nepisode {number}/{plan.episodes}, scene {plan.scene_name(number)}", progress(plan, results)]
    if plan.simulator:
        lines.append("the scene is reset when you begin; armed arms are disarmed for that")
    else:
        lines += ["put back:", *(f"  - {item}" for item in plan.task.reset)]
    return "\n".join(lines)


def before_keys(number: int | None, previous: int | None) -> str:
    words = ["enter: " + ("show the result" if number is None else f"begin episode {number}")]
    words += [f"{REDO}: redo episode {previous}"] if previous else []
    return ", ".join([*words, "q: quit", STOP])


def during(task: Task, scoring: Scoring, arms: str) -> str:
    """What is rewritten while an episode is recorded. `arms`: the executor's mode; empty where it is not known."""
    over = "  OVER THE TIME LIMIT" if scoring.over_time else ""
    todo = "" if scoring.in_review or arms == "POLICY" else f"; {hand_over(arms)}"
    lines = [f"{scoring.elapsed_s:5.1f} s of {scoring.limit_s:g} s{over}   arms: {arms or '?'}{todo}"]
    for number, (substep, meaning) in enumerate(task.substeps.items(), start=1):
        lines.append(f"  {number} [{'x' if substep in scoring.marked else ' '}] {substep}: {meaning}")
    marks = f"1-{len(task.substeps)}: mark, u: undo"
    if scoring.in_review:
        score = f"score {scoring.score}/{len(task.substeps)}: {scoring.outcome}"
        lines.append(f"{score}. enter: keep, {marks}, x: abort, q: quit, {STOP}")
    else:
        lines.append(f"{marks}, c: done, x: abort, q: quit, {STOP}")
    return "\n".join(lines)


def hand_over(arms: str) -> str:
    return f"hand over with the operator's console ({KEYS_TO_POLICY.get(arms, TO_POLICY)})"


def result(number: int, plan: Plan, found: Result) -> str:
    return f"episode {number}: {found.outcome}, score {len(found.substeps)}/{len(plan.task.substeps)}"


def set_aside(aside: Aside) -> str:
    text = f"{aside.name} does not count ({aside.why}): it is kept as {ASIDE}/{aside.path.name}"
    if aside.why != UNFINISHED:
        return text
    return f"{text}; to look into it: depthvla recover {shlex.quote(str(aside.path))}"


def table(plan: Plan, results: Mapping[int, Result]) -> str:
    """Successes of each substep, mean progress with its 95 % bootstrap interval, successes. Needs one result."""
    scored, substeps = list(results.values()), list(plan.task.substeps)
    shares = np.array([len(found.substeps) / len(substeps) for found in scored])
    interval = bootstrap_interval(shares)
    rows = [(name, f"{sum(name in found.substeps for found in scored)}/{len(scored)}") for name in substeps]
    rows += [
        ("mean progress", f"{shares.mean():.1%}" + (" (95 %: {:.1%} to {:.1%})".format(*interval) if interval else "")),
        ("success", f"{sum(found.outcome == 'success' for found in scored)}/{len(scored)}"),
    ]
    width = max(len(name) for name, _ in rows)
    policies = " and ".join(sorted({found.policy or "unknown policy" for found in scored}))
    title = ", ".join(filter(None, (plan.task.name, policies, plan.setting)))
    return "\n".join([title, *(f"  {name:<{width}}  {value}" for name, value in rows)])


def report_command(folder: Path) -> str:
    path = shlex.quote(str(folder))
    return f"depthvla report {path}/episode_* --out {path}/report"
