"""Metrics against independent references."""

import numpy as np
import pytest
import torch
import torchmetrics.functional.classification as reference
from sklearn.metrics import log_loss, roc_auc_score

from mtbkd import metrics


@pytest.fixture
def predictions():
    rng = np.random.default_rng(3)
    probs = rng.dirichlet(np.full(7, 0.4), size=400)
    labels = np.array([rng.choice(7, p=p) for p in probs])
    return probs, labels


def test_ece_is_that_of_torchmetrics(predictions):
    probs, labels = predictions
    expected = reference.multiclass_calibration_error(
        torch.tensor(probs), torch.tensor(labels), num_classes=7, n_bins=15, norm="l1"
    )
    assert metrics.ece(probs, labels) == pytest.approx(float(expected), abs=1e-6)


def test_nll_is_the_log_loss_of_scikit_learn(predictions):
    probs, labels = predictions
    assert metrics.nll(probs, labels) == pytest.approx(log_loss(labels, probs, labels=range(7)))


def test_brier_is_the_squared_distance_to_the_one_hot_label(predictions):
    probs, labels = predictions
    expected = np.square(probs - np.eye(7)[labels]).sum(1).mean()
    assert metrics.brier(probs, labels) == pytest.approx(expected)


def test_error_auroc_is_that_of_scikit_learn_with_ties(predictions):
    probs, labels = predictions
    uncertainty = np.round(1 - probs.max(1), 1)
    wrong = probs.argmax(1) != labels
    expected = roc_auc_score(wrong, uncertainty)
    assert metrics.error_auroc(probs, uncertainty, labels) == pytest.approx(expected)


def test_error_auroc_of_a_faultless_model_is_undefined():
    assert metrics.error_auroc(np.eye(3), np.zeros(3), np.arange(3)) is None


def test_confidence_on_a_bin_edge_belongs_to_the_bin_below():
    probs = np.array([[1 / 3, 1 / 3, 1 / 3], [1.0, 0.0, 0.0]])
    counts = metrics.reliability(probs, np.array([0, 0]))[2]
    assert counts[4] == 1
    assert counts[14] == 1


@pytest.mark.parametrize("level", [0.5, 0.8, 0.9])
def test_exact_coverage_is_the_level_if_predictions_are_calibrated(level):
    rng = np.random.default_rng(8)
    probs = rng.dirichlet(np.full(5, 0.3), size=20_000)
    labels = (probs.cumsum(1) < rng.random((20_000, 1))).sum(1)
    error = 0.5 / np.sqrt(20_000)
    assert metrics.exact_coverage(probs, labels, level) == pytest.approx(level, abs=4 * error)
    sharpened = probs**3 / (probs**3).sum(1, keepdims=True)
    assert metrics.exact_coverage(sharpened, labels, level) < level - 0.03


def test_selective_risk_is_the_mean_over_coverages_by_hand():
    uncertainty, wrong = np.array([0.3, 0.1, 0.4, 0.2]), np.array([True, False, True, False])
    assert metrics.selective_risk(uncertainty, wrong) == pytest.approx((0 + 0 + 1 / 3 + 2 / 4) / 4)
    backwards = metrics.selective_risk(-uncertainty, wrong)
    assert backwards == pytest.approx((1 + 1 + 2 / 3 + 2 / 4) / 4)


def test_selective_risk_of_ties_is_that_of_a_random_order():
    rng = np.random.default_rng(0)
    uncertainty, wrong = rng.integers(0, 4, 30).astype(float), rng.random(30) < 0.3
    shuffled = [
        metrics.selective_risk(uncertainty + 1e-6 * rng.random(30), wrong) for _ in range(2000)
    ]
    error = np.std(shuffled) / np.sqrt(2000)
    assert abs(metrics.selective_risk(uncertainty, wrong) - np.mean(shuffled)) < 4 * error


def test_the_error_of_a_mean_is_that_of_the_bootstrap():
    values = np.random.default_rng(1).standard_normal((400, 1))
    _, error = metrics.mean_with_error(values, np.ones((400, 1), bool))
    drawn = metrics.bootstrap_error(lambda rows: float(values[rows].mean()), 400)
    assert drawn == pytest.approx(error, rel=0.25)
    assert np.isnan(metrics.bootstrap_error(lambda rows: None, 400))
