"""Runs a policy on the robot's cameras and joints and publishes action chunks. Declares, converts, delegates.

Callbacks only store what came and have images decoded; taking and inferring happen on the thread of `InferenceLoop`.
"""

from __future__ import annotations

import dataclasses
import gc
import math
import sys
import threading
import time
from collections import Counter, deque
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from depthvla_msgs.msg import ActionChunk, PolicyStatus, Source
from depthvla_msgs.msg import Plan as PlanMessage
from depthvla_msgs.srv import SetInstruction
from rcl_interfaces.msg import SetParametersResult
from rclpy.clock import Clock, ClockType
from rclpy.parameter import Parameter as RosParameter
from sensor_msgs.msg import CompressedImage, Image, JointState

from depthvla_control.chunk import Chunk
from depthvla_control.execution_plan import REALTIME_CHUNKING, Continuation, Plan
from depthvla_control.refusal import Reason, Refusal
from depthvla_control.ros import qos
from depthvla_control.ros.diagnostics import ERROR, OK, WARN, Health
from depthvla_control.ros.messages import (
    check_limbs,
    chunk_to_message,
    duration_message,
    nanoseconds,
    plan_from_message,
    time_message,
)
from depthvla_control.ros.parameters import Parameter
from depthvla_control.ros.polling import PolledSubscription
from depthvla_control.ros.runtime import ManagedNode, run
from depthvla_policy.nodes.policy import camera_calibration
from depthvla_policy.nodes.policy.depth_publisher import DepthFrame, DepthPublisher
from depthvla_policy.nodes.policy.inference_loop import CPU_HZ, GPU_HZ, Inference, InferenceLoop, chunk_rate_hz
from depthvla_policy.policy.camera_images import EncodedImage, EncodingError, camera_image, encoded_image
from depthvla_policy.policy.observation import Observation
from depthvla_policy.policy.observation_buffer import JOINT_DEPTH, ObservationBuffer, ObservationLimits, camera_stream
from r1lite_description import robot as robot_description
from r1lite_description.robot import Camera, Robot

if TYPE_CHECKING:  # torch is imported when the node is configured
    from depthvla_policy.policy.policy import Policy

STATUS_PERIOD_S = 1.0
WATCH_PERIOD_S = 0.1
STOP_TIMEOUT_S = 10.0
IMAGE_DEPTH = 2
TIMINGS_KEPT = 512
# Reasons that also speak against what was predicted before.
BLIND = (Reason.MISSING, Reason.STALE, Reason.FROZEN)
LIMITS = ObservationLimits()

PARAMETERS = (
    Parameter("robot_file", "", "Robot description; empty takes the R1 Lite's of r1lite_description."),
    Parameter("model", "", "Checkpoint folder with config.json, model.safetensors, statistics and tokenizer."),
    Parameter("device", "cpu", "Where the network runs: cpu, cuda or cuda:N."),
    Parameter("torch_threads", 1, "Threads of one inference on a CPU.", 1, 64),
    Parameter("instruction", "", "What the robot is asked to do; also ~/set_instruction.", read_only=False),
    Parameter(
        "max_rate_hz", 15.0, f"Chunks are made at most this often; 0: {CPU_HZ} on a CPU, {GPU_HZ} on a GPU.", 0.0, 100.0
    ),
    Parameter(
        "noise_seed",
        -1,
        "With 0 or more, a chunk's noise depends on this and on the stamp of its observation alone, so that a recording"
        " can be predicted again to the bit; -1: it never repeats.",
        -1,
        2**31 - 1,
    ),
    Parameter(
        "realtime_chunking",
        "off",
        "How chunks continue the motion in execution (~/plan): not at all, guided (any checkpoint) or trained (one"
        " trained with max_delay).",
        choices=REALTIME_CHUNKING,
    ),
    Parameter(
        "camera_max_age_s", LIMITS.camera_max_age_s, "No chunk when a camera's newest image is older.", 0.01, 5.0
    ),
    Parameter(
        "camera_frozen_after_s",
        LIMITS.camera_frozen_after_s,
        "No chunk when a camera has sent the same image to the bit for longer; 0: images are not compared.",
        0.0,
        5.0,
    ),
    Parameter(
        "camera_max_skew_s", LIMITS.camera_max_skew_s, "Most time between the head image and another.", 0.001, 1.0
    ),
    Parameter("joint_max_age_s", LIMITS.joint_max_age_s, "No chunk when joint feedback is older.", 0.01, 5.0),
    Parameter(
        "joint_max_skew_s", LIMITS.joint_max_skew_s, "Most time between the head image and feedback.", 0.001, 1.0
    ),
    Parameter("max_future_s", LIMITS.max_future_s, "How far a stamp may be ahead of this clock.", 0.001, 1.0),
    Parameter(
        "hang_s",
        1.0,
        "The policy is withdrawn, with an error, when an inference takes longer or has failed again and again for so"
        " long: about what a chunk lasts, so that none is given up that could still be followed. 0: never.",
        0.0,
        3600.0,
    ),
    Parameter("depth", True, "Publish predicted depth while somebody subscribes to it."),
    Parameter("depth_colour_near_m", 0.1, "Distance shown as nearest in the colour image [m].", 0.0, 10.0),
    Parameter("depth_colour_far_m", 2.0, "Distance shown as farthest in the colour image [m].", 0.1, 100.0),
)


