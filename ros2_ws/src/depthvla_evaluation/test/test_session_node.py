"""A session at a pseudo-terminal with a real recorder, and everything that can end in the middle of it."""

from __future__ import annotations

import json
import signal
import subprocess
import threading

import pytest
import yaml
from pty_terminal import Terminal

from depthvla_evaluation.bags.bag import Bag

pytestmark = pytest.mark.xdist_group("graph")

MODULE = "depthvla_evaluation.nodes.session"
RECORDER = "depthvla_evaluation.nodes.episode_recorder_node"
DISARMED, HOLD, POLICY = 0, 1, 3
TASK = {
    "name": "mine",
    "instruction": "do it",
    "substeps": {"begun": "it was begun", "done": "it is done"},
    "reset": ["everything back"],
    "time_limit_s": 0.5,
}


class Graph:
    """The recorder, and stand-ins for the policy, the executor and the simulator. `asked` is what they were asked."""

    def __init__(self, ros, folder):
        from depthvla_msgs.msg import ModeChange, TaskProgress
        from depthvla_msgs.srv import ResetScene, SetInstruction, SetMode
        from std_srvs.srv import Trigger

        from depthvla_control.ros import qos

        self._ros, self._made, self.asked = ros, [], []
        self.folder = folder / "session"
        self.task = folder / "mine.yaml"
        self.task.write_text(yaml.safe_dump(TASK, sort_keys=False))
        self.probe = ros.Probe("graph")
        self._answer("/policy_node/set_instruction", SetInstruction, lambda request: request.instruction)
        self._answer("/chunk_executor_node/set_mode", SetMode, lambda request: request.mode)
        self._progress = self.probe.publisher(TaskProgress, "/simulator_node/task_progress", qos.status())
        self._answer("/simulator_node/reset", ResetScene, self._stage)
        self._answer("/chunk_executor_node/stop", Trigger, lambda request: "stop")
        self._answer("/chunk_executor_node/disarm", Trigger, lambda request: self._change_mode(DISARMED, "disarm"))
        self._answer("/chunk_executor_node/arm", Trigger, lambda request: self._change_mode(HOLD, "arm"))
        self.resetting = threading.Event()  # how long a reset takes
        self.resetting.set()
        self._modes = self.probe.publisher(ModeChange, "/chunk_executor_node/mode", qos.status())
        self._change_mode(HOLD)
        self.recorder = self.start_recorder()

    def _answer(self, name, kind, understood):
        def answer(request, response):
            self.asked.append(understood(request))
            response.success = True
            return response

        self.probe.node.create_service(kind, name, answer)

    def _stage(self, request):
        from depthvla_msgs.msg import TaskProgress

        self.resetting.wait(30.0)
        progress = TaskProgress(task="mine", seed=request.seed, instruction=f"do it with block {request.seed}")
        progress.header.stamp = self.probe.node.get_clock().now().to_msg()
        self._progress.publish(progress)
        return "seed", request.seed

    def _change_mode(self, mode, name=""):
        from depthvla_msgs.msg import ModeChange

        self._modes.publish(ModeChange(mode=mode))
        return name

    @property
    def stops(self):
        return self.asked.count("stop")

    def press_stop(self, terminal):
        """Space, and the executor has been asked for a stop."""
        before = self.stops
        terminal.type(" ")
        self._ros.wait_until(lambda: self.stops > before, self._ros.TIMEOUT_S, lambda: f"a stop:\n{terminal.text}")

    def start_recorder(self):
        self.recorder = self._ros.NodeProcess(
            RECORDER,
            {
                "autostart": True,
                "record_on_activate": False,
                "topics": ["/words"],
                "min_free_mb": 0,
                "bag_root": str(self.folder.parent),
            },
        )
        self._made.append(self.recorder.__exit__)
        return self.recorder

    def session(self, *more):
        words = ["--task", str(self.task), "--policy", "tiny", "--out", str(self.folder), "--episodes", "2"]
        terminal = Terminal(MODULE, [*words, "--countdown-s", "0", *more])
        self._made.append(terminal.close)
        return terminal

    def see(self, terminal, text, count=1):
        self._ros.wait_until(
            lambda: terminal.text.count(text) >= count,
            self._ros.TIMEOUT_S,
            lambda: f"{text!r} on the terminal:\n{terminal.text}\n{self.recorder.output()}",
        )

    def begin(self, terminal, number, count=1):
        self.see(terminal, f"enter: begin episode {number}", count)
        begun = terminal.text.count("1 [ ] begun")
        terminal.type("\n")
        self.see(terminal, "1 [ ] begun", begun + 1)

    def end(self, terminal):
        try:
            return terminal.process.wait(self._ros.TIMEOUT_S)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"still running; the terminal:\n{terminal.text}") from None

    def episodes(self):
        return {path.name: custom_data(path) for path in sorted(self.folder.glob("episode_*"))}

    def aside(self):
        return sorted(path.name for path in (self.folder / "aside").iterdir())

    def close(self):
        for close in reversed(self._made):
            close()
        self.probe.__exit__()


