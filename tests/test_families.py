"""Several labels and numbers, from data and teachers to predictions; units; plain students."""

import html
import json
import re

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from test_cli import TINY, call
from torch import nn

import mtbkd
from mtbkd.inference.engines import SamplerSettings
from mtbkd.inference.modes import MapSettings
from mtbkd.inference.samples import PosteriorSamples
from mtbkd.metrics import mixture_quantile
from mtbkd.observation.units import Units, find_units
from mtbkd.outputs.aligned import align, make_table
from mtbkd.predictive import LabelPredictive, NumberPredictive, predict
from mtbkd.student.student import make_student
from mtbkd.types import InputError

QUICK = {
    "modes": MapSettings(epochs=40, batch_size=64),
    "sampler": SamplerSettings("sghmc", burn_in=150, draws=20, thinning=5, batch_size=100),
    "chains": 2,
    "seed": 0,
}
N = 300


def inputs() -> torch.Tensor:
    return torch.randn(N, 2, generator=torch.Generator().manual_seed(0))


def network(n_outputs: int) -> nn.Module:
    return nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, n_outputs))


@pytest.fixture(scope="module")
def labels():
    """Two labels, each with a teacher; 30 rows are labelled, some of them for one label only."""
    x = inputs()
    logits = 4 * x
    truth = (
        torch.rand(N, 2, generator=torch.Generator().manual_seed(1)) < logits.sigmoid()
    ).float()
    known = truth.clone()
    known[30:] = torch.nan
    known[:10, 1] = torch.nan
    data = mtbkd.make_dataset(x, labels=known, classes=["wide", "tall"], family="multilabel")
    tables = [
        make_table(
            name,
            logits[:, i : i + 1],
            kind="logits",
            ids=data.ids,
            classes=[name],
            family="multilabel",
            partial=True,
        )
        for i, name in enumerate(data.classes)
    ]
    return data, align(tables, data.ids, data.classes), truth


@pytest.fixture(scope="module")
def numbers():
    """``y = 100 + 20 x0``, with noise that grows with x1; one teacher gives variances, one none."""
    x = inputs()
    spread = 2 + 8 * (x[:, 1] > 0)
    noise = torch.randn(N, generator=torch.Generator().manual_seed(1))
    y = 100 + 20 * x[:, 0] + spread * noise
    known = y.clone()
    known[60:] = torch.nan
    data = mtbkd.make_dataset(x, labels=known, classes=["y"], family="regression")
    mean = (100 + 20 * x[:, :1]).numpy()
    say = {"kind": "mean", "ids": data.ids, "classes": ["y"], "family": "regression"}
    tables = [
        make_table("sure", mean, variance=(spread[:, None] ** 2).numpy(), **say),
        make_table("vague", mean + 30 * noise[:, None].roll(1).numpy(), **say),
    ]
    return data, align(tables, data.ids, data.classes), y, spread


def test_labels_are_learnt_from_the_teacher_of_each(labels):
    data, teachers, truth = labels
    posterior = mtbkd.distill(network(2), data, teachers, **QUICK)
    answer = posterior.predict(data.inputs)
    assert isinstance(answer, LabelPredictive)
    right = (answer.probs > 0.5) == truth.bool().numpy()
    plain = mtbkd.distill(network(2), data, None, **QUICK).predict(data.inputs)
    assert right.mean(0).min() > 0.8
    best = np.maximum(data.inputs.mul(4).sigmoid().numpy(), 1e-6)
    gaps = [np.abs(a.probs - best).mean() for a in (answer, plain)]
    assert gaps[0] < 0.8 * gaps[1]
    assert (answer.lower <= answer.probs).all()
    assert (answer.probs <= answer.upper).all()
    np.testing.assert_allclose(answer.total, answer.aleatoric + answer.epistemic, atol=1e-9)


