"""The graph that a bag was recorded from: nodes, topics, the robot as it was described, parameters of the policy."""

from __future__ import annotations

import dataclasses
import tempfile
from pathlib import Path
from typing import Any

from depthvla_evaluation.bags.bag import Bag
from depthvla_evaluation.bags.notes import read_notes
from r1lite_description import robot as robot_description
from r1lite_description.robot import Camera, Robot

POLICY = "/policy_node"
EXECUTOR = "/chunk_executor_node"
SIMULATOR = "/simulator_node"


def recorded_robot(bag: Bag, robot: Robot | None = None) -> Robot:
    """The description that the recorder put into the bag, the default one where it put none, or `robot`; with the
    cameras' topics that the policy was given as parameters.

    Raises:
        ValueError: it lacks something, or has something wrong.
    """
    robot, parameters = robot or _described_robot(bag), recorded_parameters(bag)
    cameras = tuple(
        dataclasses.replace(
            camera,
            topic=parameters.get(f"cameras.{camera.name}.topic", camera.topic),
            camera_info=parameters.get(f"cameras.{camera.name}.camera_info", camera.camera_info),
        )
        for camera in robot.cameras
    )
    return dataclasses.replace(robot, cameras=cameras)


def recorded_parameters(bag: Bag) -> dict[str, Any]:
    """Of the policy's node; empty where they were not recorded. Raises ValueError where they cannot be read."""
    return read_notes(bag.custom_data).parameters.get(POLICY, {})


def is_simulated(bag: Bag) -> bool:
    """Whether the robot was a simulated one, whose progress is recorded."""
    return any(topic.startswith(f"{SIMULATOR}/") for topic in bag.topics)


def predicted_topic(camera: str) -> str:
    return f"{POLICY}/depth/{camera}/image"


def true_topic(camera: str) -> str:
    return f"{SIMULATOR}/depth/{camera}/image"


def picture_topics(camera: Camera) -> tuple[str, str, str]:
    """Topics of its images, its predicted and its true depth."""
    return camera.topic, predicted_topic(camera.name), true_topic(camera.name)


def info_topic(image_topic: str) -> str:
    return image_topic.rsplit("/", 1)[0] + "/camera_info"


def _described_robot(bag: Bag) -> Robot:
    text = bag.custom_data.get("robot")
    if text is None:
        return robot_description.load()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "robot.yaml"
        path.write_text(text)
        try:
            return robot_description.load(path)
        except ValueError as error:  # without the name of the temporary file
            raise ValueError(f"robot: {error.__cause__ or error}") from error
