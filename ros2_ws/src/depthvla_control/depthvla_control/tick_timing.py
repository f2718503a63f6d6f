"""Lateness of a periodic tick against its grid, on a steady clock handed in by the caller."""

from __future__ import annotations

from collections import deque

import numpy as np

WINDOW = 1024


class TickMonitor:
    """Counts ticks, and the points of the grid that no tick came to within half a period."""

    def __init__(self, period_ns: int) -> None:
        self._period_ns = period_ns
        self.due_ns: int | None = None  # of the next tick
        self._lateness_ns: deque[int] = deque(maxlen=WINDOW)
        self.ticks = 0
        self.missed = 0

    def start(self, now_ns: int) -> None:
        """The timer was started now: its first tick is due one period later."""
        self.align(now_ns)
        self._lateness_ns.clear()
        self.ticks = self.missed = 0

    def align(self, now_ns: int) -> None:
        """The timer was set back now: its next tick is due one period later."""
        self.due_ns = now_ns + self._period_ns

    def tick(self, now_ns: int) -> int:
        """Lateness of this tick [ns]. A timer that fell behind leaves points of the grid out, as rcl timers do."""
        late = max(now_ns - self.due_ns, 0)
        self.ticks += 1
        self.missed += (late + self._period_ns // 2) // self._period_ns
        self.due_ns += (late // self._period_ns + 1) * self._period_ns
        self._lateness_ns.append(late)
        return late

    def percentiles_ms(self) -> dict[str, float]:
        """p50, p99 and max of the recent lateness [ms]; empty before the first tick."""
        if not self._lateness_ns:
            return {}
        values = np.asarray(self._lateness_ns) * 1e-6
        return {"p50": float(np.median(values)), "p99": float(np.percentile(values, 99)), "max": float(values.max())}
