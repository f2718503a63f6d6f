"""Checks everything between "the robot is on" and the first armed episode: python -m r1lite_bringup.preflight.

Only looks and listens: nothing is published.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro

from depthvla_control.ros.isolation import apply
from r1lite_bringup import graph
from r1lite_bringup.preflight import table, verdict
from r1lite_description import robot as robot_description


@dataclass(frozen=True)
class PreflightConfig:
    """Is this robot, and this machine, ready for the first armed episode? Nothing is published."""

    robot: Literal["sim", "real"] = "real"
    """a simulation skips what only makes sense on the robot"""
    seconds: float = 2.0
    """for which each topic is listened to, one after the other"""
    discovery_s: float = 5.0
    """for which topics that are not there are waited for"""
    model: str = ""
    """checkpoint to load: a folder, or the name of one in models/; empty: none"""
    device: str = "cpu"
    """where the network runs: cpu, cuda or cuda:N"""
    latency: bool = False
    """also time 20 inferences of it"""
    fix_hints: bool = False
    """say what to do about each finding"""
    json: Path | None = None
    """file for the findings"""
    write_params: Path | None = None
    """folder for <node>.param.yaml files that make the nodes fit this unit; start with params_dir:= of it"""
    params_dir: Path | None = None
    """the launch argument params_dir that will be used"""
    robot_file: str = ""
    """the launch argument robot_file that will be used"""
    bags: Path = Path("out/bags")
    """where recordings will go"""

    def __post_init__(self) -> None:
        for name in ("seconds", "discovery_s"):
            if not 0.0 < getattr(self, name) <= 60.0:
                raise ValueError(f"{name} is {getattr(self, name)}; allowed: above 0, up to 60")
        if self.params_dir and not self.params_dir.is_dir():
            raise ValueError(f"params_dir {self.params_dir} is no folder")


def main(argv: Sequence[str] | None = None) -> int:
    """0: nothing failed; 1: something did; 2: the checks could not be made."""
    try:
        return run(tyro.cli(PreflightConfig, args=argv, prog="preflight"))
    except (OSError, RuntimeError, ValueError, ImportError) as error:
        print(f"preflight could not run: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130


def run(config: PreflightConfig) -> int:
    # Here, so that a missing rclpy is said in words.
    from r1lite_bringup.preflight import settings
    from r1lite_bringup.preflight.run import Asked, look
    from r1lite_bringup.preflight.units import write_parameters

    apply(graph.environment({"robot": config.robot}))
    robot = robot_description.load(config.robot_file or None)
    asked = Asked(
        robot=robot,
        settings=settings.read(robot, config.params_dir),
        simulated=config.robot == "sim",
        seconds=config.seconds,
        discovery_s=config.discovery_s,
        model=str(graph.model_folder(config.model)) if config.model else "",
        device=config.device,
        latency=config.latency,
        robot_file=config.robot_file,
        bags=config.bags,
    )
    result = look(asked, _progress)
    _progress("")
    print(table.text(result.findings, colour=sys.stdout.isatty(), hints=config.fix_hints))
    if config.json:
        config.json.parent.mkdir(parents=True, exist_ok=True)
        content = verdict.as_json(config.robot, result.findings)
        config.json.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n")
    if config.write_params:
        files = write_parameters(config.write_params, result.findings, result.cameras, config.params_dir)
        print(f"written: {', '.join(map(str, files)) or 'nothing, the parameters fit'}")
    return verdict.exit_code(result.findings)


def _progress(text: str) -> None:
    if sys.stderr.isatty():
        print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
