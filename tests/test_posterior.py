"""The log posterior against its definition, and its closed-form gradient against autograd."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.distributions import Categorical, Dirichlet, Normal

from mtbkd.inference.chains import chainwise_gradient
from mtbkd.inference.run import SamplerSettings, sample
from mtbkd.prior.mixture import MixtureTerms, Prior, mixture_terms
from mtbkd.student.log_posterior import log_posterior, posterior_gradient
from mtbkd.student.student import Student, make_student
from mtbkd.training import TrainingSet
from mtbkd.types import Batch
from mtbkd.weights.rules import uniform_weights

TOLERANCE = {"rtol": 1e-9, "atol": 1e-10}
N_FEATURES = 3


def make_case(seed=0, n_teachers=2, n_examples=6, n_classes=3, concentration=4.0):
    """A student and a batch with every third label missing, in float64."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    network = nn.Sequential(nn.Linear(N_FEATURES, 4), nn.Tanh(), nn.Linear(4, n_classes)).double()
    teachers = torch.log_softmax(2 * normal(n_teachers, n_examples, n_classes), -1)
    weights = torch.log_softmax(normal(n_teachers, n_examples), 0)
    labels = torch.randint(n_classes, (n_examples,), generator=generator)
    labels[::3] = -1
    terms = mixture_terms(teachers, weights, concentration)
    batch = Batch(normal(n_examples, N_FEATURES), labels, terms)
    student = make_student(network, weight_scale=2.0)
    return student, batch, normal(2, student.n_parameters), (teachers, weights)


def chains_of(batch: Batch, n_chains: int) -> Batch:
    return batch.each(lambda part: part.expand(n_chains, *part.shape))


def rows_of(batch: Batch, rows) -> Batch:
    terms = MixtureTerms(*(part[:, rows] for part in batch.terms))
    return Batch(batch.inputs[rows], batch.labels[rows], terms)


def full_log_density(student: Student, batch: Batch, position, teachers, weights, concentration):
    """The definition: sums of torch.distributions' densities, parameters in natural units."""
    probs = student.logits(position, batch.inputs).softmax(-1)
    known = batch.labels >= 0
    likelihood = Categorical(probs[known]).log_prob(batch.labels[known]).sum()
    parts = torch.stack([Dirichlet(1 + concentration * p).log_prob(probs) for p in teachers.exp()])
    parameters = student.natural(position)
    prior = Normal(student.prior_mean.double(), student.prior_scale.double()).log_prob(parameters)
    return likelihood, torch.logsumexp(weights + parts, 0).sum(), prior.sum()


@pytest.mark.parametrize("power", [1.0, 0.02])
def test_equals_its_definition_up_to_a_constant(power):
    student, batch, positions, (teachers, weights) = make_case(concentration=4.0)
    n_examples = len(batch.labels)
    value = log_posterior(student, n_examples, Prior(power=power))
    gaps = []
    for position in positions:
        parts = full_log_density(student, batch, position, teachers, weights, 4.0)
        expected = parts[0] + power * parts[1] + parts[2]
        gaps.append(expected - n_examples * value(position, batch))
    torch.testing.assert_close(gaps[0], gaps[1])


@given(
    st.integers(0, 10_000),
    st.integers(1, 4),
    st.integers(1, 7),
    st.integers(2, 5),
    st.floats(0.1, 50.0),
    st.floats(0.01, 3.0),
    st.floats(0.5, 4.0),
)
def test_closed_form_gradient_is_autograd(seed, k, n, c, concentration, power, softening):
    student, batch, positions, _ = make_case(seed, k, n, c, concentration)
    strength = Prior(power=power, student_softening=softening)
    values, gradients = posterior_gradient(student, 50, strength)(positions, chains_of(batch, 2))
    expected = chainwise_gradient(log_posterior(student, 50, strength))(
        positions, chains_of(batch, 2)
    )
    torch.testing.assert_close(values, expected[0], **TOLERANCE)
    torch.testing.assert_close(gradients, expected[1], **TOLERANCE)