def load_policy(folder: str, device: str, torch_threads: int, robot: Robot) -> Policy:
    """A policy from its checkpoint. Raises ValueError or FileNotFoundError naming what is wrong with it."""
    if not folder:
        raise ValueError("parameter 'model' is empty; it must name a checkpoint folder")
    if not Path(folder).is_dir():  # before torch is imported, which takes seconds
        raise FileNotFoundError(f"checkpoint {folder} does not exist")
    import torch

    from depthvla_policy.policy.policy import Policy

    torch.set_num_threads(torch_threads)
    return Policy.load(folder, device, robot)


class PolicyNode(ManagedNode):
    """~/action_chunk, ~/status, ~/depth/*; ~/set_instruction. Cameras and feedback as the robot description says, and
    ~/plan where chunks continue the motion in execution.

    ~/status is published by the executor's thread alone. Its stamp is when its state began; that of a withdrawal is no
    older than any chunk before it, and no chunk of an observation up to then follows. So a withdrawal speaks against
    the chunks whose stamps are not after its own, in whatever order they are received.
    """

    def __init__(self, load: Callable[[str, str, int, Robot], Policy] = load_policy, **kwargs) -> None:
        super().__init__("policy_node", PARAMETERS, **kwargs)
        self._load = load
        self._loop: InferenceLoop | None = None
        self._depth: DepthPublisher | None = None
        self._changed_guard = None
        self.add_on_set_parameters_callback(self._check_parameters)

    def configure(self) -> None:
        robot = robot_description.load(self.value("robot_file") or None)
        check_limbs(robot)
        self._robot = robot
        self.declare_more(_robot_parameters(robot))
        near, far = self.value("depth_colour_near_m"), self.value("depth_colour_far_m")
        if near >= far:
            raise ValueError(f"depth_colour_near_m is {near}; it must be below depth_colour_far_m, which is {far}")
        self._policy = self._load(self.value("model"), self.value("device"), self.value("torch_threads"), robot)
        self._method = self.value("realtime_chunking")
        seconds = _warm_up(self._policy, robot, self._method)
        self.get_logger().info(f"{self._policy.model_id} on {self.value('device')}, warm after {seconds:.2f} s")
        self._chunk_publisher = self.create_lifecycle_publisher(ActionChunk, "~/action_chunk", qos.chunks())
        self._status_publisher = self.create_lifecycle_publisher(PolicyStatus, "~/status", qos.status())
        self._calibrations = camera_calibration.of_policy(self, self._policy, for_depth=self._publishes_depth)
        self._depth = self._make_depth_publisher()
        for name in self._policy.cameras:
            self._subscribe_camera(robot.camera(name))
        profile = qos.stream(self.value("sensor_reliability"), JOINT_DEPTH)
        self._joints = [
            (
                limb.name,
                PolledSubscription(self, JointState, limb.topics.arm_feedback, profile),
                PolledSubscription(self, JointState, limb.topics.gripper_feedback, profile),
            )
            for limb in robot.limbs
        ]
        self._plans: PolledSubscription | None = None
        if self._method != "off":
            self._plans = PolledSubscription(self, PlanMessage, "~/plan", qos.chunks(0.0))
        self.create_service(SetInstruction, "~/set_instruction", self._set_instruction)
        self._changed_guard = self.create_guard_condition(self._publish_status)
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        self.create_timer(STATUS_PERIOD_S, self._publish_status, clock=steady)
        self.create_timer(WATCH_PERIOD_S, self._watch, clock=steady)

    def activate(self) -> None:
        limits = {item.name: self.value(item.name) for item in dataclasses.fields(ObservationLimits)}
        self._buffer = ObservationBuffer(self._robot, self._policy.cameras, ObservationLimits(**limits))
        self._state = _State(Refusal(Reason.WAITING, "waiting for the first observation"), self._now_ns())
        self._state_lock, self._reported = threading.Lock(), _kind(self._state.refusal)
        self._problem = _State(None, 0)
        self._failing_since_s: float | None = None
        self._newest_ns = self._withdrawn_ns = 0  # stamps of the newest chunk and of the newest withdrawal
        self._chunks = self._continued = 0
        self._plan: Plan | None = None
        self._plan_refusals: Counter[Reason] = Counter()
        self._timings: deque[tuple[float, float]] = deque(maxlen=TIMINGS_KEPT)
        self._loop = InferenceLoop(
            buffer=self._buffer,
            policy=self._policy,
            decode=self._decode,
            poll=self._read_joints,
            instruction=lambda: self.value("instruction"),
            depth_wanted=self._depth.wanted if self._depth else lambda: False,
            result=self._publish_chunk,
            refused=self._report,
            now_ns=self._now_ns,
            interval_s=1.0 / chunk_rate_hz(self.value("max_rate_hz"), self.value("device")),
            continuation=self._continuation,
            method=self._method,
            noise_seed=self.value("noise_seed"),
            hang_s=self.value("hang_s") or math.inf,
        )
        # What exists now stays. Without this every full collection would walk over all of it.
        gc.collect()
        gc.freeze()
        if self._depth:
            self._depth.start()
            self.workers.append(self._depth.worker)
        self._loop.start()
        self.workers.append(self._loop.worker)

    def deactivate(self) -> None:
        gc.unfreeze()
        self.workers.clear()
        loop, self._loop = self._loop, None
        try:
            loop.stop(STOP_TIMEOUT_S)
        finally:
            since_ns = max(self._now_ns(), self._newest_ns)
            self._send_status(_State(Refusal(Reason.NOT_ALLOWED, "deactivated"), since_ns), withdrawn=True)
        if self._depth:
            self._depth.stop(STOP_TIMEOUT_S)

    def cleanup(self) -> None:
        self._policy = self._depth = None
        if self._changed_guard is not None:
            self.destroy_guard_condition(self._changed_guard)
            self._changed_guard = None

    def health(self) -> Health:
        values = {
            "model": self._policy.model_id,
            "instruction": self.value("instruction"),
            "chunks": self._chunks,
            "continued chunks": self._continued,
            **{f"refused {name}: {reason.value}": count for (name, reason), count in self._buffer.refusals.items()},
            **{f"refused plan: {reason.value}": count for reason, count in self._plan_refusals.copy().items()},
        }
        if self._timings:
            total, network = np.array(list(self._timings)).T * 1e3
            values["latency p50 [ms]"] = float(np.median(total))
            values["latency p99 [ms]"] = float(np.percentile(total, 99))
            values["network p50 [ms]"] = float(np.median(network))
            values["everything else p99 [ms]"] = float(np.percentile(total - network, 99))
        refusal = self._state.refusal
        if self._problem.refusal:
            return Health(ERROR, str(self._problem.refusal), values)
        if refusal or (self._depth and self._depth.failure):
            return Health(WARN, str(refusal or self._depth.failure), values)
        return Health(OK, "producing chunks", values)

    def _subscribe_camera(self, camera: Camera) -> None:
        name = camera.name
        topic, transport = self.value(f"cameras.{name}.topic"), self.value(f"cameras.{name}.transport")
        compressed = transport == "compressed"

        def store(message: CompressedImage | Image) -> None:
            if self._loop is None:
                return
            now = self._now_ns()
            try:
                image = encoded_image(message, topic)
            except ValueError as error:
                reason = Reason.WRONG_ENCODING if isinstance(error, EncodingError) else Reason.WRONG_COUNT
                self._buffer.refuse_image(name, Refusal(reason, str(error)), now)
            else:
                self._loop.expect(name, image)  # first, since the buffer hands it out at once
                self._buffer.add_image(name, nanoseconds(message.header.stamp), image, now)
            self._loop.wake()

        profile = qos.stream(self.value("sensor_reliability"), IMAGE_DEPTH)
        self.create_subscription(CompressedImage if compressed else Image, topic, store, profile)

    def _decode(self, image: EncodedImage) -> np.ndarray:
        calibration = self._calibrations.get(image.topic)
        return camera_image(image, calibration.rectify if calibration else None)

    def _read_joints(self) -> None:
        now = self._now_ns()
        for limb, arm, gripper in self._joints:
            for message in arm.drain():
                self._buffer.add_arm(limb, nanoseconds(message.header.stamp), message.position, now, message.name)
            for message in gripper.drain():
                self._buffer.add_gripper(limb, nanoseconds(message.header.stamp), message.position, now, message.name)

    def _continuation(self, stamp_ns: int) -> Continuation | None:
        message = self._plans.newest() if self._plans else None
        if message is not None:
            plan = plan_from_message(message, self._robot)
            if isinstance(plan, Refusal):
                self._plan_refusals[plan.reason] += 1
                self.get_logger().warning(f"refused: {plan}", throttle_duration_sec=1.0)
                plan = None  # the plan before is no longer what is going to be executed
            self._plan = plan
        if self._plan is None:
            return None
        return self._plan.continuation(stamp_ns, period_ns=self._period_ns, horizon=self._policy.horizon)

    def _publish_chunk(self, inference: Inference) -> None:
        raw, prediction = inference.raw, inference.prediction
        with self._state_lock:
            withdrawn = raw.stamp_ns <= self._withdrawn_ns
            if not withdrawn:
                self._newest_ns, self._state = raw.stamp_ns, _State(None, self._now_ns())
        if withdrawn:
            self._report(Refusal(Reason.FAILED, "a chunk was ready only after it had been withdrawn", "inference"))
            return
        chunk = Chunk(raw.stamp_ns, inference.sequence, self._period_ns, prediction.actions, self._policy.model_id)
        message = chunk_to_message(chunk, self._robot)
        message.instruction = inference.observation.instruction
        message.sources = [Source(stream=name, stamp=time_message(ns)) for name, ns in raw.stamps_ns.items()]
        message.preprocess_time = _duration(inference.decode_s + prediction.preprocess_s)
        message.inference_time = _duration(prediction.inference_s)
        total_s = time.perf_counter() - inference.begin_s
        message.total_time = _duration(total_s)
        self._chunk_publisher.publish(message)
        self._chunks += 1
        self._continued += inference.continuation is not None
        self._timings.append((total_s, prediction.inference_s))
        self._report(None)
        if self._depth and prediction.depth_m:
            self._depth.offer(
                DepthFrame(
                    {name: raw.stamps_ns[camera_stream(name)] for name in prediction.depth_m},
                    prediction.depth_m,
                    {name: image.frame_id or self._robot.camera(name).frame_id for name, image in raw.images.items()},
                    inference.observation.images,
                )
            )
        # Now that nobody waits, what would otherwise be collected while an observation is made ready.
        gc.collect()

    def _report(self, refusal: Refusal | None) -> None:
        """The loop's thread says what is the case, and has it published when the reason changes: the numbers in its
        sentence change all the time.
        """
        if refusal is None or refusal.reason is not Reason.FAILED:
            self._failing_since_s = None
        elif self._failing_since_s is None:
            self._failing_since_s = time.monotonic()
        changed = _kind(refusal) != self._reported
        self._reported = _kind(refusal)
        with self._state_lock:
            self._state = _State(refusal, self._now_ns() if changed or refusal is None else self._state.stamp_ns)
        if changed:
            self._changed_guard.trigger()
            if refusal:
                self.get_logger().warning(f"no chunk: {refusal}", throttle_duration_sec=1.0)
            else:
                self.get_logger().info("producing chunks")

    def _watch(self) -> None:
        """Notices what the loop's thread cannot say itself."""
        if not self.active:
            return
        before, problem = self._problem, self._loop.worker.problem or self._failing()
        since_ns = before.stamp_ns if before.refusal else self._now_ns()
        self._problem = _State(Refusal(Reason.FAILED, problem) if problem else None, since_ns)
        if bool(before.refusal) != bool(problem):
            self._publish_status()
            if problem:
                self.get_logger().error(f"the policy is withdrawn: {problem}")

    def _failing(self) -> str:
        since_s, refusal = self._failing_since_s, self._state.refusal
        for_s = time.monotonic() - since_s if since_s is not None else 0.0
        return f"{refusal} (for {for_s:.1f} s)" if refusal and for_s > self.value("hang_s") > 0.0 else ""

    def _publish_status(self) -> None:
        if not self.active:
            return
        problem = self._problem
        with self._state_lock:
            state = problem if problem.refusal else self._state
            withdrawn = state is problem or (state.refusal is not None and state.refusal.reason in BLIND)
            if withdrawn:
                state = _State(state.refusal, max(state.stamp_ns, self._newest_ns))
                self._withdrawn_ns = max(self._withdrawn_ns, state.stamp_ns)
        self._send_status(state, withdrawn=withdrawn)

    def _send_status(self, state: _State, *, withdrawn: bool) -> None:
        status = PolicyStatus(
            producing=state.refusal is None,
            withdrawn=withdrawn,
            reason=str(state.refusal or ""),
            instruction=self.value("instruction"),
            model_id=self._policy.model_id,
            chunks=self._chunks,
            observations_refused=self._buffer.refused,
        )
        status.header.stamp = time_message(state.stamp_ns)
        self._status_publisher.publish(status)

    def _set_instruction(self, request: SetInstruction.Request, response: SetInstruction.Response):
        result = self.set_parameters([RosParameter("instruction", value=request.instruction)])[0]
        response.success, response.message = result.successful, result.reason
        return response

    def _check_parameters(self, parameters: list[RosParameter]) -> SetParametersResult:
        for parameter in parameters:
            if parameter.name == "instruction" and self.active and not str(parameter.value).strip():
                return SetParametersResult(successful=False, reason="instruction must not be empty")
        return SetParametersResult(successful=True)

    @property
    def _publishes_depth(self) -> bool:
        return self.value("depth") and self._policy.has_depth

    def _make_depth_publisher(self) -> DepthPublisher | None:
        if not self._publishes_depth:
            return None
        return DepthPublisher(
            self,
            {calibration.camera: calibration for calibration in self._calibrations.values()},
            self._policy.image_fit,
            colour_range_m=(self.value("depth_colour_near_m"), self.value("depth_colour_far_m")),
        )

    @property
    def _period_ns(self) -> int:
        return round(self._policy.period_s * 1e9)

    def _now_ns(self) -> int:
        return self.get_clock().now().nanoseconds


