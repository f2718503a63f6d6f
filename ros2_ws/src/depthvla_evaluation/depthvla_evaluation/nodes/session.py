"""Scored episodes of a task, one after the other.

Run it in a terminal of its own, beside the operator's console: it records and scores, and does not move the arms; space
stops them, whatever it is busy with. What counts is in `evaluation.session.folder`, what a key does to a score in
`evaluation.session.scoring`.
"""

from __future__ import annotations

import contextlib
import queue
import signal
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import tyro

from depthvla_control.operator_input import REPEAT_LIMIT_NS, STOP_KEY, Keys
from depthvla_control.ros.terminal import Screen, Terminal, terminal_refusal
from depthvla_evaluation.nodes.session_graph import SessionGraph
from depthvla_evaluation.session import text as session_text
from depthvla_evaluation.session.folder import Plan, SessionFolder
from depthvla_evaluation.session.scoring import ENTER, REDO, Kind, Request, Scoring
from r1lite_description import tasks

KEY_PERIOD_S = 0.1  # how often what is shown is made anew while nobody presses a key
ERASE = ("\x7f", "\b")
STOPPED = "space was pressed"
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)


@dataclass(frozen=True)
class SessionConfig:
    """Runs scored episodes of a task. The same command goes on where a session ended, however it ended."""

    task: str  # name of a task, or a YAML file
    out: Path  # folder of the session, e.g. out/sessions/lift-pi0-lamp_off
    policy: str = ""  # name under which the report groups the episodes; empty: the policy's model id
    setting: str = ""  # what distinguishes them from others of their task
    episodes: int = 20
    first_scene: int = 0  # scene of the first episode; each has the next one
    simulator: bool = False  # reset the simulated scene before every episode; the number of the scene is its seed
    countdown_s: int = 3  # from the go to the start of the recording
    give_command: bool = False  # ask the executor for POLICY when the recording has begun, instead of a person
    recorder: str = "/episode_recorder_node"
    policy_node: str = "/policy_node"
    executor: str = "/chunk_executor_node"
    simulator_node: str = "/simulator_node"


class Ended(Exception):  # noqa: N818 - no error: somebody ended the session
    """The person, or a signal, ends the session."""


class Keyboard:
    """Keys one after the other, as they come from the terminal's thread. A signal comes among them.

    The stop key does not wait until somebody asks for a key: `stop` is called on the terminal's thread.
    """

    def __init__(self, stop: Callable[[], None]) -> None:
        self._stop, self.stops = stop, 0  # how often
        self._typed: queue.SimpleQueue[str | Ended] = queue.SimpleQueue()
        self._keys = Keys()

    def type(self, text: str) -> None:
        if not text:
            self._typed.put(Ended("the terminal was closed"))
        for key in self._keys.feed(text):
            if key == STOP_KEY:
                self.stops += 1
                self._stop()
            self._typed.put(key)

    def interrupt(self, number: int, frame: object) -> None:
        self._typed.put(Ended(signal.Signals(number).name))

    def key(self, wait_s: float) -> str:
        """The next key; empty when none comes in time. Raises Ended."""
        try:
            typed = self._typed.get(timeout=max(wait_s, 0.0))
        except queue.Empty:
            return ""
        if isinstance(typed, Ended):
            raise typed
        return typed

    def pause(self, wait_s: float) -> None:
        """Waits, and forgets what is typed meanwhile. Raises Ended."""
        deadline_s = time.monotonic() + wait_s
        while self.key(max(deadline_s - time.monotonic(), 0.0)):
            pass

    def wait_until_quiet(self) -> None:
        while self.key(REPEAT_LIMIT_NS * 1e-9):
            pass


