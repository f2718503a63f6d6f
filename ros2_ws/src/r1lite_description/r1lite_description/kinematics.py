"""Forward kinematics from a URDF: where a robot's links are for its joint positions. numpy only.

Works for many joint positions at once, so that a whole action chunk is one call.
"""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

TURNING, SLIDING, FIXED = ("revolute", "continuous"), ("prismatic",), ("fixed",)


@dataclass(frozen=True)
class Joint:
    """`origin` (4, 4): the child's frame in the parent's at position 0. `axis` (3,): a unit vector."""

    name: str
    kind: str
    parent: str
    child: str
    origin: np.ndarray
    axis: np.ndarray
    mimic: str = ""  # the joint that this one follows: multiplier * position + offset
    multiplier: float = 1.0
    offset: float = 0.0

    def motion(self, position: np.ndarray) -> np.ndarray:
        """(..., 4, 4) of positions (...) [rad or m]."""
        motion = np.broadcast_to(np.eye(4), (*position.shape, 4, 4)).copy()
        if self.kind in TURNING:
            motion[..., :3, :3] = _turn(self.axis, position)
        elif self.kind in SLIDING:
            motion[..., :3, 3] = position[..., None] * self.axis
        return motion


class Kinematics:
    """Links and joints of one robot.

    Raises:
        ValueError: the text is no URDF of a single tree, or has a joint that is neither revolute, continuous,
            prismatic nor fixed.
    """

    def __init__(self, urdf: str) -> None:
        try:
            root = ElementTree.fromstring(urdf)
        except ElementTree.ParseError as error:
            raise ValueError(f"the robot description is no XML: {error}") from error
        if root.tag != "robot":
            raise ValueError(f"the robot description is <{root.tag}>; allowed: <robot> (URDF)")
        self.links = tuple(link.get("name", "") for link in root.findall("link"))
        joints = [_joint(element) for element in root.findall("joint")]
        self._above = {joint.child: joint for joint in joints}  # link -> the joint it hangs on
        self._joints = {joint.name: joint for joint in joints}
        self._check(len(joints))

    @property
    def root(self) -> str:
        return next(link for link in self.links if link not in self._above)

    @property
    def joints(self) -> tuple[str, ...]:
        """Names of the joints that positions are for, in the description's order."""
        return tuple(joint.name for joint in self._joints.values() if joint.kind not in FIXED and not joint.mimic)

    def missing(self, links: Iterable[str]) -> list[str]:
        return [link for link in links if link not in self.links]

    def require(self, links: Iterable[str], joints: Iterable[str] = ()) -> None:
        """Raises ValueError that names the links and joints that the description lacks."""
        links, joints = self.missing(links), [joint for joint in joints if joint not in self._joints]
        if links or joints:
            raise ValueError(
                f"the robot description lacks links {links} and joints {joints}; it has links "
                f"{', '.join(self.links)} and joints {', '.join(self.joints)}"
            )

    def add_frames(self, other: Kinematics) -> list[str]:
        """Takes over the links that only `other` has and that are fixed to a link that both have. Returns their names.

        A robot's own description knows its links, but not the frames that somebody else has defined on them.
        """
        added = []
        for link in other.links:
            joint = other._above.get(link)
            if link not in self.links and joint and joint.kind in FIXED and joint.parent in self.links:
                self.links += (link,)
                self._above[link] = self._joints[joint.name] = joint
                added.append(link)
        return added

    def poses(self, links: Iterable[str], positions: Mapping[str, np.ndarray | float]) -> dict[str, np.ndarray]:
        """Poses of links in the root link's frame: link -> (..., 4, 4), metres.

        Args:
            links: names of links.
            positions: joint -> one position or (N,) of them [rad or m]. A joint that is not there stands at 0, and one
                that mimics another follows it.

        Raises:
            ValueError: a link is not in the description.
        """
        links = list(links)
        self.require(links)
        known: dict[str, np.ndarray] = {self.root: np.eye(4)}
        return {link: self._pose(link, positions, known) for link in links}

    def _pose(self, link: str, positions: Mapping[str, np.ndarray | float], known: dict[str, np.ndarray]) -> np.ndarray:
        if link not in known:
            joint = self._above[link]
            pose = self._pose(joint.parent, positions, known) @ joint.origin
            if joint.kind not in FIXED:
                pose = pose @ joint.motion(self._position(joint, positions))
            known[link] = pose
        return known[link]

    def _position(self, joint: Joint, positions: Mapping[str, np.ndarray | float]) -> np.ndarray:
        position = positions.get(joint.mimic or joint.name, 0.0)
        return joint.multiplier * np.asarray(position, dtype=np.float64) + joint.offset

    def _check(self, joints: int) -> None:
        if len(self._above) != joints or len(self._joints) != joints or len(set(self.links)) != len(self.links):
            raise ValueError("the robot description has a name twice, or a link that hangs on two joints")
        for joint in self._joints.values():
            if unknown := self.missing((joint.parent, joint.child)):
                raise ValueError(f"joint {joint.name} of the robot description connects unknown links {unknown}")
        roots = [link for link in self.links if link not in self._above]
        if len(roots) != 1:
            raise ValueError(f"the robot description has roots {roots}; allowed: one")
        for link in self.links:
            seen = {link}
            while (joint := self._above.get(link)) is not None:
                link = joint.parent
                if link in seen:
                    raise ValueError(f"the robot description has a loop through {link}")
                seen.add(link)


