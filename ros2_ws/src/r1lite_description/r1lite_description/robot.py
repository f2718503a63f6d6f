"""The robot's description: limbs, limits, topics, cameras and rates, read from one YAML file.

Everything that needs a fact of the robot takes it from a `Robot`. Another robot is another file.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from r1lite_description import files
from r1lite_description.share import robot_file

RELIABILITIES = ("best_effort", "reliable")


@dataclass(frozen=True)
class LimbTopics:
    arm_feedback: str
    gripper_feedback: str
    arm_command: str
    gripper_command: str
    teleop: str


@dataclass(frozen=True)
class Limb:
    """One arm with its gripper. `slice` is where the limb stands in a state or action vector; the gripper comes
    last.
    """

    name: str
    joints: tuple[str, ...]
    gripper: str
    topics: LimbTopics
    offset: int

    @property
    def names(self) -> tuple[str, ...]:
        return (*self.joints, self.gripper)

    @property
    def slice(self) -> slice:
        return slice(self.offset, self.offset + len(self.joints) + 1)

    @property
    def arm(self) -> slice:
        return slice(self.offset, self.offset + len(self.joints))

    @property
    def gripper_index(self) -> int:
        return self.offset + len(self.joints)

    @property
    def opening(self) -> slice:
        """Of the gripper alone."""
        return slice(self.gripper_index, self.gripper_index + 1)


@dataclass(frozen=True)
class Camera:
    name: str
    topic: str
    camera_info: str
    frame_id: str


@dataclass(frozen=True)
class Rates:
    camera: float
    arm_feedback: float
    joint_states: float


@dataclass(frozen=True)
class Qos:
    sensor: str
    command: str


@dataclass(frozen=True)
class Robot:
    """A dual-arm robot. Vectors have `size` entries in limb order: arm joints [rad], then gripper opening [mm]."""

    name: str
    control_rate_hz: float
    limbs: tuple[Limb, ...]
    cameras: tuple[Camera, ...]
    rates_hz: Rates
    qos: Qos
    position_min: np.ndarray  # (size,) rad and mm
    position_max: np.ndarray  # (size,) rad and mm
    command_velocity: np.ndarray  # (size,) rad/s and mm/s
    command_acceleration: np.ndarray  # (size,) rad/s^2 and mm/s^2
    command_jerk: np.ndarray  # (size,) rad/s^3 and mm/s^3
    tracker_velocity: np.ndarray  # (arm joints,) rad/s, the most that an arm command carries as its speed cap
    gripper_feedback_max_mm: float

    @property
    def size(self) -> int:
        return sum(len(limb.names) for limb in self.limbs)

    @property
    def period_s(self) -> float:
        return 1.0 / self.control_rate_hz

    @property
    def joint_names(self) -> tuple[str, ...]:
        return tuple(name for limb in self.limbs for name in limb.names)

    @property
    def gripper_mask(self) -> np.ndarray:
        """(size,) bool, True where an entry is a gripper opening in mm."""
        mask = np.zeros(self.size, dtype=bool)
        mask[[limb.gripper_index for limb in self.limbs]] = True
        return mask

    def limb(self, name: str) -> Limb:
        for limb in self.limbs:
            if limb.name == name:
                return limb
        raise KeyError(f"no limb {name!r} in robot {self.name!r}; it has {[limb.name for limb in self.limbs]}")

    def camera(self, name: str) -> Camera:
        for camera in self.cameras:
            if camera.name == name:
                return camera
        raise KeyError(f"no camera {name!r} in robot {self.name!r}; it has {[c.name for c in self.cameras]}")


def load(path: str | Path | None = None) -> Robot:
    """Read a robot description.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a key is missing or unknown, or a value is not allowed; the message names file, key and value.
    """
    path = Path(path) if path else robot_file()
    raw = files.read_yaml(path, "a robot description")
    try:
        return _build(raw)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path}: {error}") from error


def _build(raw: object) -> Robot:
    _check_keys(
        raw,
        "robot",
        ("name", "control_rate_hz", "limbs", "arm", "gripper", "cameras", "rates_hz", "qos"),
    )
    arm, gripper = raw["arm"], raw["gripper"]
    motion = ("position_min", "position_max", "command_velocity", "command_acceleration", "command_jerk")
    arm_keys = tuple(f"{name}_{unit}" for name, unit in zip(motion, _units("rad"), strict=True))
    gripper_keys = tuple(f"{name}_{unit}" for name, unit in zip(motion, _units("mm"), strict=True))
    _check_keys(arm, "arm", (*arm_keys, "tracker_velocity_rad_s"))
    _check_keys(gripper, "gripper", (*gripper_keys, "feedback_max_mm"))
    limbs, offset = [], 0
    for name, item in raw["limbs"].items():
        _check_keys(item, f"limbs.{name}", ("joints", "gripper", "topics"))
        topics = _fill(LimbTopics, item["topics"], f"limbs.{name}.topics")
        limbs.append(Limb(name, tuple(item["joints"]), item["gripper"], topics, offset))
        offset += len(limbs[-1].names)
    for key, values in arm.items():
        for limb in limbs:
            if len(values) != len(limb.joints):
                raise ValueError(
                    f"arm.{key} has {len(values)} values; limb {limb.name!r} has {len(limb.joints)} joints"
                )
    cameras = []
    for name, item in raw["cameras"].items():
        cameras.append(_fill(Camera, {"name": name, **item}, f"cameras.{name}"))
    if not limbs or not cameras:
        raise ValueError("a robot needs at least one limb and one camera")

    vectors = {
        name: _frozen(np.concatenate([[*arm[arm_key], gripper[gripper_key]] for _ in limbs]))
        for name, arm_key, gripper_key in zip(motion, arm_keys, gripper_keys, strict=True)
    }
    qos = _fill(Qos, raw["qos"], "qos")
    for field in dataclasses.fields(Qos):
        if getattr(qos, field.name) not in RELIABILITIES:
            raise ValueError(f"qos.{field.name} is {getattr(qos, field.name)!r}; allowed: {', '.join(RELIABILITIES)}")
    robot = Robot(
        name=raw["name"],
        control_rate_hz=_positive(raw["control_rate_hz"], "control_rate_hz"),
        limbs=tuple(limbs),
        cameras=tuple(cameras),
        rates_hz=_fill(Rates, raw["rates_hz"], "rates_hz"),
        qos=qos,
        **vectors,
        tracker_velocity=_frozen(np.asarray(arm["tracker_velocity_rad_s"], dtype=float)),
        gripper_feedback_max_mm=_positive(gripper["feedback_max_mm"], "gripper.feedback_max_mm"),
    )
    if not np.all(robot.position_min < robot.position_max):
        raise ValueError("a position minimum is not below its maximum")
    for name in motion[2:]:
        if not np.all(vectors[name] > 0):
            raise ValueError(f"{name} is {vectors[name].tolist()}; every value must be above 0")
    if len(set(robot.joint_names)) != robot.size:
        raise ValueError(f"joint names are not unique: {robot.joint_names}")
    return robot


def _units(unit: str) -> tuple[str, ...]:
    return (unit, unit, f"{unit}_s", f"{unit}_s2", f"{unit}_s3")


def _check_keys(item: object, where: str, allowed: tuple[str, ...]) -> None:
    if not isinstance(item, dict):
        raise ValueError(f"{where} must be a mapping, got {item!r}")
    unknown = sorted(set(item) - set(allowed))
    missing = sorted(set(allowed) - set(item))
    if unknown or missing:
        raise ValueError(f"{where}: unknown keys {unknown}, missing keys {missing}; allowed: {', '.join(allowed)}")


def _fill(cls: type, item: object, where: str):
    _check_keys(item, where, tuple(field.name for field in dataclasses.fields(cls)))
    return cls(**item)


def _positive(value: float, where: str) -> float:
    if not isinstance(value, int | float) or not np.isfinite(value) or value <= 0:
        raise ValueError(f"{where} is {value!r}; it must be a number above 0")
    return float(value)


def _frozen(values: np.ndarray) -> np.ndarray:
    values = np.asarray(values, dtype=np.float64)
    if not np.all(np.isfinite(values)):
        raise ValueError(f"values must be finite, got {values}")
    values.setflags(write=False)
    return values
