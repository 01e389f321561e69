"""The protein recipe on the paper's own files."""

import csv
import json
import sys

import numpy as np
import pytest
import torch

from mtbkd.app import cli
from mtbkd.app.config.run import build_config
from mtbkd.app.recipes.deeploc import paper as deeploc
from mtbkd.app.recipes.deeploc import shared as proteins
from mtbkd.app.run import stages
from mtbkd.metrics import accuracy
from mtbkd.types import InputError


@pytest.fixture(scope="module")
def config(data_folder):
    return build_config(deeploc.RECIPE.defaults, [f"data={data_folder}", "seed=3"])


def quickly(sequences):
    """Some numbers in place of features, which take seconds."""
    return np.array([[len(s), s.count("K"), s.count("L")] for s in sequences], np.float32)


@pytest.fixture(scope="module")
def task(config, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(proteins, "sequence_features", quickly)
        return deeploc.load(config, tmp_path_factory.mktemp("features"))


def test_splits_are_those_of_the_paper(task):
    assert (len(task.train), len(task.calibration), len(task.test)) == (2000, 500, 1000)
    assert len(set(task.ids)) == 3500
    assert task.train.n_labelled == 2000


def test_both_teachers_are_matched_to_their_proteins(config, task):
    outputs, _ = deeploc.teach(config, task)
    assert outputs.ids == task.ids
    assert not outputs.held_out
    test = outputs.at(task.test.ids).values.numpy()
    labels = task.test.labels.numpy()
    # off by one row, the headerless files would score at chance
    assert [round(accuracy(p, labels), 3) for p in test] == [0.752, 0.761]


def test_features_are_computed_once(config, tmp_path, monkeypatch):
    monkeypatch.setattr(proteins, "sequence_features", quickly)
    first = deeploc.load(config, tmp_path)
    monkeypatch.setattr(proteins, "sequence_features", lambda _: pytest.fail("computed again"))
    second = deeploc.load(config, tmp_path)
    assert torch.equal(first.train.inputs, second.train.inputs)


def test_a_tiny_run_predicts_new_proteins(data_folder, tmp_path, monkeypatch):
    monkeypatch.setenv("MTBKD_DATA", str(data_folder))
    out, fasta = tmp_path / "run", tmp_path / "new.fasta"
    settings = [
        *("--set", "map.epochs=2"),
        *("--set", "sampler.burn_in=10"),
        *("--set", "sampler.draws=4"),
        *("--set", "sampler.thinning=2"),
        *("--set", "chains=2"),
        *("--set", "baselines=none"),
    ]
    fasta.write_text(">one first protein\nMKKLLF\nAIPLVV\n>two\nMSKL\n")
    for arguments in (
        ["run", "deeploc", "--out", str(out), *settings],
        ["predict", str(out), str(fasta), "--out", str(tmp_path / "a.jsonl")],
    ):
        monkeypatch.setattr(sys, "argv", ["mtbkd", *arguments])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        assert not stop.value.code
    rows = [json.loads(line) for line in (tmp_path / "a.jsonl").read_text().splitlines()]
    assert [row["id"] for row in rows] == ["one", "two"]
    assert sum(rows[0][f"prob.{c}"] for c in proteins.LOCATIONS) == pytest.approx(1)
    assert "Endoplasmic reticulum" in (out / "report.html").read_text()


def test_missing_files_are_named(tmp_path):
    config = build_config(deeploc.RECIPE.defaults, [f"data={tmp_path}"])
    with pytest.raises(InputError, match="train_sample.csv is missing .* data get deeploc --to"):
        deeploc.load(config, tmp_path)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.fasta", "MKKL\n", "Expected FASTA"),
        ("a.fasta", ">one\n>two\nMK\n", "the sequence of 'one' is empty"),
        ("a.csv", "gene,Sequence\nx,MK\n", "Expected a column of ids"),
    ],
)
def test_faulty_protein_files_are_refused(name, text, message, tmp_path):
    path = tmp_path / name
    path.write_text(text)
    with pytest.raises(InputError, match=message):
        proteins.read(path)


def test_proteins_are_read_from_csv(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("ACC,Sequence\np1,MKV\np2,MAA\n")
    ids, inputs = proteins.read(path)
    assert ids == ("p1", "p2")
    assert np.isfinite(inputs.numpy()).all()


def test_relatives_are_kept_apart(data_folder, tmp_path, monkeypatch):
    monkeypatch.setattr(proteins, "sequence_features", quickly)

    def partitions(dataset):
        return {partition_of[i] for i in dataset.ids}

    partition_of = {
        row["ACC"]: int(row["Partition"])
        for name in ("data_our_train_sample.csv", "data_our_test.csv")
        for row in csv.DictReader(
            (data_folder / "deeploc2_mtbkd" / name).read_text(encoding="utf-8").splitlines()
        )
    }
    tested = []
    for n, scenario in enumerate(deeploc.SCENARIOS):
        given = [f"data={data_folder}", f"scenario={scenario}"]
        config = build_config(deeploc.RECIPE.defaults, given)
        task = deeploc.load(config, tmp_path)
        assert partitions(task.test) == {n}
        assert len(partitions(task.calibration)) == 1
        assert partitions(task.train) == set(range(5)) - {n} - partitions(task.calibration)
        assert deeploc.teach(config, task)[0].ids == task.ids
        tested += task.test.ids
    assert len(tested) == len(set(tested)) == 1000


def test_a_scenario_that_is_not_there_is_refused(data_folder, tmp_path):
    config = build_config(deeploc.RECIPE.defaults, [f"data={data_folder}", "scenario=apart-5"])
    with pytest.raises(InputError, match="apart-4, but got 'apart-5'"):
        stages.load(deeploc.RECIPE, config, tmp_path)
