"""Step sizes: what limits them is measured rightly, and the error they leave is as promised."""

import math
from functools import partial

import pytest
import torch

from mtbkd.inference import hmc, sghmc, sgld
from mtbkd.inference.chains import chain_generators, chainwise_gradient
from mtbkd.inference.step_size import gradient_noise, largest_curvature, start_direction

CPU = torch.device("cpu")
BUILD = {"sgld": sgld.build, "sghmc": sghmc.build, "hmc": partial(hmc.build, burn_in=600)}
STABLE = {"sgld": sgld.stable_step_size, "sghmc": sghmc.stable_step_size}
TOLERANCE = 0.05


@pytest.mark.parametrize("sign", [-1.0, 1.0])
def test_largest_curvature_is_the_top_eigenvalue(sign):
    """Of either sign, for each chain its own."""
    generator = torch.Generator().manual_seed(0)
    basis = torch.linalg.qr(torch.randn(4, 4, generator=generator))[0]
    tops = torch.tensor([[1.0, 3.0, 10.0, 40.0], [0.1, 0.2, 0.5, 2.0]])
    hessians = torch.stack([sign * basis @ top.diag() @ basis.T for top in tops])
    gradient = chainwise_gradient(lambda x, hessian: 0.5 * x @ hessian @ x)
    direction = start_direction(torch.zeros(2, 4), chain_generators(0, 0, 2, CPU))
    position = torch.ones(2, 4)
    curvature, found = largest_curvature(gradient, position, hessians, direction, 15)
    torch.testing.assert_close(curvature, torch.tensor([40.0, 2.0]), rtol=2e-3, atol=0)
    alignment = torch.nn.functional.cosine_similarity(found, basis[:, 3].expand(2, 4)).abs()
    torch.testing.assert_close(alignment, torch.ones(2), atol=1e-3, rtol=0)
    again, _ = largest_curvature(gradient, position, hessians, found, 1)
    torch.testing.assert_close(again, curvature, rtol=2e-3, atol=0)


def test_gradient_noise_is_the_variance_of_a_linear_models_minibatch_gradient():
    """Examples drawn with replacement: the variance over examples divided by the batch size."""
    n_examples, size, n_chains = 30, 4, 4000
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(n_examples, 3, generator=generator) * torch.tensor([1.0, 2.0, 0.5])
    targets = torch.randn(n_examples, generator=generator)
    position = torch.tensor([0.3, -0.7, 1.1])
    each = inputs * (targets - inputs @ position)[:, None]
    expected = each.var(0, correction=0).mean() / size

    gradient = chainwise_gradient(lambda w, batch: -0.5 * (batch[1] - batch[0] @ w).square().mean())

    def draw():
        index = torch.randint(n_examples, (n_chains, size), generator=generator)
        return inputs[index], targets[index]

    estimates = gradient_noise(gradient, position.expand(n_chains, 3).clone(), (draw(), draw()))
    error = estimates.std() / math.sqrt(n_chains)
    assert error < 0.05 * expected
    assert (estimates.mean() - expected).abs() < 4 * error


def test_gradient_noise_survives_a_reused_buffer():
    buffer = torch.empty(1, 2)

    def gradient(position, batch):
        return torch.zeros(1), buffer.copy_(batch * position)

    noise = gradient_noise(gradient, torch.ones(1, 2), (torch.tensor(1.0), torch.tensor(3.0)))
    assert noise.tolist() == [2.0]


def stationary(name, curvatures, step_size, gradient_variance=0.0, n_steps=3000):
    """Ratio of the sampled to the true variance for each curvature, and its standard error.

    Every coordinate is an independent Gaussian series, started at the truth, so standard errors
    come from the spread between series.
    """
    n_chains, n_series, burn_in = 4, 150, n_steps // 5
    scales = torch.tensor(curvatures).repeat_interleave(n_series)
    noise = torch.Generator().manual_seed(0)

    def gradient(position, batch):
        del batch
        grads = -scales * position
        if gradient_variance:
            error = torch.randn(grads.shape, generator=noise)
            grads = grads + math.sqrt(gradient_variance) * error
        return -0.5 * (scales * position**2).sum(1), grads

    generators = chain_generators(0, 0, n_chains, CPU)
    engine = BUILD[name](gradient, temperature=1.0, step_size=step_size)
    start = torch.randn(n_chains, len(scales), generator=noise) / scales.sqrt()
    state = engine.init(start, generators)
    square = torch.zeros_like(start)
    for step in range(n_steps):
        state, _ = engine.update(state, None, generators)
        if step >= burn_in:
            square += state.position**2
    ratios = (square / (n_steps - burn_in) * scales).reshape(n_chains, -1, n_series)
    ratios = ratios.movedim(1, 0).flatten(1)
    return ratios.mean(1), ratios.std(1) / math.sqrt(ratios.shape[1])


