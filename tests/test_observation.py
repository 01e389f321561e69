"""Every family under one contract: closed forms against autograd, and identities of the gaps."""

import math

import pytest
import torch
from torch import Tensor
from torch.func import grad, jacrev

from mtbkd.observation import BINARY, CATEGORICAL, GAUSSIAN, OUTCOMES, Categorical, Said, Top
from mtbkd.prior.mixture import Prior
from mtbkd.prior.spaces import find_spaces
from mtbkd.types import Batch

TEACHERS, EXAMPLES, CLASSES = 3, 7, 5
EXACT = {"rtol": 1e-9, "atol": 1e-9}
GAPS = torch.tensor([[0, 1, 2, 3, 4], [0, 1, 1, -1, -1], [-1, -1, 2, 3, 3]])
"""The first teacher knows all; the others do not know two classes and have two as one."""


def normal(seed: int, *shape: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def classes_said() -> Said:
    return Said(
        normal(1, TEACHERS, EXAMPLES, CLASSES).log_softmax(-1),
        normal(2, TEACHERS, EXAMPLES).log_softmax(0),
    )


def gaps_said(gate: bool) -> Said:
    """As stored: columns that a teacher does not have hold the floor."""
    sizes = find_spaces(GAPS).sizes
    values = classes_said().values.masked_fill(sizes[:, None] == 0, -16.0)
    inside = torch.sigmoid(normal(3, TEACHERS, EXAMPLES)) if gate else None
    if inside is not None:
        inside[1, ::2] = torch.nan
    return replace_values(classes_said(), values)._replace(inside=inside)


def replace_values(said: Said, values: Tensor) -> Said:
    return said._replace(values=values)


def top_said(n_kept: int = 2) -> Said:
    full = classes_said()
    best = full.values.topk(n_kept, -1)
    kept = best.indices
    tail = 1 - best.values.exp().sum(-1, keepdim=True)
    values = torch.cat([best.values, tail.log()], -1)
    kept = kept.clone()
    kept[1, 0, -1] = -1  # fewer were kept here, and the tail has one class more
    values[1, 0, -1] = (values[1, 0, -1].exp() + values[1, 0, -2].exp()).log()
    values[1, 0, -2] = -16.0
    return full._replace(values=values, kept=kept)


def class_labels() -> Tensor:
    return torch.tensor([0, -1, 2, 3, -1, 4, 1])


def label_said() -> Said:
    return Said(
        torch.nn.functional.logsigmoid(
            torch.stack([-normal(1, TEACHERS, EXAMPLES, 2), normal(1, TEACHERS, EXAMPLES, 2)], -1)
        ),
        normal(2, TEACHERS, EXAMPLES, 2).log_softmax(0),
    )


def number_said() -> Said:
    return Said(
        normal(1, TEACHERS, EXAMPLES, 2, 2), normal(2, TEACHERS, EXAMPLES, 2).log_softmax(0)
    )


def binary_labels() -> Tensor:
    labels = (normal(5, EXAMPLES, 2) > 0).double()
    labels[::3, 0] = torch.nan
    return labels


def number_labels() -> Tensor:
    labels = normal(5, EXAMPLES, 2)
    labels[::3, 0] = torch.nan
    return labels


CASES = {
    "classes": (CATEGORICAL, classes_said, class_labels, CLASSES),
    "gaps": (Categorical(find_spaces(GAPS)), lambda: gaps_said(False), class_labels, CLASSES),
    "gaps, gated": (Categorical(find_spaces(GAPS)), lambda: gaps_said(True), class_labels, CLASSES),
    "top": (Top(CLASSES), top_said, class_labels, CLASSES),
    "labels": (BINARY, label_said, binary_labels, 2),
    "numbers": (GAUSSIAN, number_said, number_labels, 2),
}
STRENGTHS = {"plain": Prior(), "softened": Prior(power=0.7, student_softening=1.6)}


def prepared(
    name: str,
    concentration: float = 4.0,
    softening: float | Tensor = 1.3,
    discount: float = 2.0,
):
    observation, said, labels, n_columns = CASES[name]
    terms = observation.terms(said(), concentration, softening, discount)
    outputs = normal(9, EXAMPLES, OUTCOMES[observation.family].n_outputs * n_columns)
    return observation, Batch(torch.zeros(EXAMPLES, 1), labels(), terms), outputs


@pytest.mark.parametrize("strength", STRENGTHS.values(), ids=STRENGTHS)
@pytest.mark.parametrize("name", CASES)
def test_the_closed_form_is_that_of_autograd(name, strength):
    observation, batch, outputs = prepared(name)
    values, slopes = observation.value_and_slope(outputs, batch, strength)
    tolerance = {"rtol": 1e-5, "atol": 1e-6} if name == "top" else EXACT  # its terms are float32
    torch.testing.assert_close(values, observation.value(outputs, batch, strength), **tolerance)
    expected = grad(lambda z: observation.value(z, batch, strength).sum())(outputs)
    torch.testing.assert_close(slopes, expected, **tolerance)


@pytest.mark.parametrize("name", CASES)
def test_chains_and_their_powers_are_independent(name):
    observation, batch, outputs = prepared(name)
    both = torch.stack([outputs, outputs.flip(0)])
    shared = batch.each(lambda part: part.expand(2, *part.shape))
    values, slopes = observation.value_and_slope(
        both, shared, Prior(power=torch.tensor([0.5, 2.0], dtype=torch.float64))
    )
    for chain, power in enumerate((0.5, 2.0)):
        value, slope = observation.value_and_slope(both[chain], batch, Prior(power=power))
        torch.testing.assert_close(values[chain], value)
        torch.testing.assert_close(slopes[chain], slope)


@pytest.mark.parametrize("strength", STRENGTHS.values(), ids=STRENGTHS)
@pytest.mark.parametrize("name", ["classes", "gaps", "gaps, gated", "labels"])
def test_roots_are_those_of_the_negative_hessian(name, strength):
    """With one example at a time, and its negative eigenvalues replaced by 0."""
    observation, batch, outputs = prepared(name)
    roots = observation.roots(outputs, batch, strength)
    for i in range(EXAMPLES):
        own = Batch(
            batch.inputs[i : i + 1],
            batch.labels[i : i + 1],
            type(batch.terms)(*(part[:, i : i + 1] for part in batch.terms)),
        )
        exact = -jacrev(grad(lambda z, own=own: observation.value(z[None], own, strength).sum()))(
            outputs[i]
        )
        values, vectors = torch.linalg.eigh(exact)
        expected = vectors @ torch.diag(values.clamp_min(0)) @ vectors.mT
        torch.testing.assert_close(roots[i] @ roots[i].mT, expected, rtol=1e-7, atol=1e-7)


def test_roots_of_numbers_are_the_fisher_information_less_the_disagreement():
    """The mean Hessian over labels drawn from the student, where teachers say what it says."""
    observation, batch, outputs = prepared("numbers")
    mean, log_variance = outputs.chunk(2, -1)
    agreeing = Said(torch.stack([mean, log_variance], -1)[None], torch.zeros(1, EXAMPLES, 2))
    terms = observation.terms(agreeing, 4.0, 1.0, 0.0)
    roots = observation.roots(outputs, batch._replace(terms=terms), Prior(power=0.5))
    known = (~batch.labels.isnan()).double()
    expected = torch.cat([(known + 2) / log_variance.exp(), (known + 2) / 2], -1)
    torch.testing.assert_close(roots @ roots.mT, torch.diag_embed(expected), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", CASES)
def test_responsibilities_are_the_gradient_of_the_mixture_in_the_log_weights(name):
    observation, batch, outputs = prepared(name)
    names = batch.terms._fields
    offsets = batch.terms.log_offsets

    def mixture(offsets: Tensor) -> Tensor:
        terms = type(batch.terms)(**dict(zip(names, batch.terms, strict=True)) | {
            "log_offsets": offsets
        })  # fmt: skip
        unlabelled = torch.full_like(batch.labels, -1)
        if batch.labels.is_floating_point():
            unlabelled = torch.full_like(batch.labels, torch.nan)
        own = Batch(batch.inputs, unlabelled, terms)
        return observation.value(outputs, own, Prior()).sum()

    shares = observation.log_responsibilities(batch.terms, outputs, 1.0).exp()
    torch.testing.assert_close(shares.to(offsets), grad(mixture)(offsets), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", [name for name in CASES if not name.startswith("gaps")])
def test_a_masked_teacher_is_as_if_it_were_not_there(name):
    """Whatever stands in its place; and nobody at all is no prior.

    What partial teachers tell apart belongs to the observation: they are in the next test.
    """
    observation, said, labels, n_columns = CASES[name]
    full = said()
    weights = full.log_weights.clone()
    weights[1] = -torch.inf
    weights = weights - torch.logsumexp(weights, 0)
    masked = full._replace(log_weights=weights)
    without = Said(*(None if part is None else part[[0, 2]] for part in masked))
    outputs = normal(9, EXAMPLES, OUTCOMES[observation.family].n_outputs * n_columns)

    def value(what: Said) -> Tensor:
        batch = Batch(torch.zeros(EXAMPLES, 1), labels(), observation.terms(what, 4.0, 1.0, 0.0))
        return observation.value(outputs, batch, Prior())

    torch.testing.assert_close(value(masked), value(without))
    assert not torch.allclose(value(masked), value(full))
    silent = full._replace(log_weights=torch.full_like(weights, -torch.inf))
    likelihood = observation.log_likelihood(outputs, labels())
    torch.testing.assert_close(value(silent), likelihood, rtol=1e-6, atol=1e-6)


def test_a_masked_partial_teacher_is_as_if_it_were_not_there():
    said = gaps_said(False)
    weights = said.log_weights.clone()
    weights[1] = -torch.inf
    weights = weights - torch.logsumexp(weights, 0)
    outputs = normal(9, EXAMPLES, CLASSES)

    def value(blocks: Tensor, what: Said) -> Tensor:
        observation = Categorical(find_spaces(blocks))
        batch = Batch(
            torch.zeros(EXAMPLES, 1), class_labels(), observation.terms(what, 4.0, 1.0, 0.0)
        )
        return observation.value(outputs, batch, Prior())

    rest = Said(said.values[[0, 2]], weights[[0, 2]])
    torch.testing.assert_close(
        value(GAPS, said._replace(log_weights=weights)), value(GAPS[[0, 2]], rest), **EXACT
    )


def test_a_partial_teacher_that_knows_everything_is_a_full_one():
    """Up to one constant, the flat density, which all teachers share."""
    said, outputs = classes_said(), normal(9, EXAMPLES, CLASSES)
    everything = torch.arange(CLASSES).expand(TEACHERS, -1)
    gaps = Categorical(find_spaces(everything))
    unlabelled = torch.full((EXAMPLES,), -1)
    found = []
    for observation in (CATEGORICAL, gaps):
        batch = Batch(torch.zeros(EXAMPLES, 1), unlabelled, observation.terms(said, 4.0, 1.0, 0.0))
        found.append(observation.value_and_slope(outputs, batch, Prior()))
    constant = found[0][0] - found[1][0]
    torch.testing.assert_close(constant, constant[:1].expand(EXAMPLES), **EXACT)
    torch.testing.assert_close(constant[0], torch.lgamma(torch.tensor(5.0)).double())
    torch.testing.assert_close(found[0][1], found[1][1], **EXACT)


def log_density(observation, said: Said, q: Tensor) -> Tensor:
    """Log density of one teacher relative to the flat one, at probabilities (point, class)."""
    n = len(q)
    alike = Said(said.values.expand(-1, n, -1), said.log_weights.expand(-1, n), None, said.inside)
    if said.kept is not None:
        alike = alike._replace(kept=said.kept.expand(-1, n, -1))
    batch = Batch(torch.zeros(n, 1), torch.full((n,), -1), observation.terms(alike, 3.0, 1.0, 0.0))
    return observation.value(q.log(), batch, Prior())


def simplex(n_points: int) -> Tensor:
    """Points of a flat Dirichlet over three classes, on a grid that integrates exactly enough."""
    u, w = (torch.arange(n_points, dtype=torch.float64) + 0.5).div(n_points).expand(2, -1)
    root = u.sqrt()[:, None]
    return torch.stack([1 - root + 0 * w, root * (1 - w), root * w], -1).flatten(0, 1)


ONE = torch.tensor([[[0.2, 0.5, 0.3]]], dtype=torch.float64).log()
KINDS = {
    "partial": ([[0, 1, -1]], None),
    "gated": ([[0, 1, -1]], 0.7),
    "merged": ([[0, 1, 1]], None),
    "one of two": ([[0, 0, -1]], None),
}


@pytest.mark.parametrize(("blocks", "inside"), KINDS.values(), ids=KINDS)
def test_every_component_is_a_density_relative_to_the_flat_one(blocks, inside):
    """Its mean under the flat Dirichlet is 1: this is what makes teachers comparable."""
    gate = None if inside is None else torch.full((1, 1), inside, dtype=torch.float64)
    said = Said(ONE, torch.zeros(1, 1, dtype=torch.float64), inside=gate)
    q = simplex(400)
    gate = None if gate is None else gate.expand(1, len(q))
    densities = log_density(
        Categorical(find_spaces(torch.tensor(blocks))), said._replace(inside=gate), q
    )
    assert float(densities.exp().mean()) == pytest.approx(1.0, abs=2e-3)


def test_merging_classes_and_then_computing_is_computing_and_then_merging():
    """The density of the merged teacher is that of the full one, integrated over the odds within.

    Of the full Dirichlet, relative to the flat one, as a function of the first class's probability.
    """
    merged_said = Said(
        torch.tensor([[[0.2, 0.8, 0.0]]], dtype=torch.float64).clamp_min(1e-7).log(),
        torch.zeros(1, 1, dtype=torch.float64),
    )
    merged = Categorical(find_spaces(torch.tensor([[0, 1, 1]])))
    full = Categorical(find_spaces(torch.tensor([[0, 1, 2]])))
    said = Said(ONE, torch.zeros(1, 1, dtype=torch.float64))
    within = (torch.arange(4000, dtype=torch.float64) + 0.5) / 4000  # flat given their sum
    for first in (0.1, 0.4, 0.8):
        q = torch.stack(
            [torch.full_like(within, first), (1 - first) * within, (1 - first) * (1 - within)], -1
        )
        integrated = log_density(full, said, q).exp().mean()
        found = log_density(merged, merged_said, q[:1]).exp()
        assert float(found) == pytest.approx(float(integrated), rel=1e-5)


def test_the_most_probable_and_a_tail_are_a_merged_block():
    """Also where the tail holds one class only: nothing is lost then."""
    q = simplex(20)
    for n_kept in (1, 2):
        best = ONE.topk(n_kept, -1)
        tail = torch.log1p(-best.values.exp().sum(-1, keepdim=True))
        cut = Said(
            torch.cat([best.values, tail], -1),
            torch.zeros(1, 1, dtype=torch.float64),
            best.indices,
        )
        blocks = torch.arange(3)
        rest = [c for c in range(3) if c not in best.indices[0, 0].tolist()]
        blocks[rest] = min(rest)
        values = torch.full((1, 1, 3), -16.0, dtype=torch.float64)
        values[0, 0, best.indices[0, 0]] = best.values[0, 0]
        values[0, 0, min(rest)] = tail[0, 0]
        dense = log_density(
            Categorical(find_spaces(blocks[None])), Said(values, cut.log_weights), q
        )
        torch.testing.assert_close(log_density(Top(3), cut, q), dense, rtol=1e-5, atol=1e-5)


def test_a_partial_teacher_says_nothing_about_the_rest():
    """Its density is the same however much the student gives to the classes that it knows."""
    observation = Categorical(find_spaces(torch.tensor([[0, 1, -1]])))
    said = Said(ONE, torch.zeros(1, 1, dtype=torch.float64))
    odds = torch.tensor([0.3, 0.7], dtype=torch.float64)
    q = torch.stack([torch.cat([odds * s, torch.tensor([1 - s])]) for s in (0.1, 0.5, 0.999)])
    densities = log_density(observation, said, q)
    torch.testing.assert_close(densities, densities[:1].expand(3), **EXACT)


def test_the_gaussian_component_given_its_variance_is_the_normal_of_the_method():
    """``N(mu; m, s^2 / concentration)`` up to a constant, at ``v = s^2``."""
    values = torch.tensor([[[[0.3, -0.4]]]], dtype=torch.float64)
    points = torch.linspace(-1, 1, 9, dtype=torch.float64)
    said = Said(values.expand(1, 9, 1, 2), torch.zeros(1, 9, 1))
    batch = Batch(
        torch.zeros(9, 1), torch.full((9, 1), torch.nan), GAUSSIAN.terms(said, 5.0, 1.0, 0.0)
    )
    outputs = torch.stack([points, torch.full_like(points, -0.4)], -1)
    found = GAUSSIAN.value(outputs, batch, Prior())
    sd = (torch.tensor(-0.4).exp() / 5).sqrt()
    expected = torch.distributions.Normal(0.3, sd).log_prob(points)
    torch.testing.assert_close((found - found[0]), (expected - expected[0]), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("concentration", [0.5, 1.0, 6.0])
def test_gaussian_components_of_all_teachers_have_one_normaliser(concentration):
    """Relative to ``dmu dv / v^(3/2)``: by quadrature over mean and log variance."""
    ell, t = torch.linspace(-12, 40, 1500).double(), torch.linspace(-9, 9, 301).double()
    masses = []
    for mean, log_variance in ((0.0, 0.0), (3.0, 2.0), (-1.0, -1.5)):
        width = (0.5 * ell).exp() / concentration**0.5
        mu = mean + width[:, None] * t
        outputs = torch.stack([mu, ell[:, None].expand_as(mu)], -1).flatten(0, 1)
        values = torch.tensor([mean, log_variance], dtype=torch.float64).expand(
            1, len(outputs), 1, 2
        )
        said = Said(values, torch.zeros(1, len(outputs), 1, dtype=torch.float64))
        labels = torch.full((len(outputs), 1), torch.nan)
        batch = Batch(outputs[:, :1], labels, GAUSSIAN.terms(said, concentration, 1.0, 0.0))
        density = GAUSSIAN.value(outputs, batch, Prior()).exp().unflatten(0, mu.shape)
        over_mean = torch.trapezoid(density * width[:, None], t, dim=1)
        masses.append(torch.trapezoid(over_mean * (-0.5 * ell).exp(), ell))
    torch.testing.assert_close(torch.stack(masses), masses[0].expand(3), rtol=1e-3, atol=0)


@pytest.mark.parametrize("name", CASES)
def test_temperatures_of_one_change_nothing_and_large_ones_flatten(name):
    observation, said, _, _ = CASES[name]
    plain = observation.complete(said(), None)
    ones = observation.complete(said(), torch.ones(TEACHERS, dtype=torch.float64))
    torch.testing.assert_close(plain, ones, rtol=1e-6, atol=1e-6)
    hot = observation.complete(said(), torch.full((TEACHERS,), 50.0, dtype=torch.float64))
    if name == "numbers":
        assert (hot[..., 1] > plain[..., 1]).all()
    else:
        torch.testing.assert_close(plain.exp().sum(-1), torch.ones_like(plain[..., 0]))
        assert (hot.amax(-1) <= plain.amax(-1) + 1e-9).all()


@pytest.mark.parametrize("name", CASES)
def test_scores_are_those_of_the_completed_distribution(name):
    observation, said, labels, _ = CASES[name]
    temperature = torch.tensor([0.7, 1.0, 1.8], dtype=torch.float64)
    score = observation.score(said(), labels(), temperature)
    complete = observation.complete(said(), temperature)
    if name == "numbers":
        normal_ = torch.distributions.Normal(complete[..., 0], (0.5 * complete[..., 1]).exp())
        expected = normal_.log_prob(labels().nan_to_num())
        expected = torch.where(labels().isnan(), 0.0, expected)
    else:
        index = labels().nan_to_num(nan=-1).long()
        picked = complete.gather(-1, index.clamp_min(0).expand(complete.shape[:-1])[..., None])
        expected = torch.where(index < 0, 0.0, picked[..., 0])
    torch.testing.assert_close(score.to(expected), expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", CASES)
def test_scores_are_a_function_of_the_temperature_as_told(name):
    """For partial teachers up to a constant, and for the labels that they know."""
    observation, said, labels, _ = CASES[name]
    known = OUTCOMES[observation.family].missing != labels()
    known = known & ~labels().isnan()
    if observation.spaces is not None:
        known = known & (GAPS >= 0)[:, labels().clamp_min(0)]
    found = observation.tempering(said(), labels())
    gaps = []
    for temperature in (0.6, 1.0, 2.5):
        masses = torch.logsumexp(found.outcomes / temperature + found.log_sizes, -1)
        score = found.label / temperature - masses - found.power * math.log(temperature)
        each = torch.full((TEACHERS,), temperature, dtype=torch.float64)
        gaps.append((observation.score(said(), labels(), each) - score) * known)
    constant = gaps[1] if observation.spaces is not None else torch.zeros_like(gaps[1])
    for gap in gaps:
        torch.testing.assert_close(gap, constant, rtol=0, atol=1e-6 if name == "top" else 1e-9)


def test_one_offset_for_each_teacher_is_not_forgotten():
    """Two teachers of different certainty: without the normaliser the flat one would win."""
    observation, batch, outputs = prepared("labels")
    shifted = batch.terms._replace(log_offsets=batch.terms.log_offsets + 1.0)
    value = observation.value(outputs, batch, Prior())
    moved = observation.value(outputs, replace_terms(batch, shifted), Prior())
    torch.testing.assert_close(moved - value, torch.full((EXAMPLES,), 2.0).double())


def replace_terms(batch: Batch, terms) -> Batch:
    return Batch(batch.inputs, batch.labels, terms)


@pytest.mark.parametrize("name", ["classes", "gaps", "gaps, gated", "top", "labels"])
def test_a_discount_leaves_sure_teachers_alone_and_silences_those_that_know_nothing(name):
    observation, said, _, _ = CASES[name]
    whole, less = (observation.terms(said(), 4.0, 1.0, d).pseudo_counts for d in (0.0, 3.0))
    assert (less.abs() <= whole.abs() + 1e-6).all()
    assert (less.abs().sum(-1) < 0.9 * whole.abs().sum(-1)).any()
    sharp = observation.terms(said(), 4.0, 0.01, 3.0).pseudo_counts
    expected = observation.terms(said(), 4.0, 0.01, 0.0).pseudo_counts
    if name != "gaps, gated":  # its gate is not tempered
        close = (sharp - expected).abs().sum(-1) < 0.2 * expected.abs().sum(-1)
        assert close.double().mean() > 0.8
    flat = observation.terms(said(), 4.0, 1e6, 3.0).pseudo_counts
    if name != "gaps, gated":
        assert flat.abs().max() < 1e-3


@pytest.mark.parametrize("name", ["classes", "gaps", "top", "labels"])
def test_trusting_nobody_is_one_more_component_that_pulls_nowhere(name):
    """With all the weight it leaves the likelihood; with none it changes nothing."""
    observation, said, labels, n_columns = CASES[name]
    outputs = normal(9, EXAMPLES, OUTCOMES[observation.family].n_outputs * n_columns)
    told = said()
    shape = told.log_weights.shape[1:]

    def slope(what: Said) -> Tensor:
        terms = observation.terms(what, 4.0, 1.0, 0.0)
        batch = Batch(torch.zeros(EXAMPLES, 1), labels(), terms)
        return observation.value_and_slope(outputs, batch, Prior())[1]

    none = told._replace(nobody=torch.full(shape, -60.0, dtype=torch.float64))
    torch.testing.assert_close(slope(none), slope(told), rtol=1e-5, atol=1e-6)
    everything = told._replace(
        log_weights=torch.full_like(told.log_weights, -60.0),
        nobody=torch.zeros(shape, dtype=torch.float64),
    )
    likelihood = grad(lambda z: observation.log_likelihood(z, labels()).sum())(outputs)
    torch.testing.assert_close(slope(everything), likelihood, rtol=1e-5, atol=1e-6)


def test_trusting_nobody_is_the_flat_density_beside_the_teachers():
    """A teacher that says all classes alike, at any concentration, shares with it by weight."""
    flat = torch.full((1, EXAMPLES, CLASSES), 1 / CLASSES, dtype=torch.float64).log()
    half = torch.full((1, EXAMPLES), 0.5, dtype=torch.float64).log()
    terms = CATEGORICAL.terms(Said(flat, half, nobody=half[0]), 1e-6, 1.0, 0.0)
    outputs = normal(9, EXAMPLES, CLASSES)
    shares = CATEGORICAL.log_responsibilities(terms, outputs, 1.0).exp()
    torch.testing.assert_close(shares, torch.full_like(shares, 0.5), rtol=1e-4, atol=1e-4)
