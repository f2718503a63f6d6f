"""The network gives the numbers of the models whose weights it takes, float32 and random, imported by `convert`."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import published
import pytest
import tiny_model
import torch
from tokenizers import AddedToken, Tokenizer, models, normalizers, pre_tokenizers, trainers
from torch import Tensor
from transformers import PaliGemmaProcessor, PI0ForConditionalGeneration, PreTrainedTokenizerFast
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

from depthvla_policy.conversion.to_transformers import export
from depthvla_policy.convert import ConvertConfig, convert
from depthvla_policy.model.config import DepthConfig, EncoderConfig, ExpertConfig, ModelConfig
from depthvla_policy.model.depthvla import DepthVLA, Inputs
from depthvla_policy.policy import checkpoint
from depthvla_policy.policy.prompt import Prompt

C = tiny_model.PI0
TOLERANCE = 1e-4


@pytest.fixture(scope="module")
def reference() -> PI0ForConditionalGeneration:
    return published.pi0(C)


@pytest.fixture(scope="module")
def imported(reference, tmp_path_factory) -> DepthVLA:
    """The same weights through a file that transformers wrote."""
    folder = tmp_path_factory.mktemp("pi0")
    reference.save_pretrained(folder / "published")
    return converted(folder, C, pi0=folder / "published")


def converted(folder: Path, config: ModelConfig, **sources: Path) -> DepthVLA:
    (folder / "dimensions.json").write_text(json.dumps(dataclasses.asdict(config)))
    convert(ConvertConfig(out=folder / "out", config=folder / "dimensions.json", dtype="float32", **sources))
    return checkpoint.load_model(folder / "out", config, "cpu", torch.float32)


def observations(missing: tuple[tuple[int, int], ...] = ()) -> Inputs:
    """Two observations with prompts of different length; `missing` lists (observation, camera) that are not there."""
    inputs = tiny_model.inputs(C)
    assert inputs.text_mask.sum(1).unique().numel() == 2, "the prompts must be padded differently"
    if not missing:
        return inputs
    mask = torch.ones(inputs.images.shape[:2], dtype=torch.bool)
    mask[tuple(zip(*missing, strict=True))] = False
    return dataclasses.replace(inputs, image_mask=mask)


def as_transformers(inputs: Inputs) -> dict[str, Tensor]:
    """What transformers' PI0Processor makes of an observation: tokens of a missing camera are not there at all."""
    batch, cameras = inputs.images.shape[:2]
    there = inputs.image_mask if inputs.image_mask is not None else torch.ones(batch, cameras, dtype=torch.bool)
    rows = []
    for i in range(batch):
        image = [C.vocab_size] * int(there[i].sum()) * C.grid**2
        rows.append(image + inputs.text[i][inputs.text_mask[i]].tolist())
    longest = max(len(row) for row in rows)
    return {
        "input_ids": torch.tensor([row + [0] * (longest - len(row)) for row in rows]),
        "attention_mask": torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in rows]),
        "pixel_values": inputs.images * 2.0 - 1.0,
        "pixel_attention_mask": there,
        "state": inputs.state,
    }


BOTH = pytest.mark.parametrize(
    "missing", [(), ((0, 1),), ((0, 0), (1, 2))], ids=["all cameras", "one less", "two less"]
)


@BOTH
@pytest.mark.parametrize("tau", [0.0, 0.35, 0.95])
@torch.no_grad()
def test_velocity_is_that_of_transformers_pi0(reference, imported, missing, tau):
    inputs, noise = observations(missing), tiny_model.actions(C)
    ours = imported.velocity(imported.prefix(inputs), noise, torch.full((2,), tau))
    # pi0's time runs the other way, and so does its velocity.
    theirs = -reference(**as_transformers(inputs), noise=noise, timestep=torch.full((2,), 1.0 - tau)).logits
    assert theirs.std() > 0.1
    torch.testing.assert_close(ours, theirs, atol=TOLERANCE, rtol=0)


