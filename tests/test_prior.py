"""The mixture prior against closed forms, its invariances, its limits and its trap."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.distributions import Dirichlet
from torch.nn import functional as F

from mtbkd.prior.mixture import (
    component_log_densities,
    log_responsibilities,
    mixture_log_density,
    mixture_terms,
    warmed_concentration,
)
from mtbkd.weights.rules import uniform_weights

SEEDS = st.integers(0, 2**31 - 1)
COUNTS = st.integers(1, 5)


def simplex(*shape: int, seed: int, spread: float = 2.0) -> torch.Tensor:
    """Random log-probabilities in float64 over the last axis."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(shape, generator=generator, dtype=torch.float64)
    return torch.log_softmax(spread * noise, -1)


def random_case(seed: int, n_teachers: int, n_examples: int, n_classes: int):
    """Teachers, weights and a student: log-probabilities in float64."""
    teachers = simplex(n_teachers, n_examples, n_classes, seed=seed)
    weights = simplex(n_examples, n_teachers, seed=seed + 1, spread=1.0).T
    return teachers, weights, simplex(n_examples, n_classes, seed=seed + 2)


def density(teachers, weights, log_q, concentration, softening=1.0):
    return mixture_log_density(mixture_terms(teachers, weights, concentration, softening), log_q)


@given(SEEDS, COUNTS, COUNTS, st.integers(2, 6), st.floats(0.1, 60), st.floats(0.5, 4))
def test_density_is_the_weighted_sum_of_dirichlets(seed, k, n, c, concentration, softening):
    teachers, weights, log_q = random_case(seed, k, n, c)
    softened = torch.softmax(teachers / softening, -1)
    parts = [Dirichlet(1 + concentration * p).log_prob(log_q.exp()) for p in softened]
    expected = torch.logsumexp(weights + torch.stack(parts), 0)
    torch.testing.assert_close(
        density(teachers, weights, log_q, concentration, softening), expected
    )


@given(SEEDS, COUNTS, st.integers(2, 6), st.floats(0.1, 60))
def test_one_teacher_is_bkd(seed, n, c, concentration):
    teachers, _, log_q = random_case(seed, 1, n, c)
    p = teachers[0].exp()
    log_beta = torch.lgamma(1 + concentration * p).sum(-1) - math.lgamma(c + concentration)
    expected = concentration * (p * log_q).sum(-1) - log_beta
    torch.testing.assert_close(density(teachers, torch.zeros(1, n), log_q, concentration), expected)


