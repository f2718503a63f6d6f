"""Published checkpoints become one of ours, and every tensor is accounted for."""

from __future__ import annotations

import dataclasses
import json
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import published
import pytest
import tiny_model
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import Dinov2Config, Dinov2Model, PI0Config, PI0ForConditionalGeneration

from depthvla_policy.conversion.plan import Plan
from depthvla_policy.conversion.to_transformers import export
from depthvla_policy.convert import ConvertConfig, convert, main
from depthvla_policy.model import config as model_config
from depthvla_policy.model import layouts
from depthvla_policy.model.depthvla import DepthVLA
from depthvla_policy.policy import checkpoint
from depthvla_policy.policy.policy import Policy
from depthvla_policy.policy.prompt import train_tokenizer

C = tiny_model.CONFIG
FULL_SIZE = Path(__file__).parents[4] / "models" / "configs" / "depthvla-3b.json"


@dataclass(frozen=True)
class Case:
    """A published checkpoint: option, contents, and a published name with ours to try things on."""

    option: str
    weights: dict[str, Tensor]
    sample: str
    ours: str
    unused: int = 0


def make_cases() -> dict[str, Case]:
    vlm, action, depth = (
        published.tensors(make(C)) for make in (published.paligemma, published.pi0, published.depth_anything)
    )
    encoder = published.only(depth, "backbone.")
    openpi = published.openpi(action)
    nested = (
        r"^paligemma_with_expert\.paligemma\.lm_head",
        "paligemma_with_expert.paligemma.model.language_model.embed_tokens",
    )
    own = published.tensors(tiny_model.model())
    language = "paligemma_with_expert.paligemma.language_model."
    gate = "layers.1.mlp.gate_proj.weight"
    norm = "depth_encoder.tower.encoder.layer.1.norm1.weight"
    query = "depth_encoder.tower.encoder.layer.1.attention.q_proj.weight"
    dpt = sum(not name.startswith("backbone.") for name in depth)
    original = published.original_dinov2(encoder)
    expert = {name: own[name] for name in own if name.startswith(("mixture.experts.depth.", "depth_head."))}
    own_encoder = {name: own[name] for name in own if name.startswith("depth_encoder.")}
    return {
        "PaliGemma, hub": Case(
            "vlm",
            published.paligemma_hub(vlm),
            "language_model.model." + gate,
            "mixture.experts.vlm." + gate,
        ),
        "PaliGemma, hub, head only": Case(
            "vlm",
            published.renamed(published.paligemma_hub(vlm), (r"model\.embed_tokens", "lm_head")),
            "language_model.lm_head.weight",
            "embed_tokens.weight",
        ),
        "PaliGemma, transformers 5": Case(
            "vlm", vlm, "model.language_model." + gate, "mixture.experts.vlm." + gate, unused=1
        ),
        "PaliGemma, transformers 5 with vision_model": Case(
            "vlm",
            published.renamed(vlm, (r"vision_tower\.", "vision_tower.vision_model.")),
            "model.vision_tower.vision_model.post_layernorm.bias",
            "vision.tower.post_layernorm.bias",
            unused=1,
        ),
        "pi0, transformers": Case("pi0", action, "model.dit." + gate, "mixture.experts.action." + gate, unused=1),
        "pi0, openpi": Case("pi0", openpi, "action_in_proj.bias", "action_in_proj.bias", unused=1),
        "pi0, openpi with embedding": Case(
            "pi0",
            published.renamed(openpi, nested),
            "paligemma_with_expert.paligemma.model.language_model.embed_tokens.weight",
            "embed_tokens.weight",
            unused=1,
        ),
        "pi0, lerobot": Case(
            "pi0", published.under(openpi, "model."), "model.state_proj.weight", "state_proj.weight", unused=1
        ),
        "pi0, old lerobot": Case(
            "pi0",
            old_lerobot(openpi),
            f"model.{language}model.{gate}",
            "mixture.experts.vlm." + gate,
            unused=1 + 6,
        ),
        "Depth Anything, new": Case("depth_encoder", depth, "backbone.encoder.layer.1.norm1.weight", norm, dpt),
        "Depth Anything, old": Case(
            "depth_encoder",
            published.old_dinov2(depth),
            "backbone.encoder.layer.1.attention.attention.query.weight",
            query,
            dpt,
        ),
        "Depth Anything, .pth": Case(
            "depth_encoder",
            {**published.under(original, "pretrained."), "depth_head.projects.0.weight": torch.ones(2, 2)},
            "pretrained.blocks.1.attn.qkv.weight",
            query,
            unused=1,
        ),
        "DINOv2, new": Case("depth_encoder", encoder, "encoder.layer.1.norm1.weight", norm),
        "DINOv2, old": Case(
            "depth_encoder", published.old_dinov2(encoder), "encoder.layer.1.attention.attention.query.weight", query
        ),
        "DINOv2, .pth": Case("depth_encoder", original, "blocks.1.attn.qkv.weight", query),
        "our depth pre-training": Case(
            "depth_decoder", {**own_encoder, **expert}, "depth_head.bias", "depth_head.bias"
        ),
        "our depth pre-training, no encoder": Case("depth_decoder", expert, "depth_head.bias", "depth_head.bias"),
        "our DepthVLA": Case(
            "depth_decoder", own, "depth_head.bias", "depth_head.bias", len(own) - len(own_encoder) - len(expert)
        ),
    }


