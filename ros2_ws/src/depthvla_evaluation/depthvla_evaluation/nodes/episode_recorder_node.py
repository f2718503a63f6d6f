"""Records episodes, each to a rosbag2 folder of its own: serialised messages in, MCAP out.

An episode lasts from ~/start to ~/stop; with `record_on_activate`, the first one lasts from activation to deactivation.
`recorder.episode_recording` takes the messages, a thread of `bags.bag_writer` writes them.
"""

from __future__ import annotations

import math
import shutil
import sys
import time
from pathlib import Path

from depthvla_msgs.msg import Counter as CounterMessage
from depthvla_msgs.msg import EpisodeEvent, RecorderStatus
from depthvla_msgs.srv import MarkSubstep, StartEpisode, StopEpisode
from rclpy.clock import Clock, ClockType
from rclpy.qos import QoSProfile
from rclpy.serialization import serialize_message
from sensor_msgs.msg import CameraInfo

from depthvla_control.ros import qos
from depthvla_control.ros.diagnostics import ERROR, OK, WARN, Health
from depthvla_control.ros.parameters import Parameter
from depthvla_control.ros.runtime import ManagedNode, run
from depthvla_evaluation.bags.bag_writer import BagWriter
from depthvla_evaluation.bags.notes import OUTCOMES, EpisodeNotes
from depthvla_evaluation.bags.topic_rules import parse_rules
from depthvla_evaluation.nodes.recorder.episode_recording import EpisodeRecording, bag_qos
from depthvla_evaluation.nodes.recorder.node_parameters import NodeParameters
from depthvla_policy.bench.machine import describe_machine, git_revision
from r1lite_description import robot as robot_description
from r1lite_description.kinematics import read_urdf
from r1lite_description.robot import Limb
from r1lite_description.share import robot_file

STATUS_PERIOD_S = 1.0
COMMAND_TYPE = "sensor_msgs/msg/JointState"
EVENT_TYPE, EVENT_QOS = "depthvla_msgs/msg/EpisodeEvent", QoSProfile(depth=10)

PARAMETERS = (
    Parameter("robot_file", "", "Robot description; empty takes the R1 Lite's of r1lite_description."),
    Parameter("urdf_file", "", "URDF or xacro kept with every episode; empty takes ../urdf/<robot>.urdf.xacro."),
    Parameter("record_on_activate", True, "Record from activation to deactivation; otherwise ~/start is waited for."),
    Parameter(
        "bag",
        "out/bags/%Y-%m-%d_%H-%M-%S",
        "Folder of a bag, which must not exist; strftime codes stand for the local time at which recording starts.",
    ),
    Parameter("bag_root", "out", "Folder below which ~/start may ask for a bag, wherever the parameter bag is."),
    Parameter(
        "topics",
        ["/diagnostics"],
        "What is recorded: /topic [max_rate_hz=N] [paired_with=/other] [required], with {camera.…} and {limb.…} for"
        " every camera and limb of the robot.",
    ),
    Parameter("parameters_of", ["/policy_node", "/chunk_executor_node"], "Nodes whose parameters are kept."),
    Parameter("poll_period_s", 0.05, "How often messages are taken from the middleware.", 0.005, 0.5),
    Parameter("backlog_limit_mb", 256, "Messages beyond this, waiting for the disk, are dropped.", 1, 16384),
    Parameter("min_free_mb", 1024, "With less free space than this no recording is started.", 0, 2**30),
)


