"""How smoothly chunks are joined: `python -m depthvla_policy.evaluation.seams --bag BAG`. Table, JSON and plot.

The chunks of a bag are played through the timeline and the executor with each strategy and simulated latencies, once as
they were recorded and once inferred anew from the observations of the bag, for `rtc` as continuations. This is an open
loop: whatever is played, the observations are those of the recorded motion.
"""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import tyro
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from depthvla_policy.control.arbiter import Mode
from depthvla_policy.control.chunk import Chunk
from depthvla_policy.control.continuation import Plan
from depthvla_policy.control.curve import Curve
from depthvla_policy.control.executor import ChunkExecutor, ExecutorConfig
from depthvla_policy.control.refusal import Refusal
from depthvla_policy.control.timeline import STRATEGIES, Timeline
from depthvla_policy.evaluation.bag import Bag
from depthvla_policy.evaluation.episode import recorded_robot
from depthvla_policy.evaluation.figures import BLUE, GREEN, GREY, LIGHT, ORANGE, RED, STYLE, WIDTH_IN
from depthvla_policy.evaluation.recording import describe_machine
from depthvla_policy.evaluation.replay import RecordedChunk, observations
from depthvla_policy.policy.observation import Observation
from depthvla_policy.robot import Robot

if TYPE_CHECKING:
    from depthvla_policy.policy.policy import Policy

FAST_HZ = 200.0
AFTER_NS = 200_000_000  # played on after the last arrival, so that its fade is seen
INDEPENDENT = ("replace", "blend", "ensemble")  # strategies to which chunks need not be continuations
ARRIVAL, OBSERVATION, TICK = range(3)  # what is done first of what happens at the same time
CASES = (  # what chunks they are, how they come about (see `Source`), how they are joined
    *(("recorded", "as_recorded", strategy) for strategy in INDEPENDENT),
    *(("inferred", "independent", strategy) for strategy in INDEPENDENT),
    ("inferred", "continued", "rtc"),
)
ABOUT = {
    "recorded": "the bag's own, each at its stamp plus the latency, so that several may be under way",
    "inferred": "anew from the bag's observations with fixed seeds, one at a time; for rtc as continuations",
}
COLOURS = dict(zip(STRATEGIES, (RED, BLUE, GREEN, ORANGE), strict=True))
PLOT_DPI, PLOT_COLOURS = 110, 128  # a palette takes a third of the space
SHOWN_S = 1.3  # of motion around a seam in the figure
UNITS = ("position [mrad]", "velocity [rad/s]", "acceleration [rad/s²]")


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
class Flight:
    """A chunk on its way: the number of its observation, when that was made and when the chunk arrives."""

    index: int
    stamp_ns: int
    arrival_ns: int


@dataclass(frozen=True)
class Played:
    """One strategy at one latency. Streams are (N, size) rad and mm, by rate [Hz], from the first observation on."""

    strategy: str
    latency_ns: int
    begin_ns: int
    chunks: list[Chunk]  # as they were taken
    refused: int
    arrivals_ns: np.ndarray  # (n,) of chunks that met with a motion; the others start a new one
    seams: np.ndarray  # (n, 3, size) position, velocity and acceleration just after such an arrival less just before
    gaps: np.ndarray  # (n, size) the newcomer's own position at its arrival less the motion's
    motion: dict[float, np.ndarray]  # the timeline's; NaN where nothing is due
    starts: dict[float, list[int]]  # first samples of new motions
    command: dict[float, np.ndarray]  # the executor's
    in_command: np.ndarray  # (N,) bool, at the robot's rate: the policy was in command
    newest: np.ndarray  # (N, size) what the newest chunk predicted for this moment, at the robot's rate


def flights(stamps_ns: Sequence[int], latency_ns: int, *, one_at_a_time: bool) -> list[Flight]:
    """Every observation's chunk; `one_at_a_time`, as in policy_node, leaves out those made before the last arrival."""
    kept: list[Flight] = []
    for index, stamp in enumerate(stamps_ns):
        if not (one_at_a_time and kept and stamp < kept[-1].arrival_ns):
            kept.append(Flight(index, int(stamp), int(stamp) + latency_ns))
    return kept


