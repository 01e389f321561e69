"""Predictions of every family as tables, and the table that the terminal shows."""

import json

import numpy as np
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
import pytest

from mtbkd.app.console import answers_table, metrics_table
from mtbkd.app.tables import (
    SUFFIXES,
    prediction_table,
    prediction_tables,
    write_table,
    write_tables,
)
from mtbkd.explain.causes import Causes
from mtbkd.predictive import LabelPredictive, NumberPredictive, Predictive
from mtbkd.types import InputError

LABELS = LabelPredictive(
    probs=np.array([[0.9, 0.5], [0.2, 0.1]]),
    total=np.array([[0.4, 0.7], [0.5, 0.3]]),
    aleatoric=np.array([[0.3, 0.6], [0.5, 0.2]]),
    lower=np.array([[0.8, 0.4], [0.1, 0.0]]),
    upper=np.array([[1.0, 0.6], [0.3, 0.2]]),
    level=0.9,
)
NUMBERS = NumberPredictive(
    mean=np.array([[1.0, 50.0], [2.0, 60.0]]),
    aleatoric=np.array([[9.0, 64.0], [1.0, 4.0]]),
    epistemic=np.array([[16.0, 36.0], [0.0, 0.0]]),
    lower=np.array([[-7.0, 34.0], [0.4, 57.0]]),
    upper=np.array([[9.0, 66.0], [3.6, 63.0]]),
    mean_lower=np.zeros((2, 2)),
    mean_upper=np.zeros((2, 2)),
    level=0.9,
)


def test_labels_are_those_said_and_uncertainties_are_summed():
    table = prediction_table(("x", "y"), ("a", "b"), LABELS, extra={"extra": np.array([7, 8])})
    assert table.column_names == [
        "id", "labels", "total", "aleatoric", "epistemic",
        "prob.a", "prob.b", "lower.a", "lower.b", "upper.a", "upper.b", "extra",
    ]  # fmt: skip
    first, second = table.to_pylist()
    assert (first["id"], first["labels"], second["labels"]) == ("x", ["a", "b"], [])
    assert [first[k] for k in ("total", "aleatoric", "epistemic")] == pytest.approx([1.1, 0.9, 0.2])
    assert [first[k] for k in ("prob.b", "lower.b", "upper.b")] == [0.5, 0.4, 0.6]
    assert second["extra"] == 8


def test_numbers_have_standard_deviations():
    table = prediction_table(("x", "y"), ("s", "t"), NUMBERS)
    parts = ("mean", "sd", "lower", "upper", "aleatoric", "epistemic")
    assert table.column_names == ["id", *(f"{p}.{t}" for t in ("s", "t") for p in parts)]
    first = table.to_pylist()[0]
    assert [first[f"{p}.s"] for p in parts] == [1.0, 5.0, -7.0, 9.0, 3.0, 4.0]
    assert [first[f"{p}.t"] for p in parts] == [50.0, 10.0, 34.0, 66.0, 8.0, 6.0]


def test_classes_keep_their_columns():
    probs = np.array([[0.1, 0.9]])
    one = np.array([0.3])
    table = prediction_table(
        ("x",), ("a", "b"), Predictive(probs, one, one - 0.1, probs, probs, one, 0.95)
    )
    assert table.column_names == [
        "id", "prediction", "probability", "total", "aleatoric", "epistemic", "second",
        "credible_set",
        "prob.a", "prob.b", "lower.a", "lower.b", "upper.a", "upper.b",
    ]  # fmt: skip
    row = table.to_pylist()[0]
    assert (row["prediction"], row["credible_set"]) == ("b", ["b", "a"])


def test_lists_are_joined_in_csv_and_kept_elsewhere(tmp_path):
    silent = LabelPredictive(*(np.full((2, 2), 0.1) for _ in range(5)), level=0.9)
    for name, predictive, said in (("some", LABELS, "a; b"), ("none", silent, "")):
        table = prediction_table(("x", "y"), ("a", "b"), predictive)
        for suffix in (".csv", ".parquet", ".jsonl"):
            write_table(tmp_path / f"{name}{suffix}", table)
        read = pa_csv.read_csv(tmp_path / f"{name}.csv")
        assert (read["labels"].to_pylist()[0] or "") == said
        assert pq.read_table(tmp_path / f"{name}.parquet").equals(table)
        line = (tmp_path / f"{name}.jsonl").read_text().splitlines()[0]
        assert json.loads(line)["labels"] == [w for w in said.split("; ") if w]
    assert not list(tmp_path.glob(".*"))


