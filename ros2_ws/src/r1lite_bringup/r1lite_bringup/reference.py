"""Writes docs/reference.md from the code: launch arguments, and every node's parameters, topics and services.

Nodes are made and configured, in a ROS domain of their own, and asked for what they have; nothing is activated.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from types import ModuleType, SimpleNamespace
from typing import Any

import rclpy
import tyro
from rcl_interfaces.msg import ParameterDescriptor
from rclpy.context import Context
from rclpy.lifecycle import TransitionCallbackReturn
from rclpy.parameter import Parameter as RosParameter
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy

from depthvla_control.ros.probe import private_domain
from depthvla_control.ros.runtime import COMMON_PARAMETERS, ManagedNode
from r1lite_bringup import command, completion, graph
from r1lite_bringup.preflight import settings
from r1lite_description import robot as robot_description
from r1lite_description.share import share, urdf_file

FILE = "docs/reference.md"
PARAMETER_COLUMNS = ("parameter", "default", "allowed", "meaning")
# Types of these packages come with a ROS distribution only; left out, so that the file does not depend on the machine.
OPTIONAL_PACKAGES = ("rviz_2d_overlay_msgs", "tf2_msgs")
HEAD = """# Reference

Generated from the code by `depthvla reference`; a test compares. Names are those of the graph that `depthvla.launch.py`
and `depthvla up` start, with the R1 Lite's description. What a node publishes with types that come with a ROS
distribution only (`/tf`, `/tf_static`, `~/overlay`) is not listed. `session` is a command, not a node of the graph:
[evaluate.md](evaluate.md). Messages and services are described where they are defined, in `ros2_ws/src/depthvla_msgs/`.

"Installed" is the value in `config/<node>.param.yaml` of the node's package, where it differs from the default; the
launch file reads these files, and its arguments override them.
"""
EVERY_NODE = """## Every node

is a lifecycle node (`~/change_state`, `~/get_state`) and says once a second on `/diagnostics` how it is. An unknown
parameter, or a value that is not allowed, is an error that names it.
"""


@dataclass(frozen=True)
class Subject:
    """A node's class, and what it needs to be configured. `configured` False: its topics depend on its input."""

    name: str
    cls: str
    overrides: Mapping[str, Any] = field(default_factory=dict)
    arguments: Mapping[str, Any] = field(default_factory=dict)
    configured: bool = True

    @property
    def module(self) -> str:
        return f"{graph.NODES[self.name]}.nodes.{self.name}"


def subjects(robot: robot_description.Robot) -> list[Subject]:
    urdf = {"urdf_file": str(urdf_file())}
    return [
        Subject(
            "policy_node",
            "PolicyNode",
            {"realtime_chunking": "guided"},  # with it ~/plan is subscribed to
            {"load": lambda *_: _policy_of(robot)},
        ),
        Subject("chunk_executor_node", "ChunkExecutorNode"),
        Subject("operator_node", "OperatorNode"),
        Subject("episode_recorder_node", "EpisodeRecorderNode"),
        Subject("visualisation_node", "VisualisationNode", urdf),
        Subject("viewer_node", "ViewerNode", urdf),
        Subject("replay_node", "ReplayNode", configured=False),
        Subject("simulator_node", "SimulatorNode"),
        Subject("leader_node", "LeaderNode"),
    ]


def main(argv: Sequence[str] | None = None) -> int:
    tyro.cli(lambda: None, args=argv, description=__doc__)
    path = share("r1lite_bringup").parents[2] / FILE
    for file, content in ((path, text()), (command.completion_file(), completion.text())):
        file.write_text(content)
        print(file)
    return 0


def text() -> str:
    """The whole file. Raises RuntimeError when a node cannot be configured; its log says why."""
    robot = robot_description.load()
    with private_domain():
        context = Context()
        rclpy.init(context=context)
        try:
            bare = ManagedNode("bare", context=context)
            common = {*_relative_names(bare), *bare.get_parameters_by_prefix("")}
            bare.destroy_node()
            sections = [_node(subject, context, common) for subject in subjects(robot)]
        finally:
            rclpy.shutdown(context=context)
    return "\n".join([HEAD, _launch_arguments("depthvla.launch.py", graph.ARGUMENTS), _every_node(), *sections])


def _launch_arguments(file: str, table: Sequence[graph.Argument]) -> str:
    rows = [
        (f"`{item.name}:=`", _code(item.default), " or ".join(map(_code, item.choices)), item.description)
        for item in table
    ]
    return f"## {file}\n\n" + _table(("argument", "default", "allowed", "meaning"), rows)


def _every_node() -> str:
    rows = [_row(item.name, item.default, item.descriptor(), {}) for item in COMMON_PARAMETERS]
    return f"{EVERY_NODE}\n{_table(PARAMETER_COLUMNS, rows)}"


