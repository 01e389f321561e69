"""Scores and flags by where examples come from."""

import json
import sys

import numpy as np
import pyarrow.parquet as pq
import pytest
from own_data import write_config, write_csv

from mtbkd.app import cli
from mtbkd.files import load_tensors

PER_SOURCE = 400


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run on two sources, on the second of which the only teacher, and so the student, errs."""
    folder = tmp_path_factory.mktemp("sources")
    chance = np.random.default_rng(0)
    label = chance.integers(2, size=2 * PER_SOURCE)
    second = np.arange(2 * PER_SOURCE) % 2 == 1
    x = chance.normal(size=(2 * PER_SOURCE, 2)) + np.column_stack([4.0 * label, 6.0 * second])
    right = ~second | (chance.random(2 * PER_SOURCE) < 0.6)
    says = np.where(right, label, 1 - label)
    rows = [
        [f"e{i}", *x[i].tolist(), "no yes".split()[label[i]], "north south".split()[int(second[i])]]
        for i in range(2 * PER_SOURCE)
    ]
    write_csv(folder / "examples.csv", ["id", "x1", "x2", "label", "place"], rows)
    probs = [[f"e{i}", *(0.8 * np.eye(2)[says[i]] + 0.1).tolist()] for i in range(len(x))]
    write_csv(folder / "old.csv", ["id", "no", "yes"], probs)
    path = write_config(folder, {"old": {"table": "old.csv", "kind": "probs"}}, source="place")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["mtbkd", "run", str(path), "--out", str(folder / "run")])
        with pytest.raises(SystemExit) as end:
            cli.main()
    assert not end.value.code
    return folder / "run"


def test_scores_of_the_sources_are_those_of_their_rows(run):
    metrics = json.loads((run / "metrics.json").read_text())
    table = pq.read_table(run / "predictions.parquet").to_pylist()
    found = metrics["by_source"]
    assert list(found) == ["north", "south"]
    assert sum(one["n"] for one in found.values()) == metrics["n_test"]
    for parity, name in enumerate(found):
        own = [row for row in table if int(row["id"][1:]) % 2 == parity]
        probs = [row[f"prob.{row['label']}"] for row in own]
        assert found[name]["n"] == len(own)
        assert found[name]["nll"] == pytest.approx(-np.log(probs).mean(), rel=1e-5)
        assert found[name]["accuracy"] == pytest.approx(np.mean(np.array(probs) > 0.5))
    total = sum(one["n"] * one["nll"] for one in found.values()) / metrics["n_test"]
    assert total == pytest.approx(metrics["student"]["nll"], rel=1e-5)


def test_the_column_of_sources_is_not_read_by_the_student(run):
    assert json.loads((run / "examples.json").read_text())["features"] == ["x1", "x2"]


def test_flags_are_calibrated_within_each_source(run):
    kept = load_tensors(run / "background.safetensors")
    assert bool(kept["groups.given"])
    assert sorted(set(kept["groups.members"].tolist())) == [0, 1]


def test_the_report_and_the_table_name_them(run):
    page = (run / "report.html").read_text()
    assert "The student by source" in page
    assert page.count(">south</th>") == 1
