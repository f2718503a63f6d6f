"""Judges the graph: topics, their types and QoS, who writes the commands, who reads them, whose teleoperation runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from r1lite_bringup.preflight.observed import Endpoint, Graph, Sample
from r1lite_bringup.preflight.settings import EXECUTOR, RECORDER
from r1lite_bringup.preflight.verdict import Finding, Override, Verdict

STOP_TELEOPERATION = "stop it; the vendor's teleoperation: tmux kill-session -t r1lite_teleop on the robot"
# The R1 Lite's joint tracker has a publisher on the topics that it follows, and says nothing there.
BENIGN_WRITERS = ("jointtracker",)
TELEOPERATION = ("r1lite_teleop", "gello", "joycon")
SIMULATOR = "simulator_node"
MOVING_RAD = 0.02  # within a sample; a leader arm that lies still reads the same to a hundredth


def topic(subject: str, name: str, message_type: str, graph: Graph) -> Finding:
    """Whether `name` is published, by one node and as `message_type`."""
    check, expected = f"{subject}: topic", f"{_type(message_type)} on {name}"
    publishers = graph.publishers.get(name, ())
    types = sorted({endpoint.message_type for endpoint in publishers})
    if not publishers:
        todo = "boot that part of the robot's stack, or see whether it has another name there: ros2 topic list -t"
        return Finding(check, Verdict.FAIL, "not published", expected, todo)
    if types != [message_type]:
        seen = ", ".join(_type(name) for name in types)
        return Finding(check, Verdict.FAIL, seen, expected, "nodes cannot read this topic; see the robot's drivers")
    nodes = sorted(endpoint.node for endpoint in publishers)
    if len(nodes) > 1:
        todo = "stop one of them: is a simulation running in the robot's domain?"
        return Finding(check, Verdict.WARN, f"{len(nodes)} publishers: {', '.join(nodes)}", "one publisher", todo)
    return Finding(check, Verdict.PASS, f"from {nodes[0]}", expected)


def sensor_qos(subject: str, publishers: Sequence[Endpoint], readers: Mapping[str, str]) -> Finding:
    """Whether each of our nodes receives what is offered. readers: node -> reliability that it asks for."""
    check = f"{subject}: QoS"
    conflicts = {
        node: endpoint.conflicts[reliability]
        for node, reliability in readers.items()
        for endpoint in publishers
        if reliability in endpoint.conflicts
    }
    offered = ", ".join(sorted({endpoint.reliability for endpoint in publishers}))
    asked = ", ".join(f"{reliability} ({node})" for node, reliability in readers.items())
    if not conflicts:
        return Finding(check, Verdict.PASS, f"offers {offered}", f"serves {asked}")
    text = "; ".join(f"{node}: {reason}" for node, reason in conflicts.items())
    todo = "set sensor_reliability: best_effort, which receives from every publisher"
    fixes = tuple(Override(node, "sensor_reliability", "best_effort") for node in conflicts)
    return Finding(check, Verdict.FAIL, f"offers {offered}; {text}", f"serves {asked}", todo, fixes)


def command_reader(subject: str, name: str, graph: Graph, reliability: str) -> Finding:
    """Whether the robot listens to a command topic, and can hear us."""
    check, expected = f"{subject}: reader", "a tracker that subscribes"
    readers = [reader for reader in graph.subscriptions.get(name, ()) if _short(reader.node) != RECORDER]
    if not readers:
        todo = f"boot the robot's mobiman session: {name} has no subscription"
        return Finding(check, Verdict.FAIL, "nobody subscribes", expected, todo)
    deaf = [endpoint for endpoint in readers if reliability in endpoint.conflicts]
    names = ", ".join(sorted(endpoint.node for endpoint in deaf or readers))
    if deaf:
        todo = "set command_reliability: reliable, which every subscription accepts"
        fix = (Override(EXECUTOR, "command_reliability", "reliable"),)
        return Finding(check, Verdict.FAIL, f"{names}: {deaf[0].conflicts[reliability]}", expected, todo, fix)
    return Finding(check, Verdict.PASS, names, expected)


def is_ours(publisher: Endpoint) -> bool:
    return _short(publisher.node) == EXECUTOR


def sole_writer(
    subject: str, name: str, rivals: Sequence[Endpoint], allowed: Sequence[str], heard: Sample | None
) -> Finding:
    """Whether anybody but our executor publishes commands. heard: what was said there; None: that may be our own."""
    check, expected = f"{subject}: writers", f"{EXECUTOR} alone, or nobody"
    if not rivals:
        return Finding(check, Verdict.PASS, "nobody else", expected)
    nodes = sorted({rival.node for rival in rivals})
    who = ", ".join(nodes)
    if heard:
        seen = f"{who} on {name}, which carries {heard.rate_hz:.0f} Hz"
        return Finding(check, Verdict.FAIL, seen, expected, STOP_TELEOPERATION)
    silent = "" if heard is None else ", silent"
    names = {entry.partition("@")[0] for entry in allowed}  # the host is for the executor to judge
    unknown = [node for node in nodes if node not in names]
    if not unknown:
        return Finding(check, Verdict.PASS, f"{who}, allowed{silent}", expected)
    if all(_is_one_of(node, BENIGN_WRITERS) for node in unknown):
        todo = "list it in allowed_publishers: it is known to stay silent, and ~/arm refuses while it is there"
        fix = (Override(EXECUTOR, "allowed_publishers", sorted({*allowed, *unknown})),)
        return Finding(check, Verdict.FAIL, f"{who}{silent}", expected, todo, fix)
    return Finding(check, Verdict.FAIL, f"{who}{silent}", expected, STOP_TELEOPERATION)


def simulation(graph: Graph) -> Finding:
    """Whether the simulated robot, which speaks the real one's topics, is in the same domain."""
    check, expected = "network: simulation", "none in the robot's domain"
    found = sorted(node for node in graph.nodes if _short(node) == SIMULATOR)
    if not found:
        return Finding(check, Verdict.PASS, "none", expected)
    return Finding(check, Verdict.FAIL, ", ".join(found), expected, "end it, or give it another ROS_DOMAIN_ID")


