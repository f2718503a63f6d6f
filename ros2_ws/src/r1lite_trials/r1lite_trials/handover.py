"""Plays the operator: from the policy to a leader arm and back, and looks at every switch: `make handover`.

depthvla handover [--switches 10]. Each time in a new scene, in which the policy works, the leader takes over, and gives
back; ~/set_mode and the pedal ~/takeover alternate. Exit code 1 when a command left the limits or a switch was refused.
"""

from __future__ import annotations

import dataclasses
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from depthvla_control.arbiter import Mode
from depthvla_control.ros.messages import nanoseconds
from r1lite_trials import handover_figure
from r1lite_trials.simulated_graph import SimulatedGraph
from r1lite_trials.stream import Stream, largest, percentiles, steps
from r1lite_trials.trial import begin, finish, trial

# Of the stream around a switch, in which its steps are looked for.
BEFORE_NS, AFTER_NS = 100_000_000, 500_000_000


@dataclass(frozen=True)
class HandoverConfig:
    """How often, and how long each is in command."""

    switches: int = 10
    """to the leader, and as many back"""
    policy_s: float = 3.0
    leader_s: float = 4.0
    limb: str = "right"
    """the arm that is plotted"""
    model: str = "r1lite-small"
    """checkpoint: a folder, or the name of one in models/"""
    out: Path = Path("out/handover")
    """folder of the picture and the nodes' output; the figures go beside it, as .json"""


@dataclass(frozen=True)
class Switch:
    at_ns: int  # when its change of mode was told
    to: Mode
    by: str
    gap_rad: float | None  # what ~/set_mode answered; a pedal gets no answer
    asked_to_command_ms: float | None  # from the request to the first command of the new source
    refused: str = ""


@trial
def main(argv: Sequence[str] | None = None) -> int:
    config, about = begin("handover", HandoverConfig, argv, __doc__)
    with SimulatedGraph(config.out, model=config.model, leader=True, feedback=False) as graph:
        switches = perform(graph, config)
        first_ns = max(at for at in graph.stream_begins_ns if at < switches[0].at_ns)
        commands = graph.listener.commands().since(first_ns)
        modes = [(at, Mode(change.mode)) for at, change in graph.listener.modes]
        result = about | summary(graph, config, switches, commands)
    overview = config.out / "overview.png"
    handover_figure.draw(graph, config.limb, [(s.at_ns, s.to) for s in switches], commands, modes, overview)
    print(overview)
    return finish(config.out.with_suffix(".json"), result, text(result), result["problems"])


def perform(graph: SimulatedGraph, config: HandoverConfig) -> list[Switch]:
    switches = []
    for number in tqdm(range(2 * config.switches), unit="switch"):
        to = Mode.POLICY if number % 2 else Mode.TELEOP
        by_pedal = number // 2 % 2 == 1
        if to is Mode.TELEOP:
            graph.start_episode()
            time.sleep(config.policy_s)
        switches.append(_switch(graph, to, by_pedal))
        time.sleep(config.leader_s if to is Mode.TELEOP else config.policy_s)
    return switches


def _switch(graph: SimulatedGraph, to: Mode, by_pedal: bool) -> Switch:
    """Raises AssertionError when the executor does not answer."""
    asked_ns, gap, refused = time.time_ns(), None, ""
    by = "~/takeover" if by_pedal else "~/set_mode"
    if by_pedal:
        graph.press(to is Mode.TELEOP)
    else:
        answer = graph.ask(to)
        gap, refused = answer.gap_rad, "" if answer.success else answer.message
    at, change = asked_ns, None
    if not refused:
        at, change = graph.wait(
            # A pedal that is refused says so in the cause of the HOLD that it gets.
            lambda: graph.listener.first(
                graph.listener.modes, asked_ns, lambda c: c.mode == to or "instead" in c.cause
            ),
            to.name,
            5.0,
        )
        refused = "" if change.mode == to else change.cause
    if refused:
        return Switch(at, to, by, gap, None, refused)
    stamp = nanoseconds(change.header.stamp)
    first = graph.wait(lambda: graph.listener.command_times(stamp), "the first command", 1.0)[0]
    return Switch(at, to, by, gap, (first - asked_ns) * 1e-6)


def summary(graph: SimulatedGraph, config: HandoverConfig, switches: Sequence[Switch], commands: Stream) -> dict:
    """What is written as JSON: each switch with the largest steps around it."""
    rows = []
    for switch in switches:
        around = commands.between(switch.at_ns - BEFORE_NS, switch.at_ns + AFTER_NS)
        rows.append(
            {
                **dataclasses.asdict(switch),
                "to": switch.to.name,
                "at_s": round((switch.at_ns - commands.times_ns[0]) * 1e-9, 3),
                "steps": dataclasses.asdict(steps(around.positions, graph.robot)),
                "problems": [switch.refused] * bool(switch.refused) + steps(around.positions, graph.robot).excess,
            }
        )
    whole = largest([steps(stretch.positions, graph.robot) for stretch in commands.split(graph.stream_begins_ns)])
    asked = [Mode.TELEOP, Mode.POLICY]
    held = [(at, c) for at, c in graph.listener.modes if c.mode not in asked and c.previous in asked]
    gaps = [row["gap_rad"] for row in rows if row["gap_rad"] is not None]
    return {
        "missed_ticks": graph.status.missed_ticks,
        "held": [
            {"at_s": round((at - commands.times_ns[0]) * 1e-9, 3), "cause": change.cause}
            for at, change in held
            if change.mode != Mode.DISARMED
        ],
        "interventions": graph.status.interventions,
        "asked_to_command_ms": percentiles([row["asked_to_command_ms"] for row in rows if not row["refused"]], 50),
        "gap_rad": percentiles(gaps, 50),
        "largest_steps": dataclasses.asdict(whole),
        "problems": whole.excess + [problem for row in rows for problem in row["problems"]],
        "switches": rows,
    }


def text(result: dict) -> str:
    lines = [
        f"{'to':8} {'by':11} {'gap rad':>8} {'to command ms':>14} {'step rad':>9} {'velocity':>9} {'acceleration':>13}"
    ]
    for row in result["switches"]:
        gap = "-" if row["gap_rad"] is None else f"{row['gap_rad']:.3f}"
        asked = "refused" if row["refused"] else f"{row['asked_to_command_ms']:.0f}"
        moved = row["steps"]
        lines.append(
            f"{row['to']:8} {row['by']:11} {gap:>8} {asked:>14} {moved['position_rad']:9.3f}"
            f" {moved['velocity']:9.0%} {moved['acceleration']:13.0%}"
        )
    moved, asked = result["largest_steps"], result["asked_to_command_ms"]
    lines.append(
        f"whole stream: largest step {moved['position_rad']:.3f} rad, velocity {moved['velocity']:.0%} and acceleration"
        f" {moved['acceleration']:.0%} of the limits; request to command p50 {asked['p50']:.0f}, max {asked['max']:.0f}"
        f" ms; ticks missed: {result['missed_ticks']}"
    )
    lines += [f"held at {hold['at_s']:.1f} s: {hold['cause']}" for hold in result["held"]]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
