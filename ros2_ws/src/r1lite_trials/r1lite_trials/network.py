"""Robot and policy host on a bad network: delay, jitter, loss and cuts between two real DDS machines. Linux, as root.

depthvla network [--executor-side robot] [--only "50 ms" ...]. Two network namespaces stand for the machines, netem or
a cable in user space (`network_emulation`) for the network; nodes, middleware and its profile are the real ones. Exit
code 1 when the command stream jumps or the policy does not come back after a cut.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tqdm import tqdm

from depthvla_policy.bench.machine import machine
from r1lite_trials.network_emulation import Conditions
from r1lite_trials.network_figures import figures
from r1lite_trials.network_namespaces import SIDES, SplitNetwork, unavailable
from r1lite_trials.simulated_graph import POLICY
from r1lite_trials.split_graph import SplitGraph
from r1lite_trials.stream import TOLERANCE
from r1lite_trials.trial import begin, finish, markdown_table, trial


@dataclass(frozen=True)
class Case:
    """Delays are one way, losses of each direction."""

    name: str
    conditions: Conditions
    cut_s: float = 0.0


CASES = (
    *(
        Case(f"{delay} ms, {loss} % lost", Conditions(delay * 1e-3, 0.0, loss * 1e-2))
        for delay in (0, 50, 200)
        for loss in (0, 1, 5)
    ),
    Case("50 ms ± 30 ms", Conditions(0.05, 0.03)),
    Case("0 ms, cut for 2 s", Conditions(), 2.0),
    Case("50 ms, cut for 2 s", Conditions(0.05), 2.0),
)


CASE_COLUMNS = (
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
CUT_COLUMNS = (
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


@dataclass(frozen=True)
class NetworkConfig:
    """What to try, and how long."""

    executor_side: Literal["robot", "host", "both"] = "both"
    """where the chunk executor runs"""
    only: tuple[str, ...] = ()
    """cases whose names begin with one of these texts; all when empty"""
    runs: int = 2
    """scenes of each case"""
    seconds: float = 8.0
    """of each scene, from when the arms move"""
    max_age_s: float = 0.0
    """of images and joints, beyond which the policy makes no chunk; 0: as in its parameter file"""
    model: str = "r1lite-small"
    """checkpoint: a folder, or the name of one in models/"""
    seed: int = 0
    """of what the link does"""
    out: Path = Path("out/network.json")
    """where the figures go, beside those of other cases; the nodes' output is in the folder of this name"""


@trial
def main(argv: Sequence[str] | None = None) -> int:
    config, about = begin("network", NetworkConfig, argv, __doc__)
    cases = select(config.only)
    if not cases:
        print(f"no case is called {' or '.join(config.only)}; there are:", *(c.name for c in CASES), sep="\n  ")
        return 2
    if reason := unavailable():
        print(f"error: {reason}", file=sys.stderr)
        return 2
    sides = SIDES if config.executor_side == "both" else (config.executor_side,)
    rows: list[dict] = []
    with contextlib.suppress(KeyboardInterrupt), SplitNetwork(config.seed) as network:
        for side in sides:
            rows.extend(run(network, side, cases, config))
    if not rows:
        return 1
    result = merged(config.out, [{**row, "command": about["command"]} for row in rows])
    jumps = [f"executor on the {row['side']}, {row['case']}: {problem}" for row in rows for problem in problems(row)]
    return finish(config.out, result, markdown(result), jumps)


def select(texts: Sequence[str]) -> list[Case]:
    return [case for case in CASES if not texts or case.name.startswith(tuple(texts))]


def run(network: SplitNetwork, side: str, cases: Sequence[Case], config: NetworkConfig) -> Iterator[dict]:
    """A row of figures for each case, with the executor on that side."""
    graph = SplitGraph(config.out.with_suffix("") / side, network, executor_side=side, model=config.model)
    if config.max_age_s:
        graph.set_parameters(POLICY, camera_max_age_s=config.max_age_s, joint_max_age_s=config.max_age_s)
    with graph:
        for case in tqdm(cases, desc=f"executor on the {side}", unit="case", mininterval=1.0):
            windows = [graph.watch(case.conditions, config.seconds, case.cut_s) for _ in range(config.runs)]
            about = {
                "side": side,
                "case": case.name + (f", ages up to {config.max_age_s:g} s" if config.max_age_s else ""),
                "date": datetime.date.today().isoformat(),
                "load_average": round(os.getloadavg()[0], 2),
            }
            yield about | figures(windows, graph.robot)


def problems(row: dict) -> list[str]:
    """Jumps of what the executor commands, and a policy that stays away, in words."""
    texts = [
        f"{name} at {row[f'{name}_share']:.0%} of its limit"
        for name in ("velocity", "acceleration")
        if row[f"{name}_share"] > 1.0 + TOLERANCE
    ]
    if any(cut["followed_ms"] is None for cut in row.get("cuts", ())):
        texts.append("no chunk was followed after the cut")
    return texts


def merged(path: Path, rows: Sequence[dict]) -> dict:
    """Rows take the place of those of the same side and case in the file, or are added to it; in the order of CASES."""
    kept = json.loads(path.read_text())["rows"] if path.exists() else []
    by_case = {(row["side"], row["case"]): row for row in (*kept, *rows)}
    return {"machine": machine(), "rows": sorted(by_case.values(), key=_order)}


def _order(row: dict) -> tuple[int, bool, int]:
    names = [case.name for case in CASES]
    plain = row["case"] in names
    return SIDES.index(row["side"]), not plain, names.index(row["case"]) if plain else 0


def markdown(result: dict) -> str:
    rows = result["rows"]
    lines = ["; ".join(_about(result)) + ".", "", markdown_table(CASE_COLUMNS, map(_case, rows))]
    if cut := [row for row in rows if row.get("cuts")]:
        lines += ["", markdown_table(CUT_COLUMNS, map(_cut, cut))]
    return "\n".join(lines)


def _about(result: dict) -> list[str]:
    rows = result["rows"]
    link = [report for row in rows for report in row["link"]]
    carried, overflowed, seconds = (
        sum(report[name] for report in link) for name in ("carried", "overflowed", "seconds")
    )
    late = [report["late_ms"]["p99"] for report in link if report["late_ms"]]
    lateness = f" and was {max(late):.2f} ms late at most (p99 of a run)" if late else ""
    return [
        result["machine"],
        ", ".join(sorted({row["date"] for row in rows})),
        f"load average {min(r['load_average'] for r in rows):.1f} to {max(r['load_average'] for r in rows):.1f}",
        f"the link carried {carried / seconds:.0f} frames/s, dropped {overflowed} of its own{lateness}",
    ]


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


if __name__ == "__main__":
    sys.exit(main())
