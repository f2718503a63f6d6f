"""The robot's shapes and frames for a recording: as its recorder kept them, the robot published them, or installed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from depthvla_evaluation.bags.bag import Bag
from depthvla_evaluation.viewer.paths import kinematics_of
from depthvla_evaluation.viewer.shapes import shapes
from r1lite_description.kinematics import Kinematics, read_urdf
from r1lite_description.robot import Robot
from r1lite_description.share import share

TOPIC = "/robot_description"


@dataclass(frozen=True)
class Description:
    """urdf: gives the shapes. remarks: where it is from, if not from the recorder."""

    urdf: str
    kinematics: Kinematics
    remarks: tuple[str, ...] = ()


def description(bag: Bag, robot: Robot) -> Description:
    """For a recorder's own bag what it wrote into it; else what the robot published, with the frames and, where that
    has meshes alone, the shapes of the installed description.

    Raises:
        ValueError: the recorder's cannot be read, or none is there that has the robot's joints.
    """
    if kept := bag.custom_data.get("urdf"):
        return Description(kept, Kinematics(kept))
    installed, why = _installed(robot)
    published = [message.data for _, _, message in bag.messages([TOPIC])] if TOPIC in bag.topics else []
    remarks = []
    for urdf in published[-1:]:
        try:
            kinematics, _ = kinematics_of(robot, urdf, Kinematics(installed) if installed else None)
            shapes_urdf = urdf if shapes(urdf) or not installed else installed
            return Description(shapes_urdf, kinematics, (f"the robot is as {TOPIC} in the bag describes it",))
        except ValueError as error:
            remarks.append(f"{TOPIC} in the bag cannot be used: {error}")
    if not installed:
        raise ValueError(f"bag {bag.path} holds no robot description, and {why}")
    remarks.append(f"bag {bag.path} holds no robot description; the installed one of {robot.name} is taken")
    return Description(installed, kinematics_of(robot, installed)[0], tuple(remarks))


def _installed(robot: Robot) -> tuple[str, str]:
    """The installed URDF of a robot, or nothing and why."""
    path = share() / "urdf" / f"{Path(robot.name).name}.urdf.xacro"
    try:
        return read_urdf(path), ""
    except (FileNotFoundError, ImportError) as error:
        return "", str(error)
