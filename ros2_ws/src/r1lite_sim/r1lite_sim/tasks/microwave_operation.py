"""A plate of food into the microwave: open the door, serve, put the plate inside, close (paper, section IV-C)."""

from __future__ import annotations

import mujoco
import numpy as np

from r1lite_sim.instructions import TEMPLATES
from r1lite_sim.scene import distractors, kitchen
from r1lite_sim.scene.objects import fix, paint, put
from r1lite_sim.scene.table import TABLE_HEIGHT
from r1lite_sim.scene.workspace import Places, arrange, in_reach, start_pose
from r1lite_sim.tasks.base import Task

MICROWAVE, DOOR, HANDLE = "microwave", "microwave_door", "microwave_handle"
PLATE, FOOD = "plate", "food"
OPEN_RAD, CLOSED_RAD = np.radians(65), np.radians(2)  # the plate passes; the latch holds
SERVED = 0.055  # m from the plate's middle to the food's
FOOD_REACH = 0.56  # m from the right shoulder
STILL = 0.05  # m/s


class MicrowaveOperationTask(Task):
    """The hinge is on the left: the left arm works the door, the right one the food and the plate. Takes no options."""

    name = "microwave_operation"
    instruction = TEMPLATES[name]

    def build(self, spec: mujoco.MjSpec) -> None:
        kitchen.microwave(spec, MICROWAVE)
        kitchen.plate(spec, PLATE)
        kitchen.food(spec, FOOD)
        distractors.build(spec)

    def bind(self, model, robot) -> None:
        super().bind(model, robot)
        self._shapes = {name: self._contacts.body(name) for name in (PLATE, FOOD)}
        self._table = self._contacts.geoms("table")
        self._floor = self._contacts.geoms(f"{MICROWAVE}_floor")
        self._hinge = model.joint(DOOR).qposadr[0]
        self._hinge_dof = model.joint(DOOR).dofadr[0]

    def reset(self, model: mujoco.MjModel, data: mujoco.MjData, rng: np.random.Generator) -> np.ndarray:
        """Place everything, the door closed, and return the robot's start vector (14,)."""
        self.done = ()
        places = arrange(rng, lambda places: self._place(model, data, rng, places))
        distractors.scatter(model, data, rng, places)
        parts = ("floor", "roof", "left", "right", "back", "panel")
        paint(model, [f"{MICROWAVE}_{part}" for part in parts], [rng.uniform(0.3, 0.9)] * 3, rng)
        china = [f"{PLATE}_disc", *[f"{PLATE}_rim{index}" for index in range(kitchen.RIM_PARTS)]]
        paint(model, china, rng.uniform(0.55, 1.0, 3), rng)
        return start_pose(self._robot, rng)

    def push(self, data: mujoco.MjData) -> None:
        data.qfrc_applied[self._hinge_dof] = kitchen.latch_torque(data.qpos[self._hinge])

    def states(self, data: mujoco.MjData) -> dict[str, bool]:
        return {
            "door_opened": self.door_angle(data) > OPEN_RAD,
            "food_on_plate": self.served(data),
            "plate_in_microwave": self.inside(data),
            "door_closed": self.success(data),
        }

    def success(self, data: mujoco.MjData) -> bool:
        """The door is closed, behind it the plate with the food."""
        return self.door_angle(data) < CLOSED_RAD and self.inside(data)

    def door_angle(self, data: mujoco.MjData) -> float:
        """How far [rad] the door is open."""
        return float(data.qpos[self._hinge])

    def served(self, data: mujoco.MjData) -> bool:
        """The food lies on the plate alone, and nothing holds it."""
        way = data.body(FOOD).xpos - data.body(PLATE).xpos
        return bool(
            np.linalg.norm(way[:2]) < SERVED
            and way[2] > 0
            and self._contacts.touch(self._shapes[FOOD], self._shapes[PLATE])
            and not self._contacts.touch(self._shapes[FOOD], self._table)
            and not self._contacts.held(self._shapes[FOOD])
        )

    def inside(self, data: mujoco.MjData) -> bool:
        """The plate stands on the microwave's floor grip and all behind its front, the food on it."""
        body, plate = data.body(MICROWAVE), data.body(PLATE)
        rotation = body.xmat.reshape(3, 3)
        middle = rotation.T @ (plate.xpos - body.xpos)
        grip = middle + rotation.T @ plate.xmat.reshape(3, 3) @ [-kitchen.GRIP_END, 0, 0]
        return bool(
            min(middle[0] - kitchen.PLATE_RADIUS, grip[0]) > 0
            and self._contacts.touch(self._shapes[PLATE], self._floor)
            and not self._contacts.held(self._shapes[PLATE])
            and self.speed(data, PLATE) < STILL
            and self.served(data)
        )

    def focus(self, data: mujoco.MjData) -> np.ndarray | None:
        return None if self.success(data) else data.geom(self._focus(data)).xpos.copy()

    def _focus(self, data: mujoco.MjData) -> str:
        if self.inside(data) or self.door_angle(data) < OPEN_RAD:
            return HANDLE
        if not self.served(data):
            return f"{PLATE}_disc" if self._contacts.lifted(self._shapes[FOOD]) else f"{FOOD}_hull"
        return f"{MICROWAVE}_floor" if self._contacts.held(self._shapes[PLATE]) else f"{PLATE}_disc"

    def _place(self, model, data, rng: np.random.Generator, places: Places) -> None:
        spot = np.array([rng.uniform(0.60, 0.63), rng.uniform(0.04, 0.09)])
        yaw = rng.uniform(-0.08, 0.08)
        fix(model, MICROWAVE, [*spot, TABLE_HEIGHT], yaw)
        rotation = np.array([[np.cos(yaw), -np.sin(yaw)], [np.sin(yaw), np.cos(yaw)]])
        places.take(spot + rotation @ kitchen.HINGE, kitchen.DOOR_WIDTH)  # nothing in the door's way
        for x, y, radius in ((0.12, 0.04, 0.13), (0.12, -0.10, 0.13), (0.05, -0.15, 0.075)):
            places.take(spot + rotation @ [x, y], radius)
        plate = places.draw(0.08, x=(0.51, 0.54), y=(-0.25, -0.18))
        put(model, data, PLATE, [*plate, TABLE_HEIGHT], rng.uniform(-0.4, 0.3))
        food = places.draw(0.06, lambda place: in_reach(place, "right", FOOD_REACH), x=(0.50, 0.64), y=(-0.33, -0.06))
        put(model, data, FOOD, [*food, TABLE_HEIGHT + kitchen.FOOD_HEIGHT / 2], rng.uniform(-np.pi, np.pi))