def old_lerobot(openpi: dict[str, Tensor]) -> dict[str, Tensor]:
    """Old files of lerobot: PaliGemma is named as on the hub, and the policy's statistics are buffers."""
    weights = published.renamed(
        openpi,
        (r"paligemma\.model\.language_model\.", "paligemma.language_model.model."),
        (r"paligemma\.lm_head", "paligemma.language_model.lm_head"),
        (r"paligemma\.model\.", "paligemma."),
    )
    buffers = ("normalize_inputs.buffer_observation_state", "normalize_targets.buffer_action")
    stats = {
        f"{buffer}.{kind}": torch.ones(C.state_dim)
        for buffer in (*buffers, "unnormalize_outputs.buffer_action")
        for kind in ("mean", "std")
    }
    return {**published.under(weights, "model."), **stats}


def pi05(openpi: dict[str, Tensor]) -> dict[str, Tensor]:
    """A pi0.5 of openpi: no state projection, and the time goes into the action expert's norms."""
    weights = {name: tensor for name, tensor in openpi.items() if not name.startswith("state_proj.")}
    return published.renamed(
        weights, (r"^action_time_mlp", "time_mlp"), (r"(gemma_expert\..*norm)\.weight", r"\1.dense.weight")
    )


CASES = make_cases()
every_layout = pytest.mark.parametrize("case", CASES.values(), ids=CASES)


def run(tmp_path: Path, model=C, out: str = "out", dtype: str = "float32", **sources):
    config = tmp_path / "config.json"
    config.write_text(json.dumps(dataclasses.asdict(model)))
    return convert(ConvertConfig(out=tmp_path / out, config=config, dtype=dtype, **sources))


def path_for(case: Case, tmp_path: Path) -> Path:
    return tmp_path / ("published.pth" if "blocks" in case.sample else "published")


@every_layout
def test_a_layout_is_imported_and_every_tensor_accounted_for(case, tmp_path):
    report = run(tmp_path, **{case.option: published.write(case.weights, path_for(case, tmp_path))})
    used = {key for _, key in report.used.values()}
    unused = {key for _, key in report.unused}
    assert used | unused == set(case.weights)
    assert not used & unused
    assert len(unused) == case.unused
    assert all(report.unused.values())
    assert set(report.used) | set(report.fresh) == set(report.parameters)
    written = load_file(tmp_path / "out" / checkpoint.WEIGHTS)
    assert set(written) == set(report.parameters)
    whole = case.weights[case.sample]
    expected = whole.chunk(3)[0] if "qkv" in case.sample else whole
    assert torch.equal(written[case.ours], expected)
    model = checkpoint.load_model(tmp_path / "out", C, "cpu", torch.float32)
    assert all(parameter.isfinite().all() for parameter in model.parameters())


@every_layout
def test_shards_give_the_same_weights(case, tmp_path):
    run(tmp_path, **{case.option: published.write(case.weights, path_for(case, tmp_path))})
    run(tmp_path, out="sharded", **{case.option: published.write(case.weights, tmp_path / "shards", shards=3)})
    one, other = (load_file(tmp_path / name / checkpoint.WEIGHTS) for name in ("out", "sharded"))
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)


