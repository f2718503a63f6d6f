"""The paper's question in miniature: does a depth expert help? `python -m r1lite_trials.depth_comparison --plan`.

Small networks, one for each variant and training seed, are trained on both tasks together with equal data and steps,
and evaluated on the same scenes. What is there already is not done again. Needs no robot and no GPU. Every command says
what it says to a file beside its outcome.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path

import tyro

from depthvla_evaluation.rollouts import results
from depthvla_policy.data.layout import read_layout
from depthvla_policy.model import config as model_config
from depthvla_policy.policy import checkpoint
from depthvla_policy.policy.prompt import train_tokenizer
from depthvla_policy.training import config as train_config
from depthvla_policy.training import log, state
from r1lite_description import robot, tasks
from r1lite_trials import depth_comparison_table

REFERENCE, PI0 = "depthvla-small", "pi0-small"
VARIANTS = {  # network in models/configs -> title in the table
    REFERENCE: "DepthVLA",
    PI0: "pi0 (no depth expert)",
    "depthvla-small-ablation-i-random-depth": "(i) depth expert not pre-trained",
    "depthvla-small-ablation-ii-no-depth-loss": "(ii) no depth loss",
    "depthvla-small-ablation-iii-frozen-depth": "(iii) depth expert frozen",
    "depthvla-small-ablation-iv-joint-prefix": "(iv) no block-wise mask",
}
FEW = 20  # demonstrations of a task (paper, section IV-C)
TRAINING, DEPTH_TRAINING = "r1lite-small", "depth-pretrain-small"  # in models/training
# Until there is a run to measure: one thread of a shared core, docs/train.md. An episode is taken to last its limit.
SAMPLES_PER_S, DEPTH_SAMPLES_PER_S, STEP_S = 40.0, 150.0, 0.01


@dataclass(frozen=True)
class MiniatureConfig:
    """Variants of the network, trained alike and compared."""

    out: Path = Path("out/miniature")  # everything goes there; with --few-shot, to few-shot/ in it
    # TASK=FOLDER[,FOLDER...] of each task; a network is trained on all of them together
    demonstrations: tuple[str, ...] = ("lift=data/lift_red_right_400", "blocks_stacking=data/blocks_stacking_rgb")
    # TASK=SHARE of the training, where it is not 1; short tasks need their share to be learnt at all
    shares: tuple[str, ...] = ("lift=3",)
    # TASK:NAME=VALUE of the scenes in which a task is evaluated
    options: tuple[str, ...] = ("blocks_stacking:colours=red,green,blue",)
    variants: tuple[str, ...] = tuple(VARIANTS)  # of those in VARIANTS
    training_seeds: int = 3  # networks of each variant
    steps: int = 3000  # of training
    depth_steps: int = 1000  # of pre-training the depth expert before
    batch_size: int = 16
    seeds: int = 20  # scenes of each evaluation
    time_limit_s: float = 30.0  # of an episode; the expert stacks three blocks in 8 s
    at_once: int = 2  # commands side by side, of one thread each
    few_shot: bool = False  # 20 demonstrations of each task
    plan: bool = False  # print what would run, and how long it would take
    only_table: bool = False  # make the table of what is there

    def __post_init__(self) -> None:
        unknown = [name for name in self.variants if name not in VARIANTS]
        if unknown:
            raise ValueError(f"variants {', '.join(unknown)} do not exist; allowed: {', '.join(VARIANTS)}")
        for name in ("training_seeds", "steps", "depth_steps", "batch_size", "seeds", "at_once"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; allowed: 1 or more")
        crowded = [task for task, folders in self.folders.items() if len(folders) > 1]
        if self.few_shot and crowded:
            raise ValueError(
                f"few_shot takes one folder of each task; {crowded[0]} has {len(self.folders[crowded[0]])}"
            )

    @property
    def folders(self) -> dict[str, list[str]]:
        """Task -> its demonstrations."""
        found: dict[str, list[str]] = {}
        for word in self.demonstrations:
            task, separator, text = word.partition("=")
            if not separator or task not in tasks.names() or not all(text.split(",")):
                raise ValueError(f"demonstrations are {word!r}; allowed: TASK=FOLDER, tasks {', '.join(tasks.names())}")
            found.setdefault(task, []).extend(text.split(","))
        return found

    def share(self, task: str) -> float:
        """Of the training, beside the other tasks' shares."""
        found = 1.0
        for word in self.shares:
            name, _, text = word.partition("=")
            if name not in self.folders or not text.replace(".", "", 1).isdigit() or float(text) <= 0.0:
                raise ValueError(f"shares are {word!r}; allowed: TASK=NUMBER above 0, tasks {', '.join(self.folders)}")
            found = float(text) if name == task else found
        return found

    def task_options(self, task: str) -> tuple[str, ...]:
        """NAME=VALUE words of a task's scenes."""
        words = [word.partition(":") for word in self.options]
        unknown = [name for name, _, _ in words if name not in self.folders]
        if unknown:
            raise ValueError(
                f"options are of {unknown[0]!r}; allowed: TASK:NAME=VALUE, tasks {', '.join(self.folders)}"
            )
        return tuple(option for name, _, option in words if name == task)

    @property
    def root(self) -> Path:
        return self.out / "few-shot" if self.few_shot else self.out


