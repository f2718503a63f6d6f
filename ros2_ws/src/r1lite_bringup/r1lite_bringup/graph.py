"""The node graph as data: which nodes run for which arguments, with which parameters.

The launch file and `process_launch` both start what `graph` returns, so the two ways of starting cannot differ.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from depthvla_control.execution_plan import REALTIME_CHUNKING
from depthvla_control.ros.isolation import this_machine_only
from depthvla_policy.policy.made_for import why_not_real
from r1lite_description import files, robot, tasks
from r1lite_description.share import robot_file, share, urdf_file
from r1lite_sim import instructions, task_options

PACKAGE = "r1lite_bringup"
NODES = {  # executable -> package; a node's parameter file is in the package's config/
    "chunk_executor_node": "depthvla_control",
    "operator_node": "depthvla_control",
    "policy_node": "depthvla_policy",
    "simulator_node": "r1lite_sim",
    "leader_node": "r1lite_sim",
    "episode_recorder_node": "depthvla_evaluation",
    "replay_node": "depthvla_evaluation",
    "visualisation_node": "depthvla_evaluation",
    "viewer_node": "depthvla_evaluation",
}
EMBEDDED = "r1lite-small"  # the checkpoint that comes with the repository, made for the simulation


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

    `essential`: nothing useful is left without it, so its end ends everything, which counts as a failure unless it
    `finishes` and ended with exit code 0. The policy is not essential: the executor that outlives it holds the arms.
    """

    package: str
    executable: str
    name: str
    essential: bool = False
    finishes: bool = False
    parameter_file: Path | None = None
    parameters: Mapping[str, bool | int | float | str] = field(default_factory=dict)
    remappings: tuple[tuple[str, str], ...] = ()
    arguments: tuple[str, ...] = ()


BOOLEAN = ("true", "false")
NETWORK = Argument(
    "network",
    "auto",
    "whom the nodes talk to: this_machine only, whatever the shell says, or whom the shell's settings name; auto: this"
    " machine, but for robot:=real",
    ("auto", "this_machine", "shell"),
)
ARGUMENTS = (
    Argument("robot", "sim", "sim starts a simulated R1 Lite; real expects the robot's topics", ("sim", "real")),
    Argument(
        "model",
        "",
        "checkpoint: a folder, or the name of one in models/; one made for a real robot with robot:=real, else"
        f" {EMBEDDED} when empty",
    ),
    Argument("task", "lift", "what is staged in the simulation", tuple(tasks.names())),
    Argument("task_options", "", "what its instruction names, where it names something: 'colour=blue side=left'"),
    Argument("instruction", "", "the task in words; when empty, that of the simulation's task"),
    Argument("device", "cpu", "where the network runs", ("cpu", "cuda")),
    Argument(
        "max_rate_hz", "", "chunks a second at most; when empty, as the policy node's parameters say: by the device"
    ),
    Argument("depth", "true", "publish predicted depth while somebody listens", BOOLEAN),
    Argument(
        "realtime_chunking",
        "",
        "how a chunk continues the one in execution; when empty, as the policy node's parameters say",
        ("", *REALTIME_CHUNKING),
    ),
    Argument("leader", "false", "a scripted person moves leader arms, to try teleoperation with (robot:=sim)", BOOLEAN),
    Argument("rviz", "false", "show cameras, depth, the robot and where it is going in RViz", BOOLEAN),
    Argument(
        "robot_state_publisher",
        "auto",
        "with rviz:=true, publish /robot_description and /tf here; auto: in a simulation, since a robot does it itself",
        ("auto", *BOOLEAN),
    ),
    Argument("viewer", "false", "show the same in a browser, without RViz", BOOLEAN),
    Argument("viewer_port", "8080", "port of that page, on this machine only"),
    Argument(
        "record",
        "false",
        "record what is said and seen to a bag: from the start to the end, or on_request (episode_recorder_node/start)",
        (*BOOLEAN, "on_request"),
    ),
    Argument("bag", "out/bags/%Y-%m-%d_%H-%M-%S", "the bag's folder, which must not exist; with strftime codes"),
    Argument("bag_root", "out", "folder below which episodes are recorded that a session or anybody else asks for"),
    Argument("seed", "0", "seed of the first simulated scene; -1 draws one"),
    NETWORK,
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
            "depthvla_control",
            "chunk_executor_node",
            "chunk_executor_node",
            essential=True,
            parameters={
                **common,
                "mode_on_activate": "POLICY" if simulated else "DISARMED",
                **(_in_simulation(values["robot_file"]) if simulated else {}),
            },
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
                **({"max_rate_hz": float(rate_hz)} if (rate_hz := values["max_rate_hz"]) else {}),
                **({"realtime_chunking": chunking} if (chunking := values["realtime_chunking"]) else {}),
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
                # One writer of /tf is enough.
                parameters={
                    **common,
                    "task": values["task"],
                    **task_options.written(task_options.parse(values["task_options"].split())),
                    "seed": int(values["seed"]),
                    "publish_transforms": not _publishes_state(values),
                },
            ),
        )
        if values["leader"] == "true":
            nodes.append(Node("r1lite_sim", "leader_node", "leader_node", parameters=common))
    if values["record"] != "false":
        nodes.append(
            Node(
                "depthvla_evaluation",
                "episode_recorder_node",
                "episode_recorder_node",
                parameters={
                    **common,
                    "bag": values["bag"],
                    "bag_root": values["bag_root"],
                    "record_on_activate": values["record"] == "true",
                },
            )
        )
    description = {"urdf_file": str(urdf_file()), "await_description": not simulated}
    if values["rviz"] == "true":
        nodes.append(_shower("visualisation_node", {**common, **description}))
    if values["viewer"] == "true":
        nodes.append(_shower("viewer_node", {**common, **description, "port": int(values["viewer_port"])}))
    nodes = [with_parameter_file(node, values["params_dir"]) for node in nodes]
    if _publishes_state(values):
        nodes.append(_robot_state_publisher())
    if values["rviz"] == "true":
        nodes.append(Node("rviz2", "rviz2", "rviz2", arguments=("-d", str(share(PACKAGE) / "rviz" / "depthvla.rviz"))))
    return nodes


