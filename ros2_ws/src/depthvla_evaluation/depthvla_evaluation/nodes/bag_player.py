"""Plays a recording's messages on the recording's own clock. Knows no ROS: publishing and waiting are handed in."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from depthvla_evaluation.bags.bag import header_stamp_ns

CLOCK_PERIOD_NS = 5_000_000  # in which the clock goes on at least


@dataclass(frozen=True)
class Played:
    frames: int  # of the reference camera, as far as they were played
    unanswered: int  # of these, where answers were waited for
    ended: bool  # False: stopped before the end


class BagPlayer:
    """Publishes messages in order of reception, and the clock before them.

    Args:
        messages: (topic, time of reception in ns, serialised message) in order of reception.
        reference_topic: the reference camera's; a frame of it is what a policy answers.
        publish: gets (topic, serialised message). set_clock: gets the time in ns.
        answered: gets a frame's stamp and waits for its answer, or gives up and returns False. The clock stands still
            meanwhile, so that a policy slower than the recording still sees every frame in time. None: nobody waits.
        rate: seconds of the recording in one of the wall's.
        progress: gets the seconds that were played and the frames among them, before every frame.
    """

    def __init__(
        self,
        messages: Iterable[tuple[str, int, bytes]],
        *,
        reference_topic: str,
        publish: Callable[[str, bytes], None],
        set_clock: Callable[[int], None],
        answered: Callable[[int], bool] | None = None,
        rate: float = 1.0,
        progress: Callable[[float, int], None] = lambda played_s, frames: None,
        steady_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._messages, self._reference = messages, reference_topic
        self._publish, self._set_clock, self._answered = publish, set_clock, answered
        self._rate, self._steady_s, self._progress = rate, steady_s, progress
        self._clock_ns = 0

    def run(self, stopping: threading.Event) -> Played:
        """Play to the end, or until `stopping` is set."""
        begin_ns = begin_s = None
        frame_ns, frames, unanswered = None, 0, 0
        for topic, received_ns, data in self._messages:
            if topic == self._reference:
                # What belongs to a frame may come after it: it is waited for when the next one is due.
                if frame_ns is not None and self._answered:
                    paused_s = self._steady_s()
                    unanswered += not self._answered(frame_ns)
                    begin_s += self._steady_s() - paused_s
                frame_ns, frames = header_stamp_ns(data), frames + 1
            if begin_ns is None:
                begin_ns, begin_s = received_ns, self._steady_s()
            due_s = begin_s + (received_ns - begin_ns) * 1e-9 / self._rate
            if stopping.wait(max(due_s - self._steady_s(), 0.0)):
                return Played(frames, unanswered, ended=False)
            if topic == self._reference:
                self._progress((received_ns - begin_ns) * 1e-9, frames)
            self._advance(received_ns, every=topic == self._reference)
            self._publish(topic, data)
        if frame_ns is not None and self._answered:
            unanswered += not self._answered(frame_ns)
        return Played(frames, unanswered, ended=True)

    def _advance(self, now_ns: int, *, every: bool) -> None:
        if every or now_ns >= self._clock_ns + CLOCK_PERIOD_NS:
            self._clock_ns = max(self._clock_ns, now_ns)
            self._set_clock(self._clock_ns)
