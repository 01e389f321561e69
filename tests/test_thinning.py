"""Few draws in place of all: chosen by what they say, settled together."""

from itertools import combinations

import numpy as np
import pytest
import torch

from mtbkd.inference import thinning
from mtbkd.inference.samples import PosteriorSamples
from mtbkd.inference.thinning import aim_at, choose, divergence, entropies, gram
from mtbkd.observation import OUTCOMES
from mtbkd.predictive import draw_outputs, predict, thin
from mtbkd.student.student import make_student
from mtbkd.types import InputError

FAMILIES = {"classification": 3, "multilabel": 3, "regression": 2}


def drawn(seed, family="classification", n_draws=25):
    """A student 3-4-outputs, draws around four modes, inputs to choose by, others to judge by."""
    generator = torch.Generator().manual_seed(seed)
    outputs = FAMILIES[family]
    network = torch.nn.Sequential(
        torch.nn.Linear(3, 4), torch.nn.Tanh(), torch.nn.Linear(4, outputs)
    )
    student = make_student(network)
    size = (4, n_draws, student.n_parameters)
    draws = torch.randn(4, 1, size[2], generator=generator)
    draws = draws + 0.5 * torch.randn(size, generator=generator)
    samples = PosteriorSamples((draws,), student.names, tuple(map(tuple, student.shapes)))
    inputs = torch.randn(2, 120, 3, generator=generator)
    return student, samples, *inputs


def events_of(student, samples, inputs, family="classification", cuts=None):
    """What each draw says, and between which cuts: (draw, example, column, event)."""
    outcome = OUTCOMES[family]
    outputs = torch.cat([o.flatten(0, 1) for o in draw_outputs(student, samples, inputs)], 1)
    cuts = outcome.cuts(outputs) if cuts is None else cuts
    return outcome.events(outputs, cuts), cuts


def distance(student, few, samples, inputs, family="classification"):
    every, cuts = events_of(student, samples, inputs, family)
    said, _ = events_of(student, few, inputs, family, cuts)
    return float(divergence(aim_at(every, cuts), said).mean())


@pytest.mark.parametrize("family", FAMILIES)
def test_events_are_distributions(family):
    student, samples, inputs, _ = drawn(0, family)
    events, _ = events_of(student, samples, inputs, family)
    torch.testing.assert_close(events.sum(-1), torch.ones(events.shape[:-1]))
    assert (events >= 0).all()
    assert (entropies(events.mean(0)) >= entropies(events).mean(0) - 1e-6).all()


def test_numbers_are_as_probable_as_their_normal_distribution_says():
    outputs = torch.tensor([[[0.0, 0.0]], [[2.0, np.log(4.0)]]])  # N(0, 1) and N(2, 4)
    outcome = OUTCOMES["regression"]
    cuts = outcome.cuts(outputs)
    events = outcome.events(outputs, cuts)
    means, sds = torch.tensor([0.0, 2.0]), torch.tensor([1.0, 2.0])
    below = torch.distributions.Normal(means[:, None], sds[:, None]).cdf(cuts[0, 0])
    torch.testing.assert_close(events[:, 0, 0].cumsum(-1)[:, :-1], below)
    assert cuts[0, 0, 7] == pytest.approx(1.0)  # the middle one is the mean of both
    spread = np.sqrt(2.5 + 1.0)  # mean variance and variance of means
    assert (cuts[0, 0, 11] - 1.0) / spread == pytest.approx(0.6745, abs=1e-4)


def test_products_tell_the_divergence():
    """Near all draws, half of chi-square is the divergence."""
    student, samples, inputs, _ = drawn(3, n_draws=200)
    events, cuts = events_of(student, samples, inputs)
    some = list(range(0, 800, 2))
    aim = aim_at(events, cuts)
    found = 0.5 * float(gram(events, aim)[some][:, some].mean()) / len(inputs)
    gap = entropies(events[some]).mean(0) - aim.entropy
    wanted = float(divergence(aim, events[some]).mean() + gap.square().mean())
    assert found == pytest.approx(wanted, rel=0.05)


def test_the_choice_is_the_best_there_is_or_nearly():
    generator = torch.Generator().manual_seed(1)
    for _ in range(20):
        apart = torch.randn(10, 6, generator=generator).double()
        products = (apart - apart.mean(0)) @ (apart - apart.mean(0)).T
        every = sorted(
            float(products[list(c)][:, list(c)].sum()) for c in combinations(range(10), 3)
        )
        places = choose(products, 3)
        assert len(set(places)) == 3
        assert float(products[places][:, places].sum()) <= every[5] + 1e-9