def resolve(arguments: Mapping[str, str]) -> dict[str, str]:
    """All arguments with checked values; paths absolute, `model` the checkpoint's folder."""
    values = checked(arguments, ARGUMENTS)
    number(values, "seed", int, -1, 2**31 - 1)
    number(values, "viewer_port", int, 1, 65535)
    if values["max_rate_hz"]:
        number(values, "max_rate_hz", float, 0.1, 100)
    if values["leader"] == "true" and values["robot"] != "sim":
        raise ArgumentError("leader:='true' is not allowed with robot:='real', which has leader arms of its own")
    if values["task_options"] and values["robot"] != "sim":
        raise ArgumentError(f"task_options:={values['task_options']!r} is not allowed with robot:='real'")
    if values["robot"] == "sim":
        staged = _staged_instruction(values["task"], values["task_options"])
        values["instruction"] = values["instruction"] or staged
    values["model"] = str(_model_for(values["robot"], values["model"]))
    for name in ("bag", "bag_root"):
        values[name] = str(Path(values[name]).expanduser().absolute())
    values["robot_file"] = str(existing("robot_file", values["robot_file"] or robot_file()))
    if values["params_dir"]:
        values["params_dir"] = str(existing("params_dir", values["params_dir"]))
    return values


def number(
    values: Mapping[str, str], name: str, kind: type[int] | type[float], least: float, most: float
) -> int | float:
    """The value of an argument that is a number. Raises ArgumentError where it is none, or out of range."""
    try:
        value = kind(values[name])
    except ValueError:
        value = math.nan
    if not least <= value <= most:
        what = "whole numbers from" if kind is int else "from"
        raise ArgumentError(f"{name}:={values[name]!r} is not allowed; allowed: {what} {least:.10g} to {most:.10g}")
    return value


def _in_simulation(robot_file: str) -> dict[str, float | str]:
    """Of the executor. The simulation's robot is that of the training data: one command for each step of a chunk."""
    return {"feedback_publisher": "/simulator_node", "command_rate_hz": robot.load(robot_file).control_rate_hz}


