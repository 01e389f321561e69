"""The report on numbers: its verdict, its page, and what is missing."""

import re
from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import norm
from test_report import SECTIONS, Page, changed, with_part

from mtbkd.app.report import Example, Numbers, ReportData, render, verdict
from mtbkd.app.report.verdict_numbers import calibration_by_chance, spreads
from mtbkd.metrics import calibration_error, number_scores, rmse
from mtbkd.types import InputError

NAN = float("nan")


def make(n=600, names=("stability",), k=3, missing=0.1, seed=0, claimed=1.0):
    """A student whose labels are drawn from its Gaussians, narrowed by ``claimed``."""
    rng = np.random.default_rng(seed)
    c, teachers = len(names), ("forest", "transformer", "motifs")[:k]
    unit = 10.0 ** np.arange(c)
    mean = unit * rng.normal(2, 3, (n, c))
    sd = unit * rng.uniform(0.4, 1.6, (n, c))
    labels = rng.normal(mean, sd)
    labels[rng.random((n, c)) < missing] = NAN
    sd = sd * claimed
    pool = mean + unit * rng.normal(0, 1.0, (n, c))
    scale = 3 * unit if c > 1 else np.ones(1)
    share = rng.uniform(0.1, 0.5, (n, c))
    scores = number_scores(pool[None], 1.2 * sd[None], labels, unit=scale)
    weights = rng.dirichlet(np.ones(k), c).T
    return ReportData(
        title="toy", asked={"seed": "0"}, command="mtbkd run toy",
        metrics={
            "task": "toy", "family": "regression", "seed": 0, "n_train": 900, "n_labelled": 100,
            "n_test": n,
            "teachers": {t: scores | {"parameters": 9000} for t in teachers},
            "teacher_pool": scores, "baselines": {"labels only": scores},
            "student": number_scores(mean[None], sd[None], labels, unit=scale),
            "diagnostics": {"rhat_median": 1.0, "rhat_95": 1.01, "ess_median": 90, "ess_5": 60},
            "cost": {"seconds": {"student": 3.2}, "student_parameters": 1234},
        },
        family="regression", noun="target",
        part=Numbers(
            unit=scale, mean=mean, lower=mean - 1.645 * sd, upper=mean + 1.645 * sd, level=0.9,
            log_density=norm.logpdf(labels, mean, sd), pit=norm.cdf(labels, mean, sd),
            pool_pit=norm.cdf(labels, pool, sd),
        ),
        classes=tuple(names), labels=labels, total=sd**2, aleatoric=(1 - share) * sd**2,
        epistemic=share * sd**2, disagreement=(unit * rng.random((n, c))) ** 2,
        teachers=teachers, weights_by_class=weights, responsibilities_by_class=weights,
        chains={"step_size": np.full(4, 1e-3), "rmse": np.full(4, 0.83)},
        trace=rng.standard_normal((4, 15)),
        examples=tuple(
            Example(f"e{i}", i, f"<code>MKVLAA{i}</code>", {t: "7.1 ± 0.4" for t in teachers})
            for i in np.argsort(-(sd / unit).sum(1))[:6].tolist()
        ),
        warnings=(),
    )  # fmt: skip


def sd_of(data):
    return np.sqrt(data.total)


def judged(data):
    return {finding.about: finding for finding in verdict(data).findings}


@pytest.mark.parametrize(("names", "figures"), [(("stability",), 8), (("a", "b", "c"), 10)])
def test_page_stands_alone_and_has_every_section(names, figures):
    text = render(make(names=names))
    page = Page(text)
    assert render(make(names=names)) == text
    assert not page.open
    assert "http" not in text
    assert not {"script", "link", "iframe"} & set(page.tags)
    assert len(page.ids) == len(set(page.ids))
    assert {a[1:] for a in page.addresses} <= set(page.ids)
    places = [text.find(f' id="{section}"') for section in SECTIONS if section != "each"]
    assert min(places) > 0
    assert places == sorted(places)
    assert text.count("<figure") == text.count("<figcaption") == figures
    assert not re.search("#0[ab]00[0-9a-f]{2}", text)
    assert "nan" not in re.findall(r">([^<]*)<", text)
    assert ("in sd of the target" in text) == (len(names) > 1)


@pytest.mark.usefixtures("undrawn")
def test_table_by_target_holds_each_targets_numbers():
    data = make(names=("small", "large"))
    row = re.search(r'<tr><th scope="row">small</th>(.*?)</tr>', render(data))
    cells = re.findall("<td>([^<]*)</td>", row[1])
    assert cells[0] == str((~np.isnan(data.labels[:, 0])).sum())
    assert cells[2] == f"{rmse(data.part.mean[:, 0], data.labels[:, 0]):.2f}"
    assert cells[6] == f"{calibration_error(data.part.pit[:, 0]):.3f}"


@pytest.mark.usefixtures("undrawn")
def test_results_star_the_coverage_nearest_90_percent_and_no_width():
    data = changed(make(), "teacher_pool", coverage_90=0.999)
    data = changed(data, "student", coverage_90=0.897)
    rows = re.findall(r'<tr class="(pool|student)">(.*?)</tr>', render(data), flags=re.DOTALL)
    cells = {kind: re.findall(r"<td( class=\"best\")?>([^<]*)", row) for kind, row in rows}
    assert cells["student"][3] == (' class="best"', "89.7\xa0%")
    assert cells["pool"][3] == ("", "99.9\xa0%")
    assert cells["student"][4][0] == cells["pool"][4][0] == ""


