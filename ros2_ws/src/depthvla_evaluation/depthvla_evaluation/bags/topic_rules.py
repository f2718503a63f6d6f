"""Which messages of an episode are recorded. Works on serialised messages and knows no middleware."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from depthvla_evaluation.bags.bag import PAIR_TOLERANCE_NS, header_stamp_ns
from r1lite_description.robot import Robot

PAIR_HISTORY = 32  # messages of a paired topic that wait for their partner: 2 s at 15 Hz


@dataclass(frozen=True)
class TopicRule:
    """One topic to record.

    max_rate_hz: messages beyond this rate are left out; None keeps all.
    paired_with: keep only the message whose header stamp is nearest to that of a kept message of this other topic, and
    at most PAIR_TOLERANCE_NS away.
    required: an episode without this topic is not whole.
    """

    topic: str
    max_rate_hz: float | None = None
    paired_with: str | None = None
    required: bool = False


def parse_rules(entries: Sequence[str], robot: Robot) -> dict[str, TopicRule]:
    """Read entries of the form `/topic [max_rate_hz=5.0] [paired_with=/other] [required]`; topic -> rule.

    An entry with `{camera.…}` or `{limb.…}` stands for one topic of each camera or limb of the robot, for example
    `{camera.topic}`, `/policy_node/depth/{camera.name}/image`, `{limb.topics.arm_feedback}`.

    Raises:
        ValueError: an entry cannot be read; the message names it.
    """
    rules: dict[str, TopicRule] = {}
    for entry in entries:
        for text in _expand(entry, robot):
            rule = _parse_rule(text, entry)
            if rule.topic in rules:
                raise ValueError(f"topic {rule.topic} is listed twice (again by {entry!r})")
            rules[rule.topic] = rule
    for rule in rules.values():
        if rule.paired_with is not None and rule.paired_with not in rules:
            raise ValueError(f"topic {rule.topic} is paired with {rule.paired_with}, which is not recorded")
    return rules


class Selector:
    """Applies the rules to a stream of messages: what comes in is (topic, time, data), what comes out is to be kept."""

    def __init__(self, rules: dict[str, TopicRule]) -> None:
        self._rules = rules
        self._due_ns: dict[str, int] = {}
        paired = {rule.topic: rule.paired_with for rule in rules.values() if rule.paired_with}
        self._waiting: dict[str, deque] = {topic: deque(maxlen=PAIR_HISTORY) for topic in paired}
        self._unanswered: dict[str, deque] = {topic: deque(maxlen=PAIR_HISTORY) for topic in paired}
        self._followers = {partner: [t for t, p in paired.items() if p == partner] for partner in paired.values()}

    def offer(self, topic: str, received_ns: int, data: bytes) -> list[tuple[str, int, bytes]]:
        """Take a message in order of reception; return the messages that this one makes worth keeping."""
        rule = self._rules[topic]
        if rule.paired_with is not None and not self._answers(topic, header_stamp_ns(data)):
            self._waiting[topic].append((header_stamp_ns(data), received_ns, data))
            return []
        if rule.max_rate_hz is not None and not self._due(topic, received_ns, round(1e9 / rule.max_rate_hz)):
            return []
        kept = [(topic, received_ns, data)]
        for follower in self._followers.get(topic, ()):
            kept += self._release(follower, header_stamp_ns(data))
        return kept

    def _answers(self, follower: str, stamp_ns: int) -> bool:
        """Whether a kept message of the partner has waited for this stamp."""
        unanswered = self._unanswered[follower]
        nearest = min(unanswered, key=lambda asked_ns: abs(asked_ns - stamp_ns), default=None)
        if nearest is None or abs(nearest - stamp_ns) > PAIR_TOLERANCE_NS:
            return False
        unanswered.remove(nearest)
        return True

    def _release(self, follower: str, stamp_ns: int) -> list[tuple[str, int, bytes]]:
        """The waiting message that belongs to a partner's stamp; where there is none yet, the stamp is remembered."""
        waiting = self._waiting[follower]
        nearest = min(waiting, key=lambda item: abs(item[0] - stamp_ns), default=None)
        if nearest is None or abs(nearest[0] - stamp_ns) > PAIR_TOLERANCE_NS:
            self._unanswered[follower].append(stamp_ns)
            return []
        waiting.remove(nearest)
        return [(follower, *nearest[1:])]

    def _due(self, topic: str, received_ns: int, period_ns: int) -> bool:
        due_ns = self._due_ns.get(topic, received_ns)
        if received_ns < due_ns:
            return False
        # The grid is kept as long as messages come, so that jitter does not lower the mean rate.
        self._due_ns[topic] = due_ns + period_ns if received_ns < due_ns + period_ns else received_ns + period_ns
        return True


def _expand(entry: str, robot: Robot) -> list[str]:
    if "{camera." in entry:
        fields = [{"camera": camera} for camera in robot.cameras]
    elif "{limb." in entry:
        fields = [{"limb": limb} for limb in robot.limbs]
    else:
        fields = [{}]
    try:
        return [entry.format(**item) for item in fields]
    except (KeyError, AttributeError, IndexError, ValueError) as error:
        raise ValueError(
            f"topic entry {entry!r} has an unknown placeholder ({error}); allowed: fields of one camera or one limb"
        ) from error


def _parse_rule(text: str, entry: str) -> TopicRule:
    topic, *options = text.split() or [""]
    if not topic.startswith("/"):
        raise ValueError(f"topic entry {entry!r} must start with an absolute topic name")
    values: dict[str, float | str | bool] = {}
    for option in options:
        key, _, value = option.partition("=")
        if key == "max_rate_hz":
            try:
                values[key] = float(value)
            except ValueError:
                values[key] = -1.0
            if not 0 < values[key] < float("inf"):
                raise ValueError(f"topic entry {entry!r}: max_rate_hz is {value!r}; it must be a number above 0")
        elif key == "paired_with" and value.startswith("/"):
            values[key] = value
        elif option == "required":
            values[key] = True
        else:
            raise ValueError(
                f"topic entry {entry!r}: option {option!r}; allowed: max_rate_hz=N, paired_with=/TOPIC, required"
            )
    return TopicRule(topic, **values)
