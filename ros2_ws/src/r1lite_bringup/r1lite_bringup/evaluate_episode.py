"""One scene after another in a running graph: staged, handed over, recorded, scored from the progress of the task."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from depthvla_msgs.msg import ActionChunk, ExecutorStatus, TaskProgress

from depthvla_control.arbiter import Mode
from depthvla_control.ros import qos
from depthvla_control.ros.messages import nanoseconds
from depthvla_control.ros.probe import Heard, Probe, wait_until
from depthvla_evaluation.nodes.session_graph import SessionGraph
from depthvla_evaluation.rollouts.rollout import EpisodeResult, EvaluationError

SIMULATOR, POLICY = "/simulator_node", "/policy_node"
EXECUTOR, RECORDER = "/chunk_executor_node", "/episode_recorder_node"
SUCCESS_HOLD_S = 0.5  # as in the Gymnasium environments
READY_S = 30.0  # for each step of getting ready
SETTLE_S = 0.2  # until images and feedback of a new scene have come through


class Episodes:
    """setting: name under which the report groups the recordings, beside the model's id. limit_s: of an episode.
    substeps: of the task.
    """

    def __init__(self, task: str, setting: str, limit_s: float, substeps: Sequence[str]) -> None:
        self._task, self._setting, self._limit_s, self._substeps = task, setting, limit_s, substeps
        self._policy = ""

    def __enter__(self) -> Episodes:
        with contextlib.ExitStack() as stack:
            self._probe = stack.enter_context(Probe("evaluation"))
            self._graph = SessionGraph(recorder=RECORDER, policy=POLICY, executor=EXECUTOR, simulator=SIMULATOR)
            stack.callback(self._graph.close)
            listen = self._probe.listen
            self._chunks: Heard = listen(ActionChunk, f"{POLICY}/action_chunk", qos.chunks(0.0))
            self._status: Heard = listen(ExecutorStatus, f"{EXECUTOR}/status", qos.status())
            self._progress: Heard = listen(TaskProgress, f"{SIMULATOR}/task_progress", qos.status())
            self._left = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._left.close()

    def wait_for_policy(self, limit_s: float) -> str:
        """The model's id, once the graph is up and the policy predicts."""
        self._until(lambda: self._chunks and self._status and self._progress, lambda: "a first chunk", limit_s)
        self._until(lambda: self._graph.idle, lambda: "an idle recorder", limit_s)
        self._policy = self._chunks[-1].model_id
        return self._policy

    def run(self, seed: int, bag: Path) -> tuple[EpisodeResult, str]:
        """The scene of `seed`, recorded in `bag`, and why the recording is not whole; empty when it is.

        Raises:
            EvaluationError: there was no episode.
        """
        instruction = self._stage(seed)
        about = {"task": self._task, "instruction": instruction, "setting": self._setting}
        _done(self._graph.start(bag, scene=f"seed {seed}", policy=self._policy, **about))
        try:
            self._hand_over()
            for heard in (self._chunks, self._status, self._progress):
                del heard[:-1], heard.times_s[:-1]  # of a long evaluation, too, memory holds one episode
            begin = self._status[-1]
            success = self._follow()
        except BaseException:
            self._graph.stop("aborted", "the evaluation was interrupted")
            raise
        end = self._status[-1]
        result = self._result(seed, instruction, begin, end)
        result.success = success
        return result, self._graph.stop("success" if success else "failure")

    def _stage(self, seed: int) -> str:
        """Returns the scene's instruction when the policy has predicted something in it."""
        self._ask("disarm")
        self._until(lambda: Mode(self._status[-1].mode) is Mode.DISARMED, lambda: "mode DISARMED")
        _done(self._graph.reset_scene(seed))
        instruction = self._graph.staged_instruction
        _done(self._graph.set_instruction(instruction))
        since_ns = self._probe.now_ns() + round(SETTLE_S * 1e9)
        self._until(
            lambda: any(_stamp(c) > since_ns and c.instruction == instruction for c in self._chunks[-1:]),
            lambda: "a chunk for the new scene",
        )
        return instruction

    def _hand_over(self) -> None:
        self._ask("arm")
        refusals: list[str] = []

        def given() -> bool:
            refusals.append(self._graph.give_command())
            return not refusals[-1]

        self._until(given, lambda: f"the policy in command: {refusals[-1]}")
        self._until(lambda: Mode(self._status[-1].mode) is Mode.POLICY, lambda: "mode POLICY")

    def _follow(self) -> bool:
        """Until the task was done for SUCCESS_HOLD_S, or the time is over; whether it was done."""
        deadline_s = time.monotonic() + self._limit_s
        while time.monotonic() < deadline_s:
            if held_s(list(self._progress)) >= SUCCESS_HOLD_S:
                return True
            time.sleep(0.02)
        return False

    def _result(self, seed: int, instruction: str, begin: ExecutorStatus, end: ExecutorStatus) -> EpisodeResult:
        chunks = [chunk for chunk in self._chunks if _stamp(chunk) > _stamp(begin)]
        seconds = [1e-9 * (nanoseconds(c.preprocess_time) + nanoseconds(c.inference_time)) for c in chunks]
        return EpisodeResult(
            seed,
            instruction,
            progress=max(float(progress.progress) for progress in self._progress),
            substeps=substep_steps(self._substeps, self._progress, self._status),
            steps=end.ticks - begin.ticks,
            chunks=len(chunks),
            chunks_refused=end.chunks_refused - begin.chunks_refused,
            held_steps=sum(Mode(status.mode) is not Mode.POLICY for status in self._status),
            clamped_position=end.clamped_position - begin.clamped_position,
            clamped_velocity=end.clamped_velocity - begin.clamped_velocity,
            inference_s=seconds,
        )

    def _ask(self, service: str) -> None:
        """A Trigger of the executor, until it is granted."""
        answers: list[str] = []

        def granted() -> bool:
            answer = self._probe.trigger(f"{EXECUTOR}/{service}")
            answers.append(answer.message)
            return answer.success

        self._until(granted, lambda: f"~/{service}: {answers[-1]}")

    def _until(self, condition: Callable, what: Callable[[], str], limit_s: float = READY_S):
        """The first true value. Raises EvaluationError."""
        try:
            return wait_until(condition, limit_s, what)
        except AssertionError as error:
            raise EvaluationError(f"{error}; the executor is in {self._graph.mode or 'no mode'}") from error


def held_s(progress: list[TaskProgress]) -> float:
    """How long the task has been done without a break, until the newest message [s]."""
    begin_ns = None
    for message in reversed(progress):
        if not message.success:
            break
        begin_ns = _stamp(message)
    return 0.0 if begin_ns is None else (_stamp(progress[-1]) - begin_ns) * 1e-9


def substep_steps(
    names: Sequence[str], progress: Sequence[TaskProgress], status: Sequence[ExecutorStatus]
) -> dict[str, int | None]:
    """Control steps, from the first status on, until each substep was seen to be done; None: never.

    Progress comes 5 times a second, so a step is at most 3 late.
    """
    found: dict[str, int | None] = dict.fromkeys(names)
    for message in progress:
        ticks = max((item.ticks for item in status if _stamp(item) <= _stamp(message)), default=status[0].ticks)
        for name in message.done:
            if found[name] is None:
                found[name] = max(ticks - status[0].ticks, 1)
    return found


def _done(failed: str) -> None:
    if failed:
        raise EvaluationError(failed)


def _stamp(message) -> int:
    return nanoseconds(message.header.stamp)
