"""Metrics of numbers against scikit-learn, scipy and numerical integrals."""

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.stats import norm
from sklearn import metrics as sklearn

from mtbkd import metrics

NAN = float("nan")


@pytest.fixture
def mixture():
    """Five draws for 200 examples of two targets, and labels drawn from their mixture."""
    rng = np.random.default_rng(4)
    means = rng.normal(0, 2, (5, 200, 2)) + np.array([0.0, 10.0])
    sds = rng.uniform(0.3, 1.5, means.shape)
    drawn = rng.integers(5, size=(1, 200, 2))
    labels = rng.normal(np.take_along_axis(means, drawn, 0), np.take_along_axis(sds, drawn, 0))[0]
    return means, sds, labels


def test_errors_are_those_of_scikit_learn(mixture):
    means, _, labels = mixture
    mean = means.mean(0)
    assert metrics.rmse(mean, labels) == pytest.approx(
        sklearn.root_mean_squared_error(labels.ravel(), mean.ravel())
    )
    assert metrics.mae(mean, labels) == pytest.approx(sklearn.mean_absolute_error(labels, mean))
    expected = sklearn.r2_score(labels, mean, multioutput="raw_values")
    np.testing.assert_allclose(metrics.r2(mean, labels), expected)


def test_unknown_numbers_are_left_out(mixture):
    means, sds, labels = mixture
    holes = np.where(np.arange(len(labels)) % 3 == 0, NAN, labels[:, 0])
    partly, kept = np.column_stack([holes, labels[:, 1]]), ~np.isnan(holes)
    expected = sklearn.r2_score(holes[kept], means.mean(0)[kept, 0])
    assert metrics.r2(means.mean(0), partly)[0] == pytest.approx(expected)
    alone = metrics.number_scores(means[:, kept, :1], sds[:, kept, :1], holes[kept, None])
    found = metrics.number_scores(means[:, :, :1], sds[:, :, :1], holes[:, None])
    assert {k: v for k, v in found.items() if k != "width_90"} == pytest.approx(
        {k: v for k, v in alone.items() if k != "width_90"}
    )


def test_gaussian_scores_are_the_log_density_and_the_integral():
    mean, sd, y = np.array([[1.0]]), np.array([[0.7]]), np.array([[2.2]])
    assert metrics.gaussian_nll(mean, sd, y) == pytest.approx(-norm.logpdf(2.2, 1.0, 0.7))
    expected = _integral(lambda x: norm.cdf(x, 1.0, 0.7), 2.2)
    assert metrics.gaussian_crps(mean, sd, y) == pytest.approx(expected, abs=1e-7)


@pytest.mark.parametrize("weighted", [False, True])
def test_scores_of_a_mixture_are_its_log_density_and_its_integral(mixture, weighted):
    means, sds, labels = (values[..., 7:8, 1:] for values in mixture)
    weights = np.array([0.1, 0.3, 0.2, 0.4, 0.0]).reshape(5, 1, 1) if weighted else None
    share = np.full(5, 0.2) if weights is None else weights.ravel()
    m, s, y = means.ravel(), sds.ravel(), labels.item()
    found = metrics.mixture_log_density(means, sds, labels, weights)
    assert found.item() == pytest.approx(np.log(share @ norm.pdf(y, m, s)))
    assert metrics.pit(means, sds, labels, weights).item() == pytest.approx(
        share @ norm.cdf(y, m, s)
    )
    expected = _integral(lambda x: share @ norm.cdf(x, m, s), y)
    found = metrics.mixture_crps(means, sds, labels, weights)
    assert found.item() == pytest.approx(expected, abs=1e-6)


