from __future__ import annotations

import contextlib
import dataclasses
import urllib.request
from types import SimpleNamespace

import numpy as np
import pytest

from depthvla_control.arbiter import Mode
from depthvla_control.chunk import Chunk
from depthvla_evaluation.viewer.scene import Scene
from depthvla_evaluation.viewer.snapshot import DepthPicture, Picture, Snapshot
from r1lite_description.kinematics import Kinematics
from r1lite_description.share import urdf_file

T0, PERIOD_NS = 1_700_000_000_000_000_000, 66_666_667
RANGE_M = (0.1, 2.0)
K = np.array([[100.0, 0.0, 8.0], [0.0, 100.0, 4.5], [0.0, 0.0, 1.0]])


class FakeServer:
    """Remembers what is in its scene, by name, as viser does."""

    def __init__(self):
        self.nodes: dict[str, SimpleNamespace] = {}
        self.scene, self.initial_camera = self, SimpleNamespace()

    def __getattr__(self, name):
        def add(node="", *values, **settings):
            def remove():
                del self.nodes[node]

            handle = SimpleNamespace(kind=name, values=values, visible=True, remove=remove, **settings)
            if name.startswith("add_"):
                self.nodes[node] = handle
            return handle

        return add

    def atomic(self):
        return contextlib.nullcontext()

    def under(self, folder):
        return {name for name in self.nodes if name.startswith(f"/{folder}/")}


@pytest.fixture(scope="module")
def urdf():
    xacro = pytest.importorskip("xacro", reason="xacro is not installed")
    return xacro.process_file(str(urdf_file())).toxml()


@pytest.fixture
def snapshot(robot, home):
    joints = {name: value for limb in robot.limbs for name, value in zip(limb.joints, home[limb.arm], strict=True)}
    picture = Picture(T0, lambda: np.full((9, 16, 3), 200, np.uint8))
    depth = DepthPicture(T0, np.array([[1.0, np.nan], [0.5, 2.0]], np.float32), K, joints, picture)
    return Snapshot(
        now_ns=T0,
        joints=joints,
        images={"head": picture},
        camera_matrices={"head": K},
        depth={"head": depth},
        chunk=Chunk(T0, 7, PERIOD_NS, home + 0.01 * np.arange(16)[:, None]),
        mode=Mode.POLICY,
        cause="the policy sends chunks",
    )


@pytest.fixture
def drawn(robot, urdf, snapshot):
    server = FakeServer()
    scene, kinematics = Scene(server, robot, urdf, RANGE_M), Kinematics(urdf)
    scene.show(snapshot, kinematics)
    return server, scene, kinematics


def test_links_stand_where_the_kinematics_put_them(drawn, snapshot):
    server, _, kinematics = drawn
    pose = kinematics.poses(["left_arm_link6"], snapshot.joints)["left_arm_link6"]
    link = server.nodes["/robot/left_arm_link6"]
    np.testing.assert_allclose(link.position, pose[:3, 3])
    w, x, y, z = link.wxyz
    first_column = [1 - 2 * (y * y + z * z), 2 * (x * y + w * z), 2 * (x * z - w * y)]
    np.testing.assert_allclose(first_column, pose[:3, 0], atol=1e-9)


def test_a_link_that_the_description_lacks_is_not_shown(robot, urdf, snapshot):
    server = FakeServer()
    scene = Scene(server, robot, urdf, RANGE_M)
    scene.show(snapshot, Kinematics(urdf.replace("left_D405_link", "lens")))
    assert server.nodes["/robot/left_D405_link"].visible is False
    assert server.nodes["/robot/left_arm_link6"].visible is True


def test_points_have_the_colours_of_the_picture_and_the_pose_of_the_camera_at_its_time(drawn, snapshot, robot):
    server, scene, kinematics = drawn
    cloud = server.nodes["/points/head"]
    places, colours = cloud.values
    assert places.shape == (3, 3) and set(np.unique(colours)) == {200}
    frame = robot.camera("head").frame_id
    np.testing.assert_allclose(cloud.position, kinematics.poses([frame], snapshot.joints)[frame][:3, 3])
    moved = dataclasses.replace(snapshot, joints={**snapshot.joints, "torso_joint1": -0.5})
    scene.show(moved, kinematics)
    assert server.nodes["/points/head"] is cloud, "depth that was drawn is not drawn again"
    assert np.linalg.norm(server.nodes["/cameras/head"].position - cloud.position) > 0.1


def test_paths_come_and_go_with_the_motion_and_change_with_the_mode(drawn, snapshot):
    server, scene, kinematics = drawn
    chunk = {f"/paths/chunk_{limb}/{part}" for limb in ("left", "right") for part in ("line", "fingers", "steps")}
    assert server.under("paths") == chunk
    scene.show(dataclasses.replace(snapshot, mode=Mode.TELEOP), kinematics)
    assert server.under("paths") == {name.replace("chunk", "shadow") for name in chunk}
    scene.show(dataclasses.replace(snapshot, chunk=None), kinematics)
    assert server.under("paths") == set()


def test_depth_that_is_no_longer_there_is_taken_away(drawn, snapshot):
    server, scene, kinematics = drawn
    scene.show(dataclasses.replace(snapshot, depth={}), kinematics)
    assert server.under("points") == set()
    scene.show(snapshot, kinematics)
    assert server.under("points") == {"/points/head"}


def test_a_picture_that_cannot_be_decoded_leaves_the_rest(robot, urdf, snapshot):
    def broken():
        raise ValueError("no image")

    picture = Picture(T0, broken)
    depth = dataclasses.replace(snapshot.depth["head"], picture=picture)
    server = FakeServer()
    Scene(server, robot, urdf, RANGE_M).show(
        dataclasses.replace(snapshot, images={"head": picture}, depth={"head": depth}), Kinematics(urdf)
    )
    assert server.under("cameras") == set() and server.under("points") == {"/points/head"}


def test_parts_can_be_hidden(drawn):
    server, scene, _ = drawn
    assert scene.parts == ("robot", "cameras", "points", "paths")
    scene.show_part("points", False)
    assert server.nodes["/points"].visible is False and server.nodes["/robot"].visible is True


def test_a_page_is_served_with_the_scene_and_the_panel(robot, urdf, snapshot):
    pytest.importorskip("viser", reason="viser is not installed")
    from depthvla_evaluation.viewer import server as web
    from depthvla_evaluation.viewer.panel import Panel
    from depthvla_evaluation.viewer.player import Controls, Playback

    server = web.start("127.0.0.1", 18080)
    try:
        playback = Playback(5.0)
        controls = Controls(server, playback)
        scene = Scene(server, robot, urdf, RANGE_M)
        panel = Panel(server, robot, scene, RANGE_M)
        for now_ns in (T0, T0 + PERIOD_NS):
            shown = dataclasses.replace(snapshot, now_ns=now_ns, latency_ms=np.array([[0.1, 50.0], [0.2, 60.0]]))
            scene.show(shown, Kinematics(urdf))
            panel.show(shown)
            controls.advance(0.5)
        assert playback.position_s == 1.0
        with urllib.request.urlopen(web.url(server), timeout=10) as page:
            assert page.status == 200
    finally:
        server.stop()
