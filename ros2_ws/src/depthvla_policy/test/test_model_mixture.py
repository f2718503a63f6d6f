"""The network: who sees whom, cached against uncached, integration, and the losses."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import pytest
import tiny_model
import torch

from depthvla_policy.model import config as model_config
from depthvla_policy.model import flow
from depthvla_policy.model.depthvla import DepthVLA
from depthvla_policy.model.losses import flow_matching, si_log
from depthvla_policy.model.mixture import attend

CONFIGS = {
    "depthvla": tiny_model.CONFIG,
    "depth of all cameras": tiny_model.ALL_CAMERAS,
    "pi0": tiny_model.PI0,
    "joint": dataclasses.replace(tiny_model.CONFIG, prefix_attention="joint"),
}
TAU = torch.tensor([0.1, 0.7])


def changed(inputs, **fields):
    return dataclasses.replace(inputs, **fields)


@pytest.mark.parametrize("name", CONFIGS)
def test_cached_velocity_equals_the_joint_pass(name):
    config = CONFIGS[name]
    model, inputs, actions = tiny_model.model(config), tiny_model.inputs(config), tiny_model.actions(config)
    with torch.no_grad():
        wanted, wanted_depth = model.joint_velocity(inputs, actions, TAU)
        prefix = model.prefix(inputs, depth=config.depth is not None)
        velocity = model.velocity(prefix, actions, TAU)
    assert velocity.std() > 0.1
    torch.testing.assert_close(velocity, wanted, atol=1e-5, rtol=1e-5)
    if config.depth:
        torch.testing.assert_close(prefix.log_depth, wanted_depth, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", CONFIGS)
def test_cached_sampling_equals_joint_sampling(name):
    config = CONFIGS[name]
    model, inputs, noise = tiny_model.model(config), tiny_model.inputs(config), tiny_model.actions(config)
    with torch.no_grad():
        chunk, _ = model.sample(inputs, noise)
        wanted = flow.integrate(lambda x, tau: model.joint_velocity(inputs, x, tau)[0], noise, config.euler_steps)
    torch.testing.assert_close(chunk, wanted, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("config", [tiny_model.CONFIG, tiny_model.ALL_CAMERAS])
def test_a_missing_camera_is_the_same_cached_and_joint(config):
    model, actions = tiny_model.model(config), tiny_model.actions()
    inputs = changed(tiny_model.inputs(), image_mask=torch.tensor([[True, False, True], [True, True, True]]))
    with torch.no_grad():
        wanted, _ = model.joint_velocity(inputs, actions, TAU)
        velocity = model.velocity(model.prefix(inputs), actions, TAU)
    torch.testing.assert_close(velocity, wanted, atol=1e-5, rtol=1e-5)


def test_pixels_of_a_missing_camera_change_nothing():
    model, actions, inputs = tiny_model.model(), tiny_model.actions(), tiny_model.inputs()
    masked = changed(inputs, image_mask=torch.tensor([[True, False, True]] * 2))
    other = inputs.images.clone()
    other[:, 1] = 1.0 - other[:, 1]
    with torch.no_grad():
        before = model.velocity(model.prefix(masked), actions, TAU)
        after = model.velocity(model.prefix(changed(masked, images=other)), actions, TAU)
    torch.testing.assert_close(before, after)


def test_padding_of_the_text_changes_nothing():
    model, actions, inputs = tiny_model.model(), tiny_model.actions(), tiny_model.inputs()
    text = torch.where(inputs.text_mask, inputs.text, 7)
    with torch.no_grad():
        before = model.velocity(model.prefix(inputs), actions, TAU)
        after = model.velocity(model.prefix(changed(inputs, text=text)), actions, TAU)
    torch.testing.assert_close(before, after)


def test_actions_feel_images_text_state_and_each_other():
    model, actions, inputs = tiny_model.model(), tiny_model.actions(), tiny_model.inputs()
    text = inputs.text.clone()
    text[:, 0] = (text[:, 0] + 1) % tiny_model.CONFIG.vocab_size
    moved = actions.clone()
    moved[:, -1] += 1.0
    with torch.no_grad():
        base = model.velocity(model.prefix(inputs), actions, TAU)
        for name, other in {
            "images": changed(inputs, images=inputs.images.flip(1)),
            "text": changed(inputs, text=text),
            "state": changed(inputs, state=inputs.state + 1.0),
        }.items():
            assert (model.velocity(model.prefix(other), actions, TAU) - base).abs().max() > 1e-4, name
        assert (model.velocity(model.prefix(inputs), moved, TAU) - base)[:, 0].abs().max() > 1e-4


@pytest.mark.parametrize("name", ["depthvla", "joint"])
def test_a_change_reaches_the_streams_that_see_it_and_no_other(name):
    """Keys and values of every layer in one pass over all tokens, which is the definition of the network."""
    config = CONFIGS[name]
    model, inputs, actions = tiny_model.model(config), tiny_model.inputs(config), tiny_model.actions(config)
    widths = [config.image_tokens + config.max_text_tokens, config.image_tokens, 1, config.horizon]

    @torch.no_grad()
    def run(inputs, actions):
        caches = []
        hook = model.mixture.register_forward_hook(lambda module, given, made: caches.append(made[1]))
        velocity, _ = model.joint_velocity(inputs, actions, TAU)
        hook.remove()
        tokens = torch.stack([torch.cat(layer, dim=-1) for layer in caches[0]]).split(widths, dim=3)
        return {**dict(zip(("vlm", "depth", "state", "action"), tokens, strict=True)), "velocity": velocity}

    base = run(inputs, actions)
    others = {
        "actions": run(inputs, actions + 1.0),
        "state": run(changed(inputs, state=inputs.state + 1.0), actions),
        "text": run(changed(inputs, text=(inputs.text + 5) % config.vocab_size), actions),
    }
    model.depth_encoder.mean += 0.5
    others["depth encoder"] = run(inputs, actions)
    both = {"vlm", "depth"} if name == "joint" else set()
    reached = {
        "actions": {"action", "velocity"},
        "state": {"state", "action", "velocity"},
        "text": {"vlm", "state", "action", "velocity"} | both,
        "depth encoder": {"depth", "state", "action", "velocity"} | both,
    }
    for what, other in others.items():
        distance = {stream: (other[stream] - base[stream]).abs().max().item() for stream in base}
        assert all(value > 1e-4 if stream in reached[what] else value < 1e-6 for stream, value in distance.items()), (
            what,
            distance,
        )


def test_text_and_state_reach_no_depth_and_depth_reaches_no_vlm_key():
    model, inputs = tiny_model.model(), tiny_model.inputs()
    text = changed(inputs, text=(inputs.text + 5) % tiny_model.CONFIG.vocab_size, state=inputs.state + 1.0)
    vlm_tokens = tiny_model.CONFIG.image_tokens + tiny_model.CONFIG.max_text_tokens
    with torch.no_grad():
        a, b = model.prefix(inputs, depth=True), model.prefix(text, depth=True)
        model.depth_encoder.mean += 0.5
        c = model.prefix(inputs, depth=True)
    torch.testing.assert_close(a.log_depth, b.log_depth)
    assert (a.log_depth - c.log_depth).abs().max() > 1e-3
    for (k, v), (other_k, other_v) in zip(a.cache, c.cache, strict=True):
        torch.testing.assert_close(k[:, :, :vlm_tokens], other_k[:, :, :vlm_tokens])
        torch.testing.assert_close(v[:, :, :vlm_tokens], other_v[:, :, :vlm_tokens])


@pytest.mark.parametrize("name", ["depthvla", "depth of all cameras", "joint"])
def test_depth_of_a_camera_is_what_its_image_alone_gives_unless_all_see_one_another(name):
    """So an expert that was pre-trained on single images predicts in the network what it did before."""
    model, inputs = tiny_model.model(CONFIGS[name]), tiny_model.inputs()
    with torch.no_grad():
        alone = torch.cat([model.predict_depth(image[:, None]) for image in inputs.images.unbind(1)], dim=1)
        together = model.prefix(inputs, depth=True).log_depth
    same = torch.allclose(alone, together, atol=1e-5)
    assert same == (name == "depthvla"), (alone - together).abs().max()


def test_joint_prefix_attention_lets_text_reach_depth():
    config = CONFIGS["joint"]
    model, inputs = tiny_model.model(config), tiny_model.inputs(config)
    other = changed(inputs, text=(inputs.text + 5) % config.vocab_size)
    with torch.no_grad():
        difference = model.prefix(inputs, depth=True).log_depth - model.prefix(other, depth=True).log_depth
    assert difference.abs().max() > 1e-4


def test_block_mask_is_the_papers():
    config = dataclasses.replace(tiny_model.CONFIG, horizon=2)
    valid = {"vlm": torch.tensor([[True, True, False]]), "depth": torch.tensor([[True, True]])}
    mask = tiny_model.model(config).block_mask(valid)[0, 0].int().tolist()
    assert mask == [
        [1, 1, 0, 0, 0, 0, 0, 0],
        [1, 1, 0, 0, 0, 0, 0, 0],
        [1, 1, 0, 0, 0, 0, 0, 0],
        [0, 0, 0, 1, 1, 0, 0, 0],
        [0, 0, 0, 1, 1, 0, 0, 0],
        [1, 1, 0, 1, 1, 1, 0, 0],
        [1, 1, 0, 1, 1, 1, 1, 1],
        [1, 1, 0, 1, 1, 1, 1, 1],
    ]


def test_block_mask_keeps_depth_tokens_to_their_camera():
    config = tiny_model.CONFIG
    tokens, valid = config.image_tokens, torch.ones(1, config.image_tokens, dtype=torch.bool)
    depth = slice(tokens, 2 * tokens)
    found = {
        attention: tiny_model.model(c).block_mask({"vlm": valid, "depth": valid})[0, 0, depth, depth]
        for attention, c in (("camera", config), ("all", tiny_model.ALL_CAMERAS))
    }
    assert found["all"].all()
    own = torch.arange(tokens) // config.grid**2
    assert torch.equal(found["camera"], own[:, None] == own)


def test_integration_follows_a_straight_path_exactly():
    noise, target = torch.randn(2, 4, 3), torch.randn(2, 4, 3)
    torch.testing.assert_close(flow.integrate(lambda x, tau: target - noise, noise, 10), target)


def test_path_runs_from_noise_at_0_to_action_at_1():
    action, noise = torch.randn(2, 4, 3), torch.randn(2, 4, 3)
    x, velocity = flow.interpolate(action, noise, torch.tensor([0.0, 1.0]))
    torch.testing.assert_close(x, torch.stack([noise[0], action[1]]))
    torch.testing.assert_close(velocity, action - noise)


def test_training_times_follow_beta():
    tau = flow.sample_tau(200_000, torch.device("cpu"), torch.Generator().manual_seed(0))
    # t = 1 - tau ~ 0.001 + 0.999 Beta(1.5, 1), whose mean is 0.6 and whose distribution function is x^1.5.
    assert 0.0 <= tau.min() and tau.max() < 1.0
    assert math.isclose(1.0 - tau.mean().item(), 0.001 + 0.999 * 0.6, abs_tol=2e-3)
    for x in (0.2, 0.5, 0.8):
        assert math.isclose((1.0 - tau < 0.001 + 0.999 * x).float().mean().item(), x**1.5, abs_tol=4e-3)


def test_time_embedding_is_pi0s_at_one_minus_tau():
    embedding = flow.time_embedding(torch.tensor([0.25]), 8)[0]
    periods = [4e-3 * (4.0 / 4e-3) ** (i / 3) for i in range(4)]
    wanted = [f(2 * math.pi * 0.75 / period) for f in (math.sin, math.cos) for period in periods]
    torch.testing.assert_close(embedding, torch.tensor(wanted), atol=2e-4, rtol=0)


def test_si_log_by_hand():
    depth = torch.tensor([[[1.0, 2.0], [math.nan, 0.0]]])
    log_depth = torch.tensor([[[0.1, math.log(2.0) + 0.3], [9.0, 9.0]]])
    wanted = math.sqrt((0.1**2 + 0.3**2) / 2 - 0.5 * 0.2**2)
    assert math.isclose(si_log(log_depth, depth).item(), wanted, abs_tol=2e-3)


def test_si_log_of_a_perfect_map_has_a_zero_gradient():
    depth = torch.rand(2, 4, 4) + 0.5
    log_depth = depth.log().requires_grad_()
    loss = si_log(log_depth, depth)
    loss.backward()
    assert loss.item() == pytest.approx(0.0, abs=1e-6)
    assert torch.isfinite(log_depth.grad).all() and log_depth.grad.abs().max() < 1e-3


def test_si_log_without_any_valid_pixel_is_zero():
    log_depth = torch.zeros(1, 2, 2, requires_grad=True)
    loss = si_log(log_depth, torch.full((1, 2, 2), math.nan))
    loss.backward()
    assert loss.item() == 0.0 and torch.equal(log_depth.grad, torch.zeros(1, 2, 2))


def test_si_log_is_taken_per_image_and_an_image_without_depth_does_not_count():
    depth = torch.rand(3, 4, 4, generator=torch.Generator().manual_seed(0)) + 0.5
    log_depth = depth.log() + torch.tensor([1.0, -1.0, 0.0])[:, None, None]
    depth[2] = math.nan
    # A constant error of 1 is sqrt(1 - 0.5) in each image; taken together the two would cancel in the second term.
    assert si_log(log_depth, depth).item() == pytest.approx(math.sqrt(0.5), abs=2e-3)


def test_flow_loss_leaves_padding_out():
    velocity, target = torch.zeros(1, 2, 3), torch.tensor([1.0, 1.0, 100.0]).expand(1, 2, 3)
    assert flow_matching(velocity, target, torch.tensor([True, True, False])).item() == 1.0


# Counts of the published parts. PaliGemma-3B has 257216 rows of embedding and DINOv2-L positions for 518 pixels; ours
# are the 257152 rows of pi0 and positions for 224 pixels.
SIGLIP, PROJECTOR, GEMMA_2B, ROWS, WIDTH = 412_442_352, 2_361_344, 1_981_882_368 + 2048, 257_152, 2048
DINOV2_L, GEMMA_300M = 304_368_640 - (37**2 - 16**2) * 1024, 311_464_960
PROJECTIONS = 2 * (32 * 1024 + 1024) + (2048 * 1024 + 1024) + (1024 * 1024 + 1024) + (1024 * 32 + 32)
PI0_3B = SIGLIP + PROJECTOR + GEMMA_2B + ROWS * WIDTH + GEMMA_300M + PROJECTIONS
DEPTHVLA_3B = PI0_3B + DINOV2_L + GEMMA_300M + (1024 * 196 + 196)


@pytest.mark.parametrize(
    ("name", "count"),
    [("depthvla-3b", DEPTHVLA_3B), ("pi0-3b", PI0_3B), ("depthvla-small", 3_282_126), ("pi0-small", 2_082_446)],
)
def test_parameters_are_counted_to_the_digit(name, count):
    configs = Path(__file__).parents[4] / "models" / "configs"
    with torch.device("meta"):
        network = DepthVLA(model_config.read(configs / f"{name}.json"))
    assert sum(parameter.numel() for parameter in network.parameters()) == count


def test_the_full_sizes_are_the_papers():
    assert (DEPTHVLA_3B, PI0_3B) == (3_852_943_316, 3_238_048_528)
    assert DEPTHVLA_3B - PI0_3B == pytest.approx(600e6, rel=0.03)  # "600M additional parameters", paper section IV-A


def test_state_keys_do_not_change_with_the_noisy_actions_and_nothing_before_them_does():
    """The whole cache, VLM, depth and state, comes from a pass that never sees an action."""
    model, inputs = tiny_model.model(), tiny_model.inputs()
    keys = []
    forward = model.mixture.forward

    def spy(streams, mask, cache=None, **options):
        outputs, grown = forward(streams, mask, cache, **options)
        keys.append(grown[-1][0])
        return outputs, grown

    model.mixture.forward = spy
    with torch.no_grad():
        prefix = model.prefix(inputs)
        model.velocity(prefix, tiny_model.actions(), TAU)
        model.velocity(prefix, 3.0 * tiny_model.actions(), TAU)
    before, first, second = keys[-3:]
    n = before.shape[2]
    assert torch.equal(first[:, :, :n], before) and torch.equal(second[:, :, :n], before)
    assert not torch.equal(first[:, :, n:], second[:, :, n:]) and first.shape[2] == n + 16


def test_the_last_prefix_layer_computes_only_keys_and_values():
    model, inputs = tiny_model.model(), tiny_model.inputs()
    used = []
    for name in ("vlm", "depth"):
        for i, block in enumerate(model.mixture.experts[name].layers):
            block.mlp.register_forward_hook(lambda *_, name=name, i=i: used.append((name, i)))
    with torch.no_grad():
        model.prefix(inputs)
    assert used == [("vlm", 0), ("vlm", 1), ("depth", 0), ("depth", 1)]


def test_attention_in_bfloat16_with_gradients_is_that_of_float32():
    generator = torch.Generator().manual_seed(0)
    shapes = ((2, 4, 9, 8), (2, 2, 11, 8), (2, 2, 11, 8))
    half = [torch.randn(shape, generator=generator).bfloat16().requires_grad_() for shape in shapes]
    full = [x.detach().float().requires_grad_() for x in half]
    mask = torch.rand(2, 1, 9, 11, generator=generator) > 0.3
    for allowed in (mask, None):
        got, wanted = attend(*half, allowed), attend(*full, allowed)
        torch.testing.assert_close(got.float(), wanted, atol=0.02, rtol=0.02)
        pull = torch.randn(wanted.shape, generator=generator)
        gradients = torch.autograd.grad((got.float() * pull).sum(), half)
        for mine, true in zip(gradients, torch.autograd.grad((wanted * pull).sum(), full), strict=True):
            torch.testing.assert_close(mine.float(), true, atol=0.03, rtol=0.03)
