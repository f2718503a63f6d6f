"""A checkpoint for graphs that are looked at, not run."""

from __future__ import annotations

import pytest


@pytest.fixture(scope="session")
def real_model(tmp_path_factory) -> str:
    """A folder that the graph takes for a checkpoint of a real robot, to see what is started with it."""
    folder = tmp_path_factory.mktemp("real") / "checkpoint"
    folder.mkdir()
    (folder / "config.json").write_text('{"policy": {"made_for": ["real"]}}')
    return str(folder)
