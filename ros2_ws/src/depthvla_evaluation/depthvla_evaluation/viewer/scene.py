"""Draws a snapshot in three dimensions: the robot, its cameras with their pictures, predicted depth as points, paths.

Knows viser's scene and nothing of where a snapshot comes from. `panel` is what is shown beside it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

import cv2
import numpy as np

from depthvla_evaluation.viewer.clouds import depth_colours
from depthvla_evaluation.viewer.paths import Path, motions, paths
from depthvla_evaluation.viewer.shapes import Shape, shapes
from depthvla_evaluation.viewer.snapshot import DepthPicture, Snapshot
from depthvla_policy.policy.point_clouds import point_colours, points
from r1lite_description.kinematics import Kinematics
from r1lite_description.robot import Robot

if TYPE_CHECKING:
    from viser import ViserServer

BACKGROUND = np.array([0.12, 0.12, 0.13])
FRUSTUM_M, FRUSTUM_PX = 0.045, 160
LINE_M, FINGERS_M, STEP_M = 0.008, 0.003, 0.016
POINT_M = 0.005
LABEL_ABOVE_HEAD_M = 0.2
# Where a person looks from: the other side of the table, at the robot.
EYE, LOOK_AT = (1.15, -0.72, 1.5), (0.38, -0.03, 0.97)


class Scene:
    """One scene of one server. Parts that cannot be drawn for want of data are left out."""

    def __init__(self, server: ViserServer, robot: Robot, urdf: str, depth_range_m: tuple[float, float]) -> None:
        """`urdf` gives the shapes; where links are comes with each snapshot. `depth_range_m`: of points' colours."""
        self._server, self._robot, self._depth_range_m = server, robot, depth_range_m
        self._folders: dict[str, object] = {}
        self._links: dict[str, object] = {}
        self._frustums: dict[str, object] = {}
        self._clouds: dict[str, object] = {}
        self._paths: dict[str, object] = {}
        self._drawn: dict[str, int] = {}  # what -> stamp of the picture that it shows
        server.scene.set_background_image(_plain(BACKGROUND))
        server.scene.add_grid("/floor", width=4.0, height=4.0, cell_color=(60, 60, 62), section_color=(85, 85, 88))
        server.initial_camera.position, server.initial_camera.look_at = EYE, LOOK_AT
        server.initial_camera.up = (0.0, 0.0, 1.0)
        for name in ("robot", "cameras", "points", "paths"):
            self._folders[name] = server.scene.add_frame(f"/{name}", show_axes=False)
        self._add_robot(shapes(urdf))
        self._label = server.scene.add_label("/status", "", anchor="bottom-center")

    def show_part(self, name: str, visible: bool) -> None:
        """`name`: robot, cameras, points or paths."""
        self._folders[name].visible = visible

    @property
    def parts(self) -> tuple[str, ...]:
        return tuple(self._folders)

    def show(self, snapshot: Snapshot, kinematics: Kinematics) -> None:
        frames = [camera.frame_id for camera in self._robot.cameras]
        links = [link for link in (*self._links, *frames) if link in kinematics.links]
        poses = kinematics.poses(dict.fromkeys(links), snapshot.joints)
        with self._server.atomic():
            for link, handle in self._links.items():
                handle.visible = link in poses
                if link in poses:
                    _set_pose(handle, poses[link])
            self._show_cameras(snapshot, poses)
            for name, depth in snapshot.depth.items():
                self._show_depth(name, depth, snapshot, kinematics)
            for name in [name for name in self._clouds if name not in snapshot.depth]:
                self._clouds.pop(name).remove()
                self._drawn.pop(f"depth {name}", None)
            drawn = motions(snapshot.chunk, snapshot.plan, snapshot.mode)
            self._show_paths(paths(kinematics, self._robot, drawn, snapshot.joints, snapshot.now_ns))
            self._label.text = snapshot.caption.splitlines()[0]
            if frames[0] in poses:
                self._label.position = poses[frames[0]][:3, 3] + [0.0, 0.0, LABEL_ABOVE_HEAD_M]

    def _add_robot(self, solids: Iterable[Shape]) -> None:
        add = self._server.scene
        for index, shape in enumerate(solids):
            if shape.link not in self._links:
                self._links[shape.link] = add.add_frame(f"/robot/{shape.link}", show_axes=False)
            name, colour = f"/robot/{shape.link}/{index}", _bytes(np.array(shape.colour))
            if shape.kind == "box":
                handle = add.add_box(name, color=colour, dimensions=shape.size)
            elif shape.kind == "cylinder":
                handle = add.add_cylinder(name, radius=shape.size[0], height=shape.size[1], color=colour)
            else:
                handle = add.add_icosphere(name, radius=shape.size[0], color=colour)
            _set_pose(handle, shape.pose)

    def _show_cameras(self, snapshot: Snapshot, poses: Mapping[str, np.ndarray]) -> None:
        for camera in self._robot.cameras:
            picture, k = snapshot.images.get(camera.name), snapshot.camera_matrices.get(camera.name)
            if picture is None or k is None or camera.frame_id not in poses:
                continue
            if self._drawn.get(camera.name) != picture.stamp_ns:
                image = picture.pixels()
                if image is None:
                    continue
                height, width = image.shape[:2]
                size = FRUSTUM_PX, round(FRUSTUM_PX * height / width)
                if camera.name not in self._frustums:
                    self._frustums[camera.name] = self._server.scene.add_camera_frustum(
                        f"/cameras/{camera.name}",
                        fov=2 * np.arctan2(height / 2, k[1, 1]),
                        aspect=width / height,
                        scale=FRUSTUM_M,
                        color=(240, 160, 60),
                        thickness=0.002,
                    )
                self._frustums[camera.name].image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
                self._drawn[camera.name] = picture.stamp_ns
            _set_pose(self._frustums[camera.name], poses[camera.frame_id])

    def _show_depth(self, name: str, depth: DepthPicture, snapshot: Snapshot, kinematics: Kinematics) -> None:
        frame = self._robot.camera(name).frame_id
        if self._drawn.get(f"depth {name}") == depth.stamp_ns or frame not in kinematics.links:
            return
        xyz, pixels = points(depth.depth_m, depth.k)
        colours = depth_colours(depth.depth_m, *self._depth_range_m)[pixels[:, 1], pixels[:, 0]]
        image, k = depth.picture and depth.picture.pixels(), snapshot.camera_matrices.get(name)
        if image is not None and k is not None:
            colours = point_colours(xyz, image, k)
        cloud = self._server.scene.add_point_cloud(
            f"/points/{name}", xyz.astype(np.float32), colours, point_size=POINT_M, point_shape="rounded"
        )
        # The camera has moved on since its picture was taken.
        _set_pose(cloud, kinematics.poses([frame], depth.joints)[frame])
        self._clouds[name] = cloud
        self._drawn[f"depth {name}"] = depth.stamp_ns

    def _show_paths(self, shown: Iterable[Path]) -> None:
        before, self._paths = self._paths, {}
        scene = self._server.scene
        for path in shown:
            name = f"/paths/{path.kind}_{path.limb}"
            colours = path.colours
            shades = _bytes(BACKGROUND + colours[:, 3:] * (colours[:, :3] - BACKGROUND))
            ends = np.stack([path.positions[:-1], path.positions[1:]], axis=1)
            for part, segments, tints, width in (
                ("line", ends, np.stack([shades[:-1], shades[1:]], axis=1), LINE_M),
                ("fingers", path.fingers, np.stack([shades, shades], axis=1), FINGERS_M),
            ):
                if len(segments):
                    key = f"{name}/{part}"
                    self._paths[key] = scene.add_line_segments(key, segments.astype(np.float32), tints, thickness=width)
            key = f"{name}/steps"
            self._paths[key] = scene.add_point_cloud(
                key, path.positions.astype(np.float32), shades, point_size=STEP_M, point_shape="circle"
            )
        for name in before.keys() - self._paths.keys():
            before[name].remove()


def _set_pose(handle, pose: np.ndarray) -> None:
    rotation = cv2.Rodrigues(pose[:3, :3])[0].ravel()
    angle = np.linalg.norm(rotation)
    axis = rotation / angle if angle > 0.0 else rotation
    handle.position, handle.wxyz = pose[:3, 3], np.array([np.cos(angle / 2), *(np.sin(angle / 2) * axis)])


def _bytes(colours: np.ndarray) -> np.ndarray:
    return np.rint(np.clip(colours, 0.0, 1.0) * 255).astype(np.uint8)


def _plain(colour: np.ndarray) -> np.ndarray:
    return np.tile(_bytes(colour), (2, 2, 1))
