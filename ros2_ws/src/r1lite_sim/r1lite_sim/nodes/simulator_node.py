"""The simulated robot as a lifecycle node that speaks the real one's topics.

One worker thread owns the simulation and its GL context: it takes commands, steps the physics in real time, and
publishes what it samples and renders. The executor's thread only answers services.
"""

from __future__ import annotations

import queue
import sys
import threading
import time
import traceback
from array import array
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError

import numpy as np
from builtin_interfaces.msg import Time
from depthvla_msgs.msg import TaskProgress
from depthvla_msgs.srv import ResetScene
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, JointState
from std_msgs.msg import Header

from depthvla_control.limb_feedback import values_in_order
from depthvla_control.ros import image_messages, qos
from depthvla_control.ros.diagnostics import ERROR, OK, WARN, Health
from depthvla_control.ros.messages import doubles
from depthvla_control.ros.parameters import Parameter
from depthvla_control.ros.polling import PolledSubscription
from depthvla_control.ros.runtime import ManagedNode, run
from depthvla_control.worker import Worker
from r1lite_description import robot as robots
from r1lite_description.robot import Camera, Limb
from r1lite_sim import images, simulation, task_options, tasks
from r1lite_sim.instructions import COLOURS, DRAWN, SIDES, STAGED
from r1lite_sim.pacing import Every, Pacer
from r1lite_sim.simulation import LinkPose, Simulation

MAX_LAG_NS = 100_000_000  # longer stalls slow simulated time down instead of being made up for in a rush
SLOW = 0.95  # real-time factor below which the node warns
PROGRESS_RATE_HZ = 5.0
TRANSFORM_RATE_HZ = 30.0
RESET_TIMEOUT_S = 10.0
STOP_TIMEOUT_S = 10.0
HANG_S = 5.0
EVALUATION_SEEDS = 1000

PARAMETERS = (
    Parameter("robot_file", "", "Robot description (YAML); the R1 Lite's when empty."),
    Parameter("task", "lift", "Task to stage.", choices=tuple(tasks.TASKS)),
    Parameter(
        "colour",
        STAGED["colour"],
        "Block that the task names, where it names one; random: drawn.",
        choices=(*COLOURS, DRAWN),
    ),
    Parameter(
        "side",
        STAGED["side"],
        "Arm that the task names, where it names one; random: drawn.",
        choices=(*SIDES, DRAWN),
    ),
    Parameter(
        "colours",
        ",".join(STAGED["colours"]),
        "Blocks that blocks_stacking names, from the table upwards; random: drawn.",
    ),
    Parameter("seed", 0, "Seed of the first scene; -1 draws one of the evaluation seeds.", -1, 2**31 - 1),
    Parameter("image_width", 320, "Width of the camera images [px].", 16, 1280),
    Parameter("image_height", 180, "Height of the camera images [px].", 16, 720),
    Parameter("camera_rate_hz", 15.0, "Images per second and camera.", 1.0, 60.0),
    Parameter("jpeg_quality", images.JPEG_QUALITY, "Quality of the JPEG images; the policy was trained on 90.", 1, 100),
    Parameter("feedback_rate_hz", 200.0, "Arm and gripper feedback messages per second.", 50.0, 500.0),
    Parameter("joint_states_rate_hz", 100.0, "/joint_states messages per second; the robot sends 500.", 1.0, 500.0),
    Parameter("arm_feedback_values", 6, "Values in arm feedback; the 7th is the gripper, as documented.", 6, 7),
    Parameter(
        "command_timeout_s", simulation.COMMAND_TIMEOUT_S, "Motion stops this long after the last command.", 0.05, 5.0
    ),
    Parameter("publish_transforms", True, "Publish /tf and /tf_static where tf2_msgs is installed."),
)