def test_chosen_draws_are_nearer_than_any_at_random():
    """On inputs that they were not chosen by; settling is left out."""
    won = 0
    for seed in range(10):
        student, samples, inputs, others = drawn(seed)
        events, cuts = events_of(student, samples, inputs)
        places = choose(gram(events, aim_at(events, cuts)), 8)
        own = distance(student, samples.chosen(places), samples, others)
        rng = np.random.default_rng(seed)
        rest = [
            distance(student, samples.chosen(rng.choice(100, 8, replace=False)), samples, others)
            for _ in range(10)
        ]
        won += own < min(rest)
    assert won >= 9


@pytest.mark.parametrize(("family", "share"), [*zip(FAMILIES, (0.5, 0.5, 0.9), strict=True)])
def test_settled_draws_are_nearer_still_and_as_far_apart(family, share, monkeypatch):
    student, samples, inputs, others = drawn(7, family)
    few = thin(student, samples, inputs, 8, family=family)
    monkeypatch.setattr("mtbkd.predictive.settle", lambda student, draws, *rest: draws)
    chosen = thin(student, samples, inputs, 8, family=family)
    assert (few.n_chains, few.n_draws) == (8, 1)
    far = distance(student, chosen, samples, others, family)
    assert distance(student, few, samples, others, family) < share * far
    spreads = [predict(student, d, others, family=family).epistemic.mean() for d in (few, samples)]
    assert spreads[0] == pytest.approx(spreads[1], rel=0.1)


def test_draws_that_settling_does_not_bring_nearer_stay(monkeypatch):
    student, samples, inputs, _ = drawn(7)
    monkeypatch.setattr(thinning, "_RATE", 100.0)
    few = thin(student, samples, inputs, 4)
    every = samples.segments[0].flatten(0, 1)
    assert all((every == draw).all(1).any() for draw in few.segments[0][:, 0])


def test_the_same_again():
    student, samples, inputs, _ = drawn(2)
    first, second = (thin(student, samples, inputs, 3).segments[0] for _ in range(2))
    assert torch.equal(first, second)


def test_all_draws_are_all_draws():
    student, samples, inputs, _ = drawn(2)
    assert thin(student, samples, inputs, 100) is samples
    assert thin(student, samples, inputs, 1000) is samples


def test_draws_that_are_all_the_same_stay_where_they_are():
    student, samples, inputs, others = drawn(2)
    alike = samples.segments[0][:1, :1].expand(4, 25, -1).contiguous()
    same = PosteriorSamples((alike,), samples.names, samples.shapes)
    few = thin(student, same, inputs, 8)
    assert (few.n_chains, few.n_draws) == (8, 1)
    wanted = predict(student, same, others)
    answer = predict(student, few, others)
    np.testing.assert_allclose(answer.probs, wanted.probs, atol=1e-3)
    assert (answer.epistemic < 1e-4).all()


def test_places_count_draws_chain_by_chain_over_segments():
    segments = (torch.arange(6.0).view(2, 3, 1), 10 + torch.arange(4.0).view(2, 2, 1))
    samples = PosteriorSamples(segments, ("w",), ((1,),))
    assert samples.chosen([0, 2, 3, 5, 9]).segments[0].flatten().tolist() == [0, 2, 10, 3, 13]


@pytest.mark.parametrize("n_inputs", [1, 11])
def test_few_inputs_are_enough(n_inputs):
    student, samples, inputs, _ = drawn(2)
    assert thin(student, samples, inputs[:n_inputs], 3).n_chains == 3


def test_no_inputs_and_no_draws_are_refused():
    student, samples, inputs, _ = drawn(2)
    with pytest.raises(InputError, match="but got none"):
        thin(student, samples, inputs[:0], 3)
    with pytest.raises(InputError, match="Expected n"):
        thin(student, samples, inputs, 0)


def test_draws_that_hardly_differ_are_chosen_as_well():
    """Of products that are rounding alone no exchange helps for ever."""
    generator = torch.Generator().manual_seed(0)
    for _ in range(20):
        noise = 1e-7 * torch.randn(32, 32, generator=generator, dtype=torch.float64)
        assert len(set(choose(1e-3 + noise, 8))) == 8
