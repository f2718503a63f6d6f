"""Numbers that a report or an evaluation states: depth errors against a reference and intervals around a rate or mean.

numpy and scipy; what is measured, not how it is shown.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

RESAMPLES = 2000
LEAST_VALUES = 5  # of a bootstrap interval: resamples of fewer hardly differ, and the interval is far too narrow


@dataclass(frozen=True)
class DepthErrors:
    """Errors of one depth image over its valid pixels (Eigen et al., 2014)."""

    abs_rel: float  # mean |predicted - true| / true
    sq_rel: float  # mean (predicted - true)^2 / true [m]
    rmse_m: float  # root of the mean squared error [m]
    rmse_log: float  # the same of natural logarithms
    log10: float  # mean |log10 predicted - log10 true|
    si_log: (
        float  # root of (mean y^2 - 0.5 (mean y)^2), y = ln predicted - ln true: the loss the network is trained with
    )
    delta_1: float  # share of pixels with max(predicted / true, true / predicted) < 1.25
    delta_2: float  # below 1.25^2
    delta_3: float  # below 1.25^3
    pixels: int  # number of valid pixels


def depth_errors(predicted_m: np.ndarray, true_m: np.ndarray) -> DepthErrors | None:
    """Compare two depth images [m] of the same shape where both are finite and positive; None where that is nowhere.

    Raises:
        ValueError: the shapes differ.
    """
    if predicted_m.shape != true_m.shape:
        raise ValueError(f"depth images differ in shape: predicted {predicted_m.shape}, true {true_m.shape}")
    valid = np.isfinite(predicted_m) & np.isfinite(true_m) & (predicted_m > 0) & (true_m > 0)
    if not valid.any():
        return None
    predicted = predicted_m[valid].astype(np.float64)
    true = true_m[valid].astype(np.float64)
    error = predicted - true
    y = np.log(predicted) - np.log(true)
    ratio = np.exp(np.abs(y))
    return DepthErrors(
        abs_rel=float(np.mean(np.abs(error) / true)),
        sq_rel=float(np.mean(error**2 / true)),
        rmse_m=float(np.sqrt(np.mean(error**2))),
        rmse_log=float(np.sqrt(np.mean(y**2))),
        log10=float(np.mean(np.abs(y)) / math.log(10.0)),
        si_log=float(np.sqrt(max(0.0, np.mean(y**2) - 0.5 * np.mean(y) ** 2))),
        delta_1=float(np.mean(ratio < 1.25)),
        delta_2=float(np.mean(ratio < 1.25**2)),
        delta_3=float(np.mean(ratio < 1.25**3)),
        pixels=int(valid.sum()),
    )


def resample(
    depth_m: np.ndarray, camera_matrix: np.ndarray, target_matrix: np.ndarray, target_shape: tuple[int, int]
) -> np.ndarray:
    """See a depth image [m] through another camera matrix at the same place: nearest sample, NaN outside.

    Between a camera's matrix and the one of the square image that the policy sees, this is `ImageFit.apply_depth`;
    a recording states both matrices (CameraInfo), so no fit needs to be known.

    depth_m: (H, W); camera_matrix, target_matrix: (3, 3), pixel centres at integer coordinates.
    Returns (h, w) float32.
    """
    height, width = depth_m.shape
    rows = _source_index(1, target_shape[0], camera_matrix, target_matrix)
    columns = _source_index(0, target_shape[1], camera_matrix, target_matrix)
    inside = ((rows >= 0) & (rows < height))[:, None] & ((columns >= 0) & (columns < width))[None, :]
    sampled = depth_m[np.ix_(np.clip(rows, 0, height - 1), np.clip(columns, 0, width - 1))]
    return np.where(inside, sampled, np.nan).astype(np.float32)


def wilson_interval(successes: int, trials: int) -> tuple[float, float]:
    """95 % interval of a success rate (Wilson, 1927), which stays sensible at 0, at 1 and for few trials.

    Raises:
        ValueError: no trials, or more successes than trials.
    """
    if trials <= 0 or not 0 <= successes <= trials:
        raise ValueError(f"{successes} successes in {trials} trials; need trials above 0 and successes within them")
    interval = stats.binomtest(successes, trials).proportion_ci(method="wilson")
    return float(interval.low), float(interval.high)


def bootstrap_interval(values: np.ndarray) -> tuple[float, float] | None:
    """95 % percentile interval of the mean of (N,) values, by resampling with a fixed seed.

    None below LEAST_VALUES, and where all are equal: then resampling cannot tell how far others would be.

    Raises:
        ValueError: there are no values.
    """
    return bootstrap_mean_of_means([values])


def bootstrap_difference(first: np.ndarray, second: np.ndarray) -> tuple[float, float] | None:
    """The same of mean(first) - mean(second), (N,) and (M,) values resampled independently."""
    return _bootstrap((first, second), lambda a, b, axis: a.mean(axis=axis) - b.mean(axis=axis))


def bootstrap_mean_of_means(groups: Sequence[np.ndarray]) -> tuple[float, float] | None:
    """The same of the mean over groups of each group's mean; every group is resampled in itself."""
    return _bootstrap(groups, lambda *drawn, axis: np.mean([group.mean(axis=axis) for group in drawn], axis=0))


def spread_is_known(samples: Sequence[np.ndarray]) -> bool:
    """Whether a bootstrap of these tells anything: all have LEAST_VALUES, and in one at least they differ."""
    return all(len(values) >= LEAST_VALUES for values in samples) and any(np.ptp(v) > 1e-9 for v in samples)


def _bootstrap(samples: Sequence[np.ndarray], statistic: Callable) -> tuple[float, float] | None:
    if not samples or not all(len(values) for values in samples):
        raise ValueError("an interval needs at least one value, in every group")
    if not spread_is_known(samples):
        return None
    drawn = stats.bootstrap(
        samples, statistic, n_resamples=RESAMPLES, method="percentile", rng=np.random.default_rng(0)
    ).confidence_interval
    return float(drawn.low), float(drawn.high)


def summarise(values: np.ndarray) -> dict[str, float]:
    """p50, p95, max and mean of the finite values; empty when there are none."""
    values = np.asarray(values, dtype=np.float64)
    values = values[np.isfinite(values)]
    if values.size == 0:
        return {}
    p50, p95 = np.quantile(values, [0.5, 0.95])
    return {"p50": float(p50), "p95": float(p95), "max": float(values.max()), "mean": float(values.mean())}


def _source_index(axis: int, count: int, camera_matrix: np.ndarray, target_matrix: np.ndarray) -> np.ndarray:
    """Index of the source pixel nearest to each of `count` target pixels along x (axis 0) or y (axis 1)."""
    scale = camera_matrix[axis, axis] / target_matrix[axis, axis]
    position = (np.arange(count) - target_matrix[axis, 2]) * scale + camera_matrix[axis, 2]
    # A position on the border of two pixels belongs to the upper one, whatever the rounding of the matrices.
    return np.floor(position + 0.5 + 1e-6).astype(int)
