"""Judges cameras: the pictures' encoding and size, and the camera matrix that belongs to them."""

from __future__ import annotations

import math

from r1lite_bringup.preflight.observed import Calibration, Graph, Picture, Sample
from r1lite_bringup.preflight.settings import CAMERA_INFO, POLICY, CameraSettings
from r1lite_bringup.preflight.verdict import Finding, Override, Verdict, skipped

SIDE_BY_SIDE = 2.5  # width over height from which a picture is both eyes of a stereo camera
WIDE = 16 / 9
BLANK = 2.0  # contrast of a covered lens


def picture(subject: str, sample: Sample, unrectified: bool) -> Finding:
    """Encoding and size of one decoded image. unrectified: its camera distorts and its topic is the raw one."""
    check, expected = f"{subject}: image", "a 16:9 JPEG, PNG, rgb8 or bgr8 image"
    if not sample.values:
        return skipped(check, "no messages")
    image: Picture = sample.values[-1]
    if image.problem:
        return Finding(check, Verdict.FAIL, image.problem, expected, "choose another encoding in the camera's driver")
    seen, ratio = f"{image.width}x{image.height} {image.encoding}", image.width / image.height
    if ratio >= SIDE_BY_SIDE:
        todo = "take one eye's topic (left_raw): the policy was trained on one"
        return Finding(check, Verdict.FAIL, f"{seen}: both eyes side by side", expected, todo)
    if image.contrast < BLANK:
        return Finding(check, Verdict.WARN, f"{seen}, nothing in it", expected, "take the cap off, give it light")
    if not math.isclose(ratio, WIDE, rel_tol=0.02):
        todo = "see that the policy was trained on this cut: it fits pictures to a square"
        return Finding(check, Verdict.WARN, f"{seen}, {ratio:.2f}:1", expected, todo)
    note = "wide and unrectified, as the vendor's models see it: the policy must be trained on such pictures"
    return Finding(check, Verdict.PASS, seen, expected, note if unrectified else "")


def calibration(subject: str, camera: CameraSettings, graph: Graph, sample: Sample, image: Picture | None) -> Finding:
    """Whether the camera's matrix is there and fits its pictures. Only predicted depth needs it."""
    check, expected = f"{subject}: camera_info", f"the matrix of its images on {camera.camera_info}"
    without = "chunks do not need it; depth is published without camera_info and points"
    if not graph.publishes(camera.camera_info, CAMERA_INFO):
        found = next((topic for topic in _other_places(camera) if graph.publishes(topic, CAMERA_INFO)), None)
        if found is None:
            return Finding(check, Verdict.WARN, "not published", expected, without)
        fix = Override(POLICY, f"cameras.{camera.name}.camera_info", found)
        return Finding(check, Verdict.WARN, f"not there, but on {found}", expected, "set the parameter", (fix,))
    if not sample.values:
        return Finding(check, Verdict.WARN, "published, but silent", expected, without)
    info: Calibration = sample.values[-1]
    if not (info.k[0] > 0.0 and info.k[4] > 0.0 and info.width and info.height):
        return Finding(check, Verdict.WARN, "zeros: not calibrated", expected, f"calibrate the camera; {without}")
    seen = f"{info.width}x{info.height}, fx {info.k[0]:.1f}"
    if image and not image.problem and (info.width, info.height) != (image.width, image.height):
        seen += f"; the image is {image.width}x{image.height}"
        todo = "publish the matrix of this image size: predicted points may be in the wrong place"
        return Finding(check, Verdict.WARN, seen, expected, todo)
    return Finding(check, Verdict.PASS, seen, expected)


def is_unrectified(camera: CameraSettings, sample: Sample) -> bool:
    """By its calibration, a CameraInfo; by its name where there is none."""
    distorts = any(sample.values[-1].d) if sample.values else "left_raw" in camera.topic
    return distorts and "rect" not in camera.topic


def _other_places(camera: CameraSettings) -> list[str]:
    """Where drivers put camera_info: beside the image."""
    folder = camera.topic.removesuffix("/compressed").rpartition("/")[0]
    return [f"{folder}/camera_info", f"{folder}/image_raw/camera_info", f"{folder}/image_rect_raw/camera_info"]
