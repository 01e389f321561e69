"""`hmc`: its leapfrog, its counts, what its burn-in learns, and when ``auto`` takes it."""

import math
from dataclasses import replace

import pytest
import torch
from arviz_stats.base import array_stats
from torch import nn

from mtbkd.inference import hmc
from mtbkd.inference.chains import chain_generators, chainwise_gradient, in_parts
from mtbkd.inference.engines import make_plan
from mtbkd.inference.run import SamplerSettings, sample
from mtbkd.prior.mixture import Prior
from mtbkd.student.log_posterior import posterior_gradient
from mtbkd.student.student import make_student
from mtbkd.training import Minibatches, TrainingSet
from mtbkd.weights.rules import uniform_weights

CPU = torch.device("cpu")
DEVIATIONS = torch.logspace(-1.5, 0, 20)
"""Of the parameters of a badly scaled Gaussian."""


def log_gamma(position, batch):
    del batch
    return (torch.tensor([1.0, 2.5, 4.0]) * position - position.exp()).sum()


def badly_scaled(position, batch):
    del batch
    return -0.5 * ((position / DEVIATIONS) ** 2).sum()


def everywhere(log_density):
    """The gradient of a density that needs no data."""
    gradient = chainwise_gradient(log_density)
    return lambda position, _: gradient(position, torch.zeros(len(position)))


def run(engine, start, n_steps, seed=0):
    """The last state, positions (chain, step, parameter) and infos, each (chain, step)."""
    generators = chain_generators(seed, 0, len(start), CPU)
    state = engine.init(start, generators)
    path, infos = [], []
    for _ in range(n_steps):
        state, info = engine.update(state, None, generators)
        path.append(state.position.clone())
        infos.append(info)
    return state, torch.stack(path, 1), {n: torch.stack([i[n] for i in infos], 1) for n in infos[0]}


@pytest.mark.parametrize("temperature", [1.0, 0.3])
def test_leapfrog_is_reversible(temperature):
    """Turned around, the trajectory comes back, under a mass that differs between parameters."""
    gradient = everywhere(log_gamma)
    engine = hmc.build(gradient, temperature=temperature, step_size=0.1)
    generators = chain_generators(0, 0, 4, CPU)
    state = engine.init(torch.zeros(4, 3, dtype=torch.float64), generators)
    state = state._replace(scale=torch.tensor([0.5, 1.0, 2.0]).double().repeat(4, 1))
    state, _ = engine.update(state, None, generators)
    state = state._replace(left=torch.full_like(state.left, 1000))
    start, velocity = state.moving.clone(), state.velocity.clone()
    slope = gradient(start, None)[1]
    before = velocity - state.scale * slope * 0.1 / temperature  # the kick at the start undone
    for _ in range(20):
        state, _ = engine.update(state, None, generators)
    there = state.moving.clone()
    kick = state.scale * gradient(there, None)[1] * 0.1 / temperature
    state = state._replace(velocity=kick - state.velocity)
    for _ in range(20):
        state, _ = engine.update(state, None, generators)
    assert ((there - start).abs().amax(1) > 0.1).all()
    torch.testing.assert_close(state.moving, start, rtol=1e-9, atol=1e-10)
    torch.testing.assert_close(state.velocity, -before, rtol=1e-9, atol=1e-10)


def test_error_of_the_energy_is_of_second_order(monkeypatch):
    """Over a trajectory: a quarter of it at half the step, so it is no error of the first order."""
    found = []
    original = hmc._finish

    def finish(*args):
        found.append(original(*args))
        return found[-1]

    monkeypatch.setattr(hmc, "_finish", finish)
    errors = []
    for step_size in (0.2, 0.1, 0.05):
        found.clear()
        engine = hmc.build(everywhere(log_gamma), temperature=1.0, step_size=step_size)
        run(engine, torch.zeros(200, 3), round(4 / step_size))
        errors.append(float(torch.cat(found).square().mean().sqrt()))
    assert errors[0] / errors[1] == pytest.approx(4, rel=0.3)
    assert errors[1] / errors[2] == pytest.approx(4, rel=0.3)


def test_draw_stays_until_its_trajectory_ends_and_trajectories_are_counted():
    engine = hmc.build(everywhere(log_gamma), temperature=1.0, step_size=0.1)
    _, path, info = run(engine, torch.zeros(8, 3), 400)
    moved = (path[:, 1:] != path[:, :-1]).any(-1)
    ended = info["trajectories"] == 1
    assert not (moved & ~ended[:, 1:]).any()
    assert (moved.sum(1) > 0.8 * ended.sum(1)).all()
    lengths = torch.cat([torch.nonzero(row)[:, 0].diff() for row in ended])
    shortest, longest = (math.ceil(share * math.pi / 2 / 0.1) for share in (0.5, 1.5))
    assert (int(lengths.min()), int(lengths.max())) == (shortest, longest)
    assert float(lengths.float().mean()) == pytest.approx(math.pi / 2 / 0.1 + 0.5, rel=0.1)
    assert ((info["acceptance"] > 0) == ended).all()
    assert (info["acceptance"] <= 1).all()


