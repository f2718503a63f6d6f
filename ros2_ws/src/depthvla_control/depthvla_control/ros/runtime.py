"""What every node's process has in common: a lifecycle node that explains its failures, and the main function.

A node derives from `ManagedNode`, fills in configure, activate, deactivate and cleanup, and hands itself to `run`.
"""

from __future__ import annotations

import itertools
import signal
import sys
import textwrap
import traceback
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.signals import SignalHandlerOptions
from rclpy.utilities import remove_ros_args

from depthvla_control.ros.diagnostics import ERROR, STALE, WARN, Diagnostics, Health
from depthvla_control.ros.parameters import Parameter, declare, refuse_unknown
from depthvla_control.ros.parent import Parent
from depthvla_control.ros.polling import PolledSubscription
from depthvla_control.worker import Worker
from r1lite_description import robot as robot_description
from r1lite_description.robot import Robot

# Bounds the time from a signal to the shutdown transition; the executor cannot be woken from a Python signal handler.
SPIN_TIMEOUT_S = 0.1
HELP = {"-h", "--help"}
COMMON_PARAMETERS = (
    Parameter(
        "autostart",
        False,
        "Configure and activate without a lifecycle manager; the process ends with an error where that fails.",
    ),
)
# What a user's configuration can cause. Anything else is a defect and is logged with its traceback.
EXPECTED_ERRORS = (ValueError, OSError, ImportError)


class ManagedNode(LifecycleNode):
    """A lifecycle node whose transitions log what went wrong instead of swallowing it (rclpy does).

    A failed configure or activate leaves the node in the state it was in. Everything that `configure` creates on the
    node is destroyed by cleanup, so `cleanup` is only needed for what is not a ROS entity.
    """

    def __init__(self, name: str, parameters: Sequence[Parameter] = (), **kwargs) -> None:
        """Raises ValueError for a parameter whose value is not allowed."""
        super().__init__(name, **kwargs)
        self._created_before: set | None = None  # by the time of configure; None: there is nothing to clean up
        self.workers: list[Worker] = []  # threads at work while it is active; a problem of theirs is an error
        self.inputs: list[PolledSubscription] = []  # filled by themselves
        self._logged: set[str] = set()
        declare(self, (*parameters, *COMMON_PARAMETERS))
        self.active = False
        self.exit_code = 0  # of the process, once it was asked to end
        self.finished = False  # set by a node that ends its process itself
        self._answer_impossible_transitions()
        Diagnostics(self, "state", self._health)

    def configure(self) -> None:
        """Reads parameters and creates entities. May raise ValueError, OSError or ImportError with a clear message."""

    def activate(self) -> None:
        """Starts working. Lifecycle publishers publish from here on."""

    def deactivate(self) -> None:
        """Stops working. Lifecycle publishers are still enabled, and no longer when this returns."""

    def cleanup(self) -> None:
        """Releases what is not a ROS entity. Also called after a failed configure."""

    def health(self) -> Health:
        """Asked once a second while the node is configured, active or not."""
        return Health(STALE, "no health is reported")

    def value(self, name: str):
        return self.get_parameter(name).value

    def declare_more(self, table: Sequence[Parameter]) -> None:
        """Declares parameters that depend on others; afterwards an override nobody declared is an error."""
        declare(self, table)
        refuse_unknown(self)

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        self._created_before = {*self.timers, *self.services, *self.clients, *self.subscriptions, *self.publishers}

        def configure() -> None:
            self.configure()
            refuse_unknown(self)

        return self._attempt("configure", configure, undo=self._clean)

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        def activate() -> None:
            LifecycleNode.on_activate(self, state)
            self.activate()
            self.active = True

        return self._attempt("activate", activate, undo=lambda: LifecycleNode.on_deactivate(self, state))

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        def deactivate() -> None:
            self.active = False
            try:
                self.deactivate()
            finally:
                LifecycleNode.on_deactivate(self, state)

        return self._attempt("deactivate", deactivate)

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        return self._attempt("clean up", self._clean)

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        result = self.on_deactivate(state) if self.active else TransitionCallbackReturn.SUCCESS
        cleaned = self._attempt("shut down", self._clean)
        return result if result != TransitionCallbackReturn.SUCCESS else cleaned

    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        return self._attempt("recover from an error", self._clean)

    def _attempt(
        self, what: str, step: Callable[[], None], undo: Callable[[], None] | None = None
    ) -> TransitionCallbackReturn:
        try:
            step()
            return TransitionCallbackReturn.SUCCESS
        except Exception as error:
            text = str(error) if isinstance(error, EXPECTED_ERRORS) else traceback.format_exc()
            self.get_logger().error(f"cannot {what}: {text}")
        if undo is None:
            return TransitionCallbackReturn.ERROR
        try:
            undo()
        except Exception:
            self.get_logger().error(f"after a failed {what}: {traceback.format_exc()}")
        return TransitionCallbackReturn.FAILURE

    def _clean(self) -> None:
        """Takes back what the newest configure made. Without one the node's own services stay: one is answering."""
        before, self._created_before = self._created_before, None
        if before is None:
            return
        try:
            self.cleanup()
        finally:
            self.workers.clear()
            self.inputs.clear()
            for entities, destroy in (
                (self.timers, self.destroy_timer),
                (self.services, self.destroy_service),
                (self.clients, self.destroy_client),
                (self.subscriptions, self.destroy_subscription),
                (self.publishers, self.destroy_lifecycle_publisher),
            ):
                for entity in [entity for entity in entities if entity not in before]:
                    destroy(entity)

    def _answer_impossible_transitions(self) -> None:
        """In rclpy a request for an impossible transition raises through the executor, which would end the process."""
        service = self._service_change_state
        change_state = service.callback

        def answer(request, response):
            wanted, machine = request.transition, self._state_machine
            possible = {number: label for number, label, *_ in machine.available_transitions}
            if wanted.label in possible.values() if wanted.label else wanted.id in possible:
                return change_state(request, response)
            self.get_logger().error(
                f"refused the lifecycle transition {wanted.label or wanted.id!r}: the node is"
                f" {machine.current_state[1]}; allowed: {', '.join(possible.values()) or 'nothing'}"
            )
            response.success = False
            return response

        service.callback = answer

    def _health(self) -> Health:
        if not self.active:
            return Health(STALE, self._state_machine.current_state[1])
        health, logged_before, self._logged = self.health(), self._logged, set()
        for level, items in ((WARN, self.inputs), (ERROR, self.workers)):
            problems = [problem for item in items if (problem := item.problem)]
            if problems and level > health.level:
                health = replace(health, level=level, message="; ".join(problems))
            if level == WARN:
                self._logged.update(problems)
        self._logged.update(worker.traceback for worker in self.workers if worker.traceback)
        for text in sorted(self._logged - logged_before):
            self.get_logger().error(text)
        return health


