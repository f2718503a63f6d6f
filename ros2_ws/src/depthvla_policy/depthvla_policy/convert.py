"""Build a checkpoint from published weights: `depthvla convert --config FILE --pi0 FILE --out FOLDER`.

Every tensor of every source is accounted for: used, unused for a stated reason, or an error. What no source brings is
initialised as a new network would be. The names are in `model/layouts.py`.
"""

from __future__ import annotations

import math
import sys
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
import tyro
from tokenizers import Tokenizer
from tqdm import tqdm

from depthvla_policy.bench.machine import peak_memory_gb
from depthvla_policy.conversion.fresh import initialised
from depthvla_policy.conversion.plan import Piece, Plan, fitted
from depthvla_policy.conversion.source import Source
from depthvla_policy.conversion.to_transformers import export
from depthvla_policy.model import config as model_config
from depthvla_policy.model import layouts
from depthvla_policy.model.config import ModelConfig
from depthvla_policy.model.depthvla import DepthVLA
from depthvla_policy.model.layouts import LAYOUTS, PARTS
from depthvla_policy.policy import checkpoint
from depthvla_policy.policy.checkpoint import CheckpointConfig, PolicyConfig
from depthvla_policy.policy.normalise import Normaliser
from depthvla_policy.policy.prompt import Prompt
from r1lite_description import robot as robot_description

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
    made_for: tuple[Literal["simulation", "real"], ...] = ()
    """what the weights were trained for already, where it was on demonstrations of this robot; a real one takes only a
    checkpoint that says so"""
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
        ValueError: a source has a tensor too many, lacks one or has one of the wrong shape or that is not finite, each
            named; a file cannot be read; two sources bring the same part; or `config.out` holds a checkpoint already.
    """
    if config.config is None:
        raise ValueError("--config is missing: a file of models/configs")
    checkpoint.check_free(config.out)
    c, robot = model_config.read(config.config), robot_description.load()
    settings = CheckpointConfig(config.out.name, c, PolicyConfig.of(robot, made_for=config.made_for))
    stats = Normaliser.load(config.norm_stats, horizon=c.horizon, size=robot.size) if config.norm_stats else None
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
            tensor = fitted(name, piece.read(sources[source]), wanted[name])
            if not all(math.isfinite(bound) for bound in torch.aminmax(tensor)):
                raise ValueError(f"{_flag(source)} {sources[source].path}: {piece.key!r} is not finite")
            weights[name] = tensor.to(dtype, copy=True)
            progress.update()
        for name, tensor in initialised(c, fresh, config.seed, dtype):
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


def _tokenizer(config: ConvertConfig, c: ModelConfig) -> Tokenizer | None:
    folders = [source if source.is_dir() else source.parent for source in (config.vlm, config.pi0) if source]
    beside = (folder / checkpoint.TOKENIZER for folder in folders)
    path = config.tokenizer or next((path for path in beside if path.exists()), None)
    return Prompt.load(path, c.max_text_tokens).tokenizer if path else None


def _flag(source: str) -> str:
    return "--" + source.replace("_", "-")


def main() -> None:
    config = tyro.cli(ConvertConfig, description=__doc__)
    begin = time.perf_counter()
    try:
        if config.to_transformers:
            export(config.to_transformers, config.out)
        else:
            print(convert(config))
    except (OSError, ValueError) as error:
        sys.exit(f"error: {error}")
    print(f"wrote {config.out} in {time.perf_counter() - begin:.1f} s, peak memory {peak_memory_gb('cpu'):.2f} GB")


if __name__ == "__main__":
    main()
