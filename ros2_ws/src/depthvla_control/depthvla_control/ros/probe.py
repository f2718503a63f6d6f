"""A node that watches and questions others, for trials and tests: messages with times, services, transitions.

`private_domain` keeps concurrent sessions on one machine apart.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import rclpy
from lifecycle_msgs.srv import ChangeState, GetState
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from rclpy.qos import QoSProfile
from std_srvs.srv import Trigger

from depthvla_control.ros.isolation import apply, this_machine_only

# Ports of higher domains lie in the range from which Linux hands out temporary ones.
DOMAINS = range(60, 100)
TIMEOUT_S = 30.0
POLL_S = 0.005


@contextlib.contextmanager
def private_domain() -> Iterator[int]:
    """A ROS domain that no other session on this machine uses, and discovery on this machine only."""
    before = dict(os.environ)
    with contextlib.ExitStack() as stack:
        for domain in DOMAINS:
            lock = stack.enter_context(open(Path(tempfile.gettempdir(), f"ros_test_domain_{domain}.lock"), "w"))
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                continue
        else:
            raise RuntimeError(f"every ROS domain of {DOMAINS} is in use")
        os.environ["ROS_DOMAIN_ID"] = str(domain)
        apply(this_machine_only(os.environ))
        try:
            yield domain
        finally:
            os.environ.clear()
            os.environ.update(before)


class Heard(list):
    """Messages of one topic in the order of arrival; `times_s` are on the monotonic clock."""

    def __init__(self) -> None:
        super().__init__()
        self.times_s: list[float] = []

    def add(self, message: Any) -> None:
        self.times_s.append(time.monotonic())
        self.append(message)

    def since(self, time_s: float) -> list:
        return [message for at, message in zip(self.times_s, self, strict=False) if at >= time_s]


class Probe:
    """A node of this process, spun in the background."""

    def __init__(self, name: str = "probe") -> None:
        self._context = Context()
        rclpy.init(context=self._context)
        self.node = rclpy.create_node(name, context=self._context)
        self._executor = SingleThreadedExecutor(context=self._context)
        self._executor.add_node(self.node)
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._spin, daemon=True)
        self._thread.start()

    def now_ns(self) -> int:
        return self.node.get_clock().now().nanoseconds

    def listen(self, message_type: type, topic: str, profile: QoSProfile | int = 10) -> Heard:
        heard = Heard()
        self.node.create_subscription(message_type, topic, heard.add, profile)
        return heard

    def publisher(self, message_type: type, topic: str, profile: QoSProfile | int = 10):
        return self.node.create_publisher(message_type, topic, profile)

    def every(self, period_s: float, function: Callable[[], None]):
        """Calls `function` periodically until the returned timer is cancelled."""
        return self.node.create_timer(period_s, function)

    def call(self, service_type: type, name: str, request: Any = None, timeout_s: float = TIMEOUT_S) -> Any:
        """The answer of a service. Raises AssertionError when there is none in time."""
        client = self.node.create_client(service_type, name)
        try:
            if not client.wait_for_service(timeout_s):
                raise AssertionError(f"no service {name} after {timeout_s} s")
            future = client.call_async(request or service_type.Request())
            wait_until(future.done, timeout_s, lambda: f"an answer of {name}")
            return future.result()
        finally:
            self.node.destroy_client(client)

    def trigger(self, name: str) -> Trigger.Response:
        return self.call(Trigger, name)

    def transition(self, node: str, label: str) -> bool:
        request = ChangeState.Request()
        request.transition.label = label
        return self.call(ChangeState, f"{node}/change_state", request).success

    def state(self, node: str) -> str:
        return self.call(GetState, f"{node}/get_state").current_state.label

    def wait_for(self, condition: Callable[[], Any], timeout_s: float = TIMEOUT_S, what: str = "the condition") -> Any:
        return wait_until(condition, timeout_s, lambda: what)

    def _spin(self) -> None:
        while not self._stopping.is_set():
            self._executor.spin_once(timeout_sec=0.05)

    def __enter__(self) -> Probe:
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._thread.join()
        self._executor.shutdown()
        self.node.destroy_node()
        rclpy.shutdown(context=self._context)


def wait_until(condition: Callable[[], Any], timeout_s: float, what: Callable[[], str]) -> Any:
    """The first true value of `condition`. Raises AssertionError saying `what` was waited for."""
    deadline = time.monotonic() + timeout_s
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() >= deadline:
            raise AssertionError(f"waited {timeout_s} s for {what()}")
        time.sleep(POLL_S)
