"""The graph that a bag was recorded from: nodes, topics, the robot as it was described, the policy's parameters and how
its images were rectified.
"""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from depthvla_evaluation.bags.bag import Bag
from depthvla_evaluation.bags.notes import read_notes
from depthvla_policy.policy import calibration
from depthvla_policy.policy.calibration import Calibration, Rectifier
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


def recorded_calibrations(bag: Bag, robot: Robot, cameras: Sequence[str]) -> dict[str, Calibration]:
    """Camera -> calibration, for those that were rectified for the recorded policy. Raises as `calibrations`."""
    parameters = recorded_parameters(bag)
    rectified = [name for name in cameras if parameters.get(f"cameras.{name}.rectify", False)]
    files = {name: parameters.get(f"cameras.{name}.calibration_file", "") for name in rectified}
    return calibrations(bag, robot, rectified, {name: Path(file) for name, file in files.items() if file})


def recorded_rectifiers(bag: Bag, robot: Robot) -> dict[str, Rectifier | None]:
    """Image topic -> what makes of its images those that the recorded policy saw, for the cameras that were rectified;
    None where there is no calibration any more, as of a file on another machine.
    """
    made: dict[str, Rectifier | None] = {}
    for camera in robot.cameras:
        try:
            for known in recorded_calibrations(bag, robot, [camera.name]).values():
                made[camera.topic] = Rectifier(known)
        except (FileNotFoundError, ValueError):
            made[camera.topic] = None
    return made


def calibrations(bag: Bag, robot: Robot, cameras: Sequence[str], files: Mapping[str, Path]) -> dict[str, Calibration]:
    """Camera -> calibration, from its file in `files` or else from its CameraInfo in the bag.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a camera has no calibration, several, or one with a wrong value; the message names it.
    """
    topics = {name: robot.camera(name).camera_info for name in cameras if name not in files}
    streams = bag.read(topics.values())
    chosen: dict[str, Calibration] = {}
    for name in cameras:
        if name in files:
            chosen[name] = calibration.load(files[name])
            continue
        infos = [calibration.from_camera_info(message) for _, message in streams[topics[name]]]
        known = [info for info in infos if info is not None]
        if not known:
            raise ValueError(f"bag {bag.path}: camera {name} is to be rectified and {topics[name]} has no calibration")
        if not all(info.same_as(known[0]) for info in known):
            raise ValueError(f"bag {bag.path}: {topics[name]} has several calibrations; camera {name} needs one")
        chosen[name] = known[0]
    return chosen


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
