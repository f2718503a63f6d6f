"""The training benchmark at a small size, as it runs at the full one."""

from __future__ import annotations

import json

import pytest
import training_data
from accelerate.state import AcceleratorState

from depthvla_policy.bench import training as bench
from depthvla_policy.bench.training import BenchConfig


@pytest.fixture(autouse=True)
def fresh_accelerator():
    AcceleratorState._reset_state(reset_partial_state=True)


def test_every_variant_is_measured_up_to_the_largest_batch(tmp_path, monkeypatch, capsys):
    config = training_data.write_config(tmp_path, tmp_path)
    out = tmp_path / "bench.json"
    monkeypatch.setattr(
        "sys.argv", ["bench", "--config", str(config), "--largest", "2", "--steps", "1", "--out", str(out)]
    )
    assert bench.main() == 0
    rows = json.loads(out.read_text())["rows"]
    assert [(row["variant"], row["batch"]) for row in rows] == [(name, n) for name in bench.VARIANTS for n in (1, 2)]
    assert all(row["samples_per_s"] > 0 and 0 < row["mfu"] < 1 for row in rows)
    assert "adapters" in capsys.readouterr().out


def test_a_batch_that_does_not_fit_ends_its_variant(tmp_path, monkeypatch):
    config = training_data.write_config(tmp_path, tmp_path)
    seconds = bench._seconds

    def short_of_memory(trainer, n, steps):
        if n > 2:
            raise bench.torch.OutOfMemoryError
        return seconds(trainer, n, steps)

    monkeypatch.setattr(bench, "_seconds", short_of_memory)
    found = bench.bench(BenchConfig(str(config), steps=1, variants=("depth frozen",)))
    assert [row["batch"] for row in found["rows"]] == [1, 2]


def test_an_unknown_variant_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"\['frozen'\]; allowed: all trained, depth frozen, adapters"):
        bench.bench(BenchConfig(variants=("frozen",)))
