"""Who taught what."""

import math

import numpy as np
import torch
from scipy.spatial.distance import jensenshannon

from mtbkd.explain.influence import by_class, disagreement, responsibilities
from mtbkd.inference.samples import PosteriorSamples
from mtbkd.prior.settings import Prior
from mtbkd.student.student import make_student
from mtbkd.training import TrainingSet


def _scene():
    generator = torch.Generator().manual_seed(1)
    student = make_student(torch.nn.Linear(2, 3))
    draws = torch.randn(2, 6, student.n_parameters, generator=generator)
    samples = PosteriorSamples((draws,), student.names, tuple(map(tuple, student.shapes)))
    inputs = torch.randn(7, 2, generator=generator)
    log_probs = torch.randn(3, 7, 3, generator=generator).log_softmax(-1)
    log_weights = torch.randn(3, 7, generator=generator).log_softmax(0)
    return student, samples, inputs, log_probs, log_weights


def test_responsibilities_are_those_of_each_draw_averaged():
    student, samples, inputs, log_probs, log_weights = _scene()
    data = TrainingSet(inputs, torch.full((7,), -1), log_probs, log_weights)
    shares, probs = responsibilities(student, samples, data, Prior(4.0))
    expected, mean = torch.zeros(3, 7), torch.zeros(7, 3)
    for draw in samples.segments[0].flatten(0, 1):
        q = torch.softmax(student.logits_at(draw, inputs), -1)
        density = torch.stack(
            [torch.distributions.Dirichlet(1 + 4 * p.exp()).log_prob(q) for p in log_probs]
        )
        expected += torch.softmax(log_weights + density, 0) / 12
        mean += q / 12
    torch.testing.assert_close(shares, expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(probs, mean, atol=1e-5, rtol=0)


def test_a_silent_teacher_has_no_share():
    student, samples, inputs, log_probs, log_weights = _scene()
    log_weights[1, 2] = -math.inf
    data = TrainingSet(inputs, torch.full((7,), -1), log_probs, log_weights)
    shares, _ = responsibilities(student, samples, data, Prior(4.0))
    assert shares[1, 2] == 0
    torch.testing.assert_close(shares.sum(0), torch.ones(7))


def test_teachers_of_a_class_are_averaged_over_its_examples():
    shares = torch.tensor([[1.0, 0.0, 0.5], [0.0, 1.0, 0.5]])
    probs = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 1.0]])
    expected = torch.tensor([[1.0, 0.25], [0.0, 0.75]])
    torch.testing.assert_close(by_class(shares, probs), expected)


def test_disagreement_of_two_equal_weights_is_the_jensen_shannon_divergence():
    rng = np.random.default_rng(2)
    p = rng.dirichlet(np.ones(4), size=(2, 5))
    half = torch.full((2, 5), 0.5).log()
    expected = jensenshannon(p[0], p[1], axis=1) ** 2
    found = disagreement(half, torch.from_numpy(p).log())
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-6)
    same = disagreement(half, torch.from_numpy(p[:1]).log().expand(2, -1, -1))
    np.testing.assert_allclose(same.numpy(), 0, atol=1e-6)