@pytest.mark.parametrize("concentration", [0.5, 5.0, 50.0])
def test_mode_with_one_teacher_is_the_teacher(concentration):
    teachers = simplex(1, 4, 5, seed=0)
    terms = mixture_terms(teachers, torch.zeros(1, 4), concentration)
    logits = torch.zeros(4, 5, dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.LBFGS([logits], max_iter=500, line_search_fn="strong_wolfe")

    def loss():
        optimiser.zero_grad()
        value = -mixture_log_density(terms, torch.log_softmax(logits, -1)).sum()
        value.backward()
        return value

    optimiser.step(loss)
    torch.testing.assert_close(logits.softmax(-1).detach(), teachers[0].exp(), atol=1e-4, rtol=0)


def test_gradient_with_one_teacher_is_that_of_hinton_distillation():
    torch_seed = torch.Generator().manual_seed(0)
    inputs = torch.randn(6, 3, generator=torch_seed, dtype=torch.float64)
    weight = torch.randn(4, 3, generator=torch_seed, dtype=torch.float64).requires_grad_()
    teachers, concentration = simplex(1, 6, 4, seed=1), 7.0
    prior = density(teachers, torch.zeros(1, 6), (inputs @ weight.T).log_softmax(-1), concentration)
    distillation = F.cross_entropy(inputs @ weight.T, teachers[0].exp(), reduction="sum")
    (ours,) = torch.autograd.grad(prior.sum(), weight)
    (hinton,) = torch.autograd.grad(distillation, weight)
    torch.testing.assert_close(ours, -concentration * hinton)


@pytest.mark.parametrize("axis", ["teachers", "examples", "classes"])
def test_order_does_not_matter(axis):
    teachers, weights, log_q = random_case(3, 3, 4, 5)
    before = density(teachers, weights, log_q, 10.0)
    if axis == "teachers":
        after = density(teachers[[2, 0, 1]], weights[[2, 0, 1]], log_q, 10.0)
    elif axis == "examples":
        rows, back = [3, 1, 0, 2], [2, 1, 3, 0]
        after = density(teachers[:, rows], weights[:, rows], log_q[rows], 10.0)[back]
    else:
        columns = [4, 2, 0, 1, 3]
        after = density(teachers[:, :, columns], weights, log_q[:, columns], 10.0)
    torch.testing.assert_close(after, before)


@given(SEEDS, COUNTS, st.integers(2, 6), st.floats(0.1, 60))
def test_gradient_is_shared_by_responsibility(seed, k, c, concentration):
    teachers, weights, log_q = random_case(seed, k, 3, c)
    terms = mixture_terms(teachers, weights, concentration)
    logits = log_q.clone().requires_grad_()
    components = component_log_densities(terms, torch.log_softmax(logits, -1))
    each = torch.stack(
        [torch.autograd.grad(part.sum(), logits, retain_graph=True)[0] for part in components]
    )
    shares = log_responsibilities(terms, log_q).exp()
    mixture = mixture_log_density(terms, torch.log_softmax(logits, -1)).sum()
    (gradient,) = torch.autograd.grad(mixture, logits)
    torch.testing.assert_close(shares.sum(0), torch.ones(3, dtype=torch.float64))
    torch.testing.assert_close(gradient, (shares[:, :, None] * each).sum(0), atol=1e-8, rtol=1e-6)


@pytest.mark.parametrize("kind", ["one_hot", "uniform", "disagreeing"])
@pytest.mark.parametrize("n_classes", [2, 1000])
@pytest.mark.parametrize("extreme", [1.0, 80.0])
def test_finite_under_stress(kind, n_classes, extreme):
    certain = F.one_hot(torch.tensor([[0, 1], [0, 1]]), n_classes).float().log()
    teachers = {
        "one_hot": certain,
        "uniform": torch.full((2, 2, n_classes), -math.log(n_classes)),
        "disagreeing": torch.stack([certain[0], certain[0].flip(0)]),
    }[kind]
    generator = torch.Generator().manual_seed(0)
    logits = (extreme * torch.randn(2, n_classes, generator=generator)).requires_grad_()
    weights = uniform_weights(torch.ones(2, 2, dtype=torch.bool))
    terms = mixture_terms(teachers, weights, 100.0)
    values = mixture_log_density(terms, torch.log_softmax(logits, -1))
    (gradient,) = torch.autograd.grad(values.sum(), logits)
    assert all(part.isfinite().all() for part in (*terms, values, gradient))
    assert extreme > 1 or gradient.abs().max() > 0
    assert gradient.abs().max() < 101.0  # no pull is stronger than the concentration


def test_example_without_teacher_is_constant_and_does_not_pull():
    teachers, _, log_q = random_case(0, 2, 3, 4)
    mask = torch.tensor([[True, False, True], [True, False, False]])
    terms = mixture_terms(teachers, uniform_weights(mask).double(), 20.0)
    logits = log_q.clone().requires_grad_()
    values = mixture_log_density(terms, torch.log_softmax(logits, -1))
    (gradient,) = torch.autograd.grad(values.sum(), logits)
    assert values[1].item() == pytest.approx(0.0, abs=1e-12)
    assert torch.equal(gradient[1], torch.zeros(4, dtype=torch.float64))
    assert (gradient[[0, 2]].abs().amax(1) > 0.1).all()


def test_masked_teacher_has_no_influence():
    teachers, _, log_q = random_case(0, 3, 4, 5)
    mask = torch.tensor([[True] * 4, [False] * 4, [True] * 4])
    weights = uniform_weights(mask).double()
    other = teachers.clone()
    other[1] = simplex(4, 5, seed=99, spread=9.0)
    pair = density(teachers[[0, 2]], torch.full((2, 4), -math.log(2.0)).double(), log_q, 9.0)
    torch.testing.assert_close(density(teachers, weights, log_q, 9.0), pair, atol=1e-6, rtol=1e-6)
    assert torch.equal(density(teachers, weights, log_q, 9.0), density(other, weights, log_q, 9.0))


@pytest.mark.parametrize("target", [0.5, 1.0, 20.0, 100.0])
def test_warm_up_goes_from_one_to_the_target(target):
    path = [warmed_concentration(p, target) for p in (0.0, 0.1, 0.25, 0.4, 0.5, 0.75, 1.0)]
    assert path[0] == pytest.approx(min(1.0, target))
    assert path[2] == pytest.approx(math.sqrt(min(1.0, target) * target))
    assert path[4:] == pytest.approx([target] * 3)
    assert path == sorted(path)
    assert target <= 1 or len(set(path[:5])) == 5


def test_large_concentration_locks_on_the_most_uncertain_teacher_at_the_start():
    sure = torch.log_softmax(torch.tensor([6.0] + [0.0] * 9), 0)
    teachers = torch.stack([sure, torch.full((10,), -math.log(10.0))])[:, None]
    weights = uniform_weights(torch.ones(2, 1, dtype=torch.bool))
    near_uniform = torch.log_softmax(0.01 * torch.arange(10.0), 0)[None]
    share = {
        concentration: log_responsibilities(
            mixture_terms(teachers, weights, concentration), near_uniform
        ).exp()[:, 0]
        for concentration in (20.0, warmed_concentration(0.0, 20.0))
    }
    assert share[20.0][1] > 0.999
    assert share[1.0][0] > 0.3
