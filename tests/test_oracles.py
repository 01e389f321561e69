"""The samplers against what we did not write: quadrature, BlackJAX's NUTS, `posteriors`.

Every comparison has a Monte-Carlo error, ``sd / sqrt(ESS)`` of the very series that is averaged
(both sides' errors where both are draws), and an effective sample size of 1,000 at least. The
functionals named first in each test were chosen beforehand and agree within 3 of these errors; all
of them together within the bound that has the same level for their number (Bonferroni).
"""

from typing import NamedTuple

import numpy as np
import pytest
import torch
from arviz_stats.base import array_stats
from scipy.linalg import solve_discrete_lyapunov
from scipy.stats import norm
from torch import nn

from mtbkd.distillation.rounds import sample_in_rounds
from mtbkd.inference import hmc, sghmc, sgld
from mtbkd.inference.chains import chain_generators, chainwise_gradient
from mtbkd.inference.run import SamplerSettings, Target, sample
from mtbkd.prior.mixture import Prior, mixture_terms
from mtbkd.student.log_posterior import log_posterior
from mtbkd.student.student import make_student
from mtbkd.training import TrainingSet
from mtbkd.types import Batch
from mtbkd.weights.rules import uniform_weights

MINIMAL_ESS, ERRORS = 1000, 3.0


class Estimates(NamedTuple):
    """Means of some functionals over draws, and their Monte-Carlo errors, shape (functional,)."""

    mean: np.ndarray
    error: np.ndarray


def estimates(series) -> Estimates:
    """From (chain, draw, functional), each of which must have effective draws enough."""
    series = np.asarray(series, np.float64)
    size = array_stats.ess(series, chain_axis=0, draw_axis=1, method="mean")
    assert size.min() >= MINIMAL_ESS
    return Estimates(series.mean((0, 1)), series.std((0, 1)) / np.sqrt(size))


def check(ours: Estimates, theirs: Estimates, n_first: int) -> None:
    """Require 3 errors of the functionals named first, and the same level of all together."""
    z = np.abs(ours.mean - theirs.mean) / np.hypot(ours.error, theirs.error)
    bound = norm.isf(norm.sf(ERRORS) / len(z))
    assert z[:n_first].max() < ERRORS
    assert z.max() < bound
    assert np.sqrt((z**2).mean()) < 1.6


def exactly(values) -> Estimates:
    values = np.asarray(values, np.float64)
    return Estimates(values, np.zeros_like(values))


def moments(draws, centre):
    """Draws and the products of their deviations from a point, as functionals."""
    centred = draws - centre
    n = draws.shape[-1]
    products = [centred[..., i] * centred[..., j] for i in range(n) for j in range(i + 1)]
    return np.concatenate([draws, np.stack(products, -1)], -1)


def joined(chains) -> torch.Tensor:
    return torch.cat(chains.samples.segments, 1)


@pytest.mark.parametrize(
    ("engine", "n_chains", "draws", "thinning", "budget"),
    [("hmc", 72, 34, 20, None), ("sghmc", 72, 34, 15, None), ("sghmc", 10, 240, 2, 1e6)],
)
def test_posterior_of_two_parameters_is_that_of_a_grid(engine, n_chains, draws, thinning, budget):
    """Mean, covariance and predictive by quadrature; from data, teachers and prior to draws.

    The last one ends by itself, when chains agree, which must not favour any draws.
    """
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(12, 1, generator=generator)
    teachers = torch.log_softmax(2 * torch.randn(2, 12, 2, generator=generator), -1)
    labels = torch.tensor([-1, 0, 1] * 4)
    weights = uniform_weights(torch.ones(2, 12, dtype=torch.bool))
    data, prior = TrainingSet(features, labels, teachers, weights), Prior(4.0)
    student = make_student(nn.Linear(1, 2, bias=False), weight_scale=0.7)
    axis = torch.linspace(-6, 6, 301).double()
    grid = torch.cartesian_prod(axis, axis)
    batch = Batch(features, labels, mixture_terms(teachers, weights, prior.concentration))
    log_density = torch.vmap(lambda position: log_posterior(student, 12)(position, batch))
    density = torch.softmax(12 * log_density(grid.float()).double(), 0).numpy()
    new = np.array([-2.0, -0.5, 1.0])

    def functionals(parameters, centre):
        """Parameters and their products, then the probability of the first class at new inputs."""
        gap = parameters[..., :1] - parameters[..., 1:]
        return np.concatenate([moments(parameters, centre), 1 / (1 + np.exp(-gap * new))], -1)

    parameters = student.natural(grid).numpy()
    centre = density @ parameters
    expected = exactly(density @ functionals(parameters, centre))
    settings = SamplerSettings(engine, burn_in=300, draws=draws, thinning=thinning, batch_size=12)
    start = torch.zeros(n_chains, 2)
    chains, _ = sample_in_rounds(
        Target(student, data, prior), settings, start, budget=budget, seed=0
    )
    found = estimates(functionals(joined(chains).numpy(), centre))
    assert len(found.mean) == 8
    check(found, expected, n_first=8)


