"""The expert that tidies the desk."""

from __future__ import annotations

import numpy as np

from r1lite_sim.experts.base import PlanExpert
from r1lite_sim.scene import desk
from r1lite_sim.scene.workspace import distance, nearest, shoulder
from r1lite_sim.skills import Hand, Pose, Skill, facing, turned
from r1lite_sim.tasks.table_bussing import BOOK, HEADPHONES, HOLDER, HOOKS, PENS, STAND

# Straight down where the arm can, so that the pen is upright when the hand points ahead: m from the shoulder, rad.
PEN_REACH, PEN_PITCH = (0.47, 0.56), np.radians([83, 65])
UPRIGHT_PITCH = np.radians(8)
TURN_AT, TURN_HEIGHT, TURN_PITCH = 0.40, 0.99, np.radians(30)  # m from the shoulder, m, rad
PEN_END_HEIGHT = 0.055  # m above the holder's foot: where the pen's lower end is let go
BAND_PITCH = np.radians(45)
HANG = 0.020  # m between peg and band when the headphones are let go
BOOK_DROP = 0.006  # m


class TableBussingExpert(PlanExpert):
    def plan(self) -> Skill:
        task, data = self._simulation.task, self._simulation.data
        # Tall things first: nothing is in the way of the hand that takes the pens.
        if not task.on_hook(data):
            yield from self._hang_headphones()
        if not task.on_stand(data):
            yield from self._shelve_book()
        for name in PENS:
            if not task.in_holder(data, name):
                yield from self._drop_pen(name)

    def _hang_headphones(self) -> Skill:
        hand, hook = self._hand(HEADPHONES), self.pose(HOOKS[self._simulation.task.hook_side])

        def grasp() -> Pose:
            thing = self.pose(HEADPHONES)
            rotation = facing(self._heading(hand, thing), BAND_PITCH)
            return Pose(thing.position + thing.rotation[:, 2] * (desk.BAND_HEIGHT + 0.002), rotation)

        yield from self._pick(hand, HEADPHONES, grasp, desk.BAND_WIDTH, lift=0.12)
        outwards = hook.rotation[:, 1] * (1 if hand.side == "left" else -1)
        height = desk.PEG_HEIGHT + desk.PEG_RADIUS + HANG + desk.BAND_THICKNESS / 2 - desk.BAND_HEIGHT
        hung = Pose(hook.position + [0, 0, height], hook.rotation @ self._way_round(hand, HEADPHONES))
        goal = hand.holding(self.pose(HEADPHONES), hung)
        before = Pose(goal.position - 0.12 * outwards, goal.rotation)
        yield from hand.via(before.moved(z=0.03), before, goal, tolerance=0.012)
        yield from hand.move(goal.moved(z=-HANG / 2), 0.004, 15)
        yield from hand.release(45.0)
        hand.retire()

    def _shelve_book(self) -> Skill:
        hand, stand = self._hand(BOOK), self.pose(STAND)

        def grasp() -> Pose:
            book = self.pose(BOOK)
            rotation = facing(self._heading(hand, book), hand.pitch(book.position))
            return Pose(book.position + [0, 0, 0.008], rotation)

        yield from self._pick(hand, BOOK, grasp, desk.BOOK[1])
        board = stand.rotation @ facing(0.0, -desk.STAND_TILT)
        up = desk.STAND[2] / 2 + desk.BOOK[2] / 2 + BOOK_DROP
        middle = stand.position + [0, 0, desk.STAND_HEIGHT] + up * board[:, 2]
        goal = hand.holding(self.pose(BOOK), Pose(middle, board @ self._way_round(hand, BOOK)))
        yield from hand.via(goal.moved(z=0.08), goal.moved(z=0.03), goal, tolerance=0.015)
        yield from hand.release(90.0)
        hand.retire()

    def _drop_pen(self, name: str) -> Skill:
        hand, cup = self._hand(name), self.pose(HOLDER)

        def grasp() -> Pose:
            pen = self.pose(name)
            pitch = np.interp(distance(pen.position, hand.side), PEN_REACH, PEN_PITCH)
            return Pose(pen.position + [0, 0, 0.007], facing(self._heading(hand, pen), pitch))

        yield from self._pick(hand, name, grasp, desk.PEN_WIDTH, lift=0.05, opening_mm=70.0)
        azimuth = hand.azimuth(cup.position)
        rotation = facing(azimuth, UPRIGHT_PITCH)
        held = hand.pose.inverse() @ self.pose(name)
        # The end that comes out below.
        axis = rotation @ held.rotation[:, 0]
        end = held.position - np.sign(axis[2]) * desk.PEN_LENGTH / 2 * held.rotation[:, 0]
        goal = Pose(cup.position + [0, 0, PEN_END_HEIGHT] - rotation @ end, rotation)
        # Drawn back first: an arm that points down cannot turn up where the holder is.
        turning = Pose(np.array([*shoulder(hand.side), 0.0]) + TURN_AT * rotation[:, 0], facing(azimuth, TURN_PITCH))
        turning = Pose(np.array([*turning.position[:2], TURN_HEIGHT]), turning.rotation)
        yield from hand.via(turning, goal.moved(z=0.06), goal, tolerance=0.02)
        yield from hand.release(70.0)
        hand.retire()

    def _pick(self, hand: Hand, name: str, grasp, width: float, **options) -> Skill:
        gripped = self._simulation.task.gripped
        yield from hand.pick(grasp, width * 1000, lambda: gripped(name, hand.side), **options)

    def _hand(self, name: str) -> Hand:
        return self._hands[nearest(self.pose(name).position)]

    def _heading(self, hand: Hand, thing: Pose) -> float:
        """Along the thing's x or against it, whichever is the lesser turn."""
        x = thing.rotation[:, 0]
        return turned(float(np.arctan2(x[1], x[0])), hand.azimuth(thing.position), np.pi)

    def _way_round(self, hand: Hand, name: str) -> np.ndarray:
        """Half a turn about z when the thing is held against its x."""
        ahead = self.pose(name).rotation[:, 0] @ hand.pose.rotation[:, 0] >= 0
        return np.eye(3) if ahead else np.diag([-1.0, -1.0, 1.0])