def _staged_instruction(task: str, words: str) -> str:
    try:
        return instructions.instruction(task, task_options.parse(words.split()))
    except ValueError as error:
        raise ArgumentError(f"task_options:={words!r} is not allowed: {error}") from None


def checked(arguments: Mapping[str, str], table: Sequence[Argument]) -> dict[str, str]:
    """Every argument of the table with its value or its default. Raises ArgumentError for what is not in the table."""
    names = [argument.name for argument in table]
    for name in arguments:
        if name not in names:
            raise ArgumentError(f"unknown argument {name!r} (value {arguments[name]!r}); allowed: {', '.join(names)}")
    values = {argument.name: arguments.get(argument.name, argument.default) for argument in table}
    for argument in table:
        value = values[argument.name]
        if argument.choices and value not in argument.choices:
            raise ArgumentError(f"{argument.name}:={value!r} is not allowed; allowed: {', '.join(argument.choices)}")
    return values


def environment(arguments: Mapping[str, str], current: Mapping[str, str] = os.environ) -> dict[str, str | None]:
    """What the nodes need changed in the environment `current`; None: that variable is removed.

    A simulation, and a replay, speak the real robot's topics, and a simulation arms itself. So they stay on this
    machine unless the user asks for a network; what the shell of a robot was set up for is no such wish.
    """
    network = arguments.get("network", NETWORK.default)
    if network == "shell" or (network == "auto" and arguments.get("robot", "sim") != "sim"):
        return {}
    try:
        return this_machine_only(current)
    except ValueError as error:
        raise ArgumentError(str(error)) from None


def with_parameter_file(node: Node, params_dir: str) -> Node:
    file = f"{node.name}.param.yaml"
    replaced = bool(params_dir) and Path(params_dir, file).exists()
    return replace(node, parameter_file=Path(params_dir) / file if replaced else share(node.package) / "config" / file)


def _shower(name: str, parameters: Mapping[str, bool | int | float | str]) -> Node:
    """A node that only listens to the others."""
    return Node(
        "depthvla_evaluation",
        name,
        name,
        parameters=parameters,
        remappings=(
            ("~/action_chunk", "/policy_node/action_chunk"),
            ("~/policy_status", "/policy_node/status"),
            ("~/plan", "/chunk_executor_node/plan"),
            ("~/executor_status", "/chunk_executor_node/status"),
        ),
    )


def _publishes_state(values: Mapping[str, str]) -> bool:
    simulated = values["robot"] == "sim"
    wanted = {"auto": simulated, "true": True, "false": False}[values["robot_state_publisher"]]
    return values["rviz"] == "true" and wanted


def _robot_state_publisher() -> Node:
    import xacro

    return Node(
        "robot_state_publisher",
        "robot_state_publisher",
        "robot_state_publisher",
        parameters={"robot_description": xacro.process_file(str(urdf_file())).toxml()},
    )


def _model_for(robot: str, model: str) -> Path:
    if robot == "sim":
        return model_folder(model or EMBEDDED)
    if not model:
        raise ArgumentError(
            "model:='' is not allowed with robot:='real'; allowed: the folder of a checkpoint that is made for it"
        )
    folder = model_folder(model)
    try:
        refused = why_not_real(folder / "config.json")
    except ValueError as error:
        raise ArgumentError(f"model:={model!r} is not allowed: {error}") from None
    if refused:
        raise ArgumentError(f"model:={model!r} is not allowed with robot:='real': {refused}")
    return folder


def model_folder(model: str) -> Path:
    folders = files.models_folders()
    for folder in (Path(model).expanduser(), *(parent / model for parent in folders)):
        if (folder / "config.json").is_file():
            return folder.absolute()
    names = sorted({path.parent.name for parent in folders for path in parent.glob("*/config.json")})
    raise ArgumentError(
        f"model:={model!r} is not allowed; allowed: a checkpoint's folder (with a config.json) or the name of one in "
        f"models/ ({', '.join(names) or 'there is none'})"
    )


def existing(name: str, path: str | Path) -> Path:
    path = Path(path).expanduser().absolute()
    if not path.exists():
        raise ArgumentError(f"{name}:={str(path)!r} does not exist")
    return path
