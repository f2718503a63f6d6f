"""The paper's question in miniature: does a depth expert help? `depthvla depth-comparison`.

Small networks, one for each variant and training seed, are trained on both tasks together with equal data and steps,
and evaluated on the same scenes. What is there already is not done again. Needs no robot and no GPU.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tyro

from depthvla_evaluation.metrics import RESAMPLES, spread_is_known
from depthvla_evaluation.rollouts import results
from depthvla_policy.data.layout import read_layout
from depthvla_policy.model import config as model_config
from depthvla_policy.policy import checkpoint
from depthvla_policy.policy.prompt import train_tokenizer
from depthvla_policy.training import config as train_config
from depthvla_policy.training import log, state
from r1lite_trials.trial import markdown_table

REFERENCE, PI0 = "depthvla-small", "pi0-small"
VARIANTS = {  # network in models/configs -> title in the table
    REFERENCE: "DepthVLA",
    PI0: "pi0 (no depth expert)",
    "depthvla-small-ablation-i-random-depth": "(i) depth expert not pre-trained",
    "depthvla-small-ablation-ii-no-depth-loss": "(ii) no depth loss",
    "depthvla-small-ablation-iii-frozen-depth": "(iii) depth expert frozen",
    "depthvla-small-ablation-iv-joint-prefix": "(iv) no block-wise mask",
}
TASK_OPTIONS = {"lift": (), "blocks_stacking": ("colours=red,green,blue",)}  # of the scenes of an evaluation
SHARES = ("3", "1")  # of the tasks in the training: a short one needs more to be learnt at all
FEW = 20  # demonstrations of a task (paper, section IV-C)
TRAINING, DEPTH_TRAINING = "r1lite-small", "depth-pretrain-small"  # in models/training
# As a training log names them -> title of the column
HELD_OUT = {"held_out_flow": "held-out flow loss", "held_out_abs_rel": "held-out depth AbsRel"}

Runs = Mapping[tuple[str, int, str], dict]  # (variant, training seed, task) -> results of an evaluation
Logs = Mapping[tuple[str, int], Mapping[str, float]]  # (variant, training seed) -> last line of the training's log
Scores = Mapping[int, np.ndarray]  # training seed -> (scenes,) success (0 or 1) or progress


@dataclass(frozen=True)
class MiniatureConfig:
    """Variants of the network, trained alike and compared."""

    out: Path = Path("out/miniature")  # everything goes there; with --few-shot, to few-shot/ in it
    # Demonstrations of lift and of blocks_stacking; a network is trained on both together
    demonstrations: tuple[Path, Path] = (Path("data/lift_red_right_400"), Path("data/blocks_stacking_rgb"))
    training_seeds: int = 3  # networks of each variant
    steps: int = 3000  # of training
    depth_steps: int = 1000  # of pre-training the depth expert before
    batch_size: int = 16
    seeds: int = 20  # scenes of each evaluation
    time_limit_s: float = 30.0  # of an episode; the expert stacks three blocks in 8 s
    at_once: int = 2  # training seeds side by side, of one thread each
    few_shot: bool = False  # 20 demonstrations of each task
    only_table: bool = False  # make the table of what is there

    def __post_init__(self) -> None:
        for name in ("training_seeds", "steps", "depth_steps", "batch_size", "seeds", "at_once"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; allowed: 1 or more")

    @property
    def root(self) -> Path:
        return self.out / "few-shot" if self.few_shot else self.out


def main(argv: Sequence[str] | None = None) -> int:
    config = tyro.cli(MiniatureConfig, args=argv)
    try:
        if not config.only_table:
            run(config)
        print(write_table(config))
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except subprocess.CalledProcessError as error:
        print(f"error: exit code {error.returncode} of {' '.join(error.cmd)}", file=sys.stderr)
        return 1
    return 0


def run(config: MiniatureConfig) -> None:
    """Do what is missing.

    Raises:
        subprocess.CalledProcessError: a step failed; the same command goes on from there.
        FileNotFoundError: there are no demonstrations.
    """
    config.root.mkdir(parents=True, exist_ok=True)
    tokenizer = config.root / checkpoint.TOKENIZER
    if not tokenizer.exists():  # one for all networks, of the instructions of the demonstrations
        instructions = {text for folder in config.demonstrations for text in read_layout(folder).tasks.values()}
        network = model_config.read(train_config.find(REFERENCE, "configs", ".json"))
        train_tokenizer(sorted(instructions), network.vocab_size).save(str(tokenizer))
    with ThreadPoolExecutor(config.at_once) as pool:
        try:
            for done in [pool.submit(_run_seed, config, seed) for seed in range(config.training_seeds)]:
                done.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def write_table(config: MiniatureConfig) -> str:
    """The table of what is there, which is also written to table.md."""
    runs, logs = {}, {}
    for variant in VARIANTS:
        for folder in sorted(config.root.glob(f"{variant}-[0-9]*")):
            seed = int(folder.name.removeprefix(f"{variant}-"))
            if lines := log.read(folder / log.JSONL):
                logs[variant, seed] = lines[-1]
            for task in TASK_OPTIONS:
                if (path := folder / f"{task}.json").exists():
                    runs[variant, seed, task] = results.read(path)
    text = markdown(runs, logs, VARIANTS, list(TASK_OPTIONS), REFERENCE)
    config.root.mkdir(parents=True, exist_ok=True)
    (config.root / "table.md").write_text(text + "\n")
    return text


def _run_seed(config: MiniatureConfig, seed: int) -> None:
    """The networks of a seed start from the same VLM and action expert, and all but pi0 from the depth expert that was
    pre-trained on the demonstrations' depth. Ablation (i) leaves that expert out of its start.
    """
    folders, depth = [str(folder) for folder in config.demonstrations], config.root / f"depth-{seed}"
    data = ["--data.folders", *folders]
    _train(config, DEPTH_TRAINING, depth, seed, config.depth_steps, [*data, "--data.layouts", "lerobot", "lerobot"])
    for network, more in ((PI0, []), (REFERENCE, ["--depth-decoder", str(depth)])):
        start = _start(config, network, seed)
        if not (start / checkpoint.WEIGHTS).exists():
            words = ["--config", str(train_config.find(network, "configs", ".json")), "--dtype", "float32"]
            words += ["--tokenizer", str(config.root / checkpoint.TOKENIZER), "--seed", str(seed), "--out", str(start)]
            _do(start, "depthvla_policy.convert", [*words, *more])
    for variant in VARIANTS:
        out, start = config.root / f"{variant}-{seed}", _start(config, PI0 if variant == PI0 else REFERENCE, seed)
        words = ["--model", variant, "--init", str(start), *data, "--data.weights", *SHARES]
        _train(config, TRAINING, out, seed, config.steps, words)
        for task, options in TASK_OPTIONS.items():
            _evaluate(config, out, task, options)


def _train(config: MiniatureConfig, training: str, out: Path, seed: int, steps: int, others: Sequence[str]) -> None:
    newest = state.newest(out)
    done = int(newest.name.removeprefix(state.PREFIX)) if newest else 0
    if done >= steps and (out / checkpoint.WEIGHTS).exists():
        return
    words = ["--config", training, "--out", str(out), "--seed", str(seed), "--steps", str(steps)]
    words += ["--batch-size", str(config.batch_size)]
    words += ["--data.limit-episodes", str(FEW)] if config.few_shot else []
    _do(out, "depthvla_policy.train", [*words, *(["--resume"] if newest else []), *others])


def _evaluate(config: MiniatureConfig, out: Path, task: str, options: Sequence[str]) -> None:
    path = out / f"{task}.json"
    if path.exists():
        done = results.read(path)
        if done["seeds"] >= config.seeds and done["settings"].get("time_limit_s") == config.time_limit_s:
            return
    words = ["--policy", str(out), "--task", task, "--seeds", str(config.seeds), "--workers", "1"]
    words += ["--time-limit-s", f"{config.time_limit_s:g}", "--json", str(path)]
    _do(out, "r1lite_bringup.evaluate", [*words, *(["--task-options", *options] if options else [])])


def _do(out: Path, module: str, words: Sequence[str]) -> None:
    """Run a command of the project; its output goes beside its outcome."""
    command = [sys.executable, "-m", module, *words]
    print(" ".join(command[1:]), flush=True)
    with out.with_name(f"log-{out.name}.txt").open("a") as output:
        subprocess.run(command, check=True, stdout=output, stderr=subprocess.STDOUT)


def _start(config: MiniatureConfig, network: str, seed: int) -> Path:
    return config.root / f"start-{network}-{seed}"


def markdown(runs: Runs, logs: Logs, variants: Mapping[str, str], tasks: Sequence[str], reference: str) -> str:
    """Success and progress by task, progress averaged over the tasks, and that less the reference's; then what the
    trainings lost on held-out demonstrations, mean and range of the training seeds.

    variants: name -> title. A variant without any run, or an average without every task, is left blank. The difference
    is over training seeds and scenes that both have.
    """
    head = ["", "training seeds", *(f"{task} {what}" for task in tasks for what in ("success", "progress"))]
    head += ["mean progress", f"less {variants[reference]}", *HELD_OUT.values()]
    rows = []
    for variant, title in variants.items():
        progress = [_scores(runs, variant, task, "progress") for task in tasks]
        row = [title, str(len({seed for name, seed, _ in runs if name == variant}))]
        for task, reached in zip(tasks, progress, strict=True):
            row += [_cell([_scores(runs, variant, task, "success")], ".0%"), _cell([reached], ".0%")]
        theirs = [_scores(runs, reference, task, "progress") for task in tasks]
        differences = [_less(*pair) for pair in zip(progress, theirs, strict=True)]
        row += [_cell(progress, ".1%"), "" if variant == reference else _cell(differences, "+.1%")]
        ends = [log for (name, _), log in logs.items() if name == variant]
        row += [_range([log[loss] for log in ends if loss in log]) for loss in HELD_OUT]
        rows.append(row)
    return markdown_table(head, rows)


def estimate(tasks: Sequence[Scores], seed: int = 0) -> tuple[float, tuple[float, float] | None]:
    """Mean over tasks of the mean over training seeds of the mean over scenes, and its 95 % interval; None where the
    scenes cannot tell it.

    The interval is a percentile bootstrap at both levels: training seeds are resampled, and in each of them its scenes.
    With one training seed it only tells of the scenes. (scipy.stats.bootstrap knows one level.)
    """
    groups = [list(scores.values()) for scores in tasks]
    mean = float(np.mean([np.mean([scenes.mean() for scenes in group]) for group in groups]))
    if not spread_is_known([np.concatenate(group) for group in groups]):
        return mean, None
    rng = np.random.default_rng(seed)
    means = [np.mean([_resampled(group, rng) for group in groups]) for _ in range(RESAMPLES)]
    low, high = np.quantile(means, [0.025, 0.975])
    return mean, (float(low), float(high))


def _resampled(group: Sequence[np.ndarray], rng: np.random.Generator) -> float:
    chosen = [group[index] for index in rng.integers(0, len(group), len(group))]
    return float(np.mean([rng.choice(scenes, len(scenes)).mean() for scenes in chosen]))


def _scores(runs: Runs, variant: str, task: str, measure: str) -> Scores:
    return {
        seed: np.array([float(row[measure]) for row in results["episodes"]])
        for (name, seed, of), results in sorted(runs.items(), key=lambda item: item[0])
        if (name, of) == (variant, task)
    }


def _less(mine: Scores, theirs: Scores) -> Scores:
    """All are evaluated on the same first scenes, so that the shorter one tells which both have."""
    common = {seed: min(len(mine[seed]), len(theirs[seed])) for seed in mine if seed in theirs}
    return {seed: mine[seed][:count] - theirs[seed][:count] for seed, count in common.items()}


def _cell(tasks: Sequence[Scores], form: str) -> str:
    if not all(tasks):
        return ""
    mean, interval = estimate(tasks)
    return f"{mean:{form}}" + (f" ({interval[0]:{form}} to {interval[1]:{form}})" if interval else "")


def _range(values: Sequence[float]) -> str:
    return f"{np.mean(values):.3f} ({min(values):.3f} to {max(values):.3f})" if values else ""


if __name__ == "__main__":
    sys.exit(main())
