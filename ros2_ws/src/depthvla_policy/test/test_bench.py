"""The figures of a checkpoint: what is measured, against which limit, what is written, and what is refused."""

from __future__ import annotations

import dataclasses
import json
import subprocess

import pytest
import tiny_model
import torch
from safetensors.torch import load_file, save_file
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from depthvla_policy.bench import figures, peer, roofline, stages, table
from depthvla_policy.bench.__main__ import main
from depthvla_policy.bench.figures import BenchConfig, bench
from depthvla_policy.bench.machine import git_revision
from depthvla_policy.bench.roofline import DEPTH, DEPTH_ENCODER, STATE, STEP, VISION, VLM, Demand, Roof
from depthvla_policy.bench.timing import percentiles
from depthvla_policy.policy import checkpoint
from depthvla_policy.policy.engine import Engine

CONFIG = tiny_model.CONFIG
PARAMETERS = sum(parameter.numel() for parameter in tiny_model.model().parameters())
JOINT = dataclasses.replace(CONFIG, prefix_attention="joint")
ROOF = Roof(flops_per_s=1e9, weights_bytes_per_s=1e6, memory_bytes_per_s=1e5)


@pytest.fixture(autouse=True)
def small_machine(monkeypatch):
    """The machine's rates are measured on little, and other tests keep torch's threads."""
    monkeypatch.setattr(roofline, "MEMORY_BYTES", {"cpu": 2**16})
    monkeypatch.setattr(roofline, "GEMM_SIZE", {"cpu": 64})
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def folder(tmp_path):
    return tiny_model.save_checkpoint(tmp_path / "tiny")


def config(folder, **fields):
    return BenchConfig(policy=folder, **fields)


def named(result):
    return {row["what"]: row for row in result["rows"]}


# --- the limit ---


def test_the_work_of_a_step_is_what_one_counts_by_hand():
    step = roofline.demands(tiny_model.model(), 3, depth=False)[STEP]
    rows, keys, D, mlp, heads, kv = 16, 12 + 20 + 12 + 1 + 16, 24, 40, 4 * 8, 8
    layer = D * (heads + 2 * kv) + heads * D + 3 * D * mlp
    ends = 14 * D + 2 * D * D + D * D + D * 14
    assert step.flops == 2 * rows * (3 * layer + ends) + 3 * 4 * rows * keys * heads
    norms, biases = 3 * 2 * D + D, D + D + D + 14
    assert step.bytes == 4 * (3 * layer + norms + ends + biases + 3 * 2 * keys * kv)


def test_a_prefix_that_nobody_reads_ends_with_keys_and_values():
    silent, read = (roofline.demands(tiny_model.model(), 3, depth=depth)[DEPTH] for depth in (False, True))
    D, heads = 20, 4 * 8
    unread = 2 * D * heads + 3 * D * 36
    head = D * 4**2
    seen = 4  # of the 12 depth tokens
    assert read.flops - silent.flops == 12 * (2 * (unread + head) + 4 * seen * heads)
    assert read.bytes - silent.bytes == 4 * (unread + 2 * D + head + 4**2)


@torch.no_grad()
def test_every_stage_computes_what_was_counted():
    model, cameras = tiny_model.model(), 2
    timed = stages.of_network(model, *stages.random_inputs(CONFIG, "cpu", torch.float32, cameras))
    demands = roofline.demands(model, cameras, depth=False)
    assert list(timed) == list(demands) == [VISION, DEPTH_ENCODER, VLM, DEPTH, STATE, STEP]
    for name, (function, _) in timed.items():
        # Attention of the other kernels is not counted.
        with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
            function()
        # The state's embedding is one matrix of 14 x 24, outside of its stage.
        outside = 2 * 14 * 24 if name == STATE else 0
        assert counter.get_total_flops() + outside == demands[name].flops, name


def test_the_limit_is_the_slower_of_computing_and_moving():
    computing, moving = Demand(flops=2e6, bytes=1e3), Demand(flops=1e6, bytes=4e3)
    assert (ROOF.ms(computing), ROOF.bound(computing)) == (2.0, "compute")
    assert (ROOF.ms(moving), ROOF.bound(moving)) == (4.0, "memory")
    assert ROOF.chunk_ms({"before": computing, STEP: moving}, euler_steps=10) == 42.0


def test_the_machine_is_measured():
    roof = roofline.measure("cpu", torch.float32, weights_bytes=10**5)
    assert min(dataclasses.astuple(roof)) > 0.0