@dataclass(frozen=True)
class Job:
    """One command, how long it takes about [s], and the jobs of these names that have to be done before."""

    name: str
    words: list[str] = field(repr=False)
    takes_s: float
    after: tuple[str, ...] = ()


def main(argv: Sequence[str] | None = None) -> int:
    try:
        config = tyro.cli(MiniatureConfig, args=argv)
        if config.plan:
            print(plan_text(jobs(config), config.at_once))
            return 0
        if not config.only_table:
            run(config)
        print(write_table(config))
    except (OSError, ValueError) as error:
        print(f"miniature: {error}", file=sys.stderr)
        return 1
    except subprocess.CalledProcessError as error:
        print(f"miniature: exit code {error.returncode} of {' '.join(error.cmd)}", file=sys.stderr)
        return 1
    return 0


def run(config: MiniatureConfig) -> None:
    """Do what is missing. The table is made anew after every step.

    Raises:
        subprocess.CalledProcessError: a step failed; the same command goes on from there.
        FileNotFoundError: there are no demonstrations.
    """
    config.root.mkdir(parents=True, exist_ok=True)
    if not _tokenizer(config).exists():
        _write_tokenizer(config)
    running: dict[Future, Job] = {}
    with ThreadPoolExecutor(config.at_once) as pool:
        try:
            while waiting := jobs(config):
                names = {job.name for job in waiting}
                begun = {job.name for job in running.values()}
                ready = [job for job in waiting if job.name not in begun and not names & set(job.after)]
                for job in ready[: config.at_once - len(running)]:
                    left = sum(item.takes_s for item in waiting) / config.at_once
                    print(f"{job.name}, {len(waiting)} steps to go, about {_hours(left)}", flush=True)
                    running[pool.submit(_do, job, config)] = job
                for ended in wait(running, return_when=FIRST_COMPLETED).done:
                    job = running.pop(ended)
                    ended.result()
                    if job.name in {left.name for left in jobs(config)}:
                        raise ValueError(f"{job.name} has ended without its outcome: {_said(config, job)}")
                    write_table(config)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def jobs(config: MiniatureConfig) -> list[Job]:
    """What is missing, in the order of doing it: all of a training seed before the next one."""
    found = []
    for seed in range(config.training_seeds):
        found += _starts(config, seed)
        for variant in config.variants:
            out = _folder(config, variant, seed)
            if not _trained(out, config.steps):
                seconds = _training_s(config, config.steps, _measured_rate(config.root, SAMPLES_PER_S))
                start = _start(config, PI0 if variant == PI0 else REFERENCE, seed)
                words = ["--model", variant, "--init", str(start), "--data.folders", *_all_folders(config)]
                words += ["--data.weights", *_weights(config)]
                words = _train(config, TRAINING, out, seed, config.steps, words)
                found.append(Job(f"train {out.name}", words, seconds, (f"make {start.name}",)))
            found += [_evaluation(config, out, task) for task in config.folders if not _evaluated(config, out, task)]
    return found


def plan_text(waiting: Sequence[Job], at_once: int) -> str:
    """The plan for a terminal."""
    lines = [f"{_hours(job.takes_s):>9}  {job.name}\n           {' '.join(job.words[1:])}" for job in waiting]
    seconds = sum(job.takes_s for job in waiting) / at_once
    return "\n".join([*lines, f"{_hours(seconds):>9}  in all, {len(waiting)} steps, {at_once} at once"])


def write_table(config: MiniatureConfig) -> str:
    """The table of what is there, which is also written to table.md."""
    runs, logs = {}, {}
    for variant in VARIANTS:
        for folder in sorted(config.root.glob(f"{variant}-[0-9]*")):
            seed = int(folder.name.removeprefix(f"{variant}-"))
            if lines := log.read(folder / log.JSONL):
                logs[variant, seed] = lines[-1]
            for task in config.folders:
                if (path := folder / f"{task}.json").exists():
                    runs[variant, seed, task] = results.read(path)
    text = depth_comparison_table.markdown(runs, logs, VARIANTS, list(config.folders), REFERENCE)
    config.root.mkdir(parents=True, exist_ok=True)
    (config.root / "table.md").write_text(text + "\n")
    return text


