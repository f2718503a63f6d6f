"""The miniature comparison: what is left to do, in which order, and the table of what is there."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from depthvla_evaluation.rollouts import results
from depthvla_evaluation.rollouts.rollout import EpisodeResult
from r1lite_trials import depth_comparison, depth_comparison_table
from r1lite_trials.depth_comparison import PI0, REFERENCE, MiniatureConfig, jobs

RANDOM_DEPTH = "depthvla-small-ablation-i-random-depth"


def config(root: Path, **settings) -> MiniatureConfig:
    return MiniatureConfig(out=root, **{"variants": (REFERENCE, PI0), "training_seeds": 1, "seeds": 2, **settings})


def evaluated(progress: list[float], options: tuple[str, ...] = ()) -> dict:
    episodes = [EpisodeResult(i, "lift", success=value == 1.0, progress=value) for i, value in enumerate(progress)]
    settings = {"task_options": options, "time_limit_s": 30.0}
    about = {"environment": "some/Env-v0", "model_id": None, "settings": settings}
    return results.collect(about, episodes)


def leave_training(out: Path, step: int) -> None:
    (out / "state" / f"step_{step:08d}").mkdir(parents=True)
    (out / "model.safetensors").touch()


def value(job: depth_comparison.Job, flag: str) -> str:
    return job.words[job.words.index(flag) + 1]


def test_all_of_a_seed_comes_before_the_next_and_starts_before_what_starts_from_them(tmp_path):
    names = [job.name for job in jobs(config(tmp_path, training_seeds=2))]
    assert names[:9] == [
        "train depth-0",
        "make start-pi0-small-0",
        "make start-depthvla-small-0",
        "train depthvla-small-0",
        "evaluate depthvla-small-0 on lift",
        "evaluate depthvla-small-0 on blocks_stacking",
        "train pi0-small-0",
        "evaluate pi0-small-0 on lift",
        "evaluate pi0-small-0 on blocks_stacking",
    ]
    assert [name.replace("-1", "-0") for name in names[9:]] == names[:9]


def test_networks_of_a_seed_are_trained_alike(tmp_path):
    trainings = [job for job in jobs(config(tmp_path, variants=(REFERENCE, PI0, RANDOM_DEPTH))) if "-small" in job.name]
    trainings = [job for job in trainings if job.name.startswith("train")]
    own = {"--model", "--out", "--init"}
    alike = [[w for w, before in zip(j.words[1:], j.words, strict=False) if before not in own] for j in trainings]
    assert alike[0] == alike[1] == alike[2]
    starts = {value(job, "--model"): Path(value(job, "--init")).name for job in trainings}
    assert starts == {
        REFERENCE: "start-depthvla-small-0",
        PI0: "start-pi0-small-0",
        RANDOM_DEPTH: "start-depthvla-small-0",  # its network leaves the depth expert out of what it loads
    }


def test_pi0_alone_needs_no_depth_expert(tmp_path):
    names = [job.name for job in jobs(config(tmp_path, variants=(PI0,)))]
    assert names[:2] == ["make start-pi0-small-0", "train pi0-small-0"]


def test_a_training_that_was_interrupted_is_resumed_and_one_that_ended_is_not_done_again(tmp_path):
    leave_training(tmp_path / "pi0-small-0", 500)
    (resumed,) = [job for job in jobs(config(tmp_path)) if job.name == "train pi0-small-0"]
    assert "--resume" in resumed.words
    leave_training(tmp_path / "pi0-small-0", MiniatureConfig().steps)
    assert "train pi0-small-0" not in [job.name for job in jobs(config(tmp_path))]


def test_an_evaluation_of_too_few_scenes_or_other_options_is_done_again(tmp_path):
    path = tmp_path / "pi0-small-0" / "lift.json"

    def waits(**settings) -> bool:
        return "evaluate pi0-small-0 on lift" in [job.name for job in jobs(config(tmp_path, **settings))]

    results.write(path, evaluated([0.5, 1.0], ("colour=random",)))
    assert waits()
    assert not waits(options=("lift:colour=random",))
    assert waits(options=("lift:colour=random",), seeds=3)
    assert waits(options=("lift:colour=random",), time_limit_s=60.0)


def test_few_shot_limits_every_training_and_keeps_apart(tmp_path):
    trainings = [job for job in jobs(config(tmp_path, few_shot=True)) if job.name.startswith("train")]
    assert {value(job, "--data.limit-episodes") for job in trainings} == {"20"}
    assert all((tmp_path / "few-shot") in Path(value(job, "--out")).parents for job in trainings)


def test_a_measured_rate_goes_into_the_estimate(tmp_path):
    def estimate() -> float:
        return next(job.takes_s for job in jobs(config(tmp_path)) if job.name == "train pi0-small-0")

    before = estimate()
    (tmp_path / "depthvla-small-0").mkdir()
    (tmp_path / "depthvla-small-0" / "train.jsonl").write_text('{"step": 50, "samples_per_s": 80.0}\n')
    assert estimate() == pytest.approx(before / 2)
    assert "in all" in depth_comparison.plan_text(jobs(config(tmp_path)), 2)


def test_a_step_without_outcome_ends_the_run(tmp_path, monkeypatch):
    ran = []
    monkeypatch.setattr(subprocess, "run", lambda words, **how: ran.append(words))
    monkeypatch.setattr(depth_comparison, "_write_tokenizer", lambda config: None)
    with pytest.raises(ValueError, match="train depth-0 has ended without its outcome: .*train_depth-0.log"):
        depth_comparison.run(config(tmp_path, at_once=1))
    assert len(ran) == 1


def test_a_step_begins_when_those_before_it_have_left_their_outcome(tmp_path, monkeypatch):
    settings, done = config(tmp_path, at_once=3), []
    every = jobs(settings)
    by_words = {tuple(job.words): job.name for job in every}

    def run(words: list[str], **how) -> None:
        name = by_words[tuple(words)]
        (job,) = [job for job in every if job.name == name]
        assert set(job.after) <= set(done)
        done.append(name)

    monkeypatch.setattr(subprocess, "run", run)
    monkeypatch.setattr(depth_comparison, "_write_tokenizer", lambda config: None)
    monkeypatch.setattr(depth_comparison, "jobs", lambda config: [job for job in every if job.name not in done])
    depth_comparison.run(settings)
    assert sorted(done) == sorted(job.name for job in every)


@pytest.mark.parametrize(("shares", "weights"), [((), ["0.5", "0.5", "1"]), (("lift=3",), ["1.5", "1.5", "1"])])
def test_every_task_has_its_share_of_the_training(tmp_path, shares, weights):
    settings = config(
        tmp_path, demonstrations=("lift=data/red,data/green", "blocks_stacking=data/stack"), shares=shares
    )
    (job,) = [job for job in jobs(settings) if job.name == "train pi0-small-0"]
    begin = job.words.index("--data.weights")
    assert job.words[begin + 1 : begin + 4] == weights


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"variants": ("pi1",)}, "variants pi1 do not exist; allowed: depthvla-small, pi0-small"),
        ({"seeds": 0}, "seeds is 0"),
        ({"demonstrations": ("data/lift",)}, "allowed: TASK=FOLDER"),
        ({"options": ("touch:colour=red",)}, "options are of 'touch'; allowed: TASK:NAME=VALUE, tasks lift, blocks_st"),
        ({"shares": ("lift=0",)}, "shares are 'lift=0'; allowed: TASK=NUMBER above 0, tasks lift, blocks_stacking"),
        ({"shares": ("touch=1",)}, "shares are 'touch=1'"),
        ({"demonstrations": ("lift=a,b",), "few_shot": True}, "few_shot takes one folder of each task; lift"),
    ],
)
def test_a_wrong_setting_is_named(tmp_path, settings, complaint):
    with pytest.raises(ValueError, match=complaint):
        jobs(config(tmp_path, **settings))


def test_the_table_has_what_is_there_and_leaves_the_rest_blank(tmp_path):
    for variant, seed, task, progress in (
        (REFERENCE, 0, "lift", [1.0, 1.0]),
        (REFERENCE, 1, "lift", [1.0, 1.0]),
        (REFERENCE, 0, "blocks_stacking", [0.5, 0.5]),
        (PI0, 0, "lift", [0.5, 0.5]),
        (PI0, 0, "blocks_stacking", [0.5, 0.5]),
    ):
        results.write(tmp_path / f"{variant}-{seed}" / f"{task}.json", evaluated(progress))
    for seed, flow in enumerate((0.3, 0.5)):
        lines = f'{{"step": 50, "held_out_flow": 9}}\n{{"step": 100, "held_out_flow": {flow}}}\n'
        (tmp_path / f"{REFERENCE}-{seed}" / "train.jsonl").write_text(lines)
    text = depth_comparison.write_table(config(tmp_path))
    assert (tmp_path / "table.md").read_text() == text + "\n"
    rows = {cells[1]: cells[2:-1] for cells in ([c.strip() for c in line.split("|")] for line in text.splitlines())}
    assert rows["DepthVLA"][0] == "2" and rows["DepthVLA"][-4:] == [
        "75.0% (75.0% to 75.0%)",
        "",
        "0.400 (0.300 to 0.500)",
        "",
    ]
    assert rows["pi0 (no depth expert)"][-4:-2] == ["50.0% (50.0% to 50.0%)", "-25.0% (-25.0% to -25.0%)"]
    assert rows["(iv) no block-wise mask"] == ["0", *[""] * 8]


def test_the_interval_is_over_training_seeds_as_well_as_scenes():
    alike = {seed: dict.fromkeys(range(50), 0.5) for seed in range(3)}
    apart = {seed: dict.fromkeys(range(50), progress) for seed, progress in enumerate((0.2, 0.5, 0.8))}
    assert depth_comparison_table.estimate([alike]).interval == (0.5, 0.5)
    low, high = depth_comparison_table.estimate([apart]).interval
    assert (low, high) == pytest.approx((0.2, 0.8))


def test_tasks_weigh_the_same_however_many_runs_they_have():
    many, one = {0: {0: 1.0, 1: 1.0}, 1: {0: 1.0}}, {0: {0: 0.0}}
    assert depth_comparison_table.estimate([many, one]).mean == 0.5
    with pytest.raises(ValueError, match="at least one run of every task"):
        depth_comparison_table.estimate([many, {}])
