"""The calibrations with which the images of a recording are rectified: as for the recorded policy, or as one wants."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from depthvla_evaluation.bags.bag import Bag
from depthvla_evaluation.bags.recorded_graph import recorded_parameters
from depthvla_policy.policy import calibration
from depthvla_policy.policy.calibration import Calibration, Rectifier
from r1lite_description.robot import Robot


def as_recorded(bag: Bag, robot: Robot, cameras: Sequence[str]) -> dict[str, Calibration]:
    """Camera -> calibration, for those that were rectified for the recorded policy. Raises as `calibrations`."""
    parameters = recorded_parameters(bag)
    rectified = [name for name in cameras if parameters.get(f"cameras.{name}.rectify", False)]
    files = {name: parameters.get(f"cameras.{name}.calibration_file", "") for name in rectified}
    return calibrations(bag, robot, rectified, {name: Path(file) for name, file in files.items() if file})


def rectifiers(bag: Bag, robot: Robot) -> dict[str, Rectifier | None]:
    """Image topic -> what makes of its images those that the recorded policy saw, for the cameras that were rectified;
    None where there is no calibration any more, as of a file on another machine.
    """
    found: dict[str, Rectifier | None] = {}
    for camera in robot.cameras:
        try:
            known = as_recorded(bag, robot, [camera.name])
        except (FileNotFoundError, ValueError):
            found[camera.topic] = None
        else:
            if camera.name in known:
                found[camera.topic] = Rectifier(known[camera.name])
    return found


def calibrations(bag: Bag, robot: Robot, cameras: Sequence[str], files: Mapping[str, Path]) -> dict[str, Calibration]:
    """Camera -> calibration, from its file in `files` or else from its CameraInfo in the bag.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a camera has no calibration, several, or one with a wrong value; the message names it.
    """
    topics = {name: robot.camera(name).camera_info for name in cameras if name not in files}
    streams = bag.read(topics.values())
    found = {name: calibration.load(files[name]) for name in cameras if name in files}
    for name, topic in topics.items():
        infos = [calibration.from_camera_info(message) for _, message in streams[topic]]
        known = [info for info in infos if info is not None]
        if not known:
            raise ValueError(f"bag {bag.path}: camera {name} is to be rectified and {topic} has no calibration")
        if not all(info.same_as(known[0]) for info in known):
            raise ValueError(f"bag {bag.path}: {topic} has several calibrations; camera {name} needs one")
        found[name] = known[0]
    return {name: found[name] for name in cameras}
