"""The numbers of a dataset: states, actions, targets and instructions of every frame, without its pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from depthvla_control.limb_feedback import values_in_order
from depthvla_policy.data.features import TARGET, TIMESTAMP, Part, action_parts, english, state_parts
from depthvla_policy.data.layout import Layout
from r1lite_description import files
from r1lite_description.robot import Robot

GRIPPER_TOLERANCE_MM = 5.0  # between two readings of an opening that were not taken at the same instant


@dataclass(frozen=True)
class Frames:
    """All frames of a dataset, episode after episode; arrays of M frames in E episodes.

    state, action: (M, size) float32 in `Robot` order, rad and mm; an action that nobody knows is all NaN.
    target_m: (M, 3) float32, NaN without.
    task: (M,) int64, index into `instructions`. row: (M,) int64, the frame's row in its episode's data file.
    length: (E,) int64.
    """

    state: np.ndarray
    action: np.ndarray
    target_m: np.ndarray
    task: np.ndarray
    row: np.ndarray
    length: np.ndarray
    instructions: tuple[str, ...]


def read_frames(layout: Layout, robot: Robot) -> Frames:
    """Read every parquet file of a dataset once, leaving out its images.

    Raises:
        ValueError: a feature is missing, has another shape or is not finite, or the rows disagree with the metadata.
    """
    parts = (*state_parts(robot), *action_parts(robot))
    missing = [part.feature for part in parts if part.feature not in layout.features]
    if missing:
        raise ValueError(f"{layout.folder} has no features {missing}; it has {sorted(layout.features)}")
    for part in parts:
        _check_shape(layout, part, robot)
    has_target, has_time = (name in layout.features for name in (TARGET, TIMESTAMP))
    columns = ["episode_index", "task_index", *(part.feature for part in parts)]
    columns += [TARGET] * has_target + [TIMESTAMP] * has_time
    tables: dict[Path, pa.Table] = {}
    state, action, target, task, row = [], [], [], [], []
    for episode in layout.episodes:
        if episode.data not in tables:
            tables = {episode.data: _read(episode.data, columns)}  # episodes of one file stand next to one another
        table = tables[episode.data]
        rows = np.flatnonzero(table["episode_index"].to_numpy() == episode.index)
        if len(rows) != episode.length or not len(rows) or rows[-1] - rows[0] + 1 != len(rows):
            raise ValueError(
                f"{episode.data} has {len(rows)} rows of episode {episode.index}; there must be {episode.length},"
                " one after another"
            )
        piece = table.slice(rows[0], len(rows))
        where = f"{layout.folder}, episode {episode.index}"
        if has_time:
            _check_times(_matrix(piece, TIMESTAMP)[:, 0], layout.fps, where)
        state.append(_vector(piece, state_parts(robot), robot, layout, where))
        action.append(_vector(piece, action_parts(robot), robot, layout, where, may_lack=True))
        target.append(_matrix(piece, TARGET) if has_target else np.full((len(rows), 3), np.nan, dtype=np.float32))
        task.append(piece["task_index"].to_numpy())
        row.append(rows)
    if not layout.episodes:
        raise ValueError(f"{layout.folder} holds no episode")
    instructions, task = _instructions(layout, np.concatenate(task))
    return Frames(
        np.concatenate(state),
        np.concatenate(action),
        np.concatenate(target),
        task,
        np.concatenate(row),
        np.array([episode.length for episode in layout.episodes], dtype=np.int64),
        instructions,
    )


def _check_shape(layout: Layout, part: Part, robot: Robot) -> None:
    shape = tuple(layout.features[part.feature]["shape"])
    # An arm may carry its gripper's opening as one more value, as the robot's feedback may.
    allowed = [(part.size,)] + [(part.size + 1,)] * (part.size > 1)
    if shape not in allowed:
        raise ValueError(f"{layout.folder}: {part.feature} has shape {shape}; allowed: {allowed}")
    ordered = _reordered(layout, part, robot, np.zeros(shape))
    if isinstance(ordered, str):
        raise ValueError(f"{layout.folder}: {part.feature}: {ordered}")


def _reordered(layout: Layout, part: Part, robot: Robot, values: np.ndarray) -> np.ndarray | str:
    """(..., n) values in the order of the robot's joints, by the names in info.json; or what is wrong with these."""
    names = layout.features[part.feature].get("names") or ()
    names = next(iter(names.values()), ()) if isinstance(names, dict) else names
    if not all(isinstance(name, str) for name in names):
        return f"names are {names!r}; they must be a list of words"
    joints = robot.joint_names[part.where.start : part.where.start + values.shape[-1]]
    order = values_in_order(robot, joints, range(len(joints)), names)
    return order if isinstance(order, str) else values[..., order.astype(int)]


