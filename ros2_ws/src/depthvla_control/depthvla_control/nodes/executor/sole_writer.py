"""Whether topics have the one writer that they should have: two would pull a robot to and fro, and of two that publish
feedback one may be a real robot where a simulated one is expected.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from rclpy.node import Node

UNKNOWN = "_NODE_NAME_UNKNOWN_"  # to rmw, a publisher whose node has not been discovered yet
UNKNOWN_LIMIT_S = 2.0
FAST_DDS = bytes((0x01, 0x0F))  # the vendor, with which a GUID begins; the host's number follows
ALLOWED = re.compile(r"(?P<name>(/\w+)+)(@(?P<host>here|[0-9a-f]{4}))?")
NAMES_PERIOD_S = 0.25  # one topic's publishers are asked for by name this often even where their number stays


@dataclass(frozen=True)
class Stranger:
    """Who writes too, and what to do about it. `rival`: it is known not to be an allowed one."""

    text: str
    rival: bool


COMMANDS = (
    "stop it (the vendor's teleoperation: tmux kill-session -t r1lite_teleop), or list it in allowed_publishers if it"
    " stays silent"
)
FEEDBACK = (
    "only the feedback of its simulation may arm an executor by itself; keep the two apart (network:=this_machine,"
    " another ROS_DOMAIN_ID)"
)


class SoleWriter:
    """Looks for publishers on `topics` beside one of the node `writer`, but for those in `allowed`.

    An entry of `allowed` is a node's full name, to which `@here` (this host) or `@HOST` may be added: four digits that
    a text about a stranger has. They are the host's in the GUIDs of Fast DDS. Another middleware tells no host, and
    there an entry with one allows nobody. A name is only what a node says of itself.

    writer: full name; this node when left out, whoever is alone when empty. advice: what to do about another.

    Raises:
        ValueError: an entry is none.
    """

    def __init__(
        self,
        node: Node,
        topics: Sequence[str],
        allowed: Sequence[str] = (),
        *,
        writer: str | None = None,
        advice: str = COMMANDS,
    ) -> None:
        self._node, self._topics, self._advice = node, topics, advice
        self._writer = _full_name((node.get_namespace(), node.get_name())) if writer is None else writer
        self._allowed = {_parse(entry) for entry in allowed if entry}
        self._next, self._asked_s = 0, float("-inf")
        self._alone: dict[str, int] = {}  # publishers of a topic when there was no stranger among them
        # By topic and endpoint. One that leaves may be forgotten node first, so a name that was known stays known.
        self._known: dict[str, dict[bytes, tuple[str, str]]] = {topic: {} for topic in topics}
        self._unknown_since_s: dict[str, dict[bytes, float]] = {topic: {} for topic in topics}

    def rival(self, now_s: float) -> str | None:
        """Who else writes, and what to do about it; a publisher whose node is not known yet is one. Starts anew."""
        for waiting in self._unknown_since_s.values():
            waiting.clear()
        found = [self._stranger_on(topic, now_s) for topic in self._topics]
        return next((stranger.text for stranger in found if stranger), None)

    def look(self, now_s: float) -> Stranger | None:
        """The same, cheap enough for every tick: names are asked for where the number of publishers changed.

        A publisher whose node is not known yet has two seconds to turn out to be an allowed one. One that is gone
        before that may have written, so it is a rival.
        """
        if now_s - self._asked_s >= NAMES_PERIOD_S:
            self._asked_s = now_s
            self._next = (self._next + 1) % len(self._topics)
            self._alone.pop(self._topics[self._next], None)
        changed = [topic for topic in self._topics if self._node.count_publishers(topic) != self._alone.get(topic)]
        found = [stranger for topic in changed if (stranger := self._stranger_on(topic, now_s))]
        return max(found, key=lambda stranger: stranger.rival, default=None)

    def _stranger_on(self, topic: str, now_s: float) -> Stranger | None:
        self._alone.pop(topic, None)
        waiting = self._unknown_since_s[topic]
        writers = self._writers(topic)
        rightful = [
            endpoint for endpoint, writer in writers.items() if not self._writer or _full_name(writer) == self._writer
        ]
        # One of them: a namesake is a rival. Rather one that is known: the others have time to become so.
        own = min(rightful, key=lambda endpoint: (writers[endpoint][1] == UNKNOWN, writers[endpoint]), default=b"")
        named = sorted(
            (_full_name(writer), _host(endpoint))
            for endpoint, writer in writers.items()
            if endpoint != own and writer[1] != UNKNOWN and not self._is_allowed(endpoint, writer, own)
        )
        unknown = [endpoint for endpoint, (_, name) in writers.items() if name == UNKNOWN]
        gone = [endpoint for endpoint in waiting if endpoint not in writers]
        self._unknown_since_s[topic] = {endpoint: waiting.get(endpoint, now_s) for endpoint in unknown}
        if named:
            name, host = named[0]
            listed = f", as {name}@{host}" if host and self._advice is COMMANDS else ""
            return Stranger(self._text(f"{name} publishes", topic) + listed, rival=True)
        if gone:
            return Stranger(self._text("a node that left before it was known published", topic), rival=True)
        if unknown:
            overdue = now_s - min(self._unknown_since_s[topic].values()) > UNKNOWN_LIMIT_S
            text = self._text("a node that is not known yet publishes", topic)
            return Stranger(text if overdue else text.partition(":")[0], rival=overdue)  # no advice: most become known
        self._alone[topic] = len(writers)
        return None

    def _text(self, who_publishes: str, topic: str) -> str:
        return f"{who_publishes} to {topic} too: {self._advice}"

    def _is_allowed(self, endpoint: bytes, writer: tuple[str, str], own: bytes) -> bool:
        host = _host(endpoint)
        hosts = {"", host, "here" if host and host == _host(own) else ""}
        return any((_full_name(writer), allowed) in self._allowed for allowed in hosts)

    def _writers(self, topic: str) -> dict[bytes, tuple[str, str]]:
        """Namespace and name of the node by endpoint."""
        known = self._known[topic]
        writers = {}
        for info in self._node.get_publishers_info_by_topic(topic):
            endpoint = bytes(info.endpoint_gid)
            named = (info.node_namespace, info.node_name)
            writers[endpoint] = known.get(endpoint, named) if info.node_name == UNKNOWN else named
        self._known[topic] = {endpoint: writer for endpoint, writer in writers.items() if writer[1] != UNKNOWN}
        return writers


def _parse(entry: str) -> tuple[str, str]:
    """Full name and host; an empty host is any."""
    if not (found := ALLOWED.fullmatch(entry)):
        raise ValueError(
            f"allowed_publishers has {entry!r}; allowed: a node's full name, /namespace/name, and with @here or @HOST"
            " that of one host"
        )
    return found["name"], found["host"] or ""


def _full_name(writer: tuple[str, str]) -> str:
    return f"{writer[0].rstrip('/')}/{writer[1]}"


def _host(endpoint: bytes) -> str:
    """Four digits for the host that an endpoint is on; empty where the middleware does not tell."""
    return endpoint[2:4].hex() if endpoint.startswith(FAST_DDS) else ""
