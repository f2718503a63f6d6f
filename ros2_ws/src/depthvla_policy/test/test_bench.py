"""The figures of a checkpoint: what is measured, what is written, and what is refused."""

from __future__ import annotations

import json
import sys

import pytest
import tiny_model
import torch
from safetensors.torch import load_file, save_file

from depthvla_policy import bench
from depthvla_policy.bench import BenchConfig
from depthvla_policy.policy import checkpoint

PARAMETERS = sum(parameter.numel() for parameter in tiny_model.model().parameters())


@pytest.fixture
def folder(tmp_path):
    return tiny_model.save_checkpoint(tmp_path / "tiny")


def config(folder, **fields):
    return BenchConfig(policy=folder, threads=torch.get_num_threads(), **fields)


def test_every_stage_of_a_trained_policy_is_timed(folder):
    result = bench.bench(config(folder, runs=2))
    assert result["checkpoint"] == "tiny" and result["parameters"] == PARAMETERS
    assert set(result["stages_ms"]) == {
        "prefixes and state",
        "one integration step",
        "chunk",
        "chunk, with depth",
        "resize, tokenise, normalise",
        "observation to chunk",
    }
    assert all(0.0 < row["p50"] <= row["p99"] for row in result["stages_ms"].values())
    assert result["peak_memory_gb"] >= result["unmapped_memory_gb"] > 0.0


def test_without_statistics_only_the_network_is_timed(folder):
    (folder / checkpoint.STATS).unlink()
    assert "chunk" in (stages := bench.bench(config(folder, runs=1))["stages_ms"])
    assert "observation to chunk" not in stages


def test_without_runs_one_chunk_is_sampled_and_timed(folder):
    result = bench.bench(config(folder, runs=0, dtype="bfloat16"))
    assert result["stages_ms"] == {} and result["first_chunk_s"] >= 0.0


def test_bfloat16_is_compared_with_float32(folder):
    agreement = bench.bench(config(folder, runs=0, dtype="bfloat16", agreement=True))["agreement"]
    assert 0.0 < agreement["rms"] <= agreement["max"] < 0.5
    assert bench.bench(config(folder, runs=0, agreement=True))["agreement"] == {"rms": 0.0, "max": 0.0}


def test_a_chunk_that_is_not_finite_is_an_error(folder):
    weights = load_file(folder / checkpoint.WEIGHTS)
    weights["action_out_proj.bias"] = torch.full_like(weights["action_out_proj.bias"], torch.nan)
    save_file(weights, folder / checkpoint.WEIGHTS)
    with pytest.raises(RuntimeError, match="not finite"):
        bench.bench(config(folder, runs=0))


def command(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["bench", *map(str, arguments)])
    return bench.main()


def test_the_command_writes_and_prints_the_figures(folder, tmp_path, monkeypatch, capsys):
    out = tmp_path / "new" / "bench.json"
    threads = ("--threads", torch.get_num_threads())
    assert command(monkeypatch, "--policy", folder, "--runs", 0, *threads, "--out", out) == 0
    said = capsys.readouterr().out
    assert "first chunk in" in said and "p50" not in said
    assert json.loads(out.read_text())["parameters"] == PARAMETERS


def test_without_a_gpu_the_command_says_that_it_was_skipped(folder, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    out = tmp_path / "bench.json"
    assert command(monkeypatch, "--policy", folder, "--device", "cuda", "--out", out) == 0
    assert "skipped" in capsys.readouterr().out and not out.exists()
