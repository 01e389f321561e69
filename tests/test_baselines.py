"""Baselines: as many updates as the student's modes, a temperature, and what they cost."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.stats import norm

import mtbkd
from mtbkd.app.config.run import build_config
from mtbkd.app.recipes.base import Task
from mtbkd.app.recipes.digits import RECIPE
from mtbkd.app.run import against, baselines, costs
from mtbkd.app.run.baselines import Rival, best_temperature, modes_as_samples, same_updates
from mtbkd.app.run.scoring import SCORINGS, pool_of
from mtbkd.app.run.scoring_shared import entropy, tempered
from mtbkd.data import make_dataset
from mtbkd.inference.modes import MapSettings
from mtbkd.outputs.aligned import align, make_table
from mtbkd.student.student import make_student
from mtbkd.training import training_set
from mtbkd.types import InputError, quiet
from mtbkd.weights.rules import Stacked, Weighting

N = 2000


def chance(seed=0):
    return torch.Generator().manual_seed(seed)


def ensemble(n_outputs, spread=0.3):
    """Three networks that add nearly the same constant to each input."""
    student = make_student(torch.nn.Linear(n_outputs, n_outputs), weight_scale=1.0)
    around = spread * torch.randn(3, n_outputs, generator=chance())
    draws = torch.cat([torch.eye(n_outputs).flatten().expand(3, -1), around], 1)
    names = dict(zip(student.names, student.shapes, strict=True))
    assert list(names) == ["weight", "bias"]
    return Rival(student, modes_as_samples(student, student.standardised(draws)))


def held(family):
    """Inputs that an ensemble answers with, and labels drawn from a softer or wider answer."""
    logits = 4 * torch.randn(N, 3, generator=chance(1))
    if family == "classification":
        rival = ensemble(3)
        probs = torch.from_numpy(SCORINGS[family].predicted(rival, logits, None))
        labels = torch.multinomial(tempered_to(probs, 3.0), 1, generator=chance(2))[:, 0]
        return rival, make_dataset(logits, classes=["a", "b", "c"], labels=labels)
    if family == "multilabel":
        rival = ensemble(3)
        yes = torch.from_numpy(SCORINGS[family].predicted(rival, logits, None))
        soft = torch.sigmoid(torch.logit(yes) / 3)
        labels = torch.bernoulli(soft, generator=chance(2))
        labels[::7, 1] = torch.nan
        names = ["a", "b", "c"]
        return rival, make_dataset(logits, classes=names, labels=labels, family=family)
    inputs = torch.cat([torch.randn(N, 1, generator=chance(1)), torch.zeros(N, 1)], 1)
    noise = math.sqrt(3) * torch.randn(N, 1, generator=chance(2))
    labels = inputs[:, :1] + noise
    return ensemble(2, 0.01), make_dataset(inputs, classes=["y"], labels=labels, family=family)


def tempered_to(probs, temperature):
    powers = probs ** (1 / temperature)
    return powers / powers.sum(-1, keepdim=True)


@pytest.mark.parametrize("family", SCORINGS)
def test_the_temperature_of_an_overconfident_ensemble_is_found(family):
    rival, data = held(family)
    found = best_temperature(rival, data, None)
    assert found == pytest.approx(3.0, rel=0.15)
    warm = rival._replace(temperature=found)
    before, after = (SCORINGS[family].draws(one, data, None)["nll"] for one in (rival, warm))
    assert after < before - 0.1


def test_a_few_right_answers_do_not_make_it_certain():
    rival, data = held("classification")
    answers = SCORINGS["classification"].predicted(rival, data.inputs, None).argmax(1)
    right = np.flatnonzero(answers == data.labels.numpy())[:15]
    assert 0.3 < best_temperature(rival, data.subset(right), None) < 1.0


def test_a_number_keeps_its_mean_and_its_variance_is_multiplied():
    rival, data = held("regression")
    means, sds = SCORINGS["regression"].predicted(rival, data.inputs, None)
    same, wide = SCORINGS["regression"].predicted(
        rival._replace(temperature=4.0), data.inputs, None
    )
    np.testing.assert_array_equal(means, same)
    np.testing.assert_allclose(wide, 2 * sds)


def test_certain_answers_stay_certain_at_any_temperature():
    sure = np.array([[1.0, 0.0]])
    np.testing.assert_allclose(tempered(sure, 3.0, True), sure, atol=1e-90)
    np.testing.assert_array_equal(tempered(sure, 3.0, False), sure)
    np.testing.assert_array_equal(entropy(sure), [0.0])


@pytest.mark.parametrize(("n", "n_all"), [(100, 600), (7, 2900), (64, 64), (65, 640)])
def test_a_part_of_the_examples_gets_as_many_updates(n, n_all):
    settings = MapSettings(epochs=10, batch_size=64)
    updates = settings.epochs * math.ceil(n_all / 64)
    per_epoch = math.ceil(n / 64)
    own = same_updates(settings, n, n_all).epochs * per_epoch
    assert updates <= own < updates + per_epoch


IDS = [f"x{i}" for i in range(60)]


def outputs(data):
    sharp = np.full((60, 2), 0.1)
    sharp[np.arange(60), np.arange(60) % 2] = 0.9
    tables = [
        make_table(name, probs, kind="probs", ids=IDS, classes=["a", "b"])
        for name, probs in (("good", sharp), ("bad", sharp[::-1]))
    ]
    return align(tables, data.ids, data.classes)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Baselines of a small run, what was told of their training, and the folder."""
    out = tmp_path_factory.mktemp("run")
    inputs = torch.randn(60, 3, generator=chance())
    inputs[:, 0] += 3 * (torch.arange(60) % 2)
    everyone = make_dataset(inputs, classes=["a", "b"], labels=[0, 1] * 30, ids=IDS)
    train = everyone.subset(range(30)).without_labels(range(8, 30))
    rest = everyone.subset(range(30, 60))
    elsewhere = make_dataset(inputs[:20] + 5, classes=["a", "b"])
    task = Task(
        name="toy", train=train, calibration=rest, test=rest, teacher_data=None,
        drawn=lambda _: "", others={"far": elsewhere},
    )  # fmt: skip
    config = build_config(RECIPE.defaults, ["map.epochs=3", "map.batch_size=4", "chains=2"])
    said = outputs(everyone)
    posterior = mtbkd.distill(
        torch.nn.Linear(3, 2), train, said, calibration=rest, chains=2, modes=config.map,
        sampler=mtbkd.SamplerSettings(burn_in=5, draws=4, thinning=2),
    )  # fmt: skip
    told = []
    found = baselines.baselines(
        config, task, said, posterior, out, lambda *progress: told.append(progress)
    )
    return task, said, posterior, config, out, found, told


