"""The engine gives the numbers of the plain network, whatever is missing, padded or asked for."""

from __future__ import annotations

import copy
import dataclasses

import pytest
import tiny_model
import torch

from depthvla_policy.model.config import EncoderConfig
from depthvla_policy.policy.engine import Engine
from depthvla_policy.policy.engine.fold import fold
from depthvla_policy.policy.engine.linear import MIN_PACKED, FusedLinear

CONFIG = tiny_model.CONFIG
TOLERANCE = {"rtol": 1e-4, "atol": 1e-4}
NETWORKS = {
    "depthvla": CONFIG,
    "depth of all cameras": tiny_model.ALL_CAMERAS,
    "pi0": tiny_model.PI0,
    "two key/value heads": dataclasses.replace(CONFIG, kv_heads=2),
    "true depth": dataclasses.replace(CONFIG, depth=dataclasses.replace(CONFIG.depth, input="ground_truth")),
    "wide enough to pack": dataclasses.replace(
        CONFIG, image_size=96, vision=EncoderConfig(64, 2, 2, 256), max_text_tokens=24
    ),
}


def observation(config, **changes):
    inputs = tiny_model.inputs(config, batch=1)
    if config.takes_depth:
        size = (1, config.cameras, config.image_size, config.image_size)
        changes["depth_m"] = torch.rand(size, generator=torch.Generator().manual_seed(3)) + 0.2
    return dataclasses.replace(inputs, **changes)


def with_scales(network):
    """Norms and layer scales that are not one, so that folding them has something to do."""
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if "norm" in name or "lambda" in name:
                parameter.copy_(torch.rand(parameter.shape, generator=generator) + 0.3)
    return network


def both(config, inputs, *, depth=False, **engine):
    """Chunk and depth of the plain network and of the engine."""
    network = with_scales(tiny_model.model(config))
    noise = tiny_model.actions(config, batch=1)
    plain = copy.deepcopy(network).sample(inputs, noise, depth=depth)
    return plain, Engine(network, **engine).sample(inputs, noise, depth=depth)


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("bucket", [1, 8])
def test_the_engine_samples_the_chunk_of_the_plain_network(name, bucket):
    (plain, _), (chunk, depth) = both(NETWORKS[name], observation(NETWORKS[name]), text_bucket=bucket)
    torch.testing.assert_close(chunk, plain, **TOLERANCE)
    assert depth is None


@pytest.mark.parametrize("config", [CONFIG, tiny_model.ALL_CAMERAS])
def test_depth_is_that_of_the_plain_network(config):
    (plain, plain_depth), (chunk, depth) = both(config, observation(config), depth=True)
    torch.testing.assert_close(depth, plain_depth, **TOLERANCE)
    torch.testing.assert_close(chunk, plain, **TOLERANCE)


@pytest.mark.parametrize("there", [(True, False, True), (False, False, True)])
def test_a_missing_camera_is_skipped_and_changes_nothing(there):
    (plain, plain_depth), (chunk, depth) = both(
        CONFIG, observation(CONFIG, image_mask=torch.tensor([there])), depth=True
    )
    torch.testing.assert_close(chunk, plain, **TOLERANCE)
    torch.testing.assert_close(depth, plain_depth[:, torch.tensor(there)], **TOLERANCE)


@pytest.mark.parametrize("length", [1, 8, 9, 20])
def test_every_length_of_text_fits_its_bucket(length):
    mask = torch.arange(CONFIG.max_text_tokens)[None] < length
    (plain, _), (chunk, _) = both(CONFIG, observation(CONFIG, text_mask=mask), text_bucket=8)
    torch.testing.assert_close(chunk, plain, **TOLERANCE)