@pytest.mark.parametrize("softening", [1.0, 2.0])
def test_closed_form_gradient_is_the_slope_of_its_value(softening):
    student, batch, positions, _ = make_case()
    gradient = posterior_gradient(student, 6, Prior(power=0.7, student_softening=softening))
    direction = torch.linspace(-1, 1, student.n_parameters, dtype=torch.float64).expand(2, -1)
    size, whole = 1e-5, chains_of(batch, 2)
    ahead = gradient(positions + size * direction, whole)[0]
    behind = gradient(positions - size * direction, whole)[0]
    slope = (gradient(positions, whole)[1] * direction).sum(1)
    torch.testing.assert_close(slope, (ahead - behind) / (2 * size), rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("softening", [1.0, 2.0])
def test_each_chain_may_have_its_own_power(softening):
    student, batch, positions, _ = make_case()
    powers, whole = torch.tensor([0.3, 4.0], dtype=torch.float64), chains_of(batch, 2)
    together = posterior_gradient(student, 6, Prior(power=powers, student_softening=softening))(
        positions, whole
    )
    for c, power in enumerate(powers.tolist()):
        own = posterior_gradient(student, 6, Prior(power=power, student_softening=softening))
        values, grads = own(positions[c : c + 1], chains_of(batch, 1))
        torch.testing.assert_close(together[0][c : c + 1], values, **TOLERANCE)
        torch.testing.assert_close(together[1][c : c + 1], grads, **TOLERANCE)


def test_chains_do_not_mix():
    student, batch, positions, _ = make_case()
    other = rows_of(batch, [5, 4, 3, 2, 1, 1])
    terms = (torch.stack(pair) for pair in zip(batch.terms, other.terms, strict=True))
    both = Batch(
        torch.stack([batch.inputs, other.inputs]),
        torch.stack([batch.labels, other.labels]),
        MixtureTerms(*terms),
    )
    gradient = posterior_gradient(student, 6)
    values, together = (part.clone() for part in gradient(positions, both))
    for c, own in enumerate((batch, other)):
        value, alone = gradient(positions[c : c + 1], chains_of(own, 1))
        torch.testing.assert_close(values[c : c + 1], value, **TOLERANCE)
        torch.testing.assert_close(together[c : c + 1], alone, **TOLERANCE)
    assert not torch.allclose(together[0], together[1])


@pytest.mark.parametrize("size", [1, 2, 3, 4, 6])
def test_minibatch_gradients_average_to_the_full_one(size):
    student, batch, positions, _ = make_case(n_examples=12)
    gradient = posterior_gradient(student, 12, Prior(power=0.5))
    full = [part.clone() for part in gradient(positions, chains_of(batch, 2))]
    parts = [rows_of(batch, list(range(i, i + size))) for i in range(0, 12, size)]
    each = [[p.clone() for p in gradient(positions, chains_of(part, 2))] for part in parts]
    for i in range(2):
        average = torch.stack([one[i] for one in each]).mean(0)
        torch.testing.assert_close(average, full[i], **TOLERANCE)


def test_only_the_weight_prior_is_divided_by_the_number_of_examples():
    student, batch, positions, _ = make_case()
    gradient = {n: posterior_gradient(student, n)(positions, chains_of(batch, 2)) for n in (6, 600)}
    difference = gradient[6][1] - gradient[600][1]
    torch.testing.assert_close(difference, -positions * (1 / 6 - 1 / 600), **TOLERANCE)
    energy = 0.5 * positions.square().sum(1)
    difference = gradient[6][0] - gradient[600][0]
    torch.testing.assert_close(difference, -energy * (1 / 6 - 1 / 600), **TOLERANCE)


def test_twice_the_data_is_twice_the_evidence():
    student, batch, positions, _ = make_case()
    double = rows_of(batch, [*range(6), *range(6)])
    once = posterior_gradient(student, 6)(positions, chains_of(batch, 2))[1]
    twice = posterior_gradient(student, 12)(positions, chains_of(double, 2))[1]
    torch.testing.assert_close(12 * twice + positions, 2 * (6 * once + positions), **TOLERANCE)


@pytest.mark.parametrize(
    "build", [posterior_gradient, lambda *a: chainwise_gradient(log_posterior(*a))]
)
def test_unlabelled_rows_teach_through_the_teachers_alone(build):
    student, batch, positions, _ = make_case()
    gradient = build(student, 6, Prior(power=0.5))
    blind = batch._replace(labels=torch.full((6,), -1))
    other = batch._replace(labels=torch.where(batch.labels < 0, -7, batch.labels))
    first = [part.clone() for part in gradient(positions, chains_of(batch, 2))]
    for ours, theirs in zip(first, gradient(positions, chains_of(other, 2)), strict=True):
        assert torch.equal(ours, theirs)
    teachers_alone = build(student, 6, Prior(power=0.25))
    half = teachers_alone(positions, chains_of(blind, 2))[1].clone() + positions / 6
    whole = gradient(positions, chains_of(blind, 2))[1] + positions / 6
    torch.testing.assert_close(whole, 2 * half, **TOLERANCE)


@pytest.mark.parametrize("engine", ["sghmc", "sgld"])
def test_posterior_of_two_parameters_is_that_of_a_grid(engine):
    """The chain's temperature, batches and units, all at once, against numerical integration.

    ``sgld`` may be off by its tolerance; chains are independent, so their spread is the error.
    """
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(12, 1, generator=generator)
    teachers = torch.log_softmax(2 * torch.randn(2, 12, 2, generator=generator), -1)
    labels = torch.tensor([-1, 0, 1] * 4)
    weights = uniform_weights(torch.ones(2, 12, dtype=torch.bool))
    data, prior = TrainingSet(features, labels, teachers, weights), Prior(4.0)
    student = make_student(nn.Linear(1, 2, bias=False), weight_scale=0.7)
    axis = torch.linspace(-6, 6, 161)
    grid = torch.cartesian_prod(axis, axis)
    batch = Batch(features, labels, mixture_terms(teachers, weights, prior.concentration))
    log_density = torch.vmap(lambda position: log_posterior(student, 12)(position, batch))
    density = torch.softmax(12 * log_density(grid), 0)
    mean = density @ student.natural(grid)
    centred = student.natural(grid) - mean
    covariance = (density[:, None] * centred).T @ centred

    settings = SamplerSettings(engine, burn_in=300, draws=60, thinning=30, batch_size=12)
    chains = sample(student, data, prior, settings, torch.zeros(64, 2), seed=0)
    draws = torch.cat(chains.samples.segments, dim=1) - mean
    shift = draws.mean(1)
    error = shift.std(0) / math.sqrt(len(draws))
    variance = covariance.diag().min()
    assert (error < 0.1 * variance.sqrt()).all()
    assert (shift.mean(0).abs() < 4 * error).all()
    outer = (draws[..., None] * draws[..., None, :]).mean(1)
    error = outer.std(0) / math.sqrt(len(draws))
    assert (error < 0.1 * variance).all()
    assert ((outer.mean(0) - covariance).abs() < 4 * error + settings.tolerance * variance).all()