@every_layout
def test_a_missing_tensor_is_named(case, tmp_path):
    weights = {name: tensor for name, tensor in case.weights.items() if name != case.sample}
    source = published.write(weights, path_for(case, tmp_path))
    with pytest.raises(ValueError, match="missing") as error:
        run(tmp_path, **{case.option: source})
    assert case.ours in str(error.value)
    # The embedding has two published names, and the one in the message may be the other.
    assert case.sample in str(error.value) or case.ours == "embed_tokens.weight"
    assert not (tmp_path / "out").exists()


@every_layout
def test_an_extra_tensor_is_named(case, tmp_path):
    extra = case.sample.rsplit(".", 1)[0] + ".lora_A"
    source = published.write({**case.weights, extra: torch.ones(1)}, path_for(case, tmp_path))
    with pytest.raises(ValueError, match="unknown") as error:
        run(tmp_path, **{case.option: source})
    assert extra in str(error.value)
    assert case.sample not in str(error.value)


@every_layout
def test_a_misshapen_tensor_is_named_with_both_shapes(case, tmp_path):
    right = case.weights[case.sample]
    wrong = torch.zeros(right.shape[0] - 1, *right.shape[1:])
    source = published.write({**case.weights, case.sample: wrong}, path_for(case, tmp_path))
    with pytest.raises(ValueError, match="wrong shape") as error:
        run(tmp_path, **{case.option: source})
    assert case.sample in str(error.value)
    assert str(tuple(wrong.shape)) in str(error.value)
    assert str(right.shape[0]) in str(error.value)


def test_models_of_published_size_fit_the_full_size_config():
    with torch.device("meta"):
        wanted = {
            name: tuple(tensor.shape) for name, tensor in DepthVLA(model_config.read(FULL_SIZE)).state_dict().items()
        }
        sources = {
            "pi0": PI0ForConditionalGeneration(PI0Config()),
            "depth_encoder": Dinov2Model(
                Dinov2Config(hidden_size=1024, num_hidden_layers=24, num_attention_heads=16, image_size=518)
            ),
        }
    brought = set()
    for option, model in sources.items():
        plan = Plan.of(option, Shapes(model), layouts.LAYOUTS[option], wanted)
        assert len(plan.pieces) + len(plan.unused) == len(model.state_dict())
        brought |= set(plan.pieces)
    assert {layouts.part_of(name) for name in set(wanted) - brought} == {"depth_decoder"}


class Shapes:
    """Looks like a source, and holds no numbers."""

    path = "meta"

    def __init__(self, model: nn.Module) -> None:
        self.tensors = model.state_dict()

    def keys(self) -> list[str]:
        return list(self.tensors)

    def shape(self, key: str) -> tuple[int, ...]:
        return tuple(self.tensors[key].shape)


def test_parts_of_four_sources_make_one_network(tmp_path):
    vlm = published.write(CASES["PaliGemma, hub"].weights, tmp_path / "vlm")
    encoder = published.write(CASES["DINOv2, old"].weights, tmp_path / "dino.safetensors")
    decoder = published.write(CASES["our depth pre-training, no encoder"].weights, tmp_path / "decoder")
    report = run(tmp_path, vlm=vlm, depth_encoder=encoder, depth_decoder=decoder)
    assert {layouts.part_of(name) for name in report.fresh} == {"action"}
    assert {source for source, _ in report.used.values()} == {"vlm", "depth_encoder", "depth_decoder"}
    pi0 = published.write(CASES["pi0, lerobot"].weights, tmp_path / "pi0")
    report = run(tmp_path, out="all", pi0=pi0, depth_encoder=encoder, depth_decoder=decoder)
    assert not report.fresh


@pytest.mark.parametrize("prefix", ["", "model."], ids=["openpi", "lerobot"])
def test_a_pi05_is_refused_as_what_it_is(tmp_path, prefix):
    weights = published.under(pi05(CASES["pi0, openpi"].weights), prefix)
    with pytest.raises(ValueError, match="pi0.5 checkpoint"):
        run(tmp_path, pi0=published.write(weights, tmp_path / "pi05"))
    # Either sign is enough: the time's own MLP, or norms that take it.
    other = {key: tensor for key, tensor in weights.items() if "time_mlp" not in key and "dense" not in key}
    for i, sign in enumerate(("time_mlp_in.bias", "paligemma_with_expert.gemma_expert.model.norm.dense.weight")):
        source = published.write({**other, prefix + sign: weights[prefix + sign]}, tmp_path / f"sign_{i}")
        with pytest.raises(ValueError, match="pi0.5 checkpoint") as error:
            run(tmp_path, pi0=source)
        assert prefix + sign in str(error.value)


