"""The posterior predictive against direct computation from the draws."""

import numpy as np
import pytest
import torch
from scipy.stats import entropy, gaussian_kde

from mtbkd import predictive as module
from mtbkd.inference.samples import PosteriorSamples
from mtbkd.predictive import credible_set, draw_probs, predict
from mtbkd.student.student import make_student


@pytest.fixture
def drawn():
    """A student 3-4-5, two segments of draws of two chains, nine inputs."""
    generator = torch.Generator().manual_seed(5)
    network = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Tanh(), torch.nn.Linear(4, 5))
    student = make_student(network)
    segments = tuple(torch.randn(2, n, student.n_parameters, generator=generator) for n in (10, 15))
    samples = PosteriorSamples(segments, student.names, tuple(map(tuple, student.shapes)))
    return student, samples, torch.randn(9, 3, generator=generator)


def direct(student, samples, inputs):
    """Probabilities of every draw by plain loops: (draw, example, class)."""
    every = torch.cat([s.flatten(0, 1) for s in samples.segments])
    return torch.stack(
        [torch.softmax(student.logits_at(d, inputs), -1) for d in every]
    ).numpy().astype(np.float64)  # fmt: skip


def test_uncertainty_splits_as_entropies_of_the_draws_do(drawn):
    probs, answer = direct(*drawn), predict(*drawn)
    mean = probs.mean(0)
    np.testing.assert_allclose(answer.probs, mean, atol=1e-6)
    np.testing.assert_allclose(answer.total, entropy(mean, axis=1), atol=1e-6)
    np.testing.assert_allclose(answer.aleatoric, entropy(probs, axis=2).mean(0), atol=1e-6)
    np.testing.assert_allclose(answer.total, answer.aleatoric + answer.epistemic, atol=1e-12)
    np.testing.assert_allclose(answer.second, np.sort(probs, 2)[:, :, -2].mean(0), atol=1e-6)
    deviance = (-2 * probs * np.log(probs)).sum(2).mean(0)
    np.testing.assert_allclose(answer.deviance, deviance, atol=1e-5)
    assert (answer.epistemic > 0.01).any()


def test_intervals_are_quantiles_of_the_draws(drawn):
    probs, answer = direct(*drawn), predict(*drawn, level=0.8)
    np.testing.assert_allclose(answer.lower, np.quantile(probs, 0.1, axis=0), atol=1e-6)
    np.testing.assert_allclose(answer.upper, np.quantile(probs, 0.9, axis=0), atol=1e-6)


def test_mode_is_that_of_a_kernel_density(drawn):
    probs, answer = direct(*drawn), predict(*drawn, point="mode")
    grid = np.linspace(0, 1, 2001)
    modes = np.empty(answer.probs.shape)
    for i, c in np.ndindex(*modes.shape):
        modes[i, c] = grid[gaussian_kde(probs[:, i, c])(grid).argmax()]
    modes /= modes.sum(1, keepdims=True)
    np.testing.assert_allclose(answer.probs, modes, atol=0.03)
    np.testing.assert_allclose(answer.probs.sum(1), 1)
    assert np.abs(answer.probs - probs.mean(0)).max() > 0.05


def test_batches_of_examples_change_nothing(drawn, monkeypatch):
    whole = predict(*drawn)
    monkeypatch.setattr(module, "_BUDGET", 2 * 25 * 5 * 2)  # two examples at a time
    sizes = [part.shape[2] for part in draw_probs(*drawn)]
    assert sizes == [2, 2, 2, 2, 1]
    np.testing.assert_allclose(predict(*drawn).probs, whole.probs, atol=1e-7)


def test_credible_set_is_the_smallest_that_holds_the_mass():
    rng = np.random.default_rng(0)
    probs = rng.dirichlet(np.ones(6), size=50)
    sets = credible_set(probs, 0.9)
    for p, chosen in zip(probs, sets, strict=True):
        assert p[chosen].sum() >= 0.9
        smaller = np.sort(p)[::-1][: chosen.sum() - 1]
        assert smaller.sum() < 0.9


def test_a_credible_set_is_never_empty():
    assert credible_set(np.array([[1.0, 0.0]]), 0.5).sum() == 1
