"""Laplace's approximation, its curvature, and ensembles, against what is known by other means."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from test_engines import COVARIANCE, MEAN, PRECISION, check_moment, run
from test_run import N_CHAINS, SETTINGS, Interrupted, contents, draw, joined, network
from torch import nn

from mtbkd.inference import ensemble, laplace
from mtbkd.inference.chains import chain_generators
from mtbkd.inference.run import SamplerSettings, sample
from mtbkd.observation import CATEGORICAL
from mtbkd.prior.mixture import MixtureTerms, Prior, mixture_terms
from mtbkd.student.curvature import choose_kind, precision
from mtbkd.student.log_posterior import log_posterior
from mtbkd.student.student import Student, make_student
from mtbkd.training import TrainingSet
from mtbkd.types import Batch, InputError
from mtbkd.weights.rules import uniform_weights

DOUBLE = {"rtol": 1e-8, "atol": 1e-9}


def constant(matrix, varying=None):
    """A precision that is the same everywhere."""
    varying = torch.arange(len(matrix)) if varying is None else torch.tensor(varying)
    return lambda at: (varying.expand(len(at), -1), matrix.expand(len(at), *matrix.shape))


def build(name, temperature=1.0):
    if name == "ensemble":
        return ensemble.build()
    matrix = PRECISION if name == "block" else PRECISION.diagonal()
    return laplace.build(constant(matrix), temperature=temperature)


ENGINES = pytest.mark.parametrize("name", ["block", "diagonal", "ensemble"])


@pytest.mark.parametrize("temperature", [1.0, 0.5])
@pytest.mark.parametrize("name", ["block", "diagonal"])
def test_a_gaussian_is_recovered(name, temperature):
    draws, _ = run(build(name, temperature), MEAN.repeat(64, 1), 1, 400)
    covariance = COVARIANCE if name == "block" else torch.diag(1 / PRECISION.diagonal())
    centred = draws - MEAN
    for i in range(3):
        check_moment(draws[:, :, i], float(MEAN[i]), 0.0)
        for j in range(i + 1):
            product = centred[:, :, i] * centred[:, :, j]
            check_moment(product, temperature * float(covariance[i, j]), 0.0)
    following = centred[:, 1:, 0] * centred[:, :-1, 0]
    check_moment(following, 0.0, 0.0)


@ENGINES
def test_chain_is_the_same_alone_and_beside_others(name):
    start = torch.linspace(-1, 1, 24).reshape(8, 3)
    together, _ = run(build(name), start, 3, 5)
    for n_chains in (1, 3):
        fewer, _ = run(build(name), start[:n_chains], 3, 5)
        torch.testing.assert_close(fewer, together[:n_chains])
    assert not torch.allclose(together[0], together[1], atol=0.1)


@ENGINES
def test_same_generators_give_the_same_draws_and_the_global_one_is_untouched(name):
    start, before = torch.zeros(2, 3), torch.get_rng_state()
    first, again, other = (run(build(name), start, seed, 5)[0] for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert torch.equal(first, other) == (name == "ensemble")
    assert torch.equal(start, torch.zeros(2, 3))
    assert torch.equal(torch.get_rng_state(), before)


def test_parameters_outside_the_block_stay_at_the_mode():
    engine = laplace.build(constant(PRECISION[:2, :2], [2, 0]), temperature=1.0)
    draws, _ = run(engine, MEAN.repeat(64, 1), 0, 400)
    assert (draws[:, :, 1] == MEAN[1]).all()
    covariance = torch.linalg.inv(PRECISION[:2, :2])
    centred = draws - MEAN
    check_moment(centred[:, :, 2] * centred[:, :, 0], float(covariance[0, 1]), 0.0)
    check_moment(centred[:, :, 2].square(), float(covariance[0, 0]), 0.0)


def test_ensemble_stays_at_its_modes():
    start = torch.linspace(-1, 1, 6).reshape(2, 3)
    path, infos = run(ensemble.build(), start, 0, 3)
    assert torch.equal(path, start[:, None].expand(-1, 3, -1))
    assert infos == [{}] * 3


@pytest.mark.parametrize("matrix", [-torch.eye(3), -torch.ones(3), torch.full((3, 3), torch.nan)])
def test_a_curvature_that_is_no_precision_is_refused(matrix):
    engine = laplace.build(constant(matrix), temperature=1.0)
    with pytest.raises(InputError, match="Expected a positive definite curvature .* chain 0"):
        engine.init(torch.zeros(2, 3), [])


# --- curvature ---------------------------------------------------------------------------------


def make_case(head=None, n_examples=7, n_classes=3, concentration=4.0, seed=0, sampled="*"):
    """A student in float64, two chains' positions, and a batch with every third label missing."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    if head is None:
        head = nn.Sequential(nn.Linear(2, 4), nn.Tanh(), nn.Linear(4, n_classes))
    student = make_student(head.double(), sampled=sampled, weight_scale=2.0)
    student = replace(
        student,
        prior_mean=student.prior_mean.double(),
        prior_scale=student.prior_scale.double(),
    )
    teachers = (2 * normal(2, n_examples, n_classes)).log_softmax(-1)
    weights = normal(2, n_examples).log_softmax(0)
    labels = torch.randint(n_classes, (n_examples,), generator=generator)
    labels[::3] = -1
    batch = Batch(normal(n_examples, 2), labels, mixture_terms(teachers, weights, concentration))
    positions = normal(2, student.n_parameters)
    return student, batch.each(lambda part: part.expand(2, *part.shape)), positions


