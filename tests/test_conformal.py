"""Split-conformal sets: what they promise holds whatever the student."""

import numpy as np
import pytest

from mtbkd.explain.conformal import (
    class_bound,
    class_bounds,
    class_sets,
    label_bounds,
    label_bounds_each,
    label_sets,
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


def test_weighted_bounds_are_plain_ones_at_equal_weights():
    chance = np.random.default_rng(4)
    probs, labels = _classes(chance, 57, 2.0)
    for level in (0.5, 0.9, 0.99):
        scores = np.sort(
            [p[p > p[label]].sum() for p, label in zip(probs, labels, strict=True)]
        )  # as the rank is told in the books
        place = int(np.ceil(level * 58 - 1e-9))
        expected = scores[place - 1] if place <= 57 else 1.0
        for weight in (1.0, 0.3):
            found = class_bounds(probs, labels, level, np.full(57, weight), np.full(3, weight))
            assert found == pytest.approx([expected] * 3)
    yes = (chance.random((80, 4)) < probs[0, :4]).astype(float)
    said = chance.beta(1, 1, (80, 4))
    weighted = label_bounds_each(said, yes, 0.8, np.full(80, 7.0), np.full(2, 7.0))
    assert weighted == pytest.approx(np.tile(label_bounds(said, yes, 0.8), (2, 1)))


def test_a_weighted_bound_leaves_out_as_much_weight_as_it_may():
    # scores 0.0, 0.2, 0.5 with weights 1, 2, 5, and 2 for the example: of 10, 0.8 is reached by all
    probs = np.array([[0.6, 0.2, 0.2], [0.2, 0.5, 0.3], [0.5, 0.4, 0.1]])
    labels = np.array([0, 1, 1])
    probs[1] = [0.2, 0.6, 0.2]
    labels[1] = 1
    weights = np.array([1.0, 2.0, 5.0])
    assert class_bounds(probs, labels, 0.8, weights, np.array([2.0])) == pytest.approx([0.5])
    assert class_bounds(probs, labels, 0.3, weights, np.array([2.0])) == pytest.approx([0.0])
    assert class_bounds(probs, labels, 0.81, weights, np.array([2.0])) == pytest.approx([1.0])
    # an example that is not seen among held-out ones at all may be anything
    assert class_bounds(probs, labels, 0.3, weights, np.array([2.0, 90.0])).tolist() == [0.0, 1.0]


def _shifted(chance, n, slope):
    """Inputs in 0-1 of density ``1 + slope (x - 1/2)``; a sure student that is wrong where x is."""
    x = chance.random(4 * n)
    x = x[chance.random(4 * n) * (1 + abs(slope) / 2) < 1 + slope * (x - 0.5)][:n]
    assert len(x) == n
    truth = np.stack([1 - 0.45 * x, 0.25 * x, 0.2 * x], 1)
    labels = (truth.cumsum(1) < chance.random((n, 1))).sum(1)
    sure = np.array([0.8, 0.15, 0.05])
    return x, np.tile(sure, (n, 1)) + 1e-3 * x[:, None] * [-1, 1, 0], labels


def test_weighted_sets_hold_under_a_known_shift_and_plain_ones_do_not():
    chance = np.random.default_rng(5)
    plain, weighted = [], []
    for _ in range(300):
        x, probs, labels = _shifted(chance, 200, -1.8)
        new, asked, truth = _shifted(chance, 200, 1.8)

        def ratio(at):
            return (1 + 1.8 * (at - 0.5)) / (1 - 1.8 * (at - 0.5))

        plain.append(coverage(class_sets(asked, class_bound(probs, labels, 0.8)), truth))
        bounds = class_bounds(probs, labels, 0.8, ratio(x), ratio(new))
        weighted.append(coverage(class_sets(asked, bounds), truth))
    spread = 4 * np.std(weighted) / np.sqrt(len(weighted))
    assert np.mean(plain) < 0.79
    assert np.mean(weighted) > 0.8 - spread


def test_weighted_sets_of_labels_hold_under_a_known_shift():
    chance = np.random.default_rng(6)
    plain, weighted = [], []
    for _ in range(200):
        parts = []
        for slope in (-1.8, 1.8):
            x, _, _ = _shifted(chance, 300, slope)
            truth = np.stack([1 - 0.4 * x, 0.05 + 0.5 * x], 1)
            labels = (chance.random(truth.shape) < truth).astype(float)
            # where x is large it is given to the wrong label, now and then
            said = np.where(chance.random((300, 1)) < 0.4 * x[:, None], 1 - truth, truth)
            parts.append((x, said, labels))
        (x, said, labels), (new, asked, truth) = parts
        ratio = [(1 + 1.8 * (at - 0.5)) / (1 - 1.8 * (at - 0.5)) for at in (x, new)]
        bounds = label_bounds(said, labels, 0.8)
        plain.append(whole_coverage(label_sets(asked, bounds), truth))
        bounds = label_bounds_each(said, labels, 0.8, *ratio)
        weighted.append(whole_coverage(label_sets(asked, bounds), truth))
    spread = 4 * np.std(weighted) / np.sqrt(len(weighted))
    assert np.mean(plain) < 0.79
    assert np.mean(weighted) > 0.8 - spread
