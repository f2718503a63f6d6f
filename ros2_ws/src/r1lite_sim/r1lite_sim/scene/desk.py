"""What lies and stands on a desk: pens and their holder, headphones and their hook, a book and its stand.

Holder, hook and stand are firm. Every thing's frame is at the bottom of it, in the middle, unless it says otherwise;
x is the direction in which a hand comes.
"""

from __future__ import annotations

import mujoco
import numpy as np

from r1lite_sim.scene.objects import BOX, CYLINDER, drawn, free_body, hidden, solid

DARK, STEEL, PAPER = (0.10, 0.10, 0.11), (0.60, 0.61, 0.63), (0.90, 0.88, 0.82)

PEN_LENGTH, PEN_WIDTH = 0.13, 0.016  # m; a thick marker
HOLDER_RADIUS, HOLDER_HEIGHT, HOLDER_WALL = 0.046, 0.085, 0.004  # m; radius is that of the circle inside the walls
HOLDER_SIDES = 8
BAND_LENGTH, BAND_HEIGHT, BAND_WIDTH = 0.10, 0.118, 0.018  # m; straight part on top, its middle above the ground
BAND_THICKNESS = 0.010
EARCUP = (0.015, 0.026, 0.0275)  # m, half sizes
SPREAD = 0.062  # m from the middle to a leg of the band
SWING_DAMPING = 0.002  # Nm s/rad: the peg's edge and the air; without it they would swing for a minute
PEG_HEIGHT, PEG_RADIUS, PEG_LENGTH = 0.195, 0.006, 0.10
BOOK = (0.110, 0.058, 0.026)  # m
STAND_TILT = np.radians(15)
STAND = (0.135, 0.110, 0.012)  # m, the board
STAND_HEIGHT = 0.035  # m, middle of the board


def pen(spec: mujoco.MjSpec, name: str) -> None:
    """A marker along x; its frame is its middle. It has flat sides: what lies must not roll off the table."""
    body = free_body(spec, name)
    hidden(body, f"{name}_hull", BOX, [PEN_LENGTH / 2, PEN_WIDTH / 2, PEN_WIDTH / 2], mass=0.025)
    lying = {"euler": [0, np.pi / 2, 0]}
    drawn(body, name, CYLINDER, [PEN_WIDTH / 2, PEN_LENGTH / 2 - 0.02], **lying)
    for end, colour in ((-1, DARK), (1, PAPER)):
        drawn(
            body,
            f"{name}_end{end}",
            CYLINDER,
            [PEN_WIDTH / 2 * 0.96, 0.01],
            colour,
            pos=[end * (PEN_LENGTH / 2 - 0.01), 0, 0],
            **lying,
        )


def holder(spec: mujoco.MjSpec, name: str) -> None:
    """An open cup."""
    body = spec.worldbody.add_body(name=name)
    solid(body, f"{name}_floor", CYLINDER, [HOLDER_RADIUS, 0.003], pos=[0, 0, 0.003])
    half = (HOLDER_RADIUS + HOLDER_WALL) * np.tan(np.pi / HOLDER_SIDES)
    for index in range(HOLDER_SIDES):
        angle = 2 * np.pi * index / HOLDER_SIDES
        middle = (HOLDER_RADIUS + HOLDER_WALL / 2) * np.array([np.cos(angle), np.sin(angle)])
        solid(
            body,
            f"{name}_wall{index}",
            BOX,
            [HOLDER_WALL / 2, half, HOLDER_HEIGHT / 2],
            pos=[*middle, HOLDER_HEIGHT / 2],
            euler=[0, 0, angle],
        )


