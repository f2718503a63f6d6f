"""Tiny executables in the place of the real nodes: an ament prefix that shadows the installed packages.

Each writes what it was started with to <folder>/<node>.json, then waits to be interrupted. `behaviours` maps a node's
name to Python code that runs instead of the waiting.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import yaml

SCRIPT = """#!{python}
import json, os, signal, sys, time
import yaml

words = sys.argv[1:]
pairs = list(zip(words, words[1:]))
remappings = [word.split(":=", 1) for flag, word in pairs if flag == "-r"]
name = dict(remappings)["__node"]
files = [word for flag, word in pairs if flag == "--params-file"]
parameters = {{}}
for file in files:
    content = yaml.safe_load(open(file)) if os.path.exists(file) else {{}}
    for key in content:
        parameters.update(content[key]["ros__parameters"])
for flag, word in pairs:
    if flag == "-p":
        key, value = word.split(":=", 1)
        parameters[key] = yaml.safe_load(value)
record = {{
    "pid": os.getpid(),
    "remappings": sorted(pair for pair in remappings if pair[0] != "__node"),
    "parameters": parameters,
    "environment": dict(os.environ),
}}
behaviour = json.loads({behaviours!r}).get(name, "time.sleep(60)")
print("hello from", name)
with open(os.path.join({folder!r}, name + ".part"), "w") as file:
    json.dump(record, file)
try:
    os.rename(file.name, os.path.join({folder!r}, name + ".json"))
    exec(compile(behaviour, name, "exec"))
except KeyboardInterrupt:
    print("goodbye from", name)
"""


def install(folder: Path, executables: Sequence[tuple[str, str]], behaviours: Mapping[str, str]) -> Path:
    """Make an ament prefix in `folder` with (package, executable) pairs. Returns the prefix."""
    prefix = folder / "prefix"
    for package, executable in executables:
        marker = prefix / "share" / "ament_index" / "resource_index" / "packages" / package
        marker.parent.mkdir(parents=True, exist_ok=True)
        marker.touch()
        path = prefix / "lib" / package / executable
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(SCRIPT.format(python=sys.executable, behaviours=json.dumps(behaviours), folder=str(folder)))
        path.chmod(0o755)
    return prefix


def parameters_of(file: Path) -> dict:
    sections = yaml.safe_load(file.read_text()).values()
    return {key: value for section in sections for key, value in section["ros__parameters"].items()}


def record(folder: Path, name: str) -> dict:
    """What a node was started with; waits until it was."""
    wait_until(lambda: (folder / f"{name}.json").exists(), f"{name} has not started")
    return json.loads((folder / f"{name}.json").read_text())


def wait_until(condition: Callable[[], bool], complaint: str, timeout_s: float = 30.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, complaint
        time.sleep(0.02)


def is_running(pid: int) -> bool:
    # A killed process whose parent has not asked for its exit code is a zombie.
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False
