"""Sampling in rounds: until chains agree, within a budget, to the same bytes after a kill."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from mtbkd.app.config.text import seconds_of
from mtbkd.distillation.rounds import AGREED, Round, _caution, _first, sample_in_rounds
from mtbkd.distillation.shares import few_rows
from mtbkd.files import load_tensors
from mtbkd.inference.modes import MapSettings, within_steps
from mtbkd.inference.run import Target
from mtbkd.inference.settings import SamplerSettings
from mtbkd.prior.mixture import Prior
from mtbkd.student.components import Components, n_components
from mtbkd.student.student import make_student
from mtbkd.training import TrainingSet
from mtbkd.weights.rules import uniform_weights

SETTINGS = SamplerSettings(burn_in=20, draws=20, thinning=1, batch_size=None)


def case(n=40, width=4, seed=0):
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(n, 2, generator=generator)
    teachers = torch.log_softmax(2 * torch.randn(2, n, 3, generator=generator), -1)
    labels = torch.randint(-1, 3, (n,), generator=generator)
    weights = uniform_weights(torch.ones(2, n, dtype=torch.bool))
    student = make_student(nn.Sequential(nn.Linear(2, width), nn.Tanh(), nn.Linear(width, 3)))
    starts = 0.1 * torch.randn(3, student.n_parameters, generator=generator)
    return student, TrainingSet(features, labels, teachers, weights), Prior(4.0), starts


def ticking(seconds):
    """A clock of which each look takes so many seconds."""
    ticks = itertools.count()
    return lambda: seconds * next(ticks)


def rounds_of(budget, settings=SETTINGS, clock=None, out=None, report=None, seed=0):
    student, data, prior, starts = case()
    return sample_in_rounds(
        Target(student, data, prior),
        settings,
        starts,
        budget=budget,
        seed=seed,
        out=out,
        report=report,
        clock=clock or ticking(0.001),
    )


def test_sampling_ends_when_chains_agree():
    chains, rounds = rounds_of(1e6)
    assert 1 < len(rounds) < 12
    assert rounds[-1].rhat_95 <= AGREED
    for before, after in itertools.pairwise(rounds):
        assert before.rhat_95 > AGREED
        assert after.thinning == 2 * before.thinning
        assert after.burn_in == SETTINGS.draws * after.thinning // 4
    assert chains.plan.thinning == rounds[-1].thinning
    assert chains.samples.n_draws == SETTINGS.draws


def test_a_budget_ends_sampling_where_chains_do_not_agree():
    """A round takes a second of this clock: the second fits, and no third of the same length."""
    _, rounds = rounds_of(2.5, clock=ticking(1.0))
    assert [each.thinning for each in rounds] == [1, 2]
    assert rounds[-1].rhat_95 > AGREED
    _, rounds = rounds_of(1.5, clock=ticking(1.0))
    assert len(rounds) == 1


def test_without_a_budget_there_is_one_round_as_long_as_the_settings_say():
    chains, rounds = rounds_of(None)
    assert rounds == ()
    assert (chains.plan.burn_in, chains.plan.thinning) == (20, 1)


def test_a_chain_that_ran_hot_takes_smaller_steps_in_the_next_round():
    hot = replace(SETTINGS, batch_size=2, tolerance=1.0, thinning=8)
    _, rounds = rounds_of(3.5, hot, ticking(1.0))
    assert rounds[0].caution == (1.0, 1.0, 1.0)
    assert min(rounds[1].caution) in (0.35, 0.7)
    cool = replace(SETTINGS, thinning=8)
    _, rounds = rounds_of(3.5, cool, ticking(1.0))
    assert set(rounds[-1].caution) == {1.0}


def test_a_chain_over_all_examples_that_cools_down_keeps_its_steps():
    def caution(*heats, batch_size=None):
        made = [Round(10, 1, batch_size, (1.0,) * 3, 1.0, 2.0, heat) for heat in heats]
        return _caution(tuple(made))

    first, cooler, same = (2.0, 1.3, 1.0), (1.6, 1.1, 1.0), (1.9, 1.3, 1.0)
    assert caution(first) == (1.0, 1.0, 1.0)
    assert caution(first, cooler) == (1.0, 1.0, 1.0)
    assert caution(first, same) == (0.35, 0.7, 1.0)
    assert caution(first, cooler, batch_size=2) == (0.35, 1.0, 1.0)


@pytest.mark.parametrize(("steps", "size"), [(5.0, 256), (1e4, None)])
def test_where_no_batch_has_steps_enough_the_smallest_has_the_most(monkeypatch, steps, size):
    student, data, prior, starts = case(n=1024)
    seconds = ticking(3.0 / steps)  # three gradients are timed between two looks
    monkeypatch.setattr("mtbkd.distillation.rounds.perf_counter", seconds)
    assert _first(Target(student, data, prior), SETTINGS, 1.0, starts).batch_size == size


@pytest.mark.parametrize("when", [40, 200])
def test_a_killed_run_goes_on_to_the_same_bytes(tmp_path, when):
    class Killed(Exception):
        pass

    told = itertools.count()

    def kill(stage, done, total):
        if next(told) == when // 10:
            raise Killed

    whole, rounds = rounds_of(1e6, out=tmp_path / "whole")
    assert len(rounds) > 2
    try:
        rounds_of(1e6, out=tmp_path / "killed", report=kill)
    except Killed:
        pass
    again, its_rounds = rounds_of(1e6, out=tmp_path / "killed")
    assert [r.thinning for r in its_rounds] == [r.thinning for r in rounds]
    for one, other in zip(whole.samples.segments, again.samples.segments, strict=True):
        assert torch.equal(one, other)
    for name in ("samples/draws-0000.safetensors", "rounds.json"):
        assert (tmp_path / "killed" / name).exists()
    assert len(list((tmp_path / "killed").glob("start-*"))) == 1


def test_each_round_starts_where_the_last_one_ended(tmp_path):
    student, *_ = case()
    ends = []

    def look(stage, done, total):
        if done == total:
            last = sorted((tmp_path / "samples").glob("draws-*"))[-1]
            ends.append(load_tensors(last)["draws"][:, -1].clone())

    _, rounds = rounds_of(1e6, out=tmp_path, report=look)
    start = load_tensors(tmp_path / f"start-{len(rounds)}.safetensors")["start"]
    assert torch.allclose(start, student.standardised(ends[-2]), atol=1e-6)


@pytest.mark.parametrize(
    ("text", "seconds"), [("90 s", 90), ("5min", 300), ("1.5 h", 5400), (" 2 min ", 120)]
)
def test_durations_as_people_write_them(text, seconds):
    assert seconds_of(text) == seconds


@pytest.mark.parametrize("text", ["5", "0 s", "-1 min", "five minutes", "", "1 day", "nan s"])
def test_what_is_no_duration_is_refused(text):
    with pytest.raises(ValueError, match="a duration"):
        seconds_of(text)


def test_components_are_the_directions_in_which_inputs_differ_most():
    generator = torch.Generator().manual_seed(0)
    spread = torch.tensor([3.0, 0.1, 2.0, 0.2])
    inputs = 5 + spread * torch.randn(500, 4, generator=generator)
    found = Components(inputs, 2)
    axes = found.axes / found.axes.norm(dim=0)
    assert axes[0, 0].abs() > 0.99
    assert axes[2, 1].abs() > 0.99
    outputs = found(inputs)
    assert torch.allclose(outputs.mean(0), torch.zeros(2), atol=1e-5)
    assert outputs.var(0).mean() == pytest.approx(1.0, rel=1e-3)
    assert (outputs[:, 0].std() / outputs[:, 1].std()).item() == pytest.approx(1.5, rel=0.1)


def test_components_of_fewer_examples_and_of_examples_that_do_not_differ():
    few = Components(torch.randn(3, 100, generator=torch.Generator().manual_seed(0)), 48)
    assert few.axes.shape == (100, 48)
    assert torch.isfinite(few(torch.zeros(2, 100))).all()
    same = Components(torch.ones(10, 100), 48)
    assert np.isfinite(same(torch.ones(2, 100)).numpy()).all()


def test_automatic_components_are_for_wide_inputs():
    assert [n_components("auto", n) for n in (2, 64, 65, 784)] == [None, None, 48, 48]
    assert [n_components(None, 784), n_components(20, 784), n_components(900, 784)] == [
        None,
        20,
        784,
    ]


def test_modes_of_many_examples_take_fewer_epochs():
    settings = MapSettings(epochs=60, batch_size=128)
    epochs = [within_steps(settings, n).epochs for n in (100, 50_000, 200_000, 10_000_000)]
    assert epochs == [60, 60, 15, 3]


def test_priors_are_compared_on_few_of_many_examples():
    assert few_rows(50, 10_000, 0).tolist() == list(range(50))
    some = few_rows(30_000, 10_000, 0)
    assert len(some) == len(some.unique()) == 10_000
    assert not torch.equal(some, few_rows(30_000, 10_000, 1))
