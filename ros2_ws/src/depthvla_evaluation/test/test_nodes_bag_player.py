"""A recording is played in its own order and on its own clock, and waits for whoever answers its frames."""

from __future__ import annotations

import struct
import threading

from depthvla_evaluation.nodes.bag_player import BagPlayer, Played

MS = 1_000_000
HEAD, ARM = "/head", "/arm"


def message(stamp_ns: int) -> bytes:
    seconds, nanoseconds = divmod(stamp_ns, 10**9)
    return b"\0\1\0\0" + struct.pack("<iI", seconds, nanoseconds)


class Stage:
    """Time passes only by waiting."""

    def __init__(self, answers=None) -> None:
        self.said = []
        self.now_s = 0.0
        self.answers = answers
        self.stop_after_s = float("inf")

    def wait(self, seconds: float) -> bool:
        self.now_s += seconds
        return self.now_s > self.stop_after_s

    def answered(self, stamp_ns: int) -> bool:
        self.said.append(("asked", stamp_ns))
        self.now_s += 1.0
        return self.answers(stamp_ns)

    def play(self, messages, rate: float = 1.0) -> Played:
        player = BagPlayer(
            messages,
            reference_topic=HEAD,
            publish=lambda topic, data: self.said.append((topic, round(self.now_s, 6))),
            set_clock=lambda now_ns: self.said.append(("clock", now_ns)),
            answered=self.answered if self.answers else None,
            rate=rate,
            progress=lambda played_s, frames: self.said.append(("progress", (round(played_s, 6), frames))),
            steady_s=lambda: self.now_s,
        )
        stopping = threading.Event()
        stopping.wait = self.wait
        return player.run(stopping)

    def of(self, what: str) -> list:
        return [value for name, value in self.said if name == what]


def recording() -> list:
    """Frames every 100 ms that arrive 10 ms late, an arm 20 ms after each."""
    return [
        item
        for frame in range(3)
        for item in (
            (HEAD, (frame * 100 + 10) * MS, message(frame * 100 * MS)),
            (ARM, (frame * 100 + 30) * MS, message(frame * 100 * MS)),
        )
    ]


def test_messages_come_in_order_at_the_times_of_their_reception():
    stage = Stage()
    assert stage.play(recording()) == Played(frames=3, unanswered=0, ended=True)
    assert stage.of(HEAD) == [0.0, 0.1, 0.2]
    assert stage.of(ARM) == [0.02, 0.12, 0.22]


def test_the_rate_stretches_time_for_the_wall_and_not_for_the_clock():
    stage = Stage()
    stage.play(recording(), rate=0.5)
    assert stage.of(HEAD) == [0.0, 0.2, 0.4]
    assert stage.of("clock")[-1] == 230 * MS


def test_the_clock_is_told_before_every_frame_and_never_goes_back():
    stage = Stage()
    stage.play([*recording(), (ARM, 5 * MS, message(0))])
    times = stage.of("clock")
    assert times == sorted(times)
    frames = [index for index, (name, _) in enumerate(stage.said) if name == HEAD]
    assert all(stage.said[index - 1][0] == "clock" for index in frames)


def test_a_frame_is_answered_before_the_next_one_and_waiting_takes_no_time_of_the_recording():
    stage = Stage(answers=lambda stamp_ns: True)
    stage.play(recording())
    assert [name for name, _ in stage.said if name in (HEAD, ARM, "asked")] == [HEAD, ARM, "asked"] * 3
    assert stage.of("asked") == [0, 100 * MS, 200 * MS]
    assert stage.of(ARM) == [0.02, 1.12, 2.22]


def test_frames_without_an_answer_are_counted():
    stage = Stage(answers=lambda stamp_ns: stamp_ns == 0)
    assert stage.play(recording()).unanswered == 2


def test_playing_stops_when_asked_to():
    stage = Stage()
    stage.stop_after_s = 0.15
    assert not stage.play(recording()).ended
    assert len(stage.of(HEAD)) == 2


def test_how_far_it_is_is_told_before_every_frame():
    stage = Stage()
    stage.play(recording())
    assert stage.of("progress") == [(0.0, 1), (0.1, 2), (0.2, 3)]