def of_chain(batch: Batch, chain: int) -> Batch:
    return batch.chain(chain)


def rows_of(batch: Batch, i: int) -> Batch:
    rows = slice(i, i + 1)
    terms = MixtureTerms(*(part[:, rows] for part in batch.terms))
    return Batch(batch.inputs[rows], batch.labels[rows], terms)


def hessian_of(function):
    """Backward twice: forward mode warns on recent versions of torch."""
    return torch.func.jacrev(torch.func.jacrev(function))


class _Given(nn.Module):
    """Its parameter is its output: turns the log posterior into a density of logits."""

    def __init__(self, n_classes):
        super().__init__()
        self.logits = nn.Parameter(torch.zeros(1, n_classes, dtype=torch.float64))

    def forward(self, inputs):
        return self.logits + 0 * inputs.sum()


def brute_force(student: Student, batch: Batch, position, strength: Prior):
    """``I + sum J' H J`` from one example's Jacobian and autograd's Hessian at a time."""
    total = torch.eye(len(position), dtype=torch.float64)
    n_classes = batch.terms.pseudo_counts.shape[-1]
    head = _Given(n_classes)
    flat = torch.ones(n_classes, dtype=torch.float64)
    shapes = (torch.Size([1, n_classes]),)
    direct = Student(head, None, ("logits",), shapes, 0 * flat, flat)
    density = log_posterior(direct, 10**12, strength)  # so many that the weight prior is nothing
    for i in range(len(batch.labels)):
        own = rows_of(batch, i)
        call = lambda z: student.logits(z, own.inputs)[0]  # noqa: B023, E731
        jacobian = torch.func.jacrev(call)(position)
        hessian = -hessian_of(lambda f: density(f, own))(call(position))  # noqa: B023
        values, vectors = torch.linalg.eigh(hessian)
        hessian = vectors @ torch.diag(values.clamp_min(0)) @ vectors.T
        total = total + jacobian.T @ hessian @ jacobian
    return total


STRENGTHS = [Prior(), Prior(power=0.3), Prior(power=1.7, student_softening=2.0)]

HEADS = {
    "bias": lambda: nn.Sequential(nn.Linear(2, 4), nn.Tanh(), nn.Linear(4, 3)),
    "no_bias": lambda: nn.Sequential(nn.Linear(2, 4), nn.Tanh(), nn.Linear(4, 3, bias=False)),
    "alone": lambda: nn.Linear(2, 3),
    "nested": lambda: nn.Sequential(
        nn.Linear(2, 4), nn.LayerNorm(4), nn.Sequential(nn.GELU(), nn.Linear(4, 3))
    ),
}


@pytest.mark.parametrize("strength", STRENGTHS)
@pytest.mark.parametrize("concentration", [1.0, 20.0])
@pytest.mark.parametrize("head", HEADS)
def test_diagonal_is_that_of_single_jacobians(head, strength, concentration):
    student, batch, positions = make_case(HEADS[head](), concentration=concentration)
    assert (student.dense is not None) == (head in ("bias", "no_bias"))
    found = precision(student, positions, batch, strength, "diagonal")
    for chain in range(2):
        expected = brute_force(student, of_chain(batch, chain), positions[chain], strength)
        torch.testing.assert_close(found.matrix[chain], expected.diagonal(), **DOUBLE)
    assert torch.equal(found.which, torch.arange(student.n_parameters).expand(2, -1))


