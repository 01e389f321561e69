"""Temperatures of a posterior that is not as sure as it is right."""

import math

import numpy as np
import pytest
import torch

import mtbkd
from mtbkd.data import make_dataset
from mtbkd.distillation.temperature import find_temperature, tempered_by_others
from mtbkd.observation import OUTCOMES


def said(n, seed, wrong=1.0, n_draws=20):
    """Draws that differ, and labels that come from their mean at another temperature."""
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(n, 3, generator=generator)
    draws = logits + 0.3 * torch.randn(n_draws, n, 3, generator=generator)
    probs = (draws / wrong).softmax(-1).mean(0)
    labels = torch.multinomial(probs, 1, generator=generator)[:, 0]
    return draws, labels


@pytest.mark.parametrize("wrong", [0.5, 1.0, 2.0])
def test_the_temperature_is_that_of_the_labels(wrong):
    draws, labels = said(4000, 0, wrong)
    assert find_temperature(draws, labels, "classification") == pytest.approx(wrong, rel=0.1)


def test_wrong_labels_do_not_make_the_student_doubt(monkeypatch):
    draws, labels = said(4000, 4)
    lied = labels.clone()
    lied[::5] = torch.randint(3, (800,), generator=torch.Generator().manual_seed(0))
    assert find_temperature(draws, lied, "classification") == pytest.approx(1.0, rel=0.1)
    monkeypatch.setattr("mtbkd.distillation.temperature._MOST_WRONG", 0.0)
    assert find_temperature(draws, lied, "classification") > 1.3


def test_a_temperature_that_gains_less_than_chance_is_none():
    draws, labels = said(100, 5, 0.9)
    assert find_temperature(draws, labels, "classification") == 1.0
    draws, labels = said(4000, 5, 0.9)
    assert find_temperature(draws, labels, "classification") < 1


@pytest.mark.parametrize("wrong", [0.5, 2.0])
def test_that_of_several_labels_leaves_out_missing_ones(wrong):
    generator = torch.Generator().manual_seed(1)
    draws = 2 * torch.randn(1, 3000, 2, generator=generator).expand(3, -1, -1)
    chance = torch.rand(3000, 2, generator=generator)
    labels = (chance < torch.sigmoid(draws[0] / wrong)).float()
    labels[::3, 1] = math.nan
    assert find_temperature(draws, labels, "multilabel") == pytest.approx(wrong, rel=0.1)


def test_few_labels_say_little_none_say_nothing_and_numbers_have_none():
    draws, labels = said(12, 2, 0.3)
    right = draws.mean(0).argmax(1)
    assert 0.6 < find_temperature(draws, right, "classification") < 1
    assert find_temperature(draws, torch.full_like(labels, -1), "classification") == 1
    assert find_temperature(draws[..., :2], torch.zeros(12, 1), "regression") == 1


def test_a_fold_is_answered_at_a_temperature_that_its_labels_did_not_find():
    draws, labels = said(500, 3, 0.5)
    fold = torch.arange(500) % 5

    def answers(labels):
        asked = {}

        def answer(mine, temperature):
            asked[int(fold[mine][0])] = temperature
            outcome = OUTCOMES["classification"]
            own = draws[:, mine] / temperature
            return outcome.summarise(own, units=None, level=0.9, point="mean")

        found, final = tempered_by_others(draws, labels, fold, "classification", answer)
        return found, final, asked

    found, final, asked = answers(labels)
    wrong = torch.where(fold == 2, (labels + 1) % 3, labels)
    lied, last, others = answers(wrong)
    assert others[2] == asked[2]
    assert all(others[k] > asked[k] for k in (0, 1, 3, 4))
    assert last > final
    np.testing.assert_array_equal(found.probs[2::5], lied.probs[2::5])
    mean = (draws[:, 7] / asked[2]).softmax(-1).mean(0)
    np.testing.assert_allclose(found.probs[7], mean, rtol=1e-5)


def test_a_student_answers_at_its_temperature_and_the_split_stays_one():
    inputs = torch.randn(40, 2, generator=torch.Generator().manual_seed(0))
    data = make_dataset(inputs, labels=(inputs[:, 0] > 0).long(), classes=["a", "b"])
    posterior = mtbkd.distill(
        torch.nn.Linear(2, 2),
        data,
        None,
        modes=mtbkd.MapSettings(epochs=5),
        sampler=mtbkd.SamplerSettings(burn_in=20, draws=10, thinning=2),
        chains=2,
    )
    cold = posterior.at_temperature(0.5)
    draws = torch.cat(
        [posterior.student.logits_each(d, inputs) for d in posterior.samples.segments[0]]
    )
    expected = (draws / 0.5).softmax(-1)
    answer = cold.predict(inputs)
    np.testing.assert_allclose(answer.probs, expected.mean(0), atol=1e-5)
    entropy = -(expected * expected.log()).sum(-1).mean(0)
    np.testing.assert_allclose(answer.aleatoric, entropy, atol=1e-5)
    assert (answer.total < posterior.predict(inputs).total + 1e-6).all()
    few = cold.thin(4, inputs)
    assert np.abs(few.predict(inputs).probs - answer.probs).max() < 0.05
