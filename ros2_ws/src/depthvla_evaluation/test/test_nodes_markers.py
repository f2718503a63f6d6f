from __future__ import annotations

import numpy as np
import pytest

from depthvla_evaluation.viewer.paths import Path

pytest.importorskip("visualization_msgs", reason="visualization_msgs is not installed")

from visualization_msgs.msg import Marker  # noqa: E402

from depthvla_evaluation.nodes.view import markers  # noqa: E402

LIFETIME_NS = 1_500_000_000


def path(kind="chunk", limb="left", steps=4):
    positions = np.arange(3.0 * steps).reshape(steps, 3)
    ahead = np.arange(steps) >= 1
    return Path(kind, limb, positions, np.tile([0.0, 1.0, 0.0], (steps, 1)), np.full(steps, 0.08), ahead)


def test_a_path_is_a_line_with_a_ball_and_a_finger_stroke_at_every_step():
    line, balls, strokes = markers.path_markers([path()], "base_link", LIFETIME_NS).markers
    assert [line.type, balls.type, strokes.type] == [Marker.LINE_STRIP, Marker.SPHERE_LIST, Marker.LINE_LIST]
    assert (len(line.points), len(balls.points), len(strokes.points)) == (4, 4, 8)
    assert (line.points[2].x, line.points[2].y, line.points[2].z) == (6.0, 7.0, 8.0)
    assert strokes.points[1].y - strokes.points[0].y == pytest.approx(0.08)


def test_markers_are_what_rviz_accepts():
    array = markers.path_markers([path(kind, limb) for kind in ("chunk", "plan") for limb in ("left", "right")], "b", 1)
    assert len({(marker.ns, marker.id) for marker in array.markers}) == len(array.markers) == 12
    for marker in array.markers:
        assert len(marker.colors) == len(marker.points)
        assert marker.scale.x > 0.0 and marker.pose.orientation.w == 1.0
        if marker.type == Marker.SPHERE_LIST:
            assert marker.scale.y > 0.0 and marker.scale.z > 0.0
        if marker.type == Marker.LINE_LIST:
            assert len(marker.points) % 2 == 0


def test_markers_vanish_by_themselves_and_follow_the_newest_transform():
    for marker in markers.path_markers([path()], "base_link", LIFETIME_NS).markers:
        assert (marker.lifetime.sec, marker.lifetime.nanosec) == (1, 500_000_000)
        assert marker.header.frame_id == "base_link"
        assert (marker.header.stamp.sec, marker.header.stamp.nanosec) == (0, 0)


def test_what_has_passed_is_paler():
    line = markers.path_markers([path()], "base_link", LIFETIME_NS).markers[0]
    assert line.colors[0].a < line.colors[1].a == 1.0


def test_a_path_of_one_step_has_no_line():
    kinds = [marker.type for marker in markers.path_markers([path(steps=1)], "base_link", LIFETIME_NS).markers]
    assert kinds == [Marker.SPHERE_LIST, Marker.LINE_LIST]


def test_text_stands_where_it_is_told_to():
    (marker,) = markers.text_markers("HOLD", np.array([0.1, 0.2, 1.5]), "base_link", LIFETIME_NS).markers
    assert (marker.type, marker.text, marker.pose.position.z) == (Marker.TEXT_VIEW_FACING, "HOLD", 1.5)
    assert marker.scale.z > 0.0 and marker.color.a == 1.0


def test_delete_all_is_one_marker_that_says_so():
    (marker,) = markers.delete_all().markers
    assert marker.action == Marker.DELETEALL
