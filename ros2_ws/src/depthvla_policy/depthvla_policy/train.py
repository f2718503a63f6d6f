"""Train a network in one of the paper's stages: `depthvla train --config NAME`.

NAME is a YAML file, or one of models/training; every setting in it can be overridden on the command line. On several
processes: `torchrun --nproc-per-node N -m depthvla_policy.train ...`, or `accelerate launch`.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from pathlib import Path

import torch
import tyro

from depthvla_policy.model import config as model_config
from depthvla_policy.training import config as train_config
from depthvla_policy.training.config import TrainConfig
from depthvla_policy.training.log import JSONL
from depthvla_policy.training.plot import plot_losses
from depthvla_policy.training.stages import open_stage
from depthvla_policy.training.trainer import Trainer, accelerator_for
from r1lite_description import files

SETTINGS, CURVE = "train_config.json", "train.png"
MAY_CHANGE = ("resume", "workers", "threads")  # from one run to the one that resumes it


def train(config: TrainConfig) -> None:
    """Run one training: checkpoint, training states, loss log and its picture go to `config.out`.

    Raises:
        FileNotFoundError, FileExistsError, ValueError: the settings, or what they name, do not fit.
        FloatingPointError: the loss is not finite.
    """
    torch.set_num_threads(config.machine.threads)
    torch.manual_seed(config.seed)
    c = model_config.read(train_config.find(config.model, "configs", ".json"))
    accelerator, out = accelerator_for(config), Path(config.out)
    if config.resume:
        _check_unchanged(config, out)
    stage = open_stage(config, c)
    trainer = Trainer(stage.objective, stage.data, stage.c, config, accelerator, stage.save)
    if accelerator.is_main_process:
        out.mkdir(parents=True, exist_ok=True)
        (out / SETTINGS).write_text(json.dumps(dataclasses.asdict(config), indent=2) + "\n")
        sizes = [sum(len(part) for part in parts) for parts in (stage.data.train, stage.data.held_out)]
        trained = sum(parameter.numel() for parameter in trainer.parameters)
        print(f"{sizes[0]} frames, {sizes[1]} held out; {trained / 1e6:.2f} M parameters are trained")
    trainer.run()
    if accelerator.is_main_process:
        plot_losses(out / JSONL, out / CURVE)
        print(f"wrote {out}")
    accelerator.end_training()


def _check_unchanged(config: TrainConfig, out: Path) -> None:
    """Raises ValueError that names the settings which differ from those of the run that is resumed."""
    path = out / SETTINGS
    if not path.exists():
        raise FileNotFoundError(f"there is no run in {out} to resume")
    written = files.read_json(path, "settings of a training")
    if not isinstance(written, dict):
        raise ValueError(f"{path} holds {written!r:.80}; wanted: settings of a training")
    before, now = _flat(written), _flat(json.loads(json.dumps(dataclasses.asdict(config))))
    changed = [
        f"{name} {before.get(name)} -> {value}"
        for name, value in now.items()
        if before.get(name) != value and name.split(".")[-1] not in MAY_CHANGE
    ]
    if changed:
        raise ValueError(f"{out} was trained with other settings: {'; '.join(changed)}")


def _flat(values: dict, prefix: str = "") -> dict[str, object]:
    pairs: dict[str, object] = {}
    for key, value in values.items():
        pairs |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return pairs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, add_help=False, allow_abbrev=False)
    parser.add_argument("--config", default="")  # an empty name is answered with those there are
    chosen, overrides = parser.parse_known_args()
    try:
        asks = {"-h", "--help"} & set(overrides) and not chosen.config
        named = tyro.MISSING if asks else train_config.read(chosen.config)
        train(tyro.cli(TrainConfig, default=named, args=overrides, description=__doc__))
    except BrokenPipeError:
        raise  # of a help that nobody reads on
    except (ArithmeticError, OSError, ValueError) as error:
        # What a worker of the data loader raises comes with its traceback in front.
        said = str(error).rpartition("\nValueError: ")[2] if "DataLoader worker" in str(error) else str(error)
        sys.exit(f"error: {said.strip()}")


if __name__ == "__main__":
    main()
