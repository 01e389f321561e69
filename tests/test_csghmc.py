"""The cyclical engine: its moments at the ends of cycles, its schedule, its place in a run.

Draws are the ends of cycles at the largest step that the engine allows itself, where its error of
second order in the step is below 3 % of the variance; each moment may be off by that, in units of
standard deviations, and by four standard errors.
"""

import math

import pytest
import torch
from test_engines import MEAN, N_CHAINS, SHAPES, TARGETS, check_moment, gaussian, log_gamma, run
from test_run import SETTINGS, draw, joined, network, training

from mtbkd.inference import csghmc, sghmc
from mtbkd.inference import run as run_module
from mtbkd.inference.chains import chain_generators, chainwise_gradient
from mtbkd.inference.modes import MapSettings, find_modes
from mtbkd.prior.settings import Prior
from mtbkd.student.student import make_student

CYCLE, N_CYCLES, BURN_IN = 30, 25, 10
CURVATURE = {"gaussian": 1 / 0.16, "log_gamma": float(SHAPES.max())}
ERROR = 0.03


def build(log_density, step_size=0.3, temperature=1.0, cycle=5, friction=1.0):
    return csghmc.build(
        chainwise_gradient(log_density),
        temperature=temperature,
        step_size=step_size,
        cycle=cycle,
        friction=friction,
    )


def flat(position, batch):
    del batch
    return 0.0 * position.sum()


def sloping(position, batch):
    del batch
    return position.sum()


@pytest.mark.parametrize(("target", "temperature"), [("gaussian", 0.5), ("log_gamma", 1.0)])
def test_mean_and_covariance_are_recovered_at_the_ends_of_cycles(target, temperature):
    log_density, truth = TARGETS[target]
    expected = truth("csghmc", temperature)
    curvature = torch.tensor(CURVATURE[target] / temperature)
    step_size = csghmc.stable_step_size(curvature, torch.tensor(0.0), tolerance=0.05)
    engine = build(log_density, float(step_size), temperature, CYCLE)
    start = torch.zeros(4 * N_CHAINS, 3)
    path, _ = run(engine, start, 1, CYCLE * (BURN_IN + N_CYCLES))
    draws = path[:, CYCLE - 1 :: CYCLE][:, BURN_IN:]
    assert draws.shape[1] == N_CYCLES
    centred = draws - expected.mean
    spread = expected.covariance.diagonal().sqrt()
    for i in range(3):
        check_moment(draws[:, :, i], float(expected.mean[i]), ERROR * float(spread[i]))
        for j in range(i + 1):
            product = centred[:, :, i] * centred[:, :, j]
            allowance = ERROR * float(spread[i] * spread[j])
            check_moment(product, float(expected.covariance[i, j]), allowance)


def test_steps_fall_like_a_cosine_and_each_cycle_has_a_momentum_of_its_own():
    """Without slope and friction a chain goes straight on through a cycle."""
    start, size, cycle = torch.zeros(512, 3), 0.2, 6
    path, _ = run(build(flat, size, cycle=cycle, friction=0.0), start, 0, 3 * cycle)
    moves = torch.diff(path, dim=1, prepend=start[:, None])
    shares = [(1 + math.cos(math.pi * k / cycle)) / 2 for k in range(cycle)]
    first = moves[:, ::cycle] / size
    for k, share in enumerate(shares):
        torch.testing.assert_close(moves[:, k::cycle] / size, share * first, atol=1e-5, rtol=0)
    assert shares[0] == 1.0
    assert float(first.square().mean()) == pytest.approx(1.0, abs=0.08)
    assert abs(float((first[:, 0] * first[:, 1]).mean())) < 0.1


def test_kicks_are_half_of_the_last_step_and_half_of_this_one():
    """Against the same chain without slope, so that the momenta drawn cancel."""
    size, cycle, temperature = 0.2, 6, 0.5
    generators = [chain_generators(0, 0, 2, torch.device("cpu")) for _ in range(2)]
    pair = [build(f, size, temperature, cycle, friction=0.0) for f in (flat, sloping)]
    states = [e.init(torch.zeros(2, 3), own) for e, own in zip(pair, generators, strict=True)]
    expected, before = 0.0, 0.0
    for k in range(cycle):
        for i, engine in enumerate(pair):
            states[i], _ = engine.update(states[i], torch.zeros(2), generators[i])
        step = size * (1 + math.cos(math.pi * k / cycle)) / 2
        expected, before = expected + (before + step) / 2 / temperature, step
        gained = states[1].momentum - states[0].momentum
        torch.testing.assert_close(gained, torch.full((2, 3), expected), atol=1e-5, rtol=1e-5)