class EpisodeRecorderNode(ManagedNode):
    """One episode at a time.

    An episode that cannot be written, or lacks a required topic, is FAILED: the status, /diagnostics, the log and in
    the end the process's exit code say so. A recording from activation waits for every topic, since it starts with the
    nodes that publish them; a write error in it ends the process.
    """

    def __init__(self, **kwargs) -> None:
        super().__init__("episode_recorder_node", PARAMETERS, **kwargs)
        self._recording: EpisodeRecording | None = None
        self._ended = RecorderStatus()  # the newest episode, once it is over

    def configure(self) -> None:
        path = robot_file()
        if self.value("robot_file"):
            path = Path(self.value("robot_file"))
        self._robot = robot_description.load(path)
        self._rules = parse_rules(self.value("topics"), self._robot)
        self._surroundings = {
            "robot": path.read_text(),
            "urdf": self._read_urdf(path.absolute().parents[1] / "urdf" / f"{self._robot.name}.urdf.xacro"),
            "git_revision": git_revision(Path(__file__).resolve().parent),
            "machine": describe_machine(),
        }
        self._ended = RecorderStatus()
        self._status = self.create_lifecycle_publisher(RecorderStatus, "~/status", qos.status())
        self._events = self.create_lifecycle_publisher(EpisodeEvent, "~/event", EVENT_QOS)
        if self._events.topic_name in self._rules:
            raise ValueError(f"topics has {self._events.topic_name}, which every recording holds anyway; leave it out")
        self._others = [NodeParameters(self, name) for name in self.value("parameters_of")]
        self.create_service(StartEpisode, "~/start", self._on_start)
        self.create_service(MarkSubstep, "~/mark", self._on_mark)
        self.create_service(StopEpisode, "~/stop", self._on_stop)
        self.create_timer(STATUS_PERIOD_S, self._tick, clock=Clock(clock_type=ClockType.STEADY_TIME))

    def activate(self) -> None:
        if self.value("record_on_activate"):
            self._begin(EpisodeNotes(), time.strftime(self.value("bag")), on_activate=True)
        self._publish_status()

    def deactivate(self) -> None:
        self._close()

    def cleanup(self) -> None:
        self._close()

    def health(self) -> Health:
        recording = self._recording
        if recording is None:
            reason, values = self._ended.reason, {"bag": self._ended.bag}
            return Health(ERROR, f"FAILED: {reason}", values) if reason else Health(OK, "idle", values)
        writer, missed, lost = recording.writer, recording.missed(), recording.lost()
        values = {
            "bag": writer.path,
            "messages": writer.written,
            "backlog [MB]": writer.backlog_bytes / 2**20,
            "free [MB]": _free_bytes(writer.path) / 2**20,
            "lost": sum(missed.values()),
            "dropped": sum(writer.dropped.values()),
            **{f"lost on {topic}": count for topic, count in lost.items()},
            **{f"cannot record {topic}": reason for topic, reason in recording.unknown.items()},
            "nobody publishes": ", ".join(sorted(topic for topic in self._rules if topic not in recording.published)),
        }
        if writer.error:
            return Health(ERROR, f"cannot write {writer.path}: {writer.error}", values)
        if lost or recording.unknown:
            return Health(WARN, f"recording, {sum(lost.values())} messages lost", values)
        return Health(OK, "recording", values)

    def _on_start(self, request: StartEpisode.Request, response: StartEpisode.Response) -> StartEpisode.Response:
        try:
            if not self.active:
                raise ValueError("the recorder is not active")
            if self._recording:
                raise ValueError(f"an episode is being recorded already, to {self._recording.writer.path}")
            notes = EpisodeNotes(
                request.task, request.instruction, request.setting, request.policy, scene=request.scene
            )
            bag = str(folder_below(self.value("bag_root"), request.bag)) if request.bag else ""
            self._begin(notes, bag or time.strftime(self.value("bag")))
        except (OSError, ValueError) as error:
            return _answer(response, False, str(error))
        response.bag = str(self._recording.writer.path)
        return _answer(response, True, f"recording to {response.bag}")

    def _on_mark(self, request: MarkSubstep.Request, response: MarkSubstep.Response) -> MarkSubstep.Response:
        recording = self._recording
        if recording is None:
            return _answer(response, False, "no episode is being recorded")
        try:
            if not request.undo:
                recording.notes.mark(request.substep, time.time_ns())
            elif request.substep:
                raise ValueError(f"substep is {request.substep!r}; allowed with undo: nothing")
            changed = recording.notes.undo() if request.undo else request.substep
        except ValueError as error:
            return _answer(response, False, str(error))
        self._add_event(EpisodeEvent.UNDO if request.undo else EpisodeEvent.SUBSTEP, changed)
        recording.keep(self._custom_data(recording))
        self._publish_status()
        return _answer(response, True, f"marked: {', '.join(recording.notes.substeps) or 'nothing'}")

    def _on_stop(self, request: StopEpisode.Request, response: StopEpisode.Response) -> StopEpisode.Response:
        recording = self._recording
        if recording is None:
            return _answer(response, False, "no episode is being recorded")
        if request.outcome not in OUTCOMES:
            return _answer(response, False, f"outcome is {request.outcome!r}; allowed: {', '.join(OUTCOMES)}")
        recording.take()
        silent = "" if recording.on_activate else recording.silent()
        failure = self._end(request.outcome, request.notes, silent)
        response.bag = str(recording.writer.path)
        return _answer(response, not failure, f"FAILED: {failure}" if failure else f"{request.outcome}: {response.bag}")

    def _begin(self, notes: EpisodeNotes, bag: str, *, on_activate: bool = False) -> None:
        """Raises OSError where nothing can be written."""
        path = Path(bag).expanduser().absolute()
        free_mb, least_mb = _free_bytes(path) / 2**20, self.value("min_free_mb")
        if free_mb < least_mb:
            raise OSError(f"the disk of bag {path} has {free_mb:.0f} MB left; min_free_mb is {least_mb}")
        writer = BagWriter(path, self.value("backlog_limit_mb") * 2**20)
        writer.add_topic(self._events.topic_name, EVENT_TYPE, [bag_qos(EVENT_QOS)])
        for parameters in self._others:
            parameters.forget()
        commands = {topic: COMMAND_TYPE for limb in self._robot.limbs for topic in _commands(limb)}
        recording = self._recording = EpisodeRecording(
            self, writer, notes, self._rules, on_activate=on_activate, expected=commands
        )
        self.workers.append(writer.worker)
        recording.start(self._poll)
        self._add_event(EpisodeEvent.START, notes.task)
        self._tick()
        self.get_logger().info(f"recording {len(self._rules)} topics to {path}")

    def _poll(self) -> None:
        recording = self._recording
        recording.take()
        if recording.writer.error:
            failure = self._end("aborted")
            if recording.on_activate:
                raise OSError(failure)
        elif absent := "" if recording.on_activate else recording.absent():
            self._end("aborted", failure=absent)

    def _close(self) -> None:
        """Ends a recording that nobody stopped."""
        if self._recording is None:
            return
        failure = self._end() if self._recording.on_activate else self._end("aborted", "the recorder was ended")
        if failure:
            raise OSError(failure)

    def _end(self, outcome: str = "", notes: str = "", failure: str = "") -> str:
        """Closes the bag. Returns why the episode FAILED; empty where it is whole."""
        recording = self._recording
        recording.take()
        writer = recording.writer
        if recording.on_activate and (missing := recording.not_heard_since(-math.inf)):
            self.get_logger().warning(f"nothing ever came on {', '.join(missing)}")
        self._add_event(EpisodeEvent.STOP, outcome)
        recording.notes.end(outcome, notes, failure)
        try:
            recording.close(self._custom_data(recording))
        except OSError:
            failure = f"cannot write bag {writer.path}: {writer.error}"
        self._ended, self._recording = self._describe(recording), None
        self.workers.clear()
        self._ended.state, self._ended.reason = RecorderStatus.FAILED if failure else RecorderStatus.IDLE, failure
        self._publish_status()
        if failure:
            self.exit_code = 1
            self.get_logger().error(f"EPISODE FAILED, {writer.path}: {failure}")
        else:
            self.get_logger().info(f"closed {writer.path}: {writer.written} messages")
        return failure

    def _add_event(self, kind: int, text: str) -> None:
        """Publishes an event, and records it without waiting for it to come back."""
        event = EpisodeEvent(kind=kind, text=text)
        event.header.stamp = self.get_clock().now().to_msg()
        self._events.publish(event)
        self._recording.writer.write(self._events.topic_name, time.time_ns(), serialize_message(event))

    def _tick(self) -> None:
        if not self.active and not self._recording:
            return
        if self._recording:
            for parameters in self._others:
                parameters.ask()
            self._recording.keep(self._custom_data(self._recording))
        self._publish_status()

    def _publish_status(self) -> None:
        message = self._describe(self._recording) if self._recording else self._ended
        message.header.stamp = self.get_clock().now().to_msg()
        self._status.publish(message)

    def _describe(self, recording: EpisodeRecording) -> RecorderStatus:
        writer, notes = recording.writer, recording.notes
        return RecorderStatus(
            state=RecorderStatus.RECORDING,
            bag=str(writer.path),
            task=notes.task,
            setting=notes.setting,
            substeps=notes.substeps,
            duration_s=time.monotonic() - recording.begin_s,
            bytes=writer.file_bytes,
            messages=writer.written,
            lost=[CounterMessage(name=topic, count=count) for topic, count in recording.lost().items()],
        )

    def _custom_data(self, recording: EpisodeRecording) -> dict[str, str]:
        calibrated = recording.heard(CameraInfo)
        known = {item.name: item.values for item in self._others if item.values is not None}
        uncalibrated = [camera.camera_info for camera in self._robot.cameras if camera.camera_info not in calibrated]
        return recording.notes.custom_data(
            **self._surroundings,
            parameters=known,
            parameters_missing=[item.name for item in self._others if item.values is None],
            calibration=calibrated,
            calibration_missing=uncalibrated,
            topics_missing=recording.not_heard_since(-math.inf),
            messages_lost=recording.lost(),
        )

    def _read_urdf(self, default: Path) -> str:
        """The robot's URDF; empty, with a warning, where there is none."""
        path = Path(self.value("urdf_file") or default)
        if not path.exists() and not self.value("urdf_file"):
            self.get_logger().warning(f"there is no {path}: episodes are recorded without a URDF")
            return ""
        try:
            return read_urdf(path)
        except ImportError as error:
            self.get_logger().warning(f"{path} is kept as it is, not as URDF: {error}")
            return path.read_text()


def folder_below(root: str, name: str) -> Path:
    """The folder `name` below `root`; an absolute name has to be there already. Neither exists yet, perhaps.

    Raises:
        ValueError: it would be elsewhere, however it is written.
    """
    top = Path(root).expanduser().absolute()
    path = top / name if name.isprintable() else top
    inside = ".." not in path.parts and not name.startswith("~") and path.resolve() != top.resolve()
    if not inside or top.resolve() not in path.resolve().parents:
        raise ValueError(f"bag is {name!r}; allowed: a folder below {top}, which the recorder's bag_root names")
    return path


def _answer(response, success: bool, message: str):
    response.success, response.message = success, message
    return response


def _commands(limb: Limb) -> tuple[str, str]:
    return limb.topics.arm_command, limb.topics.gripper_command


def _free_bytes(path: Path) -> int:
    """What is free on the disk of a folder that need not exist."""
    return shutil.disk_usage(next(folder for folder in (path, *path.parents) if folder.exists())).free


def main() -> int:
    return run(EpisodeRecorderNode, about=__doc__, parameters=PARAMETERS)


if __name__ == "__main__":
    sys.exit(main())
