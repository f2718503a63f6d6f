"""Checks everything between "the robot is on" and the first armed episode: measures, and hands it to the judges.

Only looks and listens: nothing is published.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import tyro
from rich.console import Console

from depthvla_control.ros.isolation import apply
from depthvla_policy.nodes.policy.inference_loop import chunk_rate_hz
from r1lite_bringup import graph
from r1lite_bringup.preflight import (
    checks_camera,
    checks_graph,
    checks_host,
    checks_policy,
    checks_streams,
    findings,
    settings,
)
from r1lite_bringup.preflight.findings import Check, Finding, Verdict
from r1lite_bringup.preflight.measure import Listener, Sample
from r1lite_bringup.preflight.settings import CAMERA_INFO, JOINT_STATE, POLICY, CameraSettings, Settings
from r1lite_description import robot as robot_description
from r1lite_description.robot import Limb, Robot


@dataclass(frozen=True)
class PreflightConfig:
    """Is this robot, and this machine, ready for the first armed episode? Nothing is published."""

    robot: Literal["sim", "real"] = "real"
    """a simulation skips what only makes sense on the robot"""
    seconds: float = 2.0
    """for which each topic is listened to, one after the other"""
    discovery_s: float = 5.0
    """for which topics that are not there are waited for"""
    model: str = ""
    """checkpoint to load: a folder, or the name of one in models/; empty: none"""
    device: str = "cpu"
    """where the network runs: cpu, cuda or cuda:N"""
    latency: bool = False
    """also time 20 inferences of it"""
    fix_hints: bool = False
    """say what to do about each finding"""
    json: Path | None = None
    """file for the findings"""
    write_params: Path | None = None
    """folder for <node>.param.yaml files that make the nodes fit this unit; start with params_dir:= of it"""
    params_dir: Path | None = None
    """the launch argument params_dir that will be used"""
    robot_file: str = ""
    """the launch argument robot_file that will be used"""
    bags: Path = Path("out/bags")
    """where recordings will go"""

    def __post_init__(self) -> None:
        for name in ("seconds", "discovery_s"):
            if not 0.0 < getattr(self, name) <= 60.0:
                raise ValueError(f"{name} is {getattr(self, name)}; allowed: above 0, up to 60")
        if self.params_dir and not self.params_dir.is_dir():
            raise ValueError(f"params_dir {self.params_dir} is no folder")


def main(argv: Sequence[str] | None = None) -> int:
    """0: nothing failed; 1: something did; 2: the checks could not be made."""
    try:
        return run(tyro.cli(PreflightConfig, args=argv))
    except (OSError, RuntimeError, ValueError, ImportError) as error:
        print(f"preflight could not run: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130


def run(config: PreflightConfig) -> int:
    apply(graph.environment({"robot": config.robot}))
    robot = robot_description.load(config.robot_file or None)
    nodes = settings.read(robot, config.params_dir)
    if config.model:
        config = replace(config, model=str(graph.model_folder(config.model)))
    with Console(stderr=True).status("") as status:
        result = look(config, robot, nodes, status.update)
    findings.show(result.findings, Console(), hints=config.fix_hints)
    if config.json:
        config.json.parent.mkdir(parents=True, exist_ok=True)
        content = findings.as_json(config.robot, result.findings)
        config.json.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n")
    if config.write_params:
        files = settings.write_parameters(config.write_params, result.findings, result.cameras, config.params_dir)
        print(f"written: {', '.join(map(str, files)) or 'nothing, the parameters fit'}")
    return findings.exit_code(result.findings)


@dataclass(frozen=True)
class Result:
    """`cameras`: where they are on this unit."""

    findings: list[Finding]
    cameras: list[CameraSettings]


def look(config: PreflightConfig, robot: Robot, nodes: Settings, progress: Callable[[str], None]) -> Result:
    """All checks. progress: told what is being done."""
    with Listener() as listener:
        return _Preflight(config, robot, nodes, listener, progress).run()


class _Preflight:
    def __init__(
        self,
        config: PreflightConfig,
        robot: Robot,
        nodes: Settings,
        listener: Listener,
        progress: Callable[[str], None],
    ) -> None:
        self._config, self._robot, self._settings, self._limits = config, robot, nodes, nodes.limits
        self._listener, self._progress, self._simulated = listener, progress, config.robot == "sim"

    def run(self) -> Result:
        machine = checks_host.look(self._config.bags, self._listener.middleware)
        found = checks_host.check(machine, self._simulated, self._settings.min_free_mb)
        topics = self._topics()
        self._progress("looking for the robot's topics")
        self._graph = self._listener.graph(topics, self._config.discovery_s)
        published = sum(bool(self._graph.publishers.get(topic)) for topic in topics)
        found.append(checks_host.domain(machine, len(topics), published))
        if not self._simulated:
            found.append(checks_graph.simulation(self._graph))
        cameras = []
        for camera in self._settings.cameras:
            camera, judged = self._camera(camera)
            cameras.append(camera)
            found += judged
        for limb in self._robot.limbs:
            found += self._feedback(limb)
        found += self._teleoperation()
        for limb in self._robot.limbs:
            found += self._commands(limb)
        return Result(found + self._policy(), cameras)

    def _topics(self) -> list[str]:
        feedback = [t for limb in self._robot.limbs for t in (limb.topics.arm_feedback, limb.topics.gripper_feedback)]
        return [*(camera.topic for camera in self._settings.cameras), *feedback]

    def _listen(self, topic: str, message_type: str, most: int | None = None) -> Sample:
        """Nothing where nobody publishes that."""
        if not self._graph.publishes(topic, message_type):
            return Sample(topic)
        self._progress(f"listening to {topic}")
        return self._listener.listen(topic, message_type, self._config.seconds, most)

    def _camera(self, camera: CameraSettings) -> tuple[CameraSettings, list[Finding]]:
        subject = f"camera {camera.name}"
        there, topic = checks_camera.find_camera(subject, camera, self._graph)
        info = self._listen(camera.camera_info, CAMERA_INFO, most=1)
        if there is None:
            rest = _no_topic(subject, "QoS", "rate", "stamps", "image")
            return camera, [topic, *rest, checks_camera.calibration(subject, camera, self._graph, info, None)]
        publishers = self._graph.publishers[there.topic]
        sample = self._listen(there.topic, there.message_type)
        limits, usual_hz = self._limits, self._robot.rates_hz.camera
        return there, [
            topic,
            checks_graph.sensor_qos(subject, publishers, {POLICY: self._settings.sensors[POLICY]}),
            checks_streams.camera_rate(subject, sample, usual_hz, limits.camera_max_age_s),
            checks_streams.stamps(subject, sample, limits.camera_max_age_s, limits.max_future_s),
            checks_camera.picture(subject, sample, checks_camera.is_unrectified(there, info)),
            checks_camera.calibration(subject, there, self._graph, info, next(iter(sample.values), None)),
        ]

    def _feedback(self, limb: Limb) -> list[Finding]:
        arm = self._joint_stream(f"arm {limb.name}", limb.topics.arm_feedback, limb, "joints", checks_streams.joints)
        gripper = f"gripper {limb.name}", limb.topics.gripper_feedback
        return arm + self._joint_stream(*gripper, limb, "opening", checks_streams.opening)

    def _joint_stream(
        self, subject: str, name: str, limb: Limb, last: str, judge: Callable[[str, Sample, Robot, Limb], Finding]
    ) -> list[Finding]:
        """Judge: of the values, the check called `last`."""
        topic = checks_graph.topic(subject, name, JOINT_STATE, self._graph)
        if topic.verdict is Verdict.FAIL:
            return [topic, *_no_topic(subject, "QoS", "rate", "stamps", last)]
        sample = self._listen(name, JOINT_STATE)
        limits, usual_hz = self._limits, self._robot.rates_hz.arm_feedback
        return [
            topic,
            checks_graph.sensor_qos(subject, self._graph.publishers[name], self._settings.sensors),
            checks_streams.joint_rate(subject, sample, usual_hz, limits.joint_max_age_s, limits.joint_max_skew_s),
            checks_streams.stamps(subject, sample, limits.joint_max_age_s, limits.max_future_s),
            judge(subject, sample, self._robot, limb),
        ]

    def _teleoperation(self) -> list[Finding]:
        if self._simulated:
            found = [Check("teleoperation: nodes").skip("a simulation has none of the vendor's")]
        else:
            found = [checks_graph.teleoperation(self._graph)]
        for limb in self._robot.limbs:
            topic = self._settings.leaders[limb.name]
            sample = self._listen(topic, JOINT_STATE) if topic else Sample(topic)
            found.append(checks_graph.leader(f"leader {limb.name}", sample, len(limb.joints)))
        return found

    def _commands(self, limb: Limb) -> list[Finding]:
        found = []
        for part, topic in (("arm", limb.topics.arm_command), ("gripper", limb.topics.gripper_command)):
            subject = f"command {part} {limb.name}"
            writers = self._graph.publishers.get(topic, ())
            rivals = [writer for writer in writers if not checks_graph.is_ours(writer)]
            # Beside our own executor, what is heard may be its.
            heard = self._listen(topic, JOINT_STATE) if len(rivals) == len(writers) else None
            found += [
                checks_graph.sole_writer(subject, topic, rivals, self._settings.allowed_publishers, heard),
                checks_graph.command_reader(subject, topic, self._graph, self._settings.command_reliability),
            ]
        return found

    def _policy(self) -> list[Finding]:
        if not self._config.model:
            return checks_policy.nothing_asked()
        self._progress("loading the policy")
        model = self._config.model
        words = ["--model", model, "--device", self._config.device, "--robot-file", self._config.robot_file]
        words += ["--threads", str(self._settings.torch_threads)]
        words += ["--runs", str(checks_policy.RUNS if self._config.latency else 0)]
        max_rate_hz = chunk_rate_hz(self._settings.max_rate_hz, self._config.device)
        loaded = checks_policy.check(checks_policy.load(words), max_rate_hz)
        return [checks_policy.made_for(model, self._simulated), *loaded]


def _no_topic(subject: str, *checks: str) -> list[Finding]:
    return [Check(f"{subject}: {check}").skip("no such topic") for check in checks]


if __name__ == "__main__":
    sys.exit(main())
