"""The parts of a training: what is trained, losses, averages, adapters, recomputation, FLOPs."""

from __future__ import annotations

import dataclasses

import pytest
import tiny_model
import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from depthvla_policy.model import mixture
from depthvla_policy.model.depthvla import DEPTH_PARTS, DepthVLA, Inputs
from depthvla_policy.model.layouts import PARTS, part_of
from depthvla_policy.training import flops, lora
from depthvla_policy.training import objective as losses
from depthvla_policy.training.batch import Batch
from depthvla_policy.training.config import LoraConfig, LossConfig, MachineConfig, TrainConfig
from depthvla_policy.training.draws import draw
from depthvla_policy.training.ema import Ema
from depthvla_policy.training.grounding import Grounding
from depthvla_policy.training.parameters import choose
from depthvla_policy.training.stages import depth_objective, policy_objective

CONFIG = tiny_model.CONFIG
USED = torch.ones(CONFIG.action_dim, dtype=torch.bool)


def run(**changes):
    values = {"stage": "policy-pretrain", "model": "tiny", "out": "out", "steps": 10, "batch_size": 4, **changes}
    return TrainConfig(**values)


def batch(c=CONFIG, n=4):
    generator = torch.Generator().manual_seed(0)
    inputs, size = tiny_model.inputs(c, n), c.image_size if c.takes_depth else c.depth_size
    return Batch(
        images=(inputs.images * 255).to(torch.uint8),
        depth_m=torch.rand(n, c.cameras, size, size, generator=generator) + 0.5 if size else None,
        text=inputs.text,
        text_mask=inputs.text_mask,
        state=inputs.state,
        chunks=tiny_model.actions(c, n),
        target=torch.randint(0, 4, (n,), generator=generator),
    )


def with_depth(**fields):
    return dataclasses.replace(CONFIG, depth=dataclasses.replace(CONFIG.depth, **fields))


def objective(config=None, c=CONFIG):
    config = config or run()
    return policy_objective(tiny_model.model(c), config, USED, has_targets=True)


def gradients(module, config, c=CONFIG):
    module.zero_grad()
    module(batch(c), draw(c, config.loss, 4, 0, 0))["total"].backward()
    return {name: parameter.grad for name, parameter in module.named_parameters() if parameter.grad is not None}


STAGES = {
    "flow and depth": (run(), CONFIG),
    "grounding too": (run(loss=LossConfig(grounding_weight=0.5)), CONFIG),
    "no depth loss": (run(), with_depth(loss_weight=0.0)),
    "frozen depth": (run(), with_depth(frozen=True)),
    "frozen encoder": (run(freeze=("depth_encoder",)), CONFIG),
    "frozen vlm": (run(freeze=("vlm",)), CONFIG),
    "detached": (run(loss=LossConfig(detach_prefix=True)), CONFIG),
    "detached and grounded": (run(loss=LossConfig(detach_prefix=True, grounding_weight=0.5)), CONFIG),
    "joint, detached and grounded": (
        run(loss=LossConfig(detach_prefix=True, grounding_weight=0.5, depth_weight=0.0)),
        dataclasses.replace(CONFIG, prefix_attention="joint"),
    ),
    "joint": (run(), dataclasses.replace(CONFIG, prefix_attention="joint")),
    "joint, no depth loss": (
        run(loss=LossConfig(depth_weight=0.0)),
        dataclasses.replace(CONFIG, prefix_attention="joint"),
    ),
    "true depth": (run(), with_depth(input="ground_truth")),
    "pi0": (run(), tiny_model.PI0),
    "adapters": (run(lora=LoraConfig(rank=2)), CONFIG),
}


@pytest.mark.parametrize("name", STAGES)
def test_exactly_the_parameters_that_a_loss_reaches_are_trained(name):
    config, c = STAGES[name]
    module = objective(config, c)
    wanted = {name for name, parameter in module.named_parameters() if parameter.requires_grad}
    assert set(gradients(module, config, c)) == wanted
    # With everything open to it, a gradient would have come to nothing else but what was frozen. (Keys that a loss does
    # not look at, beside others in one tensor, get zeros.)
    for parameter in module.parameters():
        parameter.requires_grad_(True)
    frozen = {name for name, found in gradients(module, config, c).items() if name not in wanted and found.any()}
    closed = {"frozen depth": DEPTH_PARTS, "frozen encoder": ("depth_encoder.",), "frozen vlm": PARTS["vlm"]}
    if not config.lora.rank:
        closed_parts = closed.get(name, ())
        assert all(other.removeprefix("model.").startswith(closed_parts) for other in frozen)


