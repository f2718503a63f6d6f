"""Chunks played through the timeline and the executor, at simulated latencies."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import yaml

from depthvla_control.arbiter import Mode
from depthvla_control.chunk import Chunk
from depthvla_control.execution_plan import Plan
from depthvla_control.executor import ChunkExecutor
from depthvla_control.executor_config import ExecutorConfig
from depthvla_control.refusal import Refusal
from depthvla_control.timeline import Timeline
from depthvla_control.trajectory import Trajectory
from depthvla_evaluation.bags.bag import Bag
from depthvla_evaluation.bags.recorded_graph import recorded_robot
from depthvla_evaluation.bags.replay import RecordedChunk, observations
from depthvla_policy.policy.observation import Observation
from r1lite_bringup.graph import share
from r1lite_description.robot import Robot

if TYPE_CHECKING:
    from depthvla_policy.policy.policy import Policy

INDEPENDENT = ("replace", "blend", "ensemble")  # strategies to which chunks need not be continuations
EXECUTOR_PARAMETERS = share("depthvla_control") / "config" / "chunk_executor_node.param.yaml"
FAST_HZ = 200.0
AFTER_NS = 200_000_000  # played on after the last arrival, so that its fade is seen
ARRIVAL, OBSERVATION, TICK = range(3)  # what is done first of what happens at the same time


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
    """Play chunks through a timeline and the executor: at the robot's rate, that of a real robot's command stream, and
    FAST_HZ.

    make: (number of an observation, what the executor is going to do when it is made) -> its chunk. start: (size,)
    measured pose at the first observation; after that the robot is where it was sent.

    Raises ValueError when the executor cannot start at `start`.
    """
    rates, begin_ns = (robot.control_rate_hz, _command_hz(), FAST_HZ), flights[0].stamp_ns
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
            chunk, before = underway.pop(what), timeline.setpoint(time_ns)
            refusals = [executor.offer(chunk, time_ns) for executor in executors.values()]  # all of them are asked
            if any(refusals):
                refused += 1
                continue
            timeline.offer(chunk, time_ns)
            chunks.append(chunk)
            if before is None:
                for rate in rates:
                    starts[rate].append(len(motion[rate]))
                continue
            arrivals.append(time_ns)
            seams.append(timeline.setpoint(time_ns).motion - before.motion)
            gaps.append(target_at(chunk, time_ns) - before.motion[0])
        else:
            due, executor = timeline.setpoint(time_ns), executors[what]
            motion[what].append(nowhere if due is None else due.motion[0])
            command[what].append(executor.tick(time_ns).positions)
            _feed_back(executor, robot, command[what][-1], time_ns)
            if what == robot.control_rate_hz:
                in_command.append(executor.mode is Mode.POLICY)
                newest.append(nowhere if due is None else target_at(timeline.chunk, time_ns))
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
        usable = [(recorded, seen) for recorded, seen in pairs if not isinstance(seen, Refusal)]
        if not usable:
            why = f": {pairs[0][1]}" if pairs else ""
            raise ValueError(f"bag {path} holds no chunk with its observation{why}")
        return cls(*map(list, zip(*usable, strict=True)), policy, seed, len(pairs)), robot

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
        continuation = plan.continuation(stamp, period_ns=self._period_ns, horizon=self.policy.horizon)
        if continuation is None:
            return self.independent(index, plan)
        return self._infer(index, committed=continuation.committed, delay=continuation.delay, method="guided")

    @property
    def _period_ns(self) -> int:
        return round(self.policy.period_s * 1e9)

    def _infer(self, index: int, **continuation) -> Chunk:
        noise_seed = int(np.random.SeedSequence([self.seed, index]).generate_state(1)[0])
        seen = self.observations[index]
        actions = self.policy.infer(seen, seed=noise_seed, **continuation).actions
        return Chunk(seen.stamp_ns, index + 1, self._period_ns, actions, self.policy.model_id)


def _command_hz() -> float:
    parameters = yaml.safe_load(EXECUTOR_PARAMETERS.read_text())
    return parameters["chunk_executor_node"]["ros__parameters"]["command_rate_hz"]


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


def target_at(chunk: Chunk, time_ns: int) -> np.ndarray:
    """(size,) what a chunk by itself has for a time."""
    return Trajectory(chunk.positions, chunk.period_ns * 1e-9).at((time_ns - chunk.stamp_ns) * 1e-9)[0]
