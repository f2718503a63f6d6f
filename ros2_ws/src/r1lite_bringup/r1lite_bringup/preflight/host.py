"""What this computer says about itself: kernel settings, disk, environment, programs that keep its clock."""

from __future__ import annotations

import os
import platform
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

SETTINGS = ("net/core/rmem_max", "net/core/rmem_default", "net/ipv4/ipfrag_high_thresh", "net/ipv4/ipfrag_time")
# As the kernel names their processes, with 15 letters at most.
CLOCK_KEEPERS = ("chronyd", "ntpd", "systemd-timesyn", "ptp4l", "phc2sys")


@dataclass(frozen=True)
class Host:
    """`kernel`: setting -> value, as in sysctl(8); what this kernel does not have is left out."""

    kernel: Mapping[str, int]
    free_bytes: int
    bags: Path
    environment: Mapping[str, str]
    middleware: str
    python: tuple[int, int]
    clock_keepers: tuple[str, ...]


def look(bags: Path, middleware: str) -> Host:
    return Host(
        kernel={name.replace("/", "."): value for name in SETTINGS if (value := _kernel(name)) is not None},
        free_bytes=shutil.disk_usage(_existing(bags)).free,
        bags=bags,
        environment=dict(os.environ),
        middleware=middleware,
        python=tuple(int(part) for part in platform.python_version_tuple()[:2]),
        clock_keepers=tuple(sorted(_processes() & set(CLOCK_KEEPERS))),
    )


def _kernel(name: str) -> int | None:
    try:
        return int(Path("/proc/sys", name).read_text())
    except (OSError, ValueError):
        return None


def _existing(path: Path) -> Path:
    """The folder itself or the nearest one above it that is there."""
    path = path.expanduser().absolute()
    return next(folder for folder in (path, *path.parents) if folder.exists())


def _processes() -> set[str]:
    names = set()
    for file in Path("/proc").glob("[0-9]*/comm"):
        try:
            names.add(file.read_text().strip())
        except OSError:  # it has ended meanwhile
            continue
    return names
