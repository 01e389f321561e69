"""The report of synthetic runs: what it says, and that it stands alone."""

import re
from dataclasses import replace
from functools import cache
from html.parser import HTMLParser
from typing import get_args

import matplotlib
import numpy as np
import pytest

from mtbkd.app.report import FAMILIES, Classes, Example, ReportData, render, verdict
from mtbkd.app.report.figures import calibration
from mtbkd.app.report.findings import mean_when_handing_over
from mtbkd.app.report.verdict_classes import calibration_by_chance
from mtbkd.metrics import coverage, ece, error_auroc, reliability, scores
from mtbkd.types import Family, InputError

SECTIONS = (
    "verdict", "scores", "calibration", "uncertainty", "each", "taught", "chains", "examples",
    "asked",
)  # fmt: skip
VOID = {"meta", "img", "br", "link", "input", "hr"}


def entropy(probs):
    return -(probs * np.log(probs)).sum(-1)


def make(n=400, classes=("a", "b", "c"), teachers=("first", "second"), sharpness=3.0, seed=0):
    """A calibrated student: labels are drawn from its own probabilities."""
    rng = np.random.default_rng(seed)
    c, k = len(classes), len(teachers)

    def softmax(logits):
        return np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)

    logits = sharpness * rng.standard_normal((n, c))
    probs = softmax(logits)
    pool = softmax(logits + 0.3 * rng.standard_normal((n, c)))
    labels = np.array([rng.choice(c, p=p) for p in probs])
    total = entropy(probs)
    sets = np.ones((n, c), bool)
    student = scores(probs, labels) | {
        "coverage_90": coverage(sets, labels),
        "set_size_90": 2.0,
        "error_auroc": error_auroc(probs, total, labels),
    }
    examples = tuple(
        Example(
            f"e{i}", i, f"<code>drawn {i}</code>", {t: f"{classes[0]} (0.87)" for t in teachers}
        )
        for i in np.argsort(-total)[:5].tolist()
    )
    weights = rng.dirichlet(np.ones(k), c).T
    return ReportData(
        title="toy", asked={"seed": "0", "prior.weights": "entropy"}, command="mtbkd run toy",
        metrics={
            "task": "toy", "seed": 0, "n_train": 900, "n_labelled": 100, "n_test": n,
            "teachers": {t: scores(pool, labels) | {"parameters": 9000} for t in teachers},
            "teacher_pool": scores(pool, labels),
            "baselines": {"labels only": scores(pool, labels)},
            "student": student,
            "diagnostics": {"rhat_median": 1.0, "rhat_95": 1.01, "ess_median": 90, "ess_5": 60},
            "cost": {"seconds": {"student": 3.2}, "student_parameters": 1234},
        },
        family="classification", noun="class", part=Classes(probs, pool),
        classes=classes, labels=labels, total=total, aleatoric=0.7 * total, epistemic=0.3 * total,
        disagreement=rng.random(n),
        teachers=teachers, weights_by_class=weights, responsibilities_by_class=weights,
        chains={
            "step_size": np.full(4, 1e-3), "distance_moved": np.ones(4),
            "kinetic_temperature": np.ones(4), "accuracy": np.full(4, 0.8),
        },
        trace=rng.standard_normal((4, 15)), examples=examples, warnings=(),
    )  # fmt: skip


@cache
def plain() -> str:
    """The report of what `make` makes, drawn once."""
    return render(make())


def with_part(data, **values):
    return replace(data, part=replace(data.part, **values))


def changed(data, part, **values):
    return replace(data, metrics=data.metrics | {part: data.metrics[part] | values})