def test_statistics_of_a_published_policy_are_left_out_for_a_stated_reason(tmp_path):
    source = published.write(CASES["pi0, old lerobot"].weights, tmp_path / "pi0")
    report = run(tmp_path, pi0=source)
    assert "ours are in norm_stats.json" in report.unused["pi0", "normalize_inputs.buffer_observation_state.mean"]
    assert "norm_stats.json" in " ".join(report.needed)


@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        ("PaliGemma, hub", "pi0, openpi", "--vlm and --pi0 both bring vlm"),
        ("DINOv2, new", "our depth pre-training", "--depth-encoder and --depth-decoder both bring depth_encoder"),
    ],
)
def test_two_sources_of_one_part_are_refused(tmp_path, first, second, message):
    sources = {
        CASES[name].option: published.write(CASES[name].weights, tmp_path / CASES[name].option)
        for name in (first, second)
    }
    with pytest.raises(ValueError, match=message):
        run(tmp_path, **sources)


def test_depth_weights_for_a_network_without_depth_are_refused(tmp_path):
    source = published.write(CASES["DINOv2, new"].weights, tmp_path / "dino")
    with pytest.raises(ValueError, match="has no depth_encoder"):
        run(tmp_path, tiny_model.PI0, depth_encoder=source)


def test_a_network_that_predicts_no_depth_leaves_the_head_unused(tmp_path):
    blind = dataclasses.replace(C, depth=dataclasses.replace(C.depth, input="ground_truth"))
    source = published.write(CASES["our depth pre-training"].weights, tmp_path / "decoder")
    report = run(tmp_path, blind, depth_decoder=source)
    assert set(report.unused) == {("depth_decoder", "depth_head.weight"), ("depth_decoder", "depth_head.bias")}


def test_padded_token_rows_are_cut_off(tmp_path):
    padded = published.tensors(published.paligemma(C, extra_rows=64))
    run(tmp_path, vlm=published.write(padded, tmp_path / "vlm"))
    written = load_file(tmp_path / "out" / checkpoint.WEIGHTS)["embed_tokens.weight"]
    assert torch.equal(written, padded[published.TIED[0]][: C.vocab_size])


def test_a_head_beside_the_embedding_is_not_read(tmp_path):
    weights = {**CASES["PaliGemma, transformers 5"].weights, "lm_head.weight": torch.full((2, 2), torch.nan)}
    report = run(tmp_path, vlm=published.write(weights, tmp_path / "vlm"))
    assert report.used["embed_tokens.weight"] == ("vlm", published.TIED[0])
    assert "tied" in report.unused["vlm", "lm_head.weight"]


def test_positions_are_resampled_as_transformers_does_while_running(tmp_path):
    run(tmp_path, depth_encoder=published.write(CASES["Depth Anything, old"].weights, tmp_path / "depth"))
    written = load_file(tmp_path / "out" / checkpoint.WEIGHTS)[layouts.DEPTH_POSITIONS]
    embeddings = published.depth_anything(C).backbone.embeddings
    tokens = torch.zeros(1, 1 + C.grid**2, C.depth.encoder.width)
    assert torch.equal(written, embeddings.interpolate_pos_encoding(tokens, C.image_size, C.image_size))


def test_positions_of_the_right_grid_stay_as_they_are(tmp_path):
    weights = dict(CASES["DINOv2, new"].weights)
    weights["embeddings.position_embeddings"] = torch.randn(1, 1 + C.grid**2, C.depth.encoder.width)
    run(tmp_path, depth_encoder=published.write(weights, tmp_path / "dino"))
    written = load_file(tmp_path / "out" / checkpoint.WEIGHTS)[layouts.DEPTH_POSITIONS]
    assert torch.equal(written, weights["embeddings.position_embeddings"])


