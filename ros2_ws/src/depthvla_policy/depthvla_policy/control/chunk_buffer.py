"""Which target of the predicted ones is due now. How an old chunk and a new one are joined is decided here."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from depthvla_policy.control.chunk import Chunk
from depthvla_policy.control.refusal import Reason, Refusal


@dataclass(frozen=True)
class Due:
    positions: np.ndarray  # (14,) the target at this very moment, rad and mm
    step: int  # the step in force; its successor is being approached
    steps_left: int  # steps that are still to come
    sequence: int
    age_ns: int  # now - observation stamp


class ChunkBuffer:
    """Holds the newest chunk; a newer one replaces it.

    The target at time t lies on the straight line between the two steps around t, so that the motion is in time
    although a control tick rarely coincides with a step. Steps that are past are never made up for.
    """

    def __init__(self, max_future_ns: int = 50_000_000) -> None:
        """`max_future_ns`: how far a stamp may be ahead of this clock; such a chunk starts with its first step."""
        self._max_future_ns = max_future_ns
        self._chunk: Chunk | None = None

    def offer(self, chunk: Chunk, now_ns: int) -> Refusal | None:
        """Accepts or refuses a chunk that passed `check_chunk`.

        While the present chunk lasts, a newcomer needs a higher sequence and the same model. Once it has run out, a
        restarted or another policy may take over. A newer observation is needed at any time.
        """
        name, ahead = f"chunk {chunk.sequence}", (chunk.stamp_ns - now_ns) * 1e-9
        if chunk.stamp_ns - now_ns > self._max_future_ns:
            limit = self._max_future_ns * 1e-9
            return Refusal(Reason.FUTURE, f"{name} is stamped {ahead:.3f} s ahead of this clock (limit {limit:.3f} s)")
        if chunk.end_ns <= now_ns:
            past = (now_ns - chunk.end_ns) * 1e-9
            return Refusal(Reason.EXPIRED, f"{name} came {past:.3f} s after its last step (age {-ahead:.3f} s)")
        present = self._chunk
        if present is not None:
            if chunk.stamp_ns <= present.stamp_ns:
                return Refusal(Reason.OLD, f"{name} is not from a newer observation than chunk {present.sequence}")
            if present.end_ns > now_ns:
                if chunk.model_id != present.model_id:
                    text = f"{name} is from model {chunk.model_id!r}; {present.model_id!r} is in force"
                    return Refusal(Reason.OTHER_MODEL, text)
                if chunk.sequence <= present.sequence:
                    return Refusal(Reason.OLD, f"{name} is not newer than chunk {present.sequence}")
        self._chunk = chunk
        return None

    def due(self, now_ns: int) -> Due | None:
        """The target of this moment; None when there is no chunk or its last step is over."""
        chunk = self._chunk
        if chunk is None or now_ns >= chunk.end_ns:
            return None
        elapsed = max(now_ns - chunk.stamp_ns, 0)
        step, rest_ns = divmod(elapsed, chunk.period_ns)
        following = min(step + 1, chunk.steps - 1)
        share = rest_ns / chunk.period_ns
        positions = (1.0 - share) * chunk.positions[step] + share * chunk.positions[following]
        return Due(positions, step, chunk.steps - 1 - step, chunk.sequence, now_ns - chunk.stamp_ns)

    @property
    def chunk(self) -> Chunk | None:
        """The newest accepted chunk, run out or not."""
        return self._chunk

    def clear(self) -> None:
        self._chunk = None
