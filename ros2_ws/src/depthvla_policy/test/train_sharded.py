"""`depthvla_policy.train` with FSDP on CPU processes, for tests: accelerate itself shards on GPUs only.

Takes the sharding from models/training/accelerate-fsdp.yaml, and goes through accelerate's own code from there on. The
first argument is the number of steps to stop after; what this process holds of the weights is printed.
"""

from __future__ import annotations

import sys

import yaml
from accelerate import Accelerator
from accelerate.utils import DistributedType, FullyShardedDataParallelPlugin

from depthvla_policy import train as command
from depthvla_policy.training.config import TrainConfig, find
from depthvla_policy.training.trainer import Trainer, keep_float32


def sharding_accelerator(config: TrainConfig) -> Accelerator:
    settings = yaml.safe_load(find("accelerate-fsdp", "training", ".yaml").read_text())["fsdp_config"]
    precision = "bf16" if config.machine.precision == "bfloat16" else "no"
    accelerator = Accelerator(cpu=True, mixed_precision=precision)
    accelerator.state.fsdp_plugin = FullyShardedDataParallelPlugin(
        fsdp_version=settings["fsdp_version"],
        reshard_after_forward=settings["fsdp_reshard_after_forward"],
        auto_wrap_policy=settings["fsdp_auto_wrap_policy"],
        transformer_cls_names_to_wrap=settings["fsdp_transformer_layer_cls_to_wrap"].split(","),
        cpu_ram_efficient_loading=settings["fsdp_cpu_ram_efficient_loading"],
    )
    accelerator.state.distributed_type = DistributedType.FSDP
    keep_float32(accelerator)
    return accelerator


class ShortTrainer(Trainer):
    stop_after = 0

    def step(self, step, batches):
        if step == self.stop_after:
            held = sum(parameter.to_local().numel() for parameter in self.parameters)
            print(f"held {held / sum(parameter.numel() for parameter in self.parameters):.2f}", flush=True)
            sys.exit(0)
        return super().step(step, batches)


if __name__ == "__main__":
    ShortTrainer.stop_after = int(sys.argv.pop(1))
    command.accelerator_for, command.Trainer = sharding_accelerator, ShortTrainer
    command.main()
