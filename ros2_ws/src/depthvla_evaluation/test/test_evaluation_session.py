"""A session goes on from whatever lies in its folder; a score is what was pressed; the table says what the bags say."""

from __future__ import annotations

import dataclasses
import json
import shutil

import pytest
import yaml

from depthvla_control.operator_input import KEYS as CONSOLE_KEYS
from depthvla_control.operator_input import STOP_KEY, Action
from depthvla_evaluation.bags.bag_writer import BagWriter
from depthvla_evaluation.bags.recover import recover
from depthvla_evaluation.session import text as session_text
from depthvla_evaluation.session.folder import Plan, Result, SessionFolder
from depthvla_evaluation.session.scoring import DONE, KEYS, REDO, Kind, Request, Scoring
from r1lite_description.tasks import Task

TASK = Task(
    "stack",
    "stack the blocks",
    {"one": "the first is up", "two": "the second is on it", "three": "and the third"},
    ("blocks back",),
    60.0,
)
PLAN = Plan(TASK, policy="mine", setting="lamp off", episodes=3)
SECOND = 10**9


def about(number, outcome="success", marked=("one",), **changes):
    values = {"task": "stack", "setting": "lamp off", "scene": PLAN.scene_name(number), "policy": "mine"}
    marks = [{"substep": substep, "time_ns": 0} for substep in marked]
    return {**values, "outcome": outcome, "substeps": json.dumps(marks), **changes}


def record(folder, number, outcome="success", marked=("one",), **changes):
    path = folder.path / f"episode_{number:02d}"
    BagWriter(path).close(about(number, outcome, marked, **changes))
    return path


def kill(folder, number):
    """A bag as a recorder leaves it that is killed: no metadata, and notes that say what was known."""
    path = record(folder, number)
    (path / "metadata.yaml").unlink()
    (path / "unfinished.json").write_text(json.dumps(about(number, outcome="")))
    return path


@pytest.fixture
def reopen(tmp_path):
    """Opens the folder as a process does that starts; the one before is gone."""
    opened = []

    def reopen(plan=PLAN):
        if opened:
            opened.pop().close()
        opened.append(SessionFolder(tmp_path / "session", plan))
        return opened[0]

    yield reopen
    for folder in opened:
        folder.close()


# The folder


def test_new_folder_says_what_it_is_for_and_begins_with_the_first_episode(reopen):
    folder = reopen()
    assert folder.sort() == [] and folder.next() == 1 and folder.bag(1).name == "episode_01"
    written = yaml.safe_load((folder.path / "session.yaml").read_text())
    assert written["task"]["instruction"] == "stack the blocks"
    assert (written["policy"], written["setting"], written["episodes"]) == ("mine", "lamp off", 3)
    assert written["created"].endswith("+00:00")


def test_closed_and_scored_episodes_count_and_the_first_that_is_missing_is_next(reopen):
    folder = reopen()
    record(folder, 1, "failure", ["two", "of another task"])
    record(folder, 3, "success", ["three", "one", "two"])
    folder = reopen()
    assert folder.sort() == []
    assert folder.results == {
        1: Result("failure", "mine", ("two",)),
        3: Result("success", "mine", tuple(TASK.substeps)),
    }
    assert folder.next() == 2
    record(folder, 2)
    folder.sort()
    assert folder.next() is None


def empty_metadata(folder, number):
    path = record(folder, number)
    (path / "metadata.yaml").write_text("")
    return path


def recovered(folder, number):
    path = kill(folder, number)
    recover(path)
    return path


@pytest.mark.parametrize(
    ("leave", "why"),
    [
        (kill, "unfinished"),
        (lambda folder, number: folder.bag(number).mkdir() or folder.bag(number), "unfinished"),
        (recovered, "failed"),
        (empty_metadata, "unreadable"),
        (lambda folder, number: record(folder, number, "aborted"), "aborted"),
        (lambda folder, number: record(folder, number, "failed"), "failed"),
        (lambda folder, number: record(folder, number, ""), "unscored"),
        (lambda folder, number: record(folder, number, scene="layout 99"), "foreign"),
        (lambda folder, number: record(folder, number, setting="lamp on"), "foreign"),
        (lambda folder, number: record(folder, number, task="other"), "foreign"),
    ],
)
def test_what_does_not_count_is_set_aside_whole_and_done_again(reopen, leave, why):
    folder = reopen()
    record(folder, 1)
    path = leave(folder, 2)
    files = {file.name: file.read_bytes() for file in path.iterdir()}
    folder = reopen()
    (aside, *others) = folder.sort()
    assert (aside.name, aside.why, aside.path) == ("episode_02", why, folder.path / f"aside/episode_02.{why}-1")
    assert {file.name: file.read_bytes() for file in aside.path.iterdir()} == files
    assert [other.name for other in others] == (["episode_02.broken"] if leave is recovered else [])
    assert folder.next() == 2 and list(folder.results) == [1]
    assert [path.name for path in folder.path.glob("episode_*")] == ["episode_01"]