def play(
    make: Callable[[int, Plan], Chunk], flights: Sequence[Flight], strategy: str, robot: Robot, start: np.ndarray
) -> Played:
    """Play chunks through a timeline and, at the robot's rate and at FAST_HZ, through the executor.

    make: (number of an observation, what the executor is going to do when it is made) -> its chunk. start: (size,)
    measured pose at the first observation; after that the robot is where it was sent.

    Raises ValueError when the executor cannot start at `start`.
    """
    rates, begin_ns = (robot.control_rate_hz, FAST_HZ), flights[0].stamp_ns
    config = ExecutorConfig(strategy=strategy)
    timeline = Timeline(strategy, blend_s=config.blend_s, ensemble_decay_per_s=config.ensemble_decay_per_s)
    executors = {rate: _engaged(robot, config, rate, start, begin_ns) for rate in rates}
    motion, starts, command = ({rate: [] for rate in rates} for _ in range(3))
    chunks, seams, gaps, arrivals, in_command, newest = [], [], [], [], [], []
    nowhere, refused, underway = np.full(robot.size, np.nan), 0, {}
    for time_ns, kind, what in _events(flights, rates):
        if kind == OBSERVATION:
            underway[what] = make(what, executors[robot.control_rate_hz].plan())
        elif kind == ARRIVAL:
            chunk, before = underway.pop(what), timeline.due(time_ns)
            if any([executor.offer(chunk, time_ns) for executor in executors.values()]):
                refused += 1
                continue
            timeline.offer(chunk, time_ns)
            chunks.append(chunk)
            if before is None:
                for rate in rates:
                    starts[rate].append(len(motion[rate]))
                continue
            arrivals.append(time_ns)
            seams.append(timeline.due(time_ns).motion - before.motion)
            gaps.append(_at(chunk, time_ns) - before.motion[0])
        else:
            due, executor = timeline.due(time_ns), executors[what]
            motion[what].append(nowhere if due is None else due.motion[0])
            command[what].append(executor.tick(time_ns).positions)
            _feed_back(executor, robot, command[what][-1], time_ns)
            if what == robot.control_rate_hz:
                in_command.append(executor.mode is Mode.POLICY)
                newest.append(nowhere if due is None else _at(timeline.chunk, time_ns))
    return Played(
        strategy,
        flights[0].arrival_ns - begin_ns,
        begin_ns,
        chunks,
        refused,
        np.array(arrivals, dtype=np.int64),
        np.array(seams).reshape(-1, 3, robot.size),
        np.array(gaps).reshape(-1, robot.size),
        {rate: np.array(values) for rate, values in motion.items()},
        starts,
        {rate: np.array(values) for rate, values in command.items()},
        np.array(in_command),
        np.array(newest),
    )


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
                    apart = (new.positions[step] - _at(old, due_ns))[arms]
                    (committed if due_ns < stamp + latency_ns else beyond).append(apart)
            if stamp + latency_ns <= last_ns:
                gaps.append((_at(new, stamp + latency_ns) - _at(old, stamp + latency_ns))[arms])
    return {
        "committed_rms_mrad": _round(_rms(np.array(committed)) * 1e3) if committed else None,
        "beyond_rms_mrad": _round(_rms(np.array(beyond)) * 1e3) if beyond else None,
        "gap_mrad": _gaps(np.array(gaps).reshape(-1, np.count_nonzero(arms))),
    }