# --- what is measured ---


def test_the_engines_parts_are_the_stages_of_the_network():
    model = tiny_model.model()
    Engine(model)
    timed = stages.of_engine(model, 2)
    assert list(timed) == [VISION, DEPTH_ENCODER, VLM, DEPTH, STATE, STEP]
    assert [repeats for _, repeats in timed.values()] == [1, 1, 1, 1, 1, CONFIG.euler_steps]
    assert timed[STEP][0]().shape == (CONFIG.horizon, CONFIG.action_dim)


def test_times_are_of_one_repeat_and_without_the_warm_up(monkeypatch):
    calls = iter([9e3, 9e3, 1.0, 40.0, 3.0, 80.0])
    monkeypatch.setattr("depthvla_policy.bench.timing.durations_ms", lambda *_: [next(calls)])
    found = percentiles({"a": int, "b": int}, 2, "cpu", {"b": 10})
    assert found["a"]["p50"] == 2.0 and found["b"]["p50"] == 6.0
    assert found["a"]["p99"] == pytest.approx(2.98)


def test_network_engine_pi0_and_transformers_are_timed_beside_the_roofline(folder):
    result = bench(config(folder, runs=2))
    rows = named(result)
    cameras = ("1 camera", "2 cameras", "3 cameras")
    assert list(rows) == [
        *(VISION, DEPTH_ENCODER, VLM, DEPTH, STATE, STEP),
        *(f"DepthVLA, {n}{depth}" for n in cameras for depth in ("", ", with depth")),
        *(f"pi0, {n}" for n in cameras),
        "pi0 of transformers, 3 cameras",
        "resize, tokenise, normalise",
        "observation to chunk",
    ]
    for row in result["rows"]:
        times = [row[key] for key in ("eager_ms", "engine_ms") if key in row]
        assert all(0.0 < time["p50"] <= time["p99"] for time in times)
        if "roofline_ms" in row:
            assert row["ratio"] == pytest.approx(min(t["p50"] for t in times) / row["roofline_ms"], rel=0.05, abs=0.02)
    assert "engine_ms" not in rows["pi0 of transformers, 3 cameras"]
    assert rows["pi0, 3 cameras"]["roofline_ms"] < rows["DepthVLA, 3 cameras"]["roofline_ms"]
    assert rows[STEP]["bound"] in ("compute", "memory") and rows[STEP]["gflop"] > 0.0 and rows[STEP]["mb"] > 0.0
    assert set(result["warm_up"]) == {"cold_ms", "first_ms", "last_ms"}
    assert result["agreement"]["engine"]["max"] < 1e-3
    assert result["engine_peak_memory_gb"] >= result["peak_memory_gb"] > 0.0


def test_without_engine_and_statistics_what_is_there_is_timed(tmp_path):
    folder = tiny_model.save_checkpoint(tmp_path / "joint", JOINT)
    (folder / checkpoint.STATS).unlink()
    result = bench(config(folder, runs=1))
    rows = named(result)
    assert "eager_ms" in rows["DepthVLA, 3 cameras"] and "engine_ms" not in rows["DepthVLA, 3 cameras"]
    assert "engine_ms" in rows["pi0, 3 cameras"] and result["agreement"] == {}
    assert VLM not in rows and "observation to chunk" not in rows


def test_without_runs_one_chunk_is_sampled_and_timed(folder):
    result = bench(config(folder, runs=0, dtype="bfloat16"))
    assert "rows" not in result and result["first_chunk_s"] >= 0.0
    assert result["checkpoint"] == "tiny" and result["parameters"] == PARAMETERS
    assert result["peak_memory_gb"] >= result["unmapped_memory_gb"] > 0.0


def test_bfloat16_is_compared_with_float32(folder):
    found = bench(config(folder, runs=0, dtype="bfloat16", agreement=True))["agreement"]["float32"]
    assert 0.0 < found["rms"] <= found["max"] < 0.5
    same = bench(config(folder, runs=0, agreement=True))["agreement"]["float32"]
    assert same == {"rms": 0.0, "max": 0.0}


def test_distance_is_relative_to_the_rms_of_what_is_wanted():
    found = figures.distance(torch.tensor([2.0, 2.0, 2.0, 6.0]), torch.full((4,), 2.0))
    assert found == {"rms": 1.0, "max": 2.0}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_peer_has_our_dimensions_and_samples_from_our_inputs(dtype):
    inputs, noise = stages.random_inputs(tiny_model.PI0, "cpu", dtype)
    chunk = peer.sampler(tiny_model.PI0, inputs, noise, dtype)()
    assert chunk.shape == noise.shape and torch.isfinite(chunk).all()


