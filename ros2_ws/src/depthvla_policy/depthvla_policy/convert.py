"""Build a checkpoint from published weights: `python -m depthvla_policy.convert --config FILE --pi0 FILE --out FOLDER`.

Every tensor of every source is accounted for: used, unused for a stated reason, or an error. What no source brings is
initialised as a new network would be. The names are in `model/layouts.py`.
"""

from __future__ import annotations

import dataclasses
import json
import math
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import torch
import torch.nn.functional as F
import tyro
from safetensors import safe_open
from safetensors.torch import save_file
from tokenizers import Tokenizer
from torch import Tensor
from tqdm import tqdm

from depthvla_policy import robot as robot_description
from depthvla_policy.bench import peak_memory_gb
from depthvla_policy.model import config as model_config
from depthvla_policy.model import layouts
from depthvla_policy.model.config import EncoderConfig, ExpertConfig, ModelConfig
from depthvla_policy.model.depthvla import DepthVLA
from depthvla_policy.model.layouts import LAYOUTS, PARTS, Layout
from depthvla_policy.policy import checkpoint
from depthvla_policy.policy.checkpoint import CheckpointConfig, PolicyConfig
from depthvla_policy.policy.normalise import Normaliser
from depthvla_policy.policy.prompt import Prompt

SUFFIXES, INDEX = (".safetensors", ".pth", ".pt"), "model.safetensors.index.json"
NAMED_IN_ERRORS = 8  # tensors; a file of the wrong kind has hundreds to complain about
DTYPES = {"bfloat16": torch.bfloat16, "float32": torch.float32}


@dataclass(frozen=True)
class ConvertConfig:
    """One conversion. A source is a file (.safetensors, .pth, .pt) or a folder with a single or sharded one."""

    out: Path
    """folder to write; a checkpoint in it is not overwritten"""
    config: Path | None = None
    """dimensions of the network, a file of models/configs"""
    vlm: Path | None = None
    """PaliGemma"""
    pi0: Path | None = None
    """a pi0 of openpi, lerobot or transformers; brings the VLM too"""
    depth_encoder: Path | None = None
    """Depth Anything V2, or plain DINOv2"""
    depth_decoder: Path | None = None
    """our own depth pre-training"""
    tokenizer: Path | None = None
    """tokenizer.json; left out, the one beside --vlm or --pi0"""
    norm_stats: Path | None = None
    """norm_stats.json of an earlier training; left out, training computes them"""
    dtype: Literal["bfloat16", "float32"] = "bfloat16"
    """of the weights written"""
    seed: int = 0
    """of the parts that no source brings"""
    to_transformers: Path | None = None
    """instead: write this checkpoint of ours, a pi0, as transformers' PI0ForConditionalGeneration loads it"""


@dataclass(frozen=True)
class Report:
    """What became of every tensor.

    used: our name -> (source, published name). fresh: our names that no source brought. unused: (source, published
    name) -> why. layouts: source -> name of its layout. parameters: our name -> count. needed: what the folder lacks
    before it can run on a robot.
    """

    used: dict[str, tuple[str, str]]
    fresh: list[str]
    unused: dict[tuple[str, str], str]
    layouts: dict[str, str]
    parameters: dict[str, int]
    needed: list[str]

    def __str__(self) -> str:
        rows = [("part", "from", "tensors", "parameters")]
        for part in PARTS:
            for origin in (*self.layouts, None):
                names = [
                    name
                    for name in self.parameters
                    if layouts.part_of(name) == part and self.used.get(name, (None, None))[0] == origin
                ]
                if names:
                    title = f"{_flag(origin)}: {self.layouts[origin]}" if origin else "new, at random"
                    rows.append((part, title, f"{len(names)}", f"{sum(self.parameters[name] for name in names):,}"))
        rows.append(("total", "", f"{len(self.parameters)}", f"{sum(self.parameters.values()):,}"))
        wide = [max(len(row[column]) for row in rows) for column in range(4)]
        lines = [f"{a:{wide[0]}}  {b:{wide[1]}}  {c:>{wide[2]}}  {d:>{wide[3]}}" for a, b, c, d in rows]
        reasons = Counter((source, why) for (source, _), why in self.unused.items())
        lines += [f"unused: {count} of {_flag(source)} ({why})" for (source, why), count in reasons.items()]
        lines += [f"still needed to run: {need}" for need in self.needed]
        return "\n".join(lines)


