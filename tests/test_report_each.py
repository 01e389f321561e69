"""The section that looks at each class by itself: where it is, what it says, where it is not."""

import re
from dataclasses import replace

import numpy as np
import pytest
import test_report_labels
import test_report_numbers
from test_report import Page, changed, make, plain, with_part

from mtbkd.app.report import FAMILIES, Others, page_by_class, render, verdict
from mtbkd.app.report.figures_classes import confusion_map
from mtbkd.app.report.page_by_class import MOST
from mtbkd.types import InputError

NAN = float("nan")


def section(data):
    return FAMILIES[data.family].more(data)["each"]


def beside(n=300, seed=1):
    rng = np.random.default_rng(seed)
    return Others(*(rng.gamma(2, 0.5, n) for _ in range(3)))


def with_others(data, auroc=0.7, name="several places"):
    numbers = {
        "n": 300, "auroc_total": auroc, "auroc_aleatoric": 0.61, "auroc_epistemic": None,
    }  # fmt: skip
    data = changed(data, "student", others={name: numbers})
    return replace(data, others={name: beside()})


def part(text):
    return re.search(r'<section id="each">(.*?)</section>', text, flags=re.DOTALL)[1]


def cells(svg):
    return re.findall(r"<text[^>]*>(\d+)</text>", svg)


def test_confusion_counts_stand_in_the_cells():
    data = make(classes=("aa", "bb", "cc"))
    labels, answers = np.arange(120) % 3, np.arange(120) % 3
    answers[:33:3] = 1  # 11 of the first class
    answers[1:52:3] = 2  # 17 of the second
    probs = 0.05 + 0.85 * np.eye(3)[answers]
    few = {name: getattr(data, name)[:120] for name in ("total", "aleatoric", "epistemic")}
    data = replace(data, labels=labels, disagreement=None, **few)
    data = with_part(data, probs=probs, pool_probs=None)
    found = section(data)
    assert found is not None
    assert sorted(map(int, cells(found.figures["confusion"]))) == [11, 17, 23, 29, 40]
    said = found.confusion["said"][0]
    assert "bb taken for cc (17 of 40 examples) and aa taken for bb (11 of 40" in said
    svg = found.figures["each-epistemic"]
    assert "29 right, 11 wrong" in svg
    assert "40 right, 0 wrong" in svg


def test_cells_follow_the_order_of_the_names(monkeypatch):
    drawn = {}

    def keep(title, shares, counts, names, words):
        drawn.update(shares=shares, counts=counts, names=names, words=words)
        return ""

    monkeypatch.setattr(page_by_class.figures_classes, "confusion_map", keep)
    data = make(n=500, classes=("a", "b", "c", "d", "e"), sharpness=1.0)
    section(data)
    answers = data.part.probs.argmax(1)
    assert drawn["names"] != sorted(drawn["names"])
    assert drawn["words"] == ("true class", "taken for")
    for i, true in enumerate(drawn["names"]):
        for j, said in enumerate(drawn["names"]):
            of = data.labels == data.classes.index(true)
            n = (of & (answers == data.classes.index(said))).sum()
            assert drawn["counts"][i, j] == n
            assert drawn["shares"][i, j] == pytest.approx(n / of.sum())


def test_the_map_has_rows_down_and_columns_across():
    counts = np.arange(11, 20).reshape(3, 3)
    svg = confusion_map("t", counts / counts.sum(1, keepdims=True), counts, "xyz", ("t", "s"))
    where = re.findall(r'<text [^>]*x="([\d.]+)" y="([\d.]+)"[^>]*>(\d+)</text>', svg)
    read = sorted((float(y), float(x), int(text)) for x, y, text in where)
    assert [n for *_, n in read] == list(range(11, 20))


@pytest.mark.usefixtures("undrawn")
def test_words_are_those_of_the_task():
    page = render(replace(make(), noun="location"))
    text = part(page)
    assert "<h2>Location by location</h2>" in text
    assert "The true location down, the student" in text
    assert "class</" not in text
    assert "in 3 locations, seed" in page


def test_teachers_are_referred_to_if_there_are_several():
    text = part(plain())
    assert 'href="#taught"' in text
    assert "<h2>Class by class</h2>" in text
    assert 'href="#taught"' not in part(render(make(teachers=("alone",))))


def test_others_are_drawn_with_their_auroc():
    page = render(with_others(make()))
    text = part(page)
    assert "<h3>Total: AUROC 0.70</h3>" in text
    assert "<h3>Aleatoric: AUROC 0.61</h3>" in text
    assert "<h3>Epistemic</h3>" in text
    assert "several places (300)</text>" in text
    assert "test (400)</text>" in text
    assert text.count("<figure") == text.count("<figcaption") == 6
    read = Page(page)
    assert not read.open
    assert len(read.ids) == len(set(read.ids))


@pytest.mark.parametrize(
    ("auroc", "level", "how"), [(0.81, "trust", "well"), (0.5, "care", "hard")]
)
def test_others_are_judged(auroc, level, how):
    found = {f.about: f for f in verdict(with_others(make(), auroc)).findings}
    finding = found["how it takes “several places”"]
    assert finding.level == level
    assert how in finding.sentence
    assert f"{auroc:.2f}" in finding.sentence


