"""Rivals of the comparison: each formula against another way to it."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy.optimize import minimize

from mtbkd.app.bench import sets
from mtbkd.app.bench.methods import METHODS, ca_mkd, crowds, dropout, gaussians
from mtbkd.app.bench.methods.ae_kd import min_norm
from mtbkd.app.recipes.base import mlp
from mtbkd.data import make_dataset
from mtbkd.outputs.aligned import align, make_table
from mtbkd.prior.settings import Prior
from mtbkd.student.student import make_student
from mtbkd.training import training_set


def test_teachers_that_name_the_label_count_more():
    probs = torch.tensor([[[0.8, 0.2], [0.5, 0.5]], [[0.4, 0.6], [0.9, 0.1]]])
    weights = ca_mkd.confidence_weights(probs.log(), torch.tensor([0, -1]))
    # exp(cross entropy) is 1 / p(label): 1.25 and 2.5 of 3.75
    torch.testing.assert_close(weights[:, 0], torch.tensor([2 / 3, 1 / 3]))
    assert weights[:, 1].tolist() == [0.5, 0.5]
    three = torch.log_softmax(torch.randn(3, 5, 4, generator=torch.Generator().manual_seed(0)), -1)
    torch.testing.assert_close(
        ca_mkd.confidence_weights(three, torch.arange(5) % 4).sum(0), torch.ones(5)
    )


@pytest.mark.parametrize("cap", [1.0, 0.6, 0.4])
def test_the_min_norm_point_is_that_of_a_solver(cap):
    chance = np.random.default_rng(0)
    for _ in range(5):
        slopes = chance.standard_normal((3, 6))
        gram = slopes @ slopes.T
        found = min_norm(gram, cap)
        exact = minimize(
            lambda a, gram=gram: a @ gram @ a,
            np.full(3, 1 / 3),
            bounds=[(0, cap)] * 3,
            constraints={"type": "eq", "fun": lambda a: a.sum() - 1},
        )
        assert found.sum() == pytest.approx(1)
        assert -1e-12 <= found.min() <= found.max() <= cap + 1e-12
        assert found @ gram @ found == pytest.approx(exact.fun, rel=1e-5, abs=1e-6)


def test_two_gradients_meet_where_theirs_is_shortest():
    first, second = np.array([1.0, 0.0]), np.array([0.0, 2.0])
    gram = np.array([[first @ first, first @ second], [second @ first, second @ second]])
    np.testing.assert_allclose(min_norm(gram, 1.0), [0.8, 0.2], atol=1e-6)  # (g2 - g1) g2 / |.|^2


def test_swag_draws_have_its_covariance():
    snapshots = torch.randn(1, 30, 4, generator=torch.Generator().manual_seed(0))
    snapshots[0, :, 1] += snapshots[0, :, 0]
    found = gaussians.gaussian_draws(snapshots, 200_000, [torch.Generator().manual_seed(1)])[0]
    own = snapshots[0]
    running = torch.stack([own[: i + 1].mean(0) for i in range(30)])
    strays = (own - running)[-20:]
    covariance = own.var(0, correction=0).diag() / 2 + strays.T @ strays / (2 * 19)
    torch.testing.assert_close(found.T.cov(), covariance, atol=0.02, rtol=0.02)
    torch.testing.assert_close(found.mean(0), own.mean(0), atol=0.02, rtol=0)


def test_a_pass_of_dropout_is_a_network_without_some_units():
    student = make_student(mlp([3, 40, 2]), example=torch.zeros(2, 3))
    mode = student.initial_position([torch.Generator().manual_seed(0)])
    data = SimpleNamespace()
    found = dropout.draws(student, mode, data, Prior(), 0).segments[0][:, 0]  # type: ignore[arg-type]
    before = student.unflatten(student.natural(mode[0]))
    shares = []
    for draw in found:
        after = student.unflatten(draw)
        assert after["0.weight"].equal(before["0.weight"])
        ratio = (after["2.weight"] / before["2.weight"])[0]
        assert all(abs(r) < 1e-6 or abs(r - 1 / 0.9) < 1e-5 for r in ratio.tolist())
        shares.append(float((ratio == 0).float().mean()))
    assert 0.07 < np.mean(shares) < 0.13


def world_of_liars():
    """Five teachers of whom two exchange the classes; labels that nobody is told."""
    chance = np.random.default_rng(0)
    truth = chance.integers(3, size=600)
    inputs = np.eye(3)[truth] + 0.3 * chance.standard_normal((600, 3))
    data = make_dataset(inputs, classes=["a", "b", "c"])
    tables = []
    for k in range(5):
        said = np.where(chance.random(600) < 0.85, truth, chance.integers(3, size=600))
        said = (said + (k >= 3)) % 3
        probs = np.full((600, 3), 0.05)
        probs[np.arange(600), said] = 0.9
        tables.append(make_table(f"t{k}", probs, ids=data.ids, classes=data.classes, kind="probs"))
    outputs = align(tables, data.ids, data.classes)
    student = make_student(mlp([3, 3]), example=data.inputs[:2])
    world = SimpleNamespace(
        lesson=lambda own, weighting: training_set(student, own, outputs, weighting)
    )
    return world, data, truth


@pytest.mark.filterwarnings("ignore")
def test_dawid_and_skene_see_through_liars():
    pytest.importorskip("crowdkit")
    world, data, truth = world_of_liars()
    training = crowds.dawid_skene(world, data)
    named = training.values[0].argmax(-1).numpy()
    assert (named == truth).mean() > 0.97
    torch.testing.assert_close(training.values[0].exp().sum(-1), torch.ones(600))


def test_every_method_says_what_it_is():
    assert len({method.summary for method in METHODS.values()}) == len(METHODS)


@pytest.mark.filterwarnings("ignore")
def test_sets_of_mapie_hold_what_they_promise():
    pytest.importorskip("mapie")
    chance = np.random.default_rng(0)
    probs = chance.dirichlet(np.full(4, 0.4), 4000)
    labels = np.array([chance.choice(4, p=row) for row in probs])
    held, rest = slice(0, 1000), slice(1000, None)
    told = sets.beside_mapie(probs[held], labels[held], probs[rest], labels[rest], 0.9)
    for score in sets.SCORES:
        assert 0.87 < told[f"set_coverage_{score}"] < 0.98  # whole classes overshoot
        assert 1 <= told[f"set_size_{score}"] < 4
    # LAC keeps classes above one threshold, found on held-out labels
    scores = np.sort(1 - probs[held][np.arange(1000), labels[held]])
    bound = scores[int(np.ceil(0.9 * 1001)) - 1]
    ours = (1 - probs[rest] <= bound).sum(1).mean()
    assert told["set_size_lac"] == pytest.approx(ours, abs=0.01)
    few = sets.beside_mapie(probs[:5], labels[:5], probs[rest], labels[rest], 0.9)
    assert few == {}
