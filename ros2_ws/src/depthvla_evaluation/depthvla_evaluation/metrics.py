"""Numbers that a report or an evaluation states: depth errors against a reference and intervals around a rate or mean.

Plain numpy; what is measured, not how it is shown.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

Z_95 = 1.959963984540054  # two-sided 95 % quantile of the normal distribution


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
    rate = successes / trials
    scale = 1.0 + Z_95**2 / trials
    centre = (rate + Z_95**2 / (2 * trials)) / scale
    half = Z_95 * math.sqrt(rate * (1 - rate) / trials + Z_95**2 / (4 * trials**2)) / scale
    return max(0.0, centre - half), min(1.0, centre + half)


def bootstrap_interval(values: np.ndarray, resamples: int = 2000, seed: int = 0) -> tuple[float, float]:
    """95 % percentile interval of the mean of (N,) values, by resampling with a fixed seed.

    Raises:
        ValueError: there are no values.
    """
    return _quantiles(_resampled_means(values, resamples, np.random.default_rng(seed)))


def bootstrap_difference(
    first: np.ndarray, second: np.ndarray, resamples: int = 2000, seed: int = 0
) -> tuple[float, float]:
    """95 % percentile interval of mean(first) - mean(second), (N,) and (M,) values resampled independently.

    Raises:
        ValueError: there are no values.
    """
    rng = np.random.default_rng(seed)
    return _quantiles(_resampled_means(first, resamples, rng) - _resampled_means(second, resamples, rng))


def bootstrap_mean_of_means(groups: Sequence[np.ndarray], resamples: int = 2000, seed: int = 0) -> tuple[float, float]:
    """95 % percentile interval of the mean over groups of each group's mean; every group is resampled in itself.

    Raises:
        ValueError: there are no groups, or a group has no values.
    """
    if not groups:
        raise ValueError("an interval needs at least one group")
    rng = np.random.default_rng(seed)
    return _quantiles(np.mean([_resampled_means(group, resamples, rng) for group in groups], axis=0))


def summarise(values: np.ndarray) -> dict[str, float]:
    """p50, p95, max and mean of the finite values; empty when there are none."""
    values = np.asarray(values, dtype=np.float64)
    values = values[np.isfinite(values)]
    if values.size == 0:
        return {}
    p50, p95 = np.quantile(values, [0.5, 0.95])
    return {"p50": float(p50), "p95": float(p95), "max": float(values.max()), "mean": float(values.mean())}


def _resampled_means(values: np.ndarray, resamples: int, rng: np.random.Generator) -> np.ndarray:
    values = np.asarray(values, dtype=np.float64)
    if values.size == 0:
        raise ValueError("an interval needs at least one value")
    return values[rng.integers(0, values.size, size=(resamples, values.size))].mean(axis=1)


def _quantiles(means: np.ndarray) -> tuple[float, float]:
    low, high = np.quantile(means, [0.025, 0.975])
    return float(low), float(high)


def _source_index(axis: int, count: int, camera_matrix: np.ndarray, target_matrix: np.ndarray) -> np.ndarray:
    """Index of the source pixel nearest to each of `count` target pixels along x (axis 0) or y (axis 1)."""
    scale = camera_matrix[axis, axis] / target_matrix[axis, axis]
    position = (np.arange(count) - target_matrix[axis, 2]) * scale + camera_matrix[axis, 2]
    # A position on the border of two pixels belongs to the upper one, whatever the rounding of the matrices.
    return np.floor(position + 0.5 + 1e-6).astype(int)