@BOTH
def test_sampled_actions_are_those_of_transformers_pi0(reference, imported, missing):
    inputs, noise = observations(missing), tiny_model.actions(C)
    ours, _ = imported.sample(inputs, noise)
    theirs = reference.sample_actions(**as_transformers(inputs), noise=noise.clone())
    assert (theirs - noise).std() > 0.1
    torch.testing.assert_close(ours, theirs, atol=TOLERANCE, rtol=0)


@torch.no_grad()
def test_each_input_matters_in_the_comparison(reference):
    inputs, noise, half = observations(), tiny_model.actions(C), torch.full((2,), 0.5)
    base = reference(**as_transformers(inputs), noise=noise, timestep=half).logits
    for change in (
        {"images": inputs.images.flip(1)},
        {"text": (inputs.text + 1) % C.vocab_size},
        {"text_mask": inputs.text_mask.flip(0)},
        {"state": -inputs.state},
        {"image_mask": torch.tensor([[True, False, True]] * 2)},
    ):
        other = reference(**as_transformers(dataclasses.replace(inputs, **change)), noise=noise, timestep=half).logits
        assert (other - base).abs().max() > 100 * TOLERANCE, list(change)


def test_export_is_what_transformers_loads_and_gives_the_same_actions(reference, imported, tmp_path):
    converted(tmp_path, C, pi0=published.write(published.tensors(reference), tmp_path / "published"))
    export(tmp_path / "out", tmp_path / "exported")
    model, info = PI0ForConditionalGeneration.from_pretrained(tmp_path / "exported", output_loading_info=True)
    assert not any(info.values()), info
    inputs, noise = observations(((0, 1),)), tiny_model.actions(C)
    exported = model.eval().sample_actions(**as_transformers(inputs), noise=noise.clone())
    original = reference.sample_actions(**as_transformers(inputs), noise=noise.clone())
    assert torch.equal(exported, original)
    ours, _ = imported.sample(inputs, noise)
    torch.testing.assert_close(ours, exported, atol=TOLERANCE, rtol=0)


def test_export_and_import_give_back_the_same_weights(tmp_path):
    folder = tiny_model.save_checkpoint(tmp_path / "ours", C)
    export(folder, tmp_path / "exported")
    model = converted(tmp_path, C, pi0=tmp_path / "exported")
    expected = tiny_model.model(C).state_dict()
    assert model.state_dict().keys() == expected.keys()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in model.state_dict().items())


@torch.no_grad()
def test_prefix_is_that_of_transformers_paligemma(tmp_path):
    reference = published.paligemma(C, extra_rows=64)
    reference.save_pretrained(tmp_path / "published")
    ours = converted(tmp_path, C, vlm=tmp_path / "published")
    inputs = tiny_model.inputs(C)
    tokens = torch.full((2, C.image_tokens), reference.config.image_token_id)
    mask = torch.cat([torch.ones_like(tokens), inputs.text_mask.long()], dim=1)
    theirs = reference.model(
        input_ids=torch.cat([tokens, inputs.text], dim=1),
        pixel_values=(inputs.images * 2.0 - 1.0).flatten(0, 1),
        attention_mask=mask,
        position_ids=mask.cumsum(1) - 1,
        token_type_ids=torch.zeros_like(mask),  # the whole prompt is prefix
    ).last_hidden_state
    real = mask.bool()
    assert theirs[real].std() > 0.1
    torch.testing.assert_close(ours.prefix(inputs, vlm=True).vlm[real], theirs[real], atol=TOLERANCE, rtol=0)


# DINOv2 at 224 pixels: a grid of 37 resampled to 16, as Depth Anything's backbone does at run time.
AT_224 = dataclasses.replace(
    C, image_size=224, patch_size=14, depth=DepthConfig(EncoderConfig(20, 3, 2, 80), ExpertConfig(20, 36), 2)
)


