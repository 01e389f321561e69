"""Teacher weights: the paper's formula by hand, and what stacking must and must not do."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mtbkd.observation import BINARY, CATEGORICAL
from mtbkd.observation.log_probs import confidence, tempered
from mtbkd.weights import stacking as weights_module
from mtbkd.weights.cells import Cells
from mtbkd.weights.directions import find_directions
from mtbkd.weights.pool_fit import Scales, fit_pool
from mtbkd.weights.rules import (
    Seen,
    Stacked,
    Weighting,
    entropy,
    entropy_weights,
    pool_log_probs,
    uniform_weights,
)
from mtbkd.weights.stacking import fit_stacked

N_CLASSES = 6


def everyone(log_probs: torch.Tensor) -> torch.Tensor:
    return torch.ones(log_probs.shape[:2], dtype=torch.bool)


def two_point(*probs: float) -> torch.Tensor:
    """Teachers on one example of two classes."""
    return torch.tensor([[[p, 1 - p]] for p in probs]).log().clamp_min(-16)


def score(log_weights, log_probs, labels, nobody=None) -> float:
    pool = pool_log_probs(log_weights, log_probs, nobody)
    return float(pool.gather(1, labels[:, None]).mean())


def experts(seed: int, n_examples: int, sharpness: float = 4.0):
    """Two teachers; each knows one half of the classes and guesses, less surely, on the other."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(N_CLASSES, (n_examples,), generator=generator)
    logits = torch.randn(2, n_examples, N_CLASSES, generator=generator)
    upper = labels >= N_CLASSES // 2
    for teacher, knows in enumerate((~upper, upper)):
        rows = knows.nonzero()[:, 0]
        logits[teacher, rows, labels[rows]] += sharpness
        blind = slice(N_CLASSES // 2, None) if teacher == 0 else slice(N_CLASSES // 2)
        logits[teacher][:, blind] -= 4.0
    return torch.log_softmax(logits, -1), labels


def noisy_copies(seed: int, n_examples: int, n_teachers: int = 3):
    """Teachers of equal worth: the same truth, each with its own noise."""
    generator = torch.Generator().manual_seed(seed)
    truth = 2 * torch.randn(n_examples, N_CLASSES, generator=generator)
    labels = torch.multinomial(truth.softmax(-1), 1, generator=generator)[:, 0]
    noise = torch.randn(n_teachers, n_examples, N_CLASSES, generator=generator)
    return torch.log_softmax(truth + 0.5 * noise, -1), labels


def test_entropy_is_in_nats():
    assert entropy(two_point(0.5)).item() == pytest.approx(math.log(2))
    expected = -(0.1 * math.log(0.1) + 0.9 * math.log(0.9))
    assert entropy(two_point(0.9)).item() == pytest.approx(expected)


def test_entropy_weights_by_hand():
    """H = 0.6931, 0.5004, 0.3251 nats: w_k = (1 - H_k / 1.5186) / 2."""
    log_probs = two_point(0.5, 0.8, 0.9)
    weights = entropy_weights(log_probs, everyone(log_probs)).exp()[:, 0]
    torch.testing.assert_close(
        weights, torch.tensor([0.27178, 0.33524, 0.39297]), atol=1e-4, rtol=0
    )


@given(st.integers(0, 10_000), st.integers(2, 6), st.integers(2, 8))
def test_entropy_weights_sum_to_one_and_stay_below_the_papers_bound(seed, n_teachers, n_classes):
    generator = torch.Generator().manual_seed(seed)
    noise = 5 * torch.randn(n_teachers, 7, n_classes, generator=generator)
    log_probs = torch.log_softmax(noise, -1)
    weights = entropy_weights(log_probs, everyone(log_probs)).exp()
    torch.testing.assert_close(weights.sum(0), torch.ones(7))
    assert (weights <= 1 / (n_teachers - 1) + 1e-5).all()
    order = entropy(log_probs).argsort(0)
    assert (weights.gather(0, order).diff(dim=0) <= 1e-6).all()


def test_masked_teacher_gets_no_entropy_weight_and_does_not_count():
    log_probs = two_point(0.5, 0.6, 0.9)
    mask = torch.tensor([[True], [False], [True]])
    weights = entropy_weights(log_probs, mask).exp()[:, 0]
    pair = entropy_weights(log_probs[[0, 2]], mask[[0, 2]]).exp()[:, 0]
    assert weights[1] == 0
    torch.testing.assert_close(weights[[0, 2]], pair)


@pytest.mark.parametrize("rule", ["uniform", "entropy"])
@pytest.mark.parametrize("p", [0.5, 0.7, 1.0])
def test_teacher_alone_gets_all_the_weight(rule, p):
    one, three = two_point(p), two_point(0.9, p, 0.6)
    mask = torch.tensor([[False], [True], [False]])
    assert Weighting(rule).apply(one, everyone(one))[1].exp().item() == pytest.approx(1.0)
    assert Weighting(rule).apply(three, mask)[1].exp()[:, 0].tolist() == pytest.approx([0, 1, 0])


def test_certain_teachers_share_equally():
    log_probs = torch.tensor([[[0.0, -torch.inf]], [[-torch.inf, 0.0]], [[0.0, -torch.inf]]])
    weights = entropy_weights(log_probs.clamp_min(-300), everyone(log_probs)).exp()
    torch.testing.assert_close(weights, torch.full((3, 1), 1 / 3))


def test_example_without_teacher_has_no_weight():
    log_probs = two_point(0.5, 0.9)
    silent = torch.zeros(2, 1, dtype=torch.bool)
    for weights in (uniform_weights(silent), entropy_weights(log_probs, silent)):
        assert torch.isneginf(weights).all()


def test_stacked_permutes_with_the_teachers():
    log_probs, labels = experts(0, 120)
    log_probs = torch.cat([log_probs, noisy_copies(1, 120, 1)[0]])
    order = [2, 0, 1]
    fit = fit_stacked(log_probs, everyone(log_probs), labels)
    permuted = fit_stacked(log_probs[order], everyone(log_probs), labels)
    assert permuted.scale == fit.scale > 0
    torch.testing.assert_close(permuted.temperature, fit.temperature[order], atol=1e-2, rtol=1e-2)
    for name in ("intercept", "slope"):
        expected = getattr(fit, name)[:, order]
        torch.testing.assert_close(getattr(permuted, name), expected, atol=1e-2, rtol=1e-2)
    assert not torch.allclose(fit.slope[:, order], fit.slope, atol=0.1)


def test_identical_teachers_are_weighted_alike():
    log_probs, labels = noisy_copies(0, 150, 1)
    twins = log_probs.expand(2, -1, -1)
    fit = fit_stacked(twins, everyone(twins), labels)
    weights = fit.log_weights(Seen(confidence(twins)), everyone(twins))[0].exp()
    assert torch.equal(weights, torch.full((2, 150), 0.5))


def test_indistinguishable_teachers_are_not_told_apart():
    """One standard error lets about one data set in eight through, and then costs little."""
    n_sets, scales = 10, []
    for seed in range(n_sets):
        log_probs, labels = noisy_copies(seed, 1150)
        train, test = slice(0, 150), slice(150, None)
        fit = fit_stacked(log_probs[:, train], everyone(log_probs)[:, train], labels[train])
        mask = everyone(log_probs)[:, test]
        uniform = score(uniform_weights(mask), log_probs[:, test], labels[test])
        log_weights, nobody = fit.log_weights(Seen(confidence(log_probs[:, test])), mask)
        told = tempered(log_probs[:, test], fit.temperature)
        stacked = score(log_weights, told, labels[test], nobody)
        assert stacked > uniform - 0.04
        scales.append(fit.scale)
    assert scales.count(0.0) >= 0.8 * n_sets
    assert max(scales) <= 1.0


def test_experts_are_trusted_on_their_classes():
    log_probs, labels = experts(0, 1300)
    train, test = slice(0, 300), slice(300, None)
    fit = fit_stacked(log_probs[:, train], everyone(log_probs)[:, train], labels[train])
    log_probs, labels, mask = log_probs[:, test], labels[test], everyone(log_probs)[:, test]
    said = Weighting("stacked", fit).apply(log_probs, mask)
    log_weights = said.log_weights
    upper = labels >= N_CLASSES // 2
    own = torch.where(upper, log_weights[1], log_weights[0]).exp()
    assert own.mean() > 0.75
    stacked = score(log_weights, tempered(log_probs, fit.temperature), labels, said.nobody)
    rivals = (uniform_weights(mask), entropy_weights(log_probs, mask))
    assert all(stacked > score(rival, log_probs, labels) + 0.1 for rival in rivals)


@pytest.mark.parametrize("factor", [1.0, 3.0])
def test_temperature_of_an_overconfident_teacher_is_found(factor):
    generator = torch.Generator().manual_seed(0)
    logits = 1.5 * torch.randn(4000, N_CLASSES, generator=generator)
    labels = torch.multinomial(logits.softmax(-1), 1, generator=generator)[:, 0]
    log_probs = torch.log_softmax(factor * logits, -1)[None]
    fit = fit_stacked(log_probs, everyone(log_probs), labels)
    assert fit.temperature.item() == pytest.approx(factor, rel=0.08)
    torch.testing.assert_close(
        tempered(log_probs, fit.temperature)[0], torch.log_softmax(logits, -1), atol=1.0, rtol=0.1
    )


def test_stacked_gives_masked_teachers_no_weight_and_fits_without_them():
    log_probs, labels = experts(0, 200)
    mask = everyone(log_probs)
    mask[0, ::2] = False
    other = log_probs.clone()
    other[0, ::2] = -math.log(N_CLASSES)
    fits = [fit_stacked(each, mask, labels) for each in (log_probs, other)]
    log_weights, nobody = fits[0].log_weights(
        Seen(confidence(log_probs), log_probs.argmax(-1)), mask
    )
    assert torch.isneginf(log_weights[0, ::2]).all()
    total = log_weights.exp().sum(0) + nobody.exp()
    torch.testing.assert_close(total, torch.ones(200))
    for name in ("intercept", "slope", "temperature"):
        torch.testing.assert_close(getattr(fits[0], name), getattr(fits[1], name))


def of_labels(seed, n_examples, weight=0.85):
    """Two teachers of two labels, each of which is right on one label and guesses on the other."""
    generator = torch.Generator().manual_seed(seed)
    labels = (torch.rand(n_examples, 2, generator=generator) < 0.5).float()
    guessed = (torch.rand(2, n_examples, 2, generator=generator) < 0.5).float()
    own = torch.eye(2, dtype=torch.bool)[:, None]
    yes = torch.where(own, labels, guessed) * (2 * weight - 1) + 1 - weight
    return torch.stack([1 - yes, yes], -1).log(), labels


def test_a_teacher_is_trusted_on_the_labels_that_it_knows():
    values, labels = of_labels(0, 400)
    mask = torch.ones(values.shape[:-1], dtype=torch.bool)
    fit = fit_stacked(values, mask, labels, observation=BINARY)
    assert fit.intercept.shape[1:] == (2, 2)
    weights = Weighting("stacked", fit).apply(values, mask, None, BINARY).log_weights.exp()
    assert weights.shape == mask.shape
    assert weights[0, :, 0].mean() > 0.8
    assert weights[1, :, 1].mean() > 0.8
    swapped = fit_stacked(values.flip(2), mask, labels.flip(1), observation=BINARY)
    torch.testing.assert_close(swapped.intercept, fit.intercept.flip(2), atol=1e-2, rtol=1e-2)


def test_scales_are_chosen_on_some_thousands_of_examples_and_weights_fitted_on_all(monkeypatch):
    values, labels = of_labels(0, 90)
    mask = torch.ones(values.shape[:-1], dtype=torch.bool)
    sizes = {}
    monkeypatch.setattr(weights_module, "_MOST", 30)
    for name in ("make_problems", "fit_pool"):
        call, seen = getattr(weights_module, name), sizes.setdefault(name, set())
        monkeypatch.setattr(
            weights_module,
            name,
            lambda cells, *rest, call=call, seen=seen: (
                seen.add(len(cells.labels)) or call(cells, *rest)
            ),
        )
    fit_stacked(values, mask, labels, observation=BINARY)
    assert sizes == {"make_problems": {30}, "fit_pool": {90}}


def by_place(seed: int, n_examples: int):
    """Two teachers as sure as each other, each right on its side of a line through the inputs."""
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(n_examples, 3, generator=generator) * torch.tensor([3.0, 1.0, 1.0])
    labels = torch.randint(N_CLASSES, (n_examples,), generator=generator)
    said = torch.randint(N_CLASSES, (2, n_examples), generator=generator)
    right = torch.stack([features[:, 0] < 0, features[:, 0] >= 0])
    said = torch.where(right, labels, said)
    log_probs = torch.log_softmax(4.0 * torch.nn.functional.one_hot(said, N_CLASSES), -1)
    return features, log_probs, labels


def test_trust_sees_the_input():
    features, log_probs, labels = by_place(0, 600)
    train, test = slice(0, 100), slice(100, None)
    mask = everyone(log_probs)
    fit = fit_stacked(
        log_probs[:, train],
        mask[:, train],
        labels[train],
        features=features[train],
        directions=find_directions(features),
    )
    said = Weighting("stacked", fit).apply(
        log_probs[:, test], mask[:, test], features=features[test]
    )
    side = (features[test, 0] >= 0).long()
    own = said.log_weights.exp().gather(0, side[None])[0]
    assert own.mean() > 0.8
    assert own[features[test, 0].abs() > 3].min() > 0.8
    blind = fit_stacked(log_probs[:, train], mask[:, train], labels[train])
    plain = Weighting("stacked", blind).apply(log_probs[:, test], mask[:, test])
    better = score(
        said.log_weights, tempered(log_probs[:, test], fit.temperature), labels[test], said.nobody
    )
    rival = score(
        plain.log_weights,
        tempered(log_probs[:, test], blind.temperature),
        labels[test],
        plain.nobody,
    )
    assert better > rival + 0.2
    with pytest.raises(ValueError, match="see the input"):
        Weighting("stacked", fit).apply(log_probs[:, test], mask[:, test])


def test_an_input_that_says_nothing_costs_next_to_nothing():
    """Where trust by input is chosen by chance, it is of a small scale."""
    lost = []
    for seed in range(4):
        _, log_probs, labels = by_place(seed, 1100)
        noise = torch.randn(1100, 3, generator=torch.Generator().manual_seed(seed))
        mask, scores = everyone(log_probs), []
        train, test = slice(0, 100), slice(100, None)
        for directions in (None, find_directions(noise)):
            fit = fit_stacked(
                log_probs[:, train],
                mask[:, train],
                labels[train],
                features=noise[train],
                directions=directions,
            )
            said = Weighting("stacked", fit).apply(
                log_probs[:, test], mask[:, test], features=noise[test]
            )
            told = tempered(log_probs[:, test], fit.temperature)
            scores.append(score(said.log_weights, told, labels[test], said.nobody))
        lost.append(scores[0] - scores[1])
    assert sum(lost) / len(lost) < 0.01
    assert max(lost) < 0.05


@pytest.mark.parametrize(("gain", "let_in"), [(0.0, True), (0.015, False)])
def test_a_further_term_is_not_let_in_for_what_comes_with_it(gain, let_in, monkeypatch):
    """It beats the plain pool by 2.0 errors; what comes with it does by 1.5 where gain is 0.015."""
    first = torch.tensor([1.0, -1.0]).repeat(50).double().numpy()
    second = torch.tensor([1.0, 1.0, -1.0, -1.0]).repeat(25).double().numpy()

    def scores(cells, scales):
        found = {1: 0.022 + 0.1 * first + 0.05 * second, 0: gain + 0.1 * first}
        return [found[one.by_input > 0] * (one.own == 0.25 and not one.by_class) for one in scales]

    monkeypatch.setattr(weights_module, "_cross_validated", scores)
    features, log_probs, labels = by_place(0, 100)
    fit = fit_stacked(
        log_probs,
        everyone(log_probs),
        labels,
        features=features,
        directions=find_directions(features),
    )
    assert (fit.by_input is not None) == let_in
    assert (fit.scale > 0) == let_in


def test_trust_sees_which_class_a_teacher_names():
    """Both are equally sure; each is right where it names one of its own classes."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(N_CLASSES, (200,), generator=generator)
    own = torch.stack([labels < N_CLASSES // 2, labels >= N_CLASSES // 2])
    wrong = torch.stack([3 + (labels + 1) % 3, (labels + 1) % 3])
    said = torch.nn.functional.one_hot(torch.where(own, labels, wrong), N_CLASSES)
    log_probs = torch.log_softmax(4.0 * said, -1)
    fit = fit_stacked(log_probs, everyone(log_probs), labels)
    assert fit.by_class is not None
    named = fit.by_class.mean(0)
    assert named[0, :3].mean() > named[0, 3:].mean() + 0.5
    assert named[1, 3:].mean() > named[1, :3].mean() + 0.5


def test_the_uncertainty_of_the_weights_vanishes_with_labels_and_shrinks_them_without():
    def spread_and_pull(n_labels):
        features, log_probs, labels = by_place(1, n_labels)
        directions, mask = find_directions(features), everyone(log_probs)
        cells = Cells(
            values=log_probs.double(),
            mask=mask,
            labels=labels,
            kept=None,
            observation=CATEGORICAL,
            place=directions.place(features),
        )
        scales = Scales(0.25, 1.0, by_input=1.0)
        seen = Seen(confidence(log_probs), None, cells.place)
        mode, drawn = (fit_pool(cells, scales, n_draws) for n_draws in (1, 16))
        sure, averaged = (fit.log_weights(seen, mask)[0].exp() for fit in (mode, drawn))
        return drawn.by_input.std(0).mean(), ((sure - 0.5).abs() - (averaged - 0.5).abs()).mean()

    few, many = spread_and_pull(30), spread_and_pull(3000)
    assert few[0] > 1.5 * many[0]
    assert few[1] > 0.001 > abs(many[1])


def test_directions_are_those_of_the_rows_and_end_somewhere():
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(500, 5, generator=generator) * torch.tensor([1e6, 2.0, 1.0, 0.0, 0.1])
    found = find_directions(features)
    place = found.place(features)
    torch.testing.assert_close(place.std(0)[0], torch.tensor(1.0), atol=0.05, rtol=0)
    assert found.place(1e6 * features).abs().max() == 3
    assert find_directions(torch.ones(10, 2)) is None


@pytest.mark.parametrize("nobody", [None, torch.tensor([-1.0, -1.0])])
def test_weights_are_averaged_over_draws_as_probabilities(nobody):
    fit = Stacked(
        intercept=torch.tensor([[0.0, 3.0], [0.0, -1.0]]),
        slope=torch.zeros(2, 2, 1),
        temperature=torch.ones(2),
        scale=1.0,
        nobody=nobody,
    )
    mask = torch.ones(2, 1, dtype=torch.bool)
    found, rest = fit.log_weights(Seen(torch.zeros(2, 1, 1)), mask)
    scores = fit.intercept if nobody is None else torch.cat([fit.intercept, nobody[:, None]], 1)
    expected = scores.softmax(1).mean(0)
    torch.testing.assert_close(found.exp()[:, 0], expected[:2])
    if nobody is not None:
        torch.testing.assert_close(rest.exp()[0], expected[2])
