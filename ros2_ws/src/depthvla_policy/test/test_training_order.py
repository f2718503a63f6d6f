"""Order of the data, random numbers and learning rate: functions of seed and step alone."""

from __future__ import annotations

import numpy as np
import pytest
import tiny_model
import torch

from depthvla_policy.training.config import LossConfig, OptimiserConfig
from depthvla_policy.training.draws import draw
from depthvla_policy.training.sampler import StepSampler
from depthvla_policy.training.schedule import learning_rate

CONFIG = tiny_model.CONFIG


def sampler(lengths=(7, 5), weights=(), **changes):
    return StepSampler(lengths, weights, **{"batch_size": 4, "seed": 3, "start": 0, "steps": 9, **changes})


def test_every_frame_comes_once_an_epoch():
    frames = [frame for frames in sampler() for frame in frames]
    assert [sorted(frames[i : i + 12]) for i in (0, 12, 24)] == [list(range(12))] * 3
    assert frames[:12] != frames[12:24] != list(range(12))


@pytest.mark.parametrize("weights", [(), (1.0, 2.0)])
def test_any_step_can_be_the_first(weights):
    assert list(sampler(weights=weights))[5:] == list(sampler(weights=weights, start=5))


@pytest.mark.parametrize("weights", [(), (1.0, 2.0)])
def test_processes_and_accumulated_batches_share_out_the_batch_of_one(weights):
    parts = [list(sampler(weights=weights, rank=rank, processes=2, accumulate=2)) for rank in (0, 1)]
    together = [parts[0][i] + parts[0][i + 1] + parts[1][i] + parts[1][i + 1] for i in range(0, 18, 2)]
    assert together == list(sampler(weights=weights))


def test_weights_decide_which_dataset_a_frame_is_of():
    frames = np.array(list(sampler(lengths=(10, 1000), weights=(3.0, 1.0), steps=500))).ravel()
    assert np.mean(frames < 10) == pytest.approx(0.75, abs=0.03)
    assert frames.min() == 0 and frames.max() > 950 and frames.max() < 1010


def test_a_batch_that_does_not_divide_is_refused():
    with pytest.raises(ValueError, match="batch_size 4 does not divide among 3 processes with 1 batches"):
        sampler(processes=3)


def test_random_numbers_follow_from_seed_and_step_and_are_cut_up_consistently():
    loss = LossConfig(draws=3, max_delay=5)
    whole = draw(CONFIG, loss, 4, seed=1, step=2)
    again, other = draw(CONFIG, loss, 4, seed=1, step=2), draw(CONFIG, loss, 4, seed=1, step=3)
    assert torch.equal(whole.noise, again.noise) and not torch.equal(whole.noise, other.noise)
    parts = [whole.part(0, 2, 3), whole.part(2, 4, 3)]
    for name in ("colours", "noise", "tau", "delay"):
        assert torch.equal(torch.cat([getattr(part, name) for part in parts]), getattr(whole, name))
    assert whole.delay.min() >= 0 and whole.delay.max() <= 5 and len(whole.noise) == 12


def test_the_rate_rises_linearly_and_falls_on_a_cosine():
    o = OptimiserConfig(learning_rate=1.0, final_learning_rate=0.1, warmup_steps=4)
    rates = [learning_rate(o, step, 24) for step in range(25)]
    assert rates[:5] == [0.25, 0.5, 0.75, 1.0, 1.0] and rates[14] == pytest.approx(0.55) and rates[24] == 0.1
