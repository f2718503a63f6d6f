"""`depthvla SUBCOMMAND`: one command for people. Every package brings its own subcommands, `<package>/commands.py`."""

from __future__ import annotations

import difflib
import importlib
import os
import sys
from collections.abc import Sequence
from importlib.metadata import entry_points
from pathlib import Path

from r1lite_description.share import share

GROUP = "depthvla.commands"  # of entry points, so that a package above this one can bring subcommands too
COMPLETION = "completion"
ROS = ("rclpy", "depthvla_msgs")


def main(argv: Sequence[str] | None = None) -> int:
    try:
        return run(list(sys.argv[1:] if argv is None else argv))
    except BrokenPipeError:  # whoever read has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


def run(words: Sequence[str]) -> int:
    if not words or words[0] in ("-h", "--help"):
        print(usage(), flush=True)
        return 0
    name, *rest = words
    if name == COMPLETION:
        print(completion_file().read_text(), end="", flush=True)
        return 0
    modules = {known: module for commands in by_package().values() for known, (module, _) in commands.items()}
    if name not in modules:
        close = " or ".join(difflib.get_close_matches(name, modules, 3))
        meant = f"; did you mean {close}?" if close else ""
        print(f"depthvla: no subcommand {name!r}{meant} (depthvla --help lists them)", file=sys.stderr)
        return 2
    sys.argv = [f"depthvla {name}", *rest]  # what a subcommand's usage and errors begin with
    try:
        return importlib.import_module(modules[name]).main() or 0
    except ModuleNotFoundError as error:
        if error.name not in ROS:
            raise
        print(f"depthvla {name} needs ROS 2 ({error.name}): source its setup.bash, or tools/env.sh", file=sys.stderr)
        return 1


def by_package() -> dict[str, dict[str, tuple[str, str]]]:
    """Package -> name of a subcommand -> its module and what it does, of the installed packages."""
    found = {}
    for point in sorted(entry_points(group=GROUP), key=lambda point: point.name):
        try:
            found[point.name] = point.load()
        except (AttributeError, ImportError) as error:  # the others' commands work
            print(f"depthvla: package {point.name} is broken: {error}", file=sys.stderr)
    return found


def usage() -> str:
    lines = ["usage: depthvla SUBCOMMAND [-h] ...", ""]
    for package, commands in by_package().items():
        lines += [f"{package}:", *(f"  {name:<18} {text}" for name, (_, text) in commands.items()), ""]
    lines.append('Completion of Tab, for bash: eval "$(depthvla completion)"')
    return "\n".join(lines)


def completion_file() -> Path:
    return share("r1lite_bringup") / "completion" / "depthvla.bash"
