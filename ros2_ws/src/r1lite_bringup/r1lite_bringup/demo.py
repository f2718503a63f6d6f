"""What `make demo` runs: the whole graph against a simulated robot, recorded, and the report of that recording.

Exit code 0 means that the loop ran: chunks, commands and depth were there until the end. Whether the task was done is
stated, and is no condition.
"""

from __future__ import annotations

import datetime
import importlib.util
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import rclpy
import tyro
from depthvla_msgs.msg import ExecutorStatus, PolicyStatus, TaskProgress
from rclpy.executors import SingleThreadedExecutor
from rclpy.signals import SignalHandlerOptions

from depthvla_control.arbiter import Mode
from depthvla_control.ros import qos
from depthvla_control.ros.isolation import apply
from depthvla_control.ros.terminal import Screen
from depthvla_evaluation.report import build as report
from depthvla_policy.nodes.policy.inference_loop import chunk_rate_hz
from r1lite_bringup.graph import ArgumentError, environment, graph

DISCOVERY_S = 2.0  # until nodes of somebody else's run are seen
START_LIMIT_S = 120.0  # from starting the processes to the first chunk
SILENCE_LIMIT_S = 6.0  # of a node that otherwise speaks at least once a second: it was killed or is stuck
STOP_LIMIT_S = 40.0
AFTER_SUCCESS_S = 1.5  # what is still recorded once the task is done
MISSED_SHARE = 0.02  # of the control ticks, that a machine may miss that is fast enough
LOG_LINES = 25  # of the nodes' output, shown when something failed


@dataclass(frozen=True)
class DemoConfig:
    """The whole loop against a simulated R1 Lite, and a report of it."""

    seed: int = 0  # scene of the simulation
    duration_s: float = 30.0  # at most, from the first chunk; a task that is done ends it earlier
    out: Path = Path("out/demo")  # folder of the report and the bag; an earlier one is renamed
    model: str = "r1lite-small"  # checkpoint: a folder, or the name of one in models/
    colour: str = "red"  # of the block that is asked for
    side: str = "right"  # of the arm that is to lift it
    instruction: str = ""  # the task in words; the scene's own when empty


SPEAKERS = {  # message type -> node and topic by which one can tell that it works
    ExecutorStatus: ("chunk_executor_node", "status"),
    PolicyStatus: ("policy_node", "status"),
    TaskProgress: ("simulator_node", "task_progress"),
}


class DemoError(RuntimeError):
    """The loop did not run; the message says what failed."""


def main(argv: Sequence[str] | None = None) -> int:
    config = tyro.cli(DemoConfig, args=argv)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        return run(config)
    except (ArgumentError, DemoError, LookupError, OSError, ValueError) as error:
        print(f"\ndemo failed: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\ninterrupted; everything was stopped", file=sys.stderr)
        return 130


def run(config: DemoConfig) -> int:
    """Start, watch, stop, report. Raises DemoError when the loop did not run."""
    if config.duration_s <= 0:
        raise ValueError(f"duration_s is {config.duration_s}; it must be above 0")
    arguments = {
        "robot": "sim",
        "record": "true",
        "depth": "true",
        "seed": str(config.seed),
        "task_options": f"colour={config.colour} side={config.side}",
        "model": config.model,
        "instruction": config.instruction,
        "bag": str(config.out.absolute() / "bag").replace("%", "%%"),  # the recorder knows strftime codes
    }
    names = [node.name for node in graph(arguments)]
    apply(environment(arguments))
    moved = move_aside(config.out)
    if moved:
        print(f"the earlier run is now in {moved}")
    config.out.mkdir(parents=True)
    log = config.out / "log.txt"
    try:
        with watching() as watch:
            watch.refuse_company(names)
            with running(start_words(arguments), log) as process:
                watch.wait_for_chunks(process, names)
                watch.follow(process, names, config.duration_s)
    except DemoError as error:
        raise DemoError(f"{error}\n\nlast lines of {log}:\n{tail(log)}") from error
    print("building the report from the bag")
    made = report.write_report(config.out / "bag", config.out)
    print(f"\n{report.table(made.summary)}\n\n  report           {made.html}\n")
    if slow := too_slow(made.summary):
        print(f"THIS MACHINE IS TOO SLOW for the loop: {slow}; {load()}\n")
    problems = missing_pieces(made.summary)
    if problems:
        raise DemoError("the loop did not run: " + "; ".join(problems))
    return 0


def move_aside(folder: Path) -> Path | None:
    """Give an existing folder another name, made of the time of its last change; None where there is none."""
    if not folder.exists():
        return None
    changed = datetime.datetime.fromtimestamp(folder.stat().st_mtime)
    name = f"{folder.name}-{changed:%Y%m%d-%H%M%S}"
    candidates = (folder.with_name(name + suffix) for suffix in ("", *(f"-{n}" for n in range(2, 100))))
    target = next(path for path in candidates if not path.exists())
    return folder.rename(target)


