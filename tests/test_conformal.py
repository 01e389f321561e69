"""Split-conformal sets: what they promise holds whatever the student."""

import numpy as np
import pytest

from mtbkd.explain.conformal import (
    class_bound,
    class_sets,
    label_bounds,
    label_sets,
    tail,
    whole_coverage,
)
from mtbkd.metrics import coverage


def _classes(chance, n, sharpening):
    """Labels drawn from known probabilities, and a student that is sharper than the truth."""
    logits = chance.normal(0, 1.5, (n, 6))
    truth = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    labels = (truth.cumsum(1) < chance.random((n, 1))).sum(1).clip(max=5)
    claimed = np.exp(sharpening * logits)
    return claimed / claimed.sum(1, keepdims=True), labels


@pytest.mark.parametrize("sharpening", [0.3, 1.0, 3.0])
@pytest.mark.parametrize("n", [10, 40])
def test_class_sets_hold_the_label_as_often_as_promised(n, sharpening):
    chance = np.random.default_rng(n)
    held = []
    for _ in range(600):
        probs, labels = _classes(chance, n + 50, sharpening)
        bound = class_bound(probs[:n], labels[:n], 0.9)
        held.append(coverage(class_sets(probs[n:], bound), labels[n:]))
    spread = 4 * np.std(held) / np.sqrt(len(held))
    # nested scores are zero wherever the first class is right, but not at this level
    assert 0.9 - spread < np.mean(held) < 0.9 + 1 / (n + 1) + spread


def test_credible_sets_of_the_same_mass_do_not_if_the_student_is_too_sure():
    probs, labels = _classes(np.random.default_rng(3), 4000, 3.0)
    assert coverage(class_sets(probs, 0.9), labels) < 0.85


@pytest.mark.parametrize("n", [40, 400])
def test_label_sets_hold_all_labels_as_often_as_promised(n):
    chance = np.random.default_rng(n)
    held = []
    for _ in range(600):
        truth = chance.beta(0.4, 1.0, (n + 50, 5))
        labels = (chance.random(truth.shape) < truth).astype(float)
        labels[np.arange(len(labels)), truth.argmax(1)] = 1.0
        claimed = truth**2
        bounds = label_bounds(claimed[:n], labels[:n], 0.9)
        held.append(whole_coverage(label_sets(claimed[n:], bounds), labels[n:]))
    spread = 4 * np.std(held) / np.sqrt(len(held))
    # shares of few examples are coarse, and on the safe side
    assert 0.9 - spread < np.mean(held) < 0.9 + {40: 0.07, 400: 0.01}[n] + spread


def test_rare_labels_are_held_as_often_as_frequent_ones():
    chance = np.random.default_rng(0)
    truth = chance.beta(0.5, [0.5, 9.0], (20000, 2))
    labels = (chance.random(truth.shape) < truth).astype(float)
    bounds = label_bounds(truth[:10000], labels[:10000], 0.9)
    sets = label_sets(truth[10000:], bounds)
    held = [sets[labels[10000:, i] == 1, i].mean() for i in range(2)]
    assert held[0] == pytest.approx(held[1], abs=0.06)
    assert bounds[1] > bounds[0]


def test_sets_hold_everything_if_there_are_too_few_labels():
    probs, labels = _classes(np.random.default_rng(0), 8, 1.0)
    assert class_bound(probs, labels, 0.9) == 1.0
    assert class_sets(probs, 1.0).all()
    assert (label_bounds(probs, np.eye(6)[labels], 0.9) == 1.0).all()


def test_the_bound_is_the_rank_that_the_level_requires():
    # ten doubts 0.0 … 0.9, the shares of which are 1/11 … 10/11: the level 0.7 needs the eighth of
    # them, 8/11, and with it the ninth doubt
    probs = np.linspace(1, 0.1, 10)[:, None]
    assert label_bounds(probs, np.ones((10, 1)), 0.7) == pytest.approx([0.8])


def test_a_set_has_the_classes_up_to_the_mass_ahead():
    probs = np.array([[0.5, 0.2, 0.3], [0.1, 0.8, 0.1]])
    assert class_sets(probs, 0.5).tolist() == [[True, False, True], [False, True, False]]
    assert class_sets(probs, 0.0).tolist() == [[True, False, False], [False, True, False]]
    assert class_sets(probs, 0.8).all(1).tolist() == [True, False]


def test_labels_that_are_not_known_do_not_count():
    probs = np.array([[0.9, 0.2]])
    many = np.repeat(probs, 20, 0)
    bounds = label_bounds(many, np.array([[1.0, np.nan]] * 20), 0.9)
    assert bounds == pytest.approx([0.1, 1.0])
    assert whole_coverage(label_sets(probs, np.array([0.1, 0.1])), np.array([[1.0, np.nan]])) == 1.0


def test_the_tail_is_uniform_for_examples_of_the_same_kind():
    chance = np.random.default_rng(1)
    small = [
        (tail(chance.normal(size=50), np.sort(chance.normal(size=99))) <= 0.1).mean()
        for _ in range(400)
    ]
    assert np.mean(small) == pytest.approx(0.1, abs=0.01)


def test_held_out_scores_that_are_equal_count_as_larger():
    assert tail(np.array([1.0]), np.array([0.0, 1.0, 1.0])).tolist() == [0.75]
