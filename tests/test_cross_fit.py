"""Labels that are learned from and judge: what they say of teachers, and answers without them."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

import mtbkd
from mtbkd.data import joined, make_dataset
from mtbkd.distillation.choose import Trials
from mtbkd.distillation.cross_fit import cross_fit
from mtbkd.explain.conformal import class_bound, class_sets
from mtbkd.inference.modes import MapSettings
from mtbkd.metrics import coverage
from mtbkd.student.student import make_student
from mtbkd.training import training_set
from mtbkd.weights.rules import Stacked, Weighting

CLASSES = ["left", "right"]
MODES = MapSettings(epochs=20, batch_size=32)
PRIOR = mtbkd.PriorSettings(weights="uniform", power=1.0, discount=0.0)


def scene(seed: int, n: int = 60, n_calibration: int = 20, name: str = "x"):
    """Noisy labels of a line, the second half of which calibrate, and one soft teacher."""
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(n + n_calibration, 2, generator=generator)
    chance = torch.rand(len(inputs), generator=generator)
    labels = (chance < torch.sigmoid(2 * inputs[:, 0])).long()
    ids = [f"{name}{i}" for i in range(len(inputs))]
    both = make_dataset(inputs, labels=labels, classes=CLASSES, ids=ids)
    logits = torch.stack([-0.5 * inputs[:, 0], 0.5 * inputs[:, 0]], 1)
    table = mtbkd.make_table("soft", logits, kind="logits", ids=ids, classes=CLASSES)
    teachers = mtbkd.align([table], ids, CLASSES)
    return both.subset(range(n)), both.subset(range(n, n + n_calibration)), teachers


def distilled(data, calibration, teachers, learn=True, sampler=None):
    settings = sampler or mtbkd.SamplerSettings(engine="ensemble", draws=1, burn_in=1, thinning=1)
    return mtbkd.distill(
        torch.nn.Linear(2, 2),
        data,
        teachers,
        calibration=calibration,
        learn_calibration=learn,
        prior=PRIOR,
        modes=MODES,
        sampler=settings,
        chains=2,
    ), settings


def answers(data, calibration, teachers):
    posterior, settings = distilled(data, calibration, teachers)
    student = posterior.student
    training = training_set(student, joined(data, calibration), teachers, posterior.weighting)
    trials = Trials(student=student, training=training, modes=MODES, calibration=calibration)
    return cross_fit(posterior, trials, settings).probs, posterior


def test_learning_from_calibration_examples_is_learning_from_all():
    data, calibration, teachers = scene(0)
    draws = mtbkd.SamplerSettings(engine="sghmc", burn_in=10, draws=2, thinning=2, batch_size=16)
    learnt, _ = distilled(data, calibration, teachers, sampler=draws)
    plain, _ = distilled(joined(data, calibration), None, teachers, learn=False, sampler=draws)
    held, _ = distilled(data, calibration, teachers, learn=False, sampler=draws)
    torch.testing.assert_close(learnt.samples.segments, plain.samples.segments)
    assert not torch.allclose(learnt.samples.segments[0], held.samples.segments[0])


def test_an_answer_does_not_know_its_own_label():
    data, calibration, teachers = scene(1)
    before, _ = answers(data, calibration, teachers)
    labels = calibration.labels.clone()
    labels[3] = 1 - labels[3]
    after, _ = answers(data, replace(calibration, labels=labels), teachers)
    same = np.isclose(before, after, atol=1e-7).all(1)
    fold = np.arange(len(calibration)) % 5
    assert same[fold == fold[3]].all()
    assert not same[fold != fold[3]].any()


def test_answers_are_in_the_order_of_the_examples_and_close_to_those_of_all():
    data, calibration, teachers = scene(2, n=300, n_calibration=23)
    found, posterior = answers(data, calibration, teachers)
    every = posterior.predict(calibration.inputs).probs
    assert found.shape == every.shape
    assert np.abs(found - every).max() < 0.1
    assert np.abs(found - every[::-1]).max() > 0.3


def test_a_killed_cross_fit_goes_on_to_the_same_answers(tmp_path):
    data, calibration, teachers = scene(3)
    posterior, settings = distilled(data, calibration, teachers)
    training = training_set(
        posterior.student, joined(data, calibration), teachers, posterior.weighting
    )
    trials = Trials(
        student=posterior.student,
        training=training,
        modes=MODES,
        calibration=calibration,
        out=tmp_path,
    )
    first = cross_fit(posterior, trials, settings).probs
    (tmp_path / "cross_fit" / "fold-2.safetensors").unlink()
    np.testing.assert_array_equal(cross_fit(posterior, trials, settings).probs, first)


@pytest.mark.slow
def test_sets_made_on_cross_fitted_answers_keep_their_promise():
    held = []
    for seed in range(60):
        data, calibration, teachers = scene(seed, n=30, n_calibration=40)
        found, posterior = answers(data, calibration, teachers)
        bound = class_bound(found, calibration.labels.numpy(), 0.8)
        test = scene(1000 + seed, n=500, n_calibration=1)[0]
        sets = class_sets(posterior.predict(test.inputs).probs, bound)
        held.append(coverage(sets, test.labels.numpy()))
    error = np.std(held) / math.sqrt(len(held))
    assert 0.8 - 3 * error < np.mean(held) < 0.9


def two_teachers():
    ids, probs = ["known", "unknown"], torch.tensor([[0.9, 0.1], [0.9, 0.1]])
    tables = [
        mtbkd.make_table(name, own, kind="probs", ids=ids, classes=CLASSES)
        for name, own in (("one", probs), ("other", probs.flip(1)))
    ]
    data = make_dataset(torch.zeros(2, 1), labels=[0, -1], classes=CLASSES, ids=ids)
    return data, mtbkd.align(tables, ids, CLASSES)


@pytest.mark.parametrize("nobody", [None, -1.0])
def test_a_label_tells_which_teacher_is_right_there(nobody):
    data, teachers = two_teachers()
    fit = Stacked(
        intercept=torch.tensor([[0.0, math.log(3.0)]]),
        slope=torch.zeros(1, 2, 2),
        temperature=torch.ones(2),
        scale=1.0,
        nobody=None if nobody is None else torch.tensor([nobody]),
    )
    student = make_student(torch.nn.Linear(1, 2))
    found = training_set(student, data, teachers, Weighting("stacked", fit))
    share = torch.tensor([1.0, 3.0, 0.0 if nobody is None else math.exp(nobody)])
    said = torch.tensor([0.9, 0.1, 0.5])
    expected = torch.stack([share * said / (share * said).sum(), share / share.sum()], 1)
    torch.testing.assert_close(found.log_weights.exp(), expected[:2], atol=1e-5, rtol=0)
    if nobody is not None:
        torch.testing.assert_close(found.nobody.exp(), expected[2], atol=1e-5, rtol=0)
    plain = training_set(student, data, teachers, Weighting("uniform"))
    torch.testing.assert_close(plain.log_weights.exp(), torch.full((2, 2), 0.5))
