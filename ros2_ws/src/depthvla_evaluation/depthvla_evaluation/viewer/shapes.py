"""A robot's looks from its URDF: boxes, cylinders and spheres. Meshes are left out."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from dataclasses import dataclass

import numpy as np

from r1lite_description.kinematics import numbers, origin

PLAIN = (0.7, 0.7, 0.7)


@dataclass(frozen=True)
class Shape:
    """`size`: a box's x, y, z, a cylinder's radius and length, or a sphere's radius [m]. `pose` (4, 4) in the link."""

    link: str
    kind: str  # box, cylinder or sphere
    size: tuple[float, ...]
    pose: np.ndarray
    colour: tuple[float, float, float]  # 0 to 1


def shapes(urdf: str) -> list[Shape]:
    """What is seen of each link, in the description's order. Raises ValueError for a number that is none."""
    root = ElementTree.fromstring(urdf)
    colours = {material.get("name"): _colour(material) for material in root.findall("material")}
    result = []
    for link in root.findall("link"):
        for visual in link.findall("visual"):
            solid = _solid(visual.find("geometry"))
            if solid:
                material = visual.find("material")
                colour = None if material is None else _colour(material) or colours.get(material.get("name"))
                pose = origin(visual.find("origin"))
                result.append(Shape(link.get("name", ""), *solid, pose, colour or PLAIN))
    return result


def _solid(geometry: ElementTree.Element | None) -> tuple[str, tuple[float, ...]] | None:
    for kind, attributes in (("box", ("size",)), ("cylinder", ("radius", "length")), ("sphere", ("radius",))):
        element = None if geometry is None else geometry.find(kind)
        if element is not None:
            text = " ".join(element.get(attribute, "") for attribute in attributes)
            return kind, tuple(numbers(text, {"box": 3}.get(kind, len(attributes))).tolist())
    return None


def _colour(material: ElementTree.Element) -> tuple[float, float, float] | None:
    element = material.find("color")
    return None if element is None else tuple(numbers(element.get("rgba", ""), 4)[:3].tolist())
