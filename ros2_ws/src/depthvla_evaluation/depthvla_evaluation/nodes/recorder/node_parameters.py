"""The parameters of other nodes, for the record. Humble's rclpy has no client for them (AsyncParameterClient)."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence

from rcl_interfaces.srv import GetParameters, ListParameters
from rclpy.node import Node
from rclpy.parameter import parameter_value_to_python
from rclpy.task import Future

ANSWER_LIMIT_S = 2.0  # until another node is asked for its parameters again


class NodeParameters:
    """Another node's parameters, asked for until they come. Nobody waits for them."""

    def __init__(self, node: Node, name: str) -> None:
        self.name = name
        self.values: dict[str, object] | None = None
        self._names = node.create_client(ListParameters, f"{name}/list_parameters")
        self._values = node.create_client(GetParameters, f"{name}/get_parameters")
        self._requested_s = -math.inf

    def forget(self) -> None:
        self.values, self._requested_s = None, -math.inf

    def ask(self) -> None:
        """To be called now and then."""
        now_s = time.monotonic()
        if self.values is None and now_s > self._requested_s + ANSWER_LIMIT_S and self._names.service_is_ready():
            self._requested_s = now_s
            self._names.call_async(ListParameters.Request()).add_done_callback(self._on_names)

    def _on_names(self, future: Future) -> None:
        if future.exception() is None:
            names = future.result().result.names
            request = self._values.call_async(GetParameters.Request(names=names))
            request.add_done_callback(lambda answer: self._on_values(names, answer))

    def _on_values(self, names: Sequence[str], future: Future) -> None:
        if future.exception() is None:
            values = [parameter_value_to_python(value) for value in future.result().values]
            self.values = dict(zip(names, values, strict=False))
