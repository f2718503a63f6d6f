"""The node graph as data: which nodes run for which arguments, with which parameters.

The launch file and `r1lite_bringup.up` both start what `graph` returns, so the two ways of starting cannot differ.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

PACKAGE = "r1lite_bringup"
SIMULATED_INSTRUCTION = "lift the red block with the right arm"


@dataclass(frozen=True)
class Argument:
    """What a user may set as `name:=value`. Every value is a string, as on a command line."""

    name: str
    default: str
    description: str
    choices: tuple[str, ...] = ()


@dataclass(frozen=True)
class Node:
    """One process. `parameters` override those of `parameter_file`.

    `essential`: nothing useful is left without it, so its end ends everything. The policy is not: the executor that
    outlives it holds the arms.
    """

    package: str
    executable: str
    name: str
    essential: bool = False
    parameter_file: Path | None = None
    parameters: Mapping[str, bool | int | float | str] = field(default_factory=dict)
    remappings: tuple[tuple[str, str], ...] = ()
    arguments: tuple[str, ...] = ()


BOOLEAN = ("true", "false")
ARGUMENTS = (
    Argument("robot", "sim", "sim starts a simulated R1 Lite; real expects the robot's topics", ("sim", "real")),
    Argument("model", "r1lite-small", "checkpoint: a folder, or the name of one in models/"),
    Argument("instruction", "", f"the task in words; when empty, '{SIMULATED_INSTRUCTION}' for robot:=sim"),
    Argument("device", "cpu", "where the network runs", ("cpu", "cuda")),
    Argument("depth", "true", "publish predicted depth while somebody listens", BOOLEAN),
    Argument("leader", "false", "a scripted person moves leader arms, to try teleoperation with (robot:=sim)", BOOLEAN),
    Argument("rviz", "false", "show cameras, depth and the robot in RViz", BOOLEAN),
    Argument(
        "record",
        "false",
        "record what is said and seen to a bag: from the start to the end, or on_request (episode_recorder_node/start)",
        (*BOOLEAN, "on_request"),
    ),
    Argument("bag", "out/bags/%Y-%m-%d_%H-%M-%S", "the bag's folder, which must not exist; with strftime codes"),
    Argument("seed", "0", "seed of the first simulated scene; -1 draws one"),
    Argument("robot_file", "", "robot description (YAML); the R1 Lite's when empty"),
    Argument("params_dir", "", "folder with <node>.param.yaml files that replace the installed ones of the same name"),
)


class ArgumentError(ValueError):
    """An argument is unknown or its value is not allowed; the message names it, the value and what is allowed."""


def graph(arguments: Mapping[str, str] | None = None) -> list[Node]:
    """Nodes to run for `arguments`, in the order of starting. Arguments that are not given have their defaults.

    Raises:
        ArgumentError: an argument is unknown, or its value is not allowed.
    """
    values = resolve(arguments or {})
    simulated = values["robot"] == "sim"
    common = {"autostart": True, "robot_file": values["robot_file"]}
    nodes = [
        Node(
            "depthvla_policy",
            "chunk_executor_node",
            "chunk_executor_node",
            essential=True,
            parameters={**common, "mode_on_activate": "POLICY" if simulated else "DISARMED"},
            remappings=(
                ("~/action_chunk", "/policy_node/action_chunk"),
                ("~/policy_status", "/policy_node/status"),
            ),
        ),
        Node(
            "depthvla_policy",
            "policy_node",
            "policy_node",
            parameters={
                **common,
                "model": values["model"],
                "device": values["device"],
                "instruction": values["instruction"],
                "depth": values["depth"] == "true",
                # A simulated scene in which nothing moves gives the same image again and again.
                **({"camera_frozen_after_s": 0.0} if simulated else {}),
            },
            remappings=(("~/plan", "/chunk_executor_node/plan"),),
        ),
    ]
    if simulated:
        nodes.insert(
            0,
            Node(
                "r1lite_sim",
                "simulator_node",
                "simulator_node",
                essential=True,
                # With RViz there is a robot_state_publisher, and one writer of /tf is enough.
                parameters={
                    **common,
                    "seed": int(values["seed"]),
                    "publish_transforms": values["rviz"] == "false",
                },
            ),
        )
        if values["leader"] == "true":
            nodes.append(Node("r1lite_sim", "leader_node", "leader_node", parameters=common))
    if values["record"] != "false":
        nodes.append(
            Node(
                "depthvla_policy",
                "episode_recorder_node",
                "episode_recorder_node",
                parameters={**common, "bag": values["bag"], "record_on_activate": values["record"] == "true"},
            )
        )
    nodes = [_with_parameter_file(node, values["params_dir"]) for node in nodes]
    if values["rviz"] == "true":
        nodes += _visualisation()
    return nodes


def resolve(arguments: Mapping[str, str]) -> dict[str, str]:
    """All arguments with checked values; paths absolute, `model` the checkpoint's folder."""
    names = [argument.name for argument in ARGUMENTS]
    for name in arguments:
        if name not in names:
            raise ArgumentError(f"unknown argument {name!r} (value {arguments[name]!r}); allowed: {', '.join(names)}")
    values = {}
    for argument in ARGUMENTS:
        value = arguments.get(argument.name, argument.default)
        if argument.choices and value not in argument.choices:
            raise ArgumentError(f"{argument.name}:={value!r} is not allowed; allowed: {', '.join(argument.choices)}")
        values[argument.name] = value
    try:
        int(values["seed"])
    except ValueError:
        raise ArgumentError(
            f"seed:={values['seed']!r} is not allowed; allowed: whole numbers, -1 to draw one"
        ) from None
    if values["leader"] == "true" and values["robot"] != "sim":
        raise ArgumentError("leader:='true' is not allowed with robot:='real', which has leader arms of its own")
    if values["robot"] == "sim" and not values["instruction"]:
        values["instruction"] = SIMULATED_INSTRUCTION
    values["model"] = str(_model_folder(values["model"]))
    values["bag"] = str(Path(values["bag"]).expanduser().absolute())
    values["robot_file"] = str(_existing("robot_file", values["robot_file"] or share() / "config" / "r1lite.yaml"))
    if values["params_dir"]:
        values["params_dir"] = str(_existing("params_dir", values["params_dir"]))
    return values