def test_every_baseline_is_told_as_many_updates(trained):
    *_, found, told = trained
    assert list(found)[-1] == "ensemble on the stacked pool"
    totals = {stage: total for stage, _, total in told}
    stages = {n: list(baselines.stages_of(n)) for n in found}
    assert {totals.pop(stage) for each in stages.values() for stage in each[:2]} == {24}
    assert totals.pop("labels-only-all") == 50  # 38 labels in batches of 4: ten updates at once
    assert totals == {own[2]: 45 for name, own in stages.items() if name != "labels only"}


def test_the_ensemble_alone_has_a_temperature_and_it_is_found_again(trained):
    task, said, posterior, config, out, found, _ = trained
    again = baselines.baselines(config, task, said, posterior, out, quiet)
    temperatures = [rival.temperature for rival in found.values()]
    assert temperatures[:-1] == [1.0, 1.0, 1.0]
    assert temperatures[-1] != 1.0
    assert [rival.temperature for rival in again.values()] == temperatures


def test_the_strongest_alone_is_what_it_is_among_all(trained, tmp_path):
    task, said, posterior, config, _, found, _ = trained
    fast = config.model_copy(update={"baselines": "fast"})
    told = []
    alone = baselines.baselines(
        fast, task, said, posterior, tmp_path, lambda *progress: told.append(progress)
    )
    name = "ensemble on the stacked pool"
    assert list(alone) == [name]
    assert {stage for stage, *_ in told} == set(baselines.stages_of(name))
    assert alone[name].temperature == found[name].temperature
    assert alone[name].samples.segments[0].equal(found[name].samples.segments[0])


def test_the_ensemble_learns_from_the_pool_that_the_report_shows(trained):
    task, said, posterior, *_ = trained
    assert posterior.weighting.stacked is not None
    for rule in (posterior.weighting, nobody_trusted()):
        unlabelled = task.train.without_labels(range(len(task.train)))
        data = training_set(posterior.student, unlabelled, said, rule)
        pool = pool_of(said.at(task.train.ids), rule, None, task.train.inputs)["probs"]
        learnt = baselines.pooled(data).values[0].double().exp()
        torch.testing.assert_close(learnt, pool, atol=1e-5, rtol=0)
    own = training_set(posterior.student, task.train, said, posterior.weighting)
    lesson = baselines.lessons(task.train, said, posterior)["ensemble on the stacked pool"]
    torch.testing.assert_close(lesson.values, baselines.pooled(own).values)