def deep():
    return nn.Sequential(nn.Linear(2, 4), nn.SiLU(), nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 3))


@pytest.mark.parametrize("sampled", ["*", "0.*", "2.weight"])
def test_diagonal_when_the_prior_is_off_centre_or_parameters_are_not_sampled(sampled):
    student, batch, positions = make_case(deep(), sampled=sampled)
    student = replace(student, prior_mean=student.prior_mean + 0.3)
    found = precision(student, positions, batch, Prior(power=0.5), "diagonal").matrix
    for chain in range(2):
        own = of_chain(batch, chain)
        expected = brute_force(student, own, positions[chain], Prior(power=0.5)).diagonal()
        torch.testing.assert_close(found[chain], expected, **DOUBLE)


def test_diagonal_of_a_stack_is_the_same_by_both_paths(monkeypatch):
    student, batch, positions = make_case(deep(), n_examples=50)
    found = precision(student, positions, batch, Prior(power=0.5), "diagonal").matrix
    monkeypatch.setattr("mtbkd.student.curvature._unshared", lambda _: ())
    other = precision(student, positions, batch, Prior(power=0.5), "diagonal").matrix
    torch.testing.assert_close(found, other, **DOUBLE)


@pytest.mark.parametrize("strength", STRENGTHS)
@pytest.mark.parametrize("head", HEADS)
def test_last_layer_is_the_block_of_single_jacobians(head, strength):
    student, batch, positions = make_case(HEADS[head]())
    assert choose_kind(student) == "last_layer"
    found = precision(student, positions, batch, strength, "last_layer")
    last = {"no_bias": 12, "alone": 9}.get(head, 15)
    places = torch.arange(student.n_parameters)[-last:]
    assert torch.equal(found.which, places.expand(2, -1))
    for chain in range(2):
        expected = brute_force(student, of_chain(batch, chain), positions[chain], strength)
        torch.testing.assert_close(found.matrix[chain], expected[places][:, places], **DOUBLE)


class _Residual(nn.Module):
    """No stack of layers; its last layer is declared first."""

    def __init__(self):
        super().__init__()
        self.out, self.inner = nn.Linear(2, 3), nn.Linear(2, 2)

    def forward(self, inputs):
        return self.out(inputs + torch.tanh(self.inner(inputs)))


def test_diagonal_takes_any_head_and_one_power_for_each_chain():
    student, batch, positions = make_case(_Residual())
    assert choose_kind(student) == "diagonal"
    found = precision(student, positions, batch, Prior(power=torch.tensor([0.2, 0.9])), "diagonal")
    for chain, power in enumerate((0.2, 0.9)):
        expected = brute_force(
            student, of_chain(batch, chain), positions[chain], Prior(power=power)
        )
        torch.testing.assert_close(found.matrix[chain], expected.diagonal(), rtol=1e-6, atol=1e-7)
    with pytest.raises(ValueError, match="sampled linear layer"):
        precision(student, positions, batch, Prior(), "last_layer")


@pytest.mark.parametrize("disagree", [False, True])
def test_projection_matters_only_where_teachers_disagree(disagree):
    """A linear student, so that Gauss-Newton without projection is the Hessian.

    At the uniform student a teacher and its mirror image have equal responsibilities, and pull
    apart so hard that the mixture has a saddle.
    """
    student, batch, positions = make_case(nn.Linear(2, 3), concentration=20.0)
    counts, offsets = (part[0, :1] for part in batch.terms)
    second = counts.flip(-1) if disagree else counts
    own = of_chain(batch, 0)._replace(
        terms=MixtureTerms(torch.cat([counts, second]), torch.cat([offsets, offsets]))
    )
    mode, n = torch.zeros_like(positions[:1]), len(own.labels)
    density = log_posterior(student, n)
    hessian = -n * hessian_of(lambda z: density(z, own))(mode[0])
    single = own.each(lambda part: part[None])
    found = precision(student, mode, single, Prior(), "last_layer").matrix[0]
    expected = brute_force(student, own, mode[0], Prior())
    torch.testing.assert_close(found, expected, **DOUBLE)
    if disagree:
        assert torch.linalg.eigvalsh(hessian)[0] < -1
        assert torch.linalg.eigvalsh(found)[0] > 1 - 1e-9
    else:
        torch.testing.assert_close(found, hessian, **DOUBLE)


