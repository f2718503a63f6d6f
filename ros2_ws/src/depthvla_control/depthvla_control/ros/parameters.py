"""Declares a node's parameters from a table, so that a wrong value is an error that names it and what is allowed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor
from rclpy.exceptions import InvalidParameterTypeException, InvalidParameterValueException
from rclpy.node import Node


@dataclass(frozen=True)
class Parameter:
    """`low` and `high` bound a number (both or neither), `choices` a string."""

    name: str
    default: bool | int | float | str | list[str]
    description: str
    low: float | None = None
    high: float | None = None
    choices: tuple[str, ...] = ()
    read_only: bool = True

    @property
    def allowed(self) -> str:
        if self.choices:
            return " or ".join(repr(choice) for choice in self.choices)
        kind = {
            bool: "true or false",
            int: "an integer",
            float: "a floating-point number",
            str: "a string",
            list: "a list of strings",
        }
        bounds = "" if self.low is None else f" from {self.low} to {self.high}"
        return kind[type(self.default)] + bounds

    def descriptor(self) -> ParameterDescriptor:
        descriptor = ParameterDescriptor(description=self.description, read_only=self.read_only)
        descriptor.additional_constraints = f"allowed: {self.allowed}"
        if self.low is not None and isinstance(self.default, float):
            descriptor.floating_point_range = [FloatingPointRange(from_value=self.low, to_value=self.high)]
        elif self.low is not None:
            descriptor.integer_range = [IntegerRange(from_value=self.low, to_value=self.high)]
        return descriptor


def declare(node: Node, table: Sequence[Parameter]) -> None:
    """Declares what is not declared yet.

    Raises ValueError naming the parameter, its value and what is allowed.
    """
    for item in table:
        if node.has_parameter(item.name):
            continue
        try:
            value = node.declare_parameter(item.name, item.default, item.descriptor()).value
        except (InvalidParameterTypeException, InvalidParameterValueException) as error:
            value = _overrides(node)[item.name].value
            hint = f" (write {value}.0)" if type(value) is int and isinstance(item.default, float) else ""
            raise ValueError(f"parameter {item.name!r} is {value!r}; allowed: {item.allowed}{hint}") from error
        if item.choices and value not in item.choices:
            raise ValueError(f"parameter {item.name!r} is {value!r}; allowed: {item.allowed}")


def refuse_unknown(node: Node) -> None:
    """Raises ValueError naming every parameter that was set from outside but is none of this node's."""
    unknown = sorted(name for name in _overrides(node) if not node.has_parameter(name))
    if unknown:
        known = sorted(item.name for item in node.get_parameters_by_prefix("").values())
        raise ValueError(f"unknown parameters {unknown}; {node.get_name()} has {known}")


def _overrides(node: Node) -> dict:
    # rclpy has no public way to see an override that was never declared.
    return node._parameter_overrides