class Session:
    """One run of a session, from the first episode that is not done."""

    def __init__(
        self, config: SessionConfig, folder: SessionFolder, graph: SessionGraph, keyboard: Keyboard, screen: Screen
    ) -> None:
        self._config, self._folder, self._plan = config, folder, folder.plan
        self._graph, self._keyboard, self._screen = graph, keyboard, screen

    def run(self) -> None:
        """Until all episodes are done, or somebody ends it. Raises ValueError where the recorder refuses the folder."""
        try:
            self._sort()
            self._graph.check_folder(self._folder.path)
            while True:
                number = self._folder.next()
                if not self._go_on(number):
                    continue
                if number is None:
                    break
                self._episode(number)
                self._sort()
                if found := self._folder.results.get(number):
                    self._screen.say(session_text.result(number, self._plan, found))
        except Ended as ended:
            self._leave(str(ended))
            return
        self._screen.show("")
        self._screen.print(session_text.table(self._plan, self._folder.results))
        self._screen.print(session_text.report_command(self._folder.path))

    def _sort(self) -> None:
        """Waits until the recorder records nothing: only then is what lies in the folder settled."""
        said = ""
        while not self._graph.idle:
            reason = self._not_idle()
            if reason and reason != said:
                self._screen.say(reason)
                said = reason
            self._screen.show(f"waiting for the recorder; q: quit, {session_text.STOP}")
            if self._keyboard.key(KEY_PERIOD_S) == "q":
                raise Ended("quit")
        for aside in self._folder.sort():
            self._screen.say(session_text.set_aside(aside))

    def _not_idle(self) -> str:
        """Why the recorder is not idle, where waiting alone will not help; a recording in this folder is ended."""
        graph = self._graph
        if graph.recorder_gone:
            return f"NO {graph.recorder}: start the graph with record:=on_request"
        bag = graph.recording
        if bag is None or not graph.up_to_date:
            return ""
        if self._folder.path not in bag.parents:
            return f"{graph.recorder} records {bag}; end that first"
        return graph.stop("aborted", "its session had ended")

    def _go_on(self, number: int | None) -> bool:
        """Asks before an episode, or after the last one; False where another is to be redone first."""
        results = self._folder.results
        last = (number or self._plan.episodes + 1) - 1
        previous = last if last in results else None
        self._keyboard.wait_until_quiet()  # the enter that ended the last episode may still be held
        self._screen.print(session_text.before(self._plan, results, number))
        self._screen.show(session_text.before_keys(number, previous))
        key = self._key(("\n\rq" + REDO) if previous else "\n\rq")
        if key == "q":
            raise Ended("quit")
        if key != REDO:
            return True
        if self._sure(f"set episode {previous} aside and do it again? y/n"):
            self._screen.say(session_text.set_aside(self._folder.redo(previous)))
        return False

    def _episode(self, number: int) -> None:
        plan, graph, screen = self._plan, self._graph, self._screen
        bag, stops = self._folder.bag(number), self._keyboard.stops
        screen.show(f"getting ready; {session_text.STOP}")
        instruction, failed = plan.task.instruction, ""
        if plan.simulator:
            # To armed arms the jump of the reset is a fault. They are armed again by a person.
            failed = graph.disarm_for_reset() or graph.reset_scene(plan.scene(number))
            instruction = graph.staged_instruction  # which names what the task leaves open: colours, an arm
        failed = failed or graph.set_instruction(instruction)
        if failed:
            screen.say(f"NOT STARTED: {failed}")
            return
        for left_s in range(self._config.countdown_s, 0, -1):
            if self._keyboard.stops != stops:
                break
            screen.show(f"recording begins in {left_s}; {session_text.STOP}")
            self._keyboard.pause(1.0)
        if self._keyboard.stops != stops:
            screen.say(f"NOT STARTED: {STOPPED}")
            return
        failed = graph.start(
            bag,
            task=plan.task.name,
            instruction=instruction,
            setting=plan.setting,
            scene=plan.scene_name(number),
            policy=plan.policy,
        )
        if failed:
            screen.say(f"NOT STARTED: {failed}")
            return
        if self._config.give_command and (refused := self._give_command(stops)):
            screen.say(f"the policy does not have the arms: {refused}; {session_text.hand_over(graph.mode)}")
        self._score(bag)

    def _give_command(self, stops: int) -> str:
        """Why the policy was not given the arms; "" where it was. `stops`: how many there were before the episode."""
        if self._keyboard.stops != stops:
            return STOPPED
        refused = self._graph.give_command()
        if self._keyboard.stops != stops:
            self._graph.stop_arms()  # the one before may have overtaken the request
            return STOPPED
        return refused

    def _score(self, bag: Path) -> None:
        """Until the recording is over, whoever ends it."""
        task, warned = self._plan.task, False
        self._keyboard.pause(0.0)  # nothing that was typed before means this episode
        scoring = Scoring(tuple(task.substeps), task.time_limit_s, time.monotonic_ns)
        while not (over := self._graph.ended(bag)):
            scoring.marked = tuple(self._graph.status.substeps)
            if scoring.over_time and not warned:
                self._screen.say(
                    f"TIME LIMIT: {task.time_limit_s:g} s ARE OVER; the arms do not stop by themselves", bell=True
                )
                warned = True
            self._screen.show(session_text.during(task, scoring, self._graph.mode))
            key = self._keyboard.key(KEY_PERIOD_S)
            answer = scoring.press(key) if key else None
            if isinstance(answer, Request):
                if self._do(answer):
                    return
            elif answer:
                self._screen.say(answer)
        self._screen.say(over, bell=True)

    def _do(self, request: Request) -> bool:
        """Asks the recorder; whether the recording is over."""
        kind, graph = request.kind, self._graph
        if kind is Kind.QUIT:
            raise Ended("quit")
        if kind in (Kind.MARK, Kind.UNDO):
            failed = graph.mark(request.text) if kind is Kind.MARK else graph.undo(request.text)
            self._screen.say(failed or f"{kind.value}: {request.text}")
            return False
        notes = self._text("aborted, because: ") if kind is Kind.ABORT else ""
        self._screen.show("closing the bag")
        bag = graph.recording
        failed = graph.stop("aborted" if kind is Kind.ABORT else request.text, notes)
        if not failed and bag and not bag.exists():
            failed = f"THERE IS NO {bag}: does the recorder run on another machine?"
        if failed:
            self._screen.say(failed, bell=True)
        return True

    def _leave(self, why: str) -> None:
        """The folder is left as it is found by the next run; a recording in it does not go on."""
        for number in SIGNALS:
            signal.signal(number, signal.SIG_IGN)
        self._screen.show("")
        self._screen.say(f"session ended: {why}")
        self._graph.catch_up()
        bag = self._graph.recording
        if bag and self._folder.path in bag.parents:
            failed = self._graph.stop("aborted", why)
            self._screen.say(failed or f"{bag.name}: aborted; the arms do what they did")
        if self._graph.idle:
            for aside in self._folder.sort():
                self._screen.say(session_text.set_aside(aside))
        number = self._folder.next()
        if number is not None:
            self._screen.say(f"the same command goes on with episode {number}/{self._plan.episodes}")

    def _key(self, allowed: str) -> str:
        while True:
            key = self._keyboard.key(KEY_PERIOD_S)
            if key and key in allowed:
                return key

    def _sure(self, question: str) -> bool:
        self._screen.show(f"{question}   {session_text.STOP}")
        return self._key("yn") == "y"

    def _text(self, prompt: str) -> str:
        """A line that is typed. Space stops here, too."""
        text = ""
        while True:
            self._screen.show(f"{session_text.STOP}, also while this is typed\n{prompt}{text}")
            key = self._keyboard.key(KEY_PERIOD_S)
            if key and key in ENTER:
                return text
            text = text[:-1] if key in ERASE else text + (key if key.isprintable() else "")