@dataclass
class Source:
    """The chunks of one bag, recorded and inferred anew. An inference depends on nothing but seed, number and plan."""

    recorded: list[RecordedChunk]  # those whose observation is in the bag
    observations: list[Observation]
    policy: Policy
    seed: int
    in_bag: int = 0  # chunks
    _independent: dict[int, Chunk] = field(default_factory=dict)

    @classmethod
    def read(cls, path: Path, policy: Policy, seed: int) -> tuple[Source, Robot]:
        """Raises ValueError when no observation of a chunk is in the bag."""
        with Bag(path) as bag:
            robot = recorded_robot(bag)
            pairs = list(observations(bag, robot, policy.cameras))
        found = [(recorded, seen) for recorded, seen in pairs if not isinstance(seen, Refusal)]
        if not found:
            why = f": {pairs[0][1]}" if pairs else ""
            raise ValueError(f"bag {path} holds no chunk with its observation{why}")
        return cls(*map(list, zip(*found, strict=True)), policy, seed, len(pairs)), robot

    @property
    def stamps_ns(self) -> list[int]:
        return [seen.stamp_ns for seen in self.observations]

    def as_recorded(self, index: int, _: Plan) -> Chunk:
        # A policy that was restarted counts from 1 again; here all chunks are one sequence.
        return dataclasses.replace(self.recorded[index].chunk, sequence=index + 1)

    def independent(self, index: int, _: Plan) -> Chunk:
        if index not in self._independent:
            self._independent[index] = self._infer(index)
        return self._independent[index]

    def continued(self, index: int, plan: Plan) -> Chunk:
        stamp = self.observations[index].stamp_ns
        found = plan.continuation(stamp, period_ns=self._period_ns, horizon=self.policy.horizon)
        if found is None:
            return self.independent(index, plan)
        return self._infer(index, committed=found.committed, delay=found.delay, method="guided")

    @property
    def _period_ns(self) -> int:
        return round(self.policy.period_s * 1e9)

    def _infer(self, index: int, **continuation) -> Chunk:
        noise_seed = int(np.random.SeedSequence([self.seed, index]).generate_state(1)[0])
        seen = self.observations[index]
        actions = self.policy.infer(seen, seed=noise_seed, **continuation).actions
        return Chunk(seen.stamp_ns, index + 1, self._period_ns, actions, self.policy.model_id)


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


def table(summary: dict) -> str:
    """What the terminal shows."""
    lines = [f"policy {summary['policy']}, seed {summary['seed']}, {summary['machine']['processor']}"]
    lines += [
        f"{bag['path']}: {bag['replayed']} of {bag['chunks']} chunks of {', '.join(bag['policies'])}"
        for bag in summary["bags"]
    ]
    above = ("gap at seams", "", "", "largest step at seams", "", "", "motion 200 Hz", "", "command 15 Hz", "", "")
    names = ("p50", "p95", "max", "mrad", "rad/s", "rad/s2", "rad/s", "rad/s2", "v/lim", "a/lim", "lag")
    for chunks, about in summary["about"].items():
        lines += ["", f"chunks {chunks}: {about}", f"{'':34}" + "".join(f"{'| ' + w if w else '':8}" for w in above)]
        lines.append(f"{'strategy':10}{'ms':>4}{'seams':>6}{'starts':>7}{'wait s':>7}" + _cells(names))
        for row in (row for row in summary["rows"] if row["chunks"] == chunks):
            lines.append(
                f"{row['strategy']:10}{row['latency_ms']:4.0f}{row['seams']:6}{row['starts']:7}{row['waited_s']:7.1f}"
                + _cells(
                    (
                        *_cell_gaps(row["gap_mrad"]),
                        f"{row['seam']['position_mrad']:.1f}",
                        f"{row['seam']['velocity_rad_s']:.2f}",
                        f"{row['seam']['acceleration_rad_s2']:.1f}",
                        f"{row['motion']['200']['velocity_rad_s']:.2f}",
                        f"{row['motion']['200']['acceleration_rad_s2']:.0f}",
                        f"{row['limits']['velocity']:.0%}",
                        f"{row['limits']['acceleration']:.0%}",
                        f"{row['lag_rms_mrad']:.1f}",
                    )
                )
            )
    lines += ["", "distance from the recorded chunk in execution [mrad]: rms before and after the arrival, gap at it"]
    lines.append(f"{'chunks':12}{'ms':>4}" + _cells(("before", "after", "p50", "p95", "max")))
    for row in summary["consistency"]:
        distances = (row["committed_rms_mrad"], row["beyond_rms_mrad"])
        cells = ("-" if value is None else f"{value:.1f}" for value in distances)
        lines.append(f"{row['chunks']:12}{row['latency_ms']:4.0f}" + _cells((*cells, *_cell_gaps(row["gap_mrad"]))))
    return "\n".join(lines)


