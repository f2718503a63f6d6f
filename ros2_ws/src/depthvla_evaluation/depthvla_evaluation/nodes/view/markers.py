"""Paths and a line of text as RViz markers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from geometry_msgs.msg import Point
from std_msgs.msg import ColorRGBA
from visualization_msgs.msg import Marker, MarkerArray

from depthvla_control.ros.messages import duration_message
from depthvla_evaluation.viewer.paths import Path

LINE_M, STEP_M, FINGERS_M, TEXT_M = 0.006, 0.014, 0.003, 0.06


def path_markers(paths: Iterable[Path], frame_id: str, lifetime_ns: int) -> MarkerArray:
    """Three markers a path: its line, a ball per step, and a stroke per step as long as the gripper is open."""
    array = MarkerArray()
    for path in paths:
        points, colours, fingers = _points(path.positions), _colours(path.colours), path.fingers
        strokes = _points(fingers.reshape(-1, 3)), _colours(np.repeat(path.colours, 2, axis=0))
        for kind, width, (positions, shades) in (
            (Marker.LINE_STRIP, LINE_M, (points, colours)),
            (Marker.SPHERE_LIST, STEP_M, (points, colours)),
            (Marker.LINE_LIST, FINGERS_M, strokes),
        ):
            if len(positions) < 2 and kind == Marker.LINE_STRIP:
                continue  # RViz takes a line of one point for an error
            marker = _marker(kind, f"{path.kind} {path.limb}", kind, frame_id, lifetime_ns)
            marker.scale.x = width
            if kind == Marker.SPHERE_LIST:
                marker.scale.y = marker.scale.z = width
            marker.points, marker.colors = positions, shades
            array.markers.append(marker)
    return array


def text_markers(text: str, position: np.ndarray, frame_id: str, lifetime_ns: int) -> MarkerArray:
    """`text`, readable from everywhere, at `position` (3,) [m]."""
    marker = _marker(Marker.TEXT_VIEW_FACING, "status", 0, frame_id, lifetime_ns)
    marker.pose.position = _points(position[None])[0]
    marker.scale.z = TEXT_M
    marker.color = ColorRGBA(r=1.0, g=1.0, b=1.0, a=1.0)
    marker.text = text
    return MarkerArray(markers=[marker])


def delete_all() -> MarkerArray:
    return MarkerArray(markers=[Marker(action=Marker.DELETEALL)])


def _marker(kind: int, namespace: str, number: int, frame_id: str, lifetime_ns: int) -> Marker:
    marker = Marker(ns=namespace, id=number, type=kind, action=Marker.ADD, lifetime=duration_message(lifetime_ns))
    # Without a stamp RViz uses the newest transform; one that is as new as the marker may not have arrived.
    marker.header.frame_id = frame_id
    marker.pose.orientation.w = 1.0
    return marker


def _points(positions: np.ndarray) -> list[Point]:
    return [Point(x=x, y=y, z=z) for x, y, z in positions.tolist()]


def _colours(colours: np.ndarray) -> Sequence[ColorRGBA]:
    return [ColorRGBA(r=r, g=g, b=b, a=a) for r, g, b, a in colours.tolist()]