def test_info_holds_the_log_posterior_of_the_moving_point():
    engine = hmc.build(everywhere(log_gamma), temperature=1.0, step_size=0.1)
    generators = chain_generators(0, 0, 2, CPU)
    state = engine.init(torch.zeros(2, 3), generators)
    state, info = engine.update(state, None, generators)
    expected = torch.stack([log_gamma(p, None) for p in state.moving])
    torch.testing.assert_close(info["log_posterior"], expected)


@pytest.mark.parametrize("cliff", [False, True])
def test_divergences_are_counted_and_refused(cliff):
    """A step beyond the limit of stability, or a density that is not a number out there."""

    def density(position, batch):
        del batch
        value = -0.5 * (position / 0.1).square().sum()
        return torch.where(position.abs().max() > 0.5, torch.nan, value) if cliff else value

    start = torch.full((4, 5), 0.1)
    wild = hmc.build(everywhere(density), temperature=1.0, step_size=0.3)
    state, path, info = run(wild, start, 100)
    assert (info["trajectories"].sum(1) > 10).all()
    assert torch.equal(info["divergences"], info["trajectories"])
    assert (info["acceptance"] == 0).all()
    assert torch.equal(path[:, -1], start)
    tame = hmc.build(everywhere(density), temperature=1.0, step_size=0.05)
    state, path, info = run(tame, start, 400)
    assert (info["divergences"] == 0).all()
    assert path.isfinite().all()
    assert not (path[:, -1] == start).any()


@pytest.mark.parametrize("step_size", [1e-4, 0.03, 3.0])
def test_acceptance_is_near_its_target_after_the_burn_in(step_size):
    """Wherever the step starts.

    The target is the mean over dual averaging's steps, which vary; at their geometric mean, which
    is kept, acceptance is higher (0.8 becomes 0.85 to 0.95 here).
    """
    engine = hmc.build(everywhere(badly_scaled), temperature=1.0, step_size=step_size, burn_in=2000)
    state, _, info = run(engine, torch.zeros(16, 20), 3000)
    after = {name: values[:, 2000:].sum(1) for name, values in info.items()}
    acceptance = after["acceptance"] / after["trajectories"]
    assert 0.7 < float(acceptance.mean()) < 0.97
    assert (acceptance > 0.6).all()
    burning = info["acceptance"][:, :2000].sum() / info["trajectories"][:, :2000].sum()
    assert float(burning) == pytest.approx(0.8, abs=0.05)
    assert (after["divergences"] == 0).all()
    assert (after["trajectories"] > 30).all()


def test_nothing_adapts_after_the_burn_in():
    build = lambda burn_in: hmc.build(  # noqa: E731
        everywhere(badly_scaled), temperature=1.0, step_size=0.02, burn_in=burn_in
    )
    generators = chain_generators(0, 0, 3, CPU)
    engine = build(500)
    state = engine.init(torch.zeros(3, 20), generators)
    kept = {}
    for step in range(2500):
        state, _ = engine.update(state, None, generators)
        if step == 1000:
            kept = {n: getattr(state, n).clone() for n in ("step_size", "scale", "tuning")}
    for name, value in kept.items():
        assert torch.equal(getattr(state, name), value)
    assert not (state.scale == 1).any()
    fixed, _, _ = run(build(0), torch.zeros(3, 20), 300)
    assert torch.equal(fixed.scale, torch.ones(3, 20))
    assert torch.equal(fixed.step_size, torch.full((3,), 0.02))


def test_mass_adapts_to_a_badly_scaled_gaussian():
    """Scales are found, and they are worth it: draws for each gradient against a mass of 1."""
    n_steps = 3000
    sizes = {}
    for name, burn_in in (("adapted", n_steps), ("mass 1", 0)):
        engine = hmc.build(
            everywhere(badly_scaled),
            temperature=1.0,
            step_size=float(DEVIATIONS.min()),
            burn_in=burn_in,
        )
        state, path, info = run(engine, torch.zeros(8, 20), burn_in + n_steps)
        draws = path[:, burn_in:].numpy()
        sizes[name] = float(array_stats.ess(draws, chain_axis=0, draw_axis=1).min())
        assert info["acceptance"].sum() > 0.7 * info["trajectories"].sum()
        if burn_in:
            spread = state.scale.log().mean(0).std() / DEVIATIONS.log().std()
            assert 0.5 < float(spread) < 1.2
    assert sizes["mass 1"] > 100
    assert sizes["adapted"] > 3 * sizes["mass 1"]


