"""The whole library from Python, and folders that Python and the commands read alike."""

import json
import sys

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch
from own_data import call, write_config, write_examples, write_table
from torch import nn

import mtbkd
from mtbkd.app import cli
from mtbkd.app.config.run import build_config
from mtbkd.app.run.new_inputs import predict_run
from mtbkd.explain.nearest import nearest
from mtbkd.explain.outside import Seen
from mtbkd.outputs.teacher_outputs import joined_outputs

CLASSES = ["low", "high"]
IDS = tuple(f"e{i}" for i in range(160))
X = np.random.default_rng(0).normal(size=(160, 3)).astype(np.float32)
Y = (X[:, 0] + 0.3 * np.random.default_rng(1).normal(size=160) > 0).astype(int)
EVERY = mtbkd.make_dataset(X, labels=Y, classes=CLASSES, ids=IDS)
TRAIN, CALIBRATION, TEST = (EVERY.subset(range(*part)) for part in ((80,), (80, 120), (120, 160)))
SHORT = {
    "modes": mtbkd.MapSettings(epochs=5),
    "sampler": mtbkd.SamplerSettings(engine="sghmc", burn_in=50, draws=20, thinning=2),
    "chains": 2,
}


def network():
    return nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))


def outputs():
    logits = np.column_stack([-2 * X[:, 0], 2 * X[:, 0]])
    tables = [
        mtbkd.make_table(name, scale * logits, kind="logits", ids=IDS, classes=CLASSES)
        for name, scale in (("sure", 2.0), ("unsure", 0.5))
    ]
    return mtbkd.align(tables, IDS, tuple(CLASSES))


@pytest.fixture(scope="module")
def posterior():
    known = outputs().at(TRAIN.ids + CALIBRATION.ids)
    return mtbkd.distill(
        network(), TRAIN, known, calibration=CALIBRATION, learn_calibration=True, **SHORT
    )


@pytest.fixture(scope="module")
def saved(posterior, tmp_path_factory):
    posterior.evaluate(TEST, outputs())
    return posterior.save(tmp_path_factory.mktemp("saved") / "run")


def test_what_is_saved_and_loaded_answers_with_the_same_bytes(posterior, saved):
    again = mtbkd.Posterior.load(saved, network())
    np.testing.assert_array_equal(again.predict(X).probs, posterior.predict(X).probs)
    pages = [one.explain(X[:9]) for one in (posterior, again)]
    assert pages[0].neighbours == pages[1].neighbours
    assert pages[0].causes.flags == pages[1].causes.flags
    np.testing.assert_array_equal(pages[0].causes.sets, pages[1].causes.sets)


def test_frames_answer_as_arrays_do(posterior):
    frame = pd.DataFrame(X, columns=["a", "b", "c"])
    np.testing.assert_array_equal(posterior.predict(frame).probs, posterior.predict(X).probs)


def test_commands_read_the_folder_given_the_network(posterior, saved, tmp_path):
    np.save(tmp_path / "new.npy", X[:7])
    recipe = posterior.learned.recipe
    found = predict_run(saved, tmp_path / "new.npy", recipe=recipe)
    np.testing.assert_allclose(found.predictive.probs, posterior.predict(X[:7]).probs, rtol=1e-6)


def test_the_command_line_is_given_the_network(posterior, saved, tmp_path, monkeypatch, capsys):
    np.save(tmp_path / "new.npy", X[:7])
    (tmp_path / "mine.py").write_text(
        "from torch import nn\n"
        "def net(shape, n_outputs):\n"
        "    return nn.Sequential(nn.Linear(*shape, 4), nn.Tanh(), nn.Linear(4, n_outputs))\n"
    )
    monkeypatch.chdir(tmp_path)
    told = call(monkeypatch, capsys, "predict", saved, "new.npy", "--out", "a.parquet")
    assert told[0]
    assert "--network" in told[2]
    network = ("--network", "mine:net")
    assert call(monkeypatch, capsys, "predict", saved, "new.npy", "--out", "a.parquet", *network)[
        ::2
    ] == (0, "")
    found = pq.read_table(tmp_path / "a.parquet")["prob.high"].to_numpy()
    np.testing.assert_allclose(found, posterior.predict(X[:7]).probs[:, 1], rtol=1e-5)
    assert call(monkeypatch, capsys, "evaluate", saved, *network)[0] == 0
    assert call(monkeypatch, capsys, "report", saved)[0] == 0


def test_what_was_sampled_is_read_back(tmp_path):
    known, settings = outputs(), SHORT | {"sampled": "2.*"}
    some = mtbkd.distill(network(), TRAIN, known, calibration=CALIBRATION, **settings)
    again = mtbkd.Posterior.load(some.save(tmp_path / "run"), network())
    assert again.student.n_parameters == 10
    np.testing.assert_array_equal(again.predict(X).probs, some.predict(X).probs)


