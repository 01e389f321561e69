"""Simulation-based calibration (Talts et al. 2018, arXiv:1804.06788) of the whole sampler.

The teachers are fixed. Parameters are drawn from the prior, which is the weight prior times the
mixture prior, exactly: by rejection from the weight prior. Labels are drawn from the likelihood at
the labelled examples. If `sample` draws from the posterior, the rank of any statistic at the true
parameters among its values at nearly independent posterior draws is uniform. Replications run side
by side as chains, each with labels of its own, through the product's own driver, adaptation
included. Chains start at zero: started at the truth, a chain that stays there would look
calibrated.
"""

from dataclasses import replace
from typing import NamedTuple

import numpy as np
import pytest
import torch
from scipy.stats import chi2
from torch import nn

from mtbkd.inference import run as run_module
from mtbkd.inference.engines import METHODS, SamplerSettings
from mtbkd.prior.mixture import (
    Prior,
    component_log_densities,
    mixture_log_density,
    mixture_terms,
)
from mtbkd.student.student import make_student
from mtbkd.training import TrainingSet
from mtbkd.types import Batch

REPLICATIONS, DRAWS, BINS, SIGNIFICANCE = 500, 39, 20, 0.01
EXAMPLES, CLASSES, CONCENTRATION = 12, 3, 2.0
LABELLED = torch.arange(EXAMPLES) % 4 != 3


class Model(NamedTuple):
    """What stays the same in all replications."""

    student: object
    data: TrainingSet
    terms: object
    new: torch.Tensor


def make_model() -> Model:
    """A softmax regression with six parameters, and two teachers of its kind that differ."""
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(EXAMPLES, 2, generator=generator)
    weights = torch.tensor(
        [[[1.5, 0.0], [-1.0, 1.0], [0.0, -1.0]], [[-0.5, 1.0], [1.0, 0.5], [0.0, -1.0]]]
    )
    log_probs = torch.einsum("kcf,nf->knc", weights, features).log_softmax(-1)
    log_weights = torch.randn(2, EXAMPLES, generator=generator).log_softmax(0)
    student = make_student(nn.Linear(2, CLASSES, bias=False), weight_scale=2.0)
    labels = torch.where(LABELLED, 0, -1)
    data = TrainingSet(features, labels, log_probs, log_weights)
    terms = mixture_terms(log_probs, log_weights, CONCENTRATION)
    return Model(student, data, terms, torch.tensor([[1.0, 0.0], [-0.5, 1.0], [0.3, -2.0]]))


def log_q(model: Model, positions, inputs):
    """Log-probabilities, shape (..., example, class)."""
    weights = model.student.natural(positions).unflatten(-1, (CLASSES, 2))
    return torch.einsum("...cf,nf->...nc", weights, inputs).log_softmax(-1)


def prior_draws(model: Model, n: int) -> tuple[torch.Tensor, float]:
    """Exactly from weight prior times mixture prior, and the share of proposals accepted.

    A Dirichlet density is largest at its mode, which is the teacher's distribution, so the mixture
    is bounded by the sum of its components there.
    """
    generator = torch.Generator().manual_seed(1)
    counts = model.terms.pseudo_counts
    modes = (counts / CONCENTRATION).log()
    largest = torch.stack(
        [component_log_densities(model.terms, modes[k])[k] for k in range(len(modes))]
    )
    bound = torch.logsumexp(largest, 0).sum()
    kept, proposed = [], 0
    while sum(map(len, kept)) < n:
        z = torch.randn(200_000, model.student.n_parameters, generator=generator)
        density = mixture_log_density(model.terms, log_q(model, z, model.data.features)).sum(-1)
        assert (density <= bound).all()
        chance = torch.rand(len(z), generator=generator).log()
        kept.append(z[chance < density - bound])
        proposed += len(z)
    found = torch.cat(kept)
    return found[:n], len(found) / proposed


def draw_labels(model: Model, positions) -> torch.Tensor:
    """One set of labels for each position, -1 where missing: (replication, example)."""
    generator = torch.Generator().manual_seed(2)
    probs = log_q(model, positions, model.data.features).exp()
    drawn = torch.multinomial(probs.flatten(0, 1), 1, generator=generator)
    return torch.where(LABELLED, drawn.reshape(len(positions), EXAMPLES), -1)


class Replications:
    """Stands for the driver's minibatches: the same examples, with labels of each chain's own.

    ``n_examples`` is the number that is told to the driver, wrong in one of the broken variants.
    """

    def __init__(self, data: TrainingSet, prior: Prior, labels, n_examples: int) -> None:
        terms = mixture_terms(data.values, data.log_weights, prior.concentration)
        whole = Batch(data.features, labels[0], terms)
        whole = whole.each(lambda part: part.expand(len(labels), *part.shape))
        self.n_examples = n_examples
        self._whole = whole._replace(labels=labels)

    def __call__(self, size: int) -> Batch:
        assert size >= self.n_examples
        return self._whole


