"""The numbers of one episode, what in it needs a look, and both for a terminal."""

from __future__ import annotations

import datetime
import re
from collections import Counter
from collections.abc import Sequence

import numpy as np

from depthvla_evaluation.bags.episode import Episode
from depthvla_evaluation.bags.pictures import DepthFrame
from depthvla_evaluation.metrics import summarise
from depthvla_evaluation.report.figures import mode_spans
from depthvla_evaluation.report.scores import Score


def summarise_episode(episode: Episode, score: Score, compared: Sequence[DepthFrame] = ()) -> dict:
    """The numbers of an episode; None where the bag holds nothing to tell them from.

    duration_s and success_time_s: from the first observation that the policy answered. chunk_rate_hz: chunks a second
    between the first and the last. chunk_latency_ms: arrival at the executor - stamp of the observation. depth_abs_rel:
    mean over the images `compared` of |predicted - true| / true over their valid pixels.
    progress, success: those of the score.
    """
    chunks, ticks, notes = episode.chunks, episode.ticks, episode.notes
    errors = {
        camera.name: [frame.errors for frame in compared if frame.camera == camera.name]
        for camera in episode.robot.cameras
    }
    everything = [item for items in errors.values() for item in items]
    commanded = [limb.arm_commanded.stamp_ns for limb in episode.limbs.values()]
    grippers = [limb.gripper_commanded.stamp_ns for limb in episode.limbs.values()]
    known = ticks.stamp_ns.size > 0
    return {
        "instruction": " / ".join(chunks.instructions) or notes.instruction or None,
        "model_id": " / ".join(chunks.model_ids) or None,
        "robot": episode.robot.name,
        "started": datetime.datetime.fromtimestamp(episode.start_ns * 1e-9, datetime.timezone.utc).strftime(
            "%Y-%m-%d %H:%M:%S UTC"
        ),
        "duration_s": round(episode.duration_s, 3),
        "recorded_s": round(episode.recorded_s, 3),
        "task": score.task,
        "setting": score.setting,
        "scene": score.scene,
        "policy": score.policy,
        "outcome": notes.outcome,
        "notes": notes.notes,
        "failure": notes.failure,
        "success": score.success,
        "success_time_s": score.success_time_s,
        "progress": None if score.progress is None else _round(score.progress),
        "points": score.points,
        "total": score.total,
        "counted": score.counted,
        "not_counted": score.not_counted,
        "marks": [
            {"substep": mark.substep, "time_s": _round(float(episode.seconds(mark.time_ns)))} for mark in notes.marks
        ],
        "interventions": [
            {"time_s": _round(float(episode.seconds(change.stamp_ns))), "cause": change.cause}
            for change in episode.mode_changes
            if change.intervention
        ],
        "seed": episode.progress.seed if episode.progress.seed >= 0 else None,
        "chunks": len(chunks.stamp_ns),
        "chunk_rate_hz": _rate_hz(chunks.received_ns),
        "chunk_latency_ms": _milliseconds(episode.chunk_latency_s),
        "inference_ms": _milliseconds(chunks.inference_s),
        "chunks_refused": ticks.refused if known else None,
        "commands_sent": ticks.commands_sent if known else None,
        "commands_recorded": sum(len(stamps) for stamps in (*commanded, *grippers)),
        "command_rate_hz": _rate_hz(max(commanded, key=len)) if commanded else None,
        "ticks": ticks.ticks if known else None,
        "missed_ticks": ticks.missed if known else None,
        "executor_jitter_ms": _milliseconds(ticks.jitter_s),
        "mode_s": _mode_seconds(episode),
        "depth_abs_rel": _mean([item.abs_rel for item in everything]),
        "depth_abs_rel_by_camera": {name: _mean([item.abs_rel for item in items]) for name, items in errors.items()},
        "depth_rmse_m": _mean([item.rmse_m for item in everything]),
        "depth_delta_1": _mean([item.delta_1 for item in everything]),
        "depth_images": len(everything),
        "messages_lost": notes.messages_lost,
        "topics_missing": list(notes.topics_missing),
        "calibration_missing": list(notes.calibration_missing),
        "parameters_missing": list(notes.parameters_missing),
        "git_revision": notes.git_revision,
        "machine": notes.machine,
        "parameters": notes.parameters,
    }


