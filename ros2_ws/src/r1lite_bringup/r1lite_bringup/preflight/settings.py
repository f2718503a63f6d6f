"""What the nodes will ask of the robot: its description, and the parameter files that they are started with; and the
files with which they fit this unit.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from depthvla_control.nodes.executor import executor_parameters
from depthvla_evaluation.nodes import episode_recorder_node
from depthvla_policy.nodes import policy_node
from depthvla_policy.policy.observation_buffer import ObservationLimits
from r1lite_bringup import graph
from r1lite_bringup.preflight.findings import Finding, overrides
from r1lite_description.robot import Camera, Robot

POLICY, EXECUTOR, RECORDER = "policy_node", "chunk_executor_node", "episode_recorder_node"
COMPRESSED, RAW = "compressed", "raw"
MESSAGE_TYPES = {COMPRESSED: "sensor_msgs/msg/CompressedImage", RAW: "sensor_msgs/msg/Image"}
JOINT_STATE = "sensor_msgs/msg/JointState"
CAMERA_INFO = "sensor_msgs/msg/CameraInfo"


@dataclass(frozen=True)
class CameraSettings:
    name: str
    topic: str
    transport: str
    camera_info: str
    calibration_file: str = ""
    rectify: bool = False

    @property
    def message_type(self) -> str:
        return MESSAGE_TYPES[self.transport]


@dataclass(frozen=True)
class Settings:
    """`sensors`: node -> the reliability with which it subscribes. `leaders`: limb -> topic of its leader arm."""

    cameras: tuple[CameraSettings, ...]
    sensors: dict[str, str]
    command_reliability: str
    leaders: dict[str, str]
    allowed_publishers: tuple[str, ...]
    limits: ObservationLimits
    max_rate_hz: float
    torch_threads: int
    min_free_mb: int


def read(robot: Robot, params_dir: Path | None = None) -> Settings:
    """Settings of the installed parameter files, or those of the same name in `params_dir`.

    Raises:
        ValueError: a file is no parameter file, or a value is not allowed.
    """
    policy, executor, recorder = (
        {item.name: item.default for item in table} | parameters(file_of(node, params_dir))
        for node, table in (
            (POLICY, policy_node.PARAMETERS),
            (EXECUTOR, executor_parameters.PARAMETERS),
            (RECORDER, episode_recorder_node.PARAMETERS),
        )
    )
    sensor = robot.qos.sensor
    return Settings(
        cameras=tuple(_camera(camera, policy) for camera in robot.cameras),
        sensors={
            POLICY: policy.get("sensor_reliability", sensor),
            EXECUTOR: executor.get("sensor_reliability", sensor),
        },
        command_reliability=executor.get("command_reliability", robot.qos.command),
        leaders={limb.name: executor.get(f"leader.{limb.name}.arm_topic", limb.topics.teleop) for limb in robot.limbs},
        allowed_publishers=tuple(name for name in executor["allowed_publishers"] if name),
        limits=ObservationLimits(**{item.name: policy[item.name] for item in dataclasses.fields(ObservationLimits)}),
        max_rate_hz=policy["max_rate_hz"],
        torch_threads=policy["torch_threads"],
        min_free_mb=recorder["min_free_mb"],
    )


def write_parameters(
    folder: Path, findings: Sequence[Finding], cameras: Sequence[CameraSettings], params_dir: Path | None
) -> list[Path]:
    """Writes a `<node>.param.yaml` for every node that needs other parameters: the file that it has now, with those.

    cameras: all of them, as they are on this unit; the recorder gets their topics where they are not the usual ones.
    """
    wanted = overrides(findings)
    recorder = parameters(file_of(RECORDER, params_dir))
    if any(name.startswith("cameras.") for name in wanted.get(POLICY, {})):
        wanted[RECORDER] = {"topics": _with_topics(recorder["topics"], cameras)}
    written = []
    folder.mkdir(parents=True, exist_ok=True)
    for node, changes in wanted.items():
        path = folder / f"{node}.param.yaml"
        content = {node: {"ros__parameters": {**parameters(file_of(node, params_dir)), **changes}}}
        head = f"# {path.name} as it was, with this unit's {', '.join(changes)}.\n"
        path.write_text(head + yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=120))
        written.append(path)
    return written


def file_of(node: str, params_dir: Path | None) -> Path:
    return graph.with_parameter_file(graph.Node(graph.NODES[node], node, node), str(params_dir or "")).parameter_file


def parameters(file: Path) -> dict:
    """All parameters of a file by their full names, "cameras.head.topic". Raises ValueError where it is none."""
    try:
        sections = yaml.safe_load(file.read_text())
        return {
            name: value for section in sections.values() for name, value in _flat(section["ros__parameters"]).items()
        }
    except (AttributeError, KeyError, TypeError, yaml.YAMLError) as error:
        raise ValueError(f"{file} is no ROS parameter file: {error!r}") from error


def _flat(tree: dict, prefix: str = "") -> dict:
    flat = {}
    for name, value in tree.items():
        flat.update(_flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": value})
    return flat


def _camera(camera: Camera, policy: dict) -> CameraSettings:
    where = f"cameras.{camera.name}"
    usual = COMPRESSED if camera.topic.endswith("/compressed") else RAW
    transport = policy.get(f"{where}.transport", usual)
    if transport not in MESSAGE_TYPES:
        raise ValueError(f"{where}.transport is {transport!r}; allowed: {', '.join(MESSAGE_TYPES)}")
    return CameraSettings(
        camera.name,
        policy.get(f"{where}.topic", camera.topic),
        transport,
        policy.get(f"{where}.camera_info", camera.camera_info),
        policy.get(f"{where}.calibration_file", ""),
        policy.get(f"{where}.rectify", False),
    )


def _with_topics(entries: Sequence[str], cameras: Sequence[CameraSettings]) -> list[str]:
    """The recorder's entries with the topics of these cameras instead of the description's."""
    topics = []
    for entry in entries:
        for placeholder, field in (("{camera.topic}", "topic"), ("{camera.camera_info}", "camera_info")):
            if placeholder in entry:
                topics += [entry.replace(placeholder, getattr(camera, field)) for camera in cameras]
                break
        else:
            topics.append(entry)
    return topics
