"""How much teachers are worth: closed forms, fits of known size, and what is refused."""

import math

import pytest
import torch
from scipy.stats import t as student_t
from torch import nn

from mtbkd.app.recipes.base import mlp
from mtbkd.app.recipes.synthetic import SCENARIOS, make_world
from mtbkd.distillation.choose import choose_prior
from mtbkd.distillation.evidence import disagreement_evidence, power_of
from mtbkd.distillation.trials import Trials
from mtbkd.inference.modes import MapSettings, find_modes
from mtbkd.prior.settings import Prior, PriorSettings
from mtbkd.student.student import make_student
from mtbkd.training import TrainingSet
from mtbkd.types import InputError
from mtbkd.weights.rules import uniform_weights

N = 50


def constant_teachers(*probs: float):
    """Teachers that say the same everywhere, a student of biases alone, and its best answer."""
    log_probs = torch.tensor([[[p, 1 - p]] for p in probs]).log().expand(-1, N, -1)
    weights = uniform_weights(torch.ones(log_probs.shape[:2], dtype=torch.bool))
    data = TrainingSet(torch.zeros(N, 1), torch.full((N,), -1), log_probs, weights)
    student = make_student(nn.Sequential(nn.Linear(1, 2)), weight_scale=2.0)
    mean = sum(probs) / len(probs)
    best = torch.tensor([0.0, 0.0, math.log(mean), math.log(1 - mean)])
    return student, student.standardised(best), data


def test_power_makes_the_prior_count_for_the_evidence():
    """Concentration * power * N pseudo-observations of each example are the evidence."""
    assert power_of(600, 1.0, 300) == 2.0
    assert 5.0 * power_of(600, 5.0, 300) * 300 == 600


@pytest.mark.parametrize("probs", [(0.2, 0.4), (0.25, 0.3, 0.35), (0.5, 0.6, 0.55, 0.75)])
def test_constant_teachers_are_worth_what_their_variance_says(probs):
    """A share of n trials has variance ``p (1 - p) / n``; their mean, that over K."""
    k, mean = len(probs), sum(probs) / len(probs)
    variance = sum((p - mean) ** 2 for p in probs) / (k - 1) / k
    caution = (student_t.ppf(0.975, k - 1) / 1.959964) ** 2
    expected = mean * (1 - mean) / variance / caution
    assert disagreement_evidence(*constant_teachers(*probs)) == pytest.approx(expected, rel=1e-3)


def test_twice_the_examples_are_the_same_evidence():
    """What teachers are worth does not depend on how often they are asked."""
    student, mode, data = constant_teachers(0.2, 0.4, 0.5)
    twice = TrainingSet(
        data.features.repeat(2, 1),
        data.labels.repeat(2),
        data.values.repeat(1, 2, 1),
        data.log_weights.repeat(1, 2),
    )
    once = disagreement_evidence(student, mode, data)
    assert disagreement_evidence(student, mode, twice) == pytest.approx(once, rel=1e-4)


@pytest.mark.parametrize("scenario", ["two", "five"])
def test_fits_of_independent_samples_are_worth_their_sizes(scenario):
    """Up to the caution for few teachers, and the error of a median of 16 worlds."""
    known = SCENARIOS[scenario]
    student = make_student(mlp([4, 3]), weight_scale=2.0)
    freedom = (known.n_teachers - 1) * 10
    caution = (student_t.ppf(0.975, freedom) / 1.959964) ** 2
    found = []
    for seed in range(16):
        world = make_world(known, seed, 1)
        n = known.transfer
        log_probs = torch.from_numpy(world.told[:, :n]).log().float()
        weights = uniform_weights(torch.from_numpy(world.mask[:, :n]))
        inputs, labels = torch.from_numpy(world.inputs[:n]).float(), world.labels[:n]
        data = TrainingSet(inputs, torch.from_numpy(labels), log_probs, weights)
        modes = find_modes(student, data, Prior(1.0), MapSettings(epochs=60), n_chains=1, seed=0)
        found.append(math.log(disagreement_evidence(student, modes[0], data) * caution))
    error = 1.25 * math.sqrt(2 / freedom / len(found))
    assert abs(float(torch.tensor(found).median()) - math.log(known.evidence)) < 3 * error + 0.05


def settled(settings: PriorSettings, data: TrainingSet) -> Prior:
    student = make_student(nn.Sequential(nn.Linear(1, 2)), weight_scale=2.0)
    modes = MapSettings(epochs=200, batch_size=N)
    return choose_prior(settings, Trials(student, data, modes, None))


def test_declared_evidence_sets_the_power():
    data = constant_teachers(0.2, 0.4)[2]
    prior = settled(PriorSettings(concentration=5.0, evidence=100.0), data)
    assert prior.power == pytest.approx(100 / (5 * N))


def test_estimated_evidence_sets_the_power():
    student, mode, data = constant_teachers(0.2, 0.3, 0.4)
    prior = settled(PriorSettings(concentration=2.0, evidence="disagreement"), data)
    expected = disagreement_evidence(student, mode, data) / (2 * N)
    assert prior.power == pytest.approx(expected, rel=0.05)


@pytest.mark.parametrize("settings", [{"evidence": 0.0}, {"evidence": -1.0}])
def test_evidence_is_positive(settings):
    with pytest.raises(InputError, match="evidence"):
        PriorSettings(**settings)


def test_power_and_evidence_exclude_each_other():
    with pytest.raises(InputError, match=r"either prior\.power or prior\.evidence"):
        PriorSettings(power=0.5, evidence=100.0)


def test_one_teacher_does_not_disagree():
    with pytest.raises(InputError, match="two teachers or more"):
        disagreement_evidence(*constant_teachers(0.3))


def test_copies_of_a_teacher_are_not_certain():
    with pytest.raises(InputError, match="teachers that disagree"):
        disagreement_evidence(*constant_teachers(0.3, 0.3, 0.3))


def test_a_student_without_a_linear_last_layer_is_refused():
    _, _, data = constant_teachers(0.2, 0.4)
    student = make_student(nn.Sequential(nn.Linear(1, 1), nn.ZeroPad1d((0, 1))), weight_scale=2.0)
    with pytest.raises(InputError, match="last layer is linear"):
        disagreement_evidence(student, torch.zeros(student.n_parameters), data)
