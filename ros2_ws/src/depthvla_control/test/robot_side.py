"""Run by `test_robot_side.py` in the environment of the robot's side: nothing else can be imported there, and the
executor that was installed runs, is fed with chunks and hands over: teleoperation, policy, hold.
"""

from __future__ import annotations

import importlib.util
import itertools
import pkgutil
import signal
import subprocess
import sys

import numpy as np
from depthvla_msgs.msg import ActionChunk, ExecutorStatus
from depthvla_msgs.srv import SetMode
from sensor_msgs.msg import JointState

from depthvla_control.arbiter import Mode
from depthvla_control.chunk import Chunk
from depthvla_control.ros import qos
from depthvla_control.ros.messages import chunk_to_message
from depthvla_control.ros.probe import Probe, private_domain
from r1lite_description import robot as robot_description

ABSENT = ("torch", "transformers", "mujoco", "cv2", "pyarrow", "depthvla_policy", "r1lite_sim", "r1lite_bringup")
NODE = "/chunk_executor_node"
STEPS, STEP_NS = 16, 66_666_667


def main(executable: str) -> None:
    assert sys.version_info[:2] == (3, 10), sys.version
    present = [name for name in ABSENT if importlib.util.find_spec(name)]
    assert not present, present
    for package in map(importlib.import_module, ("r1lite_description", "depthvla_control")):
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            importlib.import_module(module.name)
    with private_domain(), Probe() as probe:
        arguments = ["-p", "autostart:=true", "-p", "policy_lease_s:=0.0"]
        # On a machine that is busy, this process may be silent for longer than a robot may.
        for limit in ("feedback_lost_s", "max_feedback_age_s", "max_leader_age_s"):
            arguments += ["-p", f"{limit}:=5.0"]
        executor = subprocess.Popen([executable, "--ros-args", *arguments])
        try:
            hand_over(probe)
            executor.send_signal(signal.SIGINT)
            assert executor.wait(30) == 0
        finally:
            if executor.poll() is None:
                executor.kill()


def hand_over(probe: Probe) -> None:
    robot = robot_description.load()
    pose = np.array([0.0, 1.8, -1.7, 0.0, 0.0, 0.0, 50.0] * len(robot.limbs))
    status = probe.listen(ExecutorStatus, f"{NODE}/status", qos.status())
    commands = probe.listen(JointState, robot.limbs[0].topics.arm_command)
    streams = [
        (probe.publisher(JointState, topic, qos.stream("best_effort", 1)), where)
        for limb in robot.limbs
        for topic, where in (
            (limb.topics.arm_feedback, limb.arm),
            (limb.topics.gripper_feedback, limb.opening),
            (limb.topics.teleop, limb.slice),  # a leader arm that rests beside its own
        )
    ]
    chunks, sequence = probe.publisher(ActionChunk, f"{NODE}/action_chunk", qos.chunks()), itertools.count(1)

    def feed() -> None:
        for publisher, where in streams:
            message = JointState(name=["placeholder"], position=pose[where].tolist())
            message.header.stamp = probe.node.get_clock().now().to_msg()
            publisher.publish(message)

    def send_chunk() -> None:
        positions = pose + np.where(robot.gripper_mask, 0.0, 0.01 * np.arange(STEPS)[:, None])
        chunk = Chunk(probe.now_ns(), next(sequence), STEP_NS, positions, "scripted")
        chunks.publish(chunk_to_message(chunk, robot))

    def reach(mode: Mode) -> None:
        def reached() -> bool:  # at first there is no feedback, no leader, no chunk
            request = SetMode.Request(mode=int(mode))
            return probe.call(SetMode, f"{NODE}/set_mode", request).success and status[-1].mode == mode

        try:
            probe.wait_for(reached, what=mode.name)
        except AssertionError as error:
            raise AssertionError(f"{error}; the last status: {status[-1:]}") from None
        heard = len(commands)
        probe.wait_for(lambda: len(commands) > heard + 5, what=f"commands in {mode.name}")
        print(f"{mode.name}: {status[-1].cause}")

    probe.every(0.01, feed)
    probe.wait_for(lambda: status, what="the executor's status")
    probe.wait_for(lambda: probe.trigger(f"{NODE}/arm").success, what="arming")
    reach(Mode.TELEOP)
    probe.every(0.2, send_chunk)
    probe.wait_for(lambda: status[-1].chunks_accepted > 1, what="chunks to be accepted")
    start = commands[-1].position[0]
    reach(Mode.POLICY)
    probe.wait_for(lambda: commands[-1].position[0] > start + 0.02, what="the arm to follow the chunks")
    reach(Mode.HOLD)


if __name__ == "__main__":
    main(sys.argv[1])
