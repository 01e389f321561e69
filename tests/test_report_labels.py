"""The report on several labels: its verdict, its page, and what is missing."""

import re
from dataclasses import replace

import numpy as np
import pytest
from test_report import SECTIONS, Page, changed, with_part

from mtbkd.app.report import Example, Labels, ReportData, render, verdict
from mtbkd.app.report.verdict_labels import f1_macro_error, label_ece_by_chance
from mtbkd.metrics import f1_macro, label_ece, label_scores, wrong_auroc
from mtbkd.types import InputError

NAN = float("nan")


def entropy(probs):
    return -(probs * np.log(probs) + (1 - probs) * np.log(1 - probs))


def make(n=500, names=("nucleus", "cytosol", "membrane", "Golgi"), k=3, missing=0.1, seed=0):
    """A calibrated student: labels are drawn from its own probabilities."""
    rng = np.random.default_rng(seed)
    c, teachers = len(names), ("forest", "transformer", "motifs")[:k]
    logits = 3.5 * rng.standard_normal((n, c)) - rng.uniform(0, 1.5, c)
    probs = 1 / (1 + np.exp(-logits))
    labels = (rng.random((n, c)) < probs).astype(float)
    labels[rng.random((n, c)) < missing] = NAN
    pool = 1 / (1 + np.exp(-(logits + 0.8 * rng.standard_normal((n, c)))))
    total = entropy(probs)
    known = ~np.isnan(labels)
    wrong = ((probs >= 0.5) != (labels == 1))[known]
    student = label_scores(probs, labels)
    weights = rng.dirichlet(np.ones(k), c).T
    return ReportData(
        title="toy", asked={"seed": "0"}, command="mtbkd run toy",
        metrics={
            "task": "toy", "family": "multilabel", "seed": 0, "n_train": 900, "n_labelled": 100,
            "n_test": n,
            "teachers": {t: label_scores(pool, labels) | {"parameters": 9000} for t in teachers},
            "teacher_pool": label_scores(pool, labels),
            "baselines": {"labels only": label_scores(pool, labels)},
            "student": student | {"error_auroc": wrong_auroc(total[known], wrong)},
            "diagnostics": {"rhat_median": 1.0, "rhat_95": 1.01, "ess_median": 90, "ess_5": 60},
            "cost": {"seconds": {"student": 3.2}, "student_parameters": 1234},
        },
        family="multilabel", noun="label", part=Labels(probs, pool),
        classes=tuple(names), labels=labels, total=total, aleatoric=0.8 * total,
        epistemic=0.2 * total, disagreement=rng.random((n, c)),
        teachers=teachers, weights_by_class=weights, responsibilities_by_class=weights,
        chains={"step_size": np.full(4, 1e-3), "accuracy": np.full(4, 0.83)},
        trace=rng.standard_normal((4, 15)),
        examples=tuple(
            Example(f"e{i}", i, f"<code>MKVLAA{i}</code>", {t: "nucleus (0.87)" for t in teachers})
            for i in np.argsort(-total.sum(1))[:6].tolist()
        ),
        warnings=(),
    )  # fmt: skip


def judged(data):
    return {finding.about: finding for finding in verdict(data).findings}


def test_page_stands_alone_and_has_every_section():
    text = render(make())
    page = Page(text)
    assert render(make()) == text
    assert not page.open
    assert "http" not in text
    assert not {"script", "link", "iframe"} & set(page.tags)
    assert len(page.ids) == len(set(page.ids))
    assert {a[1:] for a in page.addresses} <= set(page.ids)
    places = [text.find(f' id="{section}"') for section in SECTIONS]
    assert min(places) > 0
    assert places == sorted(places)
    assert text.count("<figure") == text.count("<figcaption") == 15
    assert "with 4 labels, each yes or no, seed 0." in text
    assert not re.search("#0[ab]00[0-9a-f]{2}", text)
    assert "nan" not in re.findall(r">([^<]*)<", text)
    assert "counts for each label" in text


