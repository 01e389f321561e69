"""Texts in the recipe of one's own: from a table to a report that shows them, and predictions."""

import csv
import json

import numpy as np
import pytest
import torch
import yaml
from own_data import call, write_csv, write_module
from texts_data import TOPICS, news, write_bert, write_news

from mtbkd.app.config.run import load_config
from mtbkd.app.recipes import find_recipe
from mtbkd.app.recipes.base import Labelling
from mtbkd.inputs.texts import encoder
from mtbkd.outputs.store import load_outputs
from mtbkd.types import InputError

OWN = find_recipe("own")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("MTBKD_CACHE", str(tmp_path / "cache"))
    return tmp_path


def answers(path):
    with path.open(newline="") as file:
        return {row["id"]: row for row in csv.DictReader(file)}


def edited(path, **sections):
    written = yaml.safe_load(path.read_text())
    path.write_text(yaml.safe_dump(written | sections))
    return path


def test_from_texts_to_a_report_and_predictions(folder, monkeypatch, capsys):
    path, run = write_news(folder), folder / "run"
    code, out, err = call(monkeypatch, capsys, "run", path, "--out", run)
    assert code == 0, err
    page = (run / "report.html").read_text()
    texts, topics = news()
    assert sum(text in page for text in texts) >= 4
    assert " sd</code>" not in page
    assert json.loads((run / "metrics.json").read_text())["student"]["accuracy"] > 0.6
    fresh, theirs = news(12, seed=5)
    write_csv(folder / "new.csv", ["id", "words"], [[i + 1, t] for i, t in enumerate(fresh)])
    (folder / "new.txt").write_text("\n".join(fresh) + "\n")
    for name in ("new.csv", "new.txt"):
        told = call(monkeypatch, capsys, "predict", run, folder / name, "--out", folder / "a.csv")
        assert told[0] == 0, told[2]
        found = answers(folder / "a.csv")
        right = [found[str(i + 1)]["prediction"] == TOPICS[t] for i, t in enumerate(theirs)]
        assert np.mean(right) > 0.6
        (folder / "a.csv").rename(folder / f"{name}.answers")
    assert (folder / "new.csv.answers").read_bytes() == (folder / "new.txt.answers").read_bytes()
    (run / "features" / "fitted.safetensors").unlink()
    code, _, err = call(monkeypatch, capsys, "predict", run, folder / "new.txt")
    assert code == 2
    assert "fitted.safetensors" in err


def test_only_training_rows_are_looked_at(folder):
    path = write_news(folder)
    config = load_config(path)
    task = OWN.load(config, folder / "a")
    examples = folder / "examples.csv"
    held = {int(i.removeprefix("n")) for i in (*task.calibration.ids, *task.test.ids)}
    lines = examples.read_text().splitlines()
    others = [
        line if not i or i - 1 not in held else f"{line.split(',')[0]},goal,{line.split(',')[2]}"
        for i, line in enumerate(lines)
    ]
    examples.write_text("\n".join(others))
    again = OWN.load(config, folder / "b")
    assert again.train.ids == task.train.ids
    assert (again.train.inputs == task.train.inputs).all()
    assert (again.test.inputs != task.test.inputs).any()


@pytest.mark.slow
def test_going_on_is_the_same_to_the_byte(folder, monkeypatch, capsys):
    path = write_news(folder)
    call(monkeypatch, capsys, "run", path, "--out", folder / "whole")
    call(monkeypatch, capsys, "teach", path, "--out", folder / "parts")
    call(monkeypatch, capsys, "run", path, "--out", folder / "parts")
    for name in ("features/fitted.safetensors", "samples/manifest.json", "examples.json"):
        assert (folder / "whole" / name).read_bytes() == (folder / "parts" / name).read_bytes()


def test_teachers_are_asked_with_texts(folder):
    lexicon = """
    from mtbkd.teachers.base import from_callable
    import numpy as np

    def lexicon():
        words = ["ball goal team", "bank price market", "star moon cloud"]
        def probs(texts):
            hits = [[sum(w in t.split() for w in each.split()) for each in words] for t in texts]
            return (np.array(hits) + 0.1) / (np.array(hits) + 0.1).sum(1, keepdims=True)
        return from_callable("any", probs, kind="probs", classes=["sport", "money", "sky"])
    """
    lines = [line.removeprefix("    ") for line in lexicon.splitlines()]
    name = write_module(folder, "lexicon_teacher", "\n".join(lines))
    path = write_news(folder)
    written = yaml.safe_load(path.read_text())
    written["own"]["teachers"]["words"] = {"factory": f"{name}:lexicon"}
    path.write_text(yaml.safe_dump(written))
    task = OWN.load(load_config(path), folder / "run" / "features")
    OWN.label(load_config(path), task, folder / "run" / "teachers", Labelling(may_run_code=True))
    said = load_outputs(folder / "run" / "teachers")
    place = said.names.index("words")
    _, topics = news()
    truth = [TOPICS[topics[int(i.removeprefix("n"))]] for i in said.ids]
    answers = [task.train.classes[i] for i in said.values[place].argmax(1)]
    assert np.mean([a == b for a, b in zip(answers, truth, strict=True)]) > 0.9


def test_a_frozen_model_reads_texts_for_the_student(folder, monkeypatch):
    pytest.importorskip("transformers")
    write_bert(folder / "bert")
    path = write_news(folder)
    settings = yaml.safe_load(path.read_text())["student"] | {"kind": "encoder", "encoder": "bert"}
    config = load_config(edited(path, student=settings))
    features, new = folder / "run" / "features", folder / "new.txt"
    task = OWN.load(config, features)
    OWN.label(config, task, folder / "run" / "teachers", Labelling())
    rows = range(3)
    texts = {f"n{i}": text for i, text in enumerate(news()[0])}
    assert task.drawn(0) == texts[task.test.ids[0]]
    new.write_text("\n".join(texts[task.test.ids[row]] for row in rows))

    def ask(*_):
        raise AssertionError("a model was asked")

    with monkeypatch.context() as patch:  # what was read before is in the cache
        patch.setattr(encoder, "_load", ask)
        ids, inputs = OWN.read_as(config, features, new, lambda *_: None)
    assert ids == ("1", "2", "3")
    assert torch.equal(inputs, task.test.inputs[:3])
    write_bert(folder / "bert", seed=1)
    with pytest.raises(InputError, match="the encoder 'bert' as it was when the run began"):
        OWN.read_as(config, features, new, lambda *_: None)


def test_a_model_that_is_not_there_is_told_with_all_else(folder, monkeypatch, capsys):
    path = write_news(folder, encoder="./none", labels="topic")
    code, _, err = call(monkeypatch, capsys, "teach", path, "--out", folder / "run")
    assert code == 2
    assert "there is nothing at" in err
    assert "'topic'" in err
