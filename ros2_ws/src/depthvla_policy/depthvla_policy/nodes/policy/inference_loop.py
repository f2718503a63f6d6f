"""The policy's working loop: take an observation, infer, hand the result over. On a thread of its own.

Knows no ROS: the buffer, the policy, the clocks and what is done with results are handed in.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from depthvla_control.execution_plan import Continuation
from depthvla_control.refusal import Reason, Refusal
from depthvla_control.worker import Worker
from depthvla_policy.nodes.policy.decoders import Decoders, UndecodableError
from depthvla_policy.policy.observation import Observation, noise_seed
from depthvla_policy.policy.observation_buffer import ObservationBuffer, RawObservation, camera_stream

if TYPE_CHECKING:  # torch is imported when a checkpoint is loaded, not with this module
    from depthvla_policy.policy.policy import Policy, Prediction

# Without new frames the loop still looks this often, so that a camera that stopped is reported in time.
IDLE_S = 0.01
# Chunks a second where nobody says: on a CPU one for every fourth head image, as the policies are evaluated
# (--execute 4), and two cores do no more beside the rest. On a GPU for every second: a chunk of the full network takes
# 0.02 to 0.08 s there, and the blend of 0.1 s is over before the next.
CPU_HZ, GPU_HZ = 3.75, 7.5
EARLY = 0.1  # of the interval between two chunks: so much earlier than due an image may come


@dataclass(frozen=True)
class Inference:
    """One chunk and what it was made from."""

    sequence: int
    raw: RawObservation
    observation: Observation
    prediction: Prediction
    begin_s: float  # when the observation was taken, on the loop's steady clock
    decode_s: float  # from then until its images were there, most of them decoded before
    continuation: Continuation | None = None  # the motion that it continues


class InferenceLoop:
    """Makes at most one chunk per reference frame and `interval_s`.

    `result` is called with every chunk and `refused` with every reason for making none, both on the loop's thread.
    Whatever raises is such a reason, and the next round is tried. `worker` tells whether the thread still works: it
    dies when `refused` raises or something asks the thread to exit, and hangs when a round takes longer than `hang_s`.
    """

    def __init__(
        self,
        *,
        buffer: ObservationBuffer,
        policy: Policy,
        decode: Callable[[Any], np.ndarray],
        poll: Callable[[], None],
        instruction: Callable[[], str],
        depth_wanted: Callable[[], bool],
        result: Callable[[Inference], None],
        refused: Callable[[Refusal], None],
        now_ns: Callable[[], int],
        interval_s: float = 0.0,
        continuation: Callable[[int], Continuation | None] = lambda stamp_ns: None,
        method: str = "guided",
        noise_seed: int = -1,
        hang_s: float = math.inf,
        steady_s: Callable[[], float] = time.perf_counter,
    ) -> None:
        """`poll` brings the buffer up to date; `decode` turns the buffer's image payload into (H, W, 3) uint8 RGB.

        `interval_s`: between two chunks on average, the least; a single one may come a tenth of it early.

        `continuation` is asked with an observation's stamp for the motion that its chunk continues, in the way of
        `method` (see `Policy.infer`). `noise_seed`: see the parameter of policy_node.
        """
        self._buffer, self._policy = buffer, policy
        self._decode, self._poll = decode, poll
        self._instruction, self._depth_wanted = instruction, depth_wanted
        self._result, self._refused = result, refused
        self._now_ns, self._steady_s = now_ns, steady_s
        self._interval_s = interval_s
        self._continuation, self._method = continuation, method
        self._noise_seed = noise_seed
        self._decoders = Decoders(self._decode_and_fit)
        self._due_s = -np.inf
        self._sequence = 0
        self._woken = threading.Event()
        self._stopping = threading.Event()
        self.worker = Worker("inference", self._run, hang_s, steady_s)

    def start(self) -> None:
        self.worker.start()

    def expect(self, camera: str, payload: Any) -> None:
        """An image came that the next chunk may be made of. It is decoded while the loop does something else."""
        if self._steady_s() > self._open_s - IDLE_S:
            self._decoders.begin(camera, payload)

    def wake(self) -> None:
        """Something new came that may complete an observation."""
        self._woken.set()

    def stop(self, timeout_s: float) -> None:
        """No result is handed over after this returns. Raises TimeoutError when an inference does not end."""
        self._stopping.set()
        self._woken.set()
        ended = self.worker.join(timeout_s)
        self._decoders.close()
        if not ended:
            raise TimeoutError(f"the running inference did not end within {timeout_s} s")

    def attempt(self) -> None:
        """One round: a result, a refusal, or neither while waiting."""
        try:
            self._attempt()
        except Exception as error:
            self._refused(Refusal(Reason.FAILED, f"the inference loop failed: {type(error).__name__}: {error}", "loop"))

    def _attempt(self) -> None:
        begin = self._steady_s()
        self._poll()
        if begin < self._open_s:  # too early for another chunk, not for saying that a stream has ended
            # A chunk is made of an image that has just come, not of one that has waited until it was time.
            self._buffer.skip()
            wrong = self._buffer.check(self._now_ns())
            if wrong:
                self._refused(wrong)
            return
        instruction = self._instruction()
        if not instruction:
            self._refused(Refusal(Reason.MISSING, "no instruction is set; call ~/set_instruction", "instruction"))
            return
        raw = self._buffer.take(self._now_ns())
        if isinstance(raw, Refusal):
            if raw.reason is not Reason.WAITING:
                self._refused(raw)
            return
        self._due_s = max(self._due_s, begin) + self._interval_s
        outcome = self._infer(raw, instruction, begin)
        if self._stopping.is_set():
            return
        if isinstance(outcome, Refusal):
            self._refused(outcome)
        else:
            self._result(outcome)

    def _infer(self, raw: RawObservation, instruction: str, begin: float) -> Inference | Refusal:
        try:
            pictures = self._decoders.results(raw.images)
            decoded = self._steady_s()
            images = {camera: image for camera, (image, _) in pictures.items()}
            observation = Observation(raw.stamp_ns, images, raw.state, instruction)
            continuation = self._continuation(raw.stamp_ns)
            options: dict[str, Any] = {"fitted": {camera: fitted for camera, (_, fitted) in pictures.items()}}
            if continuation:
                options |= {"committed": continuation.committed, "delay": continuation.delay, "method": self._method}
            if self._noise_seed >= 0:
                options["seed"] = noise_seed(self._noise_seed, raw.stamp_ns)
            prediction = self._policy.infer(observation, depth=self._depth_wanted(), **options)
        except UndecodableError as error:
            refusal = Refusal(Reason.DAMAGED, str(error), camera_stream(error.camera))
            self._buffer.refuse_image(error.camera, refusal, self._now_ns())
            return refusal
        except Exception as error:
            return Refusal(Reason.FAILED, f"inference failed: {type(error).__name__}: {error}", "inference")
        if not np.all(np.isfinite(prediction.actions)):
            return Refusal(Reason.NON_FINITE, "the model predicted a non-finite target", "inference")
        self._sequence += 1
        return Inference(self._sequence, raw, observation, prediction, begin, decoded - begin, continuation)

    @property
    def _open_s(self) -> float:
        """From when on an image is taken: a little before the chunk is due, since images do not come to the dot."""
        return self._due_s - EARLY * self._interval_s

    def _decode_and_fit(self, payload: Any) -> tuple[np.ndarray, np.ndarray]:
        image = self._decode(payload)
        return image, self._policy.image_fit.apply(image)

    def _run(self) -> None:
        while not self._stopping.is_set():
            pause = max(self._open_s - self._steady_s(), 0.0)
            if pause:
                self._stopping.wait(min(pause, IDLE_S))
            else:
                self._woken.wait(IDLE_S)
                self._woken.clear()
            if not self._stopping.is_set():
                with self.worker.busy():
                    self.attempt()


def chunk_rate_hz(asked_hz: float, device: str) -> float:
    """asked_hz: 0 where nobody says. device: cpu, cuda or cuda:N."""
    return asked_hz or (GPU_HZ if device.startswith("cuda") else CPU_HZ)