def test_an_encoder_without_mask_token_gets_a_new_one(tmp_path):
    weights = {name: tensor for name, tensor in CASES["DINOv2, new"].weights.items() if "mask_token" not in name}
    report = run(tmp_path, depth_encoder=published.write(weights, tmp_path / "dino"))
    assert "depth_encoder.tower.embeddings.mask_token" in report.fresh
    written = load_file(tmp_path / "out" / checkpoint.WEIGHTS)
    assert not written["depth_encoder.tower.embeddings.mask_token"].any()
    assert torch.equal(written["depth_encoder.tower.layernorm.weight"], weights["layernorm.weight"])


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_what_no_source_brings_is_initialised_as_a_new_network_is(tmp_path, dtype):
    report = run(tmp_path, dtype=dtype)
    assert torch.get_default_dtype() == torch.float32
    assert set(report.fresh) == set(report.parameters)
    run(tmp_path, out="again", dtype=dtype)
    converted, again = (load_file(tmp_path / name / checkpoint.WEIGHTS) for name in ("out", "again"))
    torch.manual_seed(1)
    new = DepthVLA(C).state_dict()
    assert converted.keys() == new.keys()
    for name, tensor in converted.items():
        assert tensor.dtype == getattr(torch, dtype), name
        assert torch.equal(tensor, again[name])
        assert tensor.shape == new[name].shape
        if len(tensor.unique()) <= 1 or len(new[name].unique()) <= 1:  # zeros and ones
            assert torch.equal(tensor.float(), new[name]), name
        elif tensor.numel() > 300:
            assert tensor.float().std() == pytest.approx(new[name].std(), rel=0.25), name
            assert tensor.float().abs().max() < 6 * new[name].std(), name


def test_another_seed_gives_other_new_weights(tmp_path):
    run(tmp_path)
    run(tmp_path, out="other", seed=1)
    one, other = (load_file(tmp_path / name / checkpoint.WEIGHTS)["depth_head.weight"] for name in ("out", "other"))
    assert not torch.equal(one, other)


def test_bfloat16_is_rounded_once_from_float32(tmp_path):
    case = CASES["Depth Anything, .pth"]
    halves = {name: tensor.bfloat16() for name, tensor in case.weights.items()}
    run(tmp_path, dtype="bfloat16", depth_encoder=published.write(halves, tmp_path / "encoder.pt"))
    run(
        tmp_path,
        out="exact",
        depth_encoder=published.write({k: v.float() for k, v in halves.items()}, tmp_path / "f.pth"),
    )
    one, exact = (load_file(tmp_path / name / checkpoint.WEIGHTS) for name in ("out", "exact"))
    assert all(tensor.dtype == torch.bfloat16 for tensor in one.values())
    assert torch.equal(one[layouts.DEPTH_POSITIONS], exact[layouts.DEPTH_POSITIONS].bfloat16())


def test_without_statistics_or_tokenizer_the_report_says_what_is_needed(tmp_path):
    report = run(tmp_path)
    assert "norm_stats.json" in str(report)
    assert "tokenizer.json" in str(report)
    with pytest.raises(FileNotFoundError, match="norm_stats.json"):
        Policy.load(tmp_path / "out")


def test_with_statistics_and_tokenizer_the_folder_runs(tmp_path):
    trained = tiny_model.save_checkpoint(tmp_path / "trained")
    source = published.write(CASES["PaliGemma, hub"].weights, tmp_path / "vlm")
    train_tokenizer(["lift"], C.vocab_size).save(str(source / checkpoint.TOKENIZER))
    report = run(tmp_path, vlm=source, norm_stats=trained / checkpoint.STATS, made_for=("real",))
    assert checkpoint.CheckpointConfig.read(tmp_path / "out").policy.made_for == ("real",)
    assert not report.needed
    policy = Policy.load(tmp_path / "out")
    assert np.isfinite(policy.stats.action_std).all()
    assert policy.model_id.startswith("out@")


def test_statistics_of_another_shape_are_refused(tmp_path):
    stats = tiny_model.save_checkpoint(tmp_path / "trained") / checkpoint.STATS
    with pytest.raises(ValueError, match=r"norm_stats.json: actions.mean has shape \(16, 14\), not \(8, 14\)"):
        run(tmp_path, dataclasses.replace(C, horizon=8), norm_stats=stats)


