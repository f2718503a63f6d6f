"""DepthVLA on a simulated or a real R1 Lite: the node graph of r1lite_bringup.graph for `ros2 launch`.

The nodes configure and activate themselves (parameter `autostart`).
"""

from __future__ import annotations

from launch import LaunchContext, LaunchDescription
from launch.action import Action
from launch.actions import DeclareLaunchArgument, OpaqueFunction, SetEnvironmentVariable
from launch.events.process import ProcessExited
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue

from r1lite_bringup import graph


def generate_launch_description() -> LaunchDescription:
    return LaunchDescription([*map(declare, graph.ARGUMENTS), OpaqueFunction(function=start_nodes)])


def declare(argument: graph.Argument) -> DeclareLaunchArgument:
    choices = {"choices": list(argument.choices)} if argument.choices else {}
    return DeclareLaunchArgument(
        argument.name, default_value=argument.default, description=argument.description, **choices
    )


def start_nodes(context: LaunchContext) -> list[Action]:
    arguments = {argument.name: LaunchConfiguration(argument.name).perform(context) for argument in graph.ARGUMENTS}
    variables = graph.environment(arguments, context.environment)
    return [
        *(SetEnvironmentVariable(name, value) for name, value in variables.items()),
        *map(action, graph.graph(arguments)),
    ]


def action(node: graph.Node) -> Node:
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
        on_exit=end if node.essential else None,
    )


def end(event: ProcessExited, context: LaunchContext) -> None:
    """Ends everything with a non-zero exit code, unless it is being ended anyway."""
    if not context.is_shutdown:
        raise RuntimeError(f"{event.process_name} ended; nothing works without it, so everything is stopped")