CLASSES, FEATURES, EXAMPLES, SCALE, CONCENTRATION, POWER = 3, 3, 30, 1.5, 4.0, 0.7


class Case(NamedTuple):
    """A softmax regression under a mixture prior: what we and the oracle are given."""

    features: torch.Tensor
    labels: torch.Tensor
    log_probs: torch.Tensor
    log_weights: torch.Tensor
    new: torch.Tensor


def softmax_regression() -> Case:
    generator = torch.Generator().manual_seed(0)

    def normal(*shape):
        return torch.randn(shape, generator=generator)

    labels = torch.randint(CLASSES, (EXAMPLES,), generator=generator)
    labels[::3] = -1
    log_probs = (2 * normal(2, EXAMPLES, CLASSES)).log_softmax(-1)
    log_weights = normal(2, EXAMPLES).log_softmax(0)
    return Case(normal(EXAMPLES, FEATURES), labels, log_probs, log_weights, normal(6, FEATURES))


def regression_functionals(draws):
    """Of parameters (chain, draw, parameter): chosen beforehand are the first ten.

    Means of three parameters, variances of three, and four predictive probabilities; then all.
    """
    new = softmax_regression().new.numpy().astype(np.float64)
    weight = draws[..., : CLASSES * FEATURES].reshape(*draws.shape[:-1], CLASSES, FEATURES)
    logits = np.einsum("...cf,nf->...nc", weight, new) + draws[..., None, CLASSES * FEATURES :]
    probs = np.exp(logits - logits.max(-1, keepdims=True))
    probs /= probs.sum(-1, keepdims=True)
    probs = probs.reshape(*draws.shape[:-1], -1)
    squares = draws**2
    chosen = [draws[..., [0, 4, 10]], squares[..., [0, 4, 10]], probs[..., [0, 4, 8, 9]]]
    return np.concatenate([*chosen, draws, squares, probs], -1)


@pytest.fixture(scope="module")
def nuts():
    """BlackJAX's NUTS on the same posterior, written anew from its formula, in natural units."""
    import blackjax
    import jax
    import jax.numpy as jnp
    from jax.scipy.special import gammaln, logsumexp
    from jax.scipy.stats import norm as normal

    with jax.enable_x64(True):
        case = softmax_regression()
        x, y, log_probs, log_weights = (jnp.asarray(part.numpy()) for part in case[:4])
        x, counts = x.astype(float), CONCENTRATION * jnp.exp(log_probs.astype(float))
        log_beta = gammaln(1 + counts).sum(-1) - gammaln((1 + counts).sum(-1))
        offsets = log_weights.astype(float) - log_beta
        size = CLASSES * FEATURES
        assert x.dtype == jnp.float64

        def log_density(theta):
            logits = x @ theta[:size].reshape(CLASSES, FEATURES).T + theta[size:]
            log_q = jax.nn.log_softmax(logits)
            picked = jnp.take_along_axis(log_q, jnp.maximum(y, 0)[:, None], 1)[:, 0]
            likelihood = jnp.where(y >= 0, picked, 0.0).sum()
            mixture = logsumexp((counts * log_q).sum(-1) + offsets, axis=0).sum()
            weight_prior = normal.logpdf(theta, 0.0, SCALE / FEATURES**0.5).sum()
            return likelihood + POWER * mixture + weight_prior

        adaptation = blackjax.window_adaptation(blackjax.nuts, log_density)
        kernel = blackjax.nuts.build_kernel()

        @jax.jit
        @jax.vmap
        def chain(key):
            first, second = jax.random.split(key)
            start = jnp.zeros(size + CLASSES)
            (state, parameters), _ = adaptation.run(first, start, num_steps=500)

            def one(state, key):
                state, _ = kernel(key, state, log_density, **parameters)
                return state, state.position

            return jax.lax.scan(one, state, jax.random.split(second, 2000))[1]

        return np.asarray(chain(jax.random.split(jax.random.key(0), 4)))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("engine", "batch_size", "n_chains", "thinning"),
    [("hmc", 30, 48, 45), ("sghmc", 30, 48, 25), ("sghmc", 20, 192, 150)],
)
def test_softmax_regression_is_that_of_nuts(nuts, engine, batch_size, n_chains, thinning):
    """Posterior means, variances and predictive; ``sghmc`` also from minibatches."""
    case = softmax_regression()
    student = make_student(nn.Linear(FEATURES, CLASSES), weight_scale=SCALE)
    settings = SamplerSettings(
        engine, burn_in=500, draws=34, thinning=thinning, batch_size=batch_size
    )
    prior = Prior(CONCENTRATION, power=POWER)
    start = torch.zeros(n_chains, student.n_parameters)
    chains = sample(student, TrainingSet(*case[:4]), prior, settings, start, seed=0)
    ours = estimates(regression_functionals(joined(chains).double().numpy()))
    theirs = estimates(regression_functionals(nuts))
    check(ours, theirs, n_first=10)