def test_depth_pre_training_trains_the_depth_expert_alone():
    module = depth_objective(DepthVLA(losses.depth_only(CONFIG)), run(stage="depth-pretrain"))
    wanted = {name for name, parameter in module.named_parameters() if parameter.requires_grad}
    whole = batch()
    single = Batch(whole.images[:, :1], whole.depth_m[:, :1])
    module(single, draw(module.model.config, LossConfig(), 4, 0, 0))["total"].backward()
    assert {name for name, parameter in module.named_parameters() if parameter.grad is not None} == wanted
    assert {part_of(name.removeprefix("model.")) for name in wanted} == {"depth_encoder", "depth_decoder"}


def test_the_depth_expert_alone_predicts_what_it_predicts_in_the_network():
    c = dataclasses.replace(CONFIG, cameras=1)
    model, inputs = tiny_model.model(c), tiny_model.inputs(c)
    torch.testing.assert_close(model.predict_depth(inputs.images), model.prefix(inputs, depth=True).log_depth)


def test_observations_without_a_target_are_left_out_of_the_grounding_loss():
    model, seen = tiny_model.model(), tiny_model.inputs(batch=4)
    grounding, target = Grounding(model), torch.tensor([3, 0, -1, -1])

    def loss(first, last):
        part = Inputs(*(given[first:last] for given in (seen.images, seen.text, seen.text_mask, seen.state)))
        return grounding(model.prefix(part), part.text_mask, target[first:last])

    torch.testing.assert_close(loss(0, 4), loss(0, 2))
    nothing = loss(2, 4)
    nothing.backward()
    assert nothing == 0.0 and not any(p.grad.any() for p in model.parameters() if p.grad is not None)


def test_the_grounding_loss_is_of_the_attention_that_the_network_pays_and_of_the_place_told(monkeypatch):
    model, seen = tiny_model.model(), tiny_model.inputs(batch=4)
    grounding, target, calls = Grounding(model), torch.tensor([3, 0, 1, 2]), []
    with torch.no_grad():
        grounding.place.weight.zero_()
        grounding.place.bias.copy_(torch.tensor([1.0, -1.0]))  # row and column in patches, of a grid of 2
    attend = mixture.attend
    monkeypatch.setattr(mixture, "attend", lambda *given: calls.append(given) or attend(*given))
    found = grounding(model.prefix(seen), seen.text_mask, target)
    q, k, _, mask = calls[grounding.layer]
    weights = ((q[:, 0] @ k[:, 0].mT) * q.shape[-1] ** -0.5).masked_fill(~mask[:, 0], -torch.inf).softmax(-1)
    missed = []
    for i, words in enumerate(seen.text_mask):
        missed += [-weights[i, -len(words) :][words][:, target[i]].log().mean()]
    off = torch.tensor([4.0, 2.0, 5.0, 1.0]).sqrt()
    torch.testing.assert_close(found, torch.stack(missed).mean() + off.mean())


def test_clean_steps_are_left_out_of_the_loss(monkeypatch):
    config = run(loss=LossConfig(max_delay=15, vary_colours=False))
    module = objective(config)
    monkeypatch.setattr(module.model, "velocity", lambda prefix, x, tau: torch.zeros_like(x))
    numbers = dataclasses.replace(draw(CONFIG, config.loss, 4, 0, 0), delay=torch.full((4, 1), 10))
    seen = batch()
    before = module(seen, numbers)["flow"]
    seen.chunks[:, :10] += 100.0
    assert module(seen, numbers)["flow"] == before
    seen.chunks[:, 10] += 100.0
    assert module(seen, numbers)["flow"] > before + 100.0


def test_observations_without_actions_are_left_out_of_the_flow_loss():
    config = run(loss=LossConfig(vary_colours=False))
    module, seen = objective(config), batch()
    numbers = draw(CONFIG, config.loss, 4, 0, 0)
    seen.chunks[2:] = float("nan")
    found = module(seen, numbers)["flow"]
    found.backward()
    assert all(torch.isfinite(p.grad).all() for p in module.parameters() if p.grad is not None)
    first = Batch(**{field.name: getattr(seen, field.name)[:2] for field in dataclasses.fields(Batch)})
    torch.testing.assert_close(found, module(first, numbers.part(0, 2, config.loss.draws))["flow"])
    seen.chunks[:] = float("nan")
    assert module(seen, numbers)["flow"] == 0.0


def test_averages_follow_the_parameters_and_take_their_place_for_a_while():
    layer = nn.Linear(2, 1)
    layer.bias.requires_grad_(False)
    start = layer.weight.detach().clone()
    average = Ema(layer, 0.75)
    with torch.no_grad():
        layer.weight += 4.0
    average.update(step=1000)
    with average.applied():
        torch.testing.assert_close(layer.weight.data, start + 1.0)
    torch.testing.assert_close(layer.weight.data, start + 4.0)
    average.update(step=0)
    torch.testing.assert_close(average.averages["weight"], start + 1.0 + 0.9 * 3.0)
    assert list(average.averages) == ["weight"]