def test_training_steps_are_measured_on_request(folder, tmp_path):
    pytest.importorskip("depthvla_policy.bench.training", reason="what training needs is not installed")
    import training_data

    training = training_data.write_config(tmp_path, tmp_path)
    rows = bench(config(folder, runs=0, training=str(training)))["training"]["rows"]
    assert [row["batch"] for row in rows] == [1, 2, 4, 8] and all(row["samples_per_s"] > 0.0 for row in rows)


def test_a_chunk_that_is_not_finite_is_an_error(folder):
    weights = load_file(folder / checkpoint.WEIGHTS)
    weights["action_out_proj.bias"] = torch.full_like(weights["action_out_proj.bias"], torch.nan)
    save_file(weights, folder / checkpoint.WEIGHTS)
    with pytest.raises(RuntimeError, match="not finite"):
        bench(config(folder, runs=0))


def test_revision_says_whether_files_differ_from_it(tmp_path):
    assert git_revision(tmp_path) == ""
    words = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@example.org"]
    subprocess.run([*words, "init", "-q"], check=True)
    (tmp_path / "file").write_text("one")
    subprocess.run([*words, "add", "file"], check=True)
    subprocess.run([*words, "commit", "-qm", "one"], check=True)
    revision = git_revision(tmp_path)
    assert len(revision) == 40
    (tmp_path / "file").write_text("two")
    assert git_revision(tmp_path) == f"{revision}+dirty"
    (tmp_path / "install").mkdir()
    assert git_revision(tmp_path / "install") == ""


# --- what is written ---

RESULT = {
    "machine": {"processor": "a CPU", "instructions": "AVX2", "threads": 1, "torch": "2.0", "cores": 4},
    "load_average": {"before": 1.5, "after": 2.0},
    "date": "2026-11-25T12:00+00:00",
    "revision": "abc",
    "rows": [
        {
            "what": "chunk",
            "eager_ms": {"p50": 30.0, "p99": 41.25},
            "engine_ms": {"p50": 123.4, "p99": 200.0},
            "roofline_ms": 0.02468,
            "bound": "memory",
            "ratio": 5000.0,
        },
        {"what": "peer", "compiled_ms": {"p50": 1.0, "p99": 2.0}},
    ],
}


def test_rows_of_a_document():
    where, _, *rows = table.markdown(RESULT).splitlines()
    assert where == (
        "a CPU (AVX2), 1 thread(s) on 4 cores, PyTorch 2.0, load average 1.50 before and 2.00 after;"
        " 2026-11-25T12:00+00:00, abc"
    )
    assert rows == [
        "| [ms] | eager p50 | p99 | engine p50 | p99 | roofline | bound | ratio |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
        "| chunk | 30.0 | 41.2 | 123 | 200 | 0.0247 | memory | 5000.0 |",
        "| peer |  |  | 1.00 | 2.00 |  |  |  |",
    ]


def test_the_command_writes_and_prints_the_figures(folder, tmp_path, capsys):
    out = tmp_path / "new" / "bench.json"
    arguments = ["--policy", str(folder), "--runs", "1", "--out", str(out)]
    assert main(arguments) == 0
    said = capsys.readouterr().out
    assert "first chunk in" in said and "one Euler step" in said and "engine against network" in said
    written = json.loads(out.read_text())
    assert written["command"].startswith("depthvla bench --policy")
    assert {"date", "revision", "machine", "load_average", "parameters", "roofline", "rows"} <= set(written)


def test_without_a_gpu_the_command_says_that_it_was_skipped(folder, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    out = tmp_path / "bench.json"
    assert main(["--policy", str(folder), "--device", "cuda", "--out", str(out)]) == 0
    assert "skipped: there is no CUDA device here" in capsys.readouterr().out and not out.exists()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device here")
def test_on_a_gpu_the_same_is_measured(folder, monkeypatch):
    monkeypatch.setattr(roofline, "MEMORY_BYTES", {"cuda": 2**20})
    monkeypatch.setattr(roofline, "GEMM_SIZE", {"cuda": 256})
    result = bench(config(folder, runs=2, device="cuda", dtype="bfloat16", agreement=True))
    assert named(result)[STEP]["engine_ms"]["p50"] > 0.0
    assert set(result["agreement"]) == {"engine", "float32"} and result["machine"]["gpu"]