def test_nothing_that_was_set_aside_is_overwritten(reopen):
    folder = reopen()
    for _ in range(3):
        record(folder, 1, "aborted")
        folder.sort()
    assert sorted(path.name for path in (folder.path / "aside").iterdir()) == [
        f"episode_01.aborted-{count}" for count in (1, 2, 3)
    ]


def test_unfinished_bag_is_recovered_where_it_lies(reopen):
    folder = reopen()
    kill(folder, 1)
    (aside,) = folder.sort()
    said = session_text.set_aside(aside)
    assert f"depthvla recover {aside.path}" in said and "does not count (unfinished)" in said
    recover(aside.path)
    assert (aside.path / "metadata.yaml").exists()
    assert folder.sort() == []


def test_redone_episode_is_kept_and_next(reopen):
    folder = reopen()
    for number in (1, 2, 3):
        record(folder, number)
    folder.sort()
    assert folder.redo(2).path.name == "episode_02.redone-1"
    assert folder.next() == 2 and sorted(folder.results) == [1, 3]


def test_process_killed_before_the_session_was_written_leaves_a_folder_that_can_be_used(tmp_path):
    (tmp_path / "session").mkdir()
    (tmp_path / "session" / "session.yaml.tmp").write_text("task: {na")
    folder = SessionFolder(tmp_path / "session", PLAN)
    assert folder.next() == 1
    folder.close()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"task": dataclasses.replace(TASK, name="pour")}, "task is 'pour', but the session in .* has 'stack'"),
        ({"task": dataclasses.replace(TASK, instruction="stack them")}, "instruction is 'stack them'"),
        ({"task": dataclasses.replace(TASK, substeps={"one": "up"})}, "substeps is {'one': 'up'}"),
        ({"policy": "pi0"}, "policy is 'pi0', but .* 'mine'"),
        ({"setting": "lamp on"}, "setting is 'lamp on', but .* 'lamp off'"),
        ({"first_scene": 4}, "first_scene is 4, but .* 0"),
        ({"simulator": True}, "simulator is True, but .* False"),
    ],
)
def test_folder_of_another_session_is_refused_with_the_difference(reopen, changes, message):
    record(reopen(), 1, "aborted")
    with pytest.raises(ValueError, match=message):
        reopen(dataclasses.replace(PLAN, **changes))
    assert len(reopen().sort()) == 1  # nothing was touched


def test_more_episodes_may_be_asked_for(reopen):
    record(reopen(dataclasses.replace(PLAN, episodes=1)), 1)
    folder = reopen()
    folder.sort()
    assert folder.next() == 2
    assert yaml.safe_load((folder.path / "session.yaml").read_text())["episodes"] == 3


def test_folder_in_use_or_with_strange_episodes_is_refused(reopen, tmp_path):
    folder = reopen()
    with pytest.raises(ValueError, match="another session is running in this folder"):
        SessionFolder(folder.path, PLAN)
    shutil.copytree(record(folder, 1), tmp_path / "other" / "episode_01")
    with pytest.raises(ValueError, match="has episodes but no session.yaml"):
        SessionFolder(tmp_path / "other", PLAN)
    (folder.path / "session.yaml").write_text("task: {}")
    with pytest.raises(ValueError, match="session.yaml cannot be read"):
        reopen()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"episodes": 0}, "episodes is 0"),
        ({"first_scene": -1}, "first_scene is -1"),
        ({"task": dataclasses.replace(TASK, substeps={str(n): "x" for n in range(10)})}, "'stack' has 10 substeps"),
    ],
)
def test_plan_that_makes_no_sense_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(PLAN, **changes)


def test_scenes_go_on_from_the_first_and_are_seeds_in_the_simulation():
    assert PLAN.scene_name(1) == "layout 0"
    assert dataclasses.replace(PLAN, first_scene=10, simulator=True).scene_name(3) == "seed 12"


# The score


class Person:
    """Presses keys, and is the recorder that does what is asked."""

    def __init__(self):
        self.now_ns = 0
        self.scoring = Scoring(tuple(TASK.substeps), TASK.time_limit_s, lambda: self.now_ns)

    def press(self, key):
        self.now_ns += SECOND
        answer = self.scoring.press(key)
        marked = self.scoring.marked
        if isinstance(answer, Request) and answer.kind is Kind.MARK:
            self.scoring.marked = (*marked, answer.text)
        elif isinstance(answer, Request) and answer.kind is Kind.UNDO:
            self.scoring.marked = marked[:-1]
        return answer


