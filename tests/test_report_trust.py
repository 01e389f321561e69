"""Where in the input space each teacher is trusted, as the report shows it, and where it is not."""

import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from test_report import Page, make

from mtbkd.app.report import Trust, render
from mtbkd.app.report.figures_trust import by_named_class, trusted
from mtbkd.app.run.evaluate import _trust
from mtbkd.types import InputError
from mtbkd.weights.directions import Directions
from mtbkd.weights.rules import Stacked

NOWHERE = "does not depend on where an example lies"
FIGURE = 'aria-label="Weight of each teacher by where an example lies"'


def trust(n=60, k=2, **more):
    rng = np.random.default_rng(0)
    place = rng.standard_normal((n, 2))
    return Trust(rng.dirichlet(np.ones(k), n).T, **({"place": place} | more))


def shown(data):
    text = render(data)
    assert not Page(text).open
    return text


def test_the_figure_is_there_where_weights_see_the_input():
    text = shown(replace(make(), trust=trust()))
    assert FIGURE in text
    assert NOWHERE not in text
    assert "that it names" not in text


@pytest.mark.usefixtures("undrawn")
def test_a_sentence_stands_where_they_do_not():
    text = shown(replace(make(), trust=trust(place=None)))
    assert FIGURE not in text
    assert NOWHERE in text


@pytest.mark.parametrize(
    "data", [make(), replace(make(teachers=("alone",)), trust=trust(k=1))], ids=["plain", "alone"]
)
@pytest.mark.usefixtures("undrawn")
def test_nothing_is_said_of_weights_that_are_not_stacked_or_of_one_teacher(data):
    text = shown(data)
    assert "Where each teacher is trusted" not in text


@pytest.mark.usefixtures("undrawn")
def test_scores_by_the_class_that_is_named():
    scores = np.array([[0.5, -1.25, 0.0], [0.25, 0.75, 2.0]])
    text = shown(replace(make(), trust=trust(by_class=scores)))
    rows = re.findall(r'<th scope="row">b</th>(.*?)</tr>', text.partition('id="taught"')[2])
    assert re.findall("<td>(.*?)</td>", rows[0]) == ["\N{MINUS SIGN}1.25", "+0.75"]
    names = tuple(f"c{i}" for i in range(31))
    many = trust(by_class=np.zeros((2, 31)))
    text = shown(replace(make(classes=names), trust=many))
    assert "depends on the class that it names." in text
    assert by_named_class(many, names) == []


def test_a_point_is_larger_where_the_teacher_counts_more(monkeypatch):
    drawn = []
    plot = "matplotlib.axes.Axes.plot"
    monkeypatch.setattr(plot, lambda _, x, y, *__, **how: drawn.append((x, y, how["markersize"])))
    place = np.array([[0.0, 1.0], [2.0, -1.0]])
    monkeypatch.setattr("mtbkd.app.report.figures_trust.legend", lambda *_: None)
    trusted(Trust(np.array([[0.9, 0.1], [0.1, 0.8]]), place), ("a", "b"))
    points = [(x[0], y[0], size) for x, y, size in drawn if len(x)]
    assert [point[:2] for point in points] == [(2, -1), (0, 1), (0, 1), (2, -1)]
    assert points[0][2] == points[2][2] < points[3][2] < points[1][2]


def test_of_many_teachers_those_that_count_most_are_drawn():
    names = [f"t{i}" for i in range(20)]
    weights = np.repeat(np.arange(20)[:, None] / 190, 30, 1)
    svg = trusted(Trust(weights, np.zeros((30, 2))), names)
    assert re.findall(r">(t\d+)</text>", svg) == names[8:]
    assert svg.count("<use") < 20 * 30


def test_arrays_of_other_examples_are_refused():
    bad = replace(make(), trust=trust(place=np.zeros((59, 2))))
    with pytest.raises(InputError, match=r"Expected trust.place of shape \(60, 2\), but got"):
        render(bad)


def stacked(directions=None, by_class=None):
    zero = torch.zeros(2, 3)
    return Stacked(zero, zero[..., None], zero[0], 1.0, by_class=by_class, directions=directions)


def test_an_evaluation_stores_what_weights_depend_on():
    features, weights = torch.arange(2500.0).reshape(-1, 1), torch.rand(3, 2500, 2)
    assert _trust(None, features, weights) == {}
    found = _trust(stacked(), features, weights)
    assert found.keys() == {"trust.weights"}
    torch.testing.assert_close(found["trust.weights"], weights[:, ::3].mean(2))
    line = Directions(torch.tensor([1.0]), torch.tensor([[0.5]]))
    by_class = torch.rand(2, 3, 4)
    found = _trust(stacked(line, by_class), features, weights[..., 0])
    torch.testing.assert_close(found["trust.weights"], weights[:, ::3, 0])
    torch.testing.assert_close(found["trust.by_class"], by_class.mean(0))
    expected = [[-0.5, 0.0], [1.0, 0.0], [2.5, 0.0], [3.0, 0.0]]
    torch.testing.assert_close(found["trust.place"][:4], torch.tensor(expected))
    assert len(found["trust.place"]) == 834