def test_averages_have_the_same_names_in_a_module_that_is_wrapped():
    wrapped = nn.ModuleDict({"module": nn.Linear(2, 1)})
    assert list(Ema(wrapped, 0.9).averages) == ["weight", "bias"]


def test_without_averages_the_parameters_stand_for_themselves():
    layer = nn.Linear(2, 1)
    average = Ema(layer, 0.0)
    average.update(step=0)
    before = layer.weight.detach().clone()
    with average.applied():
        assert torch.equal(layer.weight, before) and not average.averages


def test_merged_adapters_give_the_output_of_the_network_with_them():
    settings = LoraConfig(rank=2, alpha=6.0, targets=("q_proj", "down_proj"))
    adapted = tiny_model.model()
    inputs, noise = tiny_model.inputs(), tiny_model.actions()
    plain, _ = adapted.sample(inputs, noise)
    lora.adapt(adapted.mixture, settings)
    torch.testing.assert_close(adapted.sample(inputs, noise)[0], plain)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if name.endswith(".lora_b"):
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.1)
    merged = DepthVLA(CONFIG).eval()
    merged.load_state_dict(lora.merge(adapted.state_dict(), settings))
    wanted, _ = adapted.sample(inputs, noise)
    torch.testing.assert_close(merged.sample(inputs, noise)[0], wanted, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(wanted, plain, atol=1e-3)


def test_adapters_are_only_where_they_were_asked_for():
    model = tiny_model.model()
    lora.adapt(model.mixture, LoraConfig(rank=2, targets=("q_proj",)))
    choose(model, run(lora=LoraConfig(rank=2, targets=("q_proj",))), CONFIG)
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert trained and all(".self_attn.q_proj.lora_" in name for name in trained)


def test_recomputed_layers_give_the_same_gradients():
    plain = run(loss=LossConfig(grounding_weight=0.5))
    torch.manual_seed(0)
    kept = gradients(objective(plain), plain)
    again = dataclasses.replace(plain, machine=dataclasses.replace(plain.machine, recompute=True))
    torch.manual_seed(0)
    module = objective(again).train()
    assert module.model.mixture.recompute
    runs = []
    module.model.mixture.experts["vlm"].layers[0].mlp.register_forward_pre_hook(lambda *_: runs.append(1))
    rerun = gradients(module, again)
    assert len(runs) == 2 and rerun.keys() == kept.keys()
    for name, gradient in kept.items():
        torch.testing.assert_close(rerun[name], gradient, msg=name)


@pytest.mark.parametrize("name", ["frozen depth", "adapters", "joint"])
def test_counted_operations_are_those_that_run_of_each_observation(name):
    config, c = STAGES[name]
    config = dataclasses.replace(config, loss=dataclasses.replace(config.loss, draws=4))
    module = objective(config, c)
    counted = flops.training_flops(module, c, config.loss)
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        gradients(module, config, c)
    assert counted == pytest.approx(counter.get_total_flops() / 4, rel=1e-3)


def test_layers_that_are_run_again_count_once():
    config = run(machine=MachineConfig(recompute=True))
    counted = flops.training_flops(objective(config).train(), CONFIG, config.loss)
    assert counted == flops.training_flops(objective(), CONFIG, config.loss)


def test_the_peak_of_a_cpu_is_measured_and_that_of_a_known_gpu_looked_up(monkeypatch):
    assert 1e8 < flops.peak_flops(torch.device("cpu"), torch.float32) < 1e14
    for name, peak in (("NVIDIA H100 80GB HBM3", 989e12), ("NVIDIA H100 PCIe", 756e12), ("Unknown", None)):
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda device, name=name: name)
        assert flops.peak_flops(torch.device("cuda"), torch.bfloat16) == peak


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"loss": LossConfig(max_delay=16)}, "loss.max_delay is 16; allowed: 0 to 15"),
        ({"freeze": tuple(PARTS)}, "nothing is left to train"),
    ],
)
def test_settings_that_do_not_fit_the_network_are_named(changes, message):
    with pytest.raises(ValueError, match=message):
        objective(run(**changes))


def test_grounding_is_refused_where_no_target_is_known_or_no_layer_looks():
    config = run(loss=LossConfig(grounding_weight=0.5))
    with pytest.raises(ValueError, match="at least 2 layers; this one has 1"):
        objective(config, dataclasses.replace(CONFIG, layers=1))
    with pytest.raises(ValueError, match="no frame has a target"):
        policy_objective(tiny_model.model(), run(loss=LossConfig(grounding_weight=0.5)), USED, has_targets=False)
