"""Estimators tell whether their chains agree, and fit on one thread whatever is set."""

import math
import threading
import warnings

import numpy as np
import pytest
import torch
from sklearn.exceptions import ConvergenceWarning

from mtbkd import DistilledClassifier, DistilledRegressor
from mtbkd.estimators import fitting
from mtbkd.inference.diagnostics import diagnose
from mtbkd.observation import CLASSES
from mtbkd.predictive import draw_outputs
from mtbkd.student.devices import one_thread

X = np.random.default_rng(0).normal(size=(80, 2))
Y = (X[:, 0] + 0.5 * np.random.default_rng(1).normal(size=80) > 0).astype(int)
SETTLED = {"hidden": (), "mode_steps": 50, "burn_in": 300, "draws": 50, "thinning": 20}
STUCK = {"hidden": (8,), "mode_steps": 50, "burn_in": 1, "draws": 20, "thinning": 1}


@pytest.fixture
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("kind", [DistilledClassifier, DistilledRegressor])
def test_chains_that_settled_are_not_warned_of(kind):
    with warnings.catch_warnings():
        warnings.simplefilter("error", ConvergenceWarning)
        student = kind(**SETTLED, engine="sghmc", random_state=0).fit(X, Y)
    assert 0.99 < student.rhat_ < 1.1


@pytest.mark.parametrize("kind", [DistilledClassifier, DistilledRegressor])
def test_chains_that_stay_at_their_modes_are_warned_of(kind):
    with pytest.warns(ConvergenceWarning, match="Chains disagree on what the student says") as told:
        student = kind(**STUCK, engine="sghmc", random_state=0).fit(X, Y)
    assert student.rhat_ > 1.1
    assert f"below {student.rhat_:.2f}, expected below 1.1" in str(told[0].message)
    assert told[0].filename == __file__


def test_it_is_the_number_of_the_reports_on_training_inputs():
    student = DistilledClassifier(**STUCK, engine="sghmc", random_state=0).fit(X, Y)
    scaled = torch.from_numpy((X - student.input_mean_) / student.input_scale_).float()
    posterior = student.posterior_
    parts = list(draw_outputs(posterior.student, posterior.samples, scaled[::2]))
    functions = CLASSES.traced(torch.cat(parts, 2)).flatten(2).double().numpy()
    moved = np.ones(4)
    # R-hat is of ranks, some of which change places where sums are rounded in another order
    assert student.rhat_ == pytest.approx(diagnose(functions, moved).rhat_95, rel=0.03)


@pytest.mark.parametrize("engine", ["laplace", "ensemble"])
def test_engines_of_independent_draws_have_none(engine):
    with warnings.catch_warnings():
        warnings.simplefilter("error", ConvergenceWarning)
        student = DistilledClassifier(**STUCK, engine=engine, random_state=0).fit(X, Y)
    assert math.isnan(student.rhat_)


def test_three_draws_are_too_few():
    few = STUCK | {"draws": 3}
    assert math.isnan(DistilledClassifier(**few, engine="sghmc", random_state=0).fit(X, Y).rhat_)


def test_a_fit_runs_on_one_thread_but_its_teachers_do_not(monkeypatch, two_threads):
    seen = []
    distill = fitting.distill

    def watched(*arguments, **settings):
        seen.append(torch.get_num_threads())
        return distill(*arguments, **settings)

    def teacher(x):
        seen.append(torch.get_num_threads())
        return np.column_stack([1.0 - Y, Y])

    monkeypatch.setattr(fitting, "distill", watched)
    DistilledClassifier(**STUCK, power=1.0, random_state=0).fit(X, Y, [teacher])
    assert seen == [2, 1]
    assert torch.get_num_threads() == 2


def test_threads_are_set_back_after_a_fault(monkeypatch, two_threads):
    def fails(*arguments, **settings):
        raise ValueError("on purpose")

    monkeypatch.setattr(fitting, "distill", fails)
    with pytest.raises(ValueError, match="on purpose"):
        DistilledClassifier(**STUCK).fit(X, Y)
    assert torch.get_num_threads() == 2


def test_fits_beside_each_other_leave_what_the_first_found(two_threads):
    """The second starts while the first runs, and ends after it."""
    found = {}
    started, ended = threading.Event(), threading.Event()

    def second():
        with one_thread():
            started.set()
            ended.wait()
            found["inside"] = torch.get_num_threads()
        found["second"] = torch.get_num_threads()

    other = threading.Thread(target=second)
    with one_thread():
        other.start()
        started.wait()
    found["first"] = torch.get_num_threads()
    ended.set()
    other.join()
    later = threading.Thread(target=lambda: found.update(later=torch.get_num_threads()))
    later.start()
    later.join()
    assert found == {"inside": 1, "first": 2, "second": 2, "later": 2}