def start_words(arguments: Mapping[str, str]) -> list[str]:
    """`ros2 launch` where it is installed, else this package's own way of starting the same graph."""
    words = [f"{name}:={value}" for name, value in arguments.items() if value]
    if shutil.which("ros2") and all(importlib.util.find_spec(name) for name in ("launch_ros", "ros2launch")):
        return ["ros2", "launch", "r1lite_bringup", "depthvla.launch.py", *words]
    return [sys.executable, "-m", "r1lite_bringup.process_launch", *words]


def missing_pieces(summary: Mapping) -> list[str]:
    """What a run must have and this one has not."""
    pieces = [
        (summary["chunks"], "no action chunk was recorded"),
        (summary["commands_sent"], "the executor sent no command"),
        (summary["commands_recorded"], "no command was recorded"),
        (summary["mode_s"].get(Mode.POLICY.name), "the policy was never in command"),
        (summary["depth_images"], "no predicted depth could be compared with the true one"),
        (Mode.FAULT.name not in summary["mode_s"], "the executor went to FAULT"),
    ]
    return [complaint for there, complaint in pieces if not there]


@contextmanager
def running(words: Sequence[str], log: Path):
    """The graph's processes, ended with an interrupt. Raises DemoError when they do not end well."""
    with log.open("w") as output:
        # A session of its own: Ctrl-C in a terminal reaches the demo alone, which then ends the graph in order.
        process = subprocess.Popen(words, stdout=output, stderr=subprocess.STDOUT, start_new_session=True)
        try:
            yield process
        finally:
            code = _interrupt(process)
    if code != 0:
        raise DemoError(f"{words[0]} ended with exit code {code}")


@contextmanager
def watching():
    # rclpy's own handlers would end the context before an interrupt reaches the code here.
    rclpy.init(signal_handler_options=SignalHandlerOptions.NO)
    watch = Watch()
    try:
        yield watch
    finally:
        watch.close()
        rclpy.shutdown()


class Watch:
    """A node that follows the run and tells of it in the terminal."""

    def __init__(self) -> None:
        self._node = rclpy.create_node("demo")
        self._executor = SingleThreadedExecutor()
        self._executor.add_node(self._node)
        self._seen = Seen()
        for kind, (name, topic) in SPEAKERS.items():
            self._node.create_subscription(kind, f"/{name}/{topic}", self._seen.take, qos.status())
        self._line = Line()

    def refuse_company(self, names: Sequence[str]) -> None:
        """Raises DemoError when nodes of another run are there: two executors would fight over one robot."""
        self._spin(DISCOVERY_S, until=lambda: bool(self._present(names)))
        self._refuse(self._present(names))

    def wait_for_chunks(self, process: subprocess.Popen, names: Sequence[str]) -> None:
        begin = time.monotonic()
        while not self._seen.accepted:
            self._spin(0.2)
            waited = time.monotonic() - begin
            self._line.show(f"starting  {waited:4.0f} s  {self._seen.starting()}")
            # Discovery takes its time on a busy machine, so another run may show up only now.
            present = self._present(names)
            self._refuse([name for name in names if present.count(name) > 1])
            if process.poll() is not None:
                raise DemoError(f"the graph ended before the first chunk, with exit code {process.returncode}")
            if waited > START_LIMIT_S:
                raise DemoError(f"no chunk within {START_LIMIT_S:.0f} s; {self._seen.starting()}; {load()}")
        self._line.end()

    def follow(self, process: subprocess.Popen, names: Sequence[str], duration_s: float) -> None:
        """Until the task is done, or for `duration_s`. Raises DemoError when a node is gone."""
        print(f"instruction  {self._seen.instruction}")
        begin, succeeded_s, known = time.monotonic(), None, set()
        for kind in SPEAKERS:
            self._seen.heard_s.setdefault(kind, begin)
        while (now_s := time.monotonic() - begin) < duration_s:
            self._spin(0.2)
            self._line.show(f"{now_s:5.1f} s  {self._seen.working(now_s)}")
            if process.poll() is not None:
                raise DemoError(f"the graph ended by itself, with exit code {process.returncode}")
            present = set(self._present(names))
            if known - present:
                raise DemoError(f"{', '.join(sorted(known - present))} ended while the demo was running")
            known |= present
            silent = self._seen.silent(time.monotonic() - SILENCE_LIMIT_S)
            if silent:
                raise DemoError(f"{', '.join(silent)} has said nothing for {SILENCE_LIMIT_S:.0f} s; {load()}")
            if self._seen.success and succeeded_s is None:
                succeeded_s = now_s
            if succeeded_s is not None and now_s > succeeded_s + AFTER_SUCCESS_S:
                break
        self._line.end()
        if set(names) - known:
            raise DemoError(f"{', '.join(sorted(set(names) - known))} never appeared")

    def close(self) -> None:
        self._executor.shutdown()
        self._node.destroy_node()

    def _present(self, names: Sequence[str]) -> list[str]:
        return [name for name in self._node.get_node_names() if name in names]

    def _refuse(self, others: Sequence[str]) -> None:
        if others:
            raise DemoError(
                f"{', '.join(others)} of another run in ROS domain {os.environ.get('ROS_DOMAIN_ID', '0')};"
                " end it, or set ROS_DOMAIN_ID to another number"
            )

    def _spin(self, duration_s: float, until: Callable[[], bool] = lambda: False) -> None:
        end = time.monotonic() + duration_s
        while (left_s := end - time.monotonic()) > 0 and not until():
            self._executor.spin_once(timeout_sec=min(left_s, 0.1))


