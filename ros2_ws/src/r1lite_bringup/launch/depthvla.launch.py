"""DepthVLA on a simulated or a real R1 Lite: the node graph of r1lite_bringup.graph for `ros2 launch`.

The nodes configure and activate themselves (parameter `autostart`).
"""

from launch import LaunchDescription

from r1lite_bringup import graph, ros_launch


def generate_launch_description() -> LaunchDescription:
    return ros_launch.describe(__file__, graph.ARGUMENTS, graph.graph)