def environment(arguments: Mapping[str, str], current: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Environment variables that the nodes need on top of `current`.

    A simulation speaks the real robot's topics and arms itself, so it stays on this machine unless the user has
    decided about discovery.
    """
    decided = any(current.get(name) for name in ("ROS_AUTOMATIC_DISCOVERY_RANGE", "ROS_LOCALHOST_ONLY"))
    if arguments.get("robot", "sim") != "sim" or decided:
        return {}
    if current.get("ROS_DISTRO") == "humble":
        return {"ROS_LOCALHOST_ONLY": "1"}
    return {"ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST"}


def share() -> Path:
    """This package's folder with config/, launch/, rviz/ and urdf/: the source tree, else where it is installed."""
    source = Path(__file__).resolve().parents[1]
    if (source / "package.xml").exists():
        return source
    from ament_index_python.packages import get_package_share_directory

    return Path(get_package_share_directory(PACKAGE))


def _with_parameter_file(node: Node, params_dir: str) -> Node:
    file = f"{node.name}.param.yaml"
    replaced = bool(params_dir) and Path(params_dir, file).exists()
    return replace(node, parameter_file=Path(params_dir) / file if replaced else share() / "config" / file)


def _visualisation() -> list[Node]:
    import xacro

    description = xacro.process_file(str(share() / "urdf" / "r1lite.urdf.xacro")).toxml()
    return [
        Node(
            "robot_state_publisher",
            "robot_state_publisher",
            "robot_state_publisher",
            parameters={"robot_description": description},
        ),
        Node("rviz2", "rviz2", "rviz2", arguments=("-d", str(share() / "rviz" / "depthvla.rviz"))),
    ]


def _model_folder(model: str) -> Path:
    # The repository's models/ lies above the source tree as well as above the workspace's install folder.
    above = Path(__file__).resolve().parents
    for folder in (Path(model).expanduser(), *(parent / "models" / model for parent in above)):
        if (folder / "config.json").is_file():
            return folder.absolute()
    names = sorted({path.parent.name for parent in above for path in parent.glob("models/*/config.json")})
    raise ArgumentError(
        f"model:={model!r} is not allowed; allowed: a checkpoint's folder (with a config.json) or the name of one in "
        f"models/ ({', '.join(names) or 'there is none'})"
    )


def _existing(name: str, path: str | Path) -> Path:
    path = Path(path).expanduser().absolute()
    if not path.exists():
        raise ArgumentError(f"{name}:={str(path)!r} does not exist")
    return path
