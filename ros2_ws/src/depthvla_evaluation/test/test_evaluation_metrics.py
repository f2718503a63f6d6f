"""Depth errors and intervals against values worked out by hand."""

import numpy as np
import pytest

from depthvla_evaluation import metrics
from depthvla_policy.policy.images import ImageFit


def test_depth_errors_equal_the_hand_computed_ones():
    true = np.array([[1.0, 2.0], [4.0, 5.0]])
    predicted = np.array([[1.1, 1.8], [6.0, 5.0]])
    errors = metrics.depth_errors(predicted, true)
    # Relative errors 0.1, 0.1, 0.5, 0; squared errors 0.01, 0.04, 4, 0; ratios 1.1, 1.11, 1.5, 1.
    assert errors.abs_rel == pytest.approx(0.175)
    assert errors.rmse_m == pytest.approx(np.sqrt(4.05 / 4))
    assert errors.sq_rel == pytest.approx((0.01 / 1 + 0.04 / 2 + 4 / 4) / 4)
    # Logarithms of the ratios 0.0953102, -0.1053605, 0.4054651, 0: mean square 0.0461467, mean 0.0988537.
    assert errors.rmse_log == pytest.approx(0.2148178, abs=1e-6)
    assert errors.si_log == pytest.approx(np.sqrt(0.0461467 - 0.5 * 0.0988537**2), abs=1e-6)
    assert errors.log10 == pytest.approx(0.6061358 / 4 / 2.302585, abs=1e-6)
    assert (errors.delta_1, errors.delta_2, errors.delta_3) == (0.75, 1.0, 1.0)
    assert errors.pixels == 4


def test_each_delta_has_its_own_threshold():
    errors = metrics.depth_errors(np.array([[1.2, 1.5, 1.9, 2.1]]), np.ones((1, 4)))
    assert (errors.delta_1, errors.delta_2, errors.delta_3) == (0.25, 0.5, 0.75)


def test_si_log_is_the_loss_of_the_training():
    torch = pytest.importorskip("torch")
    from depthvla_policy.model.losses import si_log

    rng = np.random.default_rng(0)
    predicted, true = rng.uniform(0.3, 3.0, (2, 8, 8))
    loss = si_log(torch.from_numpy(np.log(predicted))[None], torch.from_numpy(true)[None])
    assert metrics.depth_errors(predicted, true).si_log == pytest.approx(loss.item(), abs=2e-3)


def test_pixels_without_a_reading_do_not_count():
    true = np.array([[1.0, np.inf, 0.0, np.nan, 2.0]])
    predicted = np.array([[1.5, 1.0, 1.0, 1.0, np.nan]])
    errors = metrics.depth_errors(predicted, true)
    assert errors.pixels == 1
    assert errors.abs_rel == pytest.approx(0.5)


def test_depth_errors_of_an_image_without_any_reading_are_none():
    assert metrics.depth_errors(np.full((2, 2), np.nan), np.ones((2, 2))) is None


def test_depth_images_of_different_shape_are_refused():
    with pytest.raises(ValueError, match=r"\(2, 2\).*\(2, 3\)"):
        metrics.depth_errors(np.ones((2, 2)), np.ones((2, 3)))


@pytest.mark.parametrize("fit", ["pad", "crop"])
@pytest.mark.parametrize("size", [28, 56, 112, 224])
@pytest.mark.parametrize("shape", [(180, 320), (240, 320), (360, 640), (224, 224)])
def test_resampling_by_camera_matrices_is_what_the_image_fit_does(fit, size, shape):
    depth = np.random.default_rng(0).uniform(0.2, 3.0, size=shape).astype(np.float32)
    height, width = shape
    k = np.array([[291.3, 0, (width - 1) / 2], [0, 288.7, (height - 1) / 2], [0, 0, 1]])
    image_fit = ImageFit(size=224, fit=fit)
    target = image_fit.camera_matrix(k, width, height, size)
    resampled = metrics.resample(depth, k, target, (size, size))
    np.testing.assert_array_equal(resampled, image_fit.apply_depth(depth, size))


@pytest.mark.parametrize(
    "successes, trials, low, high",
    [(0, 10, 0.0, 0.27753), (10, 10, 0.72247, 1.0), (54, 60, 0.79856, 0.95338), (1, 2, 0.09453, 0.90547)],
)
def test_wilson_interval_equals_published_values(successes, trials, low, high):
    assert metrics.wilson_interval(successes, trials) == pytest.approx((low, high), abs=1e-4)


@pytest.mark.parametrize("successes, trials", [(0, 0), (3, 2), (-1, 2)])
def test_wilson_interval_refuses_impossible_counts(successes, trials):
    with pytest.raises(ValueError, match=f"{successes} successes in {trials} trials"):
        metrics.wilson_interval(successes, trials)


def test_bootstrap_interval_holds_the_mean_and_is_repeatable():
    values = np.array([0.0, 0.0, 1.0, 1.0, 1.0, 1.0, 0.5, 0.5])
    low, high = metrics.bootstrap_interval(values)
    assert low < values.mean() < high
    assert (low, high) == metrics.bootstrap_interval(values)
    # The mean's standard error is 0.145; a 95 % interval is about four of them wide.
    assert high - low == pytest.approx(4 * 0.145, rel=0.15)


def test_bootstrap_interval_of_equal_values_has_no_width():
    assert metrics.bootstrap_interval(np.full(5, 0.25)) == (0.25, 0.25)


def test_summary_equals_the_hand_computed_one():
    summary = metrics.summarise(np.array([10.0, 20.0, 30.0, 40.0, np.nan]))
    assert summary == pytest.approx({"p50": 25.0, "p95": 38.5, "max": 40.0, "mean": 25.0})
    assert metrics.summarise(np.array([])) == {}
