"""One run of one fault on a running graph: put the policy in command, break something, measure, mend, recover."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass, field
from random import Random

import numpy as np
from depthvla_msgs.msg import ExecutorStatus

from depthvla_control.arbiter import Mode
from r1lite_trials.fault_table import Fault, Stops
from r1lite_trials.simulated_graph import SimulatedGraph
from r1lite_trials.stream import Steps, Stream, largest, steps, still_since

HELD = (Mode.HOLD, Mode.FAULT)
SEE_LIMIT_S = 5.0  # until a fault is noticed and the arms stand
STANDING_S = 0.4  # a stand is one when it has lasted this long
UNDISTURBED_S = 1.5
STAYS_S = 0.6  # how long it is watched that a held robot stays so once the fault is mended
BEFORE_NS = 500_000_000  # of the stream before the fault, in which steps are looked for
LEADER_RAD_S = 0.03  # the scripted leader is slower than the policy
ARM_STILL_RAD = 0.002
GAP_NS = 300_000_000  # the stream had ended
TOLD_NS = 100_000_000  # without newer feedback, nobody knows whether the arms stand
START_RAD = 0.02
OTHERWISE_S = 0.5  # arms that are held for so long without the fault being named are held for another reason


@dataclass
class Outcome:
    """Times are from the fault on, as seen from outside; None where there is nothing to see."""

    fault: str
    detected_ms: float | None = None  # first status that names the fault
    held_ms: float | None = None  # first command of the stand in HOLD or FAULT; for a fault of the executor, arms stand
    arms_ms: float | None = None  # the measured arms stand
    resumed_ms: float | None = None  # from the last request, or from the mending, to the policy in command
    reason: str = ""  # what names the fault
    misnamed: bool = False  # the arms were held for another reason
    cause: str = ""  # of the mode in which the arms were held
    steps: Steps | None = None
    missed_ticks: int = 0
    problems: list[str] = field(default_factory=list)


def run(graph: SimulatedGraph, fault: Fault, random: Random) -> Outcome:
    """Never raises for what the nodes do: that is among the outcome's problems."""
    outcome = Outcome(fault.name)
    begin_ns = time.time_ns()
    try:
        graph.revive()
        graph.relay_executor(fault.relayed)
        _put_in_command(graph, fault.mode, random)
        before = graph.status
        begin_ns = time.time_ns()
        graph.listener.forget(begin_ns - BEFORE_NS)
        begun_ns = time.time_ns()
        with fault.inject(graph, random) as later_ns:
            begun_ns = later_ns or begun_ns
            _watch(graph, fault, begun_ns, before.chunks_refused, outcome)
            time.sleep(max(fault.lasts_s - (time.time_ns() - begun_ns) * 1e-9, 0.0))
            _judge_stop(graph, fault, begun_ns, outcome)
        _recover(graph, fault, outcome)
        outcome.missed_ticks = max(graph.status.missed_ticks - before.missed_ticks, 0)
    except AssertionError as error:
        outcome.problems.append(str(error))
    _judge_steps(graph, begin_ns - BEFORE_NS, outcome)
    return outcome


def _put_in_command(graph: SimulatedGraph, mode: Mode, random: Random) -> None:
    """Returns with arms that move, somewhere in a tick and in a chunk."""

    def moving() -> bool:
        graph.let_policy_move()
        graph.ask(Mode.POLICY)  # as a person does: a simulation that nobody has asked goes on by itself
        if mode is Mode.TELEOP:
            graph.wait(lambda: graph.ask(Mode.TELEOP).success, "teleoperation")
            graph.wait_for_mode(Mode.TELEOP)
        time.sleep(random.uniform(0.1, 0.5))
        return graph.moving(LEADER_RAD_S) if mode is Mode.TELEOP else graph.moving()

    graph.wait(moving, "arms that move", 60.0)


def _watch(graph: SimulatedGraph, fault: Fault, begun_ns: int, refused: int, outcome: Outcome) -> None:
    """Waits until the fault shows and what has to stand, stands."""
    listener = graph.listener
    if fault.stops is Stops.ARMS:
        graph.wait(
            lambda: _is_still(listener.measured().since(begun_ns), ARM_STILL_RAD), "arms that stand", SEE_LIMIT_S
        )
        return

    def noticed() -> tuple[int, ExecutorStatus] | None:
        named = listener.first(listener.status, begun_ns, lambda status: _named(fault, status, refused))
        held = _first_hold(graph, begun_ns)
        otherwise = held and fault.stops is not Stops.NOTHING and time.time_ns() - held[0] > OTHERWISE_S * 1e9
        return named or (held if otherwise else None)

    at, status = graph.wait(noticed, f"a status that says {fault.sign!r}", SEE_LIMIT_S)
    outcome.detected_ms = (at - begun_ns) * 1e-6
    outcome.reason = _named(fault, status, refused) or status.cause
    outcome.misnamed = not _named(fault, status, refused)
    if outcome.misnamed and not fault.drags:
        outcome.problems.append(f"held for another reason: {status.cause}")
    if fault.stops is Stops.NOTHING:
        time.sleep(UNDISTURBED_S)
    elif fault.stops is Stops.BRIEF:
        graph.wait(lambda: _first_hold(graph, begun_ns), "HOLD", SEE_LIMIT_S)
    else:
        graph.wait(
            lambda: (
                _held_since(graph, begun_ns) and _is_still(listener.commands().since(begun_ns), until_ns=time.time_ns())
            ),
            "HOLD",
            SEE_LIMIT_S,
        )


