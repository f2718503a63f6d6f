"""Several processes: the same path as one, with whole weights in each and with sharded ones."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path

import pytest
import training_data

STEPS = {"steps": 4, "machine": {"log_every": 1, "validate_every": 2, "save_every": 2, "recompute": True}}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return training_data.write_demonstrations(tmp_path_factory.mktemp("data") / "lift", 4)


@pytest.fixture(scope="module")
def by_one(data, tmp_path_factory):
    config = training_data.config(tmp_path_factory.mktemp("one"), data, **STEPS)
    return training_data.losses(config)


def launch(*command):
    """Run a training in two processes."""
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    done = subprocess.run([*torchrun, *command], timeout=170, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def check(found, wanted):
    assert len(found) == len(wanted)
    for row, other in zip(found, wanted, strict=True):
        assert row == pytest.approx(other, rel=2e-3, abs=1e-5)


def test_two_processes_follow_the_path_of_one(data, by_one, tmp_path):
    config = training_data.config(tmp_path, data, **STEPS)
    launch("-m", "depthvla_policy.train", "--config", str(tmp_path / "train.yaml"))
    check(training_data.rows(config), by_one)


def test_sharded_processes_follow_the_path_of_one_which_can_take_over(data, by_one, tmp_path):
    config = training_data.config(tmp_path, data, **STEPS)
    script = Path(__file__).with_name("train_sharded.py")
    said = launch(str(script), "3", "--config", str(tmp_path / "train.yaml"))
    assert said.count("held 0.5") == 2
    check(training_data.rows(config), by_one[:3])
    check(training_data.losses(dataclasses.replace(config, resume=True)), by_one)