def _read(path: Path, columns: Sequence[str]) -> pa.Table:
    with files.reading(path, "a file of the dataset's rows (parquet)"):
        table = pq.read_table(path, columns=list(columns), use_threads=False).combine_chunks()
    if missing := [name for name in columns if name not in table.column_names]:
        raise ValueError(f"{path} has no columns {missing}, which the dataset's description names")
    return table


def _check_times(times_s: np.ndarray, fps: float, where: str) -> None:
    """A row that was lost would shift every later picture of a video, and the steps of every chunk."""
    off_s = np.abs(times_s - np.arange(len(times_s)) / fps)
    if not np.all(off_s <= 0.5 / fps):
        row = int(np.argmin(off_s <= 0.5 / fps))
        raise ValueError(
            f"{where}: row {row} is at {times_s[row]:.3f} s; at {fps:g} frames a second it must be at {row / fps:.3f} s"
        )


def _vector(
    table: pa.Table, parts: Sequence[Part], robot: Robot, layout: Layout, where: str, *, may_lack: bool = False
) -> np.ndarray:
    """(rows, size). may_lack: a row may be all NaN."""
    vector = np.empty((len(table), robot.size), dtype=np.float32)
    appended: dict[int, tuple[str, np.ndarray]] = {}  # index in the vector -> what came behind an arm's joints
    for part in parts:
        values = _matrix(table, part.feature)
        (size,) = layout.features[part.feature]["shape"]
        if values.shape[1] != size:
            raise ValueError(f"{where}: {part.feature} holds {values.shape[1]} values, not {size}")
        values = _reordered(layout, part, robot, values)
        vector[:, part.where] = values[:, : part.size]
        if values.shape[1] > part.size:
            appended[part.where.stop] = part.feature, values[:, part.size]
    for index, (feature, values) in appended.items():
        if np.any(values) and np.nanmedian(np.abs(values - vector[:, index])) > GRIPPER_TOLERANCE_MM:
            raise ValueError(
                f"{where}: {feature} has a value behind its joints that is not its gripper's opening: a robot with one"
                f" joint more? Robot {robot.name!r} has {', '.join(robot.joint_names)}"
            )
    known = ~np.isnan(vector).all(axis=1) if may_lack else slice(None)
    for part in parts:
        if not np.all(np.isfinite(vector[known, part.where])):
            raise ValueError(f"{where}: {part.feature} is not finite")
    return vector


def _matrix(table: pa.Table, column: str) -> np.ndarray:
    """A column of numbers, or of lists of equal length, as (N, values)."""
    values = table[column]
    if pa.types.is_list(values.type) or pa.types.is_large_list(values.type) or pa.types.is_fixed_size_list(values.type):
        values = values.combine_chunks().flatten()
    return np.asarray(values.to_numpy(), dtype=np.float32).reshape(len(table), -1)


def _instructions(layout: Layout, task: np.ndarray) -> tuple[tuple[str, ...], np.ndarray]:
    """The distinct English instructions in use, and the index of each frame's."""
    used = np.unique(task)
    unknown = [int(index) for index in used if int(index) not in layout.tasks]
    if unknown:
        raise ValueError(f"{layout.folder} has frames of tasks {unknown}; it knows {sorted(layout.tasks)}")
    texts = {int(index): english(layout.tasks[int(index)]) for index in used}
    if silent := [index for index, text in texts.items() if not text]:
        raise ValueError(f"{layout.folder} has frames of tasks {silent}, which have no instruction")
    distinct = tuple(dict.fromkeys(texts.values()))
    return distinct, np.array([distinct.index(texts[int(index)]) for index in task], dtype=np.int64)
