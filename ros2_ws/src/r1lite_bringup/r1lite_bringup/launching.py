"""A graph as a description for `ros2 launch`. Only launch files import this: `launch` comes with a ROS distribution."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from launch import LaunchContext, LaunchDescription
from launch.action import Action
from launch.actions import DeclareLaunchArgument, OpaqueFunction, SetEnvironmentVariable, Shutdown
from launch.events.process import ProcessExited
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue

from r1lite_bringup import graph


def describe(
    table: Sequence[graph.Argument], nodes: Callable[[Mapping[str, str]], list[graph.Node]]
) -> LaunchDescription:
    """The launch description of the nodes that `nodes` returns for the arguments of `table`."""

    def start(context: LaunchContext) -> list[Action]:
        arguments = {item.name: LaunchConfiguration(item.name).perform(context) for item in table}
        variables = graph.environment(arguments, context.environment)
        return [
            *(SetEnvironmentVariable(name, value) for name, value in variables.items()),
            *map(_action, nodes(arguments)),
        ]

    return LaunchDescription([*map(_declare, table), OpaqueFunction(function=start)])


def _declare(argument: graph.Argument) -> DeclareLaunchArgument:
    choices = {"choices": list(argument.choices)} if argument.choices else {}
    return DeclareLaunchArgument(
        argument.name, default_value=argument.default, description=argument.description, **choices
    )


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
        on_exit=_end_of(node) if node.essential else None,
    )


def _end_of(node: graph.Node) -> Callable[[ProcessExited, LaunchContext], list[Action] | None]:
    def end(event: ProcessExited, context: LaunchContext) -> list[Action] | None:
        """Ends everything with a non-zero exit code, unless the node finished or everything is being ended anyway."""
        if node.finishes and event.returncode == 0:
            return [Shutdown(reason=f"{event.process_name} is done")]
        if not context.is_shutdown:
            raise RuntimeError(f"{event.process_name} ended; nothing works without it, so everything is stopped")
        return None

    return end
