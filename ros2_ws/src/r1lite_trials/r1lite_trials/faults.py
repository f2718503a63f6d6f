"""Breaks the running graph in every known way and measures what becomes of the arms: `make faults`.

depthvla faults [--runs 20] [--only NAME ...]; needs neither robot nor GPU. Exit code 1 when a run shows a problem:
commands outside the limits, a reason that does not name the fault, arms that do not stand, or a recovery that is not
the documented one.
"""

from __future__ import annotations

import contextlib
import dataclasses
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

from tqdm import tqdm

from r1lite_trials.fault_run import Outcome, run
from r1lite_trials.fault_table import FAULTS, Fault, Stops
from r1lite_trials.simulated_graph import SimulatedGraph
from r1lite_trials.stream import percentiles
from r1lite_trials.trial import begin, finish, markdown_table, trial

BEGIN, END = "<!-- faults: begin -->", "<!-- faults: end -->"
COLUMNS = (
    "fault",
    "how it is detected",
    "detected [ms]",
    "held [ms]",
    "runs",
    "what happens",
    "how to leave it",
)


@dataclass(frozen=True)
class FaultsConfig:
    """What to break, and how often."""

    runs: int = 20
    """of each fault"""
    slow_runs: int = 10
    """of the faults after which the policy or the simulator has to be started again; never more than `runs`"""
    only: tuple[str, ...] = ()
    """faults whose names contain one of these words; all when empty"""
    model: str = "r1lite-small"
    """checkpoint: a folder, or the name of one in models/"""
    seed: int = 0
    """of the moments, joints and cameras that are drawn"""
    out: Path = Path("out/faults.json")
    """where every run is written; the nodes' output is beside it"""
    document: Path = Path("docs/faults.md")
    """Markdown file whose table is replaced, unless a fault was left out"""


@trial
def main(argv: Sequence[str] | None = None) -> int:
    config, about = begin("faults", FaultsConfig, argv, __doc__)
    faults = select(config.only)
    if not faults:
        print(f"no fault is called {' or '.join(config.only)}; there are:", *(f.name for f in FAULTS), sep="\n  ")
        return 2
    outcomes = run_all(faults, config)
    result = about | {"faults": summary(outcomes)}
    table = markdown(result, [fault for fault in faults if fault.name in result["faults"]]) if outcomes else ""
    if len(result["faults"]) == len(FAULTS):
        replace(config.document, table)
    # Each problem was told when it was seen.
    return finish(config.out, result, table) or int(any(outcome.problems for outcome in outcomes))


def select(words: Sequence[str]) -> list[Fault]:
    """Faults whose names contain one of the words; those with relays last, so that the executor changes over once."""
    chosen = [fault for fault in FAULTS if not words or any(word in fault.name for word in words)]
    return sorted(chosen, key=lambda fault: fault.relayed)


def run_all(faults: Sequence[Fault], config: FaultsConfig) -> list[Outcome]:
    """On one graph as long as every run comes to its end; after one that does not, on a new graph.

    An interrupt ends the series; what was measured until then counts.
    """
    runs = {fault.name: min(config.runs, config.slow_runs) if fault.slow else config.runs for fault in faults}
    outcomes = []
    with (
        contextlib.suppress(KeyboardInterrupt),
        contextlib.ExitStack() as stack,
        tqdm(total=sum(runs.values()), unit="run", mininterval=1.0) as bar,
    ):
        graph = stack.enter_context(_graph(config))
        for fault in faults:
            random = Random(f"{config.seed} {fault.name}")
            for _ in range(runs[fault.name]):
                bar.set_description(fault.name[:40])
                outcome = run(graph, fault, random)
                outcomes.append(outcome)
                bar.update()
                for problem in outcome.problems:
                    bar.write(f"{fault.name}: {problem}")
                if outcome.resumed_ms is None:
                    stack.close()
                    graph = stack.enter_context(_graph(config))
    return outcomes


def _graph(config: FaultsConfig) -> SimulatedGraph:
    return SimulatedGraph(config.out.parent / "faults", model=config.model, leader=True, relays=True)


def summary(outcomes: Sequence[Outcome]) -> dict:
    """By fault the spread of the times, the largest steps and every run."""
    names = list(dict.fromkeys(outcome.fault for outcome in outcomes))
    return {name: _of_fault([o for o in outcomes if o.fault == name]) for name in names}


def _of_fault(outcomes: Sequence[Outcome]) -> dict:
    def spread(name: str) -> dict[str, float]:
        values = [getattr(outcome, name) for outcome in outcomes if getattr(outcome, name) is not None]
        return percentiles(values, 50, digits=1)

    moved = [outcome.steps for outcome in outcomes if outcome.steps]
    return {
        "n": len(outcomes),
        "misnamed": sum(outcome.misnamed for outcome in outcomes),
        "problems": sum(bool(outcome.problems) for outcome in outcomes),
        **{name: spread(name) for name in ("detected_ms", "held_ms", "arms_ms", "resumed_ms")},
        "largest_step_rad": round(max((step.position_rad for step in moved), default=0.0), 4),
        "largest_velocity_share": round(max((step.velocity for step in moved), default=0.0), 3),
        "largest_acceleration_share": round(max((step.acceleration for step in moved), default=0.0), 3),
        "missed_ticks": sum(outcome.missed_ticks for outcome in outcomes),
        "runs": [dataclasses.asdict(outcome) for outcome in outcomes],
    }


def markdown(result: dict, faults: Sequence[Fault]) -> str:
    """Times are p50 / max. faults: those that were run."""
    cells = []
    for fault in faults:
        row = result["faults"][fault.name]
        held = "goes on" if fault.stops is Stops.NOTHING else _spread(row["held_ms"])
        times = _spread(row["detected_ms"]), held, str(row["n"])
        cells.append((fault.name, fault.detection, *times, fault.happens, fault.how_to_leave))
    rows = result["faults"].values()
    misnamed = [f"{name}, {row['misnamed']} of {row['n']}" for name, row in result["faults"].items() if row["misnamed"]]
    lines = [
        f"`{result['command']}`, {result['date']}; {result['machine']}.",
        "",
        markdown_table(COLUMNS, cells),
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


if __name__ == "__main__":
    sys.exit(main())