def test_keys_mark_in_any_order_and_undo_takes_back_the_newest():
    person = Person()
    assert [person.press(key) for key in "31u2"] == [
        Request(Kind.MARK, "three"),
        Request(Kind.MARK, "one"),
        Request(Kind.UNDO, "one"),
        Request(Kind.MARK, "two"),
    ]
    assert person.scoring.score == 2 and person.scoring.outcome == "failure"
    assert person.press("1") == Request(Kind.MARK, "one") and person.scoring.outcome == "success"


@pytest.mark.parametrize("done", DONE)
def test_score_is_corrected_after_done_and_confirmed_with_enter(done):
    person = Person()
    for key in ("1", "2", "3", done):
        person.press(key)
    assert person.scoring.in_review
    assert person.press("u") == Request(Kind.UNDO, "three")
    assert person.press("\n") == Request(Kind.STOP, "failure")
    assert person.press("3") == Request(Kind.MARK, "three")
    assert person.press("\r") == Request(Kind.STOP, "success")


def test_what_cannot_be_done_is_said():
    person = Person()
    assert [person.press(key) for key in ("u", "4", "0", "d", "1", "1")] == [
        "nothing is marked",
        "there is no substep 4",
        "there is no substep 0",
        "no such key: 'd'",
        Request(Kind.MARK, "one"),
        "one is marked already",
    ]
    assert [person.press(key) for key in "xq"] == [Request(Kind.ABORT), Request(Kind.QUIT)]


def test_a_key_means_the_same_here_and_at_the_console_or_nothing_there():
    assert {key: action for key, action in CONSOLE_KEYS.items() if key in (*KEYS, *DONE, REDO, "y", "n")} == {
        "u": Action.UNDO,
        "q": Action.QUIT,
    }
    assert not any(key.isdecimal() for key in CONSOLE_KEYS)
    assert (KEYS["u"], KEYS["q"]) == (Kind.UNDO, Kind.QUIT)


def test_the_stop_key_is_none_of_a_score_and_is_shown_whenever_keys_are():
    assert CONSOLE_KEYS[STOP_KEY] is Action.STOP
    person = Person()
    assert person.press(STOP_KEY) is None and not person.scoring.in_review
    shown = [session_text.before_keys(number, None) for number in (1, None)]
    shown.append(session_text.during(TASK, person.scoring, "HOLD"))
    person.press("\n")
    assert person.press(STOP_KEY) is None
    shown.append(session_text.during(TASK, person.scoring, "HOLD"))
    assert all(text.endswith("space: STOP THE ARMS") for text in shown)


def test_enter_that_is_held_does_not_confirm_the_score():
    scoring = Person().scoring
    assert [scoring.press("\n") for _ in range(5)] == [None] * 5
    assert scoring.in_review


def test_time_stands_still_in_the_review():
    person = Person()
    person.now_ns = 59 * SECOND
    assert not person.scoring.over_time
    person.press("\n")
    person.now_ns = 90 * SECOND
    assert person.scoring.elapsed_s == 60.0 and not person.scoring.over_time


# What is said


def test_table_counts_substeps_and_successes_with_an_interval_of_the_mean():
    results = {
        1: Result("success", "mine", ("one", "two", "three")),
        2: Result("failure", "mine", ("one", "two")),
        3: Result("failure", "mine", ("two",)),
        4: Result("failure", "mine", ()),
    }
    assert "  mean progress  50.0%\n" in session_text.table(PLAN, results)  # four tell no interval
    results[5] = Result("failure", "mine", ())
    assert session_text.table(PLAN, results).split("\n") == [
        "stack, mine, lamp off",
        "  one            2/5",
        "  two            3/5",
        "  three          1/5",
        "  mean progress  40.0% (95 %: 6.7% to 73.3%)",
        "  success        1/5",
    ]


def test_during_an_episode_marks_time_and_the_way_to_the_arms_are_shown():
    person = Person()
    person.press("2")
    person.now_ns = 61 * SECOND
    shown = session_text.during(TASK, person.scoring, "HOLD")
    assert " 61.0 s of 60 s  OVER THE TIME LIMIT   arms: HOLD" in shown
    assert "1 [ ] one: the first is up\n  2 [x] two: the second is on it" in shown
    assert "hand over with the operator's console (p)" in shown
    assert "console (r, then p)" in session_text.during(TASK, person.scoring, "FAULT")
    assert "hand over" not in session_text.during(TASK, person.scoring, "POLICY")
    person.press("c")
    assert "score 1/3: failure. enter: keep" in session_text.during(TASK, person.scoring, "POLICY")


def test_report_command_can_be_pasted(tmp_path):
    said = session_text.report_command(tmp_path / "a b")
    assert f"'{tmp_path}/a b'/episode_* --out '{tmp_path}/a b'/report" in said
