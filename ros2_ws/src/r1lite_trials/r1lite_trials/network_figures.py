"""What a stretch of time on a bad network amounts to: commands as the robot gets them, the executor's modes, chunks.

Times are ns of one clock: both sides run on one machine. Messages in, numbers out; no node.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from depthvla_msgs.msg import ExecutorStatus

from depthvla_control.arbiter import Mode
from depthvla_control.ros.messages import nanoseconds
from r1lite_description.robot import Robot
from r1lite_trials.stream import Stream, largest, percentiles, steps, still_since

STANDS_RAD = 0.002
RETURN_NS = 10**9  # after a cut, in which the arms are where they are wanted again
MISSED = 1.5  # control periods between two commands, above which one is missing


@dataclass(frozen=True)
class Commands:
    """Of the ticks that reached the robot whole, in the order of arrival."""

    stream: Stream  # at the robot
    stamps_ns: np.ndarray  # (N,) when the executor gave them
    observed_ns: np.ndarray  # (N,) stamp of the observation behind them; 0 where no chunk was followed

    def runs(self, period_s: float) -> list[np.ndarray]:
        """Positions, cut where commands are missing in between."""
        missing = np.flatnonzero(np.diff(self.stamps_ns) > MISSED * period_s * 1e9) + 1
        return np.split(self.stream.positions, missing)


@dataclass(frozen=True)
class Window:
    """What was heard while a condition lasted. `cut_ns`: when the link was cut and joined again, if it was."""

    begin_ns: int
    end_ns: int
    commands: Commands
    measured: Stream  # the arms at the robot
    statuses: Sequence[ExecutorStatus]  # at the executor, one a tick
    sent: int  # chunks
    reasons: Counter[str]  # why the policy made none, by how many of its statuses said so
    link: dict  # its report
    cut_ns: tuple[int, int] | None = None


def figures(windows: Sequence[Window], robot: Robot) -> dict:
    """Over all windows of one condition. Raises ValueError where the executor or the robot heard nothing."""
    for window in windows:
        if len(window.statuses) < 2 or len(window.commands.stamps_ns) < 2:
            heard = f"{len(window.statuses)} statuses and {len(window.commands.stamps_ns)} commands"
            raise ValueError(f"{heard} came; allowed: 2 or more")
    seconds = sum(w.end_ns - w.begin_ns for w in windows) * 1e-9
    runs = [run for w in windows for run in w.commands.runs(robot.period_s)]
    moved = largest([steps(run, robot) for run in runs])
    gaps_ms = np.concatenate([_gaps_ms(w) for w in windows])
    ages_ms = np.concatenate([_ages_ms(w.commands) for w in windows])
    modes = Counter(Mode(status.mode).name for w in windows for status in w.statuses)
    cuts = [_cut(w, robot) for w in windows if w.cut_ns]
    return {
        "seconds": round(seconds, 2),
        "commands": sum(len(w.commands.stamps_ns) for w in windows),
        "rate_hz": round(sum(len(w.commands.stamps_ns) for w in windows) / seconds, 2),
        "gap_ms": percentiles(gaps_ms, 50, 99, digits=1),
        "step_rad": round(moved.position_rad, 4),
        "velocity_share": round(moved.velocity, 3),
        "acceleration_share": round(moved.acceleration, 3),
        "step_over_missing_rad": round(max((_step_over_missing(w, robot) for w in windows), default=0.0), 4),
        "ahead_of_arm_rad": round(max(_ahead_of_arm(w, robot).max(initial=0.0) for w in windows), 4),
        "arm_speed_rad_s": max(_fastest(w.measured, robot) for w in windows),
        "age_ms": percentiles(ages_ms, 50, 99, digits=1),
        "modes": {name: round(count / modes.total(), 4) for name, count in modes.items()},
        "missed_ticks": sum(w.statuses[-1].missed_ticks - w.statuses[0].missed_ticks for w in windows),
        "chunks": {
            "sent": sum(w.sent for w in windows),
            "accepted": sum(w.statuses[-1].chunks_accepted - w.statuses[0].chunks_accepted for w in windows),
            "refused": dict(sum((_refused(w) for w in windows), Counter())),
        },
        "no_chunk_because": dict(sum((w.reasons for w in windows), Counter()).most_common(3)),
        "link": [w.link for w in windows],
        **({"cuts": cuts} if cuts else {}),
    }


def _gaps_ms(window: Window) -> np.ndarray:
    """Between commands, and from the last to the end."""
    return np.diff(window.commands.stream.times_ns, append=window.end_ns) * 1e-6


def _ages_ms(commands: Commands) -> np.ndarray:
    followed = commands.observed_ns > 0
    return (commands.stream.times_ns - commands.observed_ns)[followed] * 1e-6


def _step_over_missing(window: Window, robot: Robot) -> float:
    """Of an arm joint, from the last command before missing ones to the next."""
    runs = window.commands.runs(robot.period_s)
    arms = ~robot.gripper_mask
    return max((float(np.abs(b[0] - a[-1])[arms].max()) for a, b in zip(runs[:-1], runs[1:], strict=True)), default=0.0)


def _ahead_of_arm(window: Window, robot: Robot) -> np.ndarray:
    """(N,) how far the farthest arm joint is from its command [rad] when that comes."""
    stream, measured = window.commands.stream, window.measured
    newest = np.searchsorted(measured.times_ns, stream.times_ns, side="right") - 1
    known = newest >= 0
    distance = np.abs(stream.positions[known] - measured.positions[newest[known]])
    return distance[:, ~robot.gripper_mask].max(axis=1)


def _fastest(measured: Stream, robot: Robot) -> float:
    """Largest speed of an arm joint over a control period [rad/s]."""
    later = np.searchsorted(measured.times_ns, measured.times_ns + round(robot.period_s * 1e9))
    inside = later < len(measured.times_ns)
    moved = measured.positions[later[inside]] - measured.positions[inside]
    return round(float(np.abs(moved[:, ~robot.gripper_mask]).max(initial=0.0)) / robot.period_s, 3)


def _refused(window: Window) -> Counter[str]:
    first, last = ({c.name: c.count for c in window.statuses[i].refusals} for i in (0, -1))
    more = {
        name.removeprefix("chunk: "): count - first.get(name, 0) for name, count in last.items() if "chunk: " in name
    }
    return Counter({name: count for name, count in more.items() if count})


def _cut(window: Window, robot: Robot) -> dict:
    """Times in ms; None for what did not happen within the window."""
    cut_ns, joined_ns = window.cut_ns
    ticks = [(nanoseconds(s.header.stamp), s) for s in window.statuses]
    held = next((at for at, s in ticks if at >= cut_ns and s.mode != Mode.POLICY), None)
    followed = next(
        (at for at, s in ticks if s.mode == Mode.POLICY and at - nanoseconds(s.chunk_age) >= joined_ns), None
    )
    stood = still_since(window.measured.between(cut_ns, joined_ns), STANDS_RAD)
    stream = window.commands.stream
    after = stream.times_ns >= joined_ns
    ahead = _ahead_of_arm(window, robot)[-int(after.sum()) :] if after.any() else None
    return {
        "hold_ms": _since(held, cut_ns),
        "arms_stand_ms": _since(stood, cut_ns),
        "commands_meanwhile": int(((stream.times_ns >= cut_ns) & ~after).sum()),
        "first_command_ms": _since(int(stream.times_ns[after][0]) if after.any() else None, joined_ns),
        "followed_ms": _since(followed, joined_ns),
        "ahead_of_arm_rad": None if ahead is None else round(float(ahead[0]), 4),
        "arm_speed_rad_s": _fastest(window.measured.between(joined_ns, joined_ns + RETURN_NS), robot),
    }


def _since(at_ns: int | None, begin_ns: int) -> float | None:
    return None if at_ns is None else round((at_ns - begin_ns) * 1e-6, 1)
