"""Judges cameras: the pictures' encoding and size, and the camera matrix that belongs to them."""

from __future__ import annotations

import math

from depthvla_policy.policy.calibration import load as calibration_of_file
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
    note = "wide and unrectified, as the vendor's models see it: train on such pictures, or rectify here and there"
    return Finding(check, Verdict.PASS, seen, expected, note if unrectified else "")


def calibration(subject: str, camera: CameraSettings, graph: Graph, sample: Sample, image: Picture | None) -> Finding:
    """Whether the camera's calibration is there and fits its pictures. Predicted depth needs it, and rectifying."""
    if camera.calibration_file:
        return _calibration_file(subject, camera, image)
    check, expected = f"{subject}: camera_info", f"the matrix of its images on {camera.camera_info}"
    verdict, without = _missing(camera)
    if not graph.publishes(camera.camera_info, CAMERA_INFO):
        found = next((topic for topic in _other_places(camera) if graph.publishes(topic, CAMERA_INFO)), None)
        if found is None:
            return Finding(check, verdict, "not published", expected, without)
        fix = Override(POLICY, f"cameras.{camera.name}.camera_info", found)
        return Finding(check, verdict, f"not there, but on {found}", expected, "set the parameter", (fix,))
    if not sample.values:
        return Finding(check, verdict, "published, but silent", expected, without)
    info: Calibration = sample.values[-1]
    if not (info.k[0] > 0.0 and info.k[4] > 0.0 and info.width and info.height):
        return Finding(check, verdict, "zeros: not calibrated", expected, f"calibrate the camera; {without}")
    return _fit(check, camera, info.width, info.height, info.k[0], image, expected)


def is_unrectified(camera: CameraSettings, sample: Sample) -> bool:
    """By its calibration, a CameraInfo; by its name where there is none."""
    distorts = any(sample.values[-1].d) if sample.values else "left_raw" in camera.topic
    return distorts and "rect" not in camera.topic and not camera.rectify


def _calibration_file(subject: str, camera: CameraSettings, image: Picture | None) -> Finding:
    check, expected = f"{subject}: calibration_file", "the YAML of camera_calibration for its images"
    try:
        found = calibration_of_file(camera.calibration_file)
    except (FileNotFoundError, ValueError) as error:
        return Finding(check, Verdict.FAIL, str(error), expected, "the policy's node does not start with it")
    return _fit(check, camera, found.width, found.height, found.k[0, 0], image, expected)


def _fit(
    check: str, camera: CameraSettings, width: int, height: int, focal: float, image: Picture | None, expected: str
) -> Finding:
    seen = f"{width}x{height}, fx {focal:.1f}"
    if image and not image.problem and (width, height) != (image.width, image.height):
        seen += f"; the image is {image.width}x{image.height}"
        todo = "have it calibrated at this image size: "
        todo += "no chunk with rectify" if camera.rectify else "predicted points may be in the wrong place"
        return Finding(check, _missing(camera)[0], seen, expected, todo)
    return Finding(check, Verdict.PASS, seen, expected)


def _missing(camera: CameraSettings) -> tuple[Verdict, str]:
    """What it means to have no calibration that can be used."""
    if camera.rectify:
        return Verdict.FAIL, f"no chunk without it: cameras.{camera.name}.rectify is on"
    return Verdict.WARN, "chunks do not need it; depth is published without camera_info and points"


def _other_places(camera: CameraSettings) -> list[str]:
    """Where drivers put camera_info: beside the image."""
    folder = camera.topic.removesuffix("/compressed").rpartition("/")[0]
    return [f"{folder}/camera_info", f"{folder}/image_raw/camera_info", f"{folder}/image_rect_raw/camera_info"]