class SimulatorNode(ManagedNode):
    """See the module; parameters are in `PARAMETERS`."""

    def __init__(self, **kwargs) -> None:
        super().__init__("simulator_node", PARAMETERS, **kwargs)
        self._worker: Worker | None = None

    def configure(self) -> None:
        self._robot = robots.load(self.value("robot_file") or None)
        self._simulation = Simulation(
            self._robot,
            self.value("task"),
            task_options=task_options.parse(
                [f"{name}={self.value(name)}" for name in tasks.option_defaults(self.value("task")) if name in STAGED]
            ),
            image_width=self.value("image_width"),
            image_height=self.value("image_height"),
            command_timeout_s=self.value("command_timeout_s"),
        )
        seed = self.value("seed")
        self._simulation.reset(int(np.random.default_rng().integers(EVALUATION_SEEDS)) if seed < 0 else seed)
        self._period_ns = round(1e9 / self.value("feedback_rate_hz"))
        self._pacer = Pacer(self._period_ns, MAX_LAG_NS)
        self._resets: queue.SimpleQueue[tuple[int, Future]] = queue.SimpleQueue()
        self._refused = self._accepted = self._frames = 0
        self._failure = ""
        reliability = self._robot.qos.sensor
        self._cameras = {camera.name: _CameraTopics(self, camera, reliability) for camera in self._robot.cameras}
        self._limbs = [_LimbTopics(self, limb, reliability) for limb in self._robot.limbs]
        self._joint_states = self.create_lifecycle_publisher(JointState, "/joint_states", qos.stream(reliability, 10))
        self._progress = self.create_lifecycle_publisher(TaskProgress, "~/task_progress", qos.status())
        self._transforms = self._make_transforms() if self.value("publish_transforms") else None
        self.create_service(ResetScene, "~/reset", self._on_reset)
        self.create_timer(0.5, self._raise_failure)
        self.get_logger().info(
            f"seed {self._simulation.seed}: {self._simulation.instruction!r}, images "
            f"{self._simulation.image_width}x{self._simulation.image_height}"
        )

    def activate(self) -> None:
        self._stopping = threading.Event()
        self._worker = Worker("simulation", self._work, HANG_S)
        self._worker.start()
        self.workers.append(self._worker)

    def deactivate(self) -> None:
        self._stopping.set()
        self.workers.clear()
        if not self._worker.join(STOP_TIMEOUT_S):
            raise RuntimeError(f"the simulation thread did not end within {STOP_TIMEOUT_S} s")
        self._worker = None

    def health(self) -> Health:
        factor = self._pacer.real_time_factor()
        values = {
            "real_time_factor": factor,
            "given_up_s": self._pacer.given_up_ns * 1e-9,
            "simulated_s": self._simulation.time_s,
            "commands_accepted": self._accepted,
            "commands_refused": self._refused,
            "images": self._frames,
            "seed": self._simulation.seed,
        }
        if self._failure:
            return Health(ERROR, self._failure.splitlines()[-1], values)
        if factor < SLOW:
            return Health(WARN, f"slower than real time: factor {factor:.2f}", values)
        return Health(OK, "running", values)

    def _work(self) -> None:
        try:
            # The first frame of a camera takes longer; it must not count as lag.
            for camera in self._cameras:
                self._simulation.render(camera)
            self._loop()
        except BaseException:
            self._failure = traceback.format_exc()
        finally:
            self._simulation.close()

    def _loop(self) -> None:
        worker = self._worker
        joint_states, progress = Every(self.value("joint_states_rate_hz")), Every(PROGRESS_RATE_HZ)
        transforms, pictures = Every(TRANSFORM_RATE_HZ), Every(self.value("camera_rate_hz"))
        # One camera a slice keeps the feedback even. The reference camera comes last: whoever waits for its image finds
        # the others there.
        order = list(self._cameras)[::-1]
        waiting: list[str] = []
        self._pacer.start(time.monotonic_ns())
        time_ns = 0
        while not self._stopping.is_set():
            worker.beat()
            time.sleep(self._pacer.wait_ns(time.monotonic_ns()) * 1e-9)
            was_reset = self._take_reset()
            self._take_commands()
            self._simulation.step(self._period_ns * 1e-9)
            time_ns += self._period_ns
            stamp = self.get_clock().now().to_msg()
            state, velocity = self._simulation.state(), self._simulation.velocity()
            for limb in self._limbs:
                limb.publish(stamp, state, velocity)
            if joint_states.due(time_ns):
                self._publish_joint_states(stamp)
            if self._transforms and transforms.due(time_ns):
                self._transforms.publish(stamp)
            if progress.due(time_ns) or was_reset:
                self._publish_progress(stamp)
            if pictures.due(time_ns):
                waiting = order.copy()
            if waiting:
                self._publish_camera(waiting.pop(0), stamp)
            self._pacer.advance(time.monotonic_ns())

    def _take_commands(self) -> None:
        for limb in self._limbs:
            for message in limb.arm_commands.drain():
                self._command(self._command_arm, limb.limb, message)
            for message in limb.gripper_commands.drain():
                self._command(self._command_gripper, limb.limb, message)

    def _command(self, command: Callable[[Limb, JointState], None], limb: Limb, message: JointState) -> None:
        try:
            command(limb, message)
            self._accepted += 1
        except ValueError as error:
            self._refused += 1
            self.get_logger().error(f"refused a command: {error}", throttle_duration_sec=1.0)

    def _command_arm(self, limb: Limb, message: JointState) -> None:
        positions = self._ordered(limb.joints, message.position, message.name)
        cap = self._ordered(limb.joints, message.velocity, message.name) if message.velocity else None
        self._simulation.command_arm(limb.name, positions, cap)

    def _command_gripper(self, limb: Limb, message: JointState) -> None:
        (opening,) = self._ordered((limb.gripper,), message.position, message.name)
        self._simulation.command_gripper(limb.name, opening)

    def _ordered(self, wanted: tuple[str, ...], values: Sequence[float], names: Sequence[str]) -> np.ndarray:
        if len(values) != len(wanted):
            raise ValueError(f"{len(values)} values for {', '.join(wanted)}")
        ordered = values_in_order(self._robot, wanted, values, names)
        if isinstance(ordered, str):
            raise ValueError(ordered)
        return ordered

    def _take_reset(self) -> bool:
        try:
            seed, done = self._resets.get_nowait()
        except queue.Empty:
            return False
        self._simulation.reset(seed)
        # Commands that were sent for the former scene must not move the new one.
        for limb in self._limbs:
            limb.arm_commands.newest()
            limb.gripper_commands.newest()
        done.set_result(None)
        return True

    def _on_reset(self, request: ResetScene.Request, response: ResetScene.Response) -> ResetScene.Response:
        if not self.active or request.seed < -1:
            response.message = (
                f"seed is {request.seed}; allowed: -1 or more" if self.active else "the simulator is not active"
            )
            return response
        seed = self._simulation.seed + 1 if request.seed == -1 else request.seed
        done: Future = Future()
        self._resets.put((seed, done))
        try:
            done.result(RESET_TIMEOUT_S)
        except FutureTimeoutError:
            response.message = f"the simulation did not answer within {RESET_TIMEOUT_S} s"
            return response
        response.success, response.message = True, f"seed {seed}"
        response.instruction = self._simulation.instruction
        return response

    def _publish_joint_states(self, stamp: Time) -> None:
        names, positions, velocities = self._simulation.joint_state()
        message = JointState(name=names, position=doubles(positions), velocity=doubles(velocities))
        message.header.stamp = stamp
        self._joint_states.publish(message)

    def _publish_progress(self, stamp: Time) -> None:
        task = self._simulation.task
        message = TaskProgress(task=task.name, instruction=task.instruction, seed=self._simulation.seed)
        message.header.stamp = stamp
        message.progress, message.success = self._simulation.progress(), self._simulation.success()
        message.done = list(task.done)
        self._progress.publish(message)

    def _publish_camera(self, name: str, stamp: Time) -> None:
        camera = self._cameras[name]
        header = Header(stamp=stamp, frame_id=camera.frame_id)
        data = images.encode_jpeg(self._simulation.render(name), self.value("jpeg_quality"))
        camera.image.publish(CompressedImage(header=header, format="jpeg", data=array("B", data)))
        size = self._simulation.image_height, self._simulation.image_width
        info = image_messages.camera_info_message(header, self._simulation.camera_matrix(name), size)
        camera.info.publish(info)
        if camera.depth.get_subscription_count() or camera.depth_info.get_subscription_count():
            camera.depth.publish(image_messages.depth_message(header, self._simulation.render_depth(name)))
            camera.depth_info.publish(info)
        self._frames += 1

    def _make_transforms(self) -> _Transforms | None:
        try:
            return _Transforms(self, self._simulation)
        except ImportError as error:
            self.get_logger().info(f"no transforms are published: {error}")
            return None

    def _raise_failure(self) -> None:
        # A robot that stands still without a word is worse than one that is gone.
        if self._failure:
            raise RuntimeError(f"the simulation failed:\n{self._failure}")