def teleoperation(graph: Graph) -> Finding:
    """Whether nodes of the vendor's teleoperation run."""
    check, expected = "teleoperation: nodes", "none of the vendor's"
    found = sorted(node for node in graph.nodes if _is_one_of(node, TELEOPERATION))
    if not found:
        return Finding(check, Verdict.PASS, "none", expected)
    todo = "tmux kill-session -t r1lite_teleop on the robot, unless it only publishes leader arms for take-overs"
    return Finding(check, Verdict.WARN, ", ".join(found), expected, todo)


def leader(subject: str, sample: Sample, joints: int) -> Finding:
    """Whether somebody moves a leader arm; a gripper value after its `joints` does not count."""
    check, expected = f"{subject}: motion", "silent or still"
    if not sample.values:
        return Finding(check, Verdict.PASS, "silent", expected)
    counts = sorted({len(state.positions) for state in sample.values})
    if not set(counts) <= {joints, joints + 1}:
        return Finding(check, Verdict.WARN, f"{counts} values on {sample.topic}", f"{joints} or {joints + 1} values")
    moved = float(np.max(np.ptp(np.array([state.positions[:joints] for state in sample.values]), axis=0)))
    if not moved <= MOVING_RAD:  # NaN is no stand
        todo = "let go of the leader arms: a take-over follows them at once"
        return Finding(check, Verdict.WARN, f"moves by {moved:.2f} rad on {sample.topic}", expected, todo)
    return Finding(check, Verdict.PASS, f"still, {sample.rate_hz:.0f} Hz", expected)


def _short(node: str) -> str:
    return node.rpartition("/")[2]


def _type(message_type: str) -> str:
    return message_type.rpartition("/")[2]


def _is_one_of(node: str, words: Sequence[str]) -> bool:
    name = node.lower()
    return any(word in name or word in name.replace("_", "") for word in words)
