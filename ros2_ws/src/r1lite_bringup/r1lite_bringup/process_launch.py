"""Starts the node graph as processes, where there is no `ros2 launch`: `depthvla up robot:=sim`.

Takes the launch file's arguments, `name:=value`, which no parser of command lines knows, and treats ends and interrupts
as the launch file does. `Launcher` is the same thing for other programs and tests.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TextIO

from depthvla_control.ros.isolation import apply
from depthvla_control.ros.parent import LAUNCHER, Parent
from r1lite_bringup import graph
from r1lite_bringup.graph import Argument, ArgumentError, Node

# The policy waits 10 s for its inference to end, and the recorder for its disk.
STOP_LIMITS_S = ((signal.SIGINT, 15.0), (signal.SIGTERM, 5.0), (signal.SIGKILL, 5.0))
PARENT_PERIOD_S = 0.2


def main(argv: Sequence[str] | None = None) -> int:
    return run("Starts DepthVLA on a simulated or a real R1 Lite. Ctrl-C ends it.", graph.ARGUMENTS, graph.graph, argv)


def run(
    description: str,
    table: Sequence[Argument],
    nodes: Callable[[Mapping[str, str]], list[Node]],
    argv: Sequence[str] | None = None,
) -> int:
    """Run a graph until it ends or is interrupted. Returns 0 when asked to end, 1 when an essential node ended, 2 for
    arguments that make no sense.
    """
    words = sys.argv[1:] if argv is None else argv
    if {"-h", "--help", "-s", "--show-args"} & set(words):
        print(f"usage: {Path(sys.argv[0]).name} [name:=value ...]\n\n{description}\n\n{show_arguments(table)}")
        return 0
    try:
        arguments = parse(words)
        launcher = Launcher(nodes(arguments), environment=graph.environment(arguments))
    except (ArgumentError, LookupError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    parent = Parent()
    # A script that starts this in the background has SIGINT ignored here, and means it none the less when it sends one.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if number != signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, signal.default_int_handler)
    with launcher:
        try:
            while not launcher.wait(PARENT_PERIOD_S) and not parent.gone:
                pass
        except KeyboardInterrupt:
            pass
    return 1 if launcher.failed else 0


def parse(words: Sequence[str]) -> dict[str, str]:
    """Arguments from `name:=value` words."""
    arguments = {}
    for word in words:
        name, separator, value = word.partition(":=")
        if not separator or not name:
            raise ArgumentError(f"{word!r} is not an argument; write name:=value")
        arguments[name] = value
    return arguments


def show_arguments(table: Sequence[Argument]) -> str:
    lines = ["Arguments (pass arguments as '<name>:=<value>'):"]
    for argument in table:
        choices = f". Valid choices are: {list(argument.choices)}" if argument.choices else ""
        lines += ["", f"    '{argument.name}':", f"        {argument.description}{choices}"]
        lines += [f"        (default: {argument.default!r})"]
    return "\n".join(lines)


class Launcher:
    """Runs nodes as processes of their own, each line of their output prefixed with the node's name.

    An essential node that ends takes all others with it (`failed` is its name then); another one is only reported.
    Ends are noticed by threads of the launcher, whether or not somebody waits.

    Args:
        nodes: what to run, in the order of starting.
        environment: variables for the nodes, on top of this process's own; None: that one is removed.
        output: where the nodes' lines and the launcher's own reports go; standard output by default.
        stop_limits_s: signals to end the nodes with, one after the other, and how long each may take.

    Raises:
        LookupError: an executable is not installed; nothing was started.
    """

    def __init__(
        self,
        nodes: Sequence[Node],
        *,
        environment: Mapping[str, str | None] | None = None,
        output: TextIO | None = None,
        stop_limits_s: Sequence[tuple[signal.Signals, float]] = STOP_LIMITS_S,
    ) -> None:
        self.commands = {node.name: command(node) for node in nodes}
        self.failed: str | None = None
        self.exit_codes: dict[str, int] = {}
        self._nodes = {node.name: node for node in nodes}
        self._environment = {**os.environ, "PYTHONUNBUFFERED": "1", LAUNCHER: str(os.getpid())}
        apply(environment or {}, self._environment)
        self._output = output or sys.stdout
        self._stop_limits_s = stop_limits_s
        self._processes: dict[str, subprocess.Popen] = {}
        self._output_lock = threading.Lock()
        self._stop_lock = threading.Lock()
        self._stopping = False
        self._all_ended = threading.Event()

    def __enter__(self) -> Launcher:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        try:
            for name, words in self.commands.items():
                # A session of its own: Ctrl-C in a terminal reaches the launcher alone, which passes it on once.
                self._processes[name] = subprocess.Popen(
                    words,
                    env=self._environment,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    text=True,
                    errors="replace",
                    start_new_session=True,
                )
                threading.Thread(target=self._watch, args=(name, self._processes[name]), daemon=True).start()
        except BaseException:
            self.stop()
            raise

    def process(self, name: str) -> subprocess.Popen:
        """The running process of a node, for looking at it or for breaking it."""
        return self._processes[name]

    def wait(self, timeout_s: float | None = None) -> bool:
        """Wait for the end of all nodes; False when they still run after `timeout_s`."""
        return self._all_ended.wait(timeout_s)

    def stop(self) -> None:
        """End all nodes that still run and wait for that. A KeyboardInterrupt while waiting kills them at once."""
        self._stopping = True
        with self._stop_lock:
            limits_s = list(self._stop_limits_s)
            while limits_s and self._running():
                number, limit_s = limits_s.pop(0)
                try:
                    self._send(number)
                    if not self._all_ended.wait(limit_s):
                        names = ", ".join(self._running())
                        self._report(f"{names} still running {limit_s:g} s after {number.name}")
                except KeyboardInterrupt:
                    limits_s = limits_s[-1:]

    def _watch(self, name: str, process: subprocess.Popen) -> None:
        reader = threading.Thread(target=self._relay, args=(name, process.stdout), daemon=True)
        reader.start()
        code = process.wait()
        reader.join(timeout=1.0)  # a child of the node may keep the pipe open
        self.exit_codes[name] = code
        asked = self._stopping
        how = f"ended by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
        if not asked and code == 0 and self._nodes[name].finishes:
            threading.Thread(target=self.stop, daemon=True).start()
        elif not asked and self._nodes[name].essential:
            self.failed = name
            self._report(f"{name} {how}; nothing works without it, so everything is stopped")
            threading.Thread(target=self.stop, daemon=True).start()
        elif not asked:
            self._report(f"{name} {how}; the other nodes keep running")
        elif code != 0:
            self._report(f"{name} {how}")
        if len(self.exit_codes) == len(self.commands):
            self._all_ended.set()

    def _relay(self, name: str, lines: TextIO) -> None:
        for line in lines:
            self._print(f"[{name}] {line}")

    def _running(self) -> list[str]:
        return [name for name, process in self._processes.items() if process.poll() is None]

    def _send(self, number: signal.Signals) -> None:
        for name in self._running():
            process = self._processes[name]
            try:
                if number == signal.SIGKILL:
                    os.killpg(process.pid, number)  # and whatever it has started itself
                else:
                    process.send_signal(number)
            except ProcessLookupError:
                pass

    def _report(self, text: str) -> None:
        self._print(f"[up] {text}\n")

    def _print(self, text: str) -> None:
        with self._output_lock:
            self._output.write(text)
            self._output.flush()


def command(node: Node) -> list[str]:
    """The words that start a node, as `ros2 run` would with the same parameters and remappings."""
    words = [str(find_executable(node.package, node.executable)), *node.arguments]
    words += ["--ros-args", "-r", f"__node:={node.name}"]
    if node.parameter_file:
        words += ["--params-file", str(node.parameter_file)]
    for key, value in node.parameters.items():
        # A JSON scalar is a YAML scalar of the same type.
        words += ["-p", f"{key}:={json.dumps(value, ensure_ascii=False)}"]
    for source, target in node.remappings:
        words += ["-r", f"{source}:={target}"]
    return words


def find_executable(package: str, executable: str) -> Path:
    """Path of a node's executable. Raises LookupError where it is not installed."""
    from ament_index_python.packages import PackageNotFoundError, get_package_prefix

    try:
        path = Path(get_package_prefix(package), "lib", package, executable)
    except PackageNotFoundError:
        raise LookupError(
            f"package {package!r} (for node executable {executable!r}) is not installed; for the packages of this "
            "workspace: make setup, then source tools/env.sh"
        ) from None
    if not os.access(path, os.X_OK):
        raise LookupError(f"package {package!r} has no executable {executable!r} (looked for {path})")
    return path


if __name__ == "__main__":
    sys.exit(main())
