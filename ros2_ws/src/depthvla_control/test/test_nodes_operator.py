"""The operator's node with a real terminal (a pseudo-terminal) and a scripted executor, over real DDS."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from pty_terminal import Terminal
from ros_harness import SOURCE_PATHS

MODULE = "depthvla_control.nodes.operator_node"
EXECUTOR = "/chunk_executor_node"
RECORDER = "/episode_recorder_node"
DISARMED, HOLD, TELEOP, POLICY = range(4)
TRIGGERS = ("arm", "disarm", "stop", "reset_fault")
PARAMETER_FILE = Path(__file__).parents[1] / "config" / "operator_node.param.yaml"


def node_terminal(**parameters):
    words = ["--ros-args"]
    for name, value in parameters.items():
        words += ["-p", f"{name}:={str(value).lower() if isinstance(value, bool) else value}"]
    return Terminal(MODULE, words)


class FakeExecutor:
    """Offers the executor's services and topics. `asked` is what was asked, in order; `refuse` what it says no to."""

    def __init__(self, ros):
        from depthvla_msgs.msg import ExecutorStatus, ModeChange
        from depthvla_msgs.srv import SetMode
        from std_srvs.srv import Trigger

        from depthvla_control.ros import qos

        self.asked, self.refuse, self._ModeChange = [], {}, ModeChange
        self.probe = ros.Probe("fake_executor")
        # Modes are set by a thread of their own, so that they can be made to hang.
        self._mode_probe = ros.Probe("fake_modes")
        self.go_on = threading.Event()
        self.go_on.set()
        for name in TRIGGERS:
            self.probe.node.create_service(Trigger, f"{EXECUTOR}/{name}", self._trigger(name))
        self._mode_probe.node.create_service(SetMode, f"{EXECUTOR}/set_mode", self._set_mode)
        self._modes = self.probe.publisher(ModeChange, f"{EXECUTOR}/mode", qos.status())
        status = self.probe.publisher(ExecutorStatus, f"{EXECUTOR}/status", qos.status())
        self.status = ExecutorStatus(mode=POLICY, sequence=41, step=3, steps_left=12, cause="chunks are followed")
        self.status.shadow_error_rad = math.nan
        self._timer = self.probe.every(1 / 15, lambda: status.publish(self.status))

    def found(self):
        """Whether a client of every service is known: what was answered before is lost."""
        triggers = all(self.probe.node.count_clients(f"{EXECUTOR}/{name}") for name in TRIGGERS)
        return triggers and self._mode_probe.node.count_clients(f"{EXECUTOR}/set_mode")

    def fall_silent(self):
        self._timer.cancel()

    def change(self, previous, mode, cause, intervention=False):
        change = self._ModeChange(previous=previous, mode=mode, cause=cause, intervention=intervention)
        self._modes.publish(change)

    def _trigger(self, name):
        def answer(_, response):
            self.asked.append(name)
            response.success = name not in self.refuse
            response.message = self.refuse.get(name, f"{name} by ~/{name}")
            return response

        return answer

    def _set_mode(self, request, response):
        self.go_on.wait()
        self.asked.append(request.mode)
        response.success = request.mode not in self.refuse
        response.message = self.refuse.get(request.mode, "as asked")
        response.gap_rad = 0.0312
        return response

    def close(self):
        self.go_on.set()
        self.probe.__exit__()
        self._mode_probe.__exit__()


class FakeRecorder:
    """Offers the episode recorder's services and its status. `asked` is what was asked, in order."""

    def __init__(self, ros):
        from depthvla_msgs.msg import RecorderStatus
        from depthvla_msgs.srv import MarkSubstep, StartEpisode, StopEpisode

        from depthvla_control.ros import qos

        self.asked, self.refuse = [], {}
        self.status = RecorderStatus()
        self.probe = ros.Probe("fake_recorder")
        self._status = self.probe.publisher(RecorderStatus, f"{RECORDER}/status", qos.status())
        for name, kind in (("start", StartEpisode), ("mark", MarkSubstep), ("stop", StopEpisode)):
            self.probe.node.create_service(kind, f"{RECORDER}/{name}", self._answer(name))

    def found(self):
        return all(self.probe.node.count_clients(f"{RECORDER}/{name}") for name in ("start", "mark", "stop"))

    def say(self, **values):
        for name, value in values.items():
            setattr(self.status, name, value)
        self._status.publish(self.status)

    def _answer(self, name):
        def answer(request, response):
            self.asked.append((name, request))
            response.success = name not in self.refuse
            response.message = self.refuse.get(name, f"{name} as asked")
            if name == "mark" and response.success:
                kept = list(self.status.substeps)
                self.say(substeps=kept[:-1] if request.undo else [*kept, request.substep])
            return response

        return answer

    def close(self):
        self.probe.__exit__()


