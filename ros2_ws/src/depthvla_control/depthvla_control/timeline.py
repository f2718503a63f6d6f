"""The motion that the chunks taken so far add up to. How an old chunk and a new one are joined is decided here.

Every step has an absolute time, its chunk's observation stamp plus a multiple of the period. What is past is never made
up for, and nothing is aligned by an estimated delay.

replace   the newest chunk alone; where it differs from the one before there is a step, left to the shaper
blend     from the motion so far to the newest chunk within `blend_s`, without a step in position or velocity
ensemble  mean of all chunks that reach over this moment; an older observation counts less
rtc       joined as in `blend`; the policy has made the chunk a continuation of the motion (see `plan`)
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from depthvla_control.chunk import Chunk
from depthvla_control.refusal import Reason, Refusal
from depthvla_control.trajectory import Curve, average, cross_fade, ease

STRATEGIES = ("replace", "blend", "ensemble", "rtc")
MAX_TRACKS = 32  # a chunk of 1 s at 30 Hz; older ones no longer count for anything


@dataclass(frozen=True)
class Due:
    motion: np.ndarray  # (3, 14) wanted position, velocity and acceleration of this very moment; rad, mm and s
    step: int  # of the newest chunk: the step in force; its successor is being approached
    steps_left: int  # steps of it that are still to come
    sequence: int
    age_ns: int  # now - observation stamp


@dataclass(frozen=True)
class _Track:
    chunk: Chunk
    curve: Curve
    begin_ns: int  # from when on it counts

    def at(self, now_ns: int) -> np.ndarray:
        return self.curve.at((now_ns - self.chunk.stamp_ns) * 1e-9)


class Timeline:
    """Takes chunks and answers what is due. Times are int nanoseconds of one clock."""

    def __init__(
        self,
        strategy: str = "blend",
        *,
        blend_s: float = 0.1,
        ensemble_decay_per_s: float = 5.0,
        max_future_s: float = 0.05,
    ) -> None:
        """`max_future_s`: how far a stamp may be ahead of this clock; such a chunk starts with its first step.

        Raises ValueError for a strategy that is not one of STRATEGIES.
        """
        if strategy not in STRATEGIES:
            raise ValueError(f"strategy is {strategy!r}; allowed: {', '.join(STRATEGIES)}")
        self._strategy = strategy
        self._blend_s, self._decay_per_s = blend_s, ensemble_decay_per_s
        self._max_future_ns = round(max_future_s * 1e9)
        self._tracks: list[_Track] = []  # oldest first
        self._asked_ns: int | None = None  # moment of the newest answer: what was wanted then has been commanded

    @property
    def chunk(self) -> Chunk | None:
        """The newest accepted chunk, run out or not."""
        return self._tracks[-1].chunk if self._tracks else None

    def clear(self) -> None:
        self._tracks.clear()

    def offer(self, chunk: Chunk, now_ns: int) -> Refusal | None:
        """Accepts or refuses a chunk that passed `check_chunk`.

        While the present chunk lasts, a newcomer needs a higher sequence; once it has run out, a restarted policy may
        begin anew. A newer observation is needed at any time.
        """
        name, ahead_ns = f"chunk {chunk.sequence}", chunk.stamp_ns - now_ns
        if ahead_ns > self._max_future_ns:
            limit = self._max_future_ns * 1e-9
            text = f"{name} is stamped {ahead_ns * 1e-9:.3f} s ahead of this clock (limit {limit:.3f} s)"
            return Refusal(Reason.FUTURE, text)
        if chunk.end_ns <= now_ns:
            past = (now_ns - chunk.end_ns) * 1e-9
            text = f"{name} came {past:.3f} s after its last step (age {-ahead_ns * 1e-9:.3f} s)"
            return Refusal(Reason.EXPIRED, text)
        present = self.chunk
        if present is not None:
            if chunk.stamp_ns <= present.stamp_ns:
                return Refusal(Reason.OLD, f"{name} is not from a newer observation than chunk {present.sequence}")
            # Run out is what was seen to run out: between two ticks nobody has come to a stand yet.
            ran_out = present.end_ns <= (now_ns if self._asked_ns is None else self._asked_ns)
            if not ran_out and chunk.sequence <= present.sequence:
                return Refusal(Reason.OLD, f"{name} is not newer than chunk {present.sequence}")
            if ran_out:
                self.clear()  # the motion came to its end; the new one does not start from there
        # It counts from the last command on: beginning only now, it would be a tick late.
        begin_ns = now_ns if self._asked_ns is None else min(self._asked_ns, now_ns)
        self._tracks.append(_Track(chunk, Curve(chunk.positions, chunk.period_ns * 1e-9), begin_ns))
        self._forget(now_ns)
        return None

    def due(self, now_ns: int) -> Due | None:
        """What is wanted at this moment; None when there is no chunk or its last step is over."""
        chunk = self.chunk
        self._asked_ns = now_ns
        if chunk is None or now_ns >= chunk.end_ns:
            return None
        age_ns = now_ns - chunk.stamp_ns
        step = max(age_ns, 0) // chunk.period_ns
        return Due(self._motion(now_ns), step, chunk.steps - 1 - step, chunk.sequence, age_ns)

    def plan(self) -> np.ndarray | None:
        """(steps, 14) positions of the motion at the steps of the newest chunk, as far as is known now.

        What lies before the arrival of that chunk is what was wanted then.
        """
        chunk = self.chunk
        if chunk is None:
            return None
        return np.stack([self._motion(chunk.due_ns(step))[0] for step in range(chunk.steps)])

    def _motion(self, time_ns: int) -> np.ndarray:
        """From goal to goal: each newcomer brings another one, which is gone over to within `blend_s`."""
        first = self._first(time_ns)
        motion = self._goal(first, time_ns)
        for index in range(first + 1, len(self._tracks)):
            fade = self._fade_in(self._tracks[index], time_ns)
            motion = cross_fade(motion, self._goal(index, time_ns), fade)
        return motion

    def _goal(self, newest: int, time_ns: int) -> np.ndarray:
        """What the chunks up to `newest` ask for."""
        track = self._tracks[newest]
        if self._strategy != "ensemble":
            return track.at(time_ns)
        motions, weights = [track.at(time_ns)], [np.array([1.0, 0.0, 0.0])]
        for older in self._tracks[:newest]:
            left_s = (older.chunk.end_ns - time_ns) * 1e-9
            if left_s > 0.0:
                age_s = (track.chunk.stamp_ns - older.chunk.stamp_ns) * 1e-9
                fade_out = ease(left_s, self._blend_s) * np.array([1.0, -1.0, 1.0])  # time left runs backwards
                motions.append(older.at(time_ns))
                weights.append(fade_out * math.exp(-self._decay_per_s * age_s))
        return average(motions, weights)

    def _first(self, time_ns: int) -> int:
        """Index of the newest chunk that has been gone over to wholly."""
        done = (i for i in reversed(range(1, len(self._tracks))) if self._fade_in(self._tracks[i], time_ns)[0] >= 1.0)
        return next(done, 0)

    def _fade_in(self, track: _Track, time_ns: int) -> np.ndarray:
        duration_s = 0.0 if self._strategy == "replace" else self._blend_s
        return ease((time_ns - track.begin_ns) * 1e-9, duration_s)

    def _forget(self, now_ns: int) -> None:
        """Drops chunks that no longer count."""
        over = [track.chunk.end_ns <= now_ns for track in self._tracks[: self._first(now_ns)]]
        ended = over.index(False) if False in over else len(over)
        del self._tracks[: max(ended, len(self._tracks) - MAX_TRACKS)]