@pytest.mark.parametrize(
    ("second", "said"),
    [
        (0.92, "by total uncertainty (AUROC 0.97; "),
        (0.99, "by belief in a second class (AUROC 0.99; "),
    ],
)
def test_the_verdict_names_what_tells_others_best(second, said):
    data = with_others(make(), 0.97)
    data.student["others"]["several places"]["auroc_second"] = second
    found = {f.about: f for f in verdict(data).findings}
    assert said in found["how it takes “several places”"].sentence


def test_a_class_lost_in_another_asks_for_care():
    data = make(n=600)
    kept = {f.about: f for f in verdict(data).findings}["what it confuses"]
    assert kept.level == "trust"
    assert "itself" not in kept.sentence
    probs = data.part.probs.copy()
    probs[data.labels == 2] = [0.1, 0.8, 0.1]
    gone = {f.about: f for f in verdict(with_part(data, probs=probs)).findings}["what it confuses"]
    assert gone.level == "care"
    n = (data.labels == 2).sum()
    assert f"It confuses most c, taken for b in {n} of {n} examples; c is taken" in gone.sentence


@pytest.mark.usefixtures("undrawn")
def test_two_classes_need_no_section_but_others_are_shown():
    data = make(classes=("yes", "no"))
    assert section(data) is None
    assert 'href="#each"' not in render(data)
    assert "what it confuses" not in {f.about for f in verdict(data).findings}
    text = part(render(with_others(data)))
    assert "What is taken for what" not in text
    assert "AUROC 0.70" in text


@pytest.mark.usefixtures("undrawn")
def test_numbers_have_no_section():
    text = render(test_report_numbers.make())
    assert 'id="each"' not in text
    assert 'href="#each"' not in text


def test_many_classes_are_cut_to_the_most_confused():
    names = tuple(f"class {i}" for i in range(60))
    data = make(n=900, classes=names)
    found = section(data)
    assert found is not None
    assert found.confusion["left_out"] == 60 - MOST
    assert found.figures["each-aleatoric"].count(" wrong</text>") == MOST
    assert found.confusion["wide"]


def test_classes_without_examples_are_shown_if_something_is_taken_for_them():
    data = make(classes=("a", "b", "c", "d", "e"))
    labels = data.labels % 3
    answers = labels.copy()
    answers[:7] = 3
    found = section(with_part(replace(data, labels=labels), probs=0.02 + 0.9 * np.eye(5)[answers]))
    assert found is not None
    svg = found.figures["confusion"]
    assert ">d</text>" in svg
    assert ">e</text>" not in svg
    assert "nan" not in re.findall(r">([^<]*)<", svg)


def single_labels(data, n):
    """The same with exactly one label in the first rows, two in the others."""
    rng = np.random.default_rng(3)
    order = np.argsort(rng.random(data.labels.shape), 1)
    labels = (order == 0).astype(float)
    labels[n:] += order[n:] == 1
    return replace(data, labels=labels)


def test_labels_are_counted_where_one_is_true():
    data = single_labels(test_report_labels.make(), 200)
    found = section(data)
    assert found is not None
    assert sum(map(int, cells(found.figures["confusion"]))) == 200
    assert "the 200 test examples that have exactly one label" in found.confusion["caption"]


def test_labels_spill_over_where_few_examples_have_one():
    found = section(single_labels(test_report_labels.make(), 50))
    assert found is not None
    assert found.confusion["heading"] == "What a true label spills over to"
    assert "spills over from" in found.confusion["said"][0]
    assert not cells(found.figures["confusion"])


def test_labels_are_grouped_by_number():
    data = single_labels(test_report_labels.make(), 200)
    text = part(render(data))
    assert '<h3 class="apart">One label against several</h3>' in text
    assert "one label (200)</text>" in text
    assert "two labels (300)</text>" in text
    rows = dict(re.findall(r'<tr><th scope="row">(\w+ labels?)</th>(.*?)</tr>', text))
    found = re.findall("<td>([^<]*)</td>", rows["two labels"])
    expected = data.part.probs[200:].sum(1).mean()
    median = np.median(data.total.sum(1)[200:])
    assert found == ["300", "2.00", f"{expected:.2f}", f"{median:.2f}"]


@pytest.mark.usefixtures("undrawn")
def test_labels_have_others_too():
    data = with_others(replace(test_report_labels.make(), noun="location"))
    text = render(data)
    assert "Location by location" in part(text)
    assert "AUROC 0.70" in part(text)
    assert not Page(text).open
    assert "with 4 locations, each yes or no" in text


def test_labels_never_known_and_two_labels():
    data = test_report_labels.make()
    labels = data.labels.copy()
    labels[:, 1] = NAN
    text = render(replace(data, labels=labels))
    assert "nan" not in re.findall(r">([^<]*)<", text)
    assert section(test_report_labels.make(names=("a", "b"))) is None


def test_others_of_different_lengths_are_refused():
    odd = replace(beside(), epistemic=np.ones(7))
    with pytest.raises(InputError, match=r"uncertainties of 'far' .* 300, 300 and 7 of them"):
        render(replace(make(), others={"far": odd}))
