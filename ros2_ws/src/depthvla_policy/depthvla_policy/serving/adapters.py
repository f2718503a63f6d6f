"""What clients call things: named adapters from an observation as sent to ours, and from our chunk to the answer.

An adapter belongs to a robot description, and with it to checkpoints of exactly that state and action vector.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from depthvla_policy.data.features import Part, action_parts, english, image_feature, state_parts
from depthvla_policy.policy.observation import Observation
from depthvla_policy.serving import fields
from r1lite_description import robot as robot_description
from r1lite_description.robot import Robot

if TYPE_CHECKING:
    from depthvla_policy.policy.checkpoint import CheckpointConfig

ROBOTS = Path(__file__).with_name("robots")
ACTIONS = "actions"  # openpi's name for the chunk


@dataclass(frozen=True)
class Adapter:
    """One client's fields.

    images: field -> camera. state: fields and where they stand in the state vector. prompt: field of the instruction.
    actions: fields of the answer and where they stand in an action vector; `ACTIONS` is the first. Units go with the
    names of the state vector and of `ACTIONS`.
    """

    name: str
    robot: Robot
    images: dict[str, str]
    state: tuple[Part, ...]
    state_units: tuple[str, ...]
    prompt: str
    actions: tuple[Part, ...]
    action_units: tuple[str, ...]

    def check(self, config: CheckpointConfig) -> None:
        """Raises ValueError where the checkpoint does not fit; it says what is needed, by name and size."""
        policy, robot = config.policy, self.robot
        needs = f"adapter {self.name!r} needs a checkpoint with"
        if policy.joints != robot.joint_names:
            raise ValueError(
                f"{needs} the {robot.size} state and action entries {', '.join(robot.joint_names)};"
                f" {config.name!r} has {len(policy.joints)}: {', '.join(policy.joints)}"
            )
        cameras = tuple(self.images.values())
        if not set(policy.cameras) <= set(cameras):
            raise ValueError(
                f"{needs} no other cameras than {', '.join(cameras)};"
                f" {config.name!r} has {len(policy.cameras)}: {', '.join(policy.cameras)}"
            )
        if config.model.takes_depth:
            raise ValueError(f"{config.name!r} takes true depth, which adapter {self.name!r} has no field for")

    def observation(self, message: object, cameras: tuple[str, ...]) -> Observation:
        """What a client sent, for a checkpoint with these cameras. Fields that nobody asks for are left alone.

        Raises:
            ValueError: a field is missing or not what it must be; the message names it.
        """
        images = {
            camera: fields.picture(fields.find(message, field), field)
            for field, camera in self.images.items()
            if camera in cameras
        }
        state = np.empty(self.robot.size)
        for part in self.state:
            state[part.where] = fields.vector(fields.find(message, part.feature), part.feature, part.names)
        # Galaxea's instructions come in two languages, whoever sends them.
        instruction = english(fields.text(fields.find(message, self.prompt), self.prompt))
        return Observation(stamp_ns=0, images=images, state=state, instruction=instruction)

    def answer(self, chunk: np.ndarray) -> dict[str, np.ndarray]:
        """(horizon, size) chunk -> the fields of the answer, each (horizon, its size)."""
        return {part.feature: chunk[:, part.where] for part in self.actions}

    def describe(self, cameras: tuple[str, ...]) -> dict[str, object]:
        """For the metadata: every field of an observation and what it must be; names and units."""
        observation = {field: fields.PICTURE for field, camera in self.images.items() if camera in cameras}
        observation |= {part.feature: f"({part.size},) numbers: {', '.join(part.names)}" for part in self.state}
        return {
            "adapter": self.name,
            "observation": observation | {self.prompt: "text"},
            "state_names": [name for part in self.state for name in part.names],
            "state_units": list(self.state_units),
            "action_names": list(self.actions[0].names),
            "action_units": list(self.action_units),
        }


def load(name: str) -> Adapter:
    """The adapter of that name. Raises ValueError where there is none."""
    if name not in ADAPTERS:
        raise ValueError(f"adapter is {name!r}; allowed: {', '.join(ADAPTERS)}")
    return ADAPTERS[name]()


def _r1lite() -> Adapter:
    """Our own names: images by camera, one state vector in the order of the robot's description."""
    robot = robot_description.load()
    return Adapter(
        name="r1lite",
        robot=robot,
        images={f"images/{camera.name}": camera.name for camera in robot.cameras},
        state=(_whole("state", robot),),
        state_units=_units(robot),
        prompt="prompt",
        actions=(_whole(ACTIONS, robot),),
        action_units=_units(robot),
    )


def _galaxea() -> Adapter:
    """Features of Galaxea's Open-World dataset in LeRobot format."""
    ours = _r1lite()
    robot = ours.robot
    return dataclasses.replace(
        ours,
        name="galaxea",
        images={image_feature(robot, camera.name): camera.name for camera in robot.cameras},
        state=state_parts(robot),
        prompt="task",
        actions=(_whole(ACTIONS, robot), *action_parts(robot)),
    )


def _libero() -> Adapter:
    """What openpi's LIBERO client sends and wants (examples/libero/main.py): 8 state entries, 7 of an action."""
    robot = robot_description.load(ROBOTS / "libero.yaml")
    names = ("x", "y", "z", "axis_angle_x", "axis_angle_y", "axis_angle_z", "gripper")
    return Adapter(
        name="libero",
        robot=robot,
        images={"observation/image": "image", "observation/wrist_image": "wrist_image"},
        state=(_whole("observation/state", robot),),
        state_units=("m",) * 3 + ("rad",) * 3 + ("m",) * 2,
        prompt="prompt",
        actions=(Part(ACTIONS, slice(0, len(names)), names),),
        action_units=("-1..1 of the controller's range",) * 6 + ("-1 open, 1 closed",),
    )


def _simpler() -> Adapter:
    """SimplerEnv's WidowX tasks: pose in BridgeData's top-down frame in, pose deltas out."""
    robot = robot_description.load(ROBOTS / "simpler.yaml")
    pose = ("m",) * 3 + ("rad",) * 3
    return Adapter(
        name="simpler",
        robot=robot,
        images={"image": "image"},
        state=(_whole("state", robot),),
        state_units=(*pose, "0 closed, 1 open"),
        prompt="instruction",
        actions=(_whole(ACTIONS, robot),),
        action_units=(*pose, "0 closed, 1 open"),
    )


ADAPTERS: dict[str, Callable[[], Adapter]] = {
    "r1lite": _r1lite,
    "galaxea": _galaxea,
    "libero": _libero,
    "simpler": _simpler,
}


def _whole(feature: str, robot: Robot) -> Part:
    return Part(feature, slice(0, robot.size), robot.joint_names)


def _units(robot: Robot) -> tuple[str, ...]:
    return tuple("mm" if gripper else "rad" for gripper in robot.gripper_mask)
