"""Every strategy at every latency, on the chunks of some bags."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from depthvla_evaluation.bags.recording import describe_machine
from r1lite_description.robot import Robot
from r1lite_trials.chunk_boundaries.measure import consistency, measure
from r1lite_trials.chunk_boundaries.play import Played, Source, flights, play

if TYPE_CHECKING:
    from depthvla_policy.policy.policy import Policy

INDEPENDENT = ("replace", "blend", "ensemble")  # strategies to which chunks need not be continuations
CASES = (  # what chunks they are, how they come about (see `Source`), how they are joined
    *(("recorded", "as_recorded", strategy) for strategy in INDEPENDENT),
    *(("inferred", "independent", strategy) for strategy in INDEPENDENT),
    ("inferred", "continued", "rtc"),
)
ABOUT = {
    "recorded": "the bag's own, each at its stamp plus the latency, so that several may be under way",
    "inferred": "anew from the bag's observations with fixed seeds, one at a time; for rtc as continuations",
}


@dataclass(frozen=True)
class SeamsConfig:
    """Steps at the borders of chunks, for each strategy and latency."""

    bag: tuple[Path, ...]
    """rosbag2 folders of recorded episodes"""
    policy: Path = Path("models/r1lite-small")
    """checkpoint folder that the chunks are inferred with anew"""
    device: str = "cpu"
    """cpu or cuda"""
    threads: int = 1
    """of torch on a CPU"""
    latencies_ms: tuple[float, ...] = (50.0, 210.0, 800.0)
    """from an observation to the arrival of its chunk"""
    seed: int = 0
    """of the noise that inference starts from"""
    json: Path = Path("out/seams.json")
    """where the figures go"""
    plot: Path = Path("out/seams.png")
    """where the picture goes"""

    def __post_init__(self) -> None:
        if not self.bag or not self.latencies_ms or min(self.latencies_ms) <= 0.0:
            raise ValueError(
                f"{len(self.bag)} bags, latencies_ms {self.latencies_ms}; there must be some, and latencies above 0"
            )


@dataclass(frozen=True)
class Result:
    """shown: for the plot, of the first bag: the recorded chunks, and the inferred ones of `rtc`."""

    summary: dict
    robot: Robot
    shown: dict[tuple[str, float], Played]  # by strategy and latency [ms]


def compare(config: SeamsConfig, policy: Policy) -> Result:
    """Play every bag with every strategy and latency.

    Raises:
        FileNotFoundError: there is no such bag.
        ValueError: a bag cannot be read or holds no chunk with its observation.
    """
    read = [Source.read(path, policy, config.seed) for path in config.bag]
    sources, robot = [source for source, _ in read], read[0][1]
    rows, consistent, shown = [], [], {}
    for latency_ms in config.latencies_ms:
        latency_ns = round(latency_ms * 1e6)
        for chunks, how, strategy in CASES:
            played = [
                play(
                    getattr(source, how),
                    flights(source.stamps_ns, latency_ns, one_at_a_time=chunks == "inferred"),
                    strategy,
                    robot,
                    source.observations[0].state,
                )
                for source in sources
            ]
            case = {"chunks": chunks, "strategy": strategy, "latency_ms": latency_ms}
            rows.append(case | measure(played, robot))
            shown.setdefault((strategy, latency_ms), played[0])
        for how in ("independent", "continued"):
            case = {"chunks": how, "latency_ms": latency_ms}
            consistent.append(case | consistency(sources, how, robot, latency_ns))
    summary = {
        "machine": describe_machine(),
        "policy": policy.model_id,
        "seed": config.seed,
        "bags": [_bag_summary(path, source) for path, source in zip(config.bag, sources, strict=True)],
        "about": ABOUT,
        "rows": rows,
        "consistency": consistent,
    }
    return Result(summary, robot, shown)


def _bag_summary(path: Path, source: Source) -> dict:
    return {
        "path": str(path),
        "chunks": source.in_bag,
        "replayed": len(source.recorded),
        "policies": list(dict.fromkeys(recorded.chunk.model_id for recorded in source.recorded)),
    }
