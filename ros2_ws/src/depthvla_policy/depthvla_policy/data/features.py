"""Names and shapes of the features of a LeRobot dataset, derived from the robot's description.

The names are those of Galaxea's Open-World dataset for the R1 Lite; depth, target and intervention are ours.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from r1lite_description.robot import Robot

IMAGES, DEPTH = "observation.images.", "observation.depth."
TARGET = "observation.target"  # (3,) position of the named object in the frame of torso_link3 [m]
TIMESTAMP = "timestamp"  # of a row since its episode's start [s]
INTERVENTION = "intervention"  # whether a person was in command
# In the info of an image's feature: the calibration, as in a YAML of camera_calibration, that readers rectify it with.
RECTIFIED_BY = "rectified_by"
SOURCE = "source"  # in the info of an image's feature: whether it is of a "simulation" or of a "real" robot
# In the info of a camera's images: (3, 4) matrix from the frame of `TARGET` to its pixels, where that stays the same.
TARGET_PROJECTION = "target_projection"
CHINESE = re.compile(r"[\u3400-\u9fff]")


@dataclass(frozen=True)
class Part:
    """One limb's share of a state or action vector: the feature that holds it, and where it stands in the vector."""

    feature: str
    where: slice
    names: tuple[str, ...]

    @property
    def size(self) -> int:
        return len(self.names)


def image_feature(robot: Robot, camera: str) -> str:
    """For example wrist_left -> observation.images.left_wrist_rgb."""
    return f"{IMAGES}{_limb_first(robot, camera)}_rgb"


def depth_feature(robot: Robot, camera: str) -> str:
    """For example wrist_left -> observation.depth.left_wrist."""
    return f"{DEPTH}{_limb_first(robot, camera)}"


def state_parts(robot: Robot) -> tuple[Part, ...]:
    return _parts(robot, "observation.state")


def action_parts(robot: Robot) -> tuple[Part, ...]:
    return _parts(robot, "action")


def sources(features: Mapping[str, Mapping[str, Any]]) -> set[str]:
    """What the images of a dataset with these features are of; "" for one that does not say."""
    return {(feature.get("info") or {}).get(SOURCE, "") for key, feature in features.items() if key.startswith(IMAGES)}


def english(instruction: str) -> str:
    """The English part of Galaxea's `Chinese@English`; any other text, which may have an @ in it, as it is."""
    for at in re.finditer("@", instruction):
        before, after = instruction[: at.start()], instruction[at.end() :].strip()
        if CHINESE.search(before) and after and not CHINESE.search(after):
            return after
    return instruction.strip().rstrip("@") if CHINESE.search(instruction) else instruction.strip()


def _parts(robot: Robot, prefix: str) -> tuple[Part, ...]:
    parts = []
    for limb in robot.limbs:
        parts.append(Part(f"{prefix}.{limb.name}_arm", limb.arm, limb.joints))
        gripper = slice(limb.gripper_index, limb.gripper_index + 1)
        parts.append(Part(f"{prefix}.{limb.name}_gripper", gripper, (limb.gripper,)))
    return tuple(parts)


def _limb_first(robot: Robot, camera: str) -> str:
    """A camera that belongs to a limb has the limb's name in front in the dataset, behind in the robot's file."""
    robot.camera(camera)
    for limb in robot.limbs:
        if camera.endswith(f"_{limb.name}"):
            return f"{limb.name}_{camera.removesuffix(f'_{limb.name}')}"
    return camera
