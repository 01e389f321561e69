"""What is counted for each class, by hand-made cases."""

import numpy as np
import pytest
from matplotlib.axes import Axes

from mtbkd.app.report.by_class import (
    by_number,
    confusion,
    largest,
    lost,
    neighbours,
    right_and_wrong,
    row_shares,
    several_auroc,
    single,
    spill,
)
from mtbkd.app.report.figures_classes import right_above_wrong
from mtbkd.app.report.sentences import confusion_sentences, spill_sentences

NAN = float("nan")
COUNTS = np.array([[5, 3, 0], [1, 8, 1], [0, 7, 3]])
NAMES = ("nucleus", "cytosol", "Golgi")


def test_confusion_has_the_truth_down_and_the_answers_across():
    true, said = np.array([0, 0, 0, 1, 2, -1]), np.array([0, 2, 2, 1, 0, 0])
    np.testing.assert_array_equal(confusion(true, said, 3), [[1, 0, 2], [0, 1, 0], [1, 0, 0]])


def test_shares_are_of_rows_and_unknown_without_examples():
    shares = row_shares(np.array([[1, 3], [0, 0]]))
    np.testing.assert_array_equal(shares, [[0.25, 0.75], [NAN, NAN]])


def test_single_labels_are_those_known_to_be_alone():
    labels = np.array([[0, 0, 1], [1, 0, 1], [0, 0, 0], [1, 0, NAN], [1, 0, 0]])
    assert single(labels).tolist() == [2, -1, -1, -1, 0]


def test_spill_is_given_where_the_one_is_true_and_the_other_is_not():
    labels = np.array([[1, 0, 0], [1, 1, 0], [1, NAN, 0], [0, 1, 0]])
    probs = np.array([[0.9, 0.2, 0.1], [0.7, 0.8, 0.3], [0.5, 0.9, 0.2], [0.4, 0.6, 0.5]])
    found = spill(labels, probs)
    np.testing.assert_allclose(found[0], [0.7, 0.2, 0.2])
    np.testing.assert_allclose(found[1], [0.4, 0.7, 0.4])
    assert np.isnan(found[2]).all()


def test_confused_classes_become_neighbours():
    counts = np.diag([20] * 6)
    for one, other in ((0, 3), (1, 5), (2, 4)):
        counts[one, other] = 8
    order = neighbours(row_shares(counts)).tolist()
    assert sorted(order) == list(range(6))
    places = {c: i for i, c in enumerate(order)}
    assert all(abs(places[a] - places[b]) == 1 for a, b in ((0, 3), (1, 5), (2, 4)))


@pytest.mark.parametrize("shares", [np.eye(4), np.full((4, 4), NAN), np.full((3, 3), 1 / 3)])
def test_an_order_where_nothing_tells_one(shares):
    assert sorted(neighbours(shares).tolist()) == list(range(len(shares)))


def test_largest_confusions_leave_out_what_is_right():
    assert largest(COUNTS, 2) == ((2, 1, 7), (0, 1, 3))
    assert largest(np.diag([4, 4, 4]), 2) == ()


def test_lost_classes_go_to_another_more_often_than_to_themselves():
    assert lost(COUNTS, 10) == ((2, 1, 7),)
    assert lost(COUNTS, 11) == ()
    assert lost(COUNTS.T, 1) == ()


def test_sentences_name_truth_answer_and_numbers():
    said = " ".join(confusion_sentences(COUNTS, NAMES))
    assert "Golgi taken for cytosol (7 of 10 examples), nucleus taken for cytosol (3 of 8" in said
    assert (
        "Golgi is taken for cytosol more often than for itself (7 against 3 of 10 examples)" in said
    )
    assert confusion_sentences(np.diag([3, 3, 3]), NAMES) == [
        "Nothing is confused: every answer is right."
    ]
    one = confusion_sentences(np.array([[3, 0, 0], [0, 3, 0], [1, 0, 3]]), NAMES)
    assert one == ["The largest confusion is Golgi taken for nucleus (1 of 4 examples)."]


def test_spill_sentences_go_from_the_truth():
    shares = np.array([[0.9, 0.4, NAN], [0.1, 0.9, 0.2], [0.0, 0.0, 0.9]])
    assert spill_sentences(shares, NAMES, 2) == [
        "Most probability spills over from nucleus to cytosol (0.40 on average) and cytosol to "
        "Golgi (0.20 on average)."
    ]


def test_right_and_wrong_are_told_apart_for_each_true_class():
    values = np.array([0.0, 1.0, 2.0, 3.0, 4.0, 9.0, 7.0])
    of = np.zeros((7, 3), bool)
    of[:6, 0], of[6, 1] = True, True
    hits = np.array([True] * 5 + [False, True])
    found = [[its.tolist() for its in pair] for pair in right_and_wrong(values, of, hits)]
    assert found == [[[0.0, 1.0, 2.0, 3.0, 4.0], [9.0]], [[7.0], []], [[], []]]


def test_the_answer_about_each_label_is_right_or_wrong():
    values = np.array([[1.0, 5.0], [2.0, 6.0]])
    of, hits = np.array([[True, False], [True, True]]), np.array([[True, True], [False, True]])
    found = [[its.tolist() for its in pair] for pair in right_and_wrong(values, of, hits)]
    assert found == [[[1.0], [2.0]], [[6.0], []]]


def test_bars_reach_from_quantile_to_quantile_and_few_answers_are_a_ring(monkeypatch):
    drawn = []
    monkeypatch.setattr(Axes, "hlines", lambda _, y, low, high, **__: drawn.append((y, low, high)))
    right, wrong = np.array([4.0, 0.0, 3.0, 1.0, 2.0]), np.array([9.0, 7.0, 8.0])
    svg = right_above_wrong("x", "t", [("a", right, wrong)], "nats", (440.0, 107.0), fewest=5)
    np.testing.assert_allclose(drawn, [(-0.16, 0.4, 3.6), (-0.16, 1.0, 3.0)])
    assert "fill: none" in svg


def test_examples_are_grouped_by_how_many_labels_are_true():
    labels = np.array([[1, 0, 0, 0], [1, 1, 0, 0], [1, 1, 1, 0], [1, 1, 1, 1], [1, NAN, 0, 0]])
    probs = np.array([[0.5] * 4, [0.1] * 4, [0.7] * 4, [0.9] * 4, [0.3] * 4])
    groups = by_number(labels, probs, fewest=1)
    assert [group.least for group in groups] == [1, 2, 3]
    assert [np.flatnonzero(group.rows).tolist() for group in groups] == [[0], [1], [2, 3]]
    np.testing.assert_allclose([group.expected for group in groups], [2.0, 0.4, 3.2])
    assert [group.least for group in by_number(labels, probs, fewest=2)] == [3]
    uncertainty = np.array([0.5, 0.4, 0.6, 0.7, 9.0])
    assert several_auroc(groups, uncertainty) == pytest.approx(2 / 3)
    assert several_auroc(groups[1:], uncertainty) is None
    assert several_auroc((), uncertainty) is None
