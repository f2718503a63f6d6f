"""How fast a network trains on this machine: `depthvla bench-training --config NAME --device cuda`.

Whole steps of the training loop on random data in memory, with the largest batch that fits: what is left of the time of
a real run is reading data. Writes JSON.
"""

from __future__ import annotations

import dataclasses
import gc
import itertools
import json
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import torch
import tyro

from depthvla_policy.bench.machine import peak_memory_gb
from depthvla_policy.model import config as model_config
from depthvla_policy.model.config import ModelConfig
from depthvla_policy.model.depthvla import DepthVLA
from depthvla_policy.training import config as train_config
from depthvla_policy.training.batch import Batch, random_batch
from depthvla_policy.training.config import DEPTH_EXPERT, LoraConfig, TrainConfig
from depthvla_policy.training.flops import peak_flops
from depthvla_policy.training.objective import depth_only
from depthvla_policy.training.stages import depth_objective, policy_objective
from depthvla_policy.training.trainer import DTYPES, Trainer, accelerator_for

VARIANTS = ("all trained", "depth frozen", "adapters")


@dataclass(frozen=True)
class BenchConfig:
    """What to measure."""

    config: str = "fine-tune"
    """a training: a YAML file, or the name of one in models/training; its batch size is not used"""
    device: str = "cpu"
    """cpu or cuda, one of them"""
    largest: int = 128
    """batch to stop at, of 1, 2, 4, ..."""
    steps: int = 5
    """timed ones, after one that is not"""
    variants: tuple[str, ...] = VARIANTS
    """all trained, depth frozen, adapters (of rank 16)"""
    out: Path = Path("out/train_bench.json")
    """where the figures go"""


class NoData:
    """In place of `TrainData`, for a trainer that is given its batches."""

    def validation(self, batch_size: int) -> list[Batch]:
        return []


def bench(settings: BenchConfig) -> dict:
    """Measure every variant: {"device": ..., "rows": [{"variant", "batch", "samples_per_s", "mfu", "memory_gb"}]}, with
    a row for each batch that fitted.

    Raises:
        FileNotFoundError, ValueError: there is no such training, variant or device.
    """
    if unknown := sorted(set(settings.variants) - set(VARIANTS)):
        raise ValueError(f"variants are {unknown}; allowed: {', '.join(VARIANTS)}")
    base = dataclasses.replace(train_config.read(settings.config), resume=False)
    c = model_config.read(train_config.find(base.model, "configs", ".json"))
    torch.set_num_threads(base.machine.threads)
    cpu = settings.device == "cpu"
    rows = [row for variant in settings.variants for row in _variant(variant, base, c, settings)]
    name = f"CPU, {base.machine.threads} thread(s)" if cpu else torch.cuda.get_device_name()
    return {"config": settings.config, "device": name, "precision": base.machine.precision, "rows": rows}


def _variant(variant: str, base: TrainConfig, c: ModelConfig, settings: BenchConfig) -> list[dict]:
    changes = {
        "all trained": {"freeze": ()},
        "depth frozen": {"freeze": DEPTH_EXPERT},
        "adapters": {"lora": LoraConfig(rank=16)},
    }[variant]
    config = dataclasses.replace(base, machine=dataclasses.replace(base.machine, accumulate=1), **changes)
    rows: list[dict] = []
    try:
        _fill(rows, variant, config, c, settings)
    except torch.OutOfMemoryError:
        pass
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return rows


def _fill(rows: list[dict], variant: str, config: TrainConfig, c: ModelConfig, settings: BenchConfig) -> None:
    """Add a row for each batch, until one does not fit."""
    with tempfile.TemporaryDirectory() as nothing:
        trainer = _trainer(dataclasses.replace(config, out=nothing), c, settings.device)
    accelerator, n = trainer.accelerator, 1
    peak = peak_flops(accelerator.device, DTYPES[config.machine.precision])
    try:
        while n <= settings.largest:
            if accelerator.device.type == "cuda":
                torch.cuda.reset_peak_memory_stats()
            rate = n / _seconds(trainer, n, settings.steps)
            row = {"variant": variant, "batch": n, "samples_per_s": rate, "memory_gb": peak_memory_gb(settings.device)}
            rows.append({**row, "mfu": rate * trainer.flops / peak if peak else None})
            n *= 2
    finally:
        accelerator.free_memory()


def _trainer(config: TrainConfig, c: ModelConfig, device: str) -> Trainer:
    accelerator = accelerator_for(config, cpu=device == "cpu")
    if config.stage == "depth-pretrain":
        c = depth_only(c)
    # Made where it is used: on a CPU alone the full network takes minutes.
    with torch.device(accelerator.device):
        model = DepthVLA(c)
    if config.stage == "depth-pretrain":
        objective = depth_objective(model, config)
    else:
        used = torch.ones(c.action_dim, dtype=torch.bool)
        objective = policy_objective(model, config, used, has_targets=True)
    return Trainer(objective, NoData(), c, config, accelerator, lambda weights: None)


def _seconds(trainer: Trainer, n: int, steps: int) -> float:
    """Of one step on `n` observations; every step waits for the device, since it looks at its losses."""
    trainer.config = dataclasses.replace(trainer.config, batch_size=n)
    batches = itertools.repeat(random_batch(trainer.c, n).to(trainer.accelerator.device))
    trainer.step(0, batches)
    begin = time.perf_counter()
    for step in range(steps):
        trainer.step(1 + step, batches)
    return (time.perf_counter() - begin) / steps


def main() -> int:
    settings = tyro.cli(BenchConfig, description=__doc__)
    if settings.device.startswith("cuda") and not torch.cuda.is_available():
        print("skipped: there is no CUDA device here")
        return 0
    try:
        result = bench(settings)
    except (OSError, RuntimeError, ValueError) as error:  # torch raises the second, for a device it does not know
        print(f"bench.training: {error}", file=sys.stderr)
        return 1
    settings.out.parent.mkdir(parents=True, exist_ok=True)
    settings.out.write_text(json.dumps(result, indent=2) + "\n")
    print(f"{result['config']}, {result['precision']}, {result['device']}")
    print(f"{'':14} {'batch':>6} {'samples/s':>10} {'MFU':>7} {'peak GB':>8}")
    for row in result["rows"]:
        mfu = f"{row['mfu']:7.1%}" if row["mfu"] else f"{'':7}"
        print(f"{row['variant']:14} {row['batch']:6} {row['samples_per_s']:10.2f} {mfu} {row['memory_gb']:8.2f}")
    for variant in settings.variants:
        if not any(row["variant"] == variant for row in result["rows"]):
            print(f"{variant}: not even a batch of one fits")
    return 0


if __name__ == "__main__":
    sys.exit(main())
