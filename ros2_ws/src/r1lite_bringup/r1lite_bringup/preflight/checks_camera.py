"""Judges cameras: where their pictures are, encoding and size, and the camera matrix that belongs to them."""

from __future__ import annotations

import math
from dataclasses import replace

from sensor_msgs.msg import CameraInfo

from depthvla_policy.policy.calibration import load as calibration_of_file
from r1lite_bringup.preflight import checks_graph
from r1lite_bringup.preflight.findings import Check, Finding, Override, Verdict
from r1lite_bringup.preflight.measure import Graph, Picture, Sample
from r1lite_bringup.preflight.settings import CAMERA_INFO, COMPRESSED, MESSAGE_TYPES, POLICY, CameraSettings

SIDE_BY_SIDE = 2.5  # width over height from which a picture is both eyes of a stereo camera
WIDE = 16 / 9
BLANK = 2.0  # contrast of a covered lens
SUFFIX = "/compressed"
SAME_PICTURE = ("image_raw_color", "image_raw", "image_rect_raw", "image_rect_color")


def find_camera(subject: str, camera: CameraSettings, graph: Graph) -> tuple[CameraSettings | None, Finding]:
    """The camera with the topic that it has on this unit (None: it has none), and what is to be said about that."""
    usual = checks_graph.topic(subject, camera.topic, camera.message_type, graph)
    if usual.verdict is not Verdict.FAIL:
        return camera, usual
    for other in _variants(camera):
        if graph.publishes(other.topic, other.message_type):
            names = [name for name in ("topic", "transport") if getattr(other, name) != getattr(camera, name)]
            fixes = tuple(Override(POLICY, f"cameras.{camera.name}.{name}", getattr(other, name)) for name in names)
            seen = f"{usual.seen}; this unit has it on {other.topic} ({other.transport})"
            todo = "set " + ", ".join(f"{fix.name}: {fix.value}" for fix in fixes)
            return other, replace(usual, seen=seen, todo=todo, overrides=fixes)
    return None, usual


def picture(subject: str, sample: Sample, unrectified: bool) -> Finding:
    """Encoding and size of one decoded image. unrectified: its camera distorts and its topic is the raw one."""
    check = Check(f"{subject}: image", "a 16:9 JPEG, PNG, rgb8 or bgr8 image")
    if not sample.values:
        return check.skip("no messages")
    image: Picture = sample.values[-1]
    if image.problem:
        return check.fail(image.problem, "choose another encoding in the camera's driver")
    seen, ratio = f"{image.width}x{image.height} {image.encoding}", image.width / image.height
    if ratio >= SIDE_BY_SIDE:
        todo = "take one eye's topic (left_raw): the policy was trained on one"
        return check.fail(f"{seen}: both eyes side by side", todo)
    if image.contrast < BLANK:
        return check.warn(f"{seen}, nothing in it", "take the cap off, give it light")
    if not math.isclose(ratio, WIDE, rel_tol=0.02):
        todo = "see that the policy was trained on this cut: it fits pictures to a square"
        return check.warn(f"{seen}, {ratio:.2f}:1", todo)
    note = "wide and unrectified, as the vendor's models see it: train on such pictures, or rectify here and there"
    return check.passed(seen, note if unrectified else "")


def calibration(subject: str, camera: CameraSettings, graph: Graph, sample: Sample, image: Picture | None) -> Finding:
    """Whether the camera's calibration is there and fits its pictures. Predicted depth needs it, and rectifying."""
    if camera.calibration_file:
        check = Check(f"{subject}: calibration_file", "the YAML of camera_calibration for its images")
        try:
            loaded = calibration_of_file(camera.calibration_file)
        except (FileNotFoundError, ValueError) as error:
            return check.fail(str(error), "the policy's node does not start with it")
        return _fit(check, camera, loaded.width, loaded.height, loaded.k[0, 0], image)
    check = Check(f"{subject}: camera_info", f"the matrix of its images on {camera.camera_info}")
    verdict, without = _missing(camera)
    if not graph.publishes(camera.camera_info, CAMERA_INFO):
        other = next((topic for topic in _other_infos(camera) if graph.publishes(topic, CAMERA_INFO)), None)
        if other is None:
            return check.finding(verdict, "not published", without)
        fix = Override(POLICY, f"cameras.{camera.name}.camera_info", other)
        return check.finding(verdict, f"not there, but on {other}", "set the parameter", fix)
    if not sample.values:
        return check.finding(verdict, "published, but silent", without)
    info: CameraInfo = sample.values[-1]
    if not (info.k[0] > 0.0 and info.k[4] > 0.0 and info.width and info.height):
        return check.finding(verdict, "zeros: not calibrated", f"calibrate the camera; {without}")
    return _fit(check, camera, info.width, info.height, info.k[0], image)


def is_unrectified(camera: CameraSettings, sample: Sample) -> bool:
    """By its calibration, a CameraInfo; by its name where there is none."""
    distorts = any(sample.values[-1].d) if sample.values else "left_raw" in camera.topic
    return distorts and "rect" not in camera.topic and not camera.rectify


def _fit(check: Check, camera: CameraSettings, width: int, height: int, focal: float, image: Picture | None) -> Finding:
    seen = f"{width}x{height}, fx {focal:.1f}"
    if image and not image.problem and (width, height) != (image.width, image.height):
        seen += f"; the image is {image.width}x{image.height}"
        todo = "have it calibrated at this image size: "
        todo += "no chunk with rectify" if camera.rectify else "predicted points may be in the wrong place"
        return check.finding(_missing(camera)[0], seen, todo)
    return check.passed(seen)


def _missing(camera: CameraSettings) -> tuple[Verdict, str]:
    """What it means to have no calibration that can be used."""
    if camera.rectify:
        return Verdict.FAIL, f"no chunk without it: cameras.{camera.name}.rectify is on"
    return Verdict.WARN, "chunks do not need it; depth is published without camera_info and points"


def _other_infos(camera: CameraSettings) -> list[str]:
    """Where drivers put camera_info: beside the image."""
    folder = camera.topic.removesuffix(SUFFIX).rpartition("/")[0]
    return [f"{folder}/camera_info", f"{folder}/image_raw/camera_info", f"{folder}/image_rect_raw/camera_info"]


def _variants(camera: CameraSettings) -> list[CameraSettings]:
    """The same picture under other names and in the other transport; the nearest first."""
    folder, _, name = camera.topic.removesuffix(SUFFIX).rpartition("/")
    names = [name, *(other for other in SAME_PICTURE if other != name)] if name in SAME_PICTURE else [name]
    transports = [camera.transport, *(transport for transport in MESSAGE_TYPES if transport != camera.transport)]
    return [replace(camera, transport=transport) for transport in transports[1:]] + [
        replace(camera, topic=f"{folder}/{name}{SUFFIX if transport == COMPRESSED else ''}", transport=transport)
        for transport in transports
        for name in names
    ]