def _node(subject: Subject, context: Context, common: set[str]) -> str:
    module, name = import_module(subject.module), subject.name
    remappings = [word for source, target in _remappings(name) for word in ("-r", f"{source}:={target}")]
    node: ManagedNode = getattr(module, subject.cls)(
        context=context,
        cli_args=["--ros-args", *remappings] if remappings else None,
        parameter_overrides=[RosParameter(key, value=value) for key, value in subject.overrides.items()],
        **subject.arguments,
    )
    try:
        if subject.configured and node.trigger_configure() != TransitionCallbackReturn.SUCCESS:
            raise RuntimeError(f"{name} could not be configured")
        # A value that was needed to configure the node is not its default.
        defaults = {item.name: item.default for item in module.PARAMETERS}
        installed = settings.parameters(share(graph.NODES[name]) / "config" / f"{name}.param.yaml")
        rows = [
            _row(key, defaults.get(key, value.value), node.describe_parameter(key), installed)
            for key, value in node.get_parameters_by_prefix("").items()
            if key not in common
        ]
        topics = "Its topics are those of the recording that it is given.\n"
        if subject.configured:
            topics = _table(("", "name", "type", "QoS"), list(_entities(node, common)))
        return f"## {name}\n\n{_summary(module)}\n\n{_table(PARAMETER_COLUMNS, rows)}\n{topics}"
    finally:
        node.trigger_shutdown()
        node.destroy_node()


def _remappings(name: str) -> Sequence[tuple[str, str]]:
    everything = {
        "leader": "true",
        "record": "true",
        "viewer": "true",
        "rviz": "true",
        "robot_state_publisher": "false",
    }
    nodes = graph.graph(everything)
    return next((node.remappings for node in nodes if node.name == name), ())


def _policy_of(robot: robot_description.Robot) -> SimpleNamespace:
    """Stands for a policy with every camera and depth, so that no checkpoint has to be loaded."""
    return SimpleNamespace(
        model_id="any",
        cameras=tuple(camera.name for camera in robot.cameras),
        rectified=(),
        has_depth=True,
        horizon=16,
        image_fit="crop",
        prepare=lambda: None,
        infer=lambda *_, **__: None,
    )


def _entities(node: ManagedNode, common: set[str]) -> Iterator[tuple[str, str, str, str]]:
    own = f"/{node.get_name()}/"
    for does, entities in _by_kind(node).items():
        for name, entity in entities:
            kind = entity.srv_type if does in ("serves", "calls") else entity.msg_type
            package = kind.__module__.partition(".")[0]
            if name.replace(own, "~/") not in common and package not in OPTIONAL_PACKAGES:
                quality = "" if kind is getattr(entity, "srv_type", None) else _quality(entity.qos_profile)
                yield does, f"`{name}`", f"{package}/{kind.__name__}", quality


def _relative_names(node: ManagedNode) -> Iterator[str]:
    for entities in _by_kind(node).values():
        for name, _ in entities:
            yield name.replace(f"/{node.get_name()}/", "~/")


def _by_kind(node: ManagedNode) -> dict[str, list[tuple[str, Any]]]:
    """What a node has, sorted by name."""
    return {
        "publishes": sorted((item.topic_name, item) for item in node.publishers),
        "subscribes": sorted((item.topic_name, item) for item in node.subscriptions),
        "serves": sorted((node.resolve_service_name(item.srv_name), item) for item in node.services),
        "calls": sorted((node.resolve_service_name(item.srv_name), item) for item in node.clients),
    }


def _quality(profile: QoSProfile) -> str:
    words = "best effort" if profile.reliability is ReliabilityPolicy.BEST_EFFORT else "reliable"
    return words + (", latched" if profile.durability is DurabilityPolicy.TRANSIENT_LOCAL else "")


def _row(
    name: str, default: object, descriptor: ParameterDescriptor, installed: Mapping[str, Any]
) -> tuple[str, str, str, str]:
    allowed = descriptor.additional_constraints.removeprefix("allowed: ")
    meaning = descriptor.description + ("" if descriptor.read_only else " May be set while running.")
    value = installed.get(name, default)
    if value == default:
        return f"`{name}`", _code(default), allowed, meaning
    words = "a longer list" if isinstance(value, list) else _code(value)
    return f"`{name}`", f"{_code(default)}; installed: {words}", allowed, meaning


def _code(value: object) -> str:
    words = str(value).lower() if isinstance(value, bool) else str(value)
    return f"`{words}`" if words else "empty"


def _summary(module: ModuleType) -> str:
    return module.__doc__.partition("\n\n")[0]


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [columns, ["---"] * len(columns), *rows]
    return "".join("| " + " | ".join(map(_cell, line)) + " |\n" for line in lines)


def _cell(text: str) -> str:
    # A placeholder such as <camera> would be taken for a tag.
    return text.replace("|", "\\|").replace("<", "&lt;")


if __name__ == "__main__":
    sys.exit(main())