def origin(element: ElementTree.Element | None) -> np.ndarray:
    """(4, 4) of a URDF <origin>: xyz [m] and fixed-axis roll, pitch, yaw [rad]; the identity where there is none."""
    pose = np.eye(4)
    if element is not None:
        pose[:3, 3] = numbers(element.get("xyz", "0 0 0"), 3)
        roll, pitch, yaw = numbers(element.get("rpy", "0 0 0"), 3)
        x, y, z = np.eye(3)
        pose[:3, :3] = _turn(z, yaw) @ _turn(y, pitch) @ _turn(x, roll)
    return pose


def numbers(text: str, count: int) -> np.ndarray:
    """(count,) from a URDF attribute. Raises ValueError for another count or what is no finite number."""
    try:
        values = np.array([float(word) for word in text.split()])
    except ValueError:
        values = np.array([np.nan])
    if len(values) != count or not np.all(np.isfinite(values)):
        raise ValueError(f"the robot description has {text!r}; allowed: {count} finite numbers")
    return values


def read_urdf(path: str | Path) -> str:
    """The URDF of a file; a .xacro is processed.

    Raises:
        FileNotFoundError: there is no such file.
        ImportError: it is a .xacro and xacro is not installed.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"robot description {path} does not exist")
    if path.suffix != ".xacro":
        return path.read_text()
    import xacro

    return xacro.process_file(str(path)).toxml()


def _joint(element: ElementTree.Element) -> Joint:
    name, kind = element.get("name", ""), element.get("type", "")
    if kind not in (*TURNING, *SLIDING, *FIXED):
        allowed = ", ".join((*TURNING, *SLIDING, *FIXED))
        raise ValueError(f"joint {name} of the robot description is {kind!r}; allowed: {allowed}")
    parent, child = element.find("parent"), element.find("child")
    if parent is None or child is None:
        raise ValueError(f"joint {name} of the robot description has no parent or no child")
    axis, mimic = element.find("axis"), element.find("mimic")
    direction = numbers("1 0 0" if axis is None else axis.get("xyz", "1 0 0"), 3)
    if kind not in FIXED and not np.any(direction):
        raise ValueError(f"joint {name} of the robot description has an axis without a direction")
    return Joint(
        name,
        kind,
        parent.get("link", ""),
        child.get("link", ""),
        origin(element.find("origin")),
        direction / (np.linalg.norm(direction) or 1.0),
        *(() if mimic is None else _mimic(mimic)),
    )


def _mimic(element: ElementTree.Element) -> tuple[str, float, float]:
    multiplier, offset = numbers(f"{element.get('multiplier', '1')} {element.get('offset', '0')}", 2)
    return element.get("joint", ""), multiplier, offset


def _turn(axis: np.ndarray, angle: np.ndarray | float) -> np.ndarray:
    """(..., 3, 3) rotations by angles (...) about a unit axis (Rodrigues)."""
    x, y, z = axis
    cross = np.array([[0.0, -z, y], [z, 0.0, -x], [-y, x, 0.0]])
    angle = np.asarray(angle, dtype=np.float64)[..., None, None]
    return np.eye(3) + np.sin(angle) * cross + (1.0 - np.cos(angle)) * (cross @ cross)
