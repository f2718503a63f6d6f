"""How long functions take, waiting for the device."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

import numpy as np
import torch


def percentiles(
    functions: Mapping[str, Callable[[], object]], runs: int, device: str, repeats: Mapping[str, int] | None = None
) -> dict[str, dict[str, float]]:
    """Of each function p50 and p99 in milliseconds over `runs`, after a warm-up of a tenth as many. They take turns, so
    that what else the machine does meets all of them.

    repeats: of functions that do more than once what is measured; the figures are of one.
    """
    warm_up = max(1, runs // 10)
    took = {name: [] for name in functions}
    for _ in range(warm_up + runs):
        for name, function in functions.items():
            took[name] += durations_ms(function, 1, device)
    return {name: _rounded(np.array(times[warm_up:]) / (repeats or {}).get(name, 1)) for name, times in took.items()}


def durations_ms(function: Callable[[], object], runs: int, device: str) -> list[float]:
    """Of each of `runs` calls, in their order."""
    wait = torch.cuda.synchronize if device.startswith("cuda") else lambda: None
    took = []
    for _ in range(runs):
        wait()
        begin = time.perf_counter()
        function()
        wait()
        took.append((time.perf_counter() - begin) * 1e3)
    return took


def _rounded(times_ms: np.ndarray) -> dict[str, float]:
    return {f"p{q}": round(float(np.percentile(times_ms, q)), 4) for q in (50, 99)}