@pytest.mark.usefixtures("undrawn")
def test_table_by_label_holds_each_labels_numbers():
    data = make()
    text = render(data)
    row = re.search(r'<tr><th scope="row">membrane</th>(.*?)</tr>', text)
    cells = re.findall("<td>([^<]*)</td>", row[1])
    yes, known = (data.labels[:, 2] == 1).sum(), (~np.isnan(data.labels[:, 2])).sum()
    assert cells[0] == str(yes)
    assert cells[1] == f"{100 * yes / known:.1f}\xa0%"
    assert cells[4] == f"{label_ece(data.part.probs, data.labels)[2]:.3f}"


@pytest.mark.usefixtures("undrawn")
def test_results_mark_the_best_and_use_the_familys_columns():
    data = changed(make(), "teacher_pool", f1_macro=0.999)
    rows = re.findall(r'<tr class="(pool|student)">(.*?)</tr>', render(data), flags=re.DOTALL)
    cells = {kind: re.findall(r"<td( class=\"best\")?>([^<]*)", row) for kind, row in rows}
    assert cells["pool"][0] == (' class="best"', "0.999")
    assert cells["student"][6] == (' class="best"', "1,234")
    assert cells["student"][3][1] == f"{100 * data.metrics['student']['accuracy']:.1f}\xa0%"


@pytest.mark.usefixtures("undrawn")
def test_cards_show_what_is_said_what_is_true_and_what_is_unknown():
    data = make(n=120)
    probs, labels = data.part.probs.copy(), data.labels.copy()
    probs[3], labels[3] = [0.9, 0.2, 0.6, 0.3], [1, 1, 0, NAN]
    data = replace(data, labels=labels, examples=(Example("e3", 3, "<b>x</b>", {}),))
    data = with_part(data, probs=probs)
    card = re.search(r'aria-label="e3">(.*?)</article>', render(data), flags=re.DOTALL)[1]
    assert "nucleus, membrane</p>" in card
    assert '<span class="wrong">2 wrong</span> answers' in card
    rows = re.findall(
        r'<tr( class="wrong")?><th scope="row">(\w+)</th><td>([\d.]+)</td><td>(\w+)</td>', card
    )
    assert {name: (bool(wrong), p, truth) for wrong, name, p, truth in rows} == {
        "nucleus": (False, "0.90", "yes"), "cytosol": (True, "0.20", "yes"),
        "membrane": (True, "0.60", "no"), "Golgi": (False, "0.30", "unknown"),
    }  # fmt: skip
    assert "<b>x</b>" in card


@pytest.mark.usefixtures("undrawn")
def test_cards_list_what_is_said_or_true_before_what_is_merely_uncertain():
    data = make(n=120, names=tuple("abcdefghi"))
    probs, total, labels = data.part.probs.copy(), data.total.copy(), data.labels.copy()
    probs[3], labels[3], total[3] = 0.3, 0.0, 0.6
    probs[3, 7], labels[3, 8], total[3, 7:] = 0.99, 1.0, 0.05
    data = replace(data, labels=labels, total=total, examples=(Example("e3", 3, "", {}),))
    data = with_part(data, probs=probs)
    card = re.search(r'aria-label="e3">(.*?)</article>', render(data), flags=re.DOTALL)[1]
    names = re.findall(r'<th scope="row">(\w)</th>', card)
    assert set(names[:2]) == {"h", "i"}
    assert names[2:] == list("abcd")


def test_error_of_macro_f1_is_its_spread_over_test_sets():
    data = make(n=8000, missing=0.0)
    parts = [
        with_part(replace(data, labels=data.labels[rows]), probs=data.part.probs[rows])
        for rows in np.array_split(np.arange(8000), 40)
    ]
    spread = np.std([f1_macro(p.part.probs, p.labels) for p in parts])
    stated = np.mean([f1_macro_error(part) for part in parts])
    assert stated == pytest.approx(spread, rel=4 / np.sqrt(2 * 40))


def test_trust_where_everything_is_good():
    found = verdict(make(n=1500))
    assert found.level == "trust", found.sentences
    assert len(found.findings) == 7


