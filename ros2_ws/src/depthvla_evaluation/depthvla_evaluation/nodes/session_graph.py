"""The node graph as an evaluation session sees it: what it is asked, and what the recorder and the executor say."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import rclpy
from depthvla_msgs.msg import ModeChange, RecorderStatus, TaskProgress
from depthvla_msgs.srv import MarkSubstep, ResetScene, SetInstruction, SetMode, StartEpisode, StopEpisode
from rcl_interfaces.srv import GetParameters
from rclpy.executors import SingleThreadedExecutor
from rclpy.signals import SignalHandlerOptions
from rclpy.task import Future
from std_srvs.srv import Trigger

from depthvla_control.arbiter import Mode
from depthvla_control.operator_input import ANSWER_LIMIT_NS, REPEAT_LIMIT_NS
from depthvla_control.ros import qos
from depthvla_control.ros.messages import nanoseconds
from depthvla_evaluation.nodes.episode_recorder_node import folder_below

ANSWER_LIMIT_S = 5.0
CLOSE_LIMIT_S = 30.0  # a bag is closed before ~/stop answers
RESET_LIMIT_S = 15.0
STATUS_LIMIT_S = 3.0  # from an answer of the recorder to the status that has it
SILENCE_LIMIT_S = 4.0  # the recorder speaks once a second
POLL_S = 0.01


class SessionGraph:
    """A node spun in the background. What is asked returns why it was not done; "" where it was.

    recorder, policy, executor, simulator: full names of the nodes. say: is told what becomes of a stop, on any thread.
    """

    def __init__(
        self,
        *,
        recorder: str,
        policy: str,
        executor: str,
        simulator: str,
        say: Callable[[str], None] = lambda text: None,
    ) -> None:
        # A signal must reach the session, which stops the recording before the context goes.
        rclpy.init(args=[], signal_handler_options=SignalHandlerOptions.NO)
        self.recorder = recorder
        self.status: RecorderStatus | None = None
        self.mode = ""
        self._heard_s = time.monotonic()
        self._node = node = rclpy.create_node("evaluation_session")
        self._asked_ns = self._now_ns()
        self._start = node.create_client(StartEpisode, f"{recorder}/start")
        self._mark = node.create_client(MarkSubstep, f"{recorder}/mark")
        self._stop = node.create_client(StopEpisode, f"{recorder}/stop")
        self._instruction = node.create_client(SetInstruction, f"{policy}/set_instruction")
        self._set_mode = node.create_client(SetMode, f"{executor}/set_mode")
        self._parameters = node.create_client(GetParameters, f"{recorder}/get_parameters")
        self._disarm = node.create_client(Trigger, f"{executor}/disarm")
        self._reset = node.create_client(ResetScene, f"{simulator}/reset")
        self._simulator, self._progress = simulator, None
        node.create_subscription(TaskProgress, f"{simulator}/task_progress", self._on_progress, qos.status())
        self._say, self._said = say, ("", -math.inf)
        self._stop_arms = node.create_client(Trigger, f"{executor}/stop")
        self._stops: dict[Future, float] = {}  # that are not answered yet, and when they were asked for
        self._stop_waits = False  # for an executor to be there
        node.create_subscription(RecorderStatus, f"{recorder}/status", self._on_status, qos.status())
        self._modes = node.create_subscription(ModeChange, f"{executor}/mode", self._on_mode, qos.status())
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._spin, name="session_graph", daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._wait(lambda: not self._stops, ANSWER_LIMIT_NS * 1e-9)
        self._stopping.set()
        self._thread.join()
        self._node.destroy_node()
        rclpy.shutdown()

    @property
    def recorder_gone(self) -> bool:
        return time.monotonic() - self._heard_s > SILENCE_LIMIT_S

    @property
    def recording(self) -> Path | None:
        """The bag that is being recorded, as far as the recorder said."""
        status = self.status
        return Path(status.bag) if status and status.state == RecorderStatus.RECORDING else None

    @property
    def up_to_date(self) -> bool:
        """Whether the recorder's status is newer than the last request to it, and than this session."""
        return self.status is not None and nanoseconds(self.status.header.stamp) > self._asked_ns

    @property
    def idle(self) -> bool:
        """Whether there is a recorder, and it certainly records nothing."""
        return self.up_to_date and not self.recorder_gone and self.recording is None

    def catch_up(self) -> None:
        """Waits for a status that is up to date, as long as the recorder is there."""
        self._wait(lambda: self.up_to_date or self.recorder_gone, SILENCE_LIMIT_S)

    def ended(self, bag: Path) -> str:
        """Why a bag is no longer being recorded; empty while it is."""
        if self.recorder_gone:
            return f"{self.recorder} IS SILENT"
        if self.recording == bag:
            return ""
        if self.status.state == RecorderStatus.FAILED:
            return f"EPISODE FAILED: {self.status.reason}"
        if self.status.bag == str(bag):
            return "somebody else ended the recording"
        return f"{self.recorder} DOES NOT KNOW OF THIS EPISODE ANY MORE"

    def start(self, bag: Path, **about: str) -> str:
        """`about`: the other fields of StartEpisode. Returns when the recorder's status has the new bag."""
        failed = self._ask(self._start, bag=str(bag), **about)
        if failed or self._wait(lambda: self.recording == bag, STATUS_LIMIT_S):
            return failed
        return f"{self.recorder} says that it records {bag}, but its status does not"

    def mark(self, substep: str) -> str:
        failed = self._ask(self._mark, substep=substep)
        if not failed:
            self._wait(lambda: substep in self.status.substeps, STATUS_LIMIT_S)
        return failed

    def undo(self, substep: str) -> str:
        """Takes the newest mark back, which is that of `substep`."""
        failed = self._ask(self._mark, undo=True)
        if not failed:
            self._wait(lambda: substep not in self.status.substeps, STATUS_LIMIT_S)
        return failed

    def stop(self, outcome: str, notes: str = "") -> str:
        """Returns when the bag is closed, or the recorder does not answer."""
        failed = self._ask(self._stop, CLOSE_LIMIT_S, outcome=outcome, notes=notes)
        self._wait(lambda: not self.recording, STATUS_LIMIT_S)
        return failed

    def check_folder(self, folder: Path) -> None:
        """Raises ValueError where the recorder would not record below a folder."""
        answer, _ = self._call(self._parameters, ANSWER_LIMIT_S, names=["bag_root"])
        root = answer.values[0].string_value if answer and answer.values else ""
        if Path(root).is_absolute():  # another one is relative to the folder in which the recorder was started
            folder_below(root, str(folder / "episode"))

    def set_instruction(self, instruction: str) -> str:
        return self._ask(self._instruction, instruction=instruction)

    def reset_scene(self, seed: int) -> str:
        """Returns when the simulator tells of the new scene, whose sentence is `staged_instruction` then."""
        failed = self._ask(self._reset, RESET_LIMIT_S, seed=seed)
        if failed or self._wait(lambda: self._tells_of(seed), STATUS_LIMIT_S):
            return failed
        return f"{self._simulator} says that it staged the scene of seed {seed}, but its task_progress does not"

    @property
    def staged_instruction(self) -> str:
        """What the scene asks for, as the simulator says."""
        return self._progress.instruction if self._progress else ""

    def _tells_of(self, seed: int) -> bool:
        progress = self._progress
        return progress is not None and progress.seed == seed and nanoseconds(progress.header.stamp) > self._asked_ns

    def disarm_for_reset(self) -> str:
        """Returns when the arms have come to rest and are disarmed. Without a simulator nothing is disarmed."""
        if not self._reset.wait_for_service(ANSWER_LIMIT_S):
            return f"no {self._reset.srv_name}: does its node run?"
        if not self._wait(lambda: bool(self.mode), STATUS_LIMIT_S):
            return f"no {self._modes.topic_name}: is the executor running?"
        if self._disarmed():
            return ""
        failed = self._ask(self._disarm)
        if failed or self._wait(self._disarmed, ANSWER_LIMIT_S):
            return failed
        return f"the executor is still in {self.mode} {ANSWER_LIMIT_S:g} s after it was asked to disarm"

    def _disarmed(self) -> bool:
        return self.mode in (Mode.DISARMED.name, Mode.FAULT.name)

    def give_command(self) -> str:
        """Asks for POLICY, as the console's key does; the executor decides."""
        return self._ask(self._set_mode, mode=int(Mode.POLICY))

    def stop_arms(self) -> None:
        """Asks the executor for a stop at once, whatever else is being asked, and waits for nothing. Any thread may."""
        if not self._stop_arms.service_is_ready():
            self._stop_waits = True
            self._say_once(f"STOP: NOT SENT YET: no {self._stop_arms.srv_name}: is the executor running?")
            return
        self._stop_waits = False
        future = self._stop_arms.call_async(Trigger.Request())
        self._stops[future] = time.monotonic()
        future.add_done_callback(self._on_stopped)

    def _on_stopped(self, future: Future) -> None:
        self._stops.pop(future, None)
        answer, failed = (None, future.exception()) if future.exception() else (future.result(), None)
        done = f"{'done' if answer.success else 'REFUSED'}: {answer.message}" if answer else f"NO ANSWER: {failed}"
        self._say_once(f"STOP: {done}")

    def _watch_stops(self) -> None:
        if self._stop_waits and self._stop_arms.service_is_ready():
            self.stop_arms()
        limit_s = ANSWER_LIMIT_NS * 1e-9
        for future, asked_s in list(self._stops.items()):
            if time.monotonic() - asked_s > limit_s:
                self._stops.pop(future, None)
                self._say_once(f"STOP: NO ANSWER of {self._stop_arms.srv_name} within {limit_s:g} s: USE THE E-STOP")

    def _say_once(self, text: str) -> None:
        """A key that is held asks again and again."""
        said, at_s = self._said
        self._said = (text, time.monotonic())
        if text != said or time.monotonic() - at_s > REPEAT_LIMIT_NS * 1e-9:
            self._say(text)

    def _ask(self, client, limit_s: float = ANSWER_LIMIT_S, **request) -> str:
        answer, failed = self._call(client, limit_s, **request)
        return failed if answer is None else "" if answer.success else f"{client.srv_name}: {answer.message}"

    def _call(self, client, limit_s: float, **request) -> tuple[Any, str]:
        """The answer, or None and why there is none."""
        name = client.srv_name
        if not client.wait_for_service(ANSWER_LIMIT_S):
            return None, f"no {name}: does its node run?"
        self._asked_ns = self._now_ns()
        future = client.call_async(client.srv_type.Request(**request))
        if not self._wait(future.done, limit_s):
            client.remove_pending_request(future)
            return None, f"no answer of {name} within {limit_s:g} s"
        return future.result(), ""

    def _now_ns(self) -> int:
        return self._node.get_clock().now().nanoseconds

    @staticmethod
    def _wait(condition: Callable[[], bool], limit_s: float) -> bool:
        deadline_s = time.monotonic() + limit_s
        while not condition():
            if time.monotonic() > deadline_s:
                return False
            time.sleep(POLL_S)
        return True

    def _on_status(self, status: RecorderStatus) -> None:
        self.status, self._heard_s = status, time.monotonic()

    def _on_progress(self, progress: TaskProgress) -> None:
        self._progress = progress

    def _on_mode(self, change: ModeChange) -> None:
        self.mode = Mode(change.mode).name

    def _spin(self) -> None:
        executor = SingleThreadedExecutor()
        executor.add_node(self._node)
        while not self._stopping.is_set():
            executor.spin_once(timeout_sec=0.05)
            self._watch_stops()
        executor.shutdown()
