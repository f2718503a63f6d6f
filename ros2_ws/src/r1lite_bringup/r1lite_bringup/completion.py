"""Writes completion/depthvla.bash: the options of every subcommand, as its help names them, for bash to complete."""

from __future__ import annotations

import contextlib
import importlib
import io
import re
import sys

from r1lite_bringup import command

OPTION = re.compile(r"(?<![\w-])--[a-z][\w.-]*[a-z0-9]")
ARGUMENT = re.compile(r"^    '(\w+)':$", re.MULTILINE)  # as `ros2 launch --show-args` lists them
HEAD = """# bash completion of depthvla, generated from the code by `depthvla reference`.
_depthvla() {
  local word=${COMP_WORDS[COMP_CWORD]} options=""
  COMPREPLY=()
  case "$COMP_CWORD ${COMP_WORDS[1]}" in
"""
TAIL = """  esac
  COMPREPLY=($(compgen -W "$options" -- "$word"))
  if [[ ${COMPREPLY[0]} == *:= ]]; then compopt -o nospace; fi
}
# Where there is no option to offer, files are.
complete -o default -F _depthvla depthvla
"""


def text() -> str:
    names = {name: module for commands in command.by_package().values() for name, (module, _) in commands.items()}
    lines = [f'    "1 "*) options="{" ".join(sorted((*names, command.COMPLETION)))}" ;;']
    lines += [f'    *" {name}") options="{" ".join(options(module))}" ;;' for name, module in sorted(names.items())]
    return HEAD + "\n".join(lines) + "\n" + TAIL


def options(module: str) -> list[str]:
    """`--option` and `argument:=` of a command, from its help."""
    shown, arguments = io.StringIO(), sys.argv
    sys.argv = [module, "--help"]
    try:
        with contextlib.redirect_stdout(shown), contextlib.suppress(SystemExit):
            importlib.import_module(module).main()
    finally:
        sys.argv = arguments
    text = shown.getvalue()
    return sorted({*OPTION.findall(text), *(f"{name}:=" for name in ARGUMENT.findall(text))})
