"""The training loop: AdamW on a cosine, averaged weights, and training states to go on from.

Every step is a function of the state before it and of seed and step number, so a run that is interrupted and resumed,
or spread over several processes, follows the path of one that is not.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.distributed.fsdp import MixedPrecisionPolicy
from tqdm import tqdm
from transformers import PreTrainedModel

from depthvla_policy.model.config import ModelConfig
from depthvla_policy.training import state
from depthvla_policy.training.batch import Batch
from depthvla_policy.training.config import TrainConfig
from depthvla_policy.training.data import TrainData
from depthvla_policy.training.draws import draw
from depthvla_policy.training.ema import Ema
from depthvla_policy.training.flops import peak_flops, training_flops
from depthvla_policy.training.log import Log
from depthvla_policy.training.parameters import groups
from depthvla_policy.training.schedule import learning_rate

VALIDATION_SEED = 0
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def accelerator_for(config: TrainConfig, *, cpu: bool = False) -> Accelerator:
    """One process or several, as `torchrun` or `accelerate launch` started them; on GPUs where there are any, unless
    `cpu`.
    """
    precision = "bf16" if config.machine.precision == "bfloat16" else "no"
    accelerator = Accelerator(cpu=cpu or not torch.cuda.is_available(), mixed_precision=precision)
    keep_float32(accelerator)
    return accelerator


def keep_float32(accelerator: Accelerator) -> None:
    """Where weights are sharded, sum gradients and return losses in float32, which accelerate would not."""
    if accelerator.is_fsdp2 and accelerator.mixed_precision == "bf16":
        policy = MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32)
        accelerator.state.fsdp_plugin.mixed_precision_policy = policy


def attend_by_products(model: nn.Module) -> None:
    """Have the encoders attend as `mixture.attend` does on a CPU, for the same reason."""
    for module in model.modules():
        if isinstance(module, PreTrainedModel):
            module.set_attn_implementation("eager")


class Trainer:
    """Trains `objective`, whose forward takes a batch and draws, on `data`.

    c: dimensions of the network in it. save(weights) stores the averaged weights of `objective`.

    Raises:
        FileExistsError: there is a training state in `config.out` and the run is not to resume.
        FileNotFoundError: the run is to resume and there is none.
    """

    def __init__(
        self,
        objective: nn.Module,
        data: TrainData,
        c: ModelConfig,
        config: TrainConfig,
        accelerator: Accelerator,
        save: Callable[[dict[str, Tensor]], None],
    ) -> None:
        self.data, self.c, self.config, self.accelerator, self.save = data, c, config, accelerator, save
        self.flops = training_flops(objective, c, config.loss)  # of one observation
        if accelerator.device.type == "cpu" and accelerator.mixed_precision == "bf16":
            attend_by_products(objective)
        o = config.optimiser
        optimiser = torch.optim.AdamW(
            groups(objective.parameters(), o.weight_decay), lr=o.learning_rate, betas=(0.9, o.beta2)
        )
        self.model, self.optimiser = accelerator.prepare(objective, optimiser)
        self.parameters = [p for p in self.model.parameters() if p.requires_grad]
        self.ema = Ema(self.model, o.ema_decay)
        self.out = Path(config.out)
        self.start = self._resume()
        parts = accelerator.num_processes * config.machine.accumulate
        self._validation = data.validation(config.batch_size // parts)

    def run(self) -> None:
        """Train to the end, with a log, training states and checkpoints in `config.out`.

        Raises:
            FloatingPointError: a loss or the gradient is not finite; weights are left as they were.
        """
        c, main = self.config, self.accelerator.is_main_process
        log = Log(self.out, self.start) if main else None
        peak = peak_flops(self.accelerator.device, DTYPES[c.machine.precision]) if main else None
        batches = iter(self.data.loader(c, self.start, self.accelerator.process_index, self.accelerator.num_processes))
        with tqdm(
            total=c.steps, initial=self.start, desc="training", unit="step", mininterval=5.0, disable=not main
        ) as progress:
            sums: dict[str, float] = {}
            counted, began = 0, time.perf_counter()
            for step in range(self.start, c.steps):
                for name, value in self.step(step, batches).items():
                    sums[name] = sums.get(name, 0.0) + value
                counted += 1
                done = step + 1
                progress.update()
                last = done == c.steps
                if last or done % c.machine.log_every == 0:
                    row = {"step": done, **{name: total / counted for name, total in sums.items()}}
                    row["learning_rate"] = self._rate(step)
                    row["samples_per_s"] = counted * c.batch_size / (time.perf_counter() - began)
                    if peak:
                        row["mfu"] = row["samples_per_s"] * self.flops / (peak * self.accelerator.num_processes)
                    if last or done % c.machine.validate_every == 0:
                        row |= self.validate()
                    if log:
                        log.write(row)
                        progress.set_postfix(row, refresh=False)
                    if last or done % c.machine.save_every == 0:
                        self._save(done)
                    sums, counted, began = {}, 0, time.perf_counter()
        if log:
            log.close()

    def step(self, step: int, batches: Iterator[Batch]) -> dict[str, float]:
        """Step `step`, counted from 0, on the next of `batches`; returns the losses over the whole batch, each the mean
        over its parts. Raises FloatingPointError as `run` does.
        """
        c, accelerator = self.config, self.accelerator
        parts = c.machine.accumulate
        draws = draw(self.c, c.loss, c.batch_size, c.seed, step)
        n = c.batch_size // (accelerator.num_processes * parts)
        sums: dict[str, Tensor] = {}
        self.model.train()
        for group in self.optimiser.param_groups:
            group["lr"] = self._rate(step)
        self.optimiser.zero_grad()
        for part in range(parts):
            begin = (accelerator.process_index * parts + part) * n
            mine = draws.part(begin, begin + n, c.loss.draws).to(accelerator.device)
            # Gradients are averaged over the processes once a step.
            with nullcontext() if part == parts - 1 else accelerator.no_sync(self.model):
                losses = self.model(next(batches).to(accelerator.device), mine)
                accelerator.backward(losses["total"] / parts)
            for name, loss in losses.items():
                sums[name] = sums.get(name, 0.0) + loss.detach().float() / parts
        values = accelerator.reduce(torch.stack(list(sums.values())), "mean").tolist()
        found = dict(zip(sums, values, strict=True))
        norm = nn.utils.clip_grad_norm_(self.parameters, c.optimiser.clip_norm)
        found["gradient_norm"] = (norm.full_tensor() if hasattr(norm, "full_tensor") else norm).item()
        if not all(map(math.isfinite, found.values())):
            raise FloatingPointError(f"step {step + 1} is not finite: {found}")
        self.optimiser.step()
        self.ema.update(step)
        return {name: value for name, value in found.items() if name != "total"}

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        """Losses of the averaged weights on held-out frames, with the same noise every time; all processes do the
        same.
        """
        plain = replace(self.config.loss, max_delay=0, vary_colours=False)
        frames = sum(len(batch.images) for batch in self._validation)
        draws = draw(self.c, plain, frames, VALIDATION_SEED, 0)
        sums, begin = {}, 0
        self.model.eval()
        with self.ema.applied():
            for batch in self._validation:
                n = len(batch.images)
                mine = draws.part(begin, begin + n, plain.draws).to(self.accelerator.device)
                for name, loss in self.model(batch.to(self.accelerator.device), mine).items():
                    sums[name] = sums.get(name, 0.0) + n * float(loss)
                begin += n
        return {f"held_out_{name}": total / frames for name, total in sums.items() if name != "total"}

    def _resume(self) -> int:
        found = state.newest(self.out)
        if not self.config.resume:
            if found:
                raise FileExistsError(f"{self.out} holds a training state: add --resume, or give another --out")
            return 0
        if not found:
            raise FileNotFoundError(f"there is no training state in {self.out} to resume")
        return state.load(found, self.model, self.optimiser.optimizer, self.ema)

    def _save(self, done: int) -> None:
        state.save(self.out, done, self.model, self.optimiser.optimizer, self.ema, self.accelerator)
        with self.ema.applied():
            weights = state.whole_weights(self.model)
            if self.accelerator.is_main_process:
                self.save(weights)

    def _rate(self, step: int) -> float:
        return learning_rate(self.config.optimiser, step, self.config.steps)