def _judge_stop(graph: SimulatedGraph, fault: Fault, begun_ns: int, outcome: Outcome) -> None:
    """As long as the fault lasted, the stand did too."""
    listener = graph.listener
    measured = listener.measured().since(begun_ns)
    arms_ns = still_since(measured, ARM_STILL_RAD)
    told = arms_ns is not None and time.time_ns() - measured.times_ns[-1] < TOLD_NS
    outcome.arms_ms = (arms_ns - begun_ns) * 1e-6 if told and fault.stops is not Stops.NOTHING else None
    if fault.stops is Stops.ARMS:
        outcome.held_ms = outcome.arms_ms
        return
    if fault.stops is Stops.NOTHING:
        left = listener.first(listener.status, begun_ns, lambda status: status.mode != Mode.POLICY)
        if left:
            outcome.problems.append(f"the policy lost command: {left[1].cause}")
        return
    if fault.stops is Stops.BRIEF:
        at, status = _first_hold(graph, begun_ns)
        outcome.held_ms, outcome.cause = (at - begun_ns) * 1e-6, status.cause
        return
    stand_ns, mode_ns = still_since(listener.commands().since(begun_ns)), _held_since(graph, begun_ns)
    if stand_ns is None or mode_ns is None:
        outcome.problems.append("the commands do not stand")
        return
    outcome.held_ms = (max(stand_ns, mode_ns) - begun_ns) * 1e-6
    outcome.cause = graph.status.cause


def _recover(graph: SimulatedGraph, fault: Fault, outcome: Outcome) -> None:
    """Puts the policy back in command, in the way that is documented."""
    if fault.leave:
        time.sleep(STAYS_S)
        if graph.mode not in HELD:
            outcome.problems.append(f"{graph.mode.name} without having been asked: {graph.status.cause}")
        if graph.mode is Mode.FAULT and graph.ask(Mode.POLICY).success:
            outcome.problems.append("a latched fault let the policy take command")
    begin_ns = time.time_ns()
    for request in fault.leave:
        begin_ns = time.time_ns()
        if request == "set_mode":
            graph.wait(lambda: graph.ask(Mode.POLICY).success, "set_mode POLICY", 60.0)
        elif request == "arm_and_set_mode":
            graph.wait(
                lambda: graph.trigger("arm").success and graph.ask(Mode.POLICY).success,
                "the robot to be armed on",
                60.0,
            )
        elif request == "take_over":
            graph.wait(lambda: graph.ask(Mode.TELEOP).success, "set_mode TELEOP")
            graph.wait_for_mode(Mode.TELEOP)
        else:
            graph.wait(lambda request=request: graph.trigger(request).success, request, 60.0)

    def in_command():
        return graph.listener.first(graph.listener.status, begin_ns, lambda status: status.mode == Mode.POLICY)

    outcome.resumed_ms = (graph.wait(in_command, "the policy back in command", 60.0)[0] - begin_ns) * 1e-6
    time.sleep(STANDING_S)  # the first steps after it belong to the trial


def _judge_steps(graph: SimulatedGraph, begin_ns: int, outcome: Outcome) -> None:
    """Of each stretch of the stream: between being armed and being disarmed, or lost and found."""
    commands, measured = graph.listener.commands().since(begin_ns), graph.listener.measured()
    after_gaps = commands.times_ns[1:][np.diff(commands.times_ns) > GAP_NS]
    stretches = commands.split(sorted([*(at for at in graph.stream_begins_ns if at > begin_ns), *after_gaps]))
    stretch_steps = [steps(stretch.positions, graph.robot) for stretch in stretches if len(stretch.positions)]
    if not stretch_steps:
        outcome.problems.append("no commands were heard")
        return
    outcome.steps = largest(stretch_steps)
    outcome.problems += outcome.steps.excess
    # The first command may already be a period's way from where the arms were measured.
    most = START_RAD + graph.robot.period_s * float(graph.robot.command_velocity[~graph.robot.gripper_mask].max())
    for stretch in stretches[1:]:
        gap = _start_gap(stretch, measured, graph)
        if gap > most:
            outcome.problems.append(f"the stream started {gap:.3f} rad from the measured pose")


def _start_gap(stretch: Stream, measured: Stream, graph: SimulatedGraph) -> float:
    """From the first command to the arms; 0 where nobody heard them at that time."""
    if not len(stretch.positions) or not len(measured.positions):
        return 0.0
    passed_ns = np.abs(measured.times_ns - stretch.times_ns[0])
    nearest = int(passed_ns.argmin())
    if passed_ns[nearest] > TOLD_NS:
        return 0.0
    return float(np.abs(stretch.positions[0] - measured.positions[nearest])[~graph.robot.gripper_mask].max())


def _named(fault: Fault, status: ExecutorStatus, refused: int) -> str:
    """The text that names the fault, if there is one; a refusal only when it is new."""
    texts = [status.cause, *([status.last_refusal] if status.chunks_refused > refused else [])]
    return next((text for text in texts if re.search(fault.sign, text)), "")


def _first_hold(graph: SimulatedGraph, begun_ns: int) -> tuple[int, ExecutorStatus] | None:
    return graph.listener.first(graph.listener.status, begun_ns, lambda status: status.mode in HELD)


def _held_since(graph: SimulatedGraph, begun_ns: int) -> int | None:
    """When the mode that lasts until now began, if it is one that holds."""
    since = None
    for at, status in reversed(graph.listener.status):
        if at < begun_ns or status.mode not in HELD:
            break
        since = at
    return since


def _is_still(stream: Stream, still: float = 1e-9, until_ns: int = 0) -> bool:
    """`until_ns`: a stream that has ended stands until then; 0 where a silent stream says nothing."""
    since = still_since(stream, still)
    return since is not None and max(stream.times_ns[-1], until_ns) - since > STANDING_S * 1e9
