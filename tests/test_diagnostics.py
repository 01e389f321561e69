"""Diagnostics see what is wrong with chains, and are silent when nothing is."""

import numpy as np
import pytest

from mtbkd.inference.diagnostics import diagnose, rhat


@pytest.fixture
def healthy():
    return np.random.default_rng(0).normal(size=(4, 200, 30))


def test_independent_draws_raise_no_warning(healthy):
    found = diagnose(healthy, np.ones(4), {"kinetic_temperature": np.ones(4)})
    assert found.warnings == ()
    assert found.rhat_95 < 1.02
    assert found.ess_median == pytest.approx(800, rel=0.15)


def test_chains_in_different_places_disagree(healthy):
    shifted = healthy + np.arange(4)[:, None, None]
    found = diagnose(shifted, np.ones(4))
    assert found.rhat_95 > 1.3
    assert any(w.startswith("Chains disagree") for w in found.warnings)


def test_a_chain_at_its_mode_is_named(healthy):
    found = diagnose(healthy, np.array([1.0, 0.01, 1.0, 1.0]))
    assert [w[:7] for w in found.warnings] == ["Chain 1"]
    assert "hardly moved" in found.warnings[0]


def test_a_hot_chain_is_named(healthy):
    found = diagnose(healthy, np.ones(4), {"kinetic_temperature": np.array([1.0, 1.0, 1.5, 1.0])})
    assert "Chain 2 runs at 1.50 times" in found.warnings[0]


def test_a_chain_of_hmc_that_rejects_or_diverges_is_named(healthy):
    statistics = {
        "trajectories": np.full(4, 200.0),
        "acceptance": np.array([0.8, 0.2, 0.8, 0.8]),
        "divergences": np.array([0.0, 0.0, 1.0, 10.0]),
    }
    found = diagnose(healthy, np.ones(4), statistics).warnings
    assert [w.split(", ")[0] for w in found] == [
        "Chain 1 accepts 20% of its trajectories",
        "5.0% of the trajectories of chain 3 diverged",
    ]


def test_an_approximation_is_named_and_not_judged_by_its_draws(healthy):
    found = diagnose(healthy[:, :1], np.zeros(4), approximation="ensemble")
    assert np.isnan(found.rhat_95)
    assert len(found.warnings) == 1
    assert "an approximation, ensemble" in found.warnings[0]


def test_slow_chains_have_few_independent_draws():
    steps = np.random.default_rng(1).normal(size=(4, 50, 10))
    slow = np.cumsum(steps, axis=1)
    assert any("Few independent draws" in w for w in diagnose(slow, np.ones(4)).warnings)


def test_constant_functions_are_left_out(healthy):
    constant = np.concatenate([healthy, np.zeros((4, 200, 5))], axis=2)
    assert diagnose(constant, np.ones(4)).rhat_95 == diagnose(healthy, np.ones(4)).rhat_95


@pytest.mark.parametrize("n_draws", [4, 49, 50])
def test_rhat_is_that_of_arviz(n_draws):
    from arviz_stats.base.array import array_stats

    chance = np.random.default_rng(0)
    values = chance.normal(size=(4, n_draws, 30)).cumsum(1)
    values[..., 10:] = np.round(values[..., 10:])  # ties
    found = rhat(values, 1e-9)
    assert found == pytest.approx(array_stats.rhat(values, chain_axis=0, draw_axis=1), abs=1e-12)
    assert found.max() > 1.3
