"""Whether a file's rows are like the calibration rows, and what its sets are worth."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from mtbkd.explain import promise, shift
from mtbkd.explain.causes import Background, Causes
from mtbkd.explain.outside import Groups, Seen, make_reference, outside_p, outside_scores
from mtbkd.explain.promise import judge_file
from mtbkd.explain.shift import Ratio, density_ratio, energy_test, hold_out, same_kind
from mtbkd.metrics import coverage
from mtbkd.observation.answers import NumberPredictive, Predictive

CLASSES = ("a", "b", "c")


def _rows(chance, n, centre=0.0):
    """Inputs around a centre; the further right, the harder, and the student knows it by half."""
    x = chance.normal(centre, 1.0, (n, 4))
    wrong = 1 / (1 + np.exp(1.5 - 2 * x[:, 0]))
    claimed = 0.5 * np.sqrt(wrong)
    probs = np.stack([1 - claimed, 0.7 * claimed, 0.3 * claimed], 1)
    truth = np.stack([1 - 0.9 * wrong, 0.6 * wrong, 0.3 * wrong], 1)
    labels = (truth.cumsum(1) < chance.random((n, 1))).sum(1).clip(max=2)
    total = -(probs * np.log(probs)).sum(1)
    answer = Predictive(probs, total, 0.8 * total, probs, probs, total, 0.9)
    values = torch.from_numpy(x).float()
    return Seen(values, values.square()), answer, labels


def _background(chance, n=600):
    reference = make_reference(_rows(chance, 500)[0])
    seen, answer, labels = _rows(chance, n)
    scores = outside_scores(reference, seen, answer)
    held_out = hold_out(seen, scores, answer, torch.from_numpy(labels))
    groups = Groups(torch.full((n,), -1), torch.tensor(False))
    nothing = torch.empty(0)
    bound = shift.class_bounds(answer.probs, labels, 0.9, np.ones(n), np.ones(1))
    return Background(
        reference=reference, answers=nothing, dissent=nothing, reliable=nothing,
        held_out=held_out, groups=groups, thresholds=nothing, bounds=torch.from_numpy(bound),
        odds=nothing, level=torch.tensor(0.9, dtype=torch.float64), temperature=torch.tensor(1.0),
    )  # fmt: skip


def _judged(background, seen, answer):
    scores = outside_scores(background.reference, seen, answer)
    p = outside_p(scores, answer, background.held_out.scores.numpy(), background.groups)
    sets = shift.class_sets(answer.probs, float(background.bounds))
    before = Causes(p, p, p, p, ("",) * len(p), sets, scores=scores)
    return before, judge_file(background, seen, answer, before, CLASSES)


def test_p_values_are_uniform_without_shift_and_small_with_it(monkeypatch):
    monkeypatch.setattr(shift, "_PERMUTED", 99)
    chance, alike, other = np.random.default_rng(0), [], []
    for seed in range(300):
        left, right, moved = (chance.normal(size=(25, 3)) for _ in range(3))
        moved[:, 0] += 1.5
        for found, rows in ((alike, right), (other, moved)):
            both = torch.from_numpy(np.vstack([left, rows])).float()
            distances = torch.cdist(both, both)
            found.append(energy_test(distances, 25, np.random.default_rng(seed)))
    for rate in (0.05, 0.2, 0.5):
        share = (np.array(alike) <= rate + 1e-9).mean()
        assert share == pytest.approx(rate, abs=4 * np.sqrt(rate * (1 - rate) / 300))
    assert np.mean(np.array(other) <= 0.01) > 0.9


def test_the_statistic_is_the_energy_distance():
    chance = np.random.default_rng(1)
    both = torch.from_numpy(chance.normal(size=(9, 2)))
    distances = torch.cdist(both, both)

    def energy(rows):
        rest = np.setdiff1d(np.arange(9), rows)
        across = distances[rows][:, rest].mean()
        return 2 * across - distances[rows][:, rows].mean() - distances[rest][:, rest].mean()

    mine = energy(np.arange(4))
    draws, shown = np.random.default_rng(2), np.random.default_rng(2)
    others = [energy(draws.permutation(9)[:4]) for _ in range(shift._PERMUTED)]
    expected = np.mean([mine - 1e-7 <= one for one in [mine, *others]])
    assert energy_test(distances.float(), 4, shown) == pytest.approx(expected, abs=2e-3)


def test_rows_of_the_same_kind_are_not_told_apart(monkeypatch):
    monkeypatch.setattr(shift, "_PERMUTED", 199)
    chance, found = np.random.default_rng(3), []
    for _ in range(40):
        background = _background(chance, 80)
        seen, answer, _ = _rows(chance, 60)
        scores = outside_scores(background.reference, seen, answer)
        found.append(same_kind(background.held_out, seen, scores))
    assert 0.3 < np.mean(found) < 0.7
    assert np.mean(np.array(found) <= 0.05) < 0.2


def test_a_file_of_the_same_kind_is_left_as_it_is():
    chance = np.random.default_rng(4)
    background = _background(chance)
    before, after = _judged(background, *_rows(chance, 400)[:2])
    assert after is before
    few, _ = _rows(chance, 19, 5.0), None
    before, after = _judged(background, *few[:2])
    assert after is before


def test_sets_are_weighted_for_a_file_of_another_kind():
    chance, plain, weighted = np.random.default_rng(5), [], []
    for _ in range(5):
        background = _background(chance)
        seen, answer, labels = _rows(chance, 400, 0.5)
        before, after = _judged(background, seen, answer)
        assert "these 400 rows do not look like the calibration rows (p < 0.001)" in after.note
        assert "weighted for it" in after.note
        assert "hold 90 % only if" in after.note
        plain.append(coverage(before.sets, labels))
        weighted.append(coverage(after.sets, labels))
    assert np.mean(plain) < 0.88
    assert 0.89 < np.mean(weighted) < 0.95


def test_what_weights_cannot_mend_is_told(monkeypatch):
    chance = np.random.default_rng(6)
    background = _background(chance)
    far = _judged(background, *_rows(chance, 100, 4.0)[:2])[1].note
    assert "not to be relied on, since" in far
    assert "of them are outside what was trained on" in far
    near = _rows(chance, 400, 0.5)[:2]
    few = replace(
        background.held_out, labels=background.held_out.labels.masked_fill(
            background.held_out.labels == 2, 1)
    )  # fmt: skip
    assert "no calibration row is c" in _judged(replace(background, held_out=few), *near)[1].note
    monkeypatch.setattr(promise, "_EFFECTIVE", 590)
    assert "calibration rows are like them" in _judged(background, *near)[1].note


def test_intervals_of_numbers_are_told_of():
    chance = np.random.default_rng(7)
    background = _background(chance)
    seen = _rows(chance, 100, 1.0)[0]
    one = np.ones((100, 1))
    said = NumberPredictive(one, one, one, one, one, one, one, 0.9)
    p, scores = np.ones(100), outside_scores(background.reference, seen, said)
    before = Causes(p, p, p, p, ("",) * 100, None, scores=scores)
    causes = judge_file(background, seen, said, before, ("y",))
    assert "their intervals are not known to hold 90 % here" in causes.note
    assert causes.sets is None


def test_the_ratio_is_that_of_the_densities():
    """Two normal densities one apart in all that is looked at: exp(x - 1/2) up to its shape."""
    chance = np.random.default_rng(8)
    background = _background(chance)
    seen, answer, _ = _rows(chance, 600, 0.7)
    scores = outside_scores(background.reference, seen, answer)
    ratio = density_ratio(background.held_out, scores, answer)
    x = background.held_out.inputs.double().numpy()[:, 0]
    assert np.corrcoef(np.log(ratio.held_out), 0.7 * x)[0, 1] > 0.5
    assert ratio.held_out.mean() == pytest.approx(1.0, abs=0.3)
    same, answer, _ = _rows(chance, 600)
    scores = outside_scores(background.reference, same, answer)
    assert density_ratio(background.held_out, scores, answer).effective > 550


def test_the_effective_size_is_that_of_equal_weights():
    assert Ratio(np.array([1.0, 1.0, 0.0, 0.0]), np.ones(1)).effective == pytest.approx(2.0)
    assert Ratio(np.full(7, 3.0), np.ones(1)).effective == pytest.approx(7.0)
