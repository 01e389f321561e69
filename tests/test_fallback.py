"""Where chains cannot agree in time, held-out labels say whether Laplace's draws are better."""

import json
import math
from dataclasses import replace

import pytest
import torch
from test_rounds import SETTINGS, case
from torch import nn

from mtbkd.data import make_dataset
from mtbkd.distillation import fallback
from mtbkd.distillation.distill import distill
from mtbkd.distillation.fallback import choose_engine, total_variation
from mtbkd.distillation.posterior import load_posterior, save_posterior
from mtbkd.distillation.rounds import Round
from mtbkd.distillation.trials import Trials
from mtbkd.inference.modes import MapSettings
from mtbkd.inference.run import Target, sample
from mtbkd.inference.samples import PosteriorSamples
from mtbkd.prior.settings import PriorSettings
from mtbkd.student.student import make_student

CHAINS, CLASSES = 3, ("c0", "c1", "c2")


def a_round(rhat_95=2.0, heat=1.0):
    return Round(10, 1, None, (1.0,) * CHAINS, 1.0, rhat_95, (1.0, 1.0, heat))


def setting(out=None, factor=1.0, n_labels=40):
    """Trials and a target; labels are what the modes say, chains Laplace's draws times a factor."""
    student, data, prior, _ = case()
    modes = MapSettings(epochs=200, batch_size=40)
    trials = Trials(student=student, training=data, modes=modes, calibration=None, out=out)
    starts = trials.find(prior, CHAINS, "here")
    said = (
        student.logits_each(student.natural(starts), data.features).softmax(-1).mean(0).argmax(-1)
    )
    held = make_dataset(
        data.features[:n_labels],
        labels=[CLASSES[k] for k in said[:n_labels].tolist()],
        classes=CLASSES,
    )
    trials = replace(trials, calibration=held)
    target = Target(student, data, prior)
    drawn = sample(*target, replace(SETTINGS, engine="laplace"), starts, seed=trials.seed)
    moved = tuple(segment * factor for segment in drawn.samples.segments)
    plan = drawn.plan._replace(engine="sghmc")
    chains = drawn._replace(samples=replace(drawn.samples, segments=moved), plan=plan)
    return target, trials, SETTINGS, starts, chains


def test_chains_that_score_worse_are_replaced_and_it_is_said(tmp_path):
    given = setting(tmp_path, factor=0.0)
    drawn, choice = choose_engine(*given, (a_round(),))
    assert choice.laplace
    assert choice.gain > choice.error > 0
    assert choice.n_labels == 40
    assert 0.05 < choice.distance <= 1
    assert drawn.plan.engine == "laplace"
    assert drawn.plan.reason == choice.reason
    assert f"{choice.gain:+.4f}" in choice.reason
    again, its_choice = choose_engine(*given, (a_round(),))
    assert its_choice == choice
    for one, other in zip(drawn.samples.segments, again.samples.segments, strict=True):
        assert torch.equal(one, other)
    assert len(list((tmp_path / "samples" / "laplace").glob("draws-*"))) == 2


def test_chains_stay_unless_they_are_beaten_by_more_than_chance(tmp_path):
    given = setting(tmp_path)
    drawn, choice = choose_engine(*given, (a_round(),))
    assert not choice.laplace
    assert choice.gain == pytest.approx(0.0, abs=1e-6)
    assert choice.distance == pytest.approx(0.0, abs=1e-6)
    assert drawn is given[-1]
    assert "not taken" in choice.reason
    assert not (tmp_path / "samples" / "laplace").exists()


@pytest.mark.parametrize(
    ("last", "compared"),
    [(a_round(1.04), False), (a_round(1.09, 1.4), False), (a_round(1.2), True)]
    + [(a_round(1.04, 1.6), True)],
)
def test_only_chains_that_are_apart_or_stayed_hot_are_compared(last, compared):
    given = setting(factor=0.0)
    assert (choose_engine(*given, (last,))[1] is not None) == compared