def nobody_trusted():
    zeros = torch.zeros(1, 2)
    fit = Stacked(
        intercept=zeros,
        slope=torch.zeros(1, 2, 2),
        temperature=torch.ones(2),
        scale=1.0,
        nobody=torch.zeros(1),
    )
    return Weighting("stacked", fit)


def test_costs_outlive_the_process_and_are_not_changed_by_reading_back(trained):
    task, said, posterior, config, out, found, _ = trained
    before = (out / costs.TRAINING).read_bytes()
    baselines.baselines(config, task, said, posterior, out, quiet)
    assert (out / costs.TRAINING).read_bytes() == before
    stages = {name: baselines.stages_of(name) for name in found}
    spent = costs.cpu_seconds(costs.training_seconds(out), stages)
    assert set(spent["baselines"]) == set(found)
    assert all(seconds > 0 for seconds in spent["baselines"].values())
    assert "sampling" not in spent


def test_a_stage_that_goes_on_adds_to_its_cost_and_one_that_starts_over_does_not(
    tmp_path, monkeypatch
):
    clock = iter([0.0, 1.0, 4.0, 9.0, 10.0, 12.0, 20.0, 21.0, 26.0])
    monkeypatch.setattr(costs, "process_time", lambda: next(clock))
    first = costs.metered(tmp_path, quiet)
    first("modes", 0, 2)
    first("modes", 2, 2)
    first("sampling", 50, 100)
    assert costs.training_seconds(tmp_path) == {"modes": 3.0, "sampling": 5.0}
    second = costs.metered(tmp_path, quiet)
    second("sampling", 100, 100)
    assert costs.training_seconds(tmp_path)["sampling"] == 7.0
    third = costs.metered(tmp_path, quiet)
    third("modes", 0, 2)
    third("modes", 2, 2)
    assert costs.training_seconds(tmp_path) == {"modes": 5.0, "sampling": 7.0}
    text = (tmp_path / costs.TRAINING).read_text()
    (tmp_path / costs.TRAINING).write_text(text.replace("7.0", "1.0"))
    with pytest.raises(InputError, match=r"training\.json"):
        costs.training_seconds(tmp_path)


def test_the_comparison_is_paired_and_has_both_scores(trained):
    task, _, posterior, _, _, found, _ = trained
    rival = found["ensemble on the stacked pool"]
    answer = posterior.predict(task.test.inputs)
    beside = {
        "other.far.total": torch.from_numpy(posterior.predict(task.others["far"].inputs).total)
    }
    told = against.judge_against(task, posterior, answer, rival, beside)
    json.dumps(told, allow_nan=False)
    probs = SCORINGS["classification"].predicted(rival, task.test.inputs, None)
    labels = task.test.labels.numpy()
    own = -np.log(answer.probs[np.arange(30), labels])
    other = -np.log(probs[np.arange(30), labels])
    assert told["nll"]["student"] == pytest.approx(own.mean())
    assert told["nll"]["rival"] == pytest.approx(other.mean())
    assert told["nll"]["difference"] == pytest.approx((own - other).mean())
    assert told["nll"]["error"] == pytest.approx((own - other).std() / math.sqrt(30))
    assert set(told["others"]["far"]) == {"student", "rival", "difference", "error"}
    same = against.judge_against(
        task, posterior, replace(answer, probs=probs, total=entropy(probs)), rival, beside
    )
    for name in ("nll", "error_auroc", "selective_risk"):
        assert same.get(name, {"difference": 0})["difference"] == pytest.approx(0)


def test_numbers_are_compared_by_nll_and_crps():
    rival, data = held("regression")
    few = data.subset(range(300))
    scoring = SCORINGS["regression"]
    means, sds = scoring.predicted(rival, few.inputs, None)
    expected = norm.logpdf(few.labels.numpy(), means, sds)
    losses = scoring.losses((means, sds), few.labels.numpy())
    np.testing.assert_allclose(losses, -np.log(np.exp(expected).mean(0)), rtol=1e-6)
    assert scoring.wrong((means, sds), few.labels.numpy()) is None
    np.testing.assert_allclose(
        scoring.doubts((means, sds), None), means.var(0) + (sds**2).mean(0), rtol=1e-9
    )