@pytest.mark.usefixtures("undrawn")
def test_cards_show_mean_interval_and_truth():
    data = make(n=150)
    mean, labels, upper, lower = (
        values.copy() for values in (data.part.mean, data.labels, data.part.upper, data.part.lower)
    )
    mean[3], lower[3], upper[3], labels[3] = 7.0, 6.0, 8.0, 9.25
    mean[4], lower[4], upper[4], labels[4] = 7.0, 6.0, 8.0, NAN
    shown = tuple(Example(f"e{i}", i, "<b>x</b>", {}) for i in (3, 4))
    data = replace(data, labels=labels, examples=shown)
    data = with_part(data, mean=mean, lower=lower, upper=upper)
    three, four = re.findall(r"<article.*?</article>", render(data), flags=re.DOTALL)
    assert "stability</span> 7.00</p>" in three
    assert "6.00 to 8.00</dd>" in three
    assert '<dd class="wrong">9.25, outside</dd>' in three
    assert '<u style="left: ' in three
    assert "<dt>truth</dt><dd>–</dd>" in four
    assert "<u style" not in four


def test_trust_where_everything_is_good():
    found = verdict(make())
    assert found.level == "trust", found.sentences
    assert len(found.findings) == 7


@pytest.mark.parametrize(
    ("part", "values", "level", "about"),
    [
        ("teacher_pool", {"rmse": 0.5}, "care", "its errors"),
        ("baselines", {"other": {"nll": 0.01}}, "care", "its probabilities"),
        ("diagnostics", {"rhat_95": 1.3}, "doubt", "its chains"),
    ],
)
def test_one_fault_lowers_the_verdict_and_is_named(part, values, level, about):
    data = changed(make(), part, **values)
    assert verdict(data).level == judged(data)[about].level == level
    assert about in verdict(data).headline


@pytest.mark.parametrize(
    ("claimed", "words", "intervals"), [(0.4, "too narrow", "doubt"), (2.5, "too wide", "trust")]
)
def test_intervals_that_are_too_narrow_or_too_wide_are_said(claimed, words, intervals):
    found = judged(make(claimed=claimed))
    assert found["calibration"].level == "doubt"
    assert f"its intervals are {words}" in found["calibration"].sentence
    assert found["its 90 % intervals"].level == intervals


@pytest.mark.parametrize(("shift", "words"), [(2.0, "too much"), (-2.0, "too little")])
def test_a_mean_that_is_off_is_said(shift, words):
    data = make()
    pit = norm.cdf(data.labels, data.part.mean + shift, sd_of(data))
    found = judged(with_part(data, mean=data.part.mean + shift, pit=pit))
    assert f"it predicts {words} more often" in found["calibration"].sentence


def test_equal_widths_that_hide_unequal_errors_are_found():
    data = make(n=2000)
    flat = np.full(sd_of(data).shape, np.sqrt(np.mean(sd_of(data) ** 2)))
    sure = sd_of(data) < np.quantile(sd_of(data), 0.4)
    wrong = np.where(sure, 0.4 * sd_of(data), flat)
    pit = norm.cdf(data.labels, data.part.mean, wrong)
    data = with_part(replace(data, total=wrong**2), pit=pit)
    found = judged(data)["how it tells sure from unsure"]
    assert found.level == "doubt"
    assert "moves the RMSE of the rest" in found.sentence


def test_no_better_than_the_mean_is_doubted_and_for_one_target_asks_for_care():
    data = make(names=("a", "b"))
    centre = np.broadcast_to(np.nanmean(data.labels, 0), data.part.mean.shape)
    spread = np.broadcast_to(spreads(data.labels), data.part.mean.shape)
    density = norm.logpdf(data.labels, centre, spread)
    found = judged(with_part(data, mean=centre - 0.1, log_density=density - 1e-9))
    assert found["its errors"].level == "doubt"
    assert "For a and b it is no better than always naming their mean." in (
        found["its errors"].sentence
    )
    assert found["its probabilities"].level == "doubt"
    half = np.column_stack([centre[:, 0] - 0.1, data.part.mean[:, 1]])
    assert judged(with_part(data, mean=half))["its errors"].level == "care"


def test_calibration_by_chance_is_that_of_calibrated_predictions():
    rng = np.random.default_rng(0)
    drawn = [calibration_error(rng.random(300)) for _ in range(400)]
    assert np.mean(drawn) == pytest.approx(calibration_by_chance(300), rel=0.06)


def test_missing_parts_and_targets_that_are_never_known():
    data = make(names=("a", "b"), k=1)
    unknown = {
        name: np.column_stack([values[:, 0], np.full(600, NAN)])
        for name, values in (("log_density", data.part.log_density), ("pit", data.part.pit))
    }
    data = replace(
        with_part(data, **unknown, pool_pit=None),
        labels=np.column_stack([data.labels[:, 0], np.full(600, NAN)]), disagreement=None,
        chains={}, trace=np.zeros((0, 0)), metrics={"teachers": {}, "student": {}},
    )  # fmt: skip
    text = render(data)
    assert not Page(text).open
    assert "nan" not in re.findall(r">([^<]*)<", text)


def test_many_targets_are_cut_and_said():
    text = render(make(n=120, names=tuple(f"target {i}" for i in range(9))))
    assert "The other 4 targets are in the table above." in text
    assert "and 3 more certain targets" in text


def test_a_perfect_student_of_constant_uncertainty():
    data = make(missing=0.0)
    one = np.ones(data.part.mean.shape)
    data = replace(data, total=one, aleatoric=one, epistemic=0 * one)
    data = with_part(data, mean=data.labels, pit=one / 2, log_density=-one)
    assert not Page(render(data)).open


def test_arrays_that_do_not_fit_are_refused():
    data = make()
    with pytest.raises(InputError, match=r"Expected pit of shape \(600, 1\), but got \(600,\)"):
        render(with_part(data, pit=data.part.pit[:, 0]))