def network(*sizes: int) -> nn.Module:
    layers: list[nn.Module] = []
    for width, following in zip(sizes, sizes[1:], strict=False):
        layers += [nn.Linear(width, following), nn.Tanh()]
    return nn.Sequential(*layers[:-1])


def training(n_examples=23, n_features=3, n_classes=3, scale=1.0) -> TrainingSet:
    generator = torch.Generator().manual_seed(0)
    features = scale * torch.randn(n_examples, n_features, generator=generator)
    labels = torch.randint(n_classes, (n_examples,), generator=generator)
    labels[::3] = -1
    logits = 2 * torch.randn(2, n_examples, n_classes, generator=generator)
    mask = torch.ones(2, n_examples, dtype=torch.bool)
    mask[0, :5] = False
    return TrainingSet(features, labels, logits.log_softmax(-1), uniform_weights(mask))


@pytest.mark.parametrize("n_rows", [1, 2, 9, 45, 46, 1000])
def test_gradient_in_parts_equals_the_whole_and_holds_few_examples(n_rows):
    """Whatever remains for the last part; rows are counted over all chains together."""
    student = make_student(network(3, 4, 3).double(), weight_scale=2.0)
    student = replace(
        student, prior_mean=student.prior_mean.double(), prior_scale=student.prior_scale.double()
    )
    data = training()
    data = replace(
        data,
        features=data.features.double(),
        values=data.values.double(),
        log_weights=data.log_weights.double(),
    )
    generators = chain_generators(0, 0, 2, CPU)
    batch = Minibatches(data, Prior(4.0), generators)(23)
    exact = posterior_gradient(student, 23, Prior(power=0.7))
    held = []

    def counted(position, part):
        held.append(part.labels.numel())
        return exact(position, part)

    position = torch.linspace(-1, 1, 2 * student.n_parameters).double().reshape(2, -1)
    whole = [part.clone() for part in exact(position, batch)]
    values, grads = in_parts(counted, n_rows)(position, batch)
    torch.testing.assert_close(values, whole[0], rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(grads, whole[1], rtol=1e-12, atol=1e-12)
    assert sum(held) == batch.labels.numel()
    assert max(held) <= max(n_rows, 2)


SETTINGS = SamplerSettings("auto", burn_in=100, draws=50, thinning=50, batch_size=50)


@pytest.mark.parametrize(
    ("n_examples", "curvature", "trajectories", "steps", "engine"),
    [
        (50, 16.0, 397, 6, "hmc"),
        (500, 16.0, 39, 6, "sghmc"),  # large: the same gradients are a tenth of the steps
        (50, 1600.0, 39, 63, "sghmc"),  # stiff: trajectories are ten times as long
    ],
)
def test_auto_takes_hmc_where_it_converges_and_says_why(
    n_examples, curvature, trajectories, steps, engine
):
    plan = make_plan(SETTINGS, n_examples, lambda: torch.tensor([1.0, curvature]))
    assert plan.engine == engine
    about = f"about {trajectories} trajectories of hmc for each chain, of {steps} steps each"
    assert about in plan.reason
    assert ("are wanted" in plan.reason) == (engine == "sghmc")


def test_auto_spends_as_many_gradients_of_examples_on_hmc():
    plan = make_plan(replace(SETTINGS, batch_size=25), 50, lambda: torch.ones(1))
    assert (plan.engine, plan.burn_in, plan.draws, plan.thinning) == ("hmc", 50, 50, 25)


@pytest.mark.parametrize("engine", ["hmc", "sghmc", "sgld"])
def test_engine_asked_for_is_taken(engine):
    plan = make_plan(replace(SETTINGS, engine=engine), 10**6, lambda: torch.ones(1))
    assert (plan.engine, plan.reason) == (engine, "it was asked for")
    assert (plan.burn_in, plan.draws, plan.thinning) == (100, 50, 50)


@pytest.mark.parametrize(("scale", "engine"), [(1.0, "hmc"), (100.0, "sghmc")])
def test_auto_measures_the_curvature_of_the_student(scale, engine):
    """A softmax regression on features of unit size, and on features that make it stiff."""
    student = make_student(nn.Linear(3, 3))
    modes = torch.zeros(2, student.n_parameters)
    chains = sample(student, training(scale=scale), Prior(4.0), SETTINGS, modes, seed=0)
    assert chains.plan.engine == engine
    assert "trajectories of hmc" in chains.plan.reason
    assert ("acceptance" in chains.statistics) == (engine == "hmc")
