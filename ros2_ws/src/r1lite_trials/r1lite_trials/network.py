"""Robot and policy host on a bad network: delay, jitter, loss and cuts between two real DDS machines. Linux, as root.

depthvla network [--executor-side robot] [--only "50 ms" ...]. Two network namespaces stand for
the machines, a cable in user space (`link`) for the network; nodes, middleware and its profile are the real ones. Exit
code 1 when the command stream jumps or the policy does not come back after a cut.
"""

from __future__ import annotations

import contextlib
import dataclasses
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
from r1lite_trials import network_table
from r1lite_trials.network_emulation import Conditions
from r1lite_trials.network_figures import figures
from r1lite_trials.network_namespaces import SIDES, SplitNetwork, unavailable
from r1lite_trials.simulated_graph import POLICY
from r1lite_trials.split_graph import SplitGraph
from r1lite_trials.stream import TOLERANCE
from r1lite_trials.trial import begin, finish, trial


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
    markdown: bool = False
    """print the tables as rows of a document"""
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
    found = [f"executor on the {row['side']}, {row['case']}: {problem}" for row in rows for problem in problems(row)]
    layout = network_table.markdown if config.markdown else network_table.text
    return finish(config.out, result, layout(result), found)


def select(texts: Sequence[str]) -> list[Case]:
    return [case for case in CASES if not texts or case.name.startswith(tuple(texts))]


def run(network: SplitNetwork, side: str, cases: Sequence[Case], config: NetworkConfig) -> Iterator[dict]:
    """A row of figures for each case, with the executor on that side."""
    graph = SplitGraph(config.out.with_suffix("") / side, network, executor_side=side, model=config.model)
    if config.max_age_s:
        allow_ages(graph, config.max_age_s)
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


def allow_ages(graph: SplitGraph, max_age_s: float) -> None:
    """Of a graph that is not running yet."""
    node = graph.nodes[POLICY]
    ages = dict.fromkeys(("camera_max_age_s", "joint_max_age_s"), max_age_s)
    graph.nodes[POLICY] = dataclasses.replace(node, parameters={**node.parameters, **ages})


def problems(row: dict) -> list[str]:
    """Jumps of what the executor commands, and a policy that stays away, in words."""
    found = [
        f"{name} at {row[f'{name}_share']:.0%} of its limit"
        for name in ("velocity", "acceleration")
        if row[f"{name}_share"] > 1.0 + TOLERANCE
    ]
    if any(cut["followed_ms"] is None for cut in row.get("cuts", ())):
        found.append("no chunk was followed after the cut")
    return found


def merged(path: Path, rows: Sequence[dict]) -> dict:
    """Rows take the place of those of the same side and case in the file, or are added to it; in the order of CASES."""
    kept = json.loads(path.read_text())["rows"] if path.exists() else []
    by_case = {(row["side"], row["case"]): row for row in (*kept, *rows)}
    return {"machine": machine(), "rows": sorted(by_case.values(), key=_order)}


def _order(row: dict) -> tuple[int, bool, int]:
    names = [case.name for case in CASES]
    plain = row["case"] in names
    return SIDES.index(row["side"]), not plain, names.index(row["case"]) if plain else 0


if __name__ == "__main__":
    sys.exit(main())