def test_tables_are_written_in_pieces_as_in_one(tmp_path, monkeypatch):
    ids, causes = ("x", "y"), causes_of(2, labels=np.array([[True, False], [False, True]]))
    whole = prediction_table(ids, ("a", "b"), LABELS, causes)
    monkeypatch.setattr("mtbkd.app.tables._ROWS", 1)
    for suffix in SUFFIXES:
        one, pieces = tmp_path / f"one{suffix}", tmp_path / f"pieces{suffix}"
        write_table(one, whole)
        write_tables(pieces, prediction_tables(ids, ("a", "b"), LABELS, causes))
        if suffix == ".parquet":
            assert pq.read_table(pieces).equals(pq.read_table(one))
        else:
            assert pieces.read_bytes() == one.read_bytes()


def test_an_unknown_suffix_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"Expected an output ending in .parquet, .csv, .jsonl"):
        write_table(tmp_path / "x.xlsx", prediction_table(("x", "y"), ("a", "b"), LABELS))


SCORES = {
    None: {"accuracy": 0.911, "nll": 0.322, "brier": 0.133, "ece": 0.044},
    "multilabel": {
        "accuracy": 0.611, "f1_micro": 0.722, "f1_macro": 0.733, "jaccard": 0.744,
        "nll": 0.355, "brier": 0.1, "ece": 0.066,
    },
    "regression": {
        "rmse": 12345.6, "mae": 1.0, "nll": -1.234, "crps": 0.567, "coverage_90": 0.891,
        "width_90": 3.0, "calibration": 0.01,
    },
}  # fmt: skip


@pytest.mark.parametrize(
    ("family", "headings", "cells"),
    [
        (None, ("accuracy", "NLL", "Brier", "ECE"), "0.911 0.322 0.133 0.044"),
        (
            "multilabel",
            ("accuracy", "micro", "macro", "Jaccard", "NLL", "ECE"),
            "0.611 0.722 0.733 0.744 0.355 0.066",
        ),
        ("regression", ("RMSE", "NLL", "CRPS", "coverage"), "12,346 -1.234 0.567 0.891"),
    ],
)
def test_the_terminal_shows_the_scores_of_the_family(capsys, monkeypatch, family, headings, cells):
    monkeypatch.setenv("COLUMNS", "120")
    scores = SCORES[family]
    metrics = {
        "task": "toy", "n_train": 1, "n_labelled": 1, "n_test": 1,
        "teachers": {"first": scores | {"nll": None}}, "teacher_pool": scores,
        "baselines": {"plain": scores}, "student": scores, "diagnostics": {"warnings": ["Beware."]},
    }  # fmt: skip
    metrics_table(metrics if family is None else metrics | {"family": family})
    shown = capsys.readouterr().out
    head = next(line for line in shown.splitlines() if "NLL" in line)
    places = [head.find(heading) for heading in headings]
    assert min(places) > 0
    assert places == sorted(places)
    student = next(line for line in shown.splitlines() if "Bayesian student" in line)
    assert " ".join(student.replace("│", " ").split()[2:]) == cells
    assert "–" in next(line for line in shown.splitlines() if "teacher: first" in line)
    assert "warning: Beware." in shown


def causes_of(n, labels=None):
    one = np.zeros(n)
    return Causes(
        flags=("",) * n, reliable=one, outside=one, dissent=one, pool=one, sets=None, labels=labels,
        scores=one[:, None],
    )  # fmt: skip


def told(names, predictive, causes, capsys):
    answers_table(tuple("xyz"[: len(causes.flags)]), names, predictive, causes)
    return capsys.readouterr().out


def test_answers_in_the_terminal_are_likely_classes(capsys):
    probs = np.array([[0.65, 0.05, 0.3], [0.2, 0.75, 0.05]])
    one = np.zeros(2)
    predictive = Predictive(
        probs=probs, total=one, aleatoric=one, lower=probs - 0.01, upper=probs + 0.01,
        second=one, level=0.8,
    )  # fmt: skip
    text = told(("a", "b", "c"), predictive, causes_of(2), capsys)
    assert "answer (80 % interval)" in text
    assert "a 0.65 [0.64, 0.66]; c 0.30 [0.29, 0.31]" in text
    assert "b 0.75 [0.74, 0.76]; a 0.20 [0.19, 0.21]" in text


def test_answers_in_the_terminal_are_labels_or_that_there_is_none(capsys):
    text = told(("a", "b"), LABELS, causes_of(2), capsys)
    assert "a 0.90 [0.80, 1.00]; b 0.50 [0.40, 0.60]" in text
    assert "none; most likely a 0.20 [0.10, 0.30]" in text
    chosen = np.array([[False, True], [False, True]])
    text = told(("a", "b"), LABELS, causes_of(2, chosen), capsys)
    assert "b 0.50 [0.40, 0.60]" in text
    assert "a 0.90" not in text
    assert "b 0.10 [0.00, 0.20]" in text


def test_answers_in_the_terminal_are_numbers(capsys):
    text = told(("s", "t"), NUMBERS, causes_of(2), capsys)
    assert "s 1 [-7, 9]; t 50 [34, 66]" in text
