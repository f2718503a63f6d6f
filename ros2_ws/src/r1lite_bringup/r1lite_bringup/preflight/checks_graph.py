"""Judges the graph: topics, their types and QoS, who writes the commands, who reads them, whose teleoperation runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from r1lite_bringup.preflight.findings import Check, Finding, Override
from r1lite_bringup.preflight.measure import Endpoint, Graph, Sample
from r1lite_bringup.preflight.settings import EXECUTOR, RECORDER

STOP_TELEOPERATION = "stop it; the vendor's teleoperation: tmux kill-session -t r1lite_teleop on the robot"
# The R1 Lite's joint tracker has a publisher on the topics that it follows, and says nothing there.
BENIGN_WRITERS = ("jointtracker",)
TELEOPERATION = ("r1lite_teleop", "gello", "joycon")
SIMULATOR = "simulator_node"
MOVING_RAD = 0.02  # within a sample; a leader arm that lies still reads the same to a hundredth


def topic(subject: str, name: str, message_type: str, graph: Graph) -> Finding:
    """Whether `name` is published, by one node and as `message_type`."""
    check = Check(f"{subject}: topic", f"{_type(message_type)} on {name}")
    publishers = graph.publishers.get(name, ())
    types = sorted({endpoint.message_type for endpoint in publishers})
    if not publishers:
        todo = "boot that part of the robot's stack, or see whether it has another name there: ros2 topic list -t"
        return check.fail("not published", todo)
    if types != [message_type]:
        seen = ", ".join(_type(name) for name in types)
        return check.fail(seen, "nodes cannot read this topic; see the robot's drivers")
    nodes = sorted(endpoint.node for endpoint in publishers)
    if len(nodes) > 1:
        todo = "stop one of them: is a simulation running in the robot's domain?"
        return check.warn(f"{len(nodes)} publishers: {', '.join(nodes)}", todo)
    return check.passed(f"from {nodes[0]}")


def sensor_qos(subject: str, publishers: Sequence[Endpoint], readers: Mapping[str, str]) -> Finding:
    """Whether each of our nodes receives what is offered. readers: node -> reliability that it asks for."""
    conflicts = {
        node: endpoint.conflicts[reliability]
        for node, reliability in readers.items()
        for endpoint in publishers
        if reliability in endpoint.conflicts
    }
    offered = ", ".join(sorted({endpoint.reliability for endpoint in publishers}))
    asked = ", ".join(f"{reliability} ({node})" for node, reliability in readers.items())
    check = Check(f"{subject}: QoS", f"serves {asked}")
    if not conflicts:
        return check.passed(f"offers {offered}")
    text = "; ".join(f"{node}: {reason}" for node, reason in conflicts.items())
    todo = "set sensor_reliability: best_effort, which receives from every publisher"
    fixes = (Override(node, "sensor_reliability", "best_effort") for node in conflicts)
    return check.fail(f"offers {offered}; {text}", todo, *fixes)


def command_reader(subject: str, name: str, graph: Graph, reliability: str) -> Finding:
    """Whether the robot listens to a command topic, and can hear us."""
    check = Check(f"{subject}: reader", "a tracker that subscribes")
    readers = [reader for reader in graph.subscriptions.get(name, ()) if _short(reader.node) != RECORDER]
    if not readers:
        todo = f"boot the robot's mobiman session: {name} has no subscription"
        return check.fail("nobody subscribes", todo)
    deaf = [endpoint for endpoint in readers if reliability in endpoint.conflicts]
    names = ", ".join(sorted(endpoint.node for endpoint in deaf or readers))
    if deaf:
        todo = "set command_reliability: reliable, which every subscription accepts"
        fix = Override(EXECUTOR, "command_reliability", "reliable")
        return check.fail(f"{names}: {deaf[0].conflicts[reliability]}", todo, fix)
    return check.passed(names)


def is_ours(publisher: Endpoint) -> bool:
    return _short(publisher.node) == EXECUTOR


def sole_writer(
    subject: str, name: str, rivals: Sequence[Endpoint], allowed: Sequence[str], heard: Sample | None
) -> Finding:
    """Whether anybody but our executor publishes commands. heard: what was said there; None: that may be our own."""
    check = Check(f"{subject}: writers", f"{EXECUTOR} alone, or nobody")
    if not rivals:
        return check.passed("nobody else")
    nodes = sorted({rival.node for rival in rivals})
    who = ", ".join(nodes)
    if heard:
        seen = f"{who} on {name}, which carries {heard.rate_hz:.0f} Hz"
        return check.fail(seen, STOP_TELEOPERATION)
    silent = "" if heard is None else ", silent"
    names = {entry.partition("@")[0] for entry in allowed}  # the host is for the executor to judge
    unknown = [node for node in nodes if node not in names]
    if not unknown:
        return check.passed(f"{who}, allowed{silent}")
    if all(_is_one_of(node, BENIGN_WRITERS) for node in unknown):
        todo = "list it in allowed_publishers: it is known to stay silent, and ~/arm refuses while it is there"
        fix = Override(EXECUTOR, "allowed_publishers", sorted({*allowed, *unknown}))
        return check.fail(f"{who}{silent}", todo, fix)
    return check.fail(f"{who}{silent}", STOP_TELEOPERATION)


def simulation(graph: Graph) -> Finding:
    """Whether the simulated robot, which speaks the real one's topics, is in the same domain."""
    check = Check("network: simulation", "none in the robot's domain")
    found = sorted(node for node in graph.nodes if _short(node) == SIMULATOR)
    if not found:
        return check.passed("none")
    return check.fail(", ".join(found), "end it, or give it another ROS_DOMAIN_ID")


def teleoperation(graph: Graph) -> Finding:
    """Whether nodes of the vendor's teleoperation run."""
    check = Check("teleoperation: nodes", "none of the vendor's")
    found = sorted(node for node in graph.nodes if _is_one_of(node, TELEOPERATION))
    if not found:
        return check.passed("none")
    todo = "tmux kill-session -t r1lite_teleop on the robot, unless it only publishes leader arms for take-overs"
    return check.warn(", ".join(found), todo)


def leader(subject: str, sample: Sample, joints: int) -> Finding:
    """Whether somebody moves a leader arm; a gripper value after its `joints` does not count."""
    check = Check(f"{subject}: motion", "silent or still")
    if not sample.values:
        return check.passed("silent")
    counts = sorted({len(state.position) for state in sample.values})
    if not set(counts) <= {joints, joints + 1}:
        return check.warn(f"{counts} values on {sample.topic} instead of {joints} or {joints + 1}")
    moved = float(np.max(np.ptp(np.array([state.position[:joints] for state in sample.values]), axis=0)))
    if not moved <= MOVING_RAD:  # NaN is no stand
        todo = "let go of the leader arms: a take-over follows them at once"
        return check.warn(f"moves by {moved:.2f} rad on {sample.topic}", todo)
    return check.passed(f"still, {sample.rate_hz:.0f} Hz")


def _short(node: str) -> str:
    return node.rpartition("/")[2]


def _type(message_type: str) -> str:
    return message_type.rpartition("/")[2]


def _is_one_of(node: str, words: Sequence[str]) -> bool:
    name = node.lower()
    return any(word in name or word in name.replace("_", "") for word in words)