@pytest.mark.parametrize("kind", ["last_layer", "diagonal"])
def test_parts_of_the_examples_add_up(monkeypatch, kind):
    student, batch, positions = make_case()
    whole = precision(student, positions, batch, Prior(power=0.5), kind).matrix
    monkeypatch.setattr("mtbkd.student.curvature._FLOATS", 40)
    sizes = []

    def counted(logits, part, strength):
        sizes.append(len(logits))
        return CATEGORICAL.roots(logits, part, strength)

    counting = SimpleNamespace(roots=counted)
    found = precision(student, positions, batch, Prior(power=0.5), kind, counting).matrix
    torch.testing.assert_close(found, whole, **DOUBLE)
    assert sizes == 2 * ([1] * 7 if kind == "last_layer" else [3, 3, 1])


@pytest.mark.parametrize(("width", "kind"), [(203, "last_layer"), (204, "diagonal")])
def test_kind_is_chosen_by_size(width, kind):
    assert choose_kind(make_student(network(4, width, 10))) == kind  # 2040 and 2050 parameters


def test_a_last_layer_that_is_not_sampled_is_left_alone():
    assert choose_kind(make_student(network(4, 5, 3), sampled="0.*")) == "diagonal"
    assert choose_kind(make_student(network(4, 5, 3), sampled="2.weight")) == "diagonal"


# --- runs --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def student():
    return make_student(network(4, 5, 3))


@pytest.fixture(scope="module")
def modes(student):
    return 0.3 * student.initial_position(chain_generators(0, 0, N_CHAINS, torch.device("cpu")))


@pytest.mark.parametrize("last", [True, False])
def test_laplace_runs_to_the_same_bytes_after_a_kill(student, modes, tmp_path, last, monkeypatch):
    if not last:
        monkeypatch.setattr("mtbkd.inference.run.choose_kind", lambda _: "diagonal")
    settings = replace(SETTINGS, engine="laplace", draws=60)
    whole = draw(student, modes, settings, tmp_path / "whole")
    assert (whole.plan.burn_in, whole.plan.draws, whole.plan.thinning) == (0, 60, 1)
    assert whole.statistics == {}
    stopped = []

    def stop(done, total):
        stopped.append((done, total))
        raise Interrupted

    with pytest.raises(Interrupted):
        draw(student, modes, settings, tmp_path / "parts", stop)
    assert stopped == [(50, 60)]
    resumed = draw(student, modes, settings, tmp_path / "parts")
    assert contents(tmp_path / "parts") == contents(tmp_path / "whole")
    assert torch.equal(joined(resumed), joined(whole))
    other = joined(draw(student, modes, settings, seed=1))
    assert not torch.equal(other, joined(whole))
    fixed = (joined(whole) == student.natural(modes)[:, None]).all(1).all(0)
    assert int(fixed.sum()) == (25 if last else 0)


def test_ensemble_is_one_draw_for_each_chain(student, modes, tmp_path):
    settings = replace(SETTINGS, engine="ensemble")
    chains = draw(student, modes, settings, tmp_path)
    assert torch.equal(joined(chains), student.natural(modes)[:, None])
    assert tuple(chains.plan[2:]) == (0, 1, 1, None, None)
    assert chains.statistics == {}
    before = contents(tmp_path)
    again = draw(student, modes, settings, tmp_path)
    assert torch.equal(joined(again), joined(chains))
    assert contents(tmp_path) == before


class _Logistic(nn.Module):
    """Softmax regression with two parameters: a slope and a level between two classes."""

    def __init__(self):
        super().__init__()
        self.line = nn.Linear(1, 1)

    def forward(self, inputs):
        return torch.cat([self.line(inputs), torch.zeros_like(inputs)], -1)


