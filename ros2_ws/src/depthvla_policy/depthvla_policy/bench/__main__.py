"""Speed, memory and precision of a checkpoint on this machine: `depthvla bench`. Writes JSON.

Each stage and whole chunks: network and engine, with and without depth, with every number of cameras, beside pi0 of the
same dimensions, transformers' pi0 and the roofline. Works on a full-size checkpoint with random weights as well as on a
trained policy; without normalisation statistics the stages around the network are left out.
"""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Sequence

import torch
import tyro

from depthvla_policy.bench import table
from depthvla_policy.bench.figures import BenchConfig, bench


def main(argv: Sequence[str] | None = None) -> int:
    words = sys.argv[1:] if argv is None else argv
    config = tyro.cli(BenchConfig, args=words, description=__doc__)
    if config.device.startswith("cuda") and not torch.cuda.is_available():
        print("skipped: there is no CUDA device here")
        return 0
    try:
        figures = bench(config)
    except (OSError, RuntimeError, ValueError) as error:  # torch raises the second, for a device it does not know
        print(f"bench: {error}", file=sys.stderr)
        return 1
    result = {"command": shlex.join(["depthvla", "bench", *words]), **figures}
    config.out.parent.mkdir(parents=True, exist_ok=True)
    config.out.write_text(json.dumps(result, indent=1) + "\n")
    print(table.markdown(result) if config.markdown else table.text(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
