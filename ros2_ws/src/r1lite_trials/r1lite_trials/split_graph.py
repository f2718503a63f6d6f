"""The simulated graph on two machines: simulator on the robot's side, policy on the host's, the executor on either.

Two network namespaces stand for the machines; what watches is on the robot's side, but for what only the host knows.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import pickle
import re
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
from depthvla_msgs.msg import ActionChunk, ExecutorStatus, PolicyStatus
from rclpy.qos import QoSProfile

from depthvla_control.arbiter import Mode
from depthvla_control.ros import qos
from depthvla_control.ros.messages import nanoseconds
from depthvla_control.ros.probe import Heard, Probe
from r1lite_trials.network_emulation import Conditions
from r1lite_trials.network_figures import Commands, Window
from r1lite_trials.network_namespaces import SplitNetwork
from r1lite_trials.simulated_graph import EXECUTOR, POLICY, SIMULATOR, SimulatedGraph
from r1lite_trials.stream import Stream

TEMPLATE = "docker/fastdds/udp_large_buffers.xml"
HOST_DEPTH = 1000
HOST_END_S = 10.0
ARRIVE_S = 0.5  # until what was sent before the end of a window has arrived


class SplitGraph(SimulatedGraph):
    """Nodes are started on entering, each in its namespace, and ended on leaving.

    Args:
        folder: for each node's output, <node>.txt.
        network: entered already.
        executor_side: robot or host.
        model: checkpoint: a folder, or the name of one in models/.
    """

    def __init__(self, folder: Path, network: SplitNetwork, *, executor_side: str, model: str) -> None:
        super().__init__(folder, model=model)
        self._network = network
        self._sides = {SIMULATOR: "robot", POLICY: "host", EXECUTOR: executor_side}
        self._executor_near = executor_side == "robot"

    def _listen(self, stack: contextlib.ExitStack) -> None:
        with self._network.inside("robot"):
            super()._listen(stack)
            self._statuses = hear_executor(self.probe) if self._executor_near else None
        with self._network.inside("host"):
            self._host = stack.enter_context(Host(executor=not self._executor_near))

    def _use_network(self) -> None:
        use_template()

    def start(self, name: str) -> None:
        with self._network.inside(self._sides[name]):
            super().start(name)

    def watch(self, conditions: Conditions, seconds: float, cut_s: float = 0.0) -> Window:
        """In a new scene, once the arms move, so many seconds under these conditions; a cut comes after a quarter."""
        self._network.set(Conditions())
        self.start_episode()
        self.listener.forget(time.time_ns())
        begin_s, begin_ns = time.monotonic(), time.time_ns()
        self._network.set(conditions)
        cut_ns = self._cut(conditions, seconds / 4, cut_s) if cut_s else None
        time.sleep(max(begin_s + seconds - time.monotonic(), 0.0))
        end_ns = time.time_ns()
        chunks, policy, statuses = self._host.since(begin_s)
        time.sleep(ARRIVE_S)
        report = self._network.set(Conditions())
        if self._executor_near:
            statuses = self._statuses.since(begin_s)
        statuses = [status for status in statuses if begin_ns <= nanoseconds(status.header.stamp) < end_ns]
        return Window(
            begin_ns=begin_ns,
            end_ns=end_ns,
            commands=self._commands(statuses, end_ns),
            measured=self.listener.measured().between(begin_ns, end_ns),
            statuses=statuses,
            sent=len(chunks),
            reasons=Counter(_kind(message.reason) for message in policy if not message.producing),
            link=report,
            cut_ns=cut_ns,
        )

    def _cut(self, conditions: Conditions, after_s: float, cut_s: float) -> tuple[int, int]:
        time.sleep(after_s)
        self._network.set(dataclasses.replace(conditions, cut=True))
        cut_ns = time.time_ns()
        time.sleep(cut_s)
        joined_ns = time.time_ns()
        self._network.set(conditions)
        if not self._executor_near:  # it lost the feedback, and goes on when it is asked to
            self.wait(lambda: self.ask(Mode.POLICY).success, "the policy in command after a cut")
        return cut_ns, joined_ns

    def _commands(self, statuses: list[ExecutorStatus], end_ns: int) -> Commands:
        """Those that came to the robot, each with its tick."""
        ticks = {}
        for status in statuses:
            stamp = nanoseconds(status.header.stamp)
            followed = status.mode == Mode.POLICY and status.sequence
            observed = stamp - nanoseconds(status.chunk_age) if followed else 0
            ticks |= dict.fromkeys(self.listener.command_times(stamp), (stamp, observed))
        stream = self.listener.commands().between(0, end_ns)
        known = np.isin(stream.times_ns, list(ticks))
        stream = Stream(stream.times_ns[known], stream.positions[known])
        stamps, observed = np.array([ticks[time_ns] for time_ns in stream.times_ns], dtype=np.int64).reshape(-1, 2).T
        return Commands(stream, stamps, observed)


def use_template() -> None:
    """The project's own profile for processes that do not share memory, and discovery as it is on a robot's network."""
    folders = [*Path(__file__).resolve().parents, Path.cwd(), *Path.cwd().parents]
    template = next((folder / TEMPLATE for folder in folders if (folder / TEMPLATE).is_file()), None)
    if template is None:
        raise FileNotFoundError(f"{TEMPLATE} is neither above {__file__} nor above the current folder")
    os.environ.pop("ROS_AUTOMATIC_DISCOVERY_RANGE", None)
    os.environ.pop("ROS_LOCALHOST_ONLY", None)
    for name in ("FASTRTPS_DEFAULT_PROFILES_FILE", "FASTDDS_DEFAULT_PROFILES_FILE"):  # before Fast DDS 3, and since
        os.environ[name] = str(template)


class Host:
    """What the policy host hears, in a process of its own: Fast DDS looks for network devices once a process and thus
    serves only one namespace. Requests come in and answers go out as pickles, until the input ends.

    Started in the namespace of the calling thread, ended on leaving. `executor`: also hear the executor's status.
    """

    def __init__(self, *, executor: bool) -> None:
        self._executor = executor

    def __enter__(self) -> Host:
        self._process = subprocess.Popen(
            [sys.executable, "-m", __name__, str(int(self._executor))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        try:
            self._process.wait(HOST_END_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()

    def since(self, begin_s: float) -> tuple[list[ActionChunk], list[PolicyStatus], list[ExecutorStatus]]:
        """What came since then on the monotonic clock."""
        pickle.dump(begin_s, self._process.stdin)
        self._process.stdin.flush()
        return pickle.load(self._process.stdout)


def hear(probe: Probe, message_type: type, topic: str, profile: QoSProfile) -> Heard:
    """All messages, where `profile` keeps only the newest."""
    profile.depth = HOST_DEPTH
    return probe.listen(message_type, topic, profile)


def hear_executor(probe: Probe) -> Heard:
    return hear(probe, ExecutorStatus, f"/{EXECUTOR}/status", qos.status())


def main(executor: bool) -> None:
    answers, sys.stdout = sys.stdout.buffer, sys.stderr
    with Probe("trial_host") as probe:
        heard = (
            hear(probe, ActionChunk, f"/{POLICY}/action_chunk", qos.chunks(0.0)),
            hear(probe, PolicyStatus, f"/{POLICY}/status", qos.status()),
            hear_executor(probe) if executor else Heard(),
        )
        with contextlib.suppress(EOFError, BrokenPipeError):
            while True:
                begin_s = pickle.load(sys.stdin.buffer)
                pickle.dump(tuple(messages.since(begin_s) for messages in heard), answers)
                answers.flush()


def _kind(reason: str) -> str:
    """A reason without its numbers."""
    return re.sub(r"\d+(\.\d+)?", "N", reason)


if __name__ == "__main__":
    main(bool(int(sys.argv[1])))
