"""What all trials have in common: how they begin, and that their figures go to a JSON file and their problems decide
the exit code.
"""

from __future__ import annotations

import datetime
import json
import shlex
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

import tyro

from r1lite_trials.machine import machine

Config = TypeVar("Config")


def begin(name: str, config: type[Config], argv: Sequence[str] | None, description: str) -> tuple[Config, dict]:
    """The settings from the command line, and what stands before the figures: command, machine and date."""
    words = sys.argv[1:] if argv is None else argv
    settings = tyro.cli(config, args=words, description=description)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # the nodes are ended too
    command = shlex.join(["python", "-m", f"{__package__}.{name}", *words])
    return settings, {"command": command, "machine": machine(), "date": datetime.date.today().isoformat()}


def finish(out: Path, result: dict, text: str, problems: Sequence[str] = ()) -> int:
    """The exit code: 1 where there are problems."""
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(result, indent=1) + "\n")
    print(text)
    for problem in problems:
        print(f"PROBLEM: {problem}")
    return int(bool(problems))