def regression(n_examples, lines=((1.5, 0.0), (0.8, -1.0))):
    """Two teachers, by slope and level, that disagree on the level."""
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(n_examples, 1, generator=generator)
    noise = torch.rand(n_examples, generator=generator).logit()
    labels = (noise > (1.2 * inputs[:, 0] - 0.5)).long()
    labels[::3] = -1
    odds = torch.stack([slope * inputs[:, 0] + level for slope, level in lines])
    log_probs = torch.stack([odds, torch.zeros_like(odds)], -1).log_softmax(-1)
    mask = torch.ones(2, n_examples, dtype=torch.bool)
    return TrainingSet(inputs, labels, log_probs, uniform_weights(mask))


def quadrature(student, batch, strength=Prior()):
    """Mean, covariance and mode of a posterior over two parameters."""
    n = len(batch.labels)
    density = torch.vmap(log_posterior(student, n, strength), (0, None))
    axis = torch.linspace(-4, 4, 241)
    grid = torch.cartesian_prod(axis, axis)
    mass = (n * density(grid, batch).double()).softmax(0)
    mean = mass @ grid.double()
    covariance = (grid.double() - mean).T @ ((grid.double() - mean) * mass[:, None])
    mode = grid[mass.argmax()]
    for _ in range(5):
        slope, bend = (
            f(lambda z: density(z[None], batch)[0])(mode) for f in (torch.func.grad, hessian_of)
        )
        mode = mode - torch.linalg.solve(bend, slope)
    return mean, covariance, mode


@pytest.mark.parametrize(("slopes", "share"), [((1.5, 0.9), 0.94), ((2.2, 0.2), 0.55)])
def test_without_the_covariance_of_teachers_laplace_would_be_too_sure(slopes, share):
    """Variance of the slope between the classes, over that of the posterior by quadrature.

    The less alike the teachers, the more their covariance flattens the posterior.
    """
    data = regression(120, tuple((slope, 0.0) for slope in slopes))
    student = make_student(nn.Linear(1, 2, bias=False), weight_scale=2.0)
    batch = Batch(data.features, data.labels, mixture_terms(data.values, data.log_weights, 3.0))
    _, covariance, mode = quadrature(student, batch)
    single = batch.each(lambda part: part[None])
    kept = precision(student, mode[None], single, Prior(), "last_layer").matrix[0]
    q = student.logits(mode, batch.inputs).softmax(-1)
    weight = ((batch.labels >= 0) + 3.0) * batch.inputs[:, 0].square()
    multinomial = torch.diag_embed(q) - q[:, :, None] * q[:, None, :]
    dropped = torch.eye(2) + 4 * torch.einsum("n,ncd->cd", weight, multinomial)
    between = torch.tensor([1.0, -1.0], dtype=torch.float64)
    truth = between @ covariance @ between
    with_it, without = (
        float(between @ torch.linalg.inv(m.double()) @ between / truth) for m in (kept, dropped)
    )
    assert with_it == pytest.approx(1.0, abs=0.03)
    assert without == pytest.approx(share, abs=0.03)


@pytest.mark.parametrize("strength", [Prior(), Prior(power=0.5, student_softening=1.5)])
@pytest.mark.parametrize("kind", ["last_layer", "diagonal"])
def test_laplace_is_near_quadrature_on_a_regression_under_the_mixture_prior(kind, strength):
    """Means and covariances of draws of a run, in coordinates in which the latter are 1.

    Laplace's own error is 0.13 in the mean and 0.05 in the covariance; drawing adds about 0.02.
    """
    data, prior = regression(120), replace(strength, concentration=3.0)
    head = nn.Linear(1, 2, bias=False) if kind == "last_layer" else _Logistic()
    student = make_student(head, weight_scale=2.0)
    assert choose_kind(student) == kind
    terms = mixture_terms(data.values, data.log_weights, 3.0)
    batch = Batch(data.features, data.labels, terms)
    mean, covariance, mode = quadrature(student, batch, strength)
    settings = SamplerSettings("laplace", draws=2000)
    chains = sample(student, data, prior, settings, mode.repeat(4, 1), seed=0)
    draws = torch.cat(chains.samples.segments, 1).flatten(0, 1)
    draws = student.standardised(draws).double()
    expected = covariance
    if kind == "diagonal":
        expected = torch.diag(1 / torch.linalg.inv(covariance).diagonal())
    whiten = torch.linalg.inv(torch.linalg.cholesky(expected))
    assert (whiten @ (draws.mean(0) - mean)).abs().max() < 0.15
    found = whiten @ torch.cov(draws.T) @ whiten.T
    assert (found - torch.eye(2)).abs().max() < 0.12
