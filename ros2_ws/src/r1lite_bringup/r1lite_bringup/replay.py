"""A recording instead of a robot: the graph that feeds a bag to the policy on simulated time and compares its chunks
with what was commanded. The same as `ros2 launch` with replay.launch.py.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from r1lite_bringup import graph, process_launch
from r1lite_bringup.graph import BOOLEAN, Argument, ArgumentError, Node
from r1lite_description import share

ARGUMENTS = (
    Argument("bag", "", "the recording: a rosbag2 folder"),
    Argument("model", "r1lite-small", "checkpoint: a folder, or the name of one in models/"),
    Argument("instruction", "", "the task in words; when empty, the recording's"),
    Argument("device", "cpu", "where the network runs", ("cpu", "cuda")),
    Argument("out", "out/replay", "folder for open_loop.json and open_loop.png; earlier ones are replaced"),
    Argument("rate", "1.0", "seconds of the recording in one second"),
    Argument("wait_for_chunks", "true", "the clock stands still until the policy has answered a frame", BOOLEAN),
    Argument("noise_seed", "0", "0 or more: the same recording gives the same chunks; -1: it never does"),
    graph.NETWORK,
    Argument("robot_file", "", "robot description (YAML); the R1 Lite's when empty"),
    Argument(
        "params_dir",
        "",
        "folder with <node>.param.yaml files that replace the installed ones of the same name; when empty, the cameras"
        " of the policy are set as in the recording",
    ),
)
MAX_RATE_HZ = 100.0  # of what is played, every frame is asked about


def replay_graph(arguments: Mapping[str, str] | None = None) -> list[Node]:
    """Nodes to run for `arguments`.

    Raises:
        ArgumentError: an argument is unknown, its value is not allowed, or the recording cannot be read.
    """
    values = graph.checked(arguments or {}, ARGUMENTS)
    if not values["bag"]:
        raise ArgumentError("bag:='' is not allowed; allowed: the folder of a recording")
    bag = graph.existing("bag", values["bag"])
    description = graph.existing("robot_file", values["robot_file"] or share.robot_file())
    common = {"autostart": True, "robot_file": str(description)}
    nodes = [
        Node(
            "depthvla_evaluation",
            "replay_node",
            "replay_node",
            essential=True,
            finishes=True,
            parameters={
                **common,
                "bag": str(bag),
                "out": str(Path(values["out"]).expanduser().absolute()),
                "rate": graph.number(values, "rate", float, 0.01, 100),
                "wait_for_chunks": values["wait_for_chunks"] == "true",
            },
        ),
        Node(
            "depthvla_policy",
            "policy_node",
            "policy_node",
            essential=True,
            parameters={
                **common,
                "use_sim_time": True,
                "model": str(graph.model_folder(values["model"])),
                "device": values["device"],
                "instruction": values["instruction"] or _instruction(bag),
                "noise_seed": graph.number(values, "noise_seed", int, -1, 2**31 - 1),
                "max_rate_hz": MAX_RATE_HZ,
                # A scene in which nothing moves was recorded, and is not the fault of a camera.
                "camera_frozen_after_s": 0.0,
                "hang_s": 0.0,  # the recording's clock waits for a slow policy
                **({} if values["params_dir"] else _recorded_cameras(bag)),
            },
        ),
    ]
    return [graph.with_parameter_file(node, values["params_dir"]) for node in nodes]


def main(argv: Sequence[str] | None = None) -> int:
    return process_launch.run(__doc__.strip(), ARGUMENTS, replay_graph, argv)


def _instruction(bag: Path) -> str:
    from depthvla_evaluation.bags.bag import Bag

    try:
        with Bag(bag) as recording:
            instruction = recording.custom_data.get("instruction", "")
    except (OSError, ValueError) as error:
        raise ArgumentError(f"bag:={str(bag)!r} is not allowed: {error}") from error
    if not instruction:
        raise ArgumentError(f"instruction:='' is not allowed: bag {bag} has none; allowed: the task in words")
    return instruction


def _recorded_cameras(bag: Path) -> dict[str, bool | str]:
    """Where the recorded policy had its cameras' images, and whether it rectified them."""
    from depthvla_evaluation.bags.bag import Bag
    from depthvla_evaluation.bags.recorded_graph import recorded_parameters

    try:
        with Bag(bag) as recording:
            parameters = recorded_parameters(recording)
    except (OSError, ValueError) as error:
        raise ArgumentError(f"bag:={str(bag)!r} is not allowed: {error}") from error
    return {name: value for name, value in parameters.items() if name.startswith("cameras.")}


if __name__ == "__main__":
    sys.exit(main())