def custom_data(path):
    with Bag(path) as bag:
        return bag.custom_data


def marks(about):
    return [mark["substep"] for mark in json.loads(about["substeps"])]


@pytest.fixture
def graph(ros, tmp_path):
    ros.TIMEOUT_S = 30.0
    graph = Graph(ros, tmp_path)
    yield graph
    graph.close()


def test_two_episodes_with_marks_corrections_an_abort_and_a_redo(graph):
    it = graph.session("--setting", "lamp off", "--first-scene", "7")
    graph.see(it, "episode 1/2, scene layout 7")
    graph.see(it, "  - everything back")
    graph.begin(it, 1)
    graph.see(it, "hand over with the operator's console (p)")
    it.type("x")
    graph.see(it, "aborted, because: ")
    it.type("armslipx\x7fped\n")
    graph.see(it, "episode_01 does not count (aborted): it is kept as aside/episode_01.aborted-1")

    graph.begin(it, 1, count=2)
    it.type("1")
    graph.see(it, "mark: begun")
    it.type("2")
    graph.see(it, "2 [x] done")
    graph.see(it, "TIME LIMIT: 0.5 s ARE OVER")
    it.type("c")
    graph.see(it, "score 2/2: success. enter: keep")
    it.type("u")
    graph.see(it, "score 1/2: failure. enter: keep")
    it.type("\n")
    graph.see(it, "episode 1: failure, score 1/2")

    graph.see(it, "enter: begin episode 2, b: redo episode 1")
    it.type("b")
    graph.see(it, "set episode 1 aside and do it again? y/n")
    it.type("y")
    graph.see(it, "it is kept as aside/episode_01.redone-1")
    for number in (1, 2):
        graph.begin(it, number, count=3 if number == 1 else 2)
        it.type("12")
        graph.see(it, "mark: done", count=number + 1)
        it.type("c")
        graph.see(it, "score 2/2: success. enter: keep", count=number + 1)
        it.type("\n")
        graph.see(it, f"episode {number}: success, score 2/2")
    graph.see(it, "enter: show the result, b: redo episode 2")
    it.type("\n")
    assert graph.end(it) == 0
    assert "mine, tiny, lamp off" in it.text and "mean progress  100.0%" in it.text
    assert f"depthvla report {graph.folder}/episode_* --out {graph.folder}/report" in it.text
    assert it.restored()

    assert graph.asked == ["do it"] * 4  # nothing was asked of the executor
    assert graph.aside() == ["episode_01.aborted-1", "episode_01.redone-1"]
    aborted, redone = (custom_data(graph.folder / "aside" / name) for name in graph.aside())
    assert (aborted["outcome"], aborted["notes"]) == ("aborted", "armslipped")
    assert (redone["outcome"], marks(redone)) == ("failure", ["begun"])
    episodes = graph.episodes()
    assert [about["scene"] for about in episodes.values()] == ["layout 7", "layout 8"]
    for about in episodes.values():
        assert (about["task"], about["instruction"], about["setting"]) == ("mine", "do it", "lamp off")
        assert (about["policy"], about["outcome"], marks(about)) == ("tiny", "success", ["begun", "done"])


def test_space_stops_the_arms_in_every_state_and_does_nothing_else(graph):
    it = graph.session("--setting", "lamp off")
    graph.see(it, "enter: begin episode 1")
    graph.press_stop(it)
    graph.see(it, "STOP: done")
    graph.begin(it, 1)
    graph.press_stop(it)
    it.type("1")
    graph.see(it, "1 [x] begun")
    it.type("c")
    graph.see(it, "score 1/2: failure. enter: keep")
    graph.press_stop(it)
    it.type("x")
    graph.see(it, "space: STOP THE ARMS, also while this is typed")
    it.type("it")
    graph.press_stop(it)
    prompts = it.text.count("enter: begin episode 1")  # a prompt is shown again below what is said
    it.type("slipped\n")
    graph.see(it, "episode_01 does not count (aborted)")
    graph.begin(it, 1, count=prompts + 1)
    it.type("12")
    graph.see(it, "2 [x] done")
    it.type("c")
    graph.see(it, "score 2/2: success. enter: keep")
    it.type("\n")
    graph.see(it, "b: redo episode 1")
    it.type("b")
    graph.see(it, "do it again? y/n")
    graph.press_stop(it)
    it.type("n")
    graph.see(it, "b: redo episode 1", count=2)
    it.type("q")
    assert graph.end(it) == 0
    assert custom_data(graph.folder / "aside/episode_01.aborted-1")["notes"] == "it slipped"
    assert graph.stops == 5 and set(graph.asked) == {"do it", "stop"}