def test_a_mixture_of_equal_gaussians_is_one_gaussian(mixture):
    means, sds, labels = mixture
    same = np.repeat(means[:1], 4, 0), np.repeat(sds[:1], 4, 0)
    one = metrics.number_scores(means[:1], sds[:1], labels)
    assert metrics.number_scores(*same, labels) == pytest.approx(one)
    assert one["crps"] == pytest.approx(metrics.gaussian_crps(means[0], sds[0], labels))
    assert one["nll"] == pytest.approx(metrics.gaussian_nll(means[0], sds[0], labels))
    assert one["width_90"] == pytest.approx(2 * norm.ppf(0.95) * sds[0].mean())


def test_quantiles_hold_their_mass_and_bound_the_interval(mixture):
    means, sds, labels = mixture
    for level in (0.05, 0.5, 0.95):
        at = metrics.mixture_quantile(means, sds, level)
        np.testing.assert_allclose(metrics.pit(means, sds, at), level, atol=1e-9)
    mass = metrics.pit(means, sds, labels)
    found = metrics.number_scores(means, sds, labels)["coverage_90"]
    assert found == pytest.approx(np.mean((mass >= 0.05) & (mass <= 0.95)))


def test_a_calibrated_mixture_scores_so_and_a_narrow_one_does_not(mixture):
    means, sds, labels = mixture
    found = metrics.number_scores(means, sds, labels)
    assert found["coverage_90"] == pytest.approx(0.9, abs=4 * np.sqrt(0.09 / labels.size))
    assert found["calibration"] < 0.05
    centre = np.repeat(means.mean(0, keepdims=True), 5, 0)
    narrow = metrics.number_scores(centre, sds / 3, labels)
    assert narrow["coverage_90"] < 0.6
    assert narrow["calibration"] > 0.1
    assert narrow["nll"] > found["nll"]
    assert narrow["crps"] > found["crps"]


def test_many_draws_are_thinned_for_the_crps_with_little_effect():
    rng = np.random.default_rng(0)
    means, sds = rng.normal(size=(600, 30, 1)), np.full((600, 30, 1), 0.5)
    labels = rng.normal(size=(30, 1))
    exact = metrics.mixture_crps(means, sds, labels).mean()
    assert metrics.number_scores(means, sds, labels)["crps"] == pytest.approx(exact, rel=0.02)


def test_scores_are_counted_in_the_unit_but_for_density_and_shares(mixture):
    means, sds, labels = mixture
    plain = metrics.number_scores(means, sds, labels)
    tenth = metrics.number_scores(means, sds, labels, unit=np.array([10.0, 10.0]))
    for key in ("rmse", "mae", "crps", "width_90"):
        assert tenth[key] == pytest.approx(plain[key] / 10)
    for key in ("nll", "coverage_90", "calibration"):
        assert tenth[key] == pytest.approx(plain[key])
    scaled = np.array([1.0, 1000.0])
    same = metrics.number_scores(means * scaled, sds * scaled, labels * scaled, unit=scaled)
    assert same["rmse"] == pytest.approx(plain["rmse"])


def test_a_standard_deviation_of_zero_is_a_point(mixture):
    _, _, labels = mixture
    point = metrics.gaussian_crps(labels + 2.0, np.zeros_like(labels), labels)
    assert point == pytest.approx(2.0)


def test_calibration_compares_shares_below_quantiles():
    levels = np.array([0.25, 0.5, 0.75])
    values = np.array([0.1, 0.2, 0.3, 0.9, NAN])
    np.testing.assert_allclose(metrics.quantile_shares(values, levels), [0.5, 0.75, 0.75])
    assert metrics.calibration_error(values, levels) == pytest.approx(0.5 / 3)


def test_no_labels_at_all_give_nan_and_no_warning():
    labels = np.full((3, 1), NAN)
    found = metrics.number_scores(np.zeros((2, 3, 1)), np.ones((2, 3, 1)), labels)
    assert all(np.isnan(found[key]) for key in ("rmse", "nll", "crps", "calibration"))


def _integral(cdf, y):
    below = quad(lambda x: cdf(x) ** 2, -40, y, limit=200, points=None)[0]
    return below + quad(lambda x: (1 - cdf(x)) ** 2, y, 60, limit=200)[0]
