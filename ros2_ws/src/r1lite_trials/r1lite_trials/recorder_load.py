"""Records as much as the robot publishes, counts what is lost, and kills the recorder at random moments.

depthvla recorder-load [--seconds 60] [--kills 20]; needs neither robot nor GPU. Exit code 1 when a message is lost
under load, or a bag is not recovered with all but its last second.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from random import Random

import cv2
import numpy as np
import rclpy
from depthvla_msgs.msg import RecorderStatus
from depthvla_msgs.srv import StartEpisode, StopEpisode
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.signals import SignalHandlerOptions
from sensor_msgs.msg import CompressedImage, JointState
from tqdm import tqdm

from depthvla_control.ros import qos
from depthvla_control.ros.probe import Probe, private_domain
from depthvla_evaluation.bags.bag import Bag
from depthvla_evaluation.bags.recover import broken, recover
from r1lite_bringup.graph import Node
from r1lite_bringup.process_launch import command
from r1lite_description import robot as robot_description
from r1lite_description.robot import Robot
from r1lite_description.share import share
from r1lite_trials.stream import percentiles
from r1lite_trials.trial import begin, finish, trial

RECORDER = "episode_recorder_node"
IMAGE_SIZE, IMAGE_RATE_HZ, IMAGES = (720, 1280), 30.0, 8
STATE_RATE_HZ, JOINTS = 200.0, 20
JOINT_STATES, JOINT_STATES_RATE_HZ = "/joint_states", 500.0
ANSWER_LIMIT_S = 60.0
DISCOVERY_S = 1.0  # until the recorder knows the publishers that know it
DRAIN_S = 1.0  # until the last message is in the recorder
MAY_BE_LOST_S = 1.0
LONGEST_S = 5.0  # from the start of an episode to the kill
TICKS_PER_S = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class RecorderLoadConfig:
    """What to record, and how often to kill."""

    seconds: float = 60.0
    """of recording under load; 0: none"""
    kills: int = 20
    seed: int = 0
    """of the moments of the kills"""
    out: Path = Path("out/recording.json")
    """figures; bags lie beside it while they are needed"""


@dataclass(frozen=True)
class Load:
    """A stream of messages that a process publishes. `joints` is 0 for a camera."""

    topic: str
    rate_hz: float
    joints: int = 0


@trial
def main(argv: Sequence[str] | None = None) -> int:
    config, result = begin("recorder-load", RecorderLoadConfig, argv, __doc__)
    folder = config.out.parent / "recorder_load"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    processes = loads(robot_description.load())
    with private_domain(), Probe("trial") as probe:
        if config.seconds:
            result["load"] = under_load(probe, processes, folder, config.seconds)
        if config.kills:
            result["kills"] = killed(probe, processes, folder, config.kills, Random(config.seed))
    losses = problems(result)
    if not losses:
        shutil.rmtree(folder)
    return finish(config.out, result, text(result), losses)


def loads(robot: Robot) -> list[list[Load]]:
    """What each process publishes: a camera, the arms and grippers, or all joints."""
    states = [topic for limb in robot.limbs for topic in (limb.topics.arm_feedback, limb.topics.gripper_feedback)]
    return [
        *([Load(camera.topic, IMAGE_RATE_HZ)] for camera in robot.cameras),
        [Load(topic, STATE_RATE_HZ, joints=6) for topic in states],
        [Load(JOINT_STATES, JOINT_STATES_RATE_HZ, joints=JOINTS)],
    ]


def under_load(probe: Probe, processes: Sequence[Sequence[Load]], folder: Path, seconds: float) -> dict:
    """Figures of one episode: what was published and is in the bag, by topic, and what it cost."""
    bag = folder / "load"
    heard = probe.listen(DiagnosticArray, "/diagnostics")
    with publishing(processes, wait=True) as publishers, Recorder(probe, processes, folder) as recorder:
        recorder.start(bag)
        for publisher in publishers:
            _receive(publisher)  # its topics have subscribers
        time.sleep(DISCOVERY_S)
        before_s, begin_s = recorder.cpu_s(), time.monotonic()
        load_before = os.getloadavg()[0]
        for publisher in publishers:
            publisher.send("go")
        for _ in tqdm(range(round(seconds)), unit="s", desc="recording"):
            time.sleep(1.0)
        published = stop(publishers)
        wall_s = time.monotonic() - begin_s
        time.sleep(DRAIN_S)
        cpu_s, memory_mb = recorder.cpu_s() - before_s, recorder.memory_mb()
        status = recorder.stop()
    values = [{item.key: item.value for item in status.values} for message in heard for status in message.status]
    backlog_mb = [float(value["backlog [MB]"]) for value in values if "backlog [MB]" in value]
    stamps = _recorded(bag, list(published))
    size_mb = sum(file.stat().st_size for file in bag.iterdir()) / 1e6
    return {
        "failure": status.reason,
        "seconds": round(wall_s, 1),
        "load_average": [round(load_before, 2), round(os.getloadavg()[0], 2)],
        "cpu_share": round(cpu_s / wall_s, 3),
        "memory_mb": round(memory_mb),
        "mb_per_s": round(size_mb / wall_s, 2),
        "largest_backlog_mb": round(max(backlog_mb, default=0.0), 2),
        "reported_lost": {item.name: item.count for item in status.lost},
        "topics": {
            topic: {
                "published": len(sent),
                "recorded": len(stamps[topic]),
                "lost": len(set(sent) - set(stamps[topic])),
                "rate_hz": round(len(sent) / wall_s, 1),
            }
            for topic, sent in published.items()
        },
    }


def killed(probe: Probe, processes: Sequence[Sequence[Load]], folder: Path, count: int, random: Random) -> list[dict]:
    """How much of what had been published is not in the recovered bag, for each kill."""
    topics, runs = [load.topic for process in processes for load in process], []
    with publishing(processes) as publishers:
        for publisher in publishers:
            publisher.send("go")
        for number in tqdm(range(count), unit="kill"):
            runs.append(_kill(probe, processes, topics, folder / f"kill-{number}", random.uniform(0.0, LONGEST_S)))
        stop(publishers)
    return runs


def _kill(probe: Probe, processes: Sequence[Sequence[Load]], topics: Sequence[str], bag: Path, after_s: float) -> dict:
    """lost_s: from the last message of a topic that is in the bag to the kill, of the topics that are in it."""
    with Recorder(probe, processes, bag.parent) as recorder:
        recorder.start(bag)
        start_ns = time.time_ns()
        time.sleep(after_s)
        kill_ns = time.time_ns()
        recorder.kill()
    run = {"after_s": round(after_s, 2), "load_average": round(os.getloadavg()[0], 2)}
    begin_s = time.monotonic()
    try:
        recover(bag)
        run["recover_s"] = round(time.monotonic() - begin_s, 2)
        stamps = _recorded(bag, topics)
    except (OSError, ValueError) as error:
        return run | {"problem": str(error)}
    for path in (bag, broken(bag)):
        shutil.rmtree(path, ignore_errors=True)
    last_ns = [max(recorded[-1], start_ns) for recorded in stamps.values() if recorded]
    lost_s = (kill_ns - min(last_ns, default=start_ns)) * 1e-9
    return run | {"lost_s": round(max(lost_s, 0.0), 3), "messages": sum(map(len, stamps.values()))}


def problems(result: dict) -> list[str]:
    """In words; empty where nothing was lost but the last second of what was killed."""
    losses = []
    if load := result.get("load"):
        losses += [load["failure"]] if load["failure"] else []
        losses += [f"{row['lost']} messages lost on {topic}" for topic, row in load["topics"].items() if row["lost"]]
    for number, run in enumerate(result.get("kills", ())):
        if "problem" in run:
            losses.append(f"kill {number}: {run['problem']}")
        elif run["lost_s"] > MAY_BE_LOST_S:
            losses.append(f"kill {number}: {run['lost_s']:.2f} s lost")
    return losses


def text(result: dict) -> str:
    lines = [f"{result['machine']}"]
    if load := result.get("load"):
        lines.append(f"{'topic':55} {'published':>9} {'recorded':>9} {'lost':>5} {'Hz':>6}")
        lines += [
            f"{topic:55} {row['published']:9} {row['recorded']:9} {row['lost']:5} {row['rate_hz']:6.1f}"
            for topic, row in load["topics"].items()
        ]
        lines.append(
            f"{load['seconds']:.0f} s, {load['mb_per_s']:.1f} MB/s; recorder {load['cpu_share']:.0%} of a core,"
            f" {load['memory_mb']} MB, largest backlog {load['largest_backlog_mb']:.1f} MB; load average"
            f" {load['load_average'][0]} to {load['load_average'][1]}"
        )
    if kills := result.get("kills"):
        lost_s = percentiles([run["lost_s"] for run in kills if "lost_s" in run], 50)
        recover_s = percentiles([run["recover_s"] for run in kills if "recover_s" in run], 50)
        loaded = [run["load_average"] for run in kills]
        lines.append(
            f"{len(kills)} kills, {sum('problem' not in run for run in kills)} recovered;"
            f" lost [s] p50 {lost_s.get('p50', np.nan):.2f}, max {lost_s.get('max', np.nan):.2f};"
            f" recovering [s] p50 {recover_s.get('p50', np.nan):.2f}, max {recover_s.get('max', np.nan):.2f};"
            f" load average {min(loaded)} to {max(loaded)}"
        )
    return "\n".join(lines)


class Recorder:
    """A recorder's process that waits for ~/start and records these streams."""

    def __init__(self, probe: Probe, processes: Sequence[Sequence[Load]], folder: Path) -> None:
        topics = [load.topic for process in processes for load in process]
        parameters = {"autostart": True, "record_on_activate": False, "topics": topics, "parameters_of": [""]}
        parameters["bag_root"] = str(folder.absolute())
        file = share("depthvla_evaluation") / "config" / f"{RECORDER}.param.yaml"
        self._probe, self._output = probe, folder / "recorder.txt"
        self._command = command(
            Node("depthvla_evaluation", RECORDER, RECORDER, parameter_file=file, parameters=parameters)
        )

    def __enter__(self) -> Recorder:
        self._status = self._probe.listen(RecorderStatus, f"/{RECORDER}/status", qos.status())
        with self._output.open("a") as output:
            self._process = subprocess.Popen(self._command, stdout=output, stderr=subprocess.STDOUT)
        self._probe.wait_for(lambda: self._status, what="the recorder")
        self._start = self._probe.node.create_client(StartEpisode, f"/{RECORDER}/start")
        self._stop = self._probe.node.create_client(StopEpisode, f"/{RECORDER}/stop")
        for client in (self._start, self._stop):
            self._probe.wait_for(client.service_is_ready, what="the recorder's services")
        return self

    # An answer that comes before the middleware has found its reader is lost, so the status is watched instead.

    def start(self, bag: Path) -> None:
        self._start.call_async(StartEpisode.Request(task="load", bag=str(bag)))
        self._probe.wait_for(lambda: self._status[-1].state == RecorderStatus.RECORDING, what=f"a recording to {bag}")

    def stop(self) -> RecorderStatus:
        self._stop.call_async(StopEpisode.Request(outcome="success"))
        self._probe.wait_for(lambda: self._status[-1].state != RecorderStatus.RECORDING, what="the closed bag")
        return self._status[-1]

    def cpu_s(self) -> float:
        """Processor time that the process has used."""
        fields = Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / TICKS_PER_S

    def memory_mb(self) -> float:
        """The most that the process has held."""
        lines = Path(f"/proc/{self._process.pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) / 1e3 for line in lines if line.startswith("VmHWM"))

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()

    def __exit__(self, *_: object) -> None:
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGINT)
            self._process.wait()
        for client in (self._start, self._stop):
            self._probe.node.destroy_client(client)


