"""Numbers that are none are refused where they arise, and never given as an answer."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from mtbkd import MapSettings, PriorSettings, SamplerSettings, distill, make_dataset
from mtbkd.app.recipes.own.inputs import moments, standardise
from mtbkd.estimators import DistilledClassifier, DistilledRegressor
from mtbkd.inference.samples import PosteriorSamples
from mtbkd.observation.units import find_units
from mtbkd.predictive import predict
from mtbkd.student import make_student
from mtbkd.types import InputError, check_positive

QUICK = {
    "modes": MapSettings(epochs=3),
    "sampler": SamplerSettings("sghmc", burn_in=20, draws=2, thinning=2, batch_size=30),
    "chains": 2,
    "device": "cpu",
}


def case(head=None, frozen=None, seed=0):
    """A student and draws of it, with inputs of four numbers."""
    head = nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 2)) if head is None else head
    if frozen is None:
        student = make_student(head)
    else:
        network = nn.Sequential(frozen, head)
        student = make_student(network, sampled="1.*", example=torch.zeros(2, 4))
    assert (student.frozen is None) == (frozen is None)
    generator = torch.Generator().manual_seed(seed)
    draws = torch.randn(2, 3, student.n_parameters, generator=generator)
    return student, PosteriorSamples((draws,), student.names, tuple(map(tuple, student.shapes)))


@pytest.mark.parametrize("value", [float("inf"), float("-inf"), float("nan")])
@pytest.mark.parametrize("frozen", [None, nn.Tanh()])
def test_inputs_that_are_no_numbers_are_refused_by_their_place(frozen, value):
    """Tanh would make an answer of infinity."""
    student, samples = case(frozen=frozen)
    inputs = torch.ones(6000, 4)
    assert np.isfinite(predict(student, samples, inputs).probs).all()
    inputs[5123, 2] = value
    message = "Expected finite inputs, .* for 1 of .* the first in place 5123, counted from 0"
    with pytest.raises(InputError, match=message):
        predict(student, samples, inputs)


def test_features_and_outputs_that_overflow_are_refused():
    linear = nn.Linear(4, 4)
    nn.init.constant_(linear.weight, 2.0)
    inputs = torch.ones(3, 4)
    inputs[1] = 3e38
    student, samples = case(frozen=linear)
    with pytest.raises(
        InputError, match="finite features of the .* frozen part.* place 1, .*scale"
    ):
        predict(student, samples, inputs)
    student, samples = case(nn.Linear(4, 2))
    with pytest.raises(InputError, match="Expected finite outputs of the student, .* place 1,"):
        predict(student, samples, inputs)


@pytest.mark.parametrize("family", ["multilabel", "regression"])
def test_other_families_refuse_too(family):
    student, samples = case(nn.Linear(4, 2))
    inputs = torch.ones(3, 4)
    inputs[2] = 3e38
    with pytest.raises(InputError, match="Expected finite outputs of the student"):
        predict(student, samples, inputs, family=family)
    if family == "regression":
        inputs[2] = 1e5  # a variance of exp(1e5)
        with pytest.raises(InputError, match="Expected finite answers, .* place 2,"):
            predict(student, samples, inputs, family=family)


@pytest.mark.parametrize("value", [float("inf"), float("nan")])
def test_draws_that_are_no_numbers_are_refused(value):
    """An infinite weight before a Tanh shows in no answer."""
    student, samples = case()
    samples.segments[0][1, 2, 0] = value
    with pytest.raises(InputError, match="Expected finite draws of the posterior"):
        predict(student, samples, torch.ones(3, 4))


@pytest.fixture(scope="module")
def rows():
    generator = np.random.default_rng(0)
    return generator.normal(size=(30, 2)), np.arange(30) % 2


ESTIMATOR = {
    "mode_steps": 20,
    "burn_in": 20,
    "draws": 2,
    "thinning": 1,
    "chains": 2,
    "device": "cpu",
}


@pytest.mark.parametrize("kind", [DistilledClassifier, DistilledRegressor])
def test_estimators_give_no_answer_that_is_none(kind, rows):
    student = kind((4,), random_state=0, **ESTIMATOR).fit(*rows)
    for value in (1e39, 3e38, 1e300, 1.7e308):
        try:
            answer = student.predict_uncertainty(np.array([[value, 0.0]]))
        except InputError as error:
            assert "Expected finite" in str(error)  # noqa: PT017
        else:
            assert all(np.isfinite(part).all() for part in answer.values())


@pytest.mark.parametrize("values", [[0, 1e-45], [0, 1e-300], [0, 5e-324], [-1e300, 1e300]])
def test_estimators_standardise_columns_of_any_scale(values, rows):
    X, y = rows
    X = np.column_stack([X, np.resize(values, len(X))])
    student = DistilledClassifier((), random_state=0, **ESTIMATOR).fit(X, y)
    scaled = (X - student.input_mean_) / student.input_scale_
    assert np.isfinite(scaled).all()
    assert np.abs(scaled).max() < 10
    if max(values) > 1e-320:
        assert scaled[:, 2].std() == pytest.approx(1.0)
    assert np.isfinite(student.predict_proba(X)).all()


@pytest.mark.parametrize("values", [[0, 1e-45], [0, 1e-39], [0, 1e-37], [-1e38, 1e38], [7, 7]])
def test_numeric_columns_of_any_scale_are_standardised(values):
    inputs = torch.tensor(values, dtype=torch.float32).repeat(20)[:, None]
    found = standardise(inputs.clone(), moments(inputs, "columns"))
    assert found.isfinite().all()
    varies = 1e-38 < max(values) != min(values)
    assert float(found.std(correction=0)) == pytest.approx(1.0 if varies else 0.0, abs=1e-6)


@pytest.mark.parametrize("scale", [1.0, 2.0**100, 1e30, 1e37, 1e-30])
def test_units_of_targets_of_any_scale(scale):
    generator = torch.Generator().manual_seed(0)
    labels = torch.randn(40, 1, generator=generator) + 3
    mean = torch.randn(2, 40, 1, generator=generator) + 3
    values = torch.stack([mean, torch.zeros_like(mean)], -1)
    mask = torch.ones(2, 40, 1, dtype=torch.bool)
    mask[0, :5] = False

    def units(scale, known):
        given = torch.where(torch.tensor(known), labels * scale, torch.nan)
        said = torch.stack([mean * scale, values[..., 1]], -1)
        return find_units(("a", "b"), said, mask, given, ("y",)), given

    for known in (True, False):
        plain, _ = units(1.0, known)
        found, given = units(scale, known)
        torch.testing.assert_close(found.shift, plain.shift * scale, rtol=1e-6, atol=0.0)
        torch.testing.assert_close(found.scale, plain.scale * scale, rtol=1e-6, atol=0.0)
        assert known is False or found.labels(given).isfinite().all()


@pytest.mark.parametrize("scale", [1e30, 1e-30])
def test_regression_of_huge_and_tiny_targets_answers_in_their_units(scale, rows):
    X, _ = rows
    y = X @ np.array([1.0, 2.0])
    plain, scaled = (
        DistilledRegressor((), random_state=0, **ESTIMATOR).fit(X, factor * y)
        for factor in (1.0, scale)
    )
    expected, found = plain.predict(X, return_std=True), scaled.predict(X, return_std=True)
    for one, other in zip(expected, found, strict=True):
        np.testing.assert_allclose(other / scale, one, rtol=1e-3, atol=1e-4)


# --- settings ---------------------------------------------------------------------------------

ABSURD = [float("inf"), float("nan"), 1e30, 1e308, True, "much", 10**400, None, -1, 0]


@pytest.mark.parametrize("value", ABSURD)
def test_absurd_settings_are_refused_by_name(value, rows):
    wrong = []
    for kind, names in {
        SamplerSettings: ("burn_in", "draws", "thinning", "batch_size", "step_size", "tolerance"),
        MapSettings: ("epochs", "batch_size", "learning_rate"),
        PriorSettings: ("concentration", "softening", "power", "discount", "evidence"),
    }.items():
        for name in names:
            left_out = name in ("step_size", "evidence") or (
                kind is SamplerSettings and name == "batch_size"
            )
            allowed = (value is None and left_out) or (
                name == "discount" and value is not True and value == 0
            )
            if allowed:
                continue
            with pytest.raises(InputError, match=rf"Expected (prior\.)?{name} .*, but got "):
                kind(**{name: value})
            wrong.append(name)
    assert len(wrong) >= 11
    data = make_dataset(rows[0], labels=rows[1], classes=("a", "b"))
    for name in ("chains", "weight_scale", *([] if value is None else ["budget"])):
        with pytest.raises(InputError, match=f"Expected {name} .*, but got "):
            distill(nn.Linear(2, 2), data, None, **{**QUICK, name: value})
    with pytest.raises(InputError, match="Expected it"):
        check_positive(it=value)


@pytest.mark.parametrize("value", [2.5, 50.0])
def test_counts_are_whole_numbers(value):
    with pytest.raises(InputError, match="Expected draws as a whole number, but got .*\nExpected"):
        SamplerSettings(draws=value, thinning=value)
    assert SamplerSettings(draws=np.int64(3)).draws == 3


def test_an_unknown_engine_is_refused():
    with pytest.raises(InputError, match="Expected engine to be one of auto, hmc, .*got 'nuts'"):
        SamplerSettings("nuts")


def test_modes_that_diverge_are_refused(rows):
    data = make_dataset(rows[0], labels=rows[1], classes=("a", "b"))
    data = replace(data, inputs=data.inputs.clone())
    data.inputs[3, 1] = 3e38
    with pytest.raises(InputError, match="Expected finite modes, but .* chain 0 .*learning_rate"):
        distill(nn.Linear(2, 2), data, None, **QUICK)


def test_chains_that_diverge_are_refused(rows, tmp_path):
    data = make_dataset(rows[0], labels=rows[1], classes=("a", "b"))
    sampler = replace(QUICK["sampler"], step_size=900.0, burn_in=200)
    network = nn.Sequential(nn.Linear(2, 9), nn.ReLU(), nn.Linear(9, 9), nn.ReLU(), nn.Linear(9, 2))
    with pytest.raises(InputError, match=r"Expected finite draws, .* Lower sampler\.step_size\."):
        distill(network, data, None, **QUICK | {"sampler": sampler, "out": tmp_path})
    assert not list((tmp_path / "samples").glob("*"))


def test_hot_chains_are_told(rows):
    data = make_dataset(rows[0], labels=rows[1], classes=("a", "b"))
    sampler = replace(QUICK["sampler"], step_size=1.5, burn_in=5)
    network = nn.Sequential(nn.Linear(2, 5), nn.ReLU(), nn.Linear(5, 2))
    with pytest.warns(UserWarning, match="Chain 0 runs at .* times the posterior's temperature"):
        posterior = distill(network, data, None, **QUICK | {"sampler": sampler})
    assert min(posterior.statistics["kinetic_temperature"]) > 2
