"""Statistics of single features as LeRobot stores them, for an episode and for a whole dataset.

What the policy normalises with is another matter: `data.statistics`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

QUANTILES = {"q01": 0.01, "q10": 0.10, "q50": 0.50, "q90": 0.90, "q99": 0.99}

Stats = dict[str, np.ndarray]


def of_numbers(values: np.ndarray) -> Stats:
    """Of (N, D) numbers: (D,) each, and the count (1,). Rows that are not finite do not count; 0 where none does."""
    values = np.asarray(values, dtype=np.float64)
    finite = values[np.isfinite(values).all(axis=1)]
    count = np.array([len(finite)])
    values = finite if len(finite) else np.zeros((1, values.shape[1]))
    quantiles = np.quantile(values, list(QUANTILES.values()), axis=0)
    return {
        **_moments(values),
        **dict(zip(QUANTILES, quantiles, strict=True)),
        "count": count,
    }


def of_pictures(pictures: Sequence[np.ndarray], frames: int) -> Stats:
    """Of sampled (H, W, channels) pictures of `frames` frames: (channels, 1, 1) each. RGB counts from 0 to 1."""
    pixels = np.concatenate([picture.reshape(-1, picture.shape[-1]) for picture in pictures]).astype(np.float64)
    if pictures[0].dtype == np.uint8:
        pixels /= 255.0
    moments = {name: value[:, None, None] for name, value in _moments(pixels).items()}
    return {**moments, "count": np.array([frames])}


def merge(parts: Sequence[Mapping[str, np.ndarray]]) -> Stats:
    """Of several episodes together; one in which nothing was counted does not count. Moments are exact, a quantile is
    the mean of theirs, as in LeRobot's own merge.
    """
    parts = [part for part in parts if part["count"][0]] or parts[:1]
    count = np.array([max(1, part["count"][0]) for part in parts], dtype=np.float64)
    weight = (count / count.sum()).reshape(-1, *[1] * parts[0]["mean"].ndim)
    mean = np.sum(weight * np.stack([part["mean"] for part in parts]), axis=0)
    spread = np.stack([part["std"] ** 2 + (part["mean"] - mean) ** 2 for part in parts])
    merged = {
        "min": np.min([part["min"] for part in parts], axis=0),
        "max": np.max([part["max"] for part in parts], axis=0),
        "mean": mean,
        "std": np.sqrt(np.sum(weight * spread, axis=0)),
        "count": np.sum([part["count"] for part in parts], axis=0),
    }
    for name in QUANTILES:
        if all(name in part for part in parts):
            merged[name] = np.sum(weight * np.stack([part[name] for part in parts]), axis=0)
    return merged


def _moments(values: np.ndarray) -> Stats:
    return {"min": values.min(0), "max": values.max(0), "mean": values.mean(0), "std": values.std(0)}