def convert(config: ConvertConfig) -> Report:
    """Write the checkpoint folder `config.out`.

    Raises:
        FileNotFoundError: a source or another file does not exist.
        ValueError: a source has a tensor too many, lacks one or has one of the wrong shape, each named; two sources
            bring the same part; or `config.out` holds a checkpoint already.
    """
    if config.config is None:
        raise ValueError("--config is missing: a file of models/configs")
    _must_be_empty(config.out)
    c, robot = model_config.read(config.config), robot_description.load()
    settings = CheckpointConfig(config.out.name, c, PolicyConfig.of(robot))
    stats = Normaliser.load(config.norm_stats) if config.norm_stats else None
    if stats and stats.action_mean.shape != (shape := (c.horizon, robot.size)):
        raise ValueError(f"{config.norm_stats}: actions have shape {stats.action_mean.shape}, not {shape}")
    tokenizer = _tokenizer(config, c)

    with torch.device("meta"):
        wanted = {name: tuple(tensor.shape) for name, tensor in DepthVLA(c).state_dict().items()}
    sources = {name: Source(getattr(config, name)) for name in LAYOUTS if getattr(config, name)}
    plans = {name: Plan.of(_flag(name), source, LAYOUTS[name], wanted) for name, source in sources.items()}
    pieces: dict[str, tuple[str, Piece]] = {}
    for name, plan in plans.items():
        if twice := sorted({(pieces[ours][0], layouts.part_of(ours)) for ours in plan.pieces if ours in pieces}):
            raise ValueError(
                " and ".join(f"{_flag(other)} and {_flag(name)} both bring {part}" for other, part in twice)
                + ": leave one out"
            )
        pieces.update({ours: (name, piece) for ours, piece in plan.pieces.items()})

    fresh = [name for name in wanted if name not in pieces]
    dtype, weights = DTYPES[config.dtype], {}
    with tqdm(total=len(wanted), unit="tensor", desc="convert", disable=None) as progress:
        # Largest first, so that its float32 copy comes while nothing else is held.
        for name in sorted(pieces, key=lambda name: math.prod(wanted[name]), reverse=True):
            source, piece = pieces[name]
            weights[name] = _fitted(name, piece.read(sources[source]), wanted[name]).to(dtype, copy=True)
            progress.update()
        for name, tensor in _initialised(c, fresh, config.seed, dtype):
            weights[name] = tensor
            progress.update()
    checkpoint.write(config.out, settings, weights, stats, tokenizer)

    needed = []
    if stats is None:
        needed.append(f"{checkpoint.STATS}, which training computes from demonstrations, or --norm-stats")
    if tokenizer is None:
        needed.append(f"{checkpoint.TOKENIZER}, PaliGemma's own, with --tokenizer")
    return Report(
        used={name: (source, piece.key) for name, (source, piece) in pieces.items()},
        fresh=fresh,
        unused={(name, key): why for name, plan in plans.items() for key, why in plan.unused.items()},
        layouts={name: plan.layout.name for name, plan in plans.items()},
        parameters={name: math.prod(shape) for name, shape in wanted.items()},
        needed=needed,
    )


