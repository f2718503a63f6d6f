"""Dockerfiles and compose files as data, for test_docker.py. There is no Docker where the tests run."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[4]
DOCKER = ROOT / "docker"
DOCKERFILES = sorted(DOCKER.glob("*.Dockerfile"))
COMPOSE_FILES = sorted(DOCKER.glob("compose.*.yaml"))
INSTRUCTIONS = ("ARG", "FROM", "SHELL", "RUN", "USER", "WORKDIR", "COPY", "ENV", "ENTRYPOINT", "CMD")
# ${NAME}, ${NAME:-default} and ${NAME:?complaint}, which is all that our compose files use
VARIABLE = re.compile(r"\$\{(\w+)(?::([-?])([^}]*))?\}")


@dataclass(frozen=True)
class Instruction:
    name: str
    text: str  # without the name; continued lines are joined


def instructions(path: Path) -> list[Instruction]:
    """Raises ValueError for a line that is no instruction."""
    lines = [line for line in path.read_text().splitlines() if line.strip() and not line.lstrip().startswith("#")]
    found = []
    for line in "\n".join(lines).replace("\\\n", " ").splitlines():
        name, _, text = line.partition(" ")
        if name not in INSTRUCTIONS:
            raise ValueError(f"{path.name}: {line!r} does not begin with one of {INSTRUCTIONS}")
        found.append(Instruction(name, text.strip()))
    return found


def texts(path: Path, name: str) -> list[str]:
    return [item.text for item in instructions(path) if item.name == name]


def apt_packages(path: Path) -> set[str]:
    commands = re.findall(r"apt-get install -y --no-install-recommends ([^&]+)", " ".join(texts(path, "RUN")))
    return {name for command in commands for name in command.split()}


def services(path: Path, environment: dict[str, str]) -> dict[str, dict]:
    """A compose file's services with variables put in. Raises ValueError for one that is asked for and not given."""

    def value(match: re.Match) -> str:
        name, kind, rest = match.groups()
        if name in environment:
            return environment[name]
        if kind == "?":
            raise ValueError(f"{path.name} needs {name}: {rest}")
        return rest or ""

    lines = [line for line in path.read_text().splitlines() if not line.lstrip().startswith("#")]
    return yaml.safe_load(VARIABLE.sub(value, "\n".join(lines)))["services"]
