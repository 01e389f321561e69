"""The flag of what is outside: false alarms are what they say, whatever the scores."""

import numpy as np
import pytest
import torch

from mtbkd.explain.outside import (
    Groups,
    Seen,
    joint_tail,
    make_groups,
    make_reference,
    outside_p,
    outside_scores,
)
from mtbkd.predictive import NumberPredictive, Predictive


def _scores(chance, n, scale=1.0):
    """Three scores that depend on each other and have ties."""
    common = chance.normal(size=(n, 1))
    return scale * np.exp(np.round(common + chance.normal(size=(n, 3)), 1))


def _answer(classes, n_classes=2):
    probs = np.eye(n_classes)[classes]
    none = np.zeros(len(classes))
    return Predictive(probs, none, none, probs, probs, none, 0.9)


def _bounds(rate, n):
    """Four standard errors of a share, whose held-out examples were drawn once for 50 new ones."""
    return 4 * np.sqrt(rate * (1 - rate) / n)


@pytest.mark.parametrize("n", [19, 99])
def test_p_values_are_uniform_for_examples_of_the_same_kind(n):
    chance, found = np.random.default_rng(n), []
    for _ in range(4000):
        both = np.exp(chance.normal(size=(n + 1, 1)) + chance.normal(size=(n + 1, 3)))
        found.append(joint_tail(both[:1], both[1:])[0])
    for rate in (0.05, 0.1, 0.5):
        share = (np.array(found) <= rate + 1e-9).mean()
        assert share == pytest.approx(rate, abs=_bounds(rate, 4000))


def test_the_joint_tail_is_that_of_ranks_taken_anew():
    """By the definition: the example among the held-out ones, and everything ranked again."""
    chance = np.random.default_rng(1)
    new, held_out = _scores(chance, 20), _scores(chance, 30)
    for x, found in zip(new, joint_tail(new, held_out), strict=True):
        every = np.vstack([held_out, x])
        ranks = (every[None] >= every[:, None]).sum(1)
        inverse = (1 / ranks).sum(1)
        assert found == pytest.approx((inverse >= inverse[-1] - 1e-9).mean())


def test_either_score_alone_makes_an_example_outside():
    held_out = _scores(np.random.default_rng(2), 200)
    middle = np.median(held_out, 0)
    for column in range(3):
        odd = middle.copy()
        odd[column] = 1e6
        assert joint_tail(odd[None], held_out)[0] <= 4 / 201
    assert joint_tail(np.full((1, 3), 1e6), held_out)[0] == pytest.approx(1 / 201)
    assert joint_tail(middle[None], held_out)[0] > 0.3


def test_no_group_is_flagged_more_often_than_is_said():
    """The second source is further away by nature, and rarer."""
    chance, flagged, pooled = np.random.default_rng(3), [], []
    for _ in range(400):
        held_out = np.vstack([_scores(chance, 150), _scores(chance, 50, 20.0)])
        source = np.repeat([0, 1], [150, 50])
        new = np.vstack([_scores(chance, 25), _scores(chance, 25, 20.0)])
        said, other = _answer(np.zeros(50, int)), _answer(np.zeros(200, int))
        p = outside_p(new, said, held_out, make_groups(source, other))
        flagged.append([(p[:25] <= 0.05).mean(), (p[25:] <= 0.05).mean()])
        p = outside_p(new, said, held_out, make_groups(None, other))
        pooled.append([(p[:25] <= 0.05).mean(), (p[25:] <= 0.05).mean()])
    rates = np.mean(flagged, 0)
    spread = 4 * np.std(flagged, 0) / np.sqrt(400)
    assert (rates <= 0.05 + spread).all()
    assert rates[1] > 0.01
    assert np.mean(pooled, 0)[1] > 0.1


def test_a_rare_class_is_not_flagged_wholesale():
    chance, flagged, pooled = np.random.default_rng(4), [], []
    for _ in range(400):
        held_out = np.vstack([_scores(chance, 400), _scores(chance, 60, 20.0)])
        groups = make_groups(None, _answer(np.repeat([0, 1], [400, 60])))
        new, said = _scores(chance, 20, 20.0), _answer(np.ones(20, int))
        flagged.append((outside_p(new, said, held_out, groups) <= 0.05).mean())
        pooled.append((joint_tail(new, held_out) <= 0.05).mean())
    assert np.mean(flagged) == pytest.approx(0.05, abs=4 * np.std(flagged) / 20 + 1 / 61)
    assert np.mean(pooled) > 0.2


def test_small_groups_are_compared_with_all():
    chance = np.random.default_rng(5)
    held_out = _scores(chance, 90)
    groups = make_groups(None, _answer(np.repeat([0, 1], [60, 30])))
    assert groups.members.tolist() == [0] * 60 + [-1] * 30
    new = _scores(chance, 10)
    found = outside_p(new, _answer(np.repeat([0, 1], 5)), held_out, groups)
    assert found[:5] == pytest.approx(joint_tail(new[:5], held_out[:60]))
    assert found[5:] == pytest.approx(joint_tail(new[5:], held_out))
    given = Groups(groups.members, torch.tensor(True))
    most = np.maximum(joint_tail(new, held_out[:60]), joint_tail(new, held_out))
    assert outside_p(new, _answer(np.zeros(10, int)), held_out, given) == pytest.approx(most)


def test_distances_are_relative_to_how_dense_it_is_there():
    chance = np.random.default_rng(6)
    dense = chance.normal(0, 0.1, (100, 2))
    wide = chance.normal(0, 3, (100, 2)) + [40, 0]
    points = torch.from_numpy(np.vstack([dense, wide])).float()
    reference = make_reference(Seen(points, points))
    new = torch.tensor([[1.0, 0.0], [40.5, 0.5], [0.0, 0.0]])
    scores = outside_scores(reference, Seen(new, new), _answer(np.zeros(3, int)))
    assert scores[0, 0] > 5  # ten times its neighbours' distances, yet nearer than the next
    assert scores[1:, 0].max() < 2
    scaled = make_reference(Seen(100 * points, points))
    again = outside_scores(scaled, Seen(100 * new, new), _answer(np.zeros(3, int)))
    assert again == pytest.approx(scores, rel=1e-2)


def test_doubt_about_numbers_is_information():
    one = np.ones((3, 2))
    epistemic = np.array([[0.0, 0.0], [1.0, 0.0], [3.0, 3.0]])
    said = NumberPredictive(one, one, epistemic, one, one, one, one, 0.9)
    points = torch.zeros(3, 1)
    scores = outside_scores(make_reference(Seen(points, points)), Seen(points, points), said)
    assert scores[:, 2] == pytest.approx([0.0, 0.5 * np.log(2), np.log(4)])
