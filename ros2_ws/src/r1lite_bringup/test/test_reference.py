"""docs/reference.md says what the code has."""

from __future__ import annotations

import pytest

from r1lite_description.share import share


@pytest.fixture(scope="module")
def reference(ros):
    from r1lite_bringup import reference

    return reference


@pytest.fixture(scope="module")
def text(reference) -> str:
    return reference.text()


def test_the_committed_reference_is_up_to_date(reference, text):

    committed = share("r1lite_bringup").parents[2] / reference.FILE
    assert committed.read_text() == text, "depthvla reference writes it anew"


def test_every_node_that_a_graph_starts_has_a_section(text, real_model):
    from r1lite_bringup import graph

    started = graph.graph({"leader": "true", "record": "true", "viewer": "true"})
    started += graph.graph({"robot": "real", "rviz": "true", "model": real_model})
    ours = {node.name for node in started if node.name in graph.NODES}
    assert ours <= {line.removeprefix("## ") for line in text.splitlines()}


def test_a_table_row_has_as_many_cells_as_its_head(text):
    columns = 0
    for line in text.splitlines():
        cells = len(line.replace("\\|", "").split("|"))
        columns = cells if not columns else columns
        if not line.startswith("|"):
            columns = 0
        else:
            assert cells == columns, line


def test_a_parameter_file_that_differs_from_the_default_is_seen(text):
    assert "| `max_rate_hz` | `15.0`; installed: `0.0` |" in text