class Rig:
    """Makes terminals and executors, waits for what they do, and closes them."""

    def __init__(self, ros):
        self._ros, self._made = ros, []

    def executor(self):
        return self._keep(FakeExecutor(self._ros))

    def recorder(self):
        return self._keep(FakeRecorder(self._ros))

    def terminal(self, **parameters):
        return self._keep(node_terminal(**parameters))

    def both(self, **parameters):
        executor, terminal = self.executor(), self.terminal(**parameters)
        self.see(terminal, "keys: ")
        self.discover(executor)
        self.see(terminal, "chunk 41")
        return executor, terminal

    def discover(self, fake):
        self.wait(fake.found, "the node's clients")
        time.sleep(0.5)  # the node finds the services a moment later, and nothing tells

    def wait(self, condition, what):
        return self._ros.wait_until(condition, self._ros.TIMEOUT_S, lambda: what)

    def see(self, terminal, text, count=1):
        self._ros.wait_until(
            lambda: terminal.text.count(text) >= count,
            self._ros.TIMEOUT_S,
            lambda: f"{text!r} on the terminal:\n{terminal.text}",
        )

    def end(self, terminal):
        try:
            return terminal.process.wait(self._ros.TIMEOUT_S)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"still running; the terminal:\n{terminal.text}") from None

    def joystick(self, executor):
        """Sets what is held; it is said 20 times a second, as joy_node does."""
        from sensor_msgs.msg import Joy

        publisher, state = executor.probe.publisher(Joy, "/joy"), [0] * 11
        self.wait(publisher.get_subscription_count, "the joystick's subscriber")
        joy_timer = executor.probe.every(0.05, lambda: publisher.publish(Joy(axes=[0.0] * 8, buttons=state)))

        def hold(*buttons):
            state[:] = [int(button in buttons) for button in range(11)]

        hold.silence = joy_timer.cancel
        time.sleep(0.3)  # the state at the start is heard
        return hold

    def _keep(self, item):
        self._made.append(item)
        return item

    def close(self):
        for item in reversed(self._made):
            item.close()


@pytest.fixture
def rig(ros):
    rig = Rig(ros)
    yield rig
    rig.close()


def test_each_key_asks_the_executor_and_the_answer_is_a_line(rig):
    executor, terminal = rig.both()
    executor.refuse = {"arm": "/motion_target/x has another publisher", TELEOP: "the leader is 0.4 rad away"}
    for key, line in (
        ("a", "arm: REFUSED: /motion_target/x has another publisher"),
        (" ", "stop: done: stop by ~/stop"),
        ("t", "take over: REFUSED: the leader is 0.4 rad away (gap 0.031 rad)"),
        ("p", "give back: done: as asked (gap 0.031 rad)"),
        ("r", "reset fault: done: reset_fault by ~/reset_fault"),
        ("d", "disarm: done: disarm by ~/disarm"),
        ("x", "no such key: 'x'"),
    ):
        terminal.type(key)
        rig.see(terminal, line)
    terminal.type("\x1b[A\x1b[D ")  # cursor keys end in the letters of arm and disarm
    rig.see(terminal, "stop: done", count=2)
    assert executor.asked == ["arm", "stop", TELEOP, POLICY, "reset_fault", "disarm", "stop"]


def test_keys_start_score_and_stop_an_episode(rig):
    recorder = rig.recorder()
    _, terminal = rig.both(task="stacking", setting="lamp off", policy="pi0", substeps="[red on blue, green on red]")
    rig.discover(recorder)
    terminal.type("e")
    rig.see(terminal, "start an episode: done: start as asked")
    recorder.say(state=1, duration_s=3.2)
    rig.see(terminal, "recording 3 s, 0 marked | POLICY")
    for count in (1, 2):
        terminal.type("m")
        rig.see(terminal, "mark a substep: done", count=count)
        rig.see(terminal, f"recording 3 s, {count} marked")
        time.sleep(0.8)  # a key that is held repeats itself faster
    terminal.type("m")
    rig.see(terminal, "mark a substep: REFUSED: all 2 substeps are marked")
    terminal.type("u")
    rig.see(terminal, "undo a mark: done")
    terminal.type("ff")
    rig.see(terminal, "stop with failure: done: stop as asked")
    terminal.type("s")
    rig.see(terminal, "stop with success: done: stop as asked")
    recorder.refuse["start"] = "min_free_mb is 1024"
    time.sleep(0.8)
    terminal.type("e")
    rig.see(terminal, "start an episode: REFUSED: min_free_mb is 1024")
    recorder.say(state=2, reason="nothing came within 2 s on /camera")
    rig.see(terminal, "EPISODE FAILED: nothing came within 2 s on /camera")

    names = [name for name, _ in recorder.asked]
    assert names == ["start", "mark", "mark", "mark", "stop", "stop", "start"]
    start, *marks, failure, success, _ = (request for _, request in recorder.asked)
    assert (start.task, start.setting, start.policy, start.bag) == ("stacking", "lamp off", "pi0", "")
    assert [(mark.substep, mark.undo) for mark in marks] == [
        ("red on blue", False),
        ("green on red", False),
        ("", True),
    ]
    assert (failure.outcome, success.outcome) == ("failure", "success")