def test_state_has_a_chain_axis_and_counts_to_the_end_of_a_cycle():
    engine = build(gaussian, cycle=3)
    generators = chain_generators(0, 0, 2, torch.device("cpu"))
    state = engine.init(torch.zeros(2, 3), generators)
    counts = []
    for _ in range(7):
        state, _ = engine.update(state, torch.zeros(2), generators)
        counts.append(state.done.tolist())
    assert counts == [[k % 3] * 2 for k in range(1, 8)]
    assert all(len(part) == 2 for part in state)
    assert torch.equal(state.step_size, torch.full((2,), 0.3))


def test_chain_is_the_same_alone_and_beside_others():
    start = torch.linspace(-1, 1, 24).reshape(8, 3)
    together, _ = run(build(log_gamma), start, 3, 12)
    for n_chains in (1, 3):
        fewer, _ = run(build(log_gamma), start[:n_chains], 3, 12)
        torch.testing.assert_close(fewer, together[:n_chains])
    assert not torch.allclose((together - start[:, None])[0], (together - start[:, None])[1])


def test_same_generators_give_the_same_path_and_the_global_one_is_untouched():
    start, before = torch.zeros(2, 3), torch.get_rng_state()
    first, again, other = (run(build(gaussian), start, seed, 12)[0] for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.allclose(first, other)
    assert torch.equal(start, torch.zeros(2, 3))
    assert torch.equal(torch.get_rng_state(), before)


def test_each_chain_has_its_own_step_size():
    sizes = torch.tensor([0.05, 0.2])
    start = torch.ones(2, 3)
    path, _ = run(build(gaussian, sizes), start, 0, 12)
    for c in range(2):
        single, _ = run(build(gaussian, float(sizes[c])), start, 0, 12)
        torch.testing.assert_close(single[c], path[c])


def test_info_is_that_of_sghmc_and_log_posterior_is_before_the_step():
    start = torch.linspace(-1, 1, 6).reshape(2, 3)
    path, infos = run(build(gaussian), start, 0, 2)
    for info, position in zip(infos, (start, path[:, 0]), strict=True):
        expected = torch.stack([gaussian(p, None) for p in position])
        torch.testing.assert_close(info["log_posterior"], expected)
    assert infos[0].keys() == {"log_posterior", "kinetic_temperature"}


def test_kinetic_temperature_is_one_over_a_cycle():
    _, infos = run(build(gaussian, 0.2, cycle=30), MEAN.repeat(N_CHAINS, 1), 0, 300)
    heat = torch.stack([info["kinetic_temperature"] for info in infos])
    assert float(heat.mean()) == pytest.approx(1.0, abs=0.04)


def test_a_cycle_bears_a_larger_step_than_a_steady_one():
    limits = torch.tensor([4.0, 100.0]), torch.tensor([0.0, 3.0])
    cyclical, steady = (
        engine.stable_step_size(*limits, tolerance=0.1) for engine in (csghmc, sghmc)
    )
    torch.testing.assert_close(cyclical, 1.5 * steady)
    assert float(cyclical[0]) < 2 / math.sqrt(4.0)


def test_runs_keep_the_ends_of_cycles_whatever_the_burn_in(monkeypatch, tmp_path):
    student = make_student(network(4, 5, 3))
    settings = MapSettings(epochs=2, batch_size=16)
    modes = find_modes(student, training(), Prior(4.0), settings, n_chains=2, seed=0)
    kept = []

    def save(folder, at, generators):
        kept.append((at.done, at.state.done.tolist(), student.natural(at.state.position)))

    monkeypatch.setattr(run_module, "save", save)
    settings = SETTINGS.__class__("csghmc", burn_in=31, draws=20, thinning=7, batch_size=16)
    chains = draw(student, modes, settings, tmp_path)
    assert [(done, count) for done, count, _ in kept] == [(101, [0, 0]), (171, [0, 0])]
    assert torch.equal(kept[0][2], joined(chains)[:, 9])