def plot(result: Result) -> Figure:
    """One joint around the largest gap of every latency, a column a strategy; below it, the largest steps."""
    robot = result.robot
    latencies = list(dict.fromkeys(latency for _, latency in result.shown))
    heights = (2.0 * len(latencies), 2.4)
    with plt.rc_context(STYLE):
        figure = plt.figure(figsize=(WIDTH_IN, sum(heights)), layout="constrained")
        above, below = figure.subfigures(2, 1, height_ratios=heights)
        axes = above.subplots(len(latencies), len(STRATEGIES), sharey="row", sharex="row", squeeze=False)
        for row, latency in zip(axes, latencies, strict=True):
            joint, center_s = _worst(result.shown["replace", latency], robot)
            for axis, strategy in zip(row, STRATEGIES, strict=True):
                _draw_motion(axis, result.shown[strategy, latency], joint, center_s, robot.control_rate_hz)
            row[0].set_ylabel(f"{latency:.0f} ms\n{robot.joint_names[joint].replace('_', ' ')} [rad]")
        for axis, strategy in zip(axes[0], STRATEGIES, strict=True):
            axis.set_title(f"{strategy}, {'recorded chunks' if strategy in INDEPENDENT else 'inferred chunks'}")
        for axis in axes[-1]:
            axis.set_xlabel("time [s]")
        axes[0, 0].legend(fontsize=7)
        _draw_bars(below.subplots(1, 5), result.summary["rows"], latencies)
    return figure


def main() -> int:
    config = tyro.cli(SeamsConfig, description=__doc__)
    import torch

    from depthvla_policy.policy.policy import Policy

    torch.set_num_threads(config.threads)
    try:
        result = compare(config, Policy.load(config.policy, config.device))
    except (OSError, ValueError) as error:
        print(f"seams: {error}", file=sys.stderr)
        return 1
    config.json.parent.mkdir(parents=True, exist_ok=True)
    config.json.write_text(json.dumps(result.summary, indent=2) + "\n")
    config.plot.parent.mkdir(parents=True, exist_ok=True)
    _save(plot(result), config.plot)
    print(f"{table(result.summary)}\n\n{config.json}, {config.plot}")
    return 0


def _save(figure: Figure, path: Path) -> None:
    figure.set_dpi(PLOT_DPI)
    figure.canvas.draw()
    pixels = np.asarray(figure.canvas.buffer_rgba())[..., :3]
    Image.fromarray(np.ascontiguousarray(pixels)).quantize(PLOT_COLOURS).save(path, optimize=True)
    plt.close(figure)


def _engaged(robot: Robot, config: ExecutorConfig, rate: float, start: np.ndarray, now_ns: int) -> ChunkExecutor:
    executor = ChunkExecutor(robot, period_s=1.0 / rate, config=config)
    _feed_back(executor, robot, start, now_ns)
    refusal = executor.arm(now_ns) or executor.set_mode(Mode.POLICY, now_ns).refusal
    if refusal:
        raise ValueError(f"the executor cannot start: {refusal}")
    return executor


def _feed_back(executor: ChunkExecutor, robot: Robot, pose: np.ndarray, now_ns: int) -> None:
    for limb in robot.limbs:
        executor.feedback_arm(limb.name, pose[limb.arm], now_ns)
        executor.feedback_gripper(limb.name, [pose[limb.gripper_index]], now_ns)


def _events(flights: Sequence[Flight], rates: Sequence[float]) -> list[tuple[int, int, float]]:
    """(time, kind, number of the observation or rate of the tick) in order."""
    begin_ns, end_ns = flights[0].stamp_ns, flights[-1].arrival_ns + AFTER_NS
    events = [(flight.arrival_ns, ARRIVAL, flight.index) for flight in flights]
    events += [(flight.stamp_ns, OBSERVATION, flight.index) for flight in flights]
    for rate in rates:
        ticks = np.arange(0, (end_ns - begin_ns) * 1e-9 * rate)
        events += [(begin_ns + round(tick * 1e9 / rate), TICK, rate) for tick in ticks]
    return sorted(events)


def _at(chunk: Chunk, time_ns: int) -> np.ndarray:
    """(size,) what a chunk by itself has for a time."""
    return Curve(chunk.positions, chunk.period_ns * 1e-9).at((time_ns - chunk.stamp_ns) * 1e-9)[0]


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


def _cell_gaps(gaps: dict[str, float] | None) -> list[str]:
    return ["-"] * 3 if gaps is None else [f"{value:.1f}" for value in gaps.values()]


