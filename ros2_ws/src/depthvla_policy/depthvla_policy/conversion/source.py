"""The tensors of a published checkpoint: one file, or the shards of a folder, read one tensor at a time."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from r1lite_description import files

SUFFIXES, INDEX = (".safetensors", ".pth", ".pt"), "model.safetensors.index.json"
NAMED_IN_ERRORS = 8  # tensors; a file of the wrong kind has hundreds to complain about
WANTED = "a file of tensors"
# Where training scripts keep the weights in a .pth that holds more, and what wrappers put in front of every name.
NESTED = ("model", "state_dict", "model_state_dict", "module")
WRAPPERS = ("module.", "_orig_mod.")


class Source:
    """The tensors of a file or folder, read one at a time.

    Raises:
        FileNotFoundError: the path, or a shard that its index names, does not exist.
        ValueError: the path is no checkpoint, cannot be read or is ambiguous, or a shard lacks a tensor that the index
            says it holds.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        shards, promised = _files(path)
        held = {file: _tensors(file) for file in shards}
        for key, file in promised.items():
            if key not in held[file]:
                raise ValueError(f"{path}: the index says that {file.name} holds {key!r}, which it does not")
        self._tensors = _unwrapped({key: entry for tensors in held.values() for key, entry in tensors.items()})

    def keys(self) -> list[str]:
        return list(self._tensors)

    def shape(self, key: str) -> tuple[int, ...]:
        return self._tensors[key][0]

    def tensor(self, key: str) -> Tensor:
        with files.reading(self._tensors[key][2], WANTED):
            tensor = self._tensors[key][1]()
        if not tensor.is_floating_point():
            raise ValueError(f"{self.path}: {key!r} holds {tensor.dtype}, not floating-point numbers")
        return tensor


def some(names: list, most: int = NAMED_IN_ERRORS) -> str:
    """The first of them for an error text, and how many there are more."""
    rest = len(names) - most
    return ", ".join(str(name) for name in names[:most]) + (f" and {rest} more" if rest > 0 else "")


def _files(path: Path) -> tuple[list[Path], dict[str, Path]]:
    """The files that hold a source's tensors and, of a sharded one, which tensor its index says is in which."""
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist")
    index = path / INDEX if path.is_dir() else path
    if index.name == INDEX and index.exists():
        contents = files.read_json(index, "the index of a sharded checkpoint")
        try:
            promised = {key: index.parent / name for key, name in contents["weight_map"].items()}
        except (AttributeError, KeyError, TypeError) as error:
            raise ValueError(f"{index} has no weight_map of tensor to file") from error
        shards = sorted(set(promised.values()))
        if absent := [file.name for file in shards if not file.exists()]:
            raise FileNotFoundError(f"{index} names {', '.join(absent)}, which do not exist")
        return shards, promised
    if path.is_file():
        return [path], {}
    candidates = sorted(file for file in path.iterdir() if file.suffix in SUFFIXES)
    if path / "model.safetensors" in candidates:
        return [path / "model.safetensors"], {}
    if len(candidates) != 1:
        raise ValueError(f"{path} has {len(candidates)} files of tensors and no index; name one: {some(candidates)}")
    return candidates, {}


Entry = tuple[tuple[int, ...], Callable[[], Tensor], Path]  # shape, how the tensor is read, and its file


def _tensors(file: Path) -> dict[str, Entry]:
    """Name -> tensor. A .pth file is in memory as a whole."""
    if file.suffix == ".safetensors":
        with files.reading(file, f"{WANTED} (safetensors)"):
            # Read, not mapped: every tensor is read once, and pages of a mapped file would stay resident.
            opened = safe_open(file, framework="pt", backend="pread")
            return {
                key: (tuple(opened.get_slice(key).get_shape()), partial(opened.get_tensor, key), file)
                for key in opened.keys()
            }
    if file.suffix not in (".pth", ".pt"):
        raise ValueError(f"{file} is no checkpoint; allowed: {', '.join(SUFFIXES)}, {INDEX}")
    with files.reading(file, f"{WANTED} (of torch.save)"):
        try:
            held = torch.load(file, map_location="cpu", weights_only=True)
        except pickle.UnpicklingError as error:
            raise ValueError(_unsafe(file) or str(error)) from error
    # `detach` reads nothing: the tensor is there.
    return {key: (tuple(tensor.shape), tensor.detach, file) for key, tensor in _weights(file, held).items()}


def _unsafe(file: Path) -> str | None:
    """What a file holds that only unsafe unpickling, which can run anything, would load."""
    try:
        names = torch.serialization.get_unsafe_globals_in_checkpoint(file)
    except Exception:  # the old format is not looked into, nor one that is damaged
        return None
    return f"it holds objects of {some(names, 3)}, which are not loaded: save its tensors alone" if names else None


def _weights(file: Path, held: object) -> Mapping[str, Tensor]:
    """The one dictionary of tensors that `held`, the contents of a file, is or holds."""
    if _is_weights(held):
        return held
    if not isinstance(held, Mapping):
        raise ValueError(f"{file} does not hold a dictionary of tensors, but {type(held).__name__}")
    inside = {str(name): value for name, value in held.items() if _is_weights(value)}
    if not inside:
        contents = some([f"{name!r}: {type(value).__name__}" for name, value in held.items()])
        raise ValueError(
            f"{file} does not hold a dictionary of tensors, alone or as 'model', but {contents or 'nothing'}"
        )
    known = [name for name in inside if name in NESTED] or list(inside)
    # A second copy, of averaged weights for instance, has the same names: which one is meant is not known.
    names = _unwrapped(inside[known[0]]).keys()
    alike = [name for name in inside if name in known or not names.isdisjoint(_unwrapped(inside[name]))]
    if len(alike) > 1:
        raise ValueError(f"{file} holds several dictionaries of tensors, {', '.join(alike)}; save alone what is meant")
    return inside[alike[0]]


def _is_weights(value: object) -> bool:
    return (
        isinstance(value, Mapping)
        and bool(value)
        and all(isinstance(key, str) and isinstance(tensor, Tensor) for key, tensor in value.items())
    )


def _unwrapped(tensors: Mapping[str, Any]) -> Mapping[str, Any]:
    """Without what DistributedDataParallel or torch.compile put in front of every name."""
    for prefix in WRAPPERS * 2:  # either may be around the other
        if tensors and all(key.startswith(prefix) for key in tensors):
            tensors = {key.removeprefix(prefix): entry for key, entry in tensors.items()}
    return tensors
