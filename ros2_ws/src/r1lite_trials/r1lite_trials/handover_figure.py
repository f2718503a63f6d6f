"""Pictures of a hand-over: an arm's commands, their velocity and acceleration, with who is in command behind them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from depthvla_control.arbiter import Mode
from depthvla_evaluation.colours import MODE_COLOURS
from r1lite_description.robot import Robot
from r1lite_trials.simulated_graph import SimulatedGraph
from r1lite_trials.stream import Stream
from r1lite_trials.trial import save_with_palette

JOINTS = ("#2563c9", "#e07b1a", "#2e9e5b", "#cf3a3a", "#8a94a0", "#1c2733")
ROWS = ("position [rad]", "velocity [rad/s]", "acceleration [rad/s²]")
AROUND_S = 1.2
SWITCH_S = 0.3  # in which a switch shows its hardness


def draw(
    graph: SimulatedGraph,
    limb: str,
    switches: Sequence[tuple[int, Mode]],
    commands: Stream,
    modes: Sequence[tuple[int, Mode]],
    overview: Path,
) -> None:
    """Writes the picture `overview`. switches: when each was told [ns], and the mode that it led to."""
    arm = _Arm(graph.robot, limb, commands, modes, graph.stream_begins_ns)
    figure = Figure((13.0, 7.0), layout="constrained")
    columns = figure.subplots(3, 3, width_ratios=(2, 1, 1), sharey="row").T
    whole = (0.0, arm.times_s[-1])
    arm.plot(columns[0], whole, f"{limb} arm, all {len(switches)} switches")
    for column, to, name in ((columns[1], Mode.TELEOP, "leader"), (columns[2], Mode.POLICY, "policy")):
        worst_ns = max((at_ns for at_ns, mode in switches if mode is to), key=arm.acceleration_around)
        at_s = arm.seconds(worst_ns)
        arm.plot(column, (at_s - AROUND_S, at_s + AROUND_S), f"hardest switch to the {name}")
    for axes, label in zip(columns[0], ROWS, strict=True):
        axes.set_ylabel(label)
    handles = [
        Patch(color=MODE_COLOURS[mode], alpha=0.25, label=mode.name) for mode in (Mode.POLICY, Mode.TELEOP, Mode.HOLD)
    ]
    lines = columns[0][0].get_lines()[: len(JOINTS)]
    figure.legend(handles=[*handles, *lines], loc="outside lower center", ncols=len(lines) + 3, frameon=False)
    save_with_palette(figure, overview, dpi=80, colours=96)


class _Arm:
    """Commands of one arm and their differences at the control period, each drawn where it was made."""

    def __init__(
        self, robot: Robot, limb: str, commands: Stream, modes: Sequence[tuple[int, Mode]], begins_ns: Sequence[int]
    ) -> None:
        where = robot.limb(limb).arm
        self._begin_ns, self._modes = commands.times_ns[0], modes
        self.times_s = (commands.times_ns - self._begin_ns) * 1e-9
        position = commands.positions[:, where].copy()
        velocity = np.diff(position, axis=0, prepend=position[:1]) / robot.period_s
        acceleration = np.diff(velocity, axis=0, prepend=velocity[:1]) / robot.period_s
        # A stream that begins has no velocity at its first command, and no acceleration at its second.
        for first in np.searchsorted(commands.times_ns, begins_ns):
            position[first : first + 1] = velocity[first : first + 1] = acceleration[first : first + 2] = np.nan
        self._curves = (position, velocity, acceleration)
        self._limits = (None, robot.command_velocity[where], robot.command_acceleration[where])
        self._names = robot.limb(limb).joints

    def seconds(self, time_ns: int) -> float:
        return (time_ns - self._begin_ns) * 1e-9

    def acceleration_around(self, time_ns: int) -> float:
        near = np.abs(self.times_s - self.seconds(time_ns)) < SWITCH_S
        return float(np.nanmax(np.abs(self._curves[2][near]) / self._limits[2], initial=0.0))

    def plot(self, column: Sequence, span_s: tuple[float, float], title: str) -> None:
        inside = (self.times_s >= span_s[0]) & (self.times_s <= span_s[1])
        column[0].set_title(title, fontsize=10)
        for axes, values, limit in zip(column, self._curves, self._limits, strict=True):
            self._shade(axes, span_s)
            for joint, colour in enumerate(JOINTS):
                axes.plot(
                    self.times_s[inside],
                    values[inside, joint],
                    color=colour,
                    linewidth=1.0,
                    marker="." if span_s[1] - span_s[0] < 10.0 else None,
                    markersize=3,
                    label=self._names[joint].rpartition("_")[2],
                )
            for share in () if limit is None else (-1.0, 1.0):
                for value in np.unique(limit):
                    axes.axhline(share * value, color="#1c2733", linewidth=0.7, linestyle=":")
            axes.set_xlim(*span_s)
            axes.grid(color="#eceff2")
        column[-1].set_xlabel("s")

    def _shade(self, axes, span_s: tuple[float, float]) -> None:
        borders = [*(self.seconds(at) for at, _ in self._modes), span_s[1]]
        for (_, mode), begin, end in zip(self._modes, borders[:-1], borders[1:], strict=True):
            if mode in MODE_COLOURS and end > span_s[0] and begin < span_s[1]:
                axes.axvspan(
                    max(begin, span_s[0]), min(end, span_s[1]), color=MODE_COLOURS[mode], alpha=0.25, linewidth=0
                )
