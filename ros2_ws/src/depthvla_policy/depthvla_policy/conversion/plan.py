"""What becomes of every tensor of a source: used for one of ours, unused for a stated reason, or an error."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from depthvla_policy.conversion.source import Source, some
from depthvla_policy.model import layouts
from depthvla_policy.model.layouts import PARTS, Layout


@dataclass(frozen=True)
class Piece:
    """The published tensor that one of ours comes from: the `part`-th of `parts` equal stretches of its first axis."""

    key: str
    part: int = 0
    parts: int = 1

    def read(self, source: Source) -> Tensor:
        return source.tensor(self.key).chunk(self.parts)[self.part]


@dataclass(frozen=True)
class Plan:
    """Where a source's tensors go. pieces: our name -> where from. unused: published name -> why."""

    layout: Layout
    pieces: dict[str, Piece]
    unused: dict[str, str]

    @classmethod
    def of(cls, flag: str, source: Source, known: tuple[Layout, ...], wanted: Mapping[str, tuple[int, ...]]) -> Plan:
        """Account for every tensor of `source`. Raises ValueError that names those that do not fit."""
        where, keys = f"{flag} {source.path}", source.keys()
        if names := layouts.only_in_pi05(keys):
            raise ValueError(
                f"{where}: a pi0.5 checkpoint, which is another network: its norms take the time and its prompt the"
                f" state ({some(names, 3)})"
            )
        layout = layouts.recognise(keys, known)
        if layout is None:
            raise ValueError(
                f"{where}: not one of its tensors (first: {some(keys, 3)}) is known;"
                f" allowed: {'; '.join(layout.name for layout in known)}"
            )
        modules = {layouts.module_of(name) for name in wanted}
        if absent := [part for part in layout.parts if modules.isdisjoint(PARTS[part])]:
            raise ValueError(f"{where}: the network of --config has no {', '.join(absent)}; its depth is null")
        pieces: dict[str, Piece] = {}
        unused: dict[str, str] = {}
        unknown, wrong = [], []
        matches = {key: layout.find(key) for key in keys}
        # Fallbacks last: they only count where nothing else gave the tensor.
        for key in sorted(keys, key=lambda key: bool(matches[key] and matches[key][0].fallback)):
            rule, targets = matches[key] or (None, ())
            if rule and (not rule.ours or (rule.fallback and targets[0] in pieces)):
                unused[key] = rule.why
            elif rule and layouts.module_of(targets[0]) not in modules:
                unused[key] = f"the network of --config has no {layouts.module_of(targets[0]).rstrip('.')}"
            elif rule is None or any(target not in wanted or target in pieces for target in targets):
                unknown.append(key)
            else:
                pieces.update({target: Piece(key, i, len(targets)) for i, target in enumerate(targets)})
                if problem := _misfit(targets, source.shape(key), wanted[targets[0]]):
                    wrong.append(f"{key!r} {problem}")
        seen = {match[0] for match in matches.values() if match}
        brought = {layouts.part_of(name) for name in pieces}
        parts = [*layout.parts, *(part for part in layout.may_bring if part in brought)]
        missing = [
            f"{layout.foreign(name, seen)!r} (our {name})"
            for name in wanted
            if layouts.part_of(name) in parts and name not in pieces and name not in layout.optional
        ]
        problems = [
            f"{len(names)} {what}: {some(names)}"
            for what, names in (("unknown", unknown), ("missing", missing), ("of the wrong shape", wrong))
            if names
        ]
        if problems:
            raise ValueError(f"{where} ({layout.name}): " + "; ".join(problems))
        return cls(layout, pieces, unused)


def _misfit(targets: tuple[str, ...], shape: tuple[int, ...], wanted: tuple[int, ...]) -> str | None:
    """What is wrong with a published tensor of `shape` for `targets`, which are of shape `wanted` each."""
    if targets[0] == layouts.EMBEDDING:
        if len(shape) == 2 and shape[1] == wanted[1] and shape[0] >= wanted[0]:
            return None
        return f"has shape {shape}; --config says at least {wanted[0]} rows of {wanted[1]}"
    if targets[0] == layouts.DEPTH_POSITIONS:
        side = math.isqrt(shape[1] - 1) if len(shape) == 3 and shape[1] > 1 else 0
        if shape == (1, side**2 + 1, wanted[2]) and side:
            return None
        return f"has shape {shape}; --config says (1, 1 + a square number, {wanted[2]})"
    whole = (wanted[0] * len(targets), *wanted[1:])
    return None if shape == whole else f"has shape {shape}; --config says {whole}"


def fitted(name: str, tensor: Tensor, shape: tuple[int, ...]) -> Tensor:
    """A published tensor as ours: float32, token rows that the config does not have cut off, positions resampled."""
    if name == layouts.EMBEDDING:
        return tensor[: shape[0]].float()
    if name == layouts.DEPTH_POSITIONS:
        return _resampled(tensor.float(), math.isqrt(shape[1] - 1))
    return tensor.float()


def _resampled(positions: Tensor, grid: int) -> Tensor:
    """DINOv2's positions (1, 1 + n * n, D), the class token's first, for `grid` patches a side.

    The same as transformers does at every forward pass of an image of that size (Dinov2Embeddings).
    """
    side = math.isqrt(positions.shape[1] - 1)
    if side == grid:
        return positions
    patches = positions[:, 1:].reshape(1, side, side, -1).permute(0, 3, 1, 2)
    patches = F.interpolate(patches, size=(grid, grid), mode="bicubic", align_corners=False)
    return torch.cat([positions[:, :1], patches.permute(0, 2, 3, 1).flatten(1, 2)], dim=1)