class _LimbTopics:
    """Feedback and commands of an arm and its gripper. Names in feedback are placeholders, as on the robot."""

    def __init__(self, node: ManagedNode, limb: Limb, reliability: str) -> None:
        profile = qos.stream(reliability, 10)
        self.limb, self._values = limb, node.value("arm_feedback_values")
        self._arm = node.create_lifecycle_publisher(JointState, limb.topics.arm_feedback, profile)
        self._gripper = node.create_lifecycle_publisher(JointState, limb.topics.gripper_feedback, profile)
        self.arm_commands = PolledSubscription(node, JointState, limb.topics.arm_command, profile)
        self.gripper_commands = PolledSubscription(node, JointState, limb.topics.gripper_command, profile)

    def publish(self, stamp: Time, state: np.ndarray, velocity: np.ndarray) -> None:
        begin, gripper = self.limb.offset, self.limb.gripper_index
        values = slice(begin, begin + self._values)
        self._send(self._arm, stamp, f"{self.limb.name}_arm", state[values], velocity[values])
        self._send(self._gripper, stamp, self.limb.gripper, state[[gripper]], velocity[[gripper]])

    @staticmethod
    def _send(publisher, stamp: Time, name: str, positions: np.ndarray, velocities: np.ndarray) -> None:
        message = JointState(name=[name], position=doubles(positions), velocity=doubles(velocities))
        message.header.stamp = stamp
        publisher.publish(message)


