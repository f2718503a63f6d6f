"""A graph as a description for `ros2 launch`. Only launch files import this: `launch` comes with a ROS distribution."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from launch import LaunchContext, LaunchDescription
from launch.action import Action
from launch.actions import (
    DeclareLaunchArgument,
    OpaqueFunction,
    SetEnvironmentVariable,
    Shutdown,
    UnsetEnvironmentVariable,
)
from launch.events.process import ProcessExited
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue

from depthvla_control.ros.parent import LAUNCHER
from r1lite_bringup import graph, process_launch

# Seconds until SIGTERM follows SIGINT, and SIGKILL that. launch's own would kill a recorder that still writes.
TIMEOUTS_S = {
    name: f"{process_launch.STOP_LIMITS_S[i][1]:g}" for i, name in enumerate(("sigterm_timeout", "sigkill_timeout"))
}
# What may stand among the arguments of `ros2 launch` besides: it has a meaning for launch itself.
LAUNCH_OWN = (*TIMEOUTS_S, "launch-prefix", "launch-prefix-filter")


def describe(
    file: str, table: Sequence[graph.Argument], nodes: Callable[[Mapping[str, str]], list[graph.Node]]
) -> LaunchDescription:
    """The launch description of the nodes that `nodes` returns for the arguments of `table`.

    file: the launch file. Where `ros2 launch` is given it, arguments that are not in `table` are refused. A launch file
    that includes it has arguments of its own.
    """

    def start(context: LaunchContext) -> list[Action]:
        if Path(file).name in (Path(word).name for word in sys.argv):
            given = process_launch.parse(context.argv)
            graph.checked({name: given[name] for name in given if name not in LAUNCH_OWN}, table)
        arguments = {item.name: LaunchConfiguration(item.name).perform(context) for item in table}
        variables = graph.environment(arguments, context.environment)
        return [
            SetEnvironmentVariable(LAUNCHER, str(os.getpid())),
            *(_variable(name, value) for name, value in variables.items()),
            *map(_action, nodes(arguments)),
        ]

    return LaunchDescription([*map(_declare, table), OpaqueFunction(function=start)])


def _declare(argument: graph.Argument) -> DeclareLaunchArgument:
    choices = {"choices": list(argument.choices)} if argument.choices else {}
    return DeclareLaunchArgument(
        argument.name, default_value=argument.default, description=argument.description, **choices
    )


def _variable(name: str, value: str | None) -> Action:
    return UnsetEnvironmentVariable(name) if value is None else SetEnvironmentVariable(name, value)


def _action(node: graph.Node) -> Node:
    overrides = {
        key: ParameterValue(value, value_type=str) if isinstance(value, str) else value
        for key, value in node.parameters.items()
    }
    return Node(
        package=node.package,
        executable=node.executable,
        name=node.name,
        parameters=[*([str(node.parameter_file)] if node.parameter_file else []), overrides],
        remappings=list(node.remappings),
        arguments=list(node.arguments),
        output="screen",
        emulate_tty=True,
        **{name: LaunchConfiguration(name, default=limit_s) for name, limit_s in TIMEOUTS_S.items()},
        on_exit=_end_of(node) if node.essential else None,
    )


def _end_of(node: graph.Node) -> Callable[[ProcessExited, LaunchContext], list[Action] | None]:
    def end(event: ProcessExited, context: LaunchContext) -> list[Action] | None:
        """Ends everything with a non-zero exit code, unless the node finished or everything is being ended anyway. Only
        an exception gives `ros2 launch` such a code.
        """
        if node.finishes and event.returncode == 0:
            return [Shutdown(reason=f"{event.process_name} is done")]
        if not context.is_shutdown:
            raise RuntimeError(f"{event.process_name} ended; nothing works without it, so everything is stopped")
        return None

    return end
