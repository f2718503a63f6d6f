"""The expert that operates the microwave: the left arm at the door, the right one at food and plate."""

from __future__ import annotations

import numpy as np

from r1lite_sim.experts.base import PlanExpert
from r1lite_sim.scene import kitchen
from r1lite_sim.skills import Hand, Pose, Skill, facing, turned
from r1lite_sim.tasks.microwave_operation import DOOR, FOOD, HANDLE, MICROWAVE, OPEN_RAD, PLATE

DOOR_PITCH = np.radians(40)  # steep enough for the open door's handle, near the shoulder
DOOR_OPEN = np.radians(78)
HANDLE_MM = 55.0  # opening around the handle: the inner finger fits between bar and door
PUSH_RADIUS = 0.15  # m from the hinge
SHUT_RAD = np.radians(1.0)
GRIP_PITCH = np.radians(44)
GRASP_AT = 0.092  # m from the plate's middle
INSERT = 0.070  # m behind the front where the plate's middle is let go; the fingers then push it on
INSERT_HEADING = np.radians(20)
MARGIN = 0.012  # m behind the front where the plate's grip ends
SILL = kitchen.WALL + 0.012  # m, height in which the plate passes over the microwave's floor


class MicrowaveOperationExpert(PlanExpert):
    def plan(self) -> Skill:
        task, data = self._simulation.task, self._simulation.data
        if not task.inside(data):
            if task.door_angle(data) < OPEN_RAD:
                yield from self._open_door(self._hands["left"])
            if not task.served(data):
                yield from self._serve(self._hands["right"])
            yield from self._insert(self._hands["right"])
        yield from self._close_door(self._hands["left"])

    def _open_door(self, hand: Hand) -> Skill:
        data = self._simulation.data
        hand.set_opening(HANDLE_MM)
        bar = data.geom(HANDLE).xpos.copy()
        grasp = Pose(bar, facing(hand.azimuth(bar), DOOR_PITCH))
        yield from hand.via(grasp.back(0.10), grasp, tolerance=0.015)
        yield from hand.close(2000 * kitchen.HANDLE_RADIUS)
        angle = self._simulation.task.door_angle
        yield from hand.arc(self._hinge(), -(DOOR_OPEN - angle(data)), lambda: angle(data) > DOOR_OPEN)
        # It waits there: on the way to where it started it would meet the door.
        yield from hand.release(HANDLE_MM, 0.12)

    def _serve(self, hand: Hand) -> Skill:
        task = self._simulation.task
        pitch = min(hand.pitch(self.pose(name).position) for name in (FOOD, PLATE))

        def grasp() -> Pose:
            food = self.pose(FOOD)
            x = food.rotation[:, 0]
            heading = turned(float(np.arctan2(x[1], x[0])), hand.azimuth(food.position), np.pi / 2)
            return Pose(food.position + [0, 0, 0.006], facing(heading, pitch))

        width_mm = kitchen.FOOD_SIZE * 1000
        yield from hand.pick(grasp, width_mm, lambda: task.gripped(FOOD, hand.side), opening_mm=70.0)
        plate = self.pose(PLATE)
        rotation = facing(hand.azimuth(plate.position), pitch)
        offset = rotation @ hand.pose.rotation.T @ (self.pose(FOOD).position - hand.pose.position)
        middle = plate.position + [0, 0, kitchen.PLATE_THICKNESS + kitchen.FOOD_HEIGHT / 2 + 0.004]
        goal = Pose(middle - offset, rotation)
        yield from hand.via(goal.moved(z=0.09), goal, tolerance=0.015)
        yield from hand.release(70.0)

    def _insert(self, hand: Hand) -> Skill:
        task, microwave = self._simulation.task, self.pose(MICROWAVE)
        inwards = microwave.rotation @ facing(INSERT_HEADING, 0.0)
        if self._in_front(microwave):
            yield from hand.pick(
                lambda: self._grip(hand),
                kitchen.GRIP_WIDTH * 1000,
                lambda: task.gripped(PLATE, hand.side),
                opening_mm=70.0,
                lift=0.09,
            )
            middle = microwave.position + microwave.rotation @ [INSERT, 0.0, SILL]
            goal = hand.holding(self.pose(PLATE), Pose(middle, inwards))
            before = Pose(goal.position - 0.17 * microwave.rotation[:, 0], goal.rotation)
            yield from hand.via(before.moved(z=0.06), before.moved(z=0.005), tolerance=0.02)
            yield from hand.move(goal)
            yield from hand.move(goal.moved(z=kitchen.WALL - SILL + 0.002), steps=20)
            yield from hand.release(60.0, 0.08)
        yield from self._push_plate(hand, microwave)
        hand.retire()

    def _push_plate(self, hand: Hand, microwave: Pose) -> Skill:
        """With the closed fingers at the end of the grip."""
        plate = self.pose(PLATE)
        ahead = plate.rotation[:, 0]
        rotation = facing(float(np.arctan2(ahead[1], ahead[0])), GRIP_PITCH)
        hand.set_opening(0.0)
        end = plate.position - kitchen.GRIP_END * ahead + [0, 0, kitchen.GRIP_HEIGHT * 0.6]
        start = Pose(end - 0.04 * ahead, rotation)
        yield from hand.move(start.moved(z=0.02), 0.012)
        yield from hand.move(start, 0.008)

        def inside() -> bool:
            now = self.pose(PLATE)
            end = now.position - kitchen.GRIP_END * now.rotation[:, 0]
            return (end - microwave.position) @ microwave.rotation[:, 0] > MARGIN

        yield from hand.push(ahead, 0.12, inside)
        yield from hand.move(hand.pose.back(0.10), 0.02)

    def _close_door(self, hand: Hand) -> Skill:
        data, angle = self._simulation.data, self._simulation.task.door_angle
        hand.set_opening(0.0)
        door, hinge = self.pose(DOOR), self._hinge()
        outwards, along = -door.rotation[:, 0], -door.rotation[:, 1]
        spot = hinge + PUSH_RADIUS * along + 0.05 * outwards + [0, 0, kitchen.HANDLE_HEIGHT]
        heading = hand.azimuth(door.position - [0, 0.1, 0])
        start = Pose(spot, facing(heading, DOOR_PITCH))
        yield from hand.via(Pose(start.position + 0.07 * outwards, start.rotation).moved(z=0.10), start, tolerance=0.02)
        yield from hand.arc(hinge, angle(data) + 0.3, lambda: angle(data) < SHUT_RAD)
        yield from hand.move(hand.pose.back(0.08), 0.02)
        hand.retire()

    def _in_front(self, microwave: Pose) -> bool:
        plate = self.pose(PLATE)
        return (plate.position - microwave.position) @ microwave.rotation[:, 0] < INSERT - 0.02

    def _grip(self, hand: Hand) -> Pose:
        plate = self.pose(PLATE)
        ahead = plate.rotation[:, 0]
        position = plate.position - GRASP_AT * ahead + [0, 0, kitchen.GRIP_HEIGHT * 0.65]
        return Pose(position, facing(float(np.arctan2(ahead[1], ahead[0])), GRIP_PITCH))

    def _hinge(self) -> np.ndarray:
        return self.pose(DOOR).position
