"""Where a new chunk starts from when it continues the motion in execution (real-time chunking): the executor's plan,
looked up on the steps of the chunk to be made.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from depthvla_control.chunk import MAX_PERIOD_S, MIN_PERIOD_S
from depthvla_control.refusal import Reason, Refusal

# How a chunk continues the motion: not at all, or a method of model/realtime.py.
REALTIME_CHUNKING = ("off", "guided", "trained")


@dataclass(frozen=True)
class Continuation:
    """committed: (n, size) absolute targets for steps 0 to n - 1 of the new chunk, in robot units. delay: how many of
    them will have been executed or approached when the new chunk arrives, 1 to n.
    """

    committed: np.ndarray
    delay: int


@dataclass(frozen=True)
class Plan:
    """What the executor is going to do, step i due at stamp + i * period. Without steps: nothing."""

    stamp_ns: int  # of the observation that its newest chunk was predicted from
    sequence: int  # of that chunk
    period_ns: int
    latency_ns: int  # from an observation to the arrival of its chunk, as chunks of late have needed it
    positions: np.ndarray  # (steps, size) in `Robot` order, rad and mm

    def continuation(self, stamp_ns: int, *, period_ns: int, horizon: int) -> Continuation | None:
        """The plan on the steps of a chunk for an observation at `stamp_ns`, step k at stamp_ns + k * period_ns.

        None when the plan does not reach over the observation. Between two steps of the plan the target lies on the
        line; nothing is extrapolated, so n is the number of steps that the plan covers, at most `horizon`. Alignment is
        by time stamps only: the latency decides how many steps are frozen and never which ones they are.
        """
        begin_ns, last_ns = stamp_ns - self.stamp_ns, (len(self.positions) - 1) * self.period_ns
        if not 0 <= begin_ns <= last_ns:
            return None
        n = min((last_ns - begin_ns) // period_ns + 1, horizon)
        below, rest_ns = np.divmod(begin_ns + period_ns * np.arange(n), self.period_ns)
        above = np.minimum(below + 1, len(self.positions) - 1)
        start, end = self.positions[below], self.positions[above]
        committed = start + (rest_ns / self.period_ns)[:, None] * (end - start)
        # Steps due before the arrival, and the one that the motion is on its way to then.
        delay = -(-self.latency_ns // period_ns) + 1
        return Continuation(committed, min(delay, n))


def check_plan(plan: Plan) -> Refusal | None:
    """A plan is taken whole or not at all."""
    name, period_s = f"plan {plan.sequence}", plan.period_ns * 1e-9
    if not MIN_PERIOD_S <= period_s <= MAX_PERIOD_S:
        text = f"{name} has a step duration of {period_s:g} s; allowed: {MIN_PERIOD_S} to {MAX_PERIOD_S}"
        return Refusal(Reason.WRONG_TIMING, text)
    if plan.latency_ns < 0:
        return Refusal(Reason.WRONG_TIMING, f"{name} has a latency of {plan.latency_ns * 1e-9:g} s; allowed: 0 or more")
    finite = np.isfinite(plan.positions)
    if not finite.all():
        step, index = np.argwhere(~finite)[0]
        return Refusal(Reason.NON_FINITE, f"{name} has a non-finite target at step {step}, position {index}")
    return None