def test_a_stop_while_an_episode_is_prepared_starts_nothing_and_gives_no_command(graph):
    it = graph.session("--simulator", "--give-command", "--countdown-s", "60")
    graph.see(it, "enter: begin episode 1")
    graph.resetting.clear()
    it.type("\n")
    graph.see(it, "getting ready")
    it.type(" ")  # while the scene is reset; the stand-in answers one request at a time
    graph.resetting.set()
    graph.see(it, "NOT STARTED: space was pressed")
    graph.see(it, "enter: begin episode 1", count=2)
    it.type("\n")
    graph.see(it, "recording begins in")
    graph.press_stop(it)
    graph.see(it, "NOT STARTED: space was pressed", count=2)
    graph.see(it, "enter: begin episode 1", count=3)
    it.type("q")
    assert graph.end(it) == 0
    assert POLICY not in graph.asked and graph.stops == 2 and not graph.episodes()


def test_a_stop_is_sent_as_soon_as_there_is_an_executor_and_says_so_until_then(graph):
    from std_srvs.srv import Trigger

    it = graph.session("--executor", "/late_executor")
    graph.see(it, "enter: begin episode 1")
    it.type(" ")
    graph.see(it, "STOP: NOT SENT YET: no /late_executor/stop: is the executor running?")
    graph._answer("/late_executor/stop", Trigger, lambda request: "late stop")
    graph.see(it, "STOP: done")
    it.type("q")
    assert graph.end(it) == 0 and graph.asked == ["late stop"]


def test_killed_session_or_recorder_loses_one_episode_and_the_same_command_goes_on(graph):
    it = graph.session("--simulator", "--give-command")
    graph.begin(it, 1)
    it.type("1")
    graph.see(it, "1 [x] begun")
    it.process.send_signal(signal.SIGKILL)
    it.process.wait()

    it = graph.session("--simulator", "--give-command")
    graph.see(it, "it is kept as aside/episode_01.aborted-1")
    graph.begin(it, 1)
    graph.recorder.process.send_signal(signal.SIGKILL)
    graph.see(it, "/episode_recorder_node IS SILENT")
    graph.see(it, "waiting for the recorder")
    graph.start_recorder()
    graph.see(it, "it is kept as aside/episode_01.unfinished-1; to look into it: depthvla recover")
    graph.begin(it, 1, count=2)
    it.type("1")
    graph.see(it, "1 [x] begun")
    it.type("c")
    graph.see(it, "score 1/2: failure. enter: keep")
    it.type("\n")
    graph.begin(it, 2)
    it.type("\x03")
    assert graph.end(it) == 0
    assert "episode_02: aborted" in it.text and "the same command goes on with episode 2/2" in it.text
    assert it.restored()

    # Disarmed before the scene is reset, the arms stay so until a person arms them. Policy and recorder are told the
    # sentence of the scene.
    asked = [[("seed", seed), f"do it with block {seed}", POLICY] for seed in (0, 0, 0, 1)]
    assert graph.asked == ["disarm", *(item for episode in asked for item in episode)]
    assert graph.aside() == ["episode_01.aborted-1", "episode_01.unfinished-1", "episode_02.aborted-1"]
    assert marks(custom_data(graph.folder / "aside/episode_01.aborted-1")) == ["begun"]
    ((name, about),) = graph.episodes().items()
    assert (name, about["scene"], about["outcome"], marks(about)) == ("episode_01", "seed 0", "failure", ["begun"])
    assert about["instruction"] == "do it with block 0"


def test_a_folder_in_which_the_recorder_does_not_record_is_refused_at_once(graph, tmp_path):
    graph.folder = tmp_path.parent / f"{tmp_path.name}-elsewhere"
    it = graph.session()
    assert graph.end(it) == 1
    assert "allowed: a folder below" in it.text and "bag_root" in it.text and "enter: begin" not in it.text
    assert it.restored()


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ([], "standard input is no terminal; a session is scored by a person at a terminal"),
        (["--episodes", "0"], "episodes is 0; allowed: 1 or more"),
        (["--recorder", "recorder"], "recorder is 'recorder'; allowed: a node's full name"),
        (["--task", "juggling"], "task 'juggling' does not exist; allowed: a YAML file, or blocks_stacking"),
    ],
)
def test_without_a_terminal_or_with_a_wrong_value_nothing_is_made(ros, tmp_path, capsys, more, message):
    from depthvla_evaluation.nodes.session import main

    assert main(["--task", "lift", "--out", str(tmp_path / "session"), *more]) == 1
    assert capsys.readouterr().err.startswith(f"session: {message}")
    assert not (tmp_path / "session").exists()
