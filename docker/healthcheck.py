"""Exit code 0 when every named node is heard on /diagnostics, active and without an error; 1 when one is not.

    python docker/healthcheck.py policy_node chunk_executor_node

One reader of one topic: an inactive node says so there too, so no lifecycle service has to be asked.
"""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass

import rclpy
import tyro
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus

LEVELS = {DiagnosticStatus.ERROR: "ERROR", DiagnosticStatus.STALE: "not active"}


@dataclass(frozen=True)
class Options:
    """Nodes by their names, and how long each of them may take to be heard (they speak once a second)."""

    nodes: tyro.conf.Positional[tuple[str, ...]]
    timeout_s: float = 8.0


def main(options: Options) -> int:
    if not options.nodes:
        sys.exit("no node is named; a check of nothing would always pass")
    complaints = dict.fromkeys(options.nodes, "not heard")

    def hear(message: DiagnosticArray) -> None:
        for status in message.status:
            name = status.name.partition(":")[0]
            if name in complaints:
                level = LEVELS.get(status.level)
                complaints[name] = f"{level}: {status.message}" if level else ""

    rclpy.init()
    node = rclpy.create_node("healthcheck", enable_rosout=False, start_parameter_services=False)
    node.create_subscription(DiagnosticArray, "/diagnostics", hear, 10)
    end_s = time.monotonic() + options.timeout_s
    while any(complaints.values()) and time.monotonic() < end_s:
        rclpy.spin_once(node, timeout_sec=0.2)
    node.destroy_node()
    rclpy.shutdown()
    for name, complaint in complaints.items():
        print(f"{name}: {complaint or 'well'}")
    return 1 if any(complaints.values()) else 0


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Options, description=__doc__)))