@dataclass
class Seen:
    """The newest of what the nodes said, and words for it."""

    executor: ExecutorStatus | None = None
    policy: PolicyStatus | None = None
    progress: TaskProgress | None = None
    success: bool = False
    heard_s: dict[type, float] = field(default_factory=dict)  # message type -> monotonic time of the newest

    def take(self, message) -> None:
        self.heard_s[type(message)] = time.monotonic()
        if isinstance(message, ExecutorStatus):
            self.executor = message
        elif isinstance(message, PolicyStatus):
            self.policy = message
        else:
            self.progress = message
            self.success = self.success or message.success

    def silent(self, since_s: float) -> list[str]:
        """Nodes that were not heard since a time on the monotonic clock."""
        return [name for kind, (name, _) in SPEAKERS.items() if self.heard_s.get(kind, -math.inf) < since_s]

    @property
    def accepted(self) -> int:
        return self.executor.chunks_accepted if self.executor else 0

    @property
    def instruction(self) -> str:
        return self.policy.instruction if self.policy else ""

    def starting(self) -> str:
        """What has come up, and what the policy waits for."""
        parts = (("simulator", self.progress), ("executor", self.executor), ("policy", self.policy))
        there = "  ".join(f"{name} {'up' if message else '...'}" for name, message in parts)
        return f"{there}  {self.policy.reason}" if self.policy and self.policy.reason else there

    def working(self, time_s: float) -> str:
        """One line on the running loop."""
        executor = self.executor
        rate = (self.accepted - 1) / time_s if time_s > 1.0 else 0.0
        progress = f"{self.progress.progress:4.0%}" if self.progress else "-"
        words = [
            f"{Mode(executor.mode).name:8}",
            f"chunks {self.accepted} ({rate:.1f} Hz)",
            f"commands {executor.commands_sent}",
            f"missed ticks {executor.missed_ticks}",
            f"progress {progress}",
        ]
        if executor.chunks_refused:
            words.insert(2, f"refused {executor.chunks_refused}")
        if self.success:
            words.append("done")
        elif self.policy and self.policy.reason:
            words.append(self.policy.reason)
        return "  ".join(words)


class Line:
    """A line that is rewritten in a terminal; elsewhere a new line is written every few seconds."""

    def __init__(self, every_s: float = 3.0) -> None:
        self._screen, self._every_s = Screen(), every_s
        self._text, self._written_s = "", 0.0

    def show(self, text: str) -> None:
        self._text, now_s = text, time.monotonic()
        if self._screen.rewrites:
            self._screen.show(text)
        elif now_s - self._written_s >= self._every_s:
            self._written_s = now_s
            self._screen.print(text)

    def end(self) -> None:
        self._screen.show("")
        self._screen.print(self._text)


def too_slow(summary: Mapping) -> str:
    """What shows that this machine did not keep up with the loop; empty where it did."""
    signs, usual_hz = [], chunk_rate_hz(0.0, "cpu")
    if (summary["missed_ticks"] or 0) > MISSED_SHARE * (summary["ticks"] or 0):
        signs.append(f"{summary['missed_ticks']} of {summary['ticks']} control ticks were missed")
    if (summary["chunk_rate_hz"] or 0.0) < usual_hz / 2:
        signs.append(f"{summary['chunk_rate_hz'] or 0.0:.1f} chunks a second instead of {usual_hz:g}")
    return " and ".join(signs)


def load() -> str:
    """Whether other programs are to blame, perhaps."""
    busy, cores = os.getloadavg()[0], os.cpu_count()
    return f"load {busy:.1f} on {cores} cores" + (": end other programs" if busy > cores else "")


def tail(log: Path, lines: int = LOG_LINES) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-lines:]) if log.exists() else ""


def _interrupt(process: subprocess.Popen) -> int:
    """End the graph: an interrupt, and only if that does not help, a kill of all its processes."""
    if process.poll() is None:
        process.send_signal(signal.SIGINT)
    try:
        return process.wait(STOP_LIMIT_S)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        return process.wait()


if __name__ == "__main__":
    sys.exit(main())