def _robot_parameters(robot: Robot) -> list[Parameter]:
    table = [
        Parameter(
            "sensor_reliability",
            robot.qos.sensor,
            "QoS of camera and feedback topics.",
            choices=tuple(qos.RELIABILITIES),
        )
    ]
    for camera in robot.cameras:
        compressed = camera.topic.endswith("/compressed")
        table += [
            Parameter(f"cameras.{camera.name}.topic", camera.topic, "Image topic of this camera."),
            Parameter(
                f"cameras.{camera.name}.transport",
                "compressed" if compressed else "raw",
                "Message type of the topic: CompressedImage or Image.",
                choices=("compressed", "raw"),
            ),
            *camera_calibration.parameters(camera),
        ]
    return table


def _warm_up(policy: Policy, robot: Robot, method: str) -> float:
    """Runs the policy on black images, so that the first real observation does not pay for what happens only once."""
    begin = time.perf_counter()
    policy.prepare()
    images = {camera: np.zeros((180, 320, 3), np.uint8) for camera in policy.cameras}
    state = (robot.position_min + robot.position_max) / 2
    observation = Observation(0, images, state, "warm up")
    for depth in {False, policy.has_depth}:
        policy.infer(observation, depth=depth)
    if method != "off":
        committed = np.tile(state, (policy.horizon, 1))
        policy.infer(observation, depth=policy.has_depth, committed=committed, delay=1, method=method)
    return time.perf_counter() - begin


@dataclasses.dataclass(frozen=True)
class _State:
    """Why there is no chunk; None while there are. `stamp_ns`: when that was so."""

    refusal: Refusal | None
    stamp_ns: int


def _kind(refusal: Refusal | None) -> tuple | None:
    return (refusal.subject, refusal.reason) if refusal else None


def _duration(seconds: float):
    return duration_message(round(seconds * 1e9))


def main() -> int:
    return run(PolicyNode, about=__doc__, parameters=PARAMETERS, of_robot=_robot_parameters)


if __name__ == "__main__":
    sys.exit(main())