def test_an_engine_that_was_asked_for_stays_and_few_labels_decide_nothing():
    target, trials, settings, starts, chains = setting(factor=0.0)
    named = replace(settings, engine="sghmc")
    found = choose_engine(target, trials, named, starts, chains, (a_round(),))
    assert found == (chains, None)
    few = replace(trials, calibration=trials.calibration.subset(range(19)))
    found = choose_engine(target, few, settings, starts, chains, (a_round(),))
    assert found == (chains, None)
    assert choose_engine(target, trials, settings, starts, chains, ())[1] is None


def test_labels_that_were_learned_do_not_judge():
    """Hopeless chains of a target that has learned the labels are not what is scored."""
    target, trials, settings, starts, chains = setting(factor=0.0)
    both = target._replace(data=target.data.subset(torch.arange(len(target.data))))
    _, hopeless = choose_engine(target, trials, settings, starts, chains, (a_round(),))
    _, choice = choose_engine(both, trials, settings, starts, chains, (a_round(),))
    assert hopeless.gain > 0.1
    assert abs(choice.gain) < 0.5 * hopeless.gain
    assert choice.distance == pytest.approx(hopeless.distance)


def test_total_variation_is_half_the_sum_of_differences():
    student = make_student(nn.Linear(1, 2))

    def saying(p):
        draw = torch.tensor([0.0, 0.0, math.log(p / (1 - p)), 0.0])
        shapes = tuple(tuple(shape) for shape in student.shapes)
        return PosteriorSamples((draw.expand(1, 1, 4).clone(),), student.names, shapes)

    found = total_variation(
        student, (saying(0.9), saying(0.7)), torch.zeros(5, 1), "classification"
    )
    assert found == pytest.approx(0.2, abs=1e-6)


def test_what_answers_is_read_back_and_more_time_goes_on_with_the_chains(tmp_path, monkeypatch):
    student, data, *_ = case()
    inputs = data.features
    labels = [CLASSES[k] for k in (inputs[:, 0] > 0).long()]
    train = make_dataset(inputs, labels=labels, classes=CLASSES)
    held = make_dataset(
        inputs + 0.1, labels=labels, classes=CLASSES, ids=[f"h{k}" for k in range(len(labels))]
    )
    network = nn.Sequential(nn.Linear(2, 4), nn.Tanh(), nn.Linear(4, 3))

    def distilled(budget):
        return distill(
            network,
            train,
            None,
            calibration=held,
            prior=PriorSettings(),
            modes=MapSettings(epochs=20, batch_size=40),
            sampler=SETTINGS,
            chains=CHAINS,
            budget=budget,
            out=tmp_path,
        )

    monkeypatch.setattr(fallback, "_apart", lambda last: True)
    compared = fallback._compared
    monkeypatch.setattr(
        fallback, "_compared", lambda *given: replace(compared(*given), laplace=True)
    )
    first = distilled(1.0)
    assert first.instead
    assert first.plan.engine == "laplace"
    (tmp_path / "cross_fit").mkdir()
    read = load_posterior(network, tmp_path, inputs[:2], CLASSES)
    assert read.choice == first.choice
    assert torch.equal(read.samples.segments[0], first.samples.segments[0])
    save_posterior(first, tmp_path / "copy", ["nobody"])
    copied = load_posterior(network, tmp_path / "copy", inputs[:2], CLASSES)
    assert torch.equal(copied.samples.segments[0], first.samples.segments[0])
    rounds = json.loads((tmp_path / "rounds.json").read_text())["rounds"]
    again = distilled(1.0)  # a run that was killed at its end
    assert torch.equal(again.samples.segments[0], first.samples.segments[0])
    assert (tmp_path / "cross_fit").exists()
    monkeypatch.setattr(fallback, "_apart", lambda last: False)
    (tmp_path / "samples" / "manifest.json").unlink()
    later = distilled(2.0)
    after = json.loads((tmp_path / "rounds.json").read_text())["rounds"]
    assert after[: len(rounds)] == rounds
    assert not later.instead
    assert later.plan.engine == "sghmc"
    assert not (tmp_path / "samples" / "laplace").exists()
    assert not (tmp_path / "cross_fit").exists()