def test_no_other_run_has_a_network_that_python_gave():
    with pytest.raises(mtbkd.InputError, match="that Python gave"):
        build_config({"recipe": "digits", "student": {"hidden": [], "network": "given"}})


def test_metrics_are_those_of_the_answers(posterior, saved):
    found = json.loads((saved / "metrics.json").read_text())
    probs = posterior.predict(TEST.inputs).probs
    labels = TEST.labels.numpy()
    assert found["student"]["accuracy"] == np.mean(probs.argmax(1) == labels)
    nll = -np.log(probs[np.arange(len(labels)), labels]).mean()
    assert found["student"]["nll"] == pytest.approx(nll, rel=1e-6)
    assert set(found["teachers"]) == {"sure", "unsure"}


def test_the_report_is_a_page_with_a_verdict(posterior, saved, tmp_path):
    page = posterior.report(tmp_path / "deep" / "page.html").read_text()
    assert page.startswith("<!doctype html>")
    assert 'id="verdict"' in page
    page = mtbkd.Posterior.load(saved, network()).report(tmp_path / "again.html").read_text()
    assert 'id="verdict"' in page


def test_an_example_is_its_own_neighbour(posterior):
    found = posterior.explain(TRAIN.inputs[5:8], n=3)
    assert [each[0] for each in found.neighbours] == ["e5", "e6", "e7"]
    assert found.distances.shape == (3, 3)
    assert (np.diff(found.distances) >= 0).all()


def test_the_nearest_are_found():
    known = Seen(torch.zeros(4, 1), torch.tensor([[0.0], [1.0], [5.0], [9.0]]))
    rows, distances = nearest(Seen(torch.zeros(1, 1), torch.tensor([[4.0]])), known, 2)
    assert rows.tolist() == [[2, 1]]
    torch.testing.assert_close(distances, torch.tensor([[1.0, 3.0]]))


def test_raw_examples_need_a_reader(posterior):
    with pytest.raises(mtbkd.InputError, match=r"posterior\.reading"):
        posterior.predict(["a text", "another"])
    reads = posterior.reading(lambda texts: torch.tensor([[len(t), 0.0, 0.0] for t in texts]))
    np.testing.assert_array_equal(
        reads.predict(["abc", ""]).probs, posterior.predict([[3.0, 0, 0], [0, 0, 0]]).probs
    )


@pytest.mark.parametrize("act", ["report", "diagnose"])
def test_what_was_not_evaluated_is_told(act, tmp_path):
    fresh = mtbkd.distill(network(), TRAIN, outputs(), calibration=CALIBRATION, **SHORT)
    with pytest.raises(mtbkd.InputError, match="evaluate"):
        getattr(fresh, act)(*([tmp_path / "x"] if act == "report" else []))


def test_a_posterior_of_labels_alone_says_what_it_lacks():
    alone = mtbkd.distill(network(), TRAIN, None, **SHORT)
    with pytest.raises(mtbkd.InputError, match="with teachers"):
        alone.evaluate(TEST)


def test_a_run_directory_holds_no_network(saved):
    with pytest.raises(mtbkd.InputError, match="holds none"):
        mtbkd.Posterior.load(saved)


def test_it_is_not_written_over_something_else(posterior, tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(mtbkd.InputError, match="new or empty"):
        posterior.save(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["mine.txt"]


def test_outputs_are_joined_by_their_teachers():
    whole = outputs()
    both = joined_outputs(whole.at(IDS[:50]), whole.at(IDS[50:]))
    assert both.ids == IDS
    torch.testing.assert_close(both.values, whole.values)
    with pytest.raises(mtbkd.InputError, match="was there before"):
        joined_outputs(whole, whole.at(IDS[:3]))


def test_a_run_of_the_command_line_is_read_and_judged_in_python(tmp_path, monkeypatch):
    write_examples(tmp_path)
    write_table(tmp_path)
    path = write_config(tmp_path, {"old": {"table": "old.csv", "kind": "probs"}})
    out = tmp_path / "run"
    monkeypatch.setattr(sys, "argv", ["mtbkd", "run", str(path), "--out", str(out)])
    with pytest.raises(SystemExit) as end:
        cli.main()
    assert not end.value.code
    posterior = mtbkd.Posterior.load(out)
    task = posterior.learned.task
    found = posterior.evaluate(task.test)
    before = json.loads((out / "metrics.json").read_text())
    assert found["student"] == before["student"]
    assert posterior.explain(task.test.inputs).causes.flags