def test_an_index_that_lies_is_an_error(tmp_path):
    source = published.write(CASES["DINOv2, new"].weights, tmp_path / "dino", shards=2)
    index = source / "model.safetensors.index.json"
    files = json.loads(index.read_text())
    index.write_text(json.dumps({"weight_map": {**files["weight_map"], "ghost": "model-00001-of-00002.safetensors"}}))
    with pytest.raises(ValueError, match="model-00001-of-00002.safetensors holds 'ghost', which it does not"):
        run(tmp_path, depth_encoder=source)
    index.write_text(json.dumps({"weight_map": {**files["weight_map"], "ghost": "gone.safetensors"}}))
    with pytest.raises(FileNotFoundError, match="gone.safetensors"):
        run(tmp_path, depth_encoder=source)


def test_a_tensor_that_no_index_names_is_still_accounted_for(tmp_path):
    source = published.write({**CASES["DINOv2, new"].weights, "stray": torch.ones(1)}, tmp_path / "dino", shards=2)
    index = source / "model.safetensors.index.json"
    files = json.loads(index.read_text())["weight_map"]
    index.write_text(json.dumps({"weight_map": {name: files[name] for name in files if name != "stray"}}))
    with pytest.raises(ValueError, match="1 unknown: stray"):
        run(tmp_path, depth_encoder=source)


def test_a_source_that_is_no_checkpoint_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere does not exist"):
        run(tmp_path, vlm=tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="0 files"):
        run(tmp_path, vlm=tmp_path / "empty")
    with pytest.raises(ValueError, match="config.json is no checkpoint; allowed: .safetensors"):
        run(tmp_path, vlm=tmp_path / "config.json")
    source = published.write({"weight": torch.ones(1)}, tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match="PaliGemma, names of the hub"):
        run(tmp_path, vlm=source)
    torch.save({"step": 3}, tmp_path / "state.pth")
    with pytest.raises(ValueError, match="does not hold a dictionary of tensors"):
        run(tmp_path, vlm=tmp_path / "state.pth")


def test_quantised_weights_are_refused_by_name(tmp_path):
    case = CASES["DINOv2, new"]
    weights = {**case.weights, case.sample: case.weights[case.sample].to(torch.int8)}
    with pytest.raises(ValueError, match="encoder.layer.1.norm1.weight' holds torch.int8"):
        run(tmp_path, depth_encoder=published.write(weights, tmp_path / "dino"))


def test_a_checkpoint_is_not_overwritten(tmp_path):
    run(tmp_path)
    with pytest.raises(ValueError, match="out holds a checkpoint already"):
        run(tmp_path)


def test_a_network_with_depth_has_no_transformers_layout(tmp_path):
    with pytest.raises(ValueError, match="depth must be null"):
        export(tiny_model.save_checkpoint(tmp_path / "depth"), tmp_path / "out")


def command(monkeypatch, *arguments) -> None:
    monkeypatch.setattr(sys, "argv", ["convert", *map(str, arguments)])
    main()


def test_the_command_says_where_every_part_came_from(tmp_path, monkeypatch, capsys):
    run(tmp_path)  # writes config.json
    source = published.write(CASES["pi0, openpi"].weights, tmp_path / "pi0.safetensors")
    arguments = ("--config", tmp_path / "config.json", "--pi0", source, "--out")
    command(monkeypatch, *arguments, tmp_path / "new")
    printed = capsys.readouterr().out
    assert "--pi0: pi0, names of openpi" in printed
    assert "depth_decoder  new, at random" in printed
    assert "unused: 1 of --pi0 (the action expert reads no tokens)" in printed
    with pytest.raises(SystemExit, match="error: .*out holds a checkpoint already"):
        command(monkeypatch, *arguments, tmp_path / "out")
    with pytest.raises(SystemExit, match="error: --config is missing"):
        command(monkeypatch, "--out", tmp_path / "another")


def test_the_command_exports(tmp_path, monkeypatch):
    folder = tiny_model.save_checkpoint(tmp_path / "pi0", tiny_model.PI0)
    command(monkeypatch, "--to-transformers", folder, "--out", tmp_path / "exported")
    assert json.loads((tmp_path / "exported" / "config.json").read_text())["model_type"] == "pi0"
    assert "model.dit.norm.weight" in load_file(tmp_path / "exported" / "model.safetensors")


POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:" + "5e" * 32 + "\nsize 11700000\n"