def test_numbers_and_their_noise_are_learnt(numbers):
    data, teachers, y, spread = numbers
    posterior = mtbkd.distill(network(2), data, teachers, **QUICK)
    answer = posterior.predict(data.inputs)
    assert isinstance(answer, NumberPredictive)
    off = answer.mean[:, 0] - (100 + 20 * data.inputs[:, 0]).numpy()
    assert np.sqrt(np.mean(off**2)) < 4
    noisy = (data.inputs[:, 1] > 0.5).numpy()
    quiet = (data.inputs[:, 1] < -0.5).numpy()
    sd = np.sqrt(answer.aleatoric[:, 0])
    assert sd[noisy].mean() > 1.7 * sd[quiet].mean()
    inside = (answer.lower[:, 0] <= y.numpy()) & (y.numpy() <= answer.upper[:, 0])
    assert 0.85 <= inside.mean() <= 0.97
    assert (answer.mean_lower >= answer.lower).all()
    weights = posterior.weighting.stacked
    assert weights is not None
    units = posterior.units
    assert units is not None
    assert units.spread[1, 0].exp().sqrt() * units.scale[0] == pytest.approx(30, rel=0.3)


@pytest.mark.parametrize("scene", ["labels", "numbers"])
def test_what_is_written_predicts_the_same(scene, request, tmp_path):
    data, teachers, *_ = request.getfixturevalue(scene)
    first = mtbkd.distill(network(2), data, teachers, out=tmp_path / "run", **QUICK)
    again = mtbkd.load_posterior(network(2), tmp_path / "run", data.inputs[:2], data.classes)
    assert again.family == data.family
    for name in ("aleatoric", "lower", "upper"):
        found, expected = (getattr(p.predict(data.inputs[:50]), name) for p in (again, first))
        np.testing.assert_array_equal(found, expected)


def test_a_plain_student_learns_from_labels_alone():
    x = inputs()
    y = (x[:, 0] > 0).long()
    data = mtbkd.make_dataset(x, labels=y, classes=["left", "right"])
    answer = mtbkd.distill(network(2), data, None, **QUICK).predict(x)
    assert isinstance(answer, mtbkd.Predictive)
    assert (answer.probs.argmax(1) == y.numpy()).mean() > 0.95


@pytest.mark.parametrize("engine", ["hmc", "laplace", "csghmc", "ensemble", "sgld"])
@pytest.mark.parametrize("scene", ["labels", "numbers"])
def test_every_engine_draws_every_family(scene, engine, request):
    data, teachers, *_ = request.getfixturevalue(scene)
    quick = QUICK | {
        "sampler": SamplerSettings(engine, burn_in=20, draws=4, thinning=5, batch_size=100),
        "modes": MapSettings(epochs=5),
    }
    answer = mtbkd.distill(network(2), data, teachers, **quick).predict(data.inputs[:20])
    assert np.isfinite(answer.upper).all()


def test_families_that_do_not_fit_are_refused_all_at_once(labels, numbers):
    data, _, _ = labels
    _, teachers, *_ = numbers
    with pytest.raises(InputError) as error:
        mtbkd.distill(network(2), data, teachers, **QUICK)
    assert len(error.value.faults) == 2
    assert "Expected teachers for multilabel, as the data, but got regression" in str(error.value)
    with pytest.raises(InputError, match="targets to means and log variances, two outputs each"):
        mtbkd.distill(network(3), numbers[0], teachers, **QUICK)


def test_intervals_of_numbers_are_quantiles_of_the_mixture_of_draws():
    student = make_student(nn.Linear(1, 2))
    draws = torch.randn(2, 30, 4, generator=torch.Generator().manual_seed(0))
    samples = PosteriorSamples((draws,), student.names, tuple(tuple(s) for s in student.shapes))
    units = Units(torch.tensor([10.0]), torch.tensor([3.0]), torch.zeros(1, 1))
    x = torch.tensor([[0.5], [-2.0]])
    answer = predict(student, samples, x, family="regression", units=units, level=0.8)
    flat = draws.flatten(0, 1).double()
    outputs = torch.stack([student.logits_at(d.float(), x).double() for d in flat])
    means, sds = 10 + 3 * outputs[..., :1].numpy(), 3 * np.exp(0.5 * outputs[..., 1:].numpy())
    np.testing.assert_allclose(answer.mean, means.mean(0), rtol=1e-5)
    np.testing.assert_allclose(answer.aleatoric, (sds**2).mean(0), rtol=1e-5)
    np.testing.assert_allclose(answer.epistemic, means.var(0), rtol=1e-5)
    np.testing.assert_allclose(answer.lower, mixture_quantile(means, sds, 0.1), rtol=1e-4)
    np.testing.assert_allclose(answer.upper, mixture_quantile(means, sds, 0.9), rtol=1e-4)