def statistics(model: Model, positions, labels) -> torch.Tensor:
    """At positions (replication, ..., parameter): 6 parameters, 3 densities, 6 probabilities."""
    fitted = log_q(model, positions, model.data.features)
    shape = (len(labels), *[1] * (positions.dim() - 2), EXAMPLES, 1)
    chosen = labels.clamp_min(0).reshape(shape).expand(*fitted.shape[:-1], 1)
    picked = fitted.gather(-1, chosen)[..., 0]
    likelihood = (picked * LABELLED).sum(-1, keepdim=True)
    mixture = mixture_log_density(model.terms, fitted).sum(-1, keepdim=True)
    norm = positions.square().sum(-1, keepdim=True)
    probs = log_q(model, positions, model.new)[..., :2].exp().flatten(-2)
    return torch.cat([positions, likelihood, mixture, norm, probs], -1)


NAMES = (
    [f"parameter {i}" for i in range(6)]
    + ["log likelihood", "log mixture", "squared norm"]
    + [f"probability of class {c} at new input {n}" for n in range(3) for c in range(2)]
)
BURN_IN = 300
THINNING = {"hmc": 60, "sghmc": 36}
"""Draws are then all but independent; at half of it 2 of 90 p-values were below 0.01."""


def p_values(monkeypatch, engine: str, broken: str = "") -> np.ndarray:
    """Of the chi-square test of uniform ranks, shape (statistic,)."""
    model = make_model()
    replications = REPLICATIONS // 5 if broken else REPLICATIONS
    truth, _ = prior_draws(model, replications)
    labels = draw_labels(model, truth)
    claimed = {"too few examples": EXAMPLES // 2, "too many examples": 2 * EXAMPLES}
    n_examples = claimed.get(broken, EXAMPLES)
    monkeypatch.setattr(
        run_module,
        "Minibatches",
        lambda data, prior, _: Replications(data, prior, labels, n_examples),
    )
    if broken == "noise too large by the square root of 2":
        method = METHODS[engine]

        def build(problem, plan):
            return method.build(problem._replace(temperature=2 * problem.temperature), plan)

        monkeypatch.setitem(METHODS, engine, replace(method, build=build))
    power = {"no mixture prior": 0.0, "mixture prior of the wrong sign": -0.2}.get(broken, 1.0)
    prior = Prior(CONCENTRATION, power=power)
    slow = broken and engine == "sghmc"  # other targets are explored more slowly
    thinning = THINNING[engine] * (3 if slow else 1)
    settings = SamplerSettings(
        engine, burn_in=BURN_IN, draws=DRAWS, thinning=thinning, batch_size=2 * EXAMPLES
    )
    start = torch.zeros(replications, model.student.n_parameters)
    chains = run_module.sample(model.student, model.data, prior, settings, start, seed=0)
    draws = model.student.standardised(torch.cat(chains.samples.segments, 1))
    drawn = statistics(model, draws, labels)
    independent_enough(drawn)
    true = statistics(model, truth, labels)
    ranks = (drawn < true[:, None]).sum(1).numpy()
    width = (DRAWS + 1) // BINS
    counts = np.stack([np.bincount(r // width, minlength=BINS) for r in ranks.T])
    expected = replications / BINS
    return chi2.sf(((counts - expected) ** 2 / expected).sum(1), BINS - 1)


def independent_enough(drawn) -> None:
    """The test takes draws for independent: their mean correlation with the next must be small.

    As measured about the mean of few draws it is too low by one over their number.
    """
    centred = drawn - drawn.mean(1, keepdim=True)
    after = (centred[:, 1:] * centred[:, :-1]).mean(1) / centred.square().mean(1)
    assert float(after.mean(0).max()) + 1 / drawn.shape[1] < 0.06


def test_prior_draws_are_those_of_importance_weights():
    """Rejection against weights: the moments of the exact prior, two ways."""
    model = make_model()
    kept, accepted = prior_draws(model, 4000)
    assert accepted > 1e-4
    generator = torch.Generator().manual_seed(7)
    z = torch.randn(400_000, 6, generator=generator)
    weight = mixture_log_density(model.terms, log_q(model, z, model.data.features)).sum(-1)
    weight = weight.softmax(0).double()
    for power in (1, 2):
        expected = weight @ z.double() ** power
        variance = weight @ (z.double() ** power - expected) ** 2
        error = (variance * (1 / len(kept) + float(weight.square().sum()))).sqrt()
        assert ((kept.double().pow(power).mean(0) - expected).abs() < 4 * error).all()
        assert power == 1 or not torch.allclose(expected, torch.ones(6).double(), atol=0.2)


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["hmc", "sghmc"])
def test_ranks_are_uniform(monkeypatch, engine):
    values = p_values(monkeypatch, engine)
    told = {name: round(float(p), 4) for name, p in zip(NAMES, values, strict=True)}
    assert len(values) >= 8
    assert (values > SIGNIFICANCE).all(), told


BROKEN = (
    "noise too large by the square root of 2",
    "no mixture prior",
    "mixture prior of the wrong sign",
    "too few examples",
    "too many examples",
)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("engine", "broken"), [("hmc", b) for b in BROKEN[:2]] + [("sghmc", b) for b in BROKEN]
)
def test_ranks_of_a_broken_sampler_are_not(monkeypatch, engine, broken):
    assert p_values(monkeypatch, engine, broken).min() < 1e-3
