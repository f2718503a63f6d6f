"""What the policy host hears, for a trial that watches from the robot: a process of its own, since Fast DDS looks for
network devices once a process and thus serves only one namespace.

Requests come in and answers go out as pickles, until the input ends.
"""

from __future__ import annotations

import contextlib
import pickle
import subprocess
import sys

from depthvla_msgs.msg import ActionChunk, ExecutorStatus, PolicyStatus
from rclpy.qos import QoSProfile

from depthvla_control.ros import qos
from depthvla_control.ros.probe import Heard, Probe
from r1lite_trials.simulated_graph import EXECUTOR, POLICY

DEPTH = 1000
END_S = 10.0


class Host:
    """Started in the namespace of the calling thread, ended on leaving. `executor`: also hear the executor's status."""

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
            self._process.wait(END_S)
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
    profile.depth = DEPTH
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


if __name__ == "__main__":
    main(bool(int(sys.argv[1])))
