"""How a budget is shared out, and which prior wins where chains could not explore the best."""

import math
from dataclasses import replace

import pytest
import torch
from test_rounds import SETTINGS, case, ticking

from mtbkd.distillation.choose import preferred
from mtbkd.distillation.rounds import steps_to_agree
from mtbkd.distillation.shares import (
    decided,
    left_for_sampling,
    read_shares,
    share_out,
    was_decided,
    within_share,
)
from mtbkd.distillation.trials import Judged
from mtbkd.inference.modes import MapSettings
from mtbkd.inference.run import Target, sample

MODES = MapSettings(epochs=60, batch_size=10)


def shares_of(out, seconds_per_look, budget=100.0):
    student, data, prior, starts = case()
    return share_out(
        Target(student, data, prior),
        Target(student, data, prior),
        MODES,
        len(starts),
        6,
        budget,
        out,
        clock=ticking(seconds_per_look),
    )


def test_a_slower_machine_makes_fewer_passes_and_fewer_steps(tmp_path):
    fast, slow = shares_of(tmp_path / "fast", 1e-4), shares_of(tmp_path / "slow", 0.1)
    assert fast.epochs == MODES.epochs
    assert 1 <= slow.epochs < fast.epochs
    assert slow.steps == pytest.approx(fast.steps / 1000, rel=0.3)
    assert fast.compared == 40


def test_what_the_clock_decided_is_read_back(tmp_path):
    first = shares_of(tmp_path, 0.1)
    assert shares_of(tmp_path, 1e-4) == first
    assert within_share(MODES, tmp_path).epochs == first.epochs
    assert within_share(MODES, tmp_path / "none") == MODES


def test_without_a_folder_the_clock_decides_nothing_beforehand():
    assert shares_of(None, 0.1) == shares_of(None, 1e-4)
    assert shares_of(None, 0.1).epochs == MODES.epochs


def test_what_comes_before_sampling_shortens_it_if_it_is_late(tmp_path):
    def left(budget, seconds, name):
        if not (tmp_path / name).exists():
            shares_of(tmp_path / name, 0.1)
        return left_for_sampling(budget, seconds, tmp_path / name)

    assert left(100.0, 40.0, "early") == 100.0
    assert left(100.0, 70.0, "late") == 80.0
    assert left(100.0, 0.0, "late") == 80.0  # again
    assert left(160.0, 0.0, "late") == 140.0  # and with more time
    assert left(100.0, 1000.0, "very late") == 25.0


def test_the_clock_is_asked_once(tmp_path):
    assert decided(tmp_path, "before", lambda: 3.0) == 3.0
    found = shares_of(tmp_path, 0.1)
    assert decided(tmp_path, "before", lambda: 7.0) == 3.0
    assert read_shares(tmp_path) == found
    assert was_decided(tmp_path, "before", 9.0) == 3.0
    assert was_decided(tmp_path, "cross_fit", 1.0) == 1.0
    assert found.modes == pytest.approx(0.1 * found.epochs, rel=0.3)


def test_a_stand_in_is_timed_itself(tmp_path):
    """A dear student whose stand-in is cheap leaves as many examples to compare as there are."""
    student, data, prior, starts = case(2000)
    other = case(2000, width=5)[0]
    clock = ticking(0.01)
    target, instead = Target(student, data, prior), Target(other, data, prior)
    found = [
        share_out(
            target, tried, MODES, len(starts), 6, budget, tmp_path / f"{name}-{budget}", clock
        )
        for name, tried in (("same", target), ("other", instead))
        for budget in (20.0, 200.0)
    ]
    assert found[0].tried_epochs == found[0].epochs
    assert found[2].tried_epochs < found[3].tried_epochs
    assert found[2].compared < found[3].compared


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
