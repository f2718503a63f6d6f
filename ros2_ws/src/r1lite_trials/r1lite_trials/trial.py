"""What all trials have in common: how they begin, that their figures go to a JSON file and a table, and that their
problems decide the exit code.
"""

from __future__ import annotations

import datetime
import functools
import json
import shlex
import signal
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np
import tyro
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from depthvla_policy.bench.machine import machine

Config = TypeVar("Config")


def trial(main: Callable[[Sequence[str] | None], int]) -> Callable[[Sequence[str] | None], int]:
    """A command that says in one line why its graph did not come up or its figures cannot be made, with exit code 1."""

    @functools.wraps(main)
    def command(argv: Sequence[str] | None = None) -> int:
        try:
            return main(argv)
        except (AssertionError, LookupError, OSError, ValueError) as error:
            print(f"error: {error}", file=sys.stderr)
            return 1

    return command


def begin(name: str, config: type[Config], argv: Sequence[str] | None, description: str) -> tuple[Config, dict]:
    """The settings from the command line, and what stands before the figures: command, machine and date."""
    words = sys.argv[1:] if argv is None else argv
    settings = tyro.cli(config, args=words, description=description)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # the nodes are ended too
    command = shlex.join(["depthvla", name, *words])
    return settings, {"command": command, "machine": machine(), "date": datetime.date.today().isoformat()}


def finish(out: Path, result: dict, text: str, problems: Sequence[str] = ()) -> int:
    """The exit code: 1 where there are problems."""
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(result, indent=1) + "\n")
    print(text)
    for problem in problems:
        print(f"PROBLEM: {problem}")
    return int(bool(problems))


def markdown_table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    head, *lines = ("| " + " | ".join(row) + " |" for row in (columns, *rows))
    return "\n".join([head, "|" + "---|" * len(columns), *lines])


def save_with_palette(figure: Figure, path: Path, *, dpi: int, colours: int) -> None:
    """With a palette a document's picture is a third as large."""
    canvas = FigureCanvasAgg(figure)
    figure.set_dpi(dpi)
    canvas.draw()
    pixels = np.ascontiguousarray(np.asarray(canvas.buffer_rgba())[..., :3])
    Image.fromarray(pixels).quantize(colours).save(path, optimize=True)
