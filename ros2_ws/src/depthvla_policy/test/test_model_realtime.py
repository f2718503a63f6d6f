"""Real-time chunking: committed steps come back, and what follows continues them."""

from __future__ import annotations

import dataclasses
import math

import pytest
import tiny_model
import torch

from depthvla_policy.model import flow
from depthvla_policy.model.realtime import MAX_GUIDANCE, METHODS, _guided, continue_chunk, soft_mask

DELAY, OVERLAP = 4, 12


def gaussian_velocity(mean, std):
    """The exact velocity for actions that are N(mean, std^2): what a perfectly trained network would answer."""

    def velocity(x, tau):
        t = tau.reshape(len(tau), -1, 1)
        variance = t**2 * std**2 + (1 - t) ** 2
        final = mean + t * std**2 / variance * (x - t * mean)
        noise = (1 - t) / variance * (x - t * mean)
        return final - noise

    return velocity


@pytest.mark.parametrize("method", METHODS)
def test_a_continuation_equals_the_committed_steps(method):
    model, inputs, noise = tiny_model.model(), tiny_model.inputs(), tiny_model.actions()
    committed = 0.5 * torch.randn(noise.shape, generator=torch.Generator().manual_seed(5))
    chunk, _ = model.sample(inputs, noise, committed=committed, delay=DELAY, overlap=OVERLAP, method=method)
    assert torch.equal(chunk[:, :DELAY], committed[:, :DELAY])
    assert torch.isfinite(chunk).all() and not torch.allclose(chunk[:, DELAY:], committed[:, DELAY:])


def test_guidance_pulls_the_rest_towards_the_previous_chunk():
    noise = torch.randn(64, 16, 3, generator=torch.Generator().manual_seed(0))
    committed = torch.full((64, 16, 3), 0.8)
    velocity = gaussian_velocity(torch.zeros(1, 16, 3), 0.5)
    free = flow.integrate(velocity, noise, 10)
    guided = continue_chunk(velocity, noise, 10, committed=committed, delay=DELAY, overlap=OVERLAP, method="guided")
    near, far = slice(DELAY, DELAY + 4), slice(OVERLAP, 16)
    distance = [(chunk[:, near] - committed[:, near]).abs().mean().item() for chunk in (free, guided)]
    assert distance[1] < 0.7 * distance[0]
    torch.testing.assert_close(guided[:, far], free[:, far])  # independent dimensions: no pull where there is no weight


def test_guidance_uses_the_true_vector_jacobian_product():
    matrix = torch.randn(12, 12, generator=torch.Generator().manual_seed(0)) * 0.3

    def velocity(x, tau):
        return (x.flatten(1) @ matrix.T).view_as(x)

    x, committed = torch.randn(2, 4, 3), torch.randn(2, 4, 3)
    weights = torch.rand(1, 4, 1)
    t = 0.6
    guided = _guided(velocity, x, torch.full((2,), t), committed, weights)
    v = velocity(x, None)
    jacobian = torch.eye(12) + (1 - t) * matrix
    pull = (((committed - (x + (1 - t) * v)) * weights).flatten(1) @ jacobian).view_as(x)
    strength = min(MAX_GUIDANCE, (1 - t) / (t * ((1 - t) ** 2 / (t**2 + (1 - t) ** 2))))
    torch.testing.assert_close(guided, v + strength * pull)


def test_trained_continuation_shows_the_network_the_clean_steps_at_tau_1():
    seen = []

    def velocity(x, tau):
        seen.append((x.clone(), tau.clone()))
        return torch.ones_like(x)

    committed = torch.full((1, 6, 2), 7.0)
    chunk = continue_chunk(velocity, torch.zeros(1, 6, 2), 5, committed=committed, delay=2, overlap=4, method="trained")
    for step, (x, tau) in enumerate(seen):
        assert (x[:, :2] == 7.0).all() and tau[0].tolist() == pytest.approx([1.0, 1.0] + [step / 5] * 4)
    torch.testing.assert_close(chunk[:, 2:], torch.ones(1, 4, 2))


@pytest.mark.parametrize("method", METHODS)
def test_the_seam_is_smoother_than_between_independent_samples(method):
    """Steps are correlated in time, as in a movement; a continuation must not jump where a new sample would."""
    steps = torch.arange(16.0)
    covariance = torch.exp(-((steps[:, None] - steps) ** 2) / 50.0) + 1e-3 * torch.eye(16)

    def velocity(x, tau):
        """Exact for these steps at any times; where a step is clean, what it tells of the others is used."""
        t = torch.diag(tau.reshape(len(tau), -1)[0].expand(16))
        rest = torch.eye(16) - t
        gain = torch.linalg.inv(t @ covariance @ t + rest @ rest)
        final = torch.einsum("ij,bjd->bid", covariance @ t @ gain, x)
        noise = torch.einsum("ij,bjd->bid", rest @ gain, x)
        return final - noise

    generator = torch.Generator().manual_seed(0)
    old, new = (flow.integrate(velocity, torch.randn(128, 16, 1, generator=generator), 10) for _ in range(2))
    noise = torch.randn(128, 16, 1, generator=generator)
    continued = continue_chunk(velocity, noise, 10, committed=old, delay=DELAY, overlap=OVERLAP, method=method)
    jumps = [(chunk[:, DELAY] - old[:, DELAY - 1]).abs().mean() for chunk in (new, old, continued)]
    independent, within, seam = jumps
    assert seam < 0.4 * independent
    assert seam < 2.0 * within


def test_weights_are_full_on_committed_steps_and_fall_to_zero():
    weights = soft_mask(16, DELAY, OVERLAP)
    assert weights[:DELAY].tolist() == [1.0] * DELAY and weights[OVERLAP:].tolist() == [0.0] * 4
    assert (weights[DELAY - 1 : OVERLAP].diff() < 0).all()
    c = 8 / 9
    assert weights[DELAY].item() == pytest.approx(c * (math.exp(c) - 1) / (math.e - 1))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"delay": 5, "overlap": 4}, "delay is 5 and overlap 4"),
        ({"overlap": 17}, "overlap 17"),
        ({"method": "hope"}, "method is 'hope'; allowed: guided, trained"),
        ({"committed": torch.zeros(2, 3, 14)}, "committed has shape"),
    ],
)
def test_a_continuation_that_makes_no_sense_is_refused(fields, message):
    noise = tiny_model.actions()
    settings = {"committed": noise, "delay": 2, "overlap": 4, "method": "guided", **fields}
    with pytest.raises(ValueError, match=message):
        continue_chunk(lambda x, tau: x, noise, 2, **settings)


def test_a_time_for_every_step_equals_one_time_for_all():
    model, inputs, actions = tiny_model.model(), tiny_model.inputs(), tiny_model.actions()
    tau = torch.tensor([0.2, 0.7])
    with torch.no_grad():
        prefix = model.prefix(inputs)
        one = model.velocity(prefix, actions, tau)
        each = model.velocity(prefix, actions, tau[:, None].expand(-1, actions.shape[1]))
    torch.testing.assert_close(one, each)


def test_a_joint_prefix_network_continues_too():
    config = dataclasses.replace(tiny_model.CONFIG, prefix_attention="joint")
    noise = tiny_model.actions(config)
    chunk, _ = tiny_model.model(config).sample(tiny_model.inputs(config), noise, committed=noise, delay=2)
    assert torch.equal(chunk[:, :2], noise[:, :2])