@pytest.mark.parametrize("write", ["current names", "names of save_pretrained", "original names"])
@torch.no_grad()
def test_depth_encoder_is_depth_anythings_backbone_at_224(write, tmp_path):
    reference = published.depth_anything(AT_224)
    weights, source = published.tensors(reference), tmp_path / "published"
    if write == "current names":
        published.write(weights, source)
    elif write == "names of save_pretrained":
        reference.save_pretrained(source)
    else:
        original = published.original_dinov2(published.only(weights, "backbone."))
        source = published.write(published.under(original, "pretrained."), tmp_path / "published.pth")
    ours = converted(tmp_path, AT_224, depth_encoder=source)
    images = torch.rand(2, 3, 224, 224, generator=torch.Generator().manual_seed(4))
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    pixels = (images - mean.view(3, 1, 1)) / std.view(3, 1, 1)
    theirs = reference.backbone(pixels).feature_maps[-1][:, 1:]
    assert theirs.shape == (2, 256, 20)
    assert theirs.std() > 0.1
    torch.testing.assert_close(ours.depth_encoder(images), theirs, atol=TOLERANCE, rtol=0)


@pytest.fixture(scope="module")
def gemma_tokenizer() -> Tokenizer:
    """A small tokenizer made as Gemma's is: spaces become U+2581, bytes as a last resort, line ends are pieces."""
    bytes_ = [f"<0x{i:02X}>" for i in range(256)]
    trainer = trainers.BpeTrainer(vocab_size=420, special_tokens=["<pad>", "<eos>", "<bos>", "<unk>", *bytes_, "\n"])
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    tokenizer.normalizer = normalizers.Replace(" ", "\u2581")
    tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    tokenizer.train_from_iterator(["lift the red block with the right arm", "stack the blocks, then wait"], trainer)
    # Training makes every special token match anywhere; in Gemma only these do.
    settings = json.loads(tokenizer.to_str())
    settings["added_tokens"] = [
        t for t in settings["added_tokens"] if t["content"] in ("<pad>", "<eos>", "<bos>", "<unk>")
    ]
    return Tokenizer.from_str(json.dumps(settings))


@pytest.mark.parametrize(
    ("instruction", "text"),
    [
        ("lift the red block with the right arm", "lift the red block with the right arm"),
        ("  stack_the_blocks \n", "stack the blocks"),
        ("wait\nthen stack", "wait then stack"),
        ("hebe den roten Würfel", "hebe den roten Würfel"),
        ("two  spaces", "two  spaces"),
    ],
)
def test_prompt_is_tokenised_as_paligemmas_processor_does(gemma_tokenizer, instruction, text):
    fast = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(gemma_tokenizer.to_str()),
        bos_token="<bos>",
        eos_token="<eos>",
        pad_token="<pad>",
        unk_token="<unk>",
        padding_side="right",
    )
    fast.add_special_tokens({"additional_special_tokens": [AddedToken("<image>", normalized=False, special=True)]})
    image_processor = SiglipImageProcessorPil(size={"height": 28, "width": 28})
    image_processor.image_seq_length = 4
    processor = PaliGemmaProcessor(image_processor, fast)
    image = torch.zeros(3, 28, 28, dtype=torch.uint8)
    made = processor(images=[image], text=["<image>" + text], padding="max_length", max_length=4 + 64)
    theirs, attended = made["input_ids"][0], made["attention_mask"][0]
    assert theirs[:4] == [fast.convert_tokens_to_ids("<image>")] * 4
    ids, mask = Prompt(gemma_tokenizer, 64).encode(instruction)
    assert ids.tolist() == theirs[4:]
    assert mask.tolist() == [bool(value) for value in attended[4:]]
    assert ids[0] == gemma_tokenizer.token_to_id("<bos>")
    assert ids[mask][-1] == gemma_tokenizer.token_to_id("\n")
    assert gemma_tokenizer.token_to_id("<unk>") not in ids


def test_a_special_token_in_an_instruction_is_plain_text(gemma_tokenizer):
    tokenizer = Tokenizer.from_str(gemma_tokenizer.to_str())
    tokenizer.add_special_tokens(["<image>"])  # PaliGemma's is the first id beyond the embedding
    ids, mask = Prompt(tokenizer, 64).encode("lift <image> <bos>")
    assert tokenizer.token_to_id("<image>") not in ids
    assert (ids == tokenizer.token_to_id("<bos>")).sum() == 1
    spelled = "".join(map(tokenizer.id_to_token, ids[mask][1:]))
    assert spelled.replace("<0x3C>", "<").replace("<0x3E>", ">") == "lift\u2581<image>\u2581<bos>\n"