@contextlib.contextmanager
def publishing(processes: Sequence[Sequence[Load]], *, wait: bool = False) -> Iterator[list[Connection]]:
    """A process for each of `processes`, which publishes from "go" to `stop`.

    wait: it sends a message once its topics have subscribers.
    """
    context = multiprocessing.get_context("spawn")
    pipes, started = [], []
    for streams in processes:
        ours, theirs = context.Pipe()
        pipes.append(ours)
        started.append(context.Process(target=_publish, args=(streams, theirs, wait), daemon=True))
        started[-1].start()
    try:
        for pipe in pipes:
            _receive(pipe)  # it is ready
        yield pipes
    finally:
        for process in started:
            process.terminate()
            process.join()


def stop(publishers: Sequence[Connection]) -> dict[str, list[int]]:
    """Stamps [ns] of all that was published, by topic."""
    for publisher in publishers:
        publisher.send("stop")
    published: dict[str, list[int]] = {}
    for publisher in publishers:
        published |= _receive(publisher)
    return published


def _receive(pipe: Connection) -> dict[str, list[int]]:
    if not pipe.poll(ANSWER_LIMIT_S):
        raise AssertionError(f"a publisher's process has not answered for {ANSWER_LIMIT_S:g} s")
    return pipe.recv()


def _publish(streams: Sequence[Load], pipe: Connection, wait: bool) -> None:
    """Runs in a process of its own."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends it
    rclpy.init(signal_handler_options=SignalHandlerOptions.NO)
    node = rclpy.create_node(f"load_{os.getpid()}")
    messages = {load.topic: _messages(load) for load in streams}
    publishers = {
        load.topic: node.create_publisher(type(messages[load.topic][0]), load.topic, qos.stream("best_effort", 10))
        for load in streams
    }
    pipe.send({})
    while wait and not all(publisher.get_subscription_count() for publisher in publishers.values()):
        time.sleep(0.01)
    if wait:
        pipe.send({})
    pipe.recv()
    stamps: dict[str, list[int]] = {load.topic: [] for load in streams}
    begin_s = time.monotonic()
    due_s = {load.topic: begin_s + index * 0.001 for index, load in enumerate(streams)}
    period_s = {load.topic: 1.0 / load.rate_hz for load in streams}
    while not pipe.poll():
        topic = min(due_s, key=due_s.__getitem__)
        time.sleep(max(due_s[topic] - time.monotonic(), 0.0))
        due_s[topic] += period_s[topic]
        message = messages[topic][len(stamps[topic]) % len(messages[topic])]
        stamp = time.time_ns()
        message.header.stamp.sec, message.header.stamp.nanosec = divmod(stamp, 10**9)
        publishers[topic].publish(message)
        stamps[topic].append(stamp)
    pipe.recv()
    pipe.send(stamps)
    with contextlib.suppress(EOFError):
        pipe.recv()  # what is on its way must arrive before this writer is gone


def _messages(load: Load) -> list[CompressedImage] | list[JointState]:
    if load.joints:
        values = [0.1] * load.joints
        names = [f"joint{number}" for number in range(load.joints)]
        return [JointState(name=names, position=values, velocity=values, effort=values)]
    random = np.random.default_rng(abs(hash(load.topic)) % 2**32)
    return [CompressedImage(format="jpeg", data=_jpeg(random)) for _ in range(IMAGES)]


def _jpeg(random: np.random.Generator) -> bytes:
    """A picture with edges and sensor noise, of 100 to 200 kB."""
    height, width = IMAGE_SIZE
    coarse = random.integers(0, 256, (height // 40, width // 40, 3), dtype=np.uint8)
    picture = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_NEAREST).astype(np.float32)
    picture += random.normal(0.0, 5.5, picture.shape)
    return cv2.imencode(".jpg", picture.clip(0, 255).astype(np.uint8), [cv2.IMWRITE_JPEG_QUALITY, 85])[1].tobytes()


def _recorded(bag: Path, topics: Sequence[str]) -> dict[str, list[int]]:
    with Bag(bag) as opened:
        return {topic: stamps.tolist() for topic, stamps in opened.stamps(topics).items()}


if __name__ == "__main__":
    sys.exit(main())