def test_one_engine_serves_changing_observations():
    """Nothing of an earlier observation stays in the buffers."""
    network = with_scales(tiny_model.model())
    plain, engine = copy.deepcopy(network), Engine(network, text_bucket=8)
    noise = tiny_model.actions(batch=1)
    first = observation(CONFIG)
    for length, camera in ((5, True), (3, True), (7, False), (5, True), (16, True)):
        inputs = dataclasses.replace(
            first,
            images=first.images * (0.5 + 0.05 * length),
            state=first.state * length,
            text_mask=torch.arange(CONFIG.max_text_tokens)[None] < length,
            image_mask=torch.tensor([[True, camera, True]]),
        )
        torch.testing.assert_close(engine.sample(inputs, noise)[0], plain.sample(inputs, noise)[0], **TOLERANCE)


def test_a_chunk_is_not_overwritten_by_the_next():
    engine = Engine(tiny_model.model())
    noise = tiny_model.actions(batch=1)
    first, _ = engine.sample(observation(CONFIG), noise)
    kept = first.clone()
    engine.sample(observation(CONFIG), -noise)
    torch.testing.assert_close(first, kept, rtol=0, atol=0)


def test_a_folded_network_still_works_and_is_no_larger():
    network = with_scales(tiny_model.model())
    inputs, noise = observation(CONFIG), tiny_model.actions(batch=1)
    before = network.sample(inputs, noise, depth=True)
    fold(network)
    for wanted, got in zip(before, network.sample(inputs, noise, depth=True), strict=True):
        torch.testing.assert_close(got, wanted, **TOLERANCE)
    fold(network)
    for wanted, got in zip(before, network.sample(inputs, noise, depth=True), strict=True):
        torch.testing.assert_close(got, wanted, **TOLERANCE)
    storages = {p.untyped_storage().data_ptr(): p.untyped_storage().nbytes() for p in network.parameters()}
    assert sum(storages.values()) == 4 * sum(p.numel() for p in network.parameters())


def test_bfloat16_is_as_near_to_float32_as_the_plain_network():
    exact = with_scales(tiny_model.model())
    inputs, noise = observation(CONFIG), tiny_model.actions(batch=1)
    wanted, _ = exact.sample(inputs, noise)
    half = copy.deepcopy(exact).bfloat16()
    halved = dataclasses.replace(inputs, images=inputs.images.bfloat16(), state=inputs.state.bfloat16())
    plain, _ = half.sample(halved, noise)
    chunk, _ = Engine(half).sample(halved, noise)
    assert (chunk - wanted).abs().mean() <= 1.5 * (plain - wanted).abs().mean() + 1e-3


def test_what_the_engine_cannot_run_is_named():
    joint = dataclasses.replace(CONFIG, prefix_attention="joint")
    assert not Engine.can_run(tiny_model.model(joint))
    with pytest.raises(ValueError, match="'joint'"):
        Engine(tiny_model.model(joint))
    engine = Engine(tiny_model.model())
    with pytest.raises(ValueError, match="batch is 2"):
        engine.sample(tiny_model.inputs(), tiny_model.actions())
    with pytest.raises(ValueError, match="no camera"):
        engine.sample(observation(CONFIG, image_mask=torch.zeros(1, 3, dtype=torch.bool)), tiny_model.actions(batch=1))


@pytest.mark.parametrize("rows", [4, MIN_PACKED // 32])
@pytest.mark.parametrize("activation", ["none", "gelu", "gelu_tanh"])
@pytest.mark.parametrize("biased", [True, False])
def test_a_packed_layer_is_the_plain_one(rows, activation, biased):
    generator = torch.Generator().manual_seed(0)
    weight, x = (torch.randn(size, generator=generator) for size in ((32, 48), (rows, 48)))
    bias = torch.randn(32, generator=generator) if biased else None
    residual = torch.randn(rows, 32, generator=generator)
    plain = torch.nn.functional.linear(x, weight, bias)
    layer = FusedLinear(weight, bias, rows=rows, activation=activation)
    approximate = {"gelu": "none", "gelu_tanh": "tanh"}.get(activation)
    wanted = torch.nn.functional.gelu(plain, approximate=approximate) if approximate else plain
    torch.testing.assert_close(layer(x), wanted, **TOLERANCE)
    torch.testing.assert_close(FusedLinear(weight, bias, rows=rows).add(x, residual), residual + plain, **TOLERANCE)
