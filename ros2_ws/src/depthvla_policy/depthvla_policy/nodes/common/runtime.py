"""What every node's process has in common: a lifecycle node that explains its failures, and the main function.

A node derives from `ManagedNode`, fills in configure, activate, deactivate and cleanup, and hands itself to `run`.
"""

from __future__ import annotations

import signal
import traceback
from collections.abc import Callable, Sequence

import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.signals import SignalHandlerOptions

from depthvla_policy.nodes.common.diagnostics import STALE, Diagnostics, Health
from depthvla_policy.nodes.common.parameters import Parameter, declare, refuse_unknown
from depthvla_policy.nodes.common.parent import Parent

# Bounds the time from a signal to the shutdown transition; the executor cannot be woken from a Python signal handler.
SPIN_TIMEOUT_S = 0.1
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
        self._created_before: set = set()
        declare(self, (*COMMON_PARAMETERS, *parameters))
        self.active = False
        self.exit_code = 0  # of the process, once it was asked to end
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
        self._created_before = set(self._entities())

        def configure() -> None:
            self.configure()
            refuse_unknown(self)

        return self._attempt("configure", configure, undo=self._clean)

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        def activate() -> None:
            LifecycleNode.on_activate(self, state)
            self.activate()
            self.active = True

        def undo() -> None:
            LifecycleNode.on_deactivate(self, state)

        return self._attempt("activate", activate, undo)

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        def deactivate() -> None:
            self.active = False
            try:
                self.deactivate()
            finally:
                LifecycleNode.on_deactivate(self, state)

        return self._attempt("deactivate", deactivate, undo=None)

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        return self._attempt("clean up", self._clean, undo=None)

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        result = self.on_deactivate(state) if self.active else TransitionCallbackReturn.SUCCESS
        cleaned = self._attempt("shut down", self._clean, undo=None)
        return result if result != TransitionCallbackReturn.SUCCESS else cleaned

    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        return self._attempt("recover from an error", self._clean, undo=None)

    def _attempt(self, what: str, step: Callable[[], None], undo: Callable[[], None] | None):
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
        self.cleanup()
        for entities, destroy in (
            (self.timers, self.destroy_timer),
            (self.services, self.destroy_service),
            (self.clients, self.destroy_client),
            (self.subscriptions, self.destroy_subscription),
            (self.publishers, self.destroy_lifecycle_publisher),
        ):
            for entity in [entity for entity in entities if entity not in self._created_before]:
                destroy(entity)

    def _answer_impossible_transitions(self) -> None:
        """In rclpy a request for an impossible transition raises through the executor, which would end the process."""
        service = self._service_change_state
        change_state = service.callback

        def answer(request, response):
            try:
                return change_state(request, response)
            except RuntimeError as error:
                self.get_logger().error(f"refused a lifecycle transition: {error}")
                response.success = False
                return response

        service.callback = answer

    def _entities(self) -> list:
        return [*self.timers, *self.services, *self.clients, *self.subscriptions, *self.publishers]

    def _health(self) -> Health:
        return self.health() if self.active else Health(STALE, self._state_machine.current_state[1])


def run(make_node: Callable[[], ManagedNode], args: Sequence[str] | None = None) -> int:
    """A process's main function: spins the node until a signal, shuts it down and returns the exit code.

    A signal is SIGINT, SIGTERM, SIGHUP, or the end of the process that started this one. After it the code is the
    node's `exit_code`; 1 when the node cannot be made, does not start by itself where it should, or raises.
    """
    # With rclpy's own handlers a signal takes the context down before the shutdown transition could run.
    rclpy.init(args=args, signal_handler_options=SignalHandlerOptions.NO)
    stopping = _Stopping()
    node = None
    try:
        node = make_node()
        executor = SingleThreadedExecutor()
        executor.add_node(node)
        if node.value("autostart") and not _start(node):
            return 1
        while not stopping:
            executor.spin_once(timeout_sec=SPIN_TIMEOUT_S)
        node.get_logger().info(f"shutting down on {stopping}")
    except Exception as error:
        logger = node.get_logger() if node else rclpy.logging.get_logger("depthvla_policy")
        known = isinstance(error, EXPECTED_ERRORS) and node is None
        logger.fatal(str(error) if known else traceback.format_exc())
        return 1
    finally:
        if node is not None:
            _shut_down(node)
        rclpy.shutdown()
    return node.exit_code


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
    success = TransitionCallbackReturn.SUCCESS
    return node.trigger_configure() == success and node.trigger_activate() == success


def _shut_down(node: ManagedNode) -> None:
    try:
        node.trigger_shutdown()
    except RuntimeError:
        pass  # it was already shut down through its lifecycle service
    node.destroy_node()
