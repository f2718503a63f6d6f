"""The tensors of a published checkpoint: one file, or the shards of a folder, read one tensor at a time."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor

SUFFIXES, INDEX = (".safetensors", ".pth", ".pt"), "model.safetensors.index.json"
NAMED_IN_ERRORS = 8  # tensors; a file of the wrong kind has hundreds to complain about


class Source:
    """The tensors of a file or folder, read one at a time.

    Raises:
        FileNotFoundError: the path, or a shard that its index names, does not exist.
        ValueError: the path is no checkpoint, or a shard lacks a tensor that the index says it holds.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        files, promised = _files(path)
        found = {file: _tensors(file) for file in files}
        for key, file in promised.items():
            if key not in found[file]:
                raise ValueError(f"{path}: the index says that {file.name} holds {key!r}, which it does not")
        self._tensors = {key: entry for tensors in found.values() for key, entry in tensors.items()}

    def keys(self) -> list[str]:
        return list(self._tensors)

    def shape(self, key: str) -> tuple[int, ...]:
        return self._tensors[key][0]

    def tensor(self, key: str) -> Tensor:
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
        promised = {key: index.parent / name for key, name in json.loads(index.read_text())["weight_map"].items()}
        files = sorted(set(promised.values()))
        if gone := [file.name for file in files if not file.exists()]:
            raise FileNotFoundError(f"{index} names {', '.join(gone)}, which do not exist")
        return files, promised
    if path.is_file():
        return [path], {}
    files = sorted(file for file in path.iterdir() if file.suffix in SUFFIXES)
    if path / "model.safetensors" in files:
        return [path / "model.safetensors"], {}
    if len(files) != 1:
        raise ValueError(f"{path} has {len(files)} files of tensors and no index; name one: {some(files)}")
    return files, {}


def _tensors(file: Path) -> dict[str, tuple[tuple[int, ...], Callable[[], Tensor]]]:
    """Name -> shape, and how to read it. A .pth file is in memory as a whole."""
    if file.suffix == ".safetensors":
        # Read, not mapped: every tensor is read once, and pages of a mapped file would stay resident.
        opened = safe_open(file, framework="pt", backend="pread")
        return {
            key: (tuple(opened.get_slice(key).get_shape()), partial(opened.get_tensor, key)) for key in opened.keys()
        }
    if file.suffix not in (".pth", ".pt"):
        raise ValueError(f"{file} is no checkpoint; allowed: {', '.join(SUFFIXES)}, {INDEX}")
    tensors = torch.load(file, map_location="cpu", weights_only=True)
    if not isinstance(tensors, dict) or not all(isinstance(tensor, Tensor) for tensor in tensors.values()):
        raise ValueError(f"{file} does not hold a dictionary of tensors")
    return {key: (tuple(tensor.shape), partial(tensors.get, key)) for key, tensor in tensors.items()}
