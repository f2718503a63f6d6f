"""Motions: position, velocity and acceleration as (3, D) arrays, as functions of time, and how two are joined."""

from __future__ import annotations

import numpy as np


class Curve:
    """The steps of a chunk as one motion: cubic Hermite, C1, with the slopes of Fritsch and Butland (1984).

    Between two points every joint stays between its two values, so what is inside the limits at the points is inside
    them everywhere. Before the first point the curve stands there, after the last one too; it arrives there at rest.
    """

    def __init__(self, points: np.ndarray, period_s: float) -> None:
        """`points`: (N, D) with N at least 1."""
        self._points = points
        self._period_s = period_s
        secants = np.diff(points, axis=0, append=points[-1:])  # (N, D) per period; nothing moves behind the last point
        before, after = secants[:-1], secants[1:]
        product, total = before * after, before + after
        # The harmonic mean where the direction stays, else 0: an extremum of the points is one of the curve.
        inner = np.divide(2.0 * product, total, out=np.zeros_like(product), where=product > 0.0)
        self._slopes = np.concatenate([secants[:1], inner])

    def at(self, time_s: float) -> np.ndarray:
        """(3, D): position, velocity per s and acceleration per s^2, at a time since the first point."""
        last = len(self._points) - 1
        x = time_s / self._period_s
        if x < 0.0 or x >= last:
            return standing(self._points[0 if x < 0.0 else last])
        k = int(x)
        s = x - k
        p, rise = self._points[k], self._points[k + 1] - self._points[k]
        m, n = self._slopes[k], self._slopes[k + 1]
        square, cube = 3.0 * rise - 2.0 * m - n, m + n - 2.0 * rise
        return np.stack(
            [
                p + s * (m + s * (square + s * cube)),
                (m + s * (2.0 * square + 3.0 * s * cube)) / self._period_s,
                (2.0 * square + 6.0 * s * cube) / self._period_s**2,
            ]
        )


def standing(position: np.ndarray) -> np.ndarray:
    """A motion that stands at `position` (D,)."""
    motion = np.zeros((3, len(position)))
    motion[0] = position
    return motion


def ease(time_s: float, duration_s: float) -> np.ndarray:
    """(3,): a weight that goes from 0 to 1 in `duration_s`, with its two derivatives, which are 0 at both ends."""
    if time_s < 0.0 or time_s >= duration_s:
        return np.array([float(time_s >= 0.0), 0.0, 0.0])
    s = time_s / duration_s
    return np.array(
        [
            s**3 * (10.0 + s * (6.0 * s - 15.0)),
            30.0 * (s * (1.0 - s)) ** 2 / duration_s,
            60.0 * s * (1.0 - s) * (1.0 - 2.0 * s) / duration_s**2,
        ]
    )


def scaled(motion: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """`motion` (3, D) times a weight that changes in time (3,), by the product rule."""
    (p, v, a), (w, dw, ddw) = motion, weight
    return np.stack([w * p, dw * p + w * v, ddw * p + 2.0 * dw * v + w * a])


def cross_fade(old: np.ndarray, new: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """From `old` (3, D) to `new` (3, D) as `weight` (3,) goes from 0 to 1."""
    return old + scaled(new - old, weight)


def average(motions: list[np.ndarray], weights: list[np.ndarray]) -> np.ndarray:
    """Weighted mean (3, D) of motions under weights (3,) that change in time and do not add up to 0."""
    p, v, a = sum(scaled(motion, weight) for motion, weight in zip(motions, weights, strict=True))
    w, dw, ddw = sum(weights)
    position = p / w
    velocity = (v - dw * position) / w
    return np.stack([position, velocity, (a - 2.0 * dw * velocity - ddw * position) / w])
