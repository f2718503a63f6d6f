"""Where an episode may be recorded that somebody on the network asks for."""

from __future__ import annotations

from pathlib import Path


def below(root: str, name: str) -> Path:
    """The folder `name` below `root`; an absolute name has to be there already. Neither exists yet, perhaps.

    Raises:
        ValueError: it would be elsewhere, however it is written.
    """
    top = Path(root).expanduser().absolute()
    path = top / name if name.isprintable() else top
    inside = ".." not in path.parts and not name.startswith("~") and path.resolve() != top.resolve()
    if not inside or top.resolve() not in path.resolve().parents:
        raise ValueError(f"bag is {name!r}; allowed: a folder below {top}, which the recorder's bag_root names")
    return path