def test_substeps_are_those_of_the_task(rig):
    recorder = rig.recorder()
    _, terminal = rig.both(task="lift")
    rig.discover(recorder)
    terminal.type("m")
    rig.see(terminal, "mark a substep: done")
    recorder.say(state=1, task="table_bussing", substeps=[])  # started by somebody else
    rig.see(terminal, "recording 0 s, 0 marked")
    time.sleep(0.8)  # a key that is held repeats itself faster
    terminal.type("m")
    rig.see(terminal, "mark a substep: done", count=2)
    assert [request.substep for _, request in recorder.asked] == ["reached", "pens_in_holder"]


def test_scoring_without_a_recorder_is_said_and_stop_still_works(rig):
    executor, terminal = rig.both()
    terminal.type("e ")
    rig.see(terminal, f"start an episode: no {RECORDER}/start: is the recorder running?")
    rig.see(terminal, "stop: done")
    assert executor.asked == ["stop"]


def test_mode_changes_and_the_newest_status_are_shown(rig):
    executor, terminal = rig.both()
    executor.change(POLICY, TELEOP, "a person took over", intervention=True)
    rig.see(terminal, "POLICY -> TELEOP: a person took over [intervention]\r\n")
    rig.see(terminal, "POLICY | chunk 41 step 3 (+12) 0.00 s old | refused 0 | missed ticks 0 | chunks are followed")
    executor.status.sequence = 42
    rig.see(terminal, "chunk 42")
    executor.fall_silent()
    rig.see(terminal, f"no {EXECUTOR}/status: is the executor running?")


def test_stop_does_not_wait_for_a_request_that_hangs(rig):
    executor, terminal = rig.both()
    executor.go_on.clear()
    terminal.type("t")
    rig.see(terminal, "take over: no answer within 1 s")
    terminal.type(" ")
    rig.see(terminal, "stop: done")
    assert executor.asked == ["stop"]
    executor.go_on.set()  # the take-over overtakes nothing: the stop is said again
    rig.see(terminal, "stop: done", count=2)
    assert executor.asked == ["stop", TELEOP, "stop"]


def test_missing_executor_is_said_at_once(rig):
    terminal = rig.terminal()
    rig.see(terminal, "keys: ")
    terminal.type("t ")
    rig.see(terminal, f"take over: no {EXECUTOR}/set_mode: is the executor running?")
    rig.see(terminal, f"stop: no {EXECUTOR}/stop: is the executor running?")


def test_dead_man_button_gives_back_when_let_go_but_not_after_a_stop(rig):
    executor, terminal = rig.both(hold_to_teleop=True)
    hold = rig.joystick(executor)
    hold(5)
    rig.see(terminal, "take over while held: done")
    hold()
    rig.wait(lambda: executor.asked == [TELEOP, POLICY], "giving back")
    hold(5)
    rig.see(terminal, "take over while held: done", count=2)
    terminal.type(" ")
    rig.wait(lambda: executor.asked == [TELEOP, POLICY, TELEOP, "stop"], "the stop")
    hold()
    time.sleep(0.3)
    assert executor.asked == [TELEOP, POLICY, TELEOP, "stop"]


def test_joystick_that_falls_silent_while_held_stops(rig):
    executor, terminal = rig.both(hold_to_teleop=True, joystick_silence_s=0.5)
    hold = rig.joystick(executor)
    hold(5)
    rig.see(terminal, "take over while held: done")
    hold.silence()
    rig.see(terminal, "the joystick fell silent while its button was held")
    rig.wait(lambda: executor.asked == [TELEOP, "stop"], "the stop")


