"""Files of others: what cannot be read is refused with its name, what it holds and what is wanted, whoever reads it.
Files of ours are there as a whole or not at all.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import yaml

POINTER = b"version https://git-lfs.github.com/spec/"
WEB_PAGES = (b"<!doctype html", b"<html")


@contextmanager
def reading(path: Path, wanted: str) -> Iterator[None]:
    """Around what a library does with the file `path`: whatever it raises becomes one error that names the file.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file holds something else than what is `wanted`, or not all of it.
    """
    check(path, wanted)
    try:
        yield
    except (FileNotFoundError, PermissionError, MemoryError):
        raise
    except Exception as error:  # every library has errors of its own, and some raise Exception itself
        said = str(error).strip() or repr(error)
        first = said.splitlines()[0]
        kind = "" if isinstance(error, ValueError) else f"{type(error).__name__}: "
        raise ValueError(f"{path}: {kind}{first}; wanted: {wanted}") from error


def check(path: Path, wanted: str) -> None:
    """Raises as `reading` for a file that is missing, empty, a folder, a web page or a pointer of Git LFS."""
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist; wanted: {wanted}")
    if found := _something_else(path):
        raise ValueError(f"{path}: {found}; wanted: {wanted}")


def read_json(path: Path, wanted: str) -> Any:
    """Contents of a JSON file. Raises as `reading`."""
    with reading(path, f"{wanted} (JSON)"):
        return json.loads(Path(path).read_text(encoding="utf-8"))


def read_yaml(path: Path, wanted: str) -> Any:
    """Contents of a YAML file. Raises as `reading`."""
    with reading(path, f"{wanted} (YAML)"):
        return yaml.safe_load(Path(path).read_text(encoding="utf-8"))


def models_folders() -> list[Path]:
    """The repository's models/: above the source tree and its own ros2_ws/install, or below src/ of the workspace that
    it was cloned into.
    """
    above = Path(__file__).resolve().parents
    return [folder for parent in above for folder in (parent / "models", *sorted(parent.glob("src/*/models")))]


def to_disk(file: BinaryIO) -> None:
    """What was written to it survives the loss of power, by which a robot on a battery usually ends."""
    file.flush()
    os.fsync(file.fileno())


def put(temporary: Path, path: Path) -> None:
    """A whole file in the place of another: after the loss of power it is the old one or the new one."""
    with open(temporary, "rb") as file:
        os.fsync(file.fileno())
    temporary.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _something_else(path: Path) -> str | None:
    """What a file evidently is in place of anything that is read here."""
    if path.is_dir():
        return "a folder"
    with open(path, "rb") as file:
        begin = file.read(200)
    if not begin:
        return "empty"
    if begin.startswith(POINTER):
        return "a pointer of Git LFS in place of the file, which `git lfs pull` fetches"
    if begin.lstrip().lower().startswith(WEB_PAGES):
        return "a web page"
    return None