def run(
    make_node: Callable[[], ManagedNode],
    args: Sequence[str] | None = None,
    *,
    about: str | None = None,
    parameters: Sequence[Parameter] = (),
    of_robot: Callable[[Robot], Sequence[Parameter]] = lambda robot: (),
) -> int:
    """A process's main function: spins the node until a signal or its own end, shuts it down, returns the exit code.

    A signal is SIGINT, SIGTERM, SIGHUP, or the end of the process that started this one. After it the code is the
    node's `exit_code`; 1 when the node cannot be made, does not start by itself where it should, or raises; 2 for
    arguments that make no sense.

    Args:
        make_node: usually its class.
        args: the command line with the program's name; sys.argv by default.
        about: for --help.
        parameters: for --help.
        of_robot: for --help, gives the parameters that depend on the robot.
    """
    args = _files_first(sys.argv if args is None else args)
    name = Path(args[0]).stem if args else "node"
    if HELP & set(args):
        table = (*COMMON_PARAMETERS, *parameters, *of_robot(robot_description.load()))
        print(_usage(name, about or "", {item.name: item for item in table}.values()))
        return 0
    try:
        if unknown := remove_ros_args(args)[1:]:
            raise RuntimeError(f"unknown arguments {unknown}; allowed: --help, and what follows --ros-args")
        # With rclpy's own handlers a signal takes the context down before the shutdown transition could run.
        rclpy.init(args=args, signal_handler_options=SignalHandlerOptions.NO)
    except RuntimeError as error:  # rcl's own are, too
        text = str(error)
        print(f"{name}: {'unknown ROS arguments ' if text.startswith('[') else ''}{text}", file=sys.stderr)
        return 2
    stopping = _Stopping()
    node = None
    try:
        node = make_node()
        executor = SingleThreadedExecutor()
        executor.add_node(node)
        if node.value("autostart") and not _start(node):
            return 1
        while not (stopping or node.finished):
            executor.spin_once(timeout_sec=SPIN_TIMEOUT_S)
        if not node.finished:
            node.get_logger().info(f"shutting down on {stopping}")
    except Exception as error:
        logger = node.get_logger() if node else rclpy.logging.get_logger("depthvla")
        known = isinstance(error, EXPECTED_ERRORS) and node is None
        logger.fatal(str(error) if known else traceback.format_exc())
        return 1
    finally:
        if node is not None:
            _shut_down(node)
        rclpy.shutdown()
    return node.exit_code


def _files_first(args: Sequence[str]) -> list[str]:
    """A single parameter overrides those of a file wherever it stands; to rcl, whatever comes later overrides."""
    files, others, for_ros = [], [], False
    rest = iter(args)
    for arg in rest:
        if for_ros and arg == "--params-file":
            files += [arg, *itertools.islice(rest, 1)]
            continue
        for_ros = arg == "--ros-args" or (for_ros and arg != "--")
        others.append(arg)
    return [*others[:1], "--ros-args", *files, "--", *others[1:]] if files else others


def _usage(name: str, about: str, parameters: Iterable[Parameter]) -> str:
    lines = [
        f"usage: {name} [--help] [--ros-args [-p PARAMETER:=VALUE]... [--params-file FILE]... [-r FROM:=TO]...]",
        "",
        about.strip(),
        "",
        "parameters, with their defaults; -p overrides a file wherever it stands:",
    ]
    for item in parameters:
        lines.append(f"  {item.name} ({item.default!r}): {item.allowed}")
        lines += textwrap.wrap(item.description, 100, initial_indent=" " * 6, subsequent_indent=" " * 6)
    return "\n".join(lines)


class _Stopping:
    """Becomes true with the first signal to end, and when the process that started this one is gone."""

    def __init__(self) -> None:
        self._signal: signal.Signals | None = None
        self._parent = Parent()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            if number != signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN:  # as nohup wants it
                signal.signal(number, self._handle)

    def _handle(self, number: int, frame: object) -> None:
        self._signal = signal.Signals(number)

    def __bool__(self) -> bool:
        return self._signal is not None or self._parent.gone

    def __str__(self) -> str:
        return self._signal.name if self._signal else str(self._parent)


def _start(node: ManagedNode) -> bool:
    return all(step() == TransitionCallbackReturn.SUCCESS for step in (node.trigger_configure, node.trigger_activate))


def _shut_down(node: ManagedNode) -> None:
    try:
        if node.trigger_shutdown() != TransitionCallbackReturn.SUCCESS:
            node.exit_code = node.exit_code or 1
    except RuntimeError:
        pass  # it was already shut down through its lifecycle service
    node.destroy_node()
