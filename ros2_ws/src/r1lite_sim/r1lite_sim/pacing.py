"""Keeps simulated time beside real time, on a steady clock handed in by the caller."""

from __future__ import annotations

WINDOW_NS = 2_000_000_000


class Pacer:
    """A grid of slices. Lateness is made up for slice by slice; what exceeds `max_lag_ns` is given up.

    Args:
        period_ns: duration of a slice.
        max_lag_ns: the most that the grid may trail the clock.
    """

    def __init__(self, period_ns: int, max_lag_ns: int) -> None:
        self._period_ns, self._max_lag_ns = period_ns, max_lag_ns
        self.given_up_ns = 0
        self.start(0)

    def start(self, now_ns: int) -> None:
        """The first slice is due one period from now."""
        self._due_ns = now_ns + self._period_ns
        self._marks = [(now_ns, 0)]
        self._simulated_ns = 0

    def wait_ns(self, now_ns: int) -> int:
        """How long to wait until the next slice is due; 0 when it is late."""
        return max(self._due_ns - now_ns, 0)

    def advance(self, now_ns: int) -> None:
        """The due slice was done."""
        self._due_ns += self._period_ns
        self._simulated_ns += self._period_ns
        lag = now_ns - self._due_ns
        if lag > self._max_lag_ns:
            self.given_up_ns += lag
            self._due_ns = now_ns
        if now_ns - self._marks[-1][0] >= WINDOW_NS // 2:
            self._marks = [*self._marks[-2:], (now_ns, self._simulated_ns)]

    def real_time_factor(self) -> float:
        """Simulated over real time, over about the last two seconds; 1.0 before there is anything to measure."""
        (begin, simulated_begin), (end, simulated_end) = self._marks[0], self._marks[-1]
        return (simulated_end - simulated_begin) / (end - begin) if end > begin else 1.0


class Every:
    """Says when something is due that happens `rate_hz` times a second of the time it is asked with."""

    def __init__(self, rate_hz: float) -> None:
        self._period_ns = 1e9 / rate_hz
        self._count = 0

    def due(self, time_ns: int) -> bool:
        if time_ns < self._count * self._period_ns:
            return False
        self._count = int(time_ns // self._period_ns) + 1
        return True
