"""A microwave with a door, a plate with a grip, and food. The microwave stands firmly; its frame is at the bottom of
its front, in the middle of the opening, x pointing inwards. The door's hinge is on the left.
"""

from __future__ import annotations

import mujoco
import numpy as np

from r1lite_sim.scene.objects import BOX, CYLINDER, drawn, free_body, hidden, solid

DARK, STEEL, GLASS, CREAM = (0.12, 0.12, 0.13), (0.66, 0.67, 0.69), (0.05, 0.06, 0.07), (0.92, 0.90, 0.86)

CAVITY = (0.22, 0.26, 0.19)  # m: depth, width, height
WALL = 0.012
PANEL = 0.055  # m, width of the strip with the controls, right of the opening
DOOR_THICKNESS = 0.016
DOOR_WIDTH = CAVITY[1] + 2 * WALL
HINGE = (-DOOR_THICKNESS / 2 - 0.002, DOOR_WIDTH / 2)  # m, from the microwave's frame
HANDLE = (-0.056, 0.028 - DOOR_WIDTH)  # m, from the hinge when the door is closed
HANDLE_HEIGHT, HANDLE_LENGTH, HANDLE_RADIUS = 0.10, 0.12, 0.009
DOOR_RANGE = np.radians(110)
DAMPING, FRICTION = 0.25, 0.05  # Nm s/rad and Nm of the hinge
LATCH, LATCH_RAD = 0.8, np.radians(3)  # Nm that hold the closed door, rad over which they fade

PLATE_RADIUS, PLATE_THICKNESS = 0.070, 0.010
RIM_HEIGHT, RIM_PARTS = 0.020, 16
GRIP_END, GRIP_WIDTH, GRIP_HEIGHT = 0.110, 0.024, 0.038  # m; the end is measured from the plate's middle
FOOD_SIZE, FOOD_HEIGHT = 0.042, 0.034


def microwave(spec: mujoco.MjSpec, name: str) -> None:
    body = spec.worldbody.add_body(name=name)
    depth, width, height = CAVITY
    half = width / 2 + WALL
    total = height + 2 * WALL
    for part, x, y, z in (
        ("floor", (0, depth), (-half, half), (0, WALL)),
        ("roof", (0, depth), (-half, half), (total - WALL, total)),
        ("left", (0, depth), (half - WALL, half), (0, total)),
        ("right", (0, depth), (-half, WALL - half), (0, total)),
        ("back", (depth, depth + WALL), (-half - PANEL, half), (0, total)),
        ("panel", (0, depth), (-half - PANEL, -half), (0, total)),
    ):
        low, high = np.array([x[0], y[0], z[0]]), np.array([x[1], y[1], z[1]])
        solid(body, f"{name}_{part}", BOX, (high - low) / 2, STEEL, pos=(high + low) / 2)
    middle = -half - PANEL / 2
    drawn(body, f"{name}_display", BOX, [0.001, 0.018, 0.012], GLASS, pos=[0, middle, total - 0.035])
    for index, z in enumerate((0.05, 0.10)):
        upright = {"euler": [0, np.pi / 2, 0]}
        drawn(body, f"{name}_knob{index}", CYLINDER, [0.014, 0.005], DARK, pos=[-0.003, middle, z], **upright)
    _door(spec, body, name, total)


def _door(spec: mujoco.MjSpec, microwave, name: str, height: float) -> None:
    door = microwave.add_body(name=f"{name}_door", pos=[*HINGE, 0.0])
    door.add_joint(
        name=f"{name}_door",
        type=mujoco.mjtJoint.mjJNT_HINGE,
        axis=[0, 0, -1],
        limited=True,
        range=[0, DOOR_RANGE],
        damping=DAMPING,
        frictionloss=FRICTION,
    )
    middle, half = [0, -DOOR_WIDTH / 2, height / 2], DOOR_THICKNESS / 2
    size = [half, DOOR_WIDTH / 2, height / 2 - 0.002]
    solid(door, f"{name}_door", BOX, size, DARK, pos=middle, mass=0.6)
    for side in (-1, 1):
        position = [side * half, middle[1] + 0.012, middle[2]]
        drawn(
            door, f"{name}_window{side}", BOX, [0.0006, DOOR_WIDTH / 2 - 0.045, height / 2 - 0.035], GLASS, pos=position
        )
    x, y = HANDLE
    bar = [x, y, HANDLE_HEIGHT]
    solid(door, f"{name}_handle", CYLINDER, [HANDLE_RADIUS, HANDLE_LENGTH / 2], STEEL, pos=bar, mass=0.03)
    for end in (-1, 1):
        position = [x / 2, y, HANDLE_HEIGHT + end * (HANDLE_LENGTH / 2 - HANDLE_RADIUS)]
        solid(door, f"{name}_mount{end}", BOX, [-x / 2, 0.006, 0.006], STEEL, pos=position, mass=0.01)


def latch_torque(angle: float) -> float:
    """Torque [Nm] on the hinge of a door that is open by `angle` [rad]: a magnet that holds it shut."""
    return -LATCH * max(0.0, 1.0 - angle / LATCH_RAD)


def plate(spec: mujoco.MjSpec, name: str) -> None:
    """A plate with a rim and a grip at its -x; the frame is below its middle."""
    body = free_body(spec, name)
    half = PLATE_THICKNESS / 2
    solid(body, f"{name}_disc", CYLINDER, [PLATE_RADIUS, half], CREAM, pos=[0, 0, half], mass=0.12)
    length = PLATE_RADIUS * np.tan(np.pi / RIM_PARTS)
    for index in range(RIM_PARTS):
        angle = 2 * np.pi * index / RIM_PARTS
        position = [PLATE_RADIUS * np.cos(angle), PLATE_RADIUS * np.sin(angle), RIM_HEIGHT / 2]
        size = [0.003, length, RIM_HEIGHT / 2]
        solid(body, f"{name}_rim{index}", BOX, size, CREAM, pos=position, euler=[0, 0, angle], mass=0.002)
    reach = (GRIP_END - PLATE_RADIUS) / 2
    position = [-PLATE_RADIUS - reach, 0, GRIP_HEIGHT / 2]
    solid(body, f"{name}_grip", BOX, [reach, GRIP_WIDTH / 2, GRIP_HEIGHT / 2], DARK, pos=position, mass=0.02)


def food(spec: mujoco.MjSpec, name: str) -> None:
    """A sandwich; the frame is its middle."""
    body = free_body(spec, name)
    half = FOOD_SIZE / 2
    hidden(body, f"{name}_hull", BOX, [half, half, FOOD_HEIGHT / 2], mass=0.04)
    for layer, (low, high, colour) in enumerate(
        (
            (0.0, 0.34, (0.78, 0.55, 0.28)),
            (0.34, 0.50, (0.30, 0.60, 0.20)),
            (0.50, 0.66, (0.80, 0.20, 0.15)),
            (0.66, 1.0, (0.82, 0.58, 0.30)),
        )
    ):
        size = [half - 0.001 * (layer % 2), half - 0.001 * (layer % 2), (high - low) * FOOD_HEIGHT / 2]
        drawn(body, f"{name}_layer{layer}", BOX, size, colour, pos=[0, 0, ((low + high) / 2 - 0.5) * FOOD_HEIGHT])
