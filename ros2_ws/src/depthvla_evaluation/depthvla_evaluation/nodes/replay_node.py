"""Feeds a recording's cameras and joint states to a policy, on the recording's clock, and compares its chunks with what
was commanded in the recording. Ends by itself.

Commands are not played: nothing here moves a robot.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from pathlib import Path

from depthvla_msgs.msg import ActionChunk, PolicyStatus
from lifecycle_msgs.msg import State
from lifecycle_msgs.srv import GetState
from rclpy.clock import Clock, ClockType
from rclpy.qos import DurabilityPolicy, QoSProfile
from rosgraph_msgs.msg import Clock as ClockMessage

from depthvla_control.chunk import Chunk
from depthvla_control.refusal import Refusal
from depthvla_control.ros import qos
from depthvla_control.ros.diagnostics import ERROR, OK, Health
from depthvla_control.ros.messages import chunk_from_message, time_message
from depthvla_control.ros.parameters import Parameter
from depthvla_control.ros.runtime import ManagedNode, run
from depthvla_evaluation import open_loop
from depthvla_evaluation.bags.bag import Bag
from depthvla_evaluation.bags.complete_frames import CompleteFrames
from depthvla_evaluation.bags.message_types import message_class
from depthvla_evaluation.bags.recorded_graph import recorded_robot
from depthvla_evaluation.bags.replay import recorded_chunks
from depthvla_evaluation.nodes.bag_player import BagPlayer, Played
from r1lite_description import robot as robot_description
from r1lite_description.robot import Robot

POLL_S = 0.1
STOP_TIMEOUT_S = 5.0
QUEUE_DEPTH = 100
PROGRESS_S = 5.0
REFUSED_S = 1.0  # for which a policy that says why it makes no chunk is waited for
LATCHED = ("/tf_static", "/robot_description")
SHOWN = ("/joint_states", "/tf", *LATCHED)  # for RViz; the policy needs none of them

PARAMETERS = (
    Parameter("robot_file", "", "Robot description; empty takes the recording's."),
    Parameter("bag", "", "The recording: a rosbag2 folder."),
    Parameter("out", "out/replay", "Folder for open_loop.json and open_loop.png; earlier ones are replaced."),
    Parameter("policy", "/policy_node", "Full name of the policy's node."),
    Parameter("rate", 1.0, "Seconds of the recording that are played in one second.", 0.01, 100.0),
    Parameter("wait_for_chunks", True, "The clock stands still until the policy has answered a frame."),
    Parameter(
        "answer_limit_s",
        5.0,
        "For which it stands still at most; less for a policy that refuses, half as long for each frame without an"
        " answer, and not at all for a frame that lacks an image or a joint state.",
        0.1,
        600.0,
    ),
    Parameter("start_limit_s", 120.0, "For which the policy is waited for before the first message.", 1.0, 3600.0),
)


class ReplayNode(ManagedNode):
    """Plays on a thread of its own; chunks come in on the executor's."""

    def __init__(self, **kwargs) -> None:
        super().__init__("replay_node", PARAMETERS, **kwargs)
        self._thread: threading.Thread | None = None
        self._done = threading.Event()
        self._error: str | None = None

    def configure(self) -> None:
        file, policy = self.value("robot_file"), self.value("policy")
        with Bag(self.value("bag")) as bag:
            self._robot = recorded_robot(bag, robot_description.load(file) if file else None)
            types = {topic: bag.topics[topic].type for topic in self._played_topics() if topic in bag.topics}
        missing = [topic for topic in self._needed_topics() if topic not in types]
        if missing:
            raise ValueError(f"bag {self.value('bag')} holds nothing of {', '.join(missing)}, which the policy needs")
        self._played = {
            topic: self.create_publisher(message_class(kind), topic, _profile(topic)) for topic, kind in types.items()
        }
        self._time = self.create_publisher(ClockMessage, "/clock", QoSProfile(depth=1))
        self._chunks: list[Chunk] = []
        self._heard = threading.Condition()
        self._refusing = False
        self._silent_frames = 0  # without an answer since the last chunk
        self._incomplete = 0
        self.create_subscription(ActionChunk, f"{policy}/action_chunk", self._on_chunk, qos.chunks(0.0))
        self.create_subscription(PolicyStatus, f"{policy}/status", self._on_status, qos.status())
        self._state_client = self.create_client(GetState, f"{policy}/get_state")
        self.create_timer(POLL_S, self._end_when_done, clock=Clock(clock_type=ClockType.STEADY_TIME))

    def activate(self) -> None:
        self._stopping = threading.Event()
        self._done.clear()
        self._thread = threading.Thread(target=self._run, name="replay", daemon=True)
        self._thread.start()

    def deactivate(self) -> None:
        self._stopping.set()
        self._thread.join(STOP_TIMEOUT_S)

    def health(self) -> Health:
        if self._error:
            return Health(ERROR, self._error)
        return Health(OK, "done" if self._done.is_set() else "replaying", {"chunks": len(self._chunks)})

    def _run(self) -> None:
        try:
            self._replay()
        except BaseException as error:  # the node waits for the end of this thread, whatever it is
            self._error = str(error) or type(error).__name__
        self._done.set()

    def _replay(self) -> None:
        self._wait_for_policy()
        with Bag(self.value("bag")) as bag:
            for remark in bag.remarks:
                self.get_logger().warning(remark)
            self._complete, self._length_s = CompleteFrames(bag, self._robot, self._played), bag.duration_s
            self._progress_logged_s = time.monotonic()
            player = BagPlayer(
                self._complete,
                reference_topic=self._robot.cameras[0].topic,
                publish=lambda topic, data: self._played[topic].publish(data),
                set_clock=lambda now_ns: self._time.publish(ClockMessage(clock=time_message(now_ns))),
                answered=self._answered if self.value("wait_for_chunks") else None,
                rate=self.value("rate"),
                progress=self._log_progress,
            )
            played = player.run(self._stopping)
            if played.ended:
                self._report(bag, played)

    def _report(self, bag: Bag, played: Played) -> None:
        # matplotlib takes a second to import, which the policy need not wait for.
        from depthvla_evaluation.open_loop_figure import open_loop_figure
        from depthvla_evaluation.report import figures

        chunks = list(self._chunks)
        if not chunks:
            raise ValueError(f"the policy made no chunk from {played.frames} frames; its status says why")
        summary = {
            "bag": str(bag.path),
            "model_id": chunks[-1].model_id,
            "frames": played.frames,
            "frames_unanswered": played.unanswered,
            "frames_incomplete": self._incomplete,
            **open_loop.summarise(open_loop.open_loop(bag, self._robot, chunks), self._robot),
            "beside_recorded": open_loop.beside_recorded(chunks, [c.chunk for c in recorded_chunks(bag, self._robot)]),
        }
        out = Path(self.value("out"))
        out.mkdir(parents=True, exist_ok=True)
        (out / "open_loop.json").write_text(json.dumps(summary, indent=1) + "\n")
        figures.save(open_loop_figure(summary), out / "open_loop.png")
        self.get_logger().info(f"{open_loop.table(summary)}\n  {out / 'open_loop.png'}")

    def _wait_for_policy(self) -> None:
        """Until it is active and connected: what was published before would be lost."""
        limit_s = time.monotonic() + self.value("start_limit_s")
        while not (self._policy_is_active() and all(map(self.count_subscribers, self._needed_topics()))):
            if time.monotonic() > limit_s:
                raise TimeoutError(f"{self.value('policy')} was not active within {self.value('start_limit_s'):g} s")
            if self._stopping.wait(POLL_S):
                return

    def _policy_is_active(self) -> bool:
        if not self._state_client.service_is_ready():
            return False
        future, answered = self._state_client.call_async(GetState.Request()), threading.Event()
        future.add_done_callback(lambda _: answered.set())
        return answered.wait(1.0) and future.result().current_state.id == State.PRIMARY_STATE_ACTIVE

    def _on_chunk(self, message: ActionChunk) -> None:
        chunk = chunk_from_message(message, self._robot)
        if isinstance(chunk, Refusal):
            self.get_logger().warning(f"not compared: {chunk}")
            return
        with self._heard:
            self._chunks.append(chunk)
            self._silent_frames = 0
            self._heard.notify()

    def _on_status(self, status: PolicyStatus) -> None:
        with self._heard:
            self._refusing = not status.producing
            self._heard.notify()

    def _answered(self, stamp_ns: int) -> bool:
        if stamp_ns not in self._complete:
            self._incomplete += 1
            return False
        begin_s, limit_s = time.monotonic(), self.value("answer_limit_s")
        with self._heard:
            while not (self._chunks and self._chunks[-1].stamp_ns >= stamp_ns):
                # Whoever refuses once has a reason that lasts, more often than not.
                most_s = (min(limit_s, REFUSED_S) if self._refusing else limit_s) * 0.5**self._silent_frames
                left_s = begin_s + most_s - time.monotonic()
                if self._stopping.is_set() or left_s <= 0.0:
                    self._silent_frames += 1
                    return False
                self._heard.wait(min(left_s, POLL_S))
            return True

    def _log_progress(self, played_s: float, frames: int) -> None:
        if time.monotonic() < self._progress_logged_s + PROGRESS_S:
            return
        self._progress_logged_s = time.monotonic()
        self.get_logger().info(
            f"{played_s:.1f} of {self._length_s:.1f} s: {frames} frames, {len(self._chunks)} chunks,"
            f" {self._incomplete} frames without an image or a joint state"
        )

    def _end_when_done(self) -> None:
        if self._done.is_set() and self.active:
            if self._error:
                self.get_logger().error(self._error)
                self.exit_code = 1
            self.finished = True

    def _needed_topics(self) -> list[str]:
        robot: Robot = self._robot
        feedback = [t for limb in robot.limbs for t in (limb.topics.arm_feedback, limb.topics.gripper_feedback)]
        return [*(camera.topic for camera in robot.cameras), *feedback]

    def _played_topics(self) -> list[str]:
        return [*self._needed_topics(), *(camera.camera_info for camera in self._robot.cameras), *SHOWN]


def _profile(topic: str) -> QoSProfile:
    profile = qos.stream("reliable", QUEUE_DEPTH)
    if topic in LATCHED:
        profile.durability = DurabilityPolicy.TRANSIENT_LOCAL
    return profile


def main() -> int:
    return run(ReplayNode, about=__doc__, parameters=PARAMETERS)


if __name__ == "__main__":
    sys.exit(main())
