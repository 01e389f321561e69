"""Engines on targets whose moments are known, judged by their own effective sample size.

The tolerance of each moment is four standard errors, from the effective sample size of the very
series that is averaged, plus what the discretisation is known to add:

- ``sghmc`` (BAOAB) is exact in positions on a Gaussian; elsewhere its error is of second order in
  the step and far below the standard errors here.
- ``hmc`` is exact at any step size.
- ``sgld`` samples a Gaussian of precision A with covariance ``inv(A) @ inv(I - step * A / 2)``,
  which is what its draws are compared with. On the skewed target its first-order errors are
  ``step * E[curvature] / 2`` of the variance and, as the mean gradient vanishes at every step
  size, minus half of that variance for the mean; each is allowed twice.
"""

import math
from typing import NamedTuple

import pytest
import torch
from arviz_stats.base import array_stats
from scipy.special import digamma, polygamma

from mtbkd.inference import hmc, sghmc, sgld
from mtbkd.inference import map as map_engine
from mtbkd.inference.chains import chain_generators, chainwise_gradient

N_CHAINS, N_STEPS, BURN_IN, THINNING, MINIMAL_ESS = 256, 750, 300, 10, 400

ROTATION = torch.linalg.qr(torch.tensor([[1.0, 2.0, 0.5], [-1.0, 1.0, 2.0], [0.3, 1.0, -1.0]]))[0]
COVARIANCE = ROTATION @ torch.diag(torch.tensor([0.16, 0.5, 1.5])) @ ROTATION.T
PRECISION = torch.linalg.inv(COVARIANCE)
MEAN = torch.tensor([1.0, -2.0, 0.5])
SHAPES = torch.tensor([1.0, 2.5, 4.0])
"""Of gamma variables, whose logarithms are the skewed target."""

BUILD = {"sgld": sgld.build, "sghmc": sghmc.build, "hmc": hmc.build}
STEP_SIZE = {"sgld": 0.02, "sghmc": 0.15, "hmc": 0.2}
N_MOVES = 60
"""Updates after which every engine has moved: a trajectory of ``hmc`` takes up to 48 at 0.05."""


class Truth(NamedTuple):
    """Mean, covariance, and how far the discretisation may move each of their entries."""

    mean: torch.Tensor
    covariance: torch.Tensor
    mean_allowance: torch.Tensor
    covariance_allowance: torch.Tensor


def gaussian(position, batch):
    del batch
    centred = position - MEAN
    return -0.5 * centred @ PRECISION @ centred


def log_gamma(position, batch):
    """Smooth and skewed: a reversed sign or a lost factor cannot hide in a symmetry."""
    del batch
    return (SHAPES * position - position.exp()).sum()


def gaussian_truth(engine: str, temperature: float) -> Truth:
    covariance = temperature * COVARIANCE
    if engine == "sgld":
        precision = PRECISION / temperature
        shrunk = torch.eye(3) - STEP_SIZE["sgld"] / 2 * precision
        covariance = covariance @ torch.linalg.inv(shrunk)
    return Truth(MEAN, covariance, torch.zeros(3), torch.zeros(3, 3))


def log_gamma_truth(engine: str, temperature: float) -> Truth:
    """At temperature T the shape is a / T and the rate 1 / T."""
    shapes = (SHAPES / temperature).double()
    mean = torch.from_numpy(digamma(shapes.numpy())) + math.log(temperature)
    variance = torch.from_numpy(polygamma(1, shapes.numpy()))
    bias = STEP_SIZE["sgld"] * shapes * variance if engine == "sgld" else torch.zeros(3)
    return Truth(mean.float(), variance.diag().float(), bias.float() / 2, bias.diag().float())


TARGETS = {"gaussian": (gaussian, gaussian_truth), "log_gamma": (log_gamma, log_gamma_truth)}