@pytest.mark.parametrize(
    ("part", "values", "level", "about"),
    [
        ("teacher_pool", {"f1_macro": 0.99}, "care", "its macro F1"),
        ("baselines", {"other": {"nll": 0.01}}, "care", "its probabilities"),
        ("student", {"error_auroc": 0.75}, "care", "how it flags errors"),
        ("student", {"error_auroc": 0.5}, "doubt", "how it flags errors"),
        ("diagnostics", {"rhat_95": 1.3}, "doubt", "its chains"),
    ],
)
def test_one_fault_lowers_the_verdict_and_is_named(part, values, level, about):
    data = changed(make(n=1500), part, **values)
    assert verdict(data).level == judged(data)[about].level == level
    assert about in verdict(data).headline


def test_a_student_that_says_the_frequencies_is_doubted():
    data = make()
    flat = np.broadcast_to(np.nanmean(data.labels, 0), data.part.probs.shape)
    found = judged(with_part(data, probs=flat))
    assert found["its probabilities"].level == "doubt"
    assert "no better than the labels' frequencies" in found["its probabilities"].sentence
    silent = judged(with_part(data, probs=np.full(data.part.probs.shape, 0.01)))
    assert silent["its macro F1"].level == "doubt"
    assert "Always saying yes would reach" in silent["its macro F1"].sentence


def test_overconfidence_on_every_label_is_doubted_and_on_one_is_named():
    data = make(n=1500)
    sharp = (data.part.probs > 0.5) * 0.998 + 0.001
    soft = 0.5 + 0.3 * (data.part.probs - 0.5)
    found = judged(with_part(data, probs=soft))
    assert found["calibration"].level == "doubt"
    assert judged(with_part(data, probs=sharp))["calibration"].level != "trust"
    one = np.column_stack([data.part.probs[:, :3], soft[:, 3]])
    found = judged(with_part(data, probs=one))["the calibration of single labels"]
    assert found.level == "care"
    assert "Golgi, off by" in found.sentence
    assert "1 of 4 labels" in found.sentence


def test_rare_labels_and_the_lean_are_said():
    data = make()
    labels = data.labels.copy()
    labels[:, 3] = np.where(np.arange(len(labels)) < 5, 1.0, 0.0)
    found = judged(replace(data, labels=labels))
    assert "1 of 4 labels is yes for fewer than 10" in found["its macro F1"].sentence
    assert "says yes more often than is true" in found["calibration"].sentence


def test_ece_by_chance_is_the_ece_of_a_calibrated_student():
    ratios = []
    for seed in range(20):
        data = make(n=800, seed=seed)
        expected = label_ece_by_chance(data.part.probs, data.labels)
        ratios.append((label_ece(data.part.probs, data.labels) / expected).mean())
    assert abs(np.mean(ratios) - 1) < 0.1


def test_missing_parts_and_labels_that_are_never_known():
    data = make(k=1)
    labels = data.labels.copy()
    labels[:, 1] = NAN
    data = replace(
        with_part(data, pool_probs=None), labels=labels, disagreement=None, chains={},
        trace=np.zeros((0, 0)), examples=(), metrics={"teachers": {}, "student": {}},
    )  # fmt: skip
    text = render(data)
    assert not Page(text).open
    assert "nan" not in re.findall(r">([^<]*)<", text)
    assert "it taught everything" in text


def test_one_label_alone():
    assert not Page(render(make(names=("toxic",)))).open


def test_many_labels_are_cut_to_the_worst():
    names = tuple(f"A long name of a label {i}" for i in range(30))
    text = render(make(n=80, names=names))
    assert not Page(text).open
    assert "The other 6 labels are better and left out." in text


@pytest.mark.parametrize("right", [True, False])
def test_all_right_or_all_wrong(right):
    data = make(missing=0.0)
    answers = ((data.part.probs >= 0.5) == right).astype(float)
    data = changed(replace(data, labels=answers), "student", error_auroc=None)
    assert not Page(render(data)).open


def test_arrays_that_do_not_fit_and_unknown_labels_are_refused():
    data = make()
    with pytest.raises(InputError, match=r"Expected total of shape \(500, 4\), but got \(500,\)"):
        render(replace(data, total=data.total[:, 0]))
    with pytest.raises(InputError, match="Expected labels of the test examples, but got none"):
        render(replace(data, labels=np.full((500, 4), NAN)))