def _cells(words: Sequence[str]) -> str:
    return "".join(f"{word:>8}" for word in words)


def _round(value: float) -> float:
    return round(float(value), 4)


def _rms(values: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(values)))) if values.size else 0.0


def _bag_summary(path: Path, source: Source) -> dict:
    return {
        "path": str(path),
        "chunks": source.in_bag,
        "replayed": len(source.recorded),
        "policies": list(dict.fromkeys(recorded.chunk.model_id for recorded in source.recorded)),
    }


def _worst(run: Played, robot: Robot) -> tuple[int, float]:
    """Joint of the largest gap and its time since the first observation [s], not too near to that."""
    if not len(run.gaps):
        return 0, SHOWN_S / 2
    seam, joint = np.unravel_index(np.argmax(np.abs(run.gaps) * ~robot.gripper_mask), run.gaps.shape)
    return int(joint), max(float(run.arrivals_ns[seam] - run.begin_ns) * 1e-9, SHOWN_S / 2)


def _draw_motion(axis: Axes, run: Played, joint: int, center_s: float, rate: float) -> None:
    shown = center_s - SHOWN_S / 2, center_s + SHOWN_S / 2
    for chunk in run.chunks:
        begin_s = (chunk.stamp_ns - run.begin_ns) * 1e-9
        line = {"color": LIGHT, "linewidth": 1.2, "label": "chunks" if chunk is run.chunks[0] else None}
        _draw(axis, begin_s, chunk.period_ns * 1e-9, chunk.positions[:, joint], shown, **line)
        arrival_s = begin_s + run.latency_ns * 1e-9
        if shown[0] <= arrival_s <= shown[1]:
            axis.axvline(arrival_s, color=GREY, linewidth=0.6, linestyle=":")
    dots = {"color": GREY, "marker": "o", "markersize": 2.5, "linewidth": 0.6, "label": f"command, {rate:.0f} Hz"}
    _draw(axis, 0.0, 1.0 / rate, run.command[rate][:, joint], shown, **dots)
    line = {"color": COLOURS[run.strategy], "linewidth": 1.4, "label": f"motion, {FAST_HZ:.0f} Hz"}
    _draw(axis, 0.0, 1.0 / FAST_HZ, run.motion[FAST_HZ][:, joint], shown, **line)
    axis.set_xlim(shown)


def _draw(axis: Axes, begin_s: float, period_s: float, values: np.ndarray, shown: tuple[float, float], **style) -> None:
    times = begin_s + period_s * np.arange(len(values))
    inside = (times >= shown[0]) & (times <= shown[1])
    axis.plot(times[inside], values[inside], **style)


def _draw_bars(axes: Sequence[Axes], rows: Sequence[dict], latencies: Sequence[float]) -> None:
    """Of the chunks that are shown above."""
    width = 0.8 / len(STRATEGIES)
    titles = (
        *(f"largest step at a seam:\n{unit}" for unit in UNITS),
        "gap, median\n[mrad]",
        "lag of the command, rms\n[mrad]",
    )
    for axis, title in zip(axes, titles, strict=True):
        axis.set_title(title, fontsize=8.5)
        axis.set_xticks(range(len(latencies)), [f"{latency:.0f} ms" for latency in latencies])
    for row in rows:
        if (row["chunks"] == "recorded") != (row["strategy"] in INDEPENDENT):
            continue
        place = latencies.index(row["latency_ms"]) + (STRATEGIES.index(row["strategy"]) - 1.5) * width
        gap = (row["gap_mrad"] or {"p50": np.nan})["p50"]
        seam = row["seam"].values() if row["seams"] else [np.nan] * 3
        for axis, value in zip(axes, (*seam, gap, row["lag_rms_mrad"]), strict=True):
            label = row["strategy"] if row["latency_ms"] == latencies[0] else None
            axis.bar(place, value, width * 0.9, color=COLOURS[row["strategy"]], label=label)
            if not value >= 0.005:
                axis.annotate("-" if np.isnan(value) else "0", (place, 0), ha="center", va="bottom", fontsize=7)
    axes[0].legend(fontsize=7)


if __name__ == "__main__":
    sys.exit(main())
