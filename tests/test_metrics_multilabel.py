"""Metrics of several labels against scikit-learn and torchmetrics."""

import numpy as np
import pytest
import torch
from sklearn import metrics as sklearn
from torchmetrics.functional.classification import binary_calibration_error

from mtbkd import metrics

NAN = float("nan")


@pytest.fixture
def answers():
    rng = np.random.default_rng(5)
    probs = rng.beta(0.6, 1.2, size=(300, 6))
    probs[:40] = 0.1
    labels = (rng.random((300, 6)) < probs).astype(float)
    labels[:20] = 0
    return probs, labels


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (metrics.subset_accuracy, sklearn.accuracy_score),
        (metrics.hamming, sklearn.hamming_loss),
        (metrics.f1_micro, lambda y, p: sklearn.f1_score(y, p, average="micro")),
        (metrics.f1_macro, lambda y, p: sklearn.f1_score(y, p, average="macro")),
        (
            metrics.jaccard,
            lambda y, p: sklearn.jaccard_score(y, p, average="samples", zero_division=1),
        ),
    ],
)
def test_scores_of_answers_are_those_of_scikit_learn(answers, ours, theirs):
    probs, labels = answers
    assert ours(probs, labels) == pytest.approx(theirs(labels, probs >= 0.5))
    assert ours(probs, labels, 0.3) == pytest.approx(theirs(labels, probs >= 0.3))


def test_losses_are_those_of_scikit_learn(answers):
    probs, labels = answers
    expected = sklearn.log_loss(labels.ravel(), probs.ravel())
    assert metrics.log_loss(probs, labels) == pytest.approx(expected)
    expected = sklearn.brier_score_loss(labels.ravel(), probs.ravel())
    assert metrics.label_brier(probs, labels) == pytest.approx(expected)


def test_ece_of_each_label_is_that_of_torchmetrics(answers):
    probs, labels = answers
    expected = [
        float(binary_calibration_error(torch.tensor(p), torch.tensor(y).long(), n_bins=15))
        for p, y in zip(probs.T, labels.T, strict=True)
    ]
    np.testing.assert_allclose(metrics.label_ece(probs, labels), expected, atol=1e-6)


def test_average_precision_is_that_of_scikit_learn_and_nan_without_a_yes(answers):
    probs, labels = answers
    labels = labels.copy()
    labels[:, 2] = 0
    labels[::3, 4] = NAN
    found = metrics.average_precision(probs, labels)
    assert np.isnan(found[2])
    known = ~np.isnan(labels[:, 4])
    expected = sklearn.average_precision_score(labels[known, 4], probs[known, 4])
    assert found[4] == pytest.approx(expected)


def test_unknown_labels_are_left_out(answers):
    probs, labels = answers
    holes = np.random.default_rng(1).random(labels.shape) < 0.3
    holes[7] = True
    partly = np.where(holes, NAN, labels)
    known, answer = labels[~holes], probs[~holes]
    assert metrics.hamming(probs, partly) == pytest.approx(np.mean((answer >= 0.5) != known))
    assert metrics.log_loss(probs, partly) == pytest.approx(sklearn.log_loss(known, answer))
    assert metrics.f1_micro(probs, partly) == pytest.approx(sklearn.f1_score(known, answer >= 0.5))
    other = np.where(holes, 1 - probs, probs)
    assert metrics.label_scores(other, partly) == metrics.label_scores(probs, partly)
    rest = np.delete(np.arange(len(probs)), 7)
    found = metrics.label_scores(probs[rest], partly[rest])
    assert found == pytest.approx(metrics.label_scores(probs, partly))


def test_f1_of_a_label_that_nobody_names_is_left_out():
    probs, labels = np.array([[0.9, 0.1], [0.9, 0.2]]), np.array([[1.0, 0.0], [0.0, 0.0]])
    found = sklearn.f1_score(labels, probs >= 0.5, average="macro", zero_division=np.nan)
    assert metrics.f1_macro(probs, labels) == pytest.approx(found) == pytest.approx(2 / 3)
    assert metrics.f1_macro(probs[:, 1:], labels[:, 1:]) == 1.0
    assert metrics.f1_micro(probs[:, 1:], labels[:, 1:]) == 1.0


def test_no_labels_at_all_give_nan_and_no_warning():
    found = metrics.label_scores(np.full((3, 2), 0.4), np.full((3, 2), NAN))
    assert all(np.isnan(found[key]) for key in ("accuracy", "jaccard", "nll", "brier", "ece"))


def test_ece_finds_overconfidence_that_labels_do_not_share():
    rng = np.random.default_rng(2)
    probs = rng.random((4000, 2))
    labels = (rng.random(probs.shape) < probs).astype(float)
    sharp = probs.copy()
    sharp[:, 1] = probs[:, 1] ** 3 / (probs[:, 1] ** 3 + (1 - probs[:, 1]) ** 3)
    found = metrics.label_ece(sharp, labels)
    assert found[0] < 0.03
    assert found[1] > 0.08


def test_matthews_correlation_is_that_of_scikit_learn_at_one_threshold_or_several(answers):
    probs, labels = answers
    labels[:, 5] = 0
    for threshold in (0.5, np.linspace(0.2, 0.7, 6)):
        expected = [
            sklearn.matthews_corrcoef(y, p)
            for y, p in zip(labels.T, (probs >= threshold).T, strict=True)
        ]
        found = metrics.mcc_by_label(probs, labels, threshold)
        np.testing.assert_allclose(found, expected, atol=1e-12)
    labels[:30, 0] = NAN
    expected = sklearn.matthews_corrcoef(labels[30:, 0], probs[30:, 0] >= 0.5)
    assert metrics.mcc_by_label(probs, labels)[0] == pytest.approx(expected)


def test_no_threshold_nearer_to_a_half_is_within_a_standard_error_of_the_best(answers):
    probs, labels = answers
    labels[:20, 1] = NAN
    chosen = metrics.best_thresholds(probs, labels)
    found = metrics.mcc_by_label(probs, labels, chosen)
    places = np.linspace(0, 1, 2001)
    grid = np.stack([metrics.mcc_by_label(probs, labels, t) for t in places])
    largest, n = grid.max(0), (~np.isnan(labels)).sum(0)
    enough = largest - (1 - largest**2) / np.sqrt(n)
    assert (found >= enough - 1e-12).all()
    for column in range(probs.shape[1]):
        off = np.abs(places - 0.5)[grid[:, column] >= enough[column]].min()
        ranked = np.sort(np.append(probs[:, column], 0.5))
        widest = np.diff(ranked).max()  # a cut may stand anywhere between two probabilities
        assert abs(chosen[column] - 0.5) <= off + widest
    assert (found < largest).any()


def test_a_label_that_is_always_no_keeps_its_threshold(answers):
    probs, labels = answers
    labels[:, 2], labels[:, 3] = 0, NAN
    assert metrics.best_thresholds(probs, labels)[[2, 3]].tolist() == [0.5, 0.5]


def test_scores_at_thresholds_of_each_label_are_those_of_shifted_probabilities(answers):
    probs, labels = answers
    thresholds = np.linspace(0.2, 0.7, 6)
    found = metrics.label_scores(probs, labels, thresholds)
    shifted = metrics.label_scores(probs - thresholds + 0.5, labels)
    for name in ("accuracy", "f1_micro", "f1_macro", "jaccard"):
        assert found[name] == pytest.approx(shifted[name])
    assert found["nll"] == metrics.label_scores(probs, labels)["nll"]