def run(engine, position, seed, n_steps, n_chains=None):
    """Positions after each step, shape (chain, step, parameter), and the infos."""
    n_chains = len(position) if n_chains is None else n_chains
    generators = chain_generators(seed, 0, n_chains, torch.device("cpu"))
    state = engine.init(position, generators)
    batch = torch.zeros(n_chains)
    path, infos = [], []
    for _ in range(n_steps):
        state, info = engine.update(state, batch, generators)
        path.append(state.position.clone())
        infos.append(info)
    return torch.stack(path, 1), infos


def check_moment(series, expected: float, allowance: float) -> None:
    """Require a minimal effective sample size, then the mean within four standard errors."""
    size = float(array_stats.ess(series.numpy(), chain_axis=0, draw_axis=1, method="bulk"))
    assert size > MINIMAL_ESS
    error = float(series.std()) / math.sqrt(size)
    assert abs(float(series.mean()) - expected) < 4 * error + allowance


@pytest.mark.parametrize("temperature", [1.0, 0.5])
@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("name", BUILD)
def test_mean_and_covariance_are_recovered(name, target, temperature):
    log_density, truth = TARGETS[target]
    expected = truth(name, temperature)
    engine = BUILD[name](
        chainwise_gradient(log_density), temperature=temperature, step_size=STEP_SIZE[name]
    )
    start = torch.zeros(N_CHAINS, 3)
    draws = run(engine, start, 1, BURN_IN + N_STEPS)[0][:, BURN_IN::THINNING]
    centred = draws - expected.mean
    for i in range(3):
        check_moment(draws[:, :, i], float(expected.mean[i]), float(expected.mean_allowance[i]))
        for j in range(i + 1):
            product = centred[:, :, i] * centred[:, :, j]
            allowance = float(expected.covariance_allowance[i, j])
            check_moment(product, float(expected.covariance[i, j]), allowance)


@pytest.mark.parametrize("name", BUILD)
def test_chain_is_the_same_alone_and_beside_others(name):
    gradient = chainwise_gradient(log_gamma)
    engine = BUILD[name](gradient, temperature=1.0, step_size=STEP_SIZE[name])
    start = torch.linspace(-1, 1, 24).reshape(8, 3)
    together, _ = run(engine, start, 3, N_MOVES)
    for n_chains in (1, 3):
        fewer, _ = run(engine, start[:n_chains], 3, N_MOVES)
        torch.testing.assert_close(fewer, together[:n_chains])
    moved = together - start[:, None]
    assert not torch.allclose(moved[0], moved[1], atol=0.1)


