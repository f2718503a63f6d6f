from __future__ import annotations

import numpy as np
import pytest

from depthvla_evaluation.viewer.clouds import depth_colours
from depthvla_evaluation.viewer.shapes import PLAIN, shapes
from depthvla_policy.policy.point_clouds import point_colours, points
from r1lite_description.share import urdf_file

URDF = """
<robot name="x">
  <material name="red"><color rgba="1 0 0 1"/></material>
  <link name="base">
    <visual><geometry><box size="1 2 3"/></geometry><material name="red"/></visual>
    <visual><origin xyz="0 0 0.5"/><geometry><cylinder radius="0.1" length="0.4"/></geometry>
      <material name="own"><color rgba="0 0.5 1 1"/></material></visual>
    <visual><geometry><sphere radius="0.2"/></geometry></visual>
    <visual><geometry><mesh filename="x.stl"/></geometry></visual>
    <collision><geometry><box size="9 9 9"/></geometry></collision>
  </link>
</robot>
"""
K = np.array([[100.0, 0.0, 1.0], [0.0, 50.0, 2.0], [0.0, 0.0, 1.0]])


def test_shapes_are_what_is_seen_in_their_colours_and_places():
    box, cylinder, sphere = shapes(URDF)
    assert (box.link, box.kind, box.size, box.colour) == ("base", "box", (1.0, 2.0, 3.0), (1.0, 0.0, 0.0))
    assert (cylinder.kind, cylinder.size, cylinder.colour) == ("cylinder", (0.1, 0.4), (0.0, 0.5, 1.0))
    assert cylinder.pose[2, 3] == 0.5
    assert (sphere.kind, sphere.size, sphere.colour) == ("sphere", (0.2,), PLAIN)


def test_a_shape_without_a_size_is_named():
    with pytest.raises(ValueError, match="1 2"):
        shapes(URDF.replace("1 2 3", "1 2"))


def test_the_robots_arms_and_head_are_drawn():
    xacro = pytest.importorskip("xacro", reason="xacro is not installed")
    path = urdf_file()
    links = {shape.link for shape in shapes(xacro.process_file(str(path)).toxml())}
    assert {"torso_link3", "left_arm_link6", "right_gripper_finger_link2"} <= links


def test_points_lie_on_the_rays_of_known_depths_and_take_their_pixels_colour():
    depth_m = np.full((3, 4), np.nan, np.float32)
    depth_m[0, 3], depth_m[2, 1] = 2.0, 0.5
    found, pixels = points(depth_m, K)
    np.testing.assert_allclose(found, [[0.04, -0.08, 2.0], [0.0, 0.0, 0.5]])
    np.testing.assert_array_equal(pixels, [[3, 0], [1, 2]])
    image = np.arange(36, dtype=np.uint8).reshape(3, 4, 3)
    np.testing.assert_array_equal(point_colours(found, image, K), image[[0, 2], [3, 1]])


def test_a_point_outside_the_picture_takes_the_colour_of_its_edge():
    image = np.arange(36, dtype=np.uint8).reshape(3, 4, 3)
    np.testing.assert_array_equal(point_colours(np.array([[9.0, -9.0, 1.0]]), image, K), image[[0], [3]])


@pytest.mark.parametrize("near_m", [0.0, 0.1])
def test_near_is_warm_far_is_cold_and_the_unknown_is_black(near_m):
    near, far, unknown = depth_colours(np.array([[0.15, 1.9, np.nan]], np.float32), near_m, 2.0)[0].astype(int)
    assert near[0] > near[2] and far[2] > far[0]
    np.testing.assert_array_equal(unknown, 0)
