"""Whether this node is alone on its command topics: two writers would pull a robot to and fro."""

from __future__ import annotations

from collections.abc import Sequence

from rclpy.node import Node

UNKNOWN = "_NODE_NAME_UNKNOWN_"  # to rmw, a publisher whose node has not been discovered yet
UNKNOWN_LIMIT_S = 2.0


class SoleWriter:
    """Looks for publishers of other nodes on `topics`, but for those of the nodes named in `allowed`."""

    def __init__(self, node: Node, topics: Sequence[str], allowed: Sequence[str]) -> None:
        self._node, self._topics = node, topics
        self._allowed = {name.lstrip("/") for name in allowed}
        self._next, self._looked_s = 0, float("-inf")
        self._unknown_since_s: dict[str, float] = {}

    def rival(self) -> str | None:
        """Who else writes, and what to do about it."""
        return next((found for topic in self._topics if (found := self._rival_on(topic)[1])), None)

    def rival_on_next(self, now_s: float, every_s: float) -> str | None:
        """The same of one topic after the other, at most once in `every_s`: asking takes part of a millisecond.

        A publisher whose node is not known yet may turn out to be an allowed one, so it has two seconds to do so.
        """
        if now_s - self._looked_s < every_s:
            return None
        self._looked_s = now_s
        self._next = (self._next + 1) % len(self._topics)
        topic = self._topics[self._next]
        name, rival = self._rival_on(topic)
        if name != UNKNOWN:
            self._unknown_since_s.pop(topic, None)
            return rival
        since_s = self._unknown_since_s.setdefault(topic, now_s)
        return rival if now_s - since_s > UNKNOWN_LIMIT_S else None

    def _rival_on(self, topic: str) -> tuple[str, str | None]:
        """Name of a node that writes to `topic` too, and what to say about it; the known before the unknown."""
        own = (self._node.get_namespace(), self._node.get_name())
        writers = [(info.node_namespace, info.node_name) for info in self._node.get_publishers_info_by_topic(topic)]
        if own in writers:
            writers.remove(own)  # once: a node of the same name is a rival
        rivals = sorted((w for w in writers if w[1] not in self._allowed), key=lambda writer: writer[1] == UNKNOWN)
        if not rivals:
            return "", None
        namespace, name = rivals[0]
        who = "a node that is not known yet" if name == UNKNOWN else f"{namespace.rstrip('/')}/{name}"
        text = (
            f"{who} publishes to {topic} too: stop it (the vendor's teleoperation: tmux kill-session -t r1lite_teleop),"
            " or list it in allowed_publishers if it stays silent"
        )
        return name, text