@pytest.mark.parametrize("name", STABLE)
def test_adapted_step_keeps_the_variance_of_an_ill_conditioned_gaussian(name):
    """``sgld`` spends its tolerance on the stiffest direction; ``sghmc`` is exact (BAOAB)."""
    curvatures = [1.0, 30.0, 200.0]
    step = float(STABLE[name](torch.tensor([200.0]), torch.zeros(1), tolerance=TOLERANCE))
    ratio, error = stationary(name, curvatures, step)
    assert (error < torch.tensor([0.06, 0.02, 0.01])).all()
    assert ((ratio - 1).abs() < TOLERANCE + 4 * error).all()
    spent = TOLERANCE if name == "sgld" else 0.0
    assert abs(float(ratio[2]) - 1 - spent) < 4 * float(error[2])


def test_hmc_keeps_the_variance_of_an_ill_conditioned_gaussian():
    """Whatever its burn-in found, from the step that the driver starts it with."""
    ratio, error = stationary("hmc", [1.0, 30.0, 200.0], 1 / math.sqrt(200.0))
    assert (error < 0.03).all()
    assert ((ratio - 1).abs() < 4 * error).all()


@pytest.mark.parametrize("name", STABLE)
def test_adapted_step_keeps_the_variance_under_gradient_noise(name):
    """Where noise limits the step, it adds about the tolerance and not more."""
    curvature, variance = 4.0, 20.0
    step = float(
        STABLE[name](torch.tensor([curvature]), torch.tensor([variance]), tolerance=TOLERANCE)
    )
    ratio, error = stationary(name, [curvature], step, variance, n_steps=6000)
    assert float(error) < 0.02
    expected = 1 + TOLERANCE
    assert abs(float(ratio) - expected) < 4 * float(error) + 0.01


def test_sgld_variance_follows_the_formula_of_its_docstring():
    curvature, variance, step = 10.0, 3.0, 0.08
    ratio, error = stationary("sgld", [curvature], step, variance)
    expected = (1 + step * variance / 2) / (1 - step * curvature / 2)
    assert float(error) < 0.01
    assert abs(float(ratio) - expected) < 4 * float(error)


def test_sghmc_step_resolves_the_stiffest_direction():
    """Half of the stability limit 2 / sqrt(curvature), however small the noise."""
    step = sghmc.stable_step_size(torch.tensor([4.0, 100.0]), torch.zeros(2), tolerance=0.5)
    torch.testing.assert_close(step, torch.tensor([0.5, 0.1]))


@pytest.mark.parametrize("name", STABLE)
def test_step_falls_when_curvature_noise_or_the_number_of_examples_grows(name):
    per_example, noise = torch.tensor(0.5), torch.tensor(0.2)

    def step(n, curvature=1.0, spread=1.0):
        return float(
            STABLE[name](n * curvature * per_example, n**2 * spread * noise, tolerance=TOLERANCE)
        )

    assert step(10) > step(100) > step(1000) > 0
    assert step(100, spread=1e-6) > step(100, curvature=100.0, spread=1e-6)
    assert step(100) > step(100, spread=10.0)


def test_more_friction_bears_more_gradient_noise():
    limits = torch.tensor([1.0]), torch.tensor([50.0])
    light, heavy = (
        float(sghmc.stable_step_size(*limits, tolerance=TOLERANCE, friction=f)) for f in (1.0, 3.0)
    )
    assert heavy == pytest.approx(3 * light)