class TestUnits:
    values = torch.tensor([[[[1.0, 0.0]], [[5.0, 0.0]], [[3.0, torch.nan]]]])  # one teacher
    mask = torch.ones(1, 3, 1, dtype=torch.bool)

    def test_they_standardise_labels_and_teachers_alike(self):
        labels = torch.tensor([[0.0], [4.0], [torch.nan]])
        units = Units(torch.tensor([2.0]), torch.tensor([4.0]), torch.tensor([[-1.0]]))
        torch.testing.assert_close(units.labels(labels)[:2, 0], torch.tensor([-0.5, 0.5]))
        values = units.values(self.values)
        torch.testing.assert_close(values[0, :, 0, 0], torch.tensor([-0.25, 0.75, 0.25]))
        expected = [-2 * np.log(4), -2 * np.log(4), -1.0]
        np.testing.assert_allclose(values[0, :, 0, 1], expected, rtol=1e-6)

    def test_without_labels_they_come_from_the_teachers(self):
        nothing = torch.full((3, 1), torch.nan)
        told = self.values.nan_to_num(0.0)
        units = find_units(("k",), told, self.mask, nothing, ("y",))
        assert units.shift.item() == pytest.approx(3)
        assert units.scale.item() == pytest.approx(2)

    def test_a_variance_that_cannot_be_estimated_is_asked_for(self):
        labels = torch.tensor([[0.0], [4.0], [1.0]])
        with pytest.raises(InputError, match="Expected 10 labels or more to estimate the variance"):
            find_units(("k",), self.values, self.mask, labels, ("y",))

    def test_a_target_that_never_varies_is_refused(self):
        labels = torch.full((3, 1), 2.0)
        with pytest.raises(InputError, match="Expected labels of the target 'y' that differ"):
            find_units(("k",), self.values.nan_to_num(), self.mask, labels, ("y",))


@pytest.mark.parametrize(("recipe", "key"), [("overlay", "f1_macro"), ("diabetes", "crps")])
def test_recipes_run_predict_and_report(recipe, key, tmp_path, monkeypatch, capsys):
    out = tmp_path / "run"
    code, printed, error = call(
        monkeypatch, capsys, "run", recipe, "--out", out, *TINY, "--baselines=fast"
    )
    assert code == 0, error
    assert "Bayesian student" in printed
    metrics = json.loads((out / "metrics.json").read_text())
    everyone = [metrics["student"], metrics["teacher_pool"], *metrics["teachers"].values()]
    assert all(np.isfinite(m[key]) for m in [*everyone, *metrics["baselines"].values()])
    page = (out / "report.html").read_text()
    assert "can the student be trusted" in page
    said = re.search(r"The posterior is [^<]*than the ensemble on the \w+ pool in [^<]*", page)
    assert said
    for what in ("NLL (", "“features of different examples” by AUROC ("):
        assert what in html.unescape(said[0])
    rival, ensemble = metrics["rival"], metrics["baselines"][metrics["rival"]["name"]]
    for score in {"nll", "crps"} & rival.keys():
        assert rival[score]["student"] == pytest.approx(metrics["student"][score])
        assert rival[score]["rival"] == pytest.approx(ensemble[score])
    table = pq.read_table(out / "predictions.parquet")
    assert len(table) == metrics["n_test"]
    source = tmp_path / "new.npy"
    np.save(source, np.zeros((3, 112 if recipe == "overlay" else 10)))
    code, _, error = call(
        monkeypatch, capsys, "predict", out, source, "--out", tmp_path / "new.csv"
    )
    assert (code, error) == (0, "")
    assert len((tmp_path / "new.csv").read_text().splitlines()) == 4
    assert call(monkeypatch, capsys, "evaluate", out)[0] == 0
    code, _, error = call(monkeypatch, capsys, "diagnose", out)
    assert code == 2
    assert "Expected a run of classification to diagnose" in error