def export(folder: Path, out: Path) -> None:
    """Write the pi0 checkpoint `folder` of ours to `out`, as transformers' `PI0ForConditionalGeneration` loads it.

    Raises:
        FileNotFoundError: the checkpoint lacks a file.
        ValueError: it is no pi0, or `out` holds a checkpoint already.
    """
    _must_be_empty(out)
    c = CheckpointConfig.read(folder).model
    if c.depth:
        raise ValueError(f"{folder} has a depth expert, which transformers' PI0 does not know; depth must be null")
    layout = layouts.TRANSFORMERS_PI0
    with safe_open(checkpoint.weights_path(folder), framework="pt") as file:
        names = tqdm(list(file.keys()), unit="tensor", desc="export", disable=None)
        weights = {layout.foreign(name): file.get_tensor(name) for name in names}
    embedding = weights[layout.foreign(layouts.EMBEDDING)]
    # transformers gives the action expert token embeddings that nothing reads; without them it reports them missing.
    weights["model.dit.embed_tokens.weight"] = embedding.new_zeros(c.vocab_size, c.action.width)
    out.mkdir(parents=True, exist_ok=True)
    settings = pi0_config(c) | {"dtype": str(embedding.dtype).removeprefix("torch.")}
    (out / checkpoint.CONFIG).write_text(json.dumps(settings, indent=2) + "\n")
    save_file(weights, out / checkpoint.WEIGHTS, metadata={"format": "pt"})


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
                f" state ({_some(names, 3)})"
            )
        layout = layouts.recognise(keys, known)
        if layout is None:
            raise ValueError(
                f"{where}: not one of its tensors (first: {_some(keys, 3)}) is known;"
                f" allowed: {'; '.join(layout.name for layout in known)}"
            )
        modules = {layouts.module_of(name) for name in wanted}
        if absent := [part for part in layout.parts if modules.isdisjoint(PARTS[part])]:
            raise ValueError(f"{where}: the network of --config has no {', '.join(absent)}; its depth is null")
        pieces: dict[str, Piece] = {}
        unused: dict[str, str] = {}
        unknown, wrong = [], []
        found = {key: layout.find(key) for key in keys}
        # Fallbacks last: they only count where nothing else gave the tensor.
        for key in sorted(keys, key=lambda key: bool(found[key] and found[key][0].fallback)):
            rule, targets = found[key] or (None, ())
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
        seen = {match[0] for match in found.values() if match}
        brought = {layouts.part_of(name) for name in pieces}
        parts = [*layout.parts, *(part for part in layout.may_bring if part in brought)]
        missing = [
            f"{layout.foreign(name, seen)!r} (our {name})"
            for name in wanted
            if layouts.part_of(name) in parts and name not in pieces and name not in layout.optional
        ]
        problems = [
            f"{len(names)} {what}: {_some(names)}"
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


def _fitted(name: str, tensor: Tensor, shape: tuple[int, ...]) -> Tensor:
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


def _initialised(config: ModelConfig, names: list[str], seed: int, dtype: torch.dtype) -> Iterator[tuple[str, Tensor]]:
    """The tensors `names` of a new network, a part at a time."""
    for part in PARTS:
        mine = [name for name in names if layouts.part_of(name) == part]
        if mine:
            tensors = _new(_only(config, part), seed, dtype).state_dict()
            yield from ((name, tensors.pop(name)) for name in mine)


def _new(config: ModelConfig, seed: int, dtype: torch.dtype) -> DepthVLA:
    # The constructor itself makes `dtype`: a VLM that is float32 at first takes 11.7 GB on its way to 5.9 GB.
    default = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return DepthVLA(config)
    finally:
        torch.set_default_dtype(default)


def _only(config: ModelConfig, part: str) -> ModelConfig:
    """`config` with every other part shrunk to almost nothing, so that the network's own constructor makes `part`."""
    dot, point = ExpertConfig(width=2, mlp=1), EncoderConfig(width=1, layers=1, heads=1, mlp=1)
    changes: dict[str, object] = {}
    if part != "vlm":
        changes |= {"vlm": dot, "vision": point, "vocab_size": 1}
    if part != "action":
        changes |= {"action": dot}
    if part == "depth_encoder":
        width = config.depth.encoder.width
        changes |= {"depth": dataclasses.replace(config.depth, expert=ExpertConfig(width, mlp=1), head_pixels=1)}
    elif part == "depth_decoder":
        width = config.depth.expert.width
        changes |= {"depth": dataclasses.replace(config.depth, encoder=EncoderConfig(width, 1, 1, width))}
    else:
        changes |= {"depth": None}
    return dataclasses.replace(config, **changes)


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
        raise ValueError(f"{path} has {len(files)} files of tensors and no index; name one: {_some(files)}")
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


def _tokenizer(config: ConvertConfig, c: ModelConfig) -> Tokenizer | None:
    folders = [source if source.is_dir() else source.parent for source in (config.vlm, config.pi0) if source]
    beside = (folder / checkpoint.TOKENIZER for folder in folders)
    path = config.tokenizer or next((path for path in beside if path.exists()), None)
    return Prompt.load(path, c.max_text_tokens).tokenizer if path else None


def pi0_config(c: ModelConfig) -> dict:
    """`config.json` of transformers' PI0Config."""
    gemma = {
        "model_type": "gemma",
        "num_hidden_layers": c.layers,
        "num_attention_heads": c.heads,
        "num_key_value_heads": c.kv_heads,
        "head_dim": c.head_dim,
        "vocab_size": c.vocab_size,
    }
    vision = {
        "model_type": "siglip_vision_model",
        "hidden_size": c.vision.width,
        "intermediate_size": c.vision.mlp,
        "num_hidden_layers": c.vision.layers,
        "num_attention_heads": c.vision.heads,
        "image_size": c.image_size,
        "patch_size": c.patch_size,
        "projection_dim": c.vlm.width,
        "vision_use_head": False,
    }
    return {
        "architectures": ["PI0ForConditionalGeneration"],
        "model_type": "pi0",
        "chunk_size": c.horizon,
        "max_state_dim": c.state_dim,
        "max_action_dim": c.action_dim,
        "num_inference_steps": c.euler_steps,
        "vlm_config": {
            "model_type": "paligemma",
            "hidden_size": c.vlm.width,
            "projection_dim": c.vlm.width,
            "image_token_index": c.vocab_size,
            "text_config": {**gemma, "hidden_size": c.vlm.width, "intermediate_size": c.vlm.mlp},
            "vision_config": vision,
        },
        "dit_config": {**gemma, "hidden_size": c.action.width, "intermediate_size": c.action.mlp},
    }


def _must_be_empty(out: Path) -> None:
    if (out / checkpoint.WEIGHTS).exists():
        raise ValueError(f"{out} holds a checkpoint already; give another --out")


def _flag(source: str) -> str:
    return "--" + source.replace("_", "-")


def _some(names: list, most: int = NAMED_IN_ERRORS) -> str:
    rest = len(names) - most
    return ", ".join(str(name) for name in names[:most]) + (f" and {rest} more" if rest > 0 else "")


def main() -> None:
    config = tyro.cli(ConvertConfig, description=__doc__)
    begin = time.perf_counter()
    try:
        if config.to_transformers:
            export(config.to_transformers, config.out)
        else:
            print(convert(config))
    except (FileNotFoundError, ValueError) as error:
        sys.exit(f"error: {error}")
    print(f"wrote {config.out} in {time.perf_counter() - begin:.1f} s, peak memory {peak_memory_gb('cpu'):.2f} GB")


if __name__ == "__main__":
    main()