def test_node_that_ends_while_its_dead_man_button_is_held_stops_the_arms(rig):
    executor, terminal = rig.both(hold_to_teleop=True)
    hold = rig.joystick(executor)
    hold(5)
    rig.see(terminal, "take over while held: done")
    terminal.process.send_signal(signal.SIGTERM)
    assert rig.end(terminal) == 0, terminal.text
    rig.wait(lambda: executor.asked == [TELEOP, "stop"], "the stop")


def test_joystick_with_too_few_buttons_is_said(rig):
    executor, terminal = rig.both(button_arm=30)
    rig.joystick(executor)
    rig.see(terminal, "button_arm is 30, but the joystick has 11 buttons; allowed: -1 to 10")


@pytest.mark.parametrize("end", ["q", "\x03", "\x1c", signal.SIGTERM, signal.SIGHUP], ids=repr)
def test_terminal_is_restored_however_the_node_ends(rig, end):
    terminal = rig.terminal()
    rig.see(terminal, "keys: ")
    assert terminal.flags() == 0
    if isinstance(end, str):
        terminal.type(end)
    else:
        terminal.process.send_signal(end)
    assert rig.end(terminal) == 0, terminal.text
    assert terminal.restored()
    assert "Traceback" not in terminal.text


def test_terminal_belongs_to_the_node_only_while_it_is_active(rig):
    executor, terminal = rig.both()
    assert executor.probe.transition("/operator_node", "deactivate")
    assert terminal.restored()
    for label in ("cleanup", "configure", "activate"):
        assert executor.probe.transition("/operator_node", label), terminal.text
    assert terminal.flags() == 0
    rig.see(terminal, "keys: ", count=2)
    rig.discover(executor)
    rig.see(terminal, "chunk 41", count=2)
    terminal.type(" ")
    rig.wait(lambda: executor.asked == ["stop"], "the stop")


def test_terminal_is_restored_after_a_defect(rig):
    executor, terminal = rig.both()
    executor.change(POLICY, 77, "no such mode")
    assert rig.end(terminal) == 1
    assert terminal.restored()


def test_keys_work_again_after_the_process_was_stopped(rig):
    executor, terminal = rig.both()
    terminal.process.send_signal(signal.SIGSTOP)
    terminal.set(terminal.settings)  # as a shell does
    terminal.process.send_signal(signal.SIGCONT)
    rig.wait(lambda: terminal.flags() == 0, "single keys")
    terminal.type(" ")
    rig.wait(lambda: executor.asked == ["stop"], "the stop")


def test_terminal_that_goes_away_ends_the_node(rig):
    terminal = rig.terminal()
    rig.see(terminal, "keys: ")
    terminal.hang_up()
    assert rig.end(terminal) == 0


def read_until(process, text):
    lines = []
    while not lines or text not in lines[-1]:
        lines.append(process.stdout.readline())
        assert lines[-1], f"the node ended; it wrote {lines}"
    return "".join(lines)


def test_without_a_terminal_the_keyboard_is_off_and_the_joystick_works(rig, ros):
    executor = rig.executor()
    # The harness's node inherits standard input, which must not be a terminal here.
    words = [sys.executable, "-m", MODULE, "--ros-args", "--params-file", str(PARAMETER_FILE)]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([*SOURCE_PATHS, os.environ.get("PYTHONPATH", "")])}
    node = subprocess.Popen(
        words, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    try:
        written = read_until(node, "the keyboard is off: standard input is no terminal")
        hold = rig.joystick(executor)
        hold(1)
        written += read_until(node, "stop: done")
        assert executor.asked == ["stop"]
        assert "\x1b" not in written
        node.send_signal(signal.SIGINT)
        assert node.wait(ros.TIMEOUT_S) == 0
    finally:
        node.kill()
        node.wait()


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"executor": "chunk_executor_node"}, "executor is 'chunk_executor_node'; allowed: a node's full name"),
        ({"recorder": "recorder"}, "recorder is 'recorder'; allowed: a node's full name"),
        ({"button_stop": 99}, "parameter 'button_stop' is 99; allowed: an integer from -1 to 63"),
        ({"button_stop": 5}, "button_stop and button_take_over are both 5"),
        ({"pedal": 3}, "unknown parameters ['pedal']"),
    ],
)
def test_wrong_parameter_is_named_and_ends_the_process(ros, parameters, message):
    with ros.NodeProcess(MODULE, parameters) as node:
        assert node.wait() == 1
        assert message in node.output()


def test_autostart_can_be_turned_off(ros):
    with ros.NodeProcess(MODULE, {"autostart": False}) as node, ros.Probe() as probe:
        assert probe.state("/operator_node") == "unconfigured"
        assert node.stop(signal.SIGTERM) == 0, node.output()
