"""How a budget is shared out, and which prior wins where chains could not explore the best."""

import math
from dataclasses import replace

import pytest
import torch
from test_rounds import SETTINGS, case, ticking

from mtbkd.distillation.choose import preferred
from mtbkd.distillation.rounds import steps_to_agree
from mtbkd.distillation.shares import left_for_sampling, share_out, within_share
from mtbkd.distillation.trials import Judged
from mtbkd.inference.modes import MapSettings
from mtbkd.inference.run import Target, sample

MODES = MapSettings(epochs=60, batch_size=10)


def shares_of(seconds_per_look, budget=100.0, out=None):
    student, data, prior, starts = case()
    return share_out(
        Target(student, data, prior),
        MODES,
        len(starts),
        6,
        budget,
        out,
        clock=ticking(seconds_per_look),
    )


def test_a_slower_machine_makes_fewer_passes_and_fewer_steps():
    fast, slow = shares_of(1e-4), shares_of(0.1)
    assert fast.epochs == MODES.epochs
    assert 1 <= slow.epochs < fast.epochs
    assert slow.steps == pytest.approx(fast.steps / 1000, rel=0.3)
    assert fast.compared == 40


def test_what_the_clock_decided_is_read_back(tmp_path):
    first = shares_of(0.1, out=tmp_path)
    assert shares_of(1e-4, out=tmp_path) == first
    assert within_share(MODES, tmp_path).epochs == first.epochs
    assert within_share(MODES, tmp_path / "none") == MODES


def test_what_comes_before_sampling_shortens_it_if_it_is_late(tmp_path):
    assert left_for_sampling(100.0, 40.0) == 100.0
    assert left_for_sampling(100.0, 70.0) == 80.0
    assert left_for_sampling(100.0, 1000.0) == 25.0
    shares_of(0.1, out=tmp_path)
    assert left_for_sampling(100.0, 70.0, tmp_path) == 80.0
    assert left_for_sampling(100.0, 0.0, tmp_path) == 80.0
    assert left_for_sampling(160.0, 0.0, tmp_path) == 140.0


def judged(*pairs):
    """Values with mean log scores and steps, on labels whose differences have deviation 0.1."""
    chance = 0.1 * torch.tensor([1.0, -1.0]).repeat(8)
    return {
        float(k): Judged(mean + k * chance, steps) for k, (mean, steps) in enumerate(pairs, start=1)
    }


def test_a_prior_that_chains_cannot_explore_wins_only_if_it_is_clearly_better():
    a_little, much = ((-1.00, 500), (-0.99, 9000)), ((-1.00, 500), (-0.90, 9000))
    assert preferred(judged(*a_little), affordable=1000) == 1.0
    assert preferred(judged(*a_little), affordable=10_000) == 2.0
    assert preferred(judged(*much), affordable=1000) == 2.0


def test_where_no_good_prior_can_be_explored_the_easiest_of_them_wins():
    found = judged((-1.00, 5000), (-0.99, 9000), (-0.1, math.inf))
    assert preferred(found, affordable=1000) == 1.0
    assert preferred(judged((-1.0, 0.0), (-0.99, 0.0)), math.inf) == 2.0
    assert preferred(judged((-1.0, math.inf), (-0.5, math.inf)), 1000) == 2.0


def test_chains_that_agree_less_or_run_hot_are_further_from_agreeing():
    student, data, prior, starts = case()
    chains = sample(student, data, prior, replace(SETTINGS, engine="sghmc"), starts, seed=0)
    near, far = steps_to_agree(chains, 1.05), steps_to_agree(chains, 1.5)
    assert near == pytest.approx(2 * SETTINGS.draws * SETTINGS.thinning)
    assert far > 10 * near
    hot = chains._replace(statistics={"kinetic_temperature": torch.tensor([1.0, 1.6, 1.0])})
    assert steps_to_agree(hot, 1.05) == math.inf
