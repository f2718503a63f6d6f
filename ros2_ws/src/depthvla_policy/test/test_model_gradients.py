"""Gradients in double precision against finite differences, and who gets one."""

from __future__ import annotations

import dataclasses

import pytest
import tiny_model
import torch

from depthvla_policy.model.config import DepthConfig, EncoderConfig, ExpertConfig
from depthvla_policy.model.depthvla import DEPTH_PARTS, Inputs
from depthvla_policy.model.flow import interpolate
from depthvla_policy.model.losses import flow_matching, si_log

CONFIG = dataclasses.replace(
    tiny_model.CONFIG,
    layers=2,
    heads=2,
    head_dim=4,
    vlm=ExpertConfig(8, 8),
    action=ExpertConfig(8, 8),
    vision=EncoderConfig(8, 1, 2, 8),
    depth=DepthConfig(EncoderConfig(8, 1, 2, 8), ExpertConfig(8, 8), 2),
    image_size=16,
    patch_size=8,
    cameras=1,
    horizon=3,
)


@pytest.fixture
def model():
    return tiny_model.model(CONFIG).double()


def inputs() -> Inputs:
    single = tiny_model.inputs(CONFIG)
    return dataclasses.replace(single, images=single.images.double(), state=single.state.double())


def losses(model, detach=False, context=None):
    """`context`: a prefix that the actions see in place of the one of `model`."""
    generator = torch.Generator().manual_seed(3)
    chunks, noise = (torch.randn(2, 3, 14, generator=generator, dtype=torch.float64) for _ in range(2))
    depth_m = torch.rand(2, 1, CONFIG.depth_size, CONFIG.depth_size, generator=generator, dtype=torch.float64) + 0.5
    tau = torch.tensor([0.3, 0.8], dtype=torch.float64)
    prefix = model.prefix(inputs(), depth=True)
    x, target = interpolate(chunks, noise, tau)
    velocity = model.velocity(context or (prefix.detach() if detach else prefix), x, tau)
    return {"flow": flow_matching(velocity, target), "depth": si_log(prefix.log_depth, depth_m)}


def slope(loss, parameter, index, step=1e-6):
    """Central difference of `loss()` over one entry of `parameter`."""
    flat, values = parameter.data.view(-1), []
    for sign in (1, -1):
        flat[index] += sign * step
        with torch.no_grad():
            values.append(loss().item())
        flat[index] -= sign * step
    return (values[0] - values[1]) / (2 * step)


@pytest.mark.parametrize("loss", ["flow", "depth"])
def test_gradients_of_the_network_agree_with_finite_differences(model, loss):
    names = {
        "vision.projector.weight",
        "mixture.experts.vlm.layers.0.self_attn.v_proj.weight",
        "mixture.experts.depth.layers.0.mlp.up_proj.weight",
        "mixture.experts.depth.layers.1.self_attn.k_proj.weight",
        "mixture.experts.action.layers.1.self_attn.q_proj.weight",
        "mixture.experts.action.layers.0.input_layernorm.weight",
        "depth_encoder.tower.embeddings.patch_embeddings.projection.weight",
        "depth_head.bias",
        "state_proj.weight",
        "action_time_mlp_in.weight",
    }
    losses(model)[loss].backward()
    for name, parameter in model.named_parameters():
        if name not in names:
            continue
        names.discard(name)
        index = parameter.numel() // 3
        numeric = slope(lambda: losses(model)[loss], parameter, index)
        exact = 0.0 if parameter.grad is None else parameter.grad.view(-1)[index].item()
        assert exact == pytest.approx(numeric, rel=1e-4, abs=1e-8), name
    assert not names


def test_si_log_gradient_agrees_with_finite_differences():
    generator = torch.Generator().manual_seed(0)
    depth_m = torch.rand(2, 3, 4, generator=generator, dtype=torch.float64) + 0.5
    depth_m[0, 0, 0], depth_m[1, 1, 1] = float("nan"), 0.0
    log_depth = torch.randn(2, 3, 4, generator=generator, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: si_log(x, depth_m), (log_depth,))


def test_flow_gradient_agrees_with_finite_differences():
    velocity, target = (torch.randn(2, 3, 4, dtype=torch.float64) for _ in range(2))
    used = torch.tensor([True, True, False, True])
    assert torch.autograd.gradcheck(lambda v: flow_matching(v, target, used), (velocity.requires_grad_(),))


def test_the_flow_loss_reaches_all_three_experts(model):
    losses(model)["flow"].backward()
    for part in ("vision.", "embed_tokens.", "mixture.experts.vlm.", *DEPTH_PARTS[:2], "mixture.experts.action."):
        grads = [p.grad for name, p in model.named_parameters() if name.startswith(part) and p.grad is not None]
        assert any(grad.abs().max() > 0 for grad in grads), part
    assert model.depth_head.weight.grad is None


def test_the_depth_loss_reaches_the_depth_expert_alone(model):
    losses(model)["depth"].backward()
    for name, parameter in model.named_parameters():
        touched = parameter.grad is not None and bool(parameter.grad.abs().max() > 0)
        assert not touched or name.startswith(DEPTH_PARTS), name


def test_a_detached_prefix_keeps_the_flow_loss_in_the_action_expert(model):
    losses(model, detach=True)["flow"].backward()
    touched = {name.split(".")[0] for name, p in model.named_parameters() if p.grad is not None}
    experts = {n.split(".")[2] for n, p in model.named_parameters() if n.startswith("mixture") and p.grad is not None}
    assert experts == {"action"} and not touched & {"vision", "embed_tokens", "depth_encoder", "depth_head"}


def test_gradients_behind_a_detached_prefix_are_those_with_the_prefix_held_fixed(model):
    losses(model, detach=True)["flow"].backward()
    with torch.no_grad():
        context = model.prefix(inputs())
    for name in (
        "mixture.experts.action.layers.0.self_attn.k_proj.weight",
        "mixture.experts.action.layers.1.mlp.down_proj.weight",
        "action_in_proj.weight",
        "action_time_mlp_out.bias",
    ):
        parameter = model.get_parameter(name)
        index = parameter.numel() // 3
        numeric = slope(lambda: losses(model, context=context)["flow"], parameter, index)
        assert parameter.grad.view(-1)[index].item() == pytest.approx(numeric, rel=1e-4, abs=1e-8), name
        assert numeric != 0.0
    assert model.state_proj.weight.grad is None


def test_freezing_the_depth_expert_leaves_the_other_gradients_as_they_are(model):
    losses(model)["flow"].backward()
    free = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad(set_to_none=True)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(not name.startswith(DEPTH_PARTS))
    losses(model)["flow"].backward()
    frozen = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    assert frozen.keys() == {name for name in free if not name.startswith(DEPTH_PARTS)}
    for name, grad in frozen.items():
        torch.testing.assert_close(grad, free[name])
