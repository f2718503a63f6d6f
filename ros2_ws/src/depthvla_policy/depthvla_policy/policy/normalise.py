"""States and action chunks in robot units to and from the z-scores the network works in.

Arm joints of an action are relative to the state the chunk was predicted from; grippers stay absolute. Action
statistics are per step of the chunk, since step 16 moves further than step 1.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

STD_FLOOR = 0.01  # rad and mm: a joint that never moved in the data must not blow noise up


@dataclass(frozen=True)
class Normaliser:
    """z-score statistics of one dataset.

    state_mean, state_std: (size,). action_mean, action_std: (horizon, size), of relative actions.
    absolute: (size,) bool, True for the entries of an action that are not relative to the state (grippers).
    """

    state_mean: np.ndarray
    state_std: np.ndarray
    action_mean: np.ndarray
    action_std: np.ndarray
    absolute: np.ndarray

    @classmethod
    def fit(cls, states: np.ndarray, actions: np.ndarray, absolute: np.ndarray) -> Normaliser:
        """Statistics of states (N, size) and of the absolute action chunks (N, horizon, size) that follow them."""
        relative = actions - np.where(absolute, 0.0, states)[:, None]
        return cls(
            state_mean=states.mean(0),
            state_std=np.maximum(states.std(0), STD_FLOOR),
            action_mean=relative.mean(0),
            action_std=np.maximum(relative.std(0), STD_FLOOR),
            absolute=np.asarray(absolute, dtype=bool),
        )

    def state(self, state: np.ndarray) -> np.ndarray:
        """(..., size) robot units -> z-scores."""
        return (state - self.state_mean) / self.state_std

    def actions(self, actions: np.ndarray, state: np.ndarray) -> np.ndarray:
        """Absolute chunk (..., horizon, size) and its state (..., size) -> z-scores."""
        relative = actions - np.where(self.absolute, 0.0, state)[..., None, :]
        return (relative - self.action_mean) / self.action_std

    def absolute_actions(self, normalised: np.ndarray, state: np.ndarray) -> np.ndarray:
        """Inverse of `actions`: z-scores (..., horizon, size) -> absolute targets in robot units."""
        relative = normalised * self.action_std + self.action_mean
        return relative + np.where(self.absolute, 0.0, state)[..., None, :]

    def save(self, path: Path) -> None:
        stats = {
            "state": {"mean": self.state_mean.tolist(), "std": self.state_std.tolist()},
            "actions": {"mean": self.action_mean.tolist(), "std": self.action_std.tolist()},
            "absolute": self.absolute.tolist(),
        }
        path.write_text(json.dumps({"norm_stats": stats}) + "\n")

    @classmethod
    def load(cls, path: Path) -> Normaliser:
        """Read `norm_stats.json`.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: a key is missing, a value is not finite or a standard deviation is not above 0.
        """
        if not path.exists():
            raise FileNotFoundError(f"normalisation statistics {path} do not exist")
        try:
            stats = json.loads(path.read_text())["norm_stats"]
            normaliser = cls(
                state_mean=np.array(stats["state"]["mean"], dtype=np.float64),
                state_std=np.array(stats["state"]["std"], dtype=np.float64),
                action_mean=np.array(stats["actions"]["mean"], dtype=np.float64),
                action_std=np.array(stats["actions"]["std"], dtype=np.float64),
                absolute=np.array(stats["absolute"], dtype=bool),
            )
        except (KeyError, TypeError, json.JSONDecodeError) as error:
            raise ValueError(f"{path}: not normalisation statistics ({error!r})") from error
        for name in ("state", "action"):
            mean, std = getattr(normaliser, f"{name}_mean"), getattr(normaliser, f"{name}_std")
            if not (np.all(np.isfinite(mean)) and np.all(np.isfinite(std)) and np.all(std > 0)):
                raise ValueError(f"{path}: {name} statistics must be finite with standard deviations above 0")
        return normaliser
