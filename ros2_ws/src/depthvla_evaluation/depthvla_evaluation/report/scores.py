"""The score of a recorded episode: a point for each substep of its task that was done (paper, section IV-C)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from depthvla_evaluation.bags.episode import Episode
from depthvla_evaluation.bags.notes import Notes
from r1lite_description import tasks

DECIDED = {"success": True, "failure": False}  # outcomes that count


@dataclass(frozen=True)
class Score:
    """progress: points / total, or what the simulator reported where nobody scored; 0 to 1. Times are seconds since the
    first observation that the policy answered.
    """

    task: str
    setting: str
    policy: str
    scene: str
    progress: float | None
    points: int | None  # None where the simulator scored
    total: int | None
    success: bool | None
    duration_s: float
    success_time_s: float | None
    substeps_s: dict[str, float | None]  # substep of the task -> when it was done; empty where nobody marked
    interventions: int
    not_counted: str  # why; empty where the episode counts
    doubts: tuple[str, ...]  # what does not fit together, in sentences

    @property
    def counted(self) -> bool:
        return not self.not_counted


def task_substeps(episodes: Iterable[Notes]) -> tuple[dict[str, tuple[str, ...]], list[str]]:
    """Substeps of every task of the episodes, and the tasks of which there is no description.

    Without one, a task's substeps are those that were marked in any of its episodes.
    """
    marked: dict[str, dict[str, None]] = {}
    for notes in episodes:
        if notes.task:
            marked.setdefault(notes.task, {}).update(dict.fromkeys(mark.substep for mark in notes.marks))
    substeps, unknown = {}, []
    for task, names in marked.items():
        try:
            substeps[task] = tuple(tasks.load(task).substeps)
        except FileNotFoundError:
            substeps[task] = tuple(names)
            unknown.append(task)
    return substeps, unknown


def score_episode(episode: Episode, substeps: Mapping[str, Sequence[str]]) -> Score:
    """`substeps`: task -> its substeps, as `task_substeps` gives them.

    What people marked and said goes before what the simulator reported. An outcome without any substep to mark is a
    point of one.
    """
    notes, reported = episode.notes, episode.progress
    simulated = reported.progress[np.isfinite(reported.progress)]
    names = tuple(substeps.get(notes.task, ()))
    times_s = {mark.substep: float(episode.seconds(mark.time_ns)) for mark in notes.marks}
    success = DECIDED.get(notes.outcome)
    progress = points = total = None
    marks: dict[str, float | None] = {}
    if names and (times_s or (success is not None and not simulated.size)):
        marks = {name: times_s.get(name) for name in names}
        points, total = sum(time is not None for time in marks.values()), len(names)
        success = points == total if success is None else success
    elif simulated.size:
        progress = float(simulated.max())
        success = bool(reported.success.any()) if success is None else success
    elif success is not None:
        points, total = int(success), 1
    if total:
        progress = points / total
    return Score(
        task=notes.task or reported.task,
        setting=notes.setting,
        policy=policy_name(episode),
        scene=notes.scene or (f"seed {reported.seed}" if reported.seed >= 0 else ""),
        progress=progress,
        points=points,
        total=total,
        success=success,
        duration_s=round(episode.duration_s, 3),
        success_time_s=_success_time_s(episode, marks) if success else None,
        substeps_s=marks,
        interventions=sum(change.intervention for change in episode.mode_changes),
        not_counted=_why_not_counted(notes, progress),
        doubts=tuple(_doubts(notes, names, marks)),
    )


def policy_name(episode: Episode) -> str:
    """The policy's name as the episode's notes have it; without one, the model that sent the first chunk."""
    return episode.notes.policy or (episode.chunks.model_ids or ("",))[0]


def _success_time_s(episode: Episode, marks: Mapping[str, float | None]) -> float | None:
    """When the task was done, as far as the bag tells; else the end of the episode. None where it was done before the
    recording, or the first observation.
    """
    done_s, progress = episode.duration_s, episode.progress
    if marks and None not in marks.values():
        done_s = max(marks.values())
    elif np.any(progress.success):
        first = int(np.argmax(progress.success))
        done_s = float(episode.seconds(progress.stamp_ns[first])) if first else -1.0
    return round(done_s, 3) if done_s >= 0 else None


def _why_not_counted(notes: Notes, progress: float | None) -> str:
    if notes.outcome == "aborted":
        return f"aborted: {notes.notes}" if notes.notes else "aborted"
    if notes.failure or notes.outcome == "failed":
        return f"the recording FAILED: {notes.failure}" if notes.failure else "the recording FAILED"
    return "" if progress is not None else "nobody scored it"


def _doubts(notes: Notes, names: Sequence[str], marks: Mapping[str, float | None]) -> Iterable[str]:
    strange = [mark.substep for mark in notes.marks if mark.substep not in names]
    if strange:
        yield f"Marked, but no substep of task {notes.task!r}: {', '.join(strange)}."
    done = sum(time is not None for time in marks.values())
    if marks and notes.outcome == "success" and done < len(marks):
        yield f"The outcome is success, but only {done} of {len(marks)} substeps are marked."
    if marks and notes.outcome == "failure" and done == len(marks):
        yield f"The outcome is failure, but all {done} substeps are marked."
