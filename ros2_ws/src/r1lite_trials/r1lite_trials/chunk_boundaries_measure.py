"""How smooth what was played is, and how consistent chunks are with one another."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from depthvla_control.execution_plan import Plan
from r1lite_description.robot import Robot
from r1lite_trials.chunk_boundaries_play import Played, Source, target_at


def measure(runs: Sequence[Played], robot: Robot) -> dict:
    """The figures of one strategy at one latency over several episodes; arms only where no unit says mm.

    seam: largest step at an arrival. gap: distance of a newcomer from the motion that it meets, largest joint, which is
    what the strategy has to bridge. starts: arrivals that met with no motion. motion, command: largest change from one
    sample to the next, by rate; velocity and acceleration are differences of positions. limits: largest share of the
    velocity and acceleration limits that the command takes at the robot's rate. lag: of the command behind the newest
    prediction while the policy was in command. waited: how long it was not once its first chunk had come.
    """
    arms, rate = ~robot.gripper_mask, robot.control_rate_hz
    seams = np.concatenate([run.seams for run in runs])
    lag = np.concatenate([(run.command[rate] - run.newest)[run.in_command][:, arms] for run in runs])
    shares = np.max([_limit_shares(run.command[rate], robot) for run in runs], axis=0)
    motions = [{rate: np.split(stream, run.starts[rate]) for rate, stream in run.motion.items()} for run in runs]
    return {
        "seams": len(seams),
        "starts": sum(len(run.starts[rate]) for run in runs),
        "refused": sum(run.refused for run in runs),
        "waited_s": round(sum(_waited_s(run, rate) for run in runs), 2),
        "seam": _scaled(np.abs(seams[..., arms]).max(axis=(0, 2), initial=0.0)),
        "seam_gripper_mm": _round(np.abs(seams[:, 0, ~arms]).max(initial=0.0)),
        "gap_mrad": _gaps(np.concatenate([run.gaps for run in runs])[:, arms]),
        "motion": _largest(motions, arms),
        "command": _largest([{rate: [stream] for rate, stream in run.command.items()} for run in runs], arms),
        "limits": {"velocity": _round(shares[0]), "acceleration": _round(shares[1])},
        "lag_rms_mrad": _round(_rms(lag) * 1e3),
    }


def consistency(sources: Sequence[Source], how: str, robot: Robot, latency_ns: int) -> dict:
    """How far chunks are from the recorded one that was in execution when their observation was made; arms only.

    how: "independent" or "continued" (of that recorded chunk). Its motion is the one that the robot was in, so that
    plan and observation agree. rms distance in mrad over the steps that both have, before the newer one's arrival and
    from then on, and the gap at the arrival; None where there is nothing to compare.
    """
    arms, committed, beyond, gaps = ~robot.gripper_mask, [], [], []
    for source in sources:
        for index, stamp in enumerate(source.stamps_ns):
            arrived = [item.chunk for item in source.recorded if item.chunk.stamp_ns + latency_ns <= stamp]
            if not arrived or arrived[-1].due_ns(arrived[-1].steps - 1) < stamp:
                continue
            old = arrived[-1]
            last_ns = old.due_ns(old.steps - 1)
            plan = Plan(old.stamp_ns, old.sequence, old.period_ns, latency_ns, old.positions)
            new = getattr(source, how)(index, plan)
            for step in range(new.steps):
                due_ns = new.due_ns(step)
                if due_ns <= last_ns:
                    apart = (new.positions[step] - target_at(old, due_ns))[arms]
                    (committed if due_ns < stamp + latency_ns else beyond).append(apart)
            if stamp + latency_ns <= last_ns:
                gaps.append((target_at(new, stamp + latency_ns) - target_at(old, stamp + latency_ns))[arms])
    return {
        "committed_rms_mrad": _round(_rms(np.array(committed)) * 1e3) if committed else None,
        "beyond_rms_mrad": _round(_rms(np.array(beyond)) * 1e3) if beyond else None,
        "gap_mrad": _gaps(np.array(gaps).reshape(-1, np.count_nonzero(arms))),
    }


def _waited_s(run: Played, rate: float) -> float:
    """How long the policy was not in command once its first chunk had come."""
    first = int(run.latency_ns * 1e-9 * rate) + 1
    return np.count_nonzero(~run.in_command[first:]) / rate


def _largest(runs: Sequence[dict[float, list[np.ndarray]]], arms: np.ndarray) -> dict:
    """Over all pieces of the streams, by rate."""
    result = {}
    for rate in runs[0]:
        steps = np.zeros(3)
        for piece in (piece[:, arms] for run in runs for piece in run[rate]):
            for order in range(3):
                change = np.abs(np.diff(piece, n=order + 1, axis=0)) * rate**order
                steps[order] = max(steps[order], np.nanmax(change, initial=0.0))
        result[f"{rate:.0f}"] = _scaled(steps)
    return result


def _limit_shares(command: np.ndarray, robot: Robot) -> tuple[float, float]:
    velocity = np.diff(command, axis=0) * robot.control_rate_hz
    acceleration = np.diff(velocity, axis=0) * robot.control_rate_hz
    return (
        float((np.abs(velocity) / robot.command_velocity).max()),
        float((np.abs(acceleration) / robot.command_acceleration).max()),
    )


def _scaled(steps: np.ndarray) -> dict[str, float]:
    position, velocity, acceleration = steps.tolist()
    return {
        "position_mrad": _round(position * 1e3),
        "velocity_rad_s": _round(velocity),
        "acceleration_rad_s2": _round(acceleration),
    }


def _gaps(gaps: np.ndarray) -> dict[str, float] | None:
    """Of (n, joints) [rad] the largest joint's, over n; None for none."""
    if not len(gaps):
        return None
    largest = np.abs(gaps).max(axis=1) * 1e3
    return {f"p{q}" if q < 100 else "max": _round(np.percentile(largest, q)) for q in (50, 95, 100)}


def _round(value: float) -> float:
    return round(float(value), 4)


def _rms(values: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(values)))) if values.size else 0.0
