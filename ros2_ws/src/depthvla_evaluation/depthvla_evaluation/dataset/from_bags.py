"""Recorded episodes as a LeRobot dataset: `depthvla from-bags BAGS... --out DIR`.

An episode of the dataset is a stretch of a bag without a gap in which one and the same - the policy, or a person - was
in command, with one instruction. What was recorded in any other mode is left out.
"""

from __future__ import annotations

import sys
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import tyro
from tqdm import tqdm

from depthvla_control.arbiter import Mode
from depthvla_evaluation.bags.bag import Bag
from depthvla_evaluation.bags.recorded_graph import calibrations, is_simulated, recorded_calibrations, recorded_robot
from depthvla_evaluation.dataset.bag_frames import IN_COMMAND, BagFrame, BagFrames
from depthvla_policy.data.lerobot_writer import DatasetWriter, Frame
from depthvla_policy.policy import made_for
from depthvla_policy.policy.calibration import Calibration
from depthvla_policy.policy.observation_buffer import ObservationLimits
from r1lite_description.robot import Robot

KEPT = {"all": IN_COMMAND, "interventions": (Mode.TELEOP,), "policy": (Mode.POLICY,)}
GAP = 1.5  # control periods between two frames beyond which an episode ends


@dataclass(frozen=True)
class FromBagsConfig:
    """Which bags, and which part of them."""

    bags: tyro.conf.Positional[tuple[Path, ...]]
    """rosbag2 folders, one an episode"""
    out: Path
    """folder of the dataset; created when missing, continued when it is there"""
    outcomes: tuple[Literal["success", "failure", "aborted", "failed", "unscored"], ...] = ("success",)
    """bags to take, by the outcome that was given when the recording ended"""
    keep: Literal["all", "interventions", "policy"] = "all"
    """frames to take, by who was in command"""
    min_frames: int = 16
    """shorter stretches are left out"""
    images: Literal["jpeg", "video"] = "jpeg"
    """how RGB is kept: jpeg, the bytes as recorded, or video, H.264"""
    lead_steps: int = 0
    """control periods that the action is ahead of the image"""
    rectify: tuple[str, ...] | None = None
    """cameras whose images are rectified for the training; by default those that were for the recorded policy"""
    calibration_files: dict[str, Path] = field(default_factory=dict)
    """camera and YAML of its calibration, where not the CameraInfo of the bag is to be taken; needs --rectify"""
    camera_frozen_after_s: float = 0.5
    """how long a camera may send the same image; 0, for simulated cameras, allows it"""

    def __post_init__(self) -> None:
        if not self.bags or self.min_frames < 1 or self.lead_steps < 0:
            raise ValueError(
                f"bags are {self.bags}, min_frames is {self.min_frames}, lead_steps {self.lead_steps}; allowed: one bag"
                " or more, 1 or more, 0 or more"
            )
        unused = sorted(set(self.calibration_files) - set(self.rectify or ()))
        if unused:
            raise ValueError(f"calibration_files has {unused}, which are not in rectify")


def main() -> int:
    try:
        config = tyro.cli(FromBagsConfig, description=__doc__)
    except ValueError as error:
        print(f"from_bags: {error}", file=sys.stderr)
        return 2
    failed = 0
    for path in config.bags:
        try:
            print(f"{path}: {convert(path, config)}")
        except (OSError, ValueError) as error:
            print(f"from_bags: {error}", file=sys.stderr)
            failed += 1
    return 1 if failed else 0


def convert(path: Path, config: FromBagsConfig) -> str:
    """Add one bag to the dataset, or not; says what came of it.

    Raises:
        FileNotFoundError: there is no such bag.
        ValueError: the bag cannot be read, lacks a stream or a calibration, or its cameras differ from the dataset's.
    """
    with Bag(path) as bag:
        for remark in bag.remarks:
            print(f"from_bags: {remark}", file=sys.stderr)
        outcome = bag.custom_data.get("outcome") or "unscored"
        if outcome not in config.outcomes:
            return f"left out, its outcome is {outcome}"
        robot = recorded_robot(bag)
        limits = ObservationLimits(camera_frozen_after_s=config.camera_frozen_after_s)
        frames = BagFrames(bag, robot, limits=limits, lead_steps=config.lead_steps)
        rectified_by = _calibrations(bag, robot, config)
        source = made_for.SIMULATION if is_simulated(bag) else made_for.REAL
        with DatasetWriter(config.out, robot, images=config.images, rectified_by=rectified_by, source=source) as writer:
            return _write(writer, frames, robot, path.resolve().name, config)


def _calibrations(bag: Bag, robot: Robot, config: FromBagsConfig) -> dict[str, Calibration]:
    if config.rectify is None:
        return recorded_calibrations(bag, robot, [camera.name for camera in robot.cameras])
    return calibrations(bag, robot, config.rectify, config.calibration_files)


def _write(writer: DatasetWriter, frames: BagFrames, robot: Robot, bag: str, config: FromBagsConfig) -> str:
    episodes, before = len(writer.episodes), writer.frames
    known = {(row.get("bag"), row.get("begin_ns")) for row in writer.episodes}
    kept, left_out = KEPT[config.keep], Counter()
    last: BagFrame | None = None
    begin_ns = 0

    def end() -> None:
        if not writer.length:
            return
        if writer.length < config.min_frames:
            left_out["too short"] += writer.length
        elif (bag, begin_ns) in known:
            left_out["in the dataset already"] += writer.length
        else:
            writer.save_episode({"bag": bag, "begin_ns": begin_ns})
        writer.discard_episode()

    with tqdm(frames, total=frames.total, desc=bag, unit="frame", mininterval=1.0) as shown:
        for frame in shown:
            if frame.mode not in kept:
                left_out[frame.mode.name] += 1
                continue
            if last is None or not _follows(frame, last, robot):
                end()
                begin_ns = frame.stamp_ns
                writer.begin_episode(frame.instruction)
            intervention = frame.mode is Mode.TELEOP
            writer.add_frame(Frame(frame.images, frame.state, frame.action, intervention=intervention))
            last = frame
    end()
    left_out += frames.left_out
    reasons = ", ".join(f"{count} {reason}" for reason, count in left_out.most_common())
    result = f"{len(writer.episodes) - episodes} episodes, {writer.frames - before} frames"
    return f"{result}; left out: {reasons}" if reasons else result


def _follows(frame: BagFrame, last: BagFrame, robot: Robot) -> bool:
    gap_s = (frame.stamp_ns - last.stamp_ns) * 1e-9
    same = frame.mode is last.mode and frame.instruction == last.instruction
    return same and gap_s <= GAP * robot.period_s


if __name__ == "__main__":
    sys.exit(main())
