"""The cable of the network trial, on sockets and a clock made by hand."""

from __future__ import annotations

import json
import socket

import pytest

from r1lite_trials import network_emulation
from r1lite_trials.network_emulation import Conditions, Direction, Link

MS = 1_000_000


def sent(conditions: Conditions, count: int = 1000, seed: str = "0") -> list[int | None]:
    """When each of so many frames left that all entered at 0 [ns]; None for those that were lost."""
    direction = Direction(seed)
    for number in range(count):
        direction.enter(number.to_bytes(4, "big"), 0, conditions)
    times = {int.from_bytes(frame, "big"): due_ns for due_ns, frame in direction.leave(10**12)}
    return [times.get(number) for number in range(count)]


def test_frames_leave_after_the_delay_and_in_their_order():
    direction = Direction("0")
    for number, frame in enumerate((b"a", b"b", b"c")):
        direction.enter(frame, number * MS, Conditions(delay_s=0.05))
    assert direction.next_ns == 50 * MS
    assert not list(direction.leave(50 * MS - 1))
    assert list(direction.leave(51 * MS)) == [(50 * MS, b"a"), (51 * MS, b"b")]
    assert list(direction.leave(10**12)) == [(52 * MS, b"c")]
    assert direction.next_ns is None


def test_jitter_spreads_the_delay_and_lets_frames_overtake():
    times = sent(Conditions(delay_s=0.05, jitter_s=0.03))
    assert 20 * MS <= min(times) < 22 * MS and 78 * MS < max(times) <= 80 * MS
    assert times != sorted(times)


def test_the_share_of_lost_frames_is_the_one_asked_for():
    assert None not in sent(Conditions())
    assert set(sent(Conditions(loss=1.0))) == {None}
    assert 300 < sent(Conditions(loss=0.05), 10_000).count(None) < 700


def test_the_seed_alone_decides_what_becomes_of_a_frame():
    bad = Conditions(delay_s=0.05, jitter_s=0.03, loss=0.05)
    assert sent(bad, seed="1") == sent(bad, seed="1")
    assert sent(bad, seed="1") != sent(bad, seed="2")
    lossless = sent(Conditions(delay_s=0.05, jitter_s=0.03), seed="1")
    assert all(time in (None, other) for time, other in zip(sent(bad, seed="1"), lossless, strict=True))


def test_nothing_enters_a_cut_link_and_what_is_on_its_way_arrives():
    direction = Direction("0")
    assert direction.enter(b"before", 0, Conditions(delay_s=0.05))
    assert not direction.enter(b"during", MS, Conditions(cut=True))
    assert direction.enter(b"after", 2 * MS, Conditions())
    assert [frame for _, frame in direction.leave(10**12)] == [b"after", b"before"]


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"delay_s": -0.1}, "delay_s is -0.1"),
        ({"delay_s": float("nan")}, "delay_s is nan"),
        ({"delay_s": 0.01, "jitter_s": 0.02}, "delay_s is 0.01, jitter_s 0.02; allowed: 0 to delay_s"),
        ({"loss": 1.5}, "loss is 1.5"),
    ],
)
def test_impossible_conditions_are_named(values, named):
    with pytest.raises(ValueError, match=named):
        Conditions(**values)


class Cable:
    """A link between two pairs of sockets, whose far ends are `left` and `right`; time passes when it is told to."""

    def __init__(self) -> None:
        self.now_ns = 0
        self.left, self._left = socket.socketpair(type=socket.SOCK_DGRAM)
        self.right, self._right = socket.socketpair(type=socket.SOCK_DGRAM)
        self.left.setblocking(False)
        self.right.setblocking(False)
        self.link = Link((self._left.fileno(), self._right.fileno()), clock=lambda: self.now_ns)

    def close(self) -> None:
        for end in (self.left, self._left, self.right, self._right):
            end.close()


@pytest.fixture
def cable():
    cable = Cable()
    yield cable
    cable.close()


def received(end: socket.socket) -> list[bytes]:
    frames = []
    while True:
        try:
            frames.append(end.recv(4096))
        except BlockingIOError:
            return frames


def test_a_link_carries_both_ways_until_it_is_cut_and_counts(cable):
    for number in range(5):
        cable.left.send(b"right %d" % number)
    cable.right.send(b"left")
    cable.link.step(0.0)
    assert received(cable.right) == [b"right %d" % number for number in range(5)]
    assert received(cable.left) == [b"left"]
    assert (cable.link.carried, cable.link.lost, cable.link.overflowed) == (6, 0, 0)
    cable.link.conditions = Conditions(cut=True)
    cable.left.send(b"lost")
    cable.link.step(0.0)
    assert (cable.link.carried, cable.link.lost, received(cable.right)) == (6, 1, [])
    cable.link.forget()
    assert (cable.link.carried, cable.link.lost, cable.link.late_ns) == (0, 0, [])


def test_a_link_delays_by_its_clock_and_tells_how_late_it_was(cable):
    cable.link.conditions = Conditions(delay_s=0.05)
    cable.left.send(b"frame")
    cable.link.step(0.0)
    cable.now_ns = 49 * MS
    cable.link.step(0.0)
    assert received(cable.right) == []
    cable.now_ns = 53 * MS
    cable.link.step(0.0)
    assert received(cable.right) == [b"frame"]
    assert cable.link.late_ns == [3 * MS]


def test_frames_that_an_end_does_not_take_are_counted(cable):
    for _ in range(1000):
        cable.left.send(b"frame")
        cable.link.step(0.0)
    assert cable.link.overflowed > 0, "nobody read, and the queue of a socket is finite"
    assert cable.link.carried == len(received(cable.right))


def test_a_link_also_waits_for_other_files(cable):
    near, far = socket.socketpair()
    with near, far:
        assert cable.link.step(0.0, near.fileno()) == []
        far.send(b"a request")
        assert cable.link.step(10.0, near.fileno()) == [near.fileno()]


def test_netem_gets_the_conditions_of_both_ends_and_counts_from_the_last_report(monkeypatch):
    words_run, counts = [], iter([3, 3, 5, 4])
    monkeypatch.setattr(network_emulation.subprocess, "run", lambda words, **_: words_run.append(" ".join(words)))
    show = lambda words: json.dumps([{"kind": "netem", "packets": next(counts), "drops": 1}])  # noqa: E731
    monkeypatch.setattr(network_emulation.subprocess, "check_output", show)
    link = network_emulation.Netem("cable", ["/ns/robot", "/ns/host"])
    assert link.carried == 3
    del words_run[:]
    link.change(Conditions(delay_s=0.05, jitter_s=0.03, loss=0.01))
    link.change(Conditions(cut=True))
    netem = "nsenter --net=/ns/{} tc qdisc change dev cable root netem limit 100000 {}"
    words = ("loss 1.000% delay 50ms 30ms", "loss 100.000% delay 0ms 0ms")
    assert words_run == [netem.format(side, each) for each in words for side in ("robot", "host")]
