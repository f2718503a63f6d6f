"""Differences between units: where a camera is when it is not where it is expected, and the parameters for that."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import yaml

from r1lite_bringup.preflight import checks_graph
from r1lite_bringup.preflight.observed import Graph
from r1lite_bringup.preflight.settings import (
    COMPRESSED,
    MESSAGE_TYPES,
    POLICY,
    RECORDER,
    CameraSettings,
    file_of,
    parameters,
)
from r1lite_bringup.preflight.verdict import Finding, Override, Verdict, overrides

SUFFIX = "/compressed"
SAME_PICTURE = ("image_raw_color", "image_raw", "image_rect_raw", "image_rect_color")


def find_camera(subject: str, camera: CameraSettings, graph: Graph) -> tuple[CameraSettings | None, Finding]:
    """Where the camera's images are on this unit (None: nowhere), and what is to be said about its topic."""
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


def _variants(camera: CameraSettings) -> list[CameraSettings]:
    """The same picture under other names and in the other transport; the nearest first."""
    base = camera.topic.removesuffix(SUFFIX)
    folder, _, name = base.rpartition("/")
    names = [name, *(other for other in SAME_PICTURE if other != name)] if name in SAME_PICTURE else [name]
    transports = [camera.transport, *(transport for transport in MESSAGE_TYPES if transport != camera.transport)]
    other_type = [replace(camera, transport=transport) for transport in transports[1:]]
    return other_type + [
        replace(camera, topic=f"{folder}/{name}{SUFFIX if transport == COMPRESSED else ''}", transport=transport)
        for transport in transports
        for name in names
    ]


def write_parameters(
    folder: Path, findings: Sequence[Finding], cameras: Sequence[CameraSettings], params_dir: Path | None
) -> list[Path]:
    """Writes a `<node>.param.yaml` for every node that needs other parameters: the file that it has now, with those.

    cameras: all of them, as they are on this unit; the recorder gets their topics where they are not the usual ones.
    """
    wanted = overrides(findings)
    recorder = parameters(file_of(RECORDER, params_dir))
    if any(name.startswith("cameras.") for name in wanted.get(POLICY, {})):
        wanted[RECORDER] = {"topics": _with_topics(recorder["topics"], cameras)}
    written = []
    folder.mkdir(parents=True, exist_ok=True)
    for node, changes in wanted.items():
        path = folder / f"{node}.param.yaml"
        content = {node: {"ros__parameters": {**parameters(file_of(node, params_dir)), **changes}}}
        head = f"# {path.name} as it was, with this unit's {', '.join(changes)}.\n"
        path.write_text(head + yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=120))
        written.append(path)
    return written


def _with_topics(entries: Sequence[str], cameras: Sequence[CameraSettings]) -> list[str]:
    """The recorder's entries with the topics of these cameras instead of the description's."""
    topics = []
    for entry in entries:
        for placeholder, field in (("{camera.topic}", "topic"), ("{camera.camera_info}", "camera_info")):
            if placeholder in entry:
                topics += [entry.replace(placeholder, getattr(camera, field)) for camera in cameras]
                break
        else:
            topics.append(entry)
    return topics