class _CameraTopics:
    """A camera as the robot publishes it, and its true depth, which the robot does not have."""

    def __init__(self, node: ManagedNode, camera: Camera, reliability: str) -> None:
        self.frame_id = camera.frame_id
        self.image = node.create_lifecycle_publisher(CompressedImage, camera.topic, qos.stream(reliability, 5))
        self.info = node.create_lifecycle_publisher(CameraInfo, camera.camera_info, qos.stream(reliability, 5))
        base = f"~/depth/{camera.name}"
        self.depth = node.create_lifecycle_publisher(Image, f"{base}/image", qos.stream("reliable", 2))
        self.depth_info = node.create_lifecycle_publisher(CameraInfo, f"{base}/camera_info", qos.stream("reliable", 2))


class _Transforms:
    """/tf and /tf_static of the robot's links.

    Raises:
        ImportError: tf2_msgs is not installed.
    """

    def __init__(self, node: ManagedNode, simulation: Simulation) -> None:
        from geometry_msgs.msg import TransformStamped
        from tf2_msgs.msg import TFMessage

        self._stamped, self._message, self._node, self._simulation = TransformStamped, TFMessage, node, simulation
        self._moving = node.create_lifecycle_publisher(TFMessage, "/tf", qos.stream("reliable", 100))
        self._static = node.create_lifecycle_publisher(TFMessage, "/tf_static", qos.status())
        self._static_sent = False

    def publish(self, stamp: Time) -> None:
        poses = self._simulation.link_poses()
        if not self._static_sent:
            self._send(self._static, stamp, [pose for pose in poses if not pose.moves])
            self._static_sent = True
        self._send(self._moving, stamp, [pose for pose in poses if pose.moves])

    def _send(self, publisher, stamp: Time, poses: list[LinkPose]) -> None:
        transforms = []
        for pose in poses:
            transform = self._stamped(child_frame_id=pose.link)
            transform.header.stamp, transform.header.frame_id = stamp, pose.parent
            translation, rotation = transform.transform.translation, transform.transform.rotation
            translation.x, translation.y, translation.z = pose.position.tolist()
            rotation.w, rotation.x, rotation.y, rotation.z = pose.quaternion.tolist()
            transforms.append(transform)
        publisher.publish(self._message(transforms=transforms))


def main() -> None:
    sys.exit(run(SimulatorNode, about=__doc__, parameters=PARAMETERS))


if __name__ == "__main__":
    main()