@pytest.mark.parametrize("name", ["model.safetensors", "encoder.pth", "encoder.pt", "model.safetensors.index.json"])
@pytest.mark.parametrize("content", [POINTER, "", "<html>", "no tensors in here"])
def test_a_source_that_cannot_be_read_is_one_line_with_its_name(tmp_path, name, content):
    (tmp_path / name).write_text(content)
    with pytest.raises(ValueError, match=rf"{name}: .*wanted: ") as refused:
        run(tmp_path, depth_encoder=tmp_path / name)
    assert "\n" not in str(refused.value) and (content != POINTER or "git lfs pull" in str(refused.value))


@pytest.mark.parametrize("name", ["model.safetensors", "encoder.pth"])
def test_a_source_that_was_cut_off_is_named(tmp_path, name):
    weights = CASES["Depth Anything, .pth"].weights
    path = tmp_path / name
    save_file(weights, path) if path.suffix == ".safetensors" else torch.save(weights, path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(ValueError, match=rf"{name}: .*wanted: a file of tensors"):
        run(tmp_path, depth_encoder=path)


ACCEPTED = {
    "under model, beside an optimiser": lambda w: {
        "model": w,
        "optimizer": {"state": {}, "param_groups": []},
        "epoch": 3,
    },
    "under state_dict, beside a scaler": lambda w: {"state_dict": w, "scaler": {"scale": torch.ones(1)}},
    "under a name of its own": lambda w: {"encoder": w, "step": 1},
    "of DistributedDataParallel": lambda w: published.under(w, "module."),
    "of both, under model": lambda w: {"model": published.under(w, "module.")},
    "compiled": lambda w: published.under(w, "_orig_mod."),
    "compiled and distributed": lambda w: published.under(w, "_orig_mod.module."),
}


@pytest.mark.parametrize("kind", ACCEPTED)
def test_weights_are_found_in_what_training_scripts_save(tmp_path, kind):
    weights = CASES["Depth Anything, .pth"].weights
    torch.save(weights, tmp_path / "plain.pth")
    torch.save(ACCEPTED[kind](weights), tmp_path / "latest.pth")
    for name in ("plain", "latest"):
        run(tmp_path, out=name, depth_encoder=tmp_path / f"{name}.pth")
    plain, latest = (load_file(tmp_path / name / "model.safetensors") for name in ("plain", "latest"))
    assert all(torch.equal(plain[name], latest[name]) for name in plain)


class Run:
    """What a training script might pickle beside the weights."""


@pytest.mark.parametrize(
    ("contents", "message"),
    [
        (lambda w: {"model": w, "ema": published.under(w, "module.")}, "several dictionaries of tensors, model, ema"),
        (lambda w: {"generator": w, "critic": w}, "several dictionaries of tensors, generator, critic"),
        (lambda w: {"model": w, "args": Run()}, r"objects of .*Run, which are not loaded: save its tensors alone"),
        (lambda w: {"epoch": 3, "loss": [0.1]}, "does not hold a dictionary of tensors, .* 'epoch': int, 'loss': list"),
        (lambda w: {**w, "epoch": 3}, "does not hold a dictionary of tensors"),
        (lambda w: [*w.values()], "does not hold a dictionary of tensors, but list"),
        (lambda w: {}, "does not hold a dictionary of tensors, .* nothing"),
    ],
)
def test_what_is_ambiguous_or_unsafe_is_refused(tmp_path, contents, message):
    torch.save(contents(CASES["Depth Anything, .pth"].weights), tmp_path / "latest.pth")
    with pytest.raises(ValueError, match=rf"latest\.pth.*{message}"):
        run(tmp_path, depth_encoder=tmp_path / "latest.pth")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused_by_name(tmp_path, value):
    weights = {name: tensor.clone() for name, tensor in CASES["Depth Anything, .pth"].weights.items()}
    name = next(name for name in weights if name.endswith("mlp.fc1.weight"))
    weights[name][1, 1] = value
    torch.save(weights, tmp_path / "broken.pth")
    with pytest.raises(ValueError, match=rf"--depth-encoder .*broken\.pth: '{name}' is not finite"):
        run(tmp_path, depth_encoder=tmp_path / "broken.pth")
    assert not (tmp_path / "out/model.safetensors").exists()