def main(argv: Sequence[str] | None = None) -> int:
    config, screen = tyro.cli(SessionConfig, args=argv), Screen()
    try:
        _check(config)
        plan = Plan(
            task=tasks.load(config.task),
            policy=config.policy,
            setting=config.setting,
            episodes=config.episodes,
            first_scene=config.first_scene,
            simulator=config.simulator,
        )
        if why_not := terminal_refusal():
            raise ValueError(f"{why_not}; a session is scored by a person at a terminal")
        with contextlib.ExitStack() as stack:
            folder = SessionFolder(config.out, plan)
            stack.callback(folder.close)
            graph = SessionGraph(
                recorder=config.recorder,
                policy=config.policy_node,
                executor=config.executor,
                simulator=config.simulator_node,
                say=screen.say,
            )
            stack.callback(graph.close)
            keyboard = Keyboard(graph.stop_arms)
            for number in SIGNALS:
                signal.signal(number, keyboard.interrupt)
            signal.signal(signal.SIGTSTP, signal.SIG_IGN)  # a session that stands still would miss the recorder
            stack.callback(Terminal(keyboard.type).close)
            stack.callback(screen.show, "")
            Session(config, folder, graph, keyboard, screen).run()
    except (OSError, ValueError) as error:
        print(f"session: {error}", file=sys.stderr)
        return 1
    return 0


def _check(config: SessionConfig) -> None:
    if config.countdown_s < 0:
        raise ValueError(f"countdown_s is {config.countdown_s}; allowed: 0 or more")
    for key in ("recorder", "policy_node", "executor", "simulator_node"):
        name = getattr(config, key)
        if not name.startswith("/") or name.endswith("/"):
            raise ValueError(f"{key} is {name!r}; allowed: a node's full name, as /{key}")


if __name__ == "__main__":
    sys.exit(main())