@pytest.mark.parametrize("name", BUILD)
def test_same_generators_give_the_same_path_and_others_another(name):
    engine = BUILD[name](chainwise_gradient(gaussian), temperature=1.0, step_size=0.05)
    start = torch.zeros(2, 3)
    first, again, other = (run(engine, start, seed, N_MOVES)[0] for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.allclose(first, other)
    assert torch.equal(start, torch.zeros(2, 3))


@pytest.mark.parametrize("name", BUILD)
def test_each_chain_has_its_own_step_size(name):
    sizes = torch.tensor([0.05, 0.2])
    gradient = chainwise_gradient(gaussian)
    start = torch.ones(2, 3)
    path, _ = run(BUILD[name](gradient, temperature=1.0, step_size=sizes), start, 0, N_MOVES)
    assert not (path[:, -1] == start).any()
    for c in range(2):
        engine = BUILD[name](gradient, temperature=1.0, step_size=float(sizes[c]))
        torch.testing.assert_close(run(engine, start, 0, N_MOVES)[0][c], path[c])


@pytest.mark.parametrize("name", ["sgld", "sghmc"])
def test_info_holds_the_log_posterior_before_the_step(name):
    engine = BUILD[name](chainwise_gradient(gaussian), temperature=1.0, step_size=0.05)
    start = torch.linspace(-1, 1, 6).reshape(2, 3)
    path, infos = run(engine, start, 0, 2)
    before = (start, path[:, 0])
    for info, position in zip(infos, before, strict=True):
        expected = torch.stack([gaussian(p, None) for p in position])
        torch.testing.assert_close(info["log_posterior"], expected)


def test_sgld_without_noise_is_gradient_ascent_over_temperature():
    """A tiny temperature leaves the drift alone: step / T stays, sqrt(step) goes."""
    temperature = 1e-12
    engine = sgld.build(
        chainwise_gradient(gaussian), temperature=temperature, step_size=0.05 * temperature
    )
    path, _ = run(engine, torch.zeros(1, 3), 0, 1)
    torch.testing.assert_close(path[0, 0], 0.05 * PRECISION @ MEAN, atol=1e-5, rtol=0)


def test_kinetic_temperature_is_one_on_a_gaussian_and_above_under_noisy_gradients():
    exact = chainwise_gradient(gaussian)
    noise = torch.Generator().manual_seed(0)
    step_size, variance = 0.02, 10.0

    def noisy(position, batch):
        values, grads = exact(position, batch)
        error = torch.randn(grads.shape, generator=noise)
        return values, grads + math.sqrt(variance) * error

    means = {}
    for label, gradient in (("exact", exact), ("noisy", noisy)):
        engine = sghmc.build(gradient, temperature=1.0, step_size=step_size)
        _, infos = run(engine, MEAN.repeat(N_CHAINS, 1), 0, 600)
        series = torch.stack([info["kinetic_temperature"] for info in infos[300:]], 1)
        assert float(array_stats.ess(series.numpy(), chain_axis=0, draw_axis=1)) > MINIMAL_ESS
        means[label] = float(series.mean())
    assert means["exact"] == pytest.approx(1.0, abs=0.03)
    assert means["noisy"] == pytest.approx(1 + step_size * variance / 2, abs=0.04)


@pytest.mark.parametrize(("log_density", "mode"), [(gaussian, MEAN), (log_gamma, SHAPES.log())])
def test_map_climbs_to_the_mode(log_density, mode):
    gradient = chainwise_gradient(log_density)
    engine = map_engine.build(gradient, learning_rate=0.3, n_steps=500)
    start = torch.linspace(-3, 3, 12).reshape(4, 3)
    path, infos = run(engine, start, 0, 500)
    torch.testing.assert_close(path[:, -1], mode.expand(4, 3), atol=1e-3, rtol=0)
    values = torch.stack([info["log_posterior"] for info in infos])
    assert (values[-1] > values[0]).all()
    assert torch.equal(start, torch.linspace(-3, 3, 12).reshape(4, 3))


def test_map_is_adam():
    """Against torch's, with the same cosine schedule."""
    n_steps, rate = 30, 0.05
    engine = map_engine.build(chainwise_gradient(log_gamma), learning_rate=rate, n_steps=n_steps)
    path, _ = run(engine, torch.zeros(1, 3), 0, n_steps)
    theirs = torch.zeros(3, requires_grad=True)
    optimiser = torch.optim.Adam([theirs], lr=rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, n_steps)
    for step in range(n_steps):
        optimiser.zero_grad()
        (-log_gamma(theirs, None)).backward()
        optimiser.step()
        schedule.step()
        torch.testing.assert_close(path[0, step], theirs.detach(), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", [*BUILD, "map"])
def test_global_generator_is_untouched(name):
    gradient = chainwise_gradient(gaussian)
    engine = (
        map_engine.build(gradient, learning_rate=0.1, n_steps=5)
        if name == "map"
        else BUILD[name](gradient, temperature=1.0, step_size=0.1)
    )
    before = torch.get_rng_state()
    run(engine, torch.zeros(2, 3), 0, 5)
    assert torch.equal(torch.get_rng_state(), before)


def test_generators_differ_between_seeds_stages_and_chains():
    device = torch.device("cpu")
    seeds = {
        g.initial_seed()
        for seed in range(3)
        for stage in range(2)
        for g in chain_generators(seed, stage, 4, device)
    }
    assert len(seeds) == 24
