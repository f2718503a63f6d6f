"""Small LeRobot datasets whose every number a test knows: ours, layout v3.0, and as Galaxea publishes them, v2.1."""

from __future__ import annotations

import json
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from depthvla_policy.data.lerobot_writer import DatasetWriter, Frame
from r1lite_description import robot as robot_description

ROBOT = robot_description.load()
CAMERAS = tuple(camera.name for camera in ROBOT.cameras)
WIDTH, HEIGHT = 64, 36
STATES = tuple(f"observation.state.{limb}_{part}" for limb in ("left", "right") for part in ("arm", "gripper"))
ACTIONS = tuple(f"action.{limb}_{part}" for limb in ("left", "right") for part in ("arm", "gripper"))


def picture(episode: int, frame: int, camera: int = 0) -> np.ndarray:
    """(H, W, 3) RGB of one brightness that tells episode, frame and camera."""
    return np.full((HEIGHT, WIDTH, 3), 20 + 50 * episode + 3 * frame + camera, np.uint8)


def depth_mm(frame: int) -> np.ndarray:
    depth = np.full((HEIGHT, WIDTH), 1000 + frame, np.uint16)
    depth[:, : WIDTH // 2] = 0
    return depth


def state(episode: int, frame: int) -> np.ndarray:
    return np.arange(14.0) + 100 * episode + frame


def action(episode: int, frame: int) -> np.ndarray:
    return state(episode, frame) + 0.5


def encode(image: np.ndarray, extension: str = ".png") -> bytes:
    return cv2.imencode(extension, image)[1].tobytes()


def frame(episode: int, number: int, **changed) -> Frame:
    values = {
        "images": {name: encode(picture(episode, number, place)) for place, name in enumerate(CAMERAS)},
        "state": state(episode, number),
        "action": action(episode, number),
        "depth": {name: encode(depth_mm(number)) for name in CAMERAS},
        "target_m": np.array([0.1, 0.2, 0.01 * number]),
    }
    return Frame(**{**values, **changed})


def write(writer: DatasetWriter, lengths: Sequence[int], **changed) -> None:
    """Episodes "lift 0", "lift 1", "lift 0"... of these lengths, behind those that are there."""
    for length in lengths:
        number = len(writer.episodes)
        writer.begin_episode(f"lift {number % 2}")
        for index in range(length):
            writer.add_frame(frame(number, index, **changed))
        writer.save_episode({"seed": 1000 + number})


def replace_column(path: Path, name: str, values: Sequence) -> None:
    """Put other values in a column of a parquet file."""
    table = pq.read_table(path)
    kind = table.schema.field(name).type
    pq.write_table(table.set_column(table.column_names.index(name), name, pa.array(values, kind)), path)


def write_v21(folder: Path, lengths: Sequence[int], *, arm_values: int = 6) -> None:
    """Videos, no depth, an episode a file, features that nobody asked for, `Chinese@English` instructions."""
    cameras = ("head_rgb", "head_right_rgb", "left_wrist_rgb", "right_wrist_rgb")
    images = [f"observation.images.{name}" for name in cameras]
    shapes = {name: [arm_values if name.endswith("arm") else 1] for name in (*STATES, *ACTIONS)}
    shapes |= {"observation.state.torso": [4], "action.torso.velocities": [6]}
    numbers = {name: {"dtype": "float32", "shape": shape, "names": None} for name, shape in shapes.items()}
    videos = {name: {"dtype": "video", "shape": [HEIGHT, WIDTH, 3], "names": None} for name in images}
    info = {
        "codebase_version": "v2.1",
        "robot_type": "r1lite",
        "fps": 15,
        "chunks_size": 2,
        "data_path": "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet",
        "video_path": "videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4",
        "features": {**numbers, **videos},
    }
    tasks = [{"task_index": 0, "task": "拿起@Pick it up"}, {"task_index": 1, "task": "放下@Put it down"}]
    episodes = [{"episode_index": e, "tasks": [tasks[e % 2]["task"]], "length": n} for e, n in enumerate(lengths)]
    (folder / "meta").mkdir(parents=True)
    (folder / "meta/info.json").write_text(json.dumps(info))
    for name, rows in (("tasks", tasks), ("episodes", episodes)):
        (folder / f"meta/{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for number, length in enumerate(lengths):
        place = {"episode_chunk": number // 2, "episode_index": number}
        columns = {name: [[0.0] * shape[0]] * length for name, shape in shapes.items()}
        for names, vector in ((STATES, state), (ACTIONS, action)):
            for position, name in zip((0, 6, 7, 13), names, strict=True):
                size = shapes[name][0]
                rows = [vector(number, index)[position : position + size] for index in range(length)]
                columns[name] = [row.tolist() if size > 1 else row.item() for row in rows]
        columns |= {"episode_index": [number] * length, "task_index": [number % 2] * length}
        path = folder / info["data_path"].format(**place)
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.table(columns), path)
        for name in images:
            path = folder / info["video_path"].format(video_key=name, **place)
            path.parent.mkdir(parents=True, exist_ok=True)
            write_video(path, [picture(number, index) for index in range(length)])


def write_video(
    path: Path,
    pictures: Sequence[np.ndarray],
    codec: str = "libx264",
    slots: Sequence[int] | None = None,
    first_index: bool = False,
) -> None:
    """With a key frame every 8 frames only: reading one means decoding those before it. slots: when each is shown, in
    periods. first_index: the file's index stands before its pictures.
    """
    with av.open(str(path), "w", options={"movflags": "faststart"} if first_index else {}) as container:
        stream = container.add_stream(codec, rate=15, options={"g": "8", "crf": "1"})
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        for number, image in enumerate(pictures):
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts, frame.time_base = slots[number] if slots else number, Fraction(1, 15)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