def findings(episode: Episode, score: Score, summary: dict) -> list[str]:
    """What an engineer has to look at, in plain sentences."""
    found = [f"This episode does not count: {score.not_counted}."] if score.not_counted and score.task else []
    found += score.doubts
    if not summary["chunks"]:
        found.append("The bag holds no action chunk.")
    if summary["ticks"] is None:
        found.append("The bag holds no status of the chunk executor.")
    found += [f"Fault: {cause}" for cause in episode.ticks.fault_causes]
    if summary["missed_ticks"]:
        found.append(f"{summary['missed_ticks']} of {summary['ticks']} control ticks were missed.")
    if summary["chunks_refused"]:
        found.append(f"{summary['chunks_refused']} chunks were refused, the last one: {episode.ticks.last_refusal}")
    gaps = int(np.sum(np.maximum(np.diff(episode.chunks.sequence) - 1, 0)))
    if gaps:
        found.append(f"{gaps} chunks are missing between the recorded ones.")
    for reason, count in _alike(episode.policy_reasons):
        found.append(f"No chunk for a while, said {count} times: {reason}" if count > 1 else f"No chunk: {reason}")
    clamped = episode.ticks.clamped_position
    if clamped:
        found.append(f"{clamped} joint commands were clamped to a limit of motion.")
    lost = summary["messages_lost"] or {}
    if lost:
        most = max(lost, key=lost.__getitem__)
        found.append(
            f"{sum(lost.values())} messages are not in the bag ({len(lost)} topics, most on {most}: {lost[most]})."
        )
    for what, names in (
        ("Nothing came on", episode.notes.topics_missing),
        ("No calibration was recorded of", episode.notes.calibration_missing),
        ("No parameters were recorded of", episode.notes.parameters_missing),
    ):
        if names:
            found.append(f"{what} {', '.join(names)}.")
    return found


def table(summary: dict) -> str:
    """The summary for a terminal."""
    latency, jitter = summary["chunk_latency_ms"], summary["executor_jitter_ms"]
    depth = ", ".join(
        f"{name} {value:.1%}" for name, value in summary["depth_abs_rel_by_camera"].items() if value is not None
    )
    refused = f", {summary['chunks_refused']} refused" if summary["chunks_refused"] else ""
    rows = [
        ("instruction", summary["instruction"] or "-"),
        ("policy", summary["model_id"] or "-"),
        ("success", _success_text(summary)),
        ("duration", f"{summary['duration_s']:.1f} s"),
        ("chunks", f"{summary['chunks']}  at {_number(summary['chunk_rate_hz'], '.1f')} Hz{refused}"),
        ("chunk latency", _spread(latency)),
        (
            "commands sent",
            f"{_number(summary['commands_sent'], 'd')}  at {_number(summary['command_rate_hz'], '.2f')} Hz",
        ),
        ("missed ticks", f"{_number(summary['missed_ticks'], 'd')} of {_number(summary['ticks'], 'd')}"),
        ("executor jitter", _spread(jitter)),
        ("depth AbsRel", f"{_number(summary['depth_abs_rel'], '.1%')}" + (f"  ({depth})" if depth else "")),
    ]
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"  {name:<{width}}  {value}" for name, value in rows)


def _alike(sentences: Sequence[str]) -> list[tuple[str, int]]:
    """Sentences that differ in numbers only count as one: (the first of them, how many), in order of appearance."""
    first: dict[str, str] = {}
    counts: Counter[str] = Counter()
    for sentence in sentences:
        pattern = re.sub(r"\d+(\.\d+)?", "0", sentence)
        first.setdefault(pattern, sentence)
        counts[pattern] += 1
    return [(first[pattern], count) for pattern, count in counts.items()]


def _mode_seconds(episode: Episode) -> dict[str, float]:
    seconds: dict[str, float] = {}
    for mode, begin_s, end_s in mode_spans(episode):
        seconds[mode.name] = round(seconds.get(mode.name, 0.0) + end_s - begin_s, 3)
    return seconds


def _rate_hz(stamps_ns: np.ndarray) -> float | None:
    if len(stamps_ns) < 2 or stamps_ns[-1] <= stamps_ns[0]:
        return None
    return _round(float((len(stamps_ns) - 1) / ((stamps_ns[-1] - stamps_ns[0]) * 1e-9)))


def _milliseconds(values_s: np.ndarray) -> dict[str, float] | None:
    return {name: _round(value * 1e3) for name, value in summarise(values_s).items()} or None


def _mean(values: list[float]) -> float | None:
    return _round(float(np.mean(values))) if values else None


def _round(value: float) -> float:
    return round(value, 5)


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def _spread(values: dict[str, float] | None) -> str:
    if not values:
        return "-"
    return "  ".join(f"{name} {values[name]:.1f}" for name in ("p50", "p95", "max")) + "  ms"


def success_time(summary: dict) -> str:
    """When it was done, of an episode with success."""
    done_s = summary["success_time_s"]
    return "before the first observation" if done_s is None else f"after {done_s:.1f} s"


def _success_text(summary: dict) -> str:
    if summary["success"] is None:
        return "not reported"
    if summary["success"]:
        return f"yes, {success_time(summary)}"
    progress = summary["progress"]
    return "no" if progress is None else f"no (progress {progress:.0%})"
