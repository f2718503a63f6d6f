"""Task descriptions: those that come with the robot can be read, and mistakes in one's own are named."""

from __future__ import annotations

import pytest
import yaml

from r1lite_description import tasks

GOOD = {
    "name": "mine",
    "instruction": "do it",
    "substeps": {"begun": "it was begun", "done": "it is done"},
    "reset": ["everything back"],
    "time_limit_s": 30,
}


def write(folder, **changes):
    path = folder / "mine.yaml"
    path.write_text(yaml.safe_dump({**GOOD, **changes}, sort_keys=False))
    return path


@pytest.mark.parametrize("name", tasks.names())
def test_the_tasks_that_come_with_the_robot_can_be_read(name):
    assert tasks.load(name).name == name


def test_the_tasks_of_the_paper_are_there():
    assert {"table_bussing", "microwave_operation", "blocks_stacking"} <= set(tasks.names())


def test_a_task_of_ones_own_keeps_the_order_of_its_substeps(tmp_path):
    task = tasks.load(write(tmp_path))
    assert list(task.substeps) == ["begun", "done"]
    assert task.time_limit_s == 30.0


def test_an_unknown_task_is_refused_with_the_known_ones():
    with pytest.raises(FileNotFoundError, match="'juggling'.*blocks_stacking"):
        tasks.load("juggling")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": "other"}, "name is 'other'"),
        ({"instruction": " "}, "instruction is ' '"),
        ({"substeps": {}}, "substeps is {}"),
        ({"substeps": ["begun"]}, r"substeps is \['begun'\]"),
        ({"reset": "all"}, "reset is 'all'"),
        ({"time_limit_s": 0}, "time_limit_s is 0"),
        ({"time_limit_s": float("nan")}, "time_limit_s is nan"),
        ({"points": 3}, "keys are .*points"),
    ],
)
def test_a_mistake_is_named(tmp_path, changes, message):
    with pytest.raises(ValueError, match=f"mine.yaml: {message}"):
        tasks.load(write(tmp_path, **changes))


def test_a_file_that_is_no_yaml_is_named(tmp_path):
    (tmp_path / "mine.yaml").write_text("name: [")
    with pytest.raises(ValueError, match="mine.yaml"):
        tasks.load(tmp_path / "mine.yaml")
