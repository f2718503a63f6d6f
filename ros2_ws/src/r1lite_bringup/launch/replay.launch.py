"""A recording fed to the policy, and its chunks compared with what was commanded.

The node graph of r1lite_bringup.replay for `ros2 launch`.
"""

from launch import LaunchDescription

from r1lite_bringup import replay, ros_launch


def generate_launch_description() -> LaunchDescription:
    return ros_launch.describe(__file__, replay.ARGUMENTS, replay.replay_graph)