def headphones(spec: mujoco.MjSpec, name: str) -> None:
    """A rigid band on two ear cups, on which it stands. The band is in the xz plane."""
    body = free_body(spec, name, SWING_DAMPING)
    half, flat = BAND_WIDTH / 2, BAND_THICKNESS / 2
    solid(body, f"{name}_band", BOX, [BAND_LENGTH / 2, half, flat], DARK, mass=0.02, pos=[0, 0, BAND_HEIGHT])
    top = np.array([BAND_LENGTH / 2, BAND_HEIGHT])
    bend, low = np.array([SPREAD, BAND_HEIGHT - 0.016]), np.array([SPREAD, 0.04])
    for side in (-1, 1):
        for part, (upper, lower) in enumerate(((top, bend), (bend, low))):
            middle, way = (upper + lower) / 2, lower - upper
            solid(
                body,
                f"{name}_leg{side}{part}",
                BOX,
                [np.linalg.norm(way) / 2 + flat * 0.6, half, flat],
                DARK,
                mass=0.005,
                pos=[side * middle[0], 0, middle[1]],
                euler=[0, np.arctan2(-way[1], side * way[0]), 0],
            )
        position = [side * (SPREAD - 0.004), 0, EARCUP[2]]
        hidden(body, f"{name}_cup{side}", BOX, EARCUP, mass=0.06, pos=position)
        drawn(body, f"{name}_shell{side}", CYLINDER, [EARCUP[2], EARCUP[0]], pos=position, euler=[0, np.pi / 2, 0])


def hook(spec: mujoco.MjSpec, name: str, side: int) -> None:
    """A peg along y on a post; its tip points to -`side`. Its frame is below the middle of the peg."""
    body = spec.worldbody.add_body(name=name)
    end = side * PEG_LENGTH / 2
    solid(body, f"{name}_foot", BOX, [0.05, 0.03, 0.006], STEEL, pos=[0.0, end + side * 0.01, 0.006])
    post = PEG_HEIGHT + 0.02
    solid(body, f"{name}_post", BOX, [0.01, 0.008, post / 2], STEEL, pos=[0, end + side * 0.008, post / 2])
    across = {"euler": [np.pi / 2, 0, 0]}
    solid(body, f"{name}_peg", CYLINDER, [PEG_RADIUS, PEG_LENGTH / 2], STEEL, pos=[0, 0, PEG_HEIGHT], **across)
    solid(body, f"{name}_tip", CYLINDER, [PEG_RADIUS * 1.8, 0.003], STEEL, pos=[0, -end, PEG_HEIGHT], **across)


def book(spec: mujoco.MjSpec, name: str) -> None:
    """A pocket book; its frame is its middle."""
    body = free_body(spec, name)
    x, y, z = np.array(BOOK) / 2
    hidden(body, f"{name}_hull", BOX, [x, y, z], mass=0.12)
    drawn(body, f"{name}_pages", BOX, [x - 0.003, y - 0.002, z - 0.003], PAPER)
    for index, (middle, size) in enumerate(
        (([0, 0, z - 0.0015], [x, y, 0.0015]), ([0, 0, 0.0015 - z], [x, y, 0.0015]), ([0, y - 0.001, 0], [x, 0.001, z]))
    ):
        drawn(body, f"{name}_cover{index}", BOX, size, pos=middle)
    drawn(body, f"{name}_label", BOX, [0.022, 0.02, 0.0002], PAPER, pos=[0.015, 0, z])


def stand(spec: mujoco.MjSpec, name: str) -> None:
    """A board that leans towards the robot, with a lip at its lower edge."""
    body = spec.worldbody.add_body(name=name)
    length, width, thickness = STAND
    cos, sin = np.cos(STAND_TILT), np.sin(STAND_TILT)
    tilt = {"euler": [0, -STAND_TILT, 0]}
    solid(body, f"{name}_board", BOX, [length / 2, width / 2, thickness / 2], pos=[0, 0, STAND_HEIGHT], **tilt)
    along, up = -length / 2 - 0.004, thickness / 2 - 0.001
    lip = [along * cos - up * sin, 0, STAND_HEIGHT + along * sin + up * cos]
    solid(body, f"{name}_lip", BOX, [0.004, width / 2, 0.013], pos=lip, **tilt)
    for name_, x in (("near", -0.045), ("far", 0.045)):
        height = STAND_HEIGHT + x * np.tan(STAND_TILT) - thickness / 2
        solid(body, f"{name}_{name_}", BOX, [0.008, width / 2 - 0.01, height / 2], pos=[x, 0, height / 2])
