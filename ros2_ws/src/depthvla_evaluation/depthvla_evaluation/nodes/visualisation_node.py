"""Shows RViz what the policy wants and the executor is going to do: paths of the grasp frames, and a line of text.

Poses follow the robot description. This process only listens, and never imports torch.
"""

from __future__ import annotations

import sys

import numpy as np
from rclpy.clock import Clock, ClockType
from visualization_msgs.msg import MarkerArray

from depthvla_control.ros import qos
from depthvla_control.ros.diagnostics import ERROR, OK, WARN, Health
from depthvla_control.ros.messages import check_limbs
from depthvla_control.ros.parameters import Parameter
from depthvla_control.ros.runtime import ManagedNode, run
from depthvla_evaluation.nodes.view import markers
from depthvla_evaluation.nodes.view.description import PARAMETERS as DESCRIPTION
from depthvla_evaluation.nodes.view.description import Description
from depthvla_evaluation.nodes.view.listener import Listener
from depthvla_evaluation.nodes.view.overlay import Overlay
from depthvla_evaluation.viewer.paths import motions, paths
from r1lite_description import robot as robot_description

LIFETIME_NS = 500_000_000  # of a marker that is not renewed
TEXT_ABOVE_HEAD_M = 0.25
PARAMETERS = (
    Parameter("robot_file", "", "Robot description (YAML); the R1 Lite's when empty."),
    *DESCRIPTION,
    Parameter("rate_hz", 10.0, "Markers per second.", 2.5, 60.0),
)


class VisualisationNode(ManagedNode):
    """~/action_chunk, ~/plan, ~/executor_status, ~/policy_status, /joint_states and /robot_description in; ~/paths,
    ~/status_text and, where its package is installed, ~/overlay out.
    """

    def __init__(self, **kwargs) -> None:
        super().__init__("visualisation_node", PARAMETERS, **kwargs)

    def configure(self) -> None:
        self._robot = robot_description.load(self.value("robot_file") or None)
        check_limbs(self._robot)
        self._description = Description(self, self._robot)
        self._listener = Listener(self, self._robot)
        profile = qos.stream("reliable", 1)
        self._paths = self.create_lifecycle_publisher(MarkerArray, "~/paths", profile)
        self._text = self.create_lifecycle_publisher(MarkerArray, "~/status_text", profile)
        self._overlay, self._no_overlay = None, ""
        try:
            self._overlay = Overlay(self, "~/overlay", profile)
        except ImportError as error:
            self._no_overlay = f"none: {error}"

    def activate(self) -> None:
        self._timer = self.create_timer(
            1.0 / self.value("rate_hz"), self._draw, clock=Clock(clock_type=ClockType.STEADY_TIME)
        )

    def deactivate(self) -> None:
        self.destroy_timer(self._timer)
        self._paths.publish(markers.delete_all())
        self._text.publish(markers.delete_all())
        if self._overlay:
            self._overlay.hide()

    def health(self) -> Health:
        listener, problem = self._listener, self._description.problem
        values = {
            "description": self._description.source,
            "mode": listener.mode.name if listener.mode is not None else "not heard",
            "chunk": listener.chunk.sequence if listener.chunk else "none",
            "refused chunks and plans": listener.refused,
            "overlay": self._no_overlay or "published",
        }
        if problem:
            return Health(ERROR, problem, values)
        if listener.refusal:
            return Health(WARN, str(listener.refusal), values)
        return Health(OK, "drawing", values)

    def _draw(self) -> None:
        now = self.get_clock().now().nanoseconds
        self._listener.update(now)
        snapshot = self._listener.snapshot(now)
        if self._overlay:
            self._overlay.show(snapshot.caption)
        kinematics = self._description.kinematics
        if kinematics is None:
            return
        frame = kinematics.root
        moving = motions(snapshot.chunk, snapshot.plan, snapshot.mode)
        shown = paths(kinematics, self._robot, moving, snapshot.joints, now)
        self._paths.publish(markers.path_markers(shown, frame, LIFETIME_NS))
        self._text.publish(markers.text_markers(snapshot.caption, self._above_head(), frame, LIFETIME_NS))

    def _above_head(self) -> np.ndarray:
        """(3,) above the reference camera, or above the root of a robot without its frame."""
        kinematics = self._description.kinematics
        frame = self._robot.cameras[0].frame_id
        if kinematics.missing([frame]):
            frame = kinematics.root
        head = kinematics.poses([frame], self._listener.joints)[frame][:3, 3]
        return head + [0.0, 0.0, TEXT_ABOVE_HEAD_M]


def main() -> int:
    return run(VisualisationNode, about=__doc__, parameters=PARAMETERS)


if __name__ == "__main__":
    sys.exit(main())
