"""A policy behind an adapter: a client's observation in, its answer out. No network here."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import numpy as np

from depthvla_policy.policy.observation import Observation
from depthvla_policy.serving import protocol
from depthvla_policy.serving.adapters import Adapter

if TYPE_CHECKING:
    from depthvla_policy.policy.policy import Policy


class Service:
    """Not thread-safe, as the policy is not."""

    def __init__(self, policy: Policy, adapter: Adapter, seed: int | None = None) -> None:
        """seed: of every chunk's noise, so that the same observation has the same chunk.

        Raises:
            ValueError: the policy does not fit the adapter.
        """
        adapter.check(policy.config)
        self._policy, self._adapter, self._seed = policy, adapter, seed

    @property
    def metadata(self) -> dict[str, object]:
        """What a client is told first."""
        policy = self._policy
        return {
            "model_id": policy.model_id,
            "robot": policy.config.policy.robot,
            "cameras": list(policy.cameras),
            "image_size": policy.image_fit.size,
            "image_fit": policy.image_fit.fit,
            "horizon": policy.horizon,
            "control_rate_hz": policy.config.policy.control_rate_hz,
            "seed": self._seed,
            **self._adapter.describe(policy.cameras),
        }

    def warm_up(self) -> float:
        """Do now what only the first chunk would wait for, on black images; how long it took [s]."""
        begin = time.perf_counter()
        self._policy.prepare()
        images = {camera: np.zeros((180, 320, 3), np.uint8) for camera in self._policy.cameras}
        self._policy.infer(Observation(0, images, self._policy.stats.state_mean, "warm up"))
        return time.perf_counter() - begin

    def answer(self, request: bytes) -> dict[str, object]:
        """The answer to a packed observation: the adapter's fields, and the time that the policy took.

        Raises:
            ValueError: the observation is not what the adapter or the policy takes; the message says what is.
            RuntimeError: the chunk is not finite.
        """
        observation = self._adapter.observation(protocol.unpack(request), self._policy.cameras)
        begin = time.perf_counter()
        actions = self._policy.infer(observation, seed=self._seed).actions
        infer_ms = (time.perf_counter() - begin) * 1e3
        if not np.all(np.isfinite(actions)):
            raise RuntimeError(f"the chunk is not finite for the state {observation.state.tolist()}")
        return {**self._adapter.answer(actions), "server_timing": {"infer_ms": infer_ms}}