def _starts(config: MiniatureConfig, seed: int) -> list[Job]:
    """The networks from which the variants of a seed start: the same VLM and action expert, and for all but pi0 the
    depth expert that was pre-trained on the demonstrations' depth. Ablation (i) leaves that expert out of its start.
    """
    found, depth = [], config.root / f"depth-{seed}"
    used = [PI0] if PI0 in config.variants else []
    if set(config.variants) - {PI0}:
        used.append(REFERENCE)
        if not _trained(depth, config.depth_steps):
            folders = _all_folders(config)
            words = ["--data.folders", *folders, "--data.layouts", *["lerobot"] * len(folders)]
            seconds = _training_s(config, config.depth_steps, DEPTH_SAMPLES_PER_S)
            words = _train(config, DEPTH_TRAINING, depth, seed, config.depth_steps, words)
            found.append(Job(f"train {depth.name}", words, seconds))
    for name in used:
        start = _start(config, name, seed)
        if not (start / checkpoint.WEIGHTS).exists():
            network = train_config.find(name, "configs", ".json")
            words = ["--config", str(network), "--tokenizer", str(_tokenizer(config)), "--dtype", "float32"]
            words += ["--seed", str(seed), "--out", str(start)]
            words += ["--depth-decoder", str(depth)] if name == REFERENCE else []
            words = [sys.executable, "-m", "depthvla_policy.convert", *words]
            found.append(Job(f"make {start.name}", words, 5.0, (f"train {depth.name}",) if name == REFERENCE else ()))
    return found


def _train(
    config: MiniatureConfig, training: str, out: Path, seed: int, steps: int, others: Sequence[str]
) -> list[str]:
    words = [sys.executable, "-m", "depthvla_policy.train", "--config", training, "--out", str(out)]
    words += ["--seed", str(seed), "--steps", str(steps), "--batch-size", str(config.batch_size)]
    words += ["--data.limit-episodes", str(FEW)] if config.few_shot else []
    return [*words, *(["--resume"] if state.newest(out) else []), *others]


def _evaluation(config: MiniatureConfig, out: Path, task: str) -> Job:
    words = [sys.executable, "-m", "depthvla_evaluation.evaluate", "--policy", str(out), "--task", task]
    words += ["--seeds", str(config.seeds), "--time-limit-s", f"{config.time_limit_s:g}", "--workers", "1"]
    words += ["--json", str(out / f"{task}.json")]
    words += ["--task-options", *config.task_options(task)] if config.task_options(task) else []
    limit_s = min(config.time_limit_s, tasks.load(task).time_limit_s)
    seconds = config.seeds * STEP_S * limit_s / robot.load().period_s
    return Job(f"evaluate {out.name} on {task}", words, seconds, (f"train {out.name}",))


def _do(job: Job, config: MiniatureConfig) -> None:
    with _said(config, job).open("a") as said:
        subprocess.run(job.words, check=True, stdout=said, stderr=subprocess.STDOUT)


def _said(config: MiniatureConfig, job: Job) -> Path:
    return config.root / f"{job.name.replace(' ', '_')}.log"


def _evaluated(config: MiniatureConfig, out: Path, task: str) -> bool:
    path = out / f"{task}.json"
    if not path.exists():
        return False
    found = results.read(path)
    wanted = {"task_options": list(config.task_options(task)), "time_limit_s": config.time_limit_s}
    return found["seeds"] >= config.seeds and all(found["settings"].get(name) == wanted[name] for name in wanted)


def _trained(out: Path, steps: int) -> bool:
    newest = state.newest(out)
    done = int(newest.name.removeprefix(state.PREFIX)) if newest else 0
    return done >= steps and (out / checkpoint.WEIGHTS).exists()


def _measured_rate(root: Path, otherwise: float) -> float:
    """Samples a second of the runs in `root`."""
    logs = (log.read(path) for variant in VARIANTS for path in root.glob(f"{variant}-[0-9]*/{log.JSONL}"))
    rates = [row["samples_per_s"] for rows in logs for row in rows if "samples_per_s" in row]
    return sum(rates) / len(rates) if rates else otherwise


def _training_s(config: MiniatureConfig, steps: int, rate: float) -> float:
    return steps * config.batch_size / rate


def _write_tokenizer(config: MiniatureConfig) -> None:
    """One for all networks, of what the demonstrations say."""
    said = [text for folder in _all_folders(config) for text in read_layout(Path(folder)).tasks.values()]
    network = model_config.read(train_config.find(REFERENCE, "configs", ".json"))
    train_tokenizer(sorted(set(said)), network.vocab_size).save(str(_tokenizer(config)))


def _tokenizer(config: MiniatureConfig) -> Path:
    return config.root / checkpoint.TOKENIZER


def _start(config: MiniatureConfig, network: str, seed: int) -> Path:
    return config.root / f"start-{network}-{seed}"


def _folder(config: MiniatureConfig, variant: str, seed: int) -> Path:
    return config.root / f"{variant}-{seed}"


def _all_folders(config: MiniatureConfig) -> list[str]:
    return [folder for folders in config.folders.values() for folder in folders]


def _weights(config: MiniatureConfig) -> list[str]:
    """Of all folders, so that every task has its share."""
    return [f"{config.share(task) / len(folders):g}" for task, folders in config.folders.items() for _ in folders]


def _hours(seconds: float) -> str:
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60:02} min" if minutes >= 60 else f"{minutes} min"


if __name__ == "__main__":
    sys.exit(main())
