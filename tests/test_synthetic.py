"""The known truth, its teachers, and whether intervals contain it as often as they say."""

import importlib
import math
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from mtbkd.app import cli
from mtbkd.app.config.run import build_config
from mtbkd.app.recipes import synthetic
from mtbkd.app.recipes.synthetic import SCENARIOS, Scenario, make_world
from mtbkd.distillation.evidence import power_of
from mtbkd.weights.rules import uniform_weights

STUDY = Path(__file__).parents[1] / "benchmarks"
TINY = [
    *("map.epochs=3", "sampler.burn_in=10", "sampler.draws=6", "sampler.thinning=2", "chains=2"),
    "baselines=none",
]


@pytest.fixture(scope="module")
def study():
    """The module ``benchmarks/synthetic.py``."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(STUDY)
        return importlib.import_module("synthetic")


@pytest.mark.parametrize("name", ["alike", "curved"])
def test_truth_normalises_and_labels_follow_it(name):
    known = Scenario("all labelled", labelled=300, curved=SCENARIOS[name].curved)
    world = make_world(known, 0, n_test=40_000)
    np.testing.assert_allclose(world.truth.sum(1), 1.0)
    assert (world.truth > 0).all()
    for c in range(3):
        p, hit = world.truth[:, c], world.labels == c
        for part in (p < 0.2, (p >= 0.2) & (p < 0.6), p >= 0.6):
            error = math.sqrt((p[part] * (1 - p[part])).sum())
            assert abs(hit[part].sum() - p[part].sum()) < 4 * error


@pytest.mark.parametrize("name", SCENARIOS)
def test_every_scenario_is_what_it_says(name):
    known = SCENARIOS[name]
    world, again, other = (make_world(known, seed, 50) for seed in (3, 3, 4))
    assert all(np.array_equal(a, b) for a, b in zip(world, again, strict=True))
    assert not np.array_equal(world.truth, other.truth)
    assert world.told.shape == (known.n_teachers, sum(world.sizes), 3)
    np.testing.assert_allclose(world.told.sum(2), 1.0)
    assert (world.labels[: known.transfer] >= 0).sum() == known.labelled
    assert (world.labels[known.transfer :] >= 0).all()
    assert world.mask.sum(0).tolist() == [
        1 if known.kind == "specialists" else known.n_teachers
    ] * len(world.inputs)


def distance(known: Scenario, n_worlds: int = 30) -> float:
    """Mean divergence of the truth from the first teacher, in nats."""
    found = []
    for seed in range(n_worlds):
        world = make_world(known, seed)
        p, q = world.truth, world.told[0]
        found.append((p * np.log(p / q)).sum(1).mean())
    return float(np.mean(found))


@pytest.mark.parametrize("curved", [False, True])
def test_honest_teachers_err_as_fits_of_their_size_do(curved):
    """``KL = P / 2n`` for the fit of P free parameters to n rows, to first order."""
    n_free = 2 * (10 if curved else 5)
    expected = n_free / (2 * 2000)
    found = distance(Scenario("large", n_teachers=1, rows=2000, curved=curved))
    assert found == pytest.approx(expected, rel=0.25)


def test_a_wrong_teacher_is_wrong_and_sure_and_noise_knows_nothing():
    for name in ("wrong", "noise"):
        world = make_world(SCENARIOS[name], 0)
        honest, odd = world.told[0], world.told[-1]
        right = [(t.argmax(1) == world.truth.argmax(1)).mean() for t in (honest, odd)]
        assert right[0] > 0.8 > 0.6 > right[1]
    wrong = make_world(SCENARIOS["wrong"], 0).told
    assert wrong[-1].max(1).mean() > wrong[0].max(1).mean() + 0.1


def test_halves_of_the_same_rows_are_worth_less_than_the_rows():
    """Means of K random halves of n numbers of variance 1 have the variance of the formula."""
    known, chance, means = SCENARIOS["shared"], np.random.default_rng(0), []
    for _ in range(4000):
        rows = chance.normal(size=known.rows)
        halves = [rows[chance.permutation(known.rows)[:100]] for _ in range(known.n_teachers)]
        means.append(np.mean(halves))
    n, k = known.rows, known.n_teachers
    assert 1 / np.var(means) == pytest.approx(n / (1 + 1 / k), rel=0.08)
    assert 0.93 * n / (1 + 1 / k) < known.evidence < n / (1 + 1 / k)


@pytest.mark.parametrize(("name", "expected"), [("alike", 1.0), ("shared", 0.5)])
def test_teachers_that_share_rows_differ_by_half_of_what_they_err(name, expected):
    """Covariance 1 / n and variance 2 / n for halves of n rows; 0 and 1 / n for own samples."""
    spread, error = 0.0, 0.0
    for seed in range(30):
        world = make_world(SCENARIOS[name], seed)
        spread += world.told.var(0, ddof=1).mean()
        error += ((world.told - world.truth) ** 2).mean()
    assert spread / error == pytest.approx(expected, abs=0.15)


def test_a_teacher_of_the_students_labels_is_not_held_out():
    config = build_config(synthetic.RECIPE.defaults, ["scenario=reused"])
    for scenario, fresh in (("reused", False), ("alike", True)):
        changed = config.model_copy(update={"scenario": scenario})
        task = synthetic.load(changed, Path())
        assert synthetic.teach(changed, task)[0].held_out is fresh


def run(monkeypatch, capsys, *arguments: str) -> tuple[int, str]:
    monkeypatch.setattr(sys, "argv", ["mtbkd", *arguments])
    code: object = 0
    try:
        cli.main()
    except SystemExit as stop:
        code = stop.code
    return int(str(code or 0)), capsys.readouterr().err


def sets(*changes: str) -> list[str]:
    return [part for change in changes for part in ("--set", change)]


@pytest.mark.parametrize("scenario", ["alike", "specialists"])
def test_run_leaves_a_report(tmp_path, monkeypatch, capsys, scenario):
    arguments = sets(*TINY, f"scenario={scenario}")
    code, _ = run(
        monkeypatch, capsys, "run", "synthetic", "--out", str(tmp_path / "run"), *arguments
    )
    assert code == 0
    assert "p* = " in (tmp_path / "run" / "report.html").read_text(encoding="utf-8")


def test_an_unknown_scenario_is_refused_with_the_known_ones(tmp_path, monkeypatch, capsys):
    code, error = run(
        monkeypatch, capsys, "run", "synthetic", "--out", str(tmp_path), *sets("scenario=nope")
    )
    assert code != 0
    assert "nope" in error
    assert all(name in error for name in SCENARIOS)


def world_data(study, known: Scenario, replications: int):
    """Worlds under uniform weights, as the study stacks them."""
    rows = []
    for seed in range(replications):
        world, n = make_world(known, seed, 40), known.transfer
        log_probs = torch.from_numpy(world.told[:, :n]).log().float()
        mask = torch.from_numpy(world.mask[:, :n])
        inputs, last = torch.from_numpy(world.inputs).float(), slice(-40, None)
        labels, truth = torch.from_numpy(world.labels[:n]), torch.from_numpy(world.truth[last])
        weights = uniform_weights(mask)
        rows.append((inputs[:n], labels, log_probs, weights, log_probs, inputs[last], truth, mask))
    return study.Data(*(torch.stack(column) for column in zip(*rows, strict=True)))


def coverage(study, data, power: float) -> tuple[float, float]:
    """Mean coverage of 95 % intervals for p*, and its standard error; chains must have mixed."""
    student = study.make_student(
        torch.nn.Sequential(torch.nn.Linear(4, 2), study.Reference()), weight_scale=2.0
    )
    powers = torch.full((len(data.labels),), power)
    answers, quality = study.bayes(student, data, data.log_probs, data.log_weights, powers, 0)
    assert quality["rhat_95"] < study.WORST_RHAT
    assert quality["ess_5"] > study.FEWEST
    return study.mean_and_error(study.score(answers, data.truth)["coverage_0.95"])


@pytest.mark.slow
def test_intervals_cover_the_truth_at_the_evidence_and_not_at_power_one(study):
    """One teacher with 100 rows, asked about 400 examples, is not worth 400 observations."""
    known = Scenario("one small teacher", n_teachers=1, rows=100, transfer=400, labelled=0)
    data = world_data(study, known, 24)
    mean, error = coverage(study, data, power_of(known.evidence, 1.0, known.transfer))
    assert error < 0.02
    assert abs(mean - 0.945) < 3 * error
    counted_again, _ = coverage(study, data, 1.0)
    assert counted_again < 0.8


@pytest.mark.slow
def test_coverage_of_three_honest_teachers_under_the_products_weights(study):
    """Of 100 data sets, as in docs/synthetic.md."""
    data = study.make_data("alike", 100, 0)
    evidence = SCENARIOS["alike"].evidence
    mean, error = coverage(study, data, power_of(evidence, 1.0, data.labels.shape[1]))
    assert error < 0.01
    assert 0.93 <= mean <= 0.97