class Page(HTMLParser):
    """Ids, addresses, elements and whether every element is closed."""

    def __init__(self, text):
        super().__init__()
        self.ids, self.addresses, self.tags, self.open = [], [], [], []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.ids += [value for name, value in attrs if name == "id"]
        self.addresses += [v for name, v in attrs if name in ("src", "href", "xlink:href")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_same_data_gives_same_bytes_whatever_the_users_style():
    first = plain()
    with matplotlib.rc_context({"font.size": 20, "axes.xmargin": 0.4, "savefig.bbox": "tight"}):
        before = dict(matplotlib.rcParams)
        assert render(make()) == first
        assert dict(matplotlib.rcParams) == before


def test_loads_nothing_and_runs_nothing():
    text = plain()
    page = Page(text)
    assert not page.open
    assert "http" not in text
    assert "@import" not in text
    assert not {"script", "link", "iframe"} & set(page.tags)
    assert set(re.findall(r"url\((.)", text)) <= {"#"}
    assert all(address.startswith("#") for address in page.addresses)


def test_ids_are_unique_and_every_reference_has_one():
    text = plain()
    page = Page(text)
    assert len(page.ids) == len(set(page.ids))
    wanted = {a[1:] for a in page.addresses} | set(re.findall(r"url\(#([^)]*)\)", text))
    assert wanted <= set(page.ids)


def test_every_section_in_order():
    text = plain()
    places = [text.find(f' id="{section}"') for section in SECTIONS]
    assert min(places) > 0
    assert places == sorted(places)
    assert text.count("<figure") == text.count("<figcaption") == 11
    assert text.count('role="img" aria-label="') == text.count("<title>") - 1 == 11


def test_figures_take_the_pages_colours_and_keep_text():
    text = plain()
    assert not re.search("#0[ab]00[0-9a-f]{2}", text)
    assert "DejaVu" not in text
    assert all("var(--sans)" in style for style in re.findall('<text style="([^"]*)"', text))
    assert "stated confidence</text>" in text
    used, given = set(re.findall(r"var\((--[\w-]+)\)", text)), set(re.findall(r"(--[\w-]+):", text))
    assert used <= given


def test_names_are_escaped_and_drawings_are_not():
    data = make(classes=("<b>", "b&c", "$x_1$"), teachers=("<i>t", "u"))
    data = replace(data, title="<u>", warnings=("<s>",), asked={"<q>": "<em>"}, command="<kbd>")
    text = render(data)
    tags = Page(text).tags
    assert not {"b", "u", "s", "em", "kbd", "q"} & set(tags)
    assert "&lt;b&gt;" in text
    assert "$x_1$</text>" in text
    assert "<code>drawn " in text


def test_trust_where_everything_is_good():
    found = verdict(make())
    assert found.level == "trust", found.sentences
    assert len(found.sentences) == 8
    assert "can be trusted" in found.headline


@pytest.mark.parametrize(
    ("part", "values", "level", "about"),
    [
        ("student", {"coverage_90": 0.85}, "care", "90 % sets"),
        ("student", {"coverage_90": 0.70}, "doubt", "90 % sets"),
        ("student", {"error_auroc": 0.75}, "care", "flags errors"),
        ("student", {"error_auroc": 0.50}, "doubt", "flags errors"),
        ("diagnostics", {"rhat_95": 1.0999}, "trust", "trusted"),
        ("diagnostics", {"rhat_95": 1.15}, "care", "chains"),
        ("diagnostics", {"rhat_95": float("nan")}, "care", "chains"),
        ("diagnostics", {"rhat_95": 1.2}, "doubt", "chains"),
        ("teacher_pool", {"accuracy": 0.99}, "care", "accuracy"),
        ("baselines", {"other": {"accuracy": 0.5, "nll": 0.01}}, "care", "probabilities"),
    ],
)
def test_one_fault_lowers_the_verdict_and_is_named(part, values, level, about):
    found = verdict(changed(make(), part, **values))
    assert found.level == level
    assert about in found.headline
    assert "nan" not in " ".join(found.sentences)


def test_warnings_and_few_examples_ask_for_care():
    assert "warnings" in verdict(replace(make(), warnings=("Something.",))).headline
    assert verdict(make(n=50)).findings[0].about == "the size of the test set"


def test_overconfidence_is_doubted_and_said():
    data = make(sharpness=1.0)
    sharp = data.part.probs**8 / (data.part.probs**8).sum(1, keepdims=True)
    found = {f.about: f for f in verdict(with_part(data, probs=sharp)).findings}
    assert found["calibration"].level == "doubt"
    assert "more sure than it should be" in found["calibration"].sentence


def test_worse_than_guessing_is_doubted():
    data = make()
    found = {f.about: f for f in verdict(replace(data, labels=(data.labels + 1) % 3)).findings}
    assert found["its accuracy"].level == found["its probabilities"].level == "doubt"


def beside(data, costs=None, **differences):
    """The same report with a rival that the student is so far ahead of, in standard errors."""
    rival = {"name": "ensemble on the stacked pool", "temperature": 1.2, "others": {}}
    for name, gap in differences.items():
        scores = {
            "student": 0.5 + 0.01 * gap,
            "rival": 0.5,
            "difference": 0.01 * gap,
            "error": 0.01,
        }
        if name == "far":
            rival["others"][name] = scores
        else:
            rival[name] = scores
    data = replace(data, metrics=data.metrics | {"rival": rival})
    return changed(data, "cost", cpu_seconds=costs) if costs else data


COSTS = {
    "choices": 1.0, "modes": 2.0, "sampling": 57.0,
    "baselines": {"ensemble on the stacked pool": 1.0, "labels only": 9.0},
}  # fmt: skip


@pytest.mark.parametrize(
    ("gaps", "level", "parts"),
    [
        (
            {"nll": -3, "error_auroc": 1, "far": 4},
            "trust",
            [
                "better than the ensemble on the stacked pool in NLL (0.470 against 0.500, "
                "difference \N{MINUS SIGN}0.030 ± 0.010) and finding “far” by AUROC (0.540",
                "; no better than it in finding errors by AUROC (0.510",
                "It costs 30 times as much as the ensemble (60 CPU seconds of training against 2.0",
            ],
        ),
        (
            {"nll": -1.9, "selective_risk": 1.9},
            "trust",
            [
                "The posterior is no better than the ensemble on the stacked pool in NLL",
                "The ensemble is as good, for 1/30 of the cost (2.0 CPU",
            ],
        ),
        (
            {"nll": 2.1, "crps": 0},
            "care",
            [
                "worse than the ensemble on the stacked pool in NLL (0.521",
                "; no better than it in CRPS (0.500 against 0.500, difference +0 ± 0.010)",
                "The ensemble is better, for 1/30 of the cost",
            ],
        ),
        ({"nll": 2.1, "selective_risk": -2.1}, "trust", ["better than the", "; worse than it in"]),
    ],
)
def test_what_the_posterior_adds_is_said_both_ways_and_what_it_costs(gaps, level, parts):
    found = {f.about: f for f in verdict(beside(make(), COSTS, **gaps)).findings}
    finding = found["what it adds over an ensemble"]
    assert finding.level == level
    for part in parts:
        assert part in finding.sentence
    without = verdict(beside(make(), **gaps)).sentences
    assert not any("CPU" in sentence for sentence in without)


def test_an_ensemble_that_costs_more_is_said_to():
    dear = COSTS | {"baselines": {"ensemble on the stacked pool": 119.0}}
    assert "as good, for 2.0 times the cost" in " ".join(
        verdict(beside(make(), dear, nll=0)).sentences
    )


def test_calibration_by_chance_is_the_ece_of_a_calibrated_model():
    drawn = []
    for seed in range(20):
        data = make(n=600, sharpness=1.0, seed=seed)
        drawn.append(ece(data.part.probs, data.labels) / calibration_by_chance(data.part.probs))
    assert abs(np.mean(drawn) - 1) < 3 * np.std(drawn) / np.sqrt(20)


def test_handing_over_keeps_the_certain():
    hits = np.array([True, False, True, True])
    handed, kept = mean_when_handing_over(hits, np.array([0.1, 0.9, 0.2, 0.5]))
    np.testing.assert_allclose(handed, [0, 0.25, 0.5, 0.75])
    np.testing.assert_allclose(kept, [0.75, 1, 1, 1])


@pytest.mark.usefixtures("undrawn")
def test_best_of_each_column_is_marked():
    data = changed(make(), "teacher_pool", accuracy=0.999, nll=9.0)
    rows = re.findall(r'<tr class="(\w+)">(.*?)</tr>', render(data), flags=re.DOTALL)
    cells = {kind: re.findall(r"<td( class=\"best\")?>([^<]*)", row) for kind, row in rows}
    assert cells["pool"][0] == (' class="best"', "99.9\xa0%")
    assert cells["pool"][1] == ("", "9.000")
    assert cells["student"][4] == (' class="best"', "1,234")
    assert cells["baseline"][4] == cells["student"][5] == ("", "–")


def test_missing_optional_values():
    data = make()
    bare = {"accuracy": 0.9, "nll": 0.3, "brier": 0.2, "ece": 0.03}
    data = replace(
        with_part(data, pool_probs=None),
        metrics={
            "teachers": {"first": bare, "second": bare | {"ece": None}},
            "student": bare | {"error_auroc": None},
            "unknown": {"deep": [1]},
        },
        disagreement=None, chains={}, trace=np.zeros((0, 0)), examples=(),
    )  # fmt: skip
    text = render(data)
    assert not Page(text).open
    assert "nan" not in re.findall(r">([^<]*)<", text)
    assert "None" not in re.sub(r"<style>.*?</style>", "", text, flags=re.DOTALL).replace(
        "None were given", ""
    )
    assert all(f' id="{section}"' in text for section in SECTIONS)


@pytest.mark.parametrize("right", [True, False])
def test_all_right_or_all_wrong(right):
    data = make()
    answers = data.part.probs.argmax(1) if right else data.part.probs.argmin(1)
    data = changed(replace(data, labels=answers), "student", error_auroc=None)
    assert not Page(render(data)).open


def test_sixty_classes_with_long_names():
    names = tuple(f"Endoplasmic reticulum of a long name {i}" for i in range(60))
    text = render(make(n=200, classes=names, teachers=tuple("ABCDEFG"), sharpness=0.0))
    assert not Page(text).open
    assert "Endoplasmic reticulum o…</text>" in text
    assert 'class="scroll"' in text
    assert "and 48 more" in text


@pytest.mark.usefixtures("undrawn")
def test_one_teacher_shares_nothing():
    text = render(make(teachers=("alone",)))
    assert "alone: it taught everything" in text
    assert "1 teacher taught" in text


def test_empty_bins_are_left_out():
    probs = np.tile([0.9, 0.1], (10, 1))
    svg = calibration("one", "t", reliability(probs, np.zeros(10, int)), "student")
    assert "nan" not in svg


def test_arrays_that_do_not_fit_are_refused():
    data = make()
    with pytest.raises(InputError, match=r"Expected total of shape \(400,\), but got \(399,\)\."):
        render(replace(data, total=data.total[1:]))


@pytest.mark.usefixtures("undrawn")
def test_flags_are_counted_where_it_is_known_what_is_right():
    flags = {
        "none": {"n": 350, "right": 0.9, "expected": 0.88},
        "teachers disagree": {"n": 50, "right": 0.4, "expected": 0.35},
    }
    page = render(replace(make(), metrics=make().metrics | {"flags": flags}))
    assert "Why answers are uncertain" in page
    row = page[page.index("teachers disagree</th>") :][:80]
    assert [row.index(cell) for cell in ("50", "40.0", "35.0")] == sorted(
        row.index(cell) for cell in ("50", "40.0", "35.0")
    )
    assert "not flagged</th>" in page
    unknown = {"none": {"n": 400, "right": None, "expected": None}}
    page = render(replace(make(), metrics=make().metrics | {"flags": unknown}))
    assert "Why answers are uncertain" not in page


@pytest.mark.usefixtures("undrawn")
def test_cards_show_the_answer_the_truth_and_the_90_percent_set():
    data = make(n=120, classes=("cat", "dog", "eel", "fox"))
    probs, labels = data.part.probs.copy(), data.labels.copy()
    probs[7], labels[7] = [0.04, 0.55, 0.05, 0.36], 3
    shown = Example("e7", 7, "<b>x</b>", {"first": "dog (0.87)"})
    data = with_part(replace(data, labels=labels, examples=(shown,)), probs=probs)
    card = re.search(r'aria-label="e7">(.*?)</article>', render(data), flags=re.DOTALL)[1]
    assert '<p class="said">dog <span class="muted">(0.55)</span></p>' in card
    assert '<span class="wrong">wrong</span>, it is fox' in card
    chips = re.search(r'aria-label="90 % set">(.*?)</div>', card)[1]
    assert re.findall("<span>(.*?)</span>", chips) == ["dog", "fox"]
    assert "<dt>first</dt><dd>dog (0.87)</dd>" in card


@pytest.mark.parametrize(
    ("family", "values", "known", "kept", "words"),
    [
        ("classification", np.log([0.2, 0.7, 0.1]), True, [], "b (0.70)"),
        ("classification", np.log([0.2, 0.7, 0.1]), True, [2, 0], "a (0.70)"),
        ("classification", np.log([0.2, 0.1, 0.7]), True, [2, 0], "another (0.70)"),
        ("classification", np.log([0.2, 0.7, 0.1]), False, [], "nothing"),
        (
            "multilabel", np.log([[0.4, 0.6], [0.1, 0.9], [0.2, 0.8]]), [True, True, False], [],
            "b (0.90), a (0.60)",
        ),
        ("multilabel", np.log([[0.9, 0.1]] * 3), [True, True, False], [], "none"),
        ("multilabel", np.log([[0.4, 0.6]] * 3), [False] * 3, [], "nothing"),
        (
            "regression", np.array([[7.125, np.log(0.16)], [3.0, np.nan], [1.0, 0.0]]),
            [True, True, False], [], "7.12 ± 0.4, 3, nothing",
        ),
    ],
)  # fmt: skip
def test_what_a_teacher_says_in_words(family, values, known, kept, words):
    says = FAMILIES[family].teacher_says
    assert says(("a", "b", "c"), values, np.array(known), kept) == words


def test_every_family_has_a_row_and_its_words():
    assert set(FAMILIES) == set(get_args(Family))
    nouns = [family.noun for family in FAMILIES.values()]
    assert nouns == ["class", "label", "target"]
    assert len({family.template for family in FAMILIES.values()}) == 3