ROTATION = np.linalg.qr(np.array([[1.0, 2.0, 0.5], [-1.0, 1.0, 2.0], [0.3, 1.0, -1.0]]))[0]
COVARIANCE = ROTATION @ np.diag([0.16, 0.5, 1.5]) @ ROTATION.T
PRECISION = np.linalg.inv(COVARIANCE)
CENTRE = np.array([1.0, -2.0, 0.5])
FRICTION, N_CHAINS, N_STEPS = 1.0, 200, 1400
STEP_SIZE = {"sgld": 0.02, "sghmc": 0.15, "hmc": 0.2}
BUILD = {"sgld": sgld.build, "sghmc": sghmc.build, "hmc": hmc.build}


def gaussian(position, batch):
    del batch
    centred = position - torch.tensor(CENTRE, dtype=position.dtype)
    return -0.5 * centred @ torch.tensor(PRECISION, dtype=position.dtype) @ centred


def stationary_covariance(step_size: float) -> np.ndarray:
    """Of the positions of `posteriors`' ``sghmc`` on the Gaussian, which is a linear recursion.

    ``p' = p + h m`` and ``m' = m - h A p - h c m + sqrt(2 c h) xi`` (its documentation).
    """
    eye, zero = np.eye(3), np.zeros((3, 3))
    move = np.block([[eye, step_size * eye], [-step_size * PRECISION, (1 - step_size) * eye]])
    noise = np.block([[zero, zero], [zero, 2 * FRICTION * step_size * eye]])
    return solve_discrete_lyapunov(move, noise)[:3, :3]


@pytest.fixture(scope="module")
def posteriors_draws():
    """Draws of `posteriors` 0.1.3 (chain, draw, parameter), and the covariance they should have."""
    import posteriors

    step_size = {"sgld": STEP_SIZE["sgld"], "sghmc": 0.05}
    density = lambda position, batch: (gaussian(position, batch), torch.zeros(0))  # noqa: E731
    build = {
        "sgld": posteriors.sgmcmc.sgld.build(density, lr=step_size["sgld"]),
        "sghmc": posteriors.sgmcmc.sghmc.build(density, lr=step_size["sghmc"], alpha=FRICTION),
    }
    found = {}
    with torch.random.fork_rng():
        torch.manual_seed(0)  # it has no generators of its own
        for name, sampler in build.items():
            start = torch.zeros(N_CHAINS, 3)
            state = torch.vmap(sampler.init, randomness="different")(start)
            update = torch.vmap(sampler.update, randomness="different")
            path = []
            for step in range(N_STEPS):
                state, _ = update(state, torch.zeros(N_CHAINS))
                if step >= 200 and step % 12 == 0:
                    path.append(state.params.clone())
            found[name] = torch.stack(path, 1).numpy()
    shrunk = np.linalg.inv(np.eye(3) - step_size["sgld"] / 2 * PRECISION)
    return found, {"sgld": COVARIANCE @ shrunk, "sghmc": stationary_covariance(step_size["sghmc"])}


@pytest.mark.slow
@pytest.mark.parametrize("name", BUILD)
def test_correlated_gaussian_is_that_of_posteriors(posteriors_draws, name):
    """Ours, theirs and the truth, each with the covariance that its discretisation leaves.

    ``sghmc`` and ``hmc`` are exact; `posteriors`' ``sghmc`` and both ``sgld`` are known to be off,
    so what is compared is the deviation of each from its own stationary covariance.
    """
    engine = BUILD[name](chainwise_gradient(gaussian), temperature=1.0, step_size=STEP_SIZE[name])
    generators = chain_generators(0, 0, N_CHAINS, torch.device("cpu"))
    state = engine.init(torch.zeros(N_CHAINS, 3), generators)
    path = []
    for step in range(N_STEPS):
        state, _ = engine.update(state, torch.zeros(N_CHAINS), generators)
        if step >= 200 and step % 12 == 0:
            path.append(state.position.clone())
    ours = torch.stack(path, 1).numpy()
    theirs, covariance = posteriors_draws
    truth = covariance["sgld"] if name == "sgld" else COVARIANCE
    check(off(ours, truth), exactly(np.zeros(9)), n_first=9)
    for rival, draws in theirs.items():
        check(off(draws, covariance[rival]), exactly(np.zeros(9)), n_first=9)
        check(off(ours, truth), off(draws, covariance[rival]), n_first=9)
    if name == "sgld":  # the very same recursion
        check(off(ours, COVARIANCE), off(theirs["sgld"], COVARIANCE), n_first=9)


def off(draws, covariance) -> Estimates:
    """Means and second moments less what they should be: three and six functionals."""
    expected = [covariance[i, j] for i in range(3) for j in range(i + 1)]
    return estimates(moments(draws, CENTRE) - np.concatenate([CENTRE, expected]))
