"""States and action chunks in robot units to and from the scale the network works in.

Arm joints of an action are relative to the state the chunk was predicted from; grippers stay absolute. Action
statistics are per step of the chunk, since step 16 moves further than step 1.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from r1lite_description import files

STD_FLOOR = 0.01  # rad and mm: a joint that never moved in the data must not blow noise up
KINDS = ("z_score", "quantile")
QUANTILES = (0.01, 0.99)
PARTS = ("state", "actions")
FIELDS = {"z_score": ("mean", "std"), "quantile": ("q01", "q99")}


@dataclass(frozen=True)
class Normaliser:
    """Statistics of one dataset, subtracted and divided by.

    state_mean, state_std: (size,). action_mean, action_std: (horizon, size), of relative actions.
    absolute: (size,) bool, True for the entries of an action that are not relative to the state (grippers).
    kind: "z_score" has mean and standard deviation; "quantile" has in their place the middle between the 1 % and 99 %
    quantiles and half the way between them, so that most values lie between -1 and 1 (openpi, transforms.py).
    """

    state_mean: np.ndarray
    state_std: np.ndarray
    action_mean: np.ndarray
    action_std: np.ndarray
    absolute: np.ndarray
    kind: str = "z_score"

    @classmethod
    def fit(cls, states: np.ndarray, actions: np.ndarray, absolute: np.ndarray, *, kind: str = "z_score") -> Normaliser:
        """Statistics of states (N, size) and of the absolute action chunks (N, horizon, size) that follow them. A chunk
        that is not known, and not finite for that, is left out.

        Raises:
            ValueError: `kind` is not one of `KINDS`, or no chunk is known.
        """
        relative = actions - np.where(absolute, 0.0, states)[:, None]
        relative = relative[np.isfinite(relative).all(axis=(1, 2))]
        if not len(relative):
            raise ValueError("no action is known; statistics need some")
        return cls(*_scale(states, kind), *_scale(relative, kind), np.asarray(absolute, dtype=bool), kind)

    def state(self, state: np.ndarray) -> np.ndarray:
        """(..., size) robot units -> the network's scale."""
        return (state - self.state_mean) / self.state_std

    def actions(self, actions: np.ndarray, state: np.ndarray) -> np.ndarray:
        """Absolute chunk (..., horizon, size) and its state (..., size) -> the network's scale."""
        relative = actions - np.where(self.absolute, 0.0, state)[..., None, :]
        return (relative - self.action_mean) / self.action_std

    def absolute_actions(self, normalised: np.ndarray, state: np.ndarray) -> np.ndarray:
        """Inverse of `actions`: (..., horizon, size) in the network's scale -> absolute targets in robot units."""
        relative = normalised * self.action_std + self.action_mean
        return relative + np.where(self.absolute, 0.0, state)[..., None, :]

    def save(self, path: Path) -> None:
        stats = {
            "kind": self.kind,
            "state": _stored(self.state_mean, self.state_std, self.kind),
            "actions": _stored(self.action_mean, self.action_std, self.kind),
            "absolute": self.absolute.tolist(),
        }
        path.write_text(json.dumps({"norm_stats": stats}) + "\n")

    @classmethod
    def load(cls, path: Path, *, horizon: int | None = None, size: int | None = None) -> Normaliser:
        """Read `norm_stats.json`. A file that does not say its kind has z-scores.

        horizon, size: what the network and the robot have; None takes what the file has, as long as it is one.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: the kind is unknown, a key is missing, a shape is not the one that is wanted, a value is not
                finite or a standard deviation (half the way between the quantiles) is not above 0.
        """
        contents = files.read_json(path, "normalisation statistics")
        try:
            stats = contents["norm_stats"]
            kind = stats.get("kind", "z_score")
            if kind not in KINDS:
                raise ValueError(f"kind is {kind!r}; allowed: {', '.join(KINDS)}")
            names, absolute = FIELDS[kind], stats.get("absolute")
            found = {(of, name): _numbers(stats[of][name], f"{of}.{name}") for of in PARTS for name in names}
            size = found["state", names[0]].size if size is None else size
            horizon = len(np.atleast_1d(found["actions", names[0]])) if horizon is None else horizon
            for (of, name), values in found.items():
                shape = (size,) if of == "state" else (horizon, size)
                if values.shape != shape:
                    raise ValueError(f"{of}.{name} has shape {values.shape}, not {shape}{_foreign(stats)}")
            if not isinstance(absolute, list) or [type(value) for value in absolute] != [bool] * size:
                raise ValueError(f"absolute is {absolute!r}; it must be {size} times true or false{_foreign(stats)}")
        except (AttributeError, KeyError, TypeError) as error:
            raise ValueError(f"{path}: not normalisation statistics ({error!r})") from error
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error
        scales = [_middle_and_half(*(found[of, name] for name in names), kind) for of in PARTS]
        for of, (_, scale) in zip(PARTS, scales, strict=True):
            if not np.all(scale > 0):
                spread = "ways between quantiles" if kind == "quantile" else "standard deviations"
                raise ValueError(f"{path}: {of} statistics must have {spread} above 0")
        return cls(*scales[0], *scales[1], np.array(absolute), kind)


def _scale(values: np.ndarray, kind: str) -> tuple[np.ndarray, np.ndarray]:
    """What is subtracted from (N, ...) values, and what they are divided by."""
    if kind == "z_score":
        return values.mean(0), np.maximum(values.std(0), STD_FLOOR)
    if kind == "quantile":
        low, high = np.quantile(values, QUANTILES, axis=0)
        return (low + high) / 2, np.maximum((high - low) / 2, STD_FLOOR)
    raise ValueError(f"kind is {kind!r}; allowed: {', '.join(KINDS)}")


def _stored(middle: np.ndarray, scale: np.ndarray, kind: str) -> dict[str, list]:
    if kind == "quantile":
        return {"q01": (middle - scale).tolist(), "q99": (middle + scale).tolist()}
    return {"mean": middle.tolist(), "std": scale.tolist()}


def _middle_and_half(first: np.ndarray, second: np.ndarray, kind: str) -> tuple[np.ndarray, np.ndarray]:
    return ((first + second) / 2, (second - first) / 2) if kind == "quantile" else (first, second)


def _numbers(stored: object, name: str) -> np.ndarray:
    try:
        values = np.array(stored, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name} is not numbers in rows of one length") from error
    if not np.all(np.isfinite(values)):
        raise ValueError(f"{name} is not finite")
    return values


def _foreign(stats: dict) -> str:
    """A word about statistics of openpi, which have one row for all steps and do not say what is absolute."""
    if "absolute" in stats:
        return ""
    return "; in openpi's file, as this may be, statistics are of other actions: compute them from demonstrations"
