"""The order of the checks: measures what each needs and hands it to the judges."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from depthvla_policy.nodes.policy.chunk_rate import chunk_rate_hz
from r1lite_bringup.preflight import (
    checks_camera,
    checks_graph,
    checks_host,
    checks_policy,
    checks_streams,
    host,
    units,
)
from r1lite_bringup.preflight.measure import Listener
from r1lite_bringup.preflight.observed import Sample
from r1lite_bringup.preflight.settings import CAMERA_INFO, JOINT_STATE, POLICY, CameraSettings, Settings
from r1lite_bringup.preflight.verdict import Finding, Verdict, skipped
from r1lite_description.robot import Limb, Robot


@dataclass(frozen=True)
class Asked:
    """What is to be checked. `model` is a checkpoint's folder or empty."""

    robot: Robot
    settings: Settings
    simulated: bool
    seconds: float
    discovery_s: float
    model: str
    device: str
    latency: bool
    robot_file: str
    bags: Path


@dataclass(frozen=True)
class Result:
    """`cameras`: where they are on this unit."""

    findings: list[Finding]
    cameras: list[CameraSettings]


def look(asked: Asked, progress: Callable[[str], None]) -> Result:
    """All checks. progress: told what is being done."""
    with Listener() as listener:
        return _Preflight(asked, listener, progress).run()


class _Preflight:
    def __init__(self, asked: Asked, listener: Listener, progress: Callable[[str], None]) -> None:
        self._asked, self._listener, self._progress = asked, listener, progress
        self._robot, self._settings, self._limits = asked.robot, asked.settings, asked.settings.limits

    def run(self) -> Result:
        machine = host.look(self._asked.bags, self._listener.middleware)
        findings = checks_host.check(machine, self._asked.simulated, self._settings.min_free_mb)
        topics = self._topics()
        self._progress("looking for the robot's topics")
        self._graph = self._listener.graph(topics, self._asked.discovery_s)
        found = sum(bool(self._graph.publishers.get(topic)) for topic in topics)
        findings.append(checks_host.domain(machine, len(topics), found))
        if not self._asked.simulated:
            findings.append(checks_graph.simulation(self._graph))
        cameras = []
        for camera in self._settings.cameras:
            there, said = self._camera(camera)
            cameras.append(there)
            findings += said
        for limb in self._robot.limbs:
            findings += self._feedback(limb)
        findings += self._teleoperation()
        for limb in self._robot.limbs:
            findings += self._commands(limb)
        return Result(findings + self._policy(), cameras)

    def _topics(self) -> list[str]:
        feedback = [t for limb in self._robot.limbs for t in (limb.topics.arm_feedback, limb.topics.gripper_feedback)]
        return [*(camera.topic for camera in self._settings.cameras), *feedback]

    def _listen(self, topic: str, message_type: str, most: int | None = None) -> Sample:
        """Nothing where nobody publishes that."""
        if not self._graph.publishes(topic, message_type):
            return Sample(topic)
        self._progress(f"listening to {topic}")
        return self._listener.listen(topic, message_type, self._asked.seconds, most)

    def _camera(self, camera: CameraSettings) -> tuple[CameraSettings, list[Finding]]:
        subject = f"camera {camera.name}"
        there, topic = units.find_camera(subject, camera, self._graph)
        info = self._listen(camera.camera_info, CAMERA_INFO, most=1)
        if there is None:
            rest = [skipped(f"{subject}: {check}", "no such topic") for check in ("QoS", "rate", "stamps", "image")]
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
            rest = [skipped(f"{subject}: {check}", "no such topic") for check in ("QoS", "rate", "stamps", last)]
            return [topic, *rest]
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
        if self._asked.simulated:
            findings = [skipped("teleoperation: nodes", "a simulation has none of the vendor's")]
        else:
            findings = [checks_graph.teleoperation(self._graph)]
        for limb in self._robot.limbs:
            topic = self._settings.leaders[limb.name]
            sample = self._listen(topic, JOINT_STATE) if topic else Sample(topic)
            findings.append(checks_graph.leader(f"leader {limb.name}", sample, len(limb.joints)))
        return findings

    def _commands(self, limb: Limb) -> list[Finding]:
        findings = []
        for part, topic in (("arm", limb.topics.arm_command), ("gripper", limb.topics.gripper_command)):
            subject = f"command {part} {limb.name}"
            writers = self._graph.publishers.get(topic, ())
            rivals = [writer for writer in writers if not checks_graph.is_ours(writer)]
            # Beside our own executor, what is heard may be its.
            heard = self._listen(topic, JOINT_STATE) if len(rivals) == len(writers) else None
            findings += [
                checks_graph.sole_writer(subject, topic, rivals, self._settings.allowed_publishers, heard),
                checks_graph.command_reader(subject, topic, self._graph, self._settings.command_reliability),
            ]
        return findings

    def _policy(self) -> list[Finding]:
        if not self._asked.model:
            return checks_policy.nothing_asked()
        self._progress("loading the policy")
        words = ["--model", self._asked.model, "--device", self._asked.device]
        words += ["--threads", str(self._settings.torch_threads), "--robot-file", self._asked.robot_file]
        words += ["--runs", str(checks_policy.RUNS if self._asked.latency else 0)]
        made_for = checks_policy.made_for(self._asked.model, self._asked.simulated)
        max_rate_hz = chunk_rate_hz(self._settings.max_rate_hz, self._asked.device)
        return [made_for, *checks_policy.check(checks_policy.try_out(words), max_rate_hz)]
