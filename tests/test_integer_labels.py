"""Labels that are integers stay integers, although gaps among them make floats of them."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from own_data import ROWS, call, points, write_config, write_csv, write_table

from mtbkd import DistilledClassifier, align, make_dataset, make_table
from mtbkd.app.config.run import load_config
from mtbkd.app.recipes import find_recipe
from mtbkd.types import InputError, positions

NAN = float("nan")
NAMES = ("2", "7", "10")
QUICK = {"hidden": (), "mode_steps": 50, "burn_in": 20, "draws": 5, "thinning": 2, "chains": 2}


def write_floats(folder, suffix):
    """Examples whose labels are what pandas makes of 2, 7, 10 and gaps."""
    x, label = points()
    y = np.array([2.0, 7.0, 10.0])[label]
    y[4::5] = NAN
    ids, path = [f"e{i}" for i in range(ROWS)], folder / f"examples{suffix}"
    if suffix == ".csv":
        rows = zip(ids, *x.T, ["" if np.isnan(v) else v for v in y], strict=True)
        return write_csv(path, ["id", "x1", "x2", "label"], [list(row) for row in rows])
    if suffix == ".npz":
        np.savez(path, id=np.array(ids), x1=x[:, 0], x2=x[:, 1], label=y)
        return path
    pq.write_table(pa.table({"id": ids, "x1": x[:, 0], "x2": x[:, 1], "label": y}), path)
    return path


@pytest.mark.parametrize("suffix", [".csv", ".npz", ".parquet"])
@pytest.mark.parametrize("columns", [["2.0", "7.0", "10.0"], ["10", "2", "7"]])
def test_a_file_of_floats(suffix, columns, tmp_path, monkeypatch, capsys):
    path = write_floats(tmp_path, suffix)
    write_table(tmp_path, columns)
    old = {"old": {"table": "old.csv", "kind": "probs"}}
    config = write_config(tmp_path, old, examples=path.name)
    task = find_recipe("own").load(load_config(config), tmp_path / "run" / "features")
    assert task.train.classes == NAMES
    assert task.train.n_labelled == 29
    code, _, err = call(monkeypatch, capsys, "teach", config, "--out", tmp_path / "run")
    assert (code, err) == (0, "")


def test_classes_that_are_named_keep_their_names(tmp_path, monkeypatch, capsys):
    """Versions are text: 1.0 is none but beside 1.1."""
    x, label = points()
    words = ["1.0", "1.1", "2.0"]
    rows = [[f"e{i}", *x[i], words[label[i]]] for i in range(ROWS)]
    path = write_csv(tmp_path / "examples.csv", ["id", "x1", "x2", "label"], rows)
    write_table(tmp_path, words)
    old = {"old": {"table": "old.csv", "kind": "probs"}}
    for classes in (None, ["2.0", "1.0", "1.1"]):
        config = load_config(write_config(tmp_path, old, classes=classes))
        task = find_recipe("own").load(config, tmp_path / "run" / "features")
        assert task.train.classes == tuple(classes or words)
    rows = [[*row[:3], {"1.1": ""}.get(row[3], row[3])] for row in rows]
    write_csv(path, ["id", "x1", "x2", "label"], rows)
    for classes in (words, ["1", "1.1", "2"]):  # named as text, and as numbers
        config = load_config(write_config(tmp_path, old, classes=classes))
        task = find_recipe("own").load(config, tmp_path / "run" / "features")
        assert (task.train.classes, task.train.n_labelled > 0) == (tuple(classes), True)


@pytest.mark.parametrize(
    "labels",
    [
        np.array([2.0, NAN, 7.0, 2.0]),
        np.array([[2.0], [NAN], [7.0], [2.0]]),
        np.array([2, None, 7, 2], dtype=object),
        [2, None, 7, 2],
        [2.0, NAN, 7.0, 2.0],
        torch.tensor([2.0, NAN, 7.0, 2.0]),
        np.array([2, -1, 7, 2]),
        ["2", "", "7.0", "2"],
    ],
)
def test_make_dataset(labels):
    data = make_dataset(np.eye(4), classes=np.array([2.0, 7.0]), labels=labels)
    assert data.classes == ("2", "7")
    assert data.labels.tolist() == [0, -1, 1, 0]


def test_numbers_are_indices_of_classes_that_are_text():
    data = make_dataset(np.eye(4), classes=["2", "7"], labels=np.array([0.0, NAN, 1.0, 0.0]))
    assert data.labels.tolist() == [0, -1, 1, 0]
    with pytest.raises(InputError, match="got 7.0 for id '2' .1 such.. .* give classes as numbers"):
        make_dataset(np.eye(4), classes=["2", "7"], labels=np.array([0.0, NAN, 7.0, 1.0]))
    with pytest.raises(InputError, match="got '3' for id '1' .1 such"):
        make_dataset(np.eye(4), classes=[2, 7], labels=np.array([2, 3, 7, -1]))


def test_minus_one_is_a_class_where_it_is_named():
    data = make_dataset(np.eye(3), classes=[-1, 1], labels=[-1.0, NAN, 1.0])
    assert (data.classes, data.labels.tolist()) == (("-1", "1"), [0, -1, 1])


@pytest.mark.parametrize("own", [["7.0", "2.0"], [7.0, 2.0], ["7", "2"], np.array([7, 2])])
@pytest.mark.parametrize("classes", [("2", "7"), ("2.0", "7.0")])
def test_columns_of_teachers_match_whole_numbers(own, classes):
    table = make_table("t", [[0.1, 0.9]], kind="probs", ids="a", classes=own)
    said = align([table], ("a",), classes)
    np.testing.assert_allclose(said.values.exp()[0, 0], [0.9, 0.1], rtol=1e-6)


def test_a_teacher_may_not_spell_one_class_twice():
    table = make_table("t", [[0.1, 0.2, 0.7]], kind="probs", ids="a", classes=["2", "2.0", "7"])
    with pytest.raises(InputError, match="lacks none and adds .'2.0'."):
        align([table], ("a",), ("2", "7"))


def test_class_maps_name_whole_numbers():
    mapped = {"2": "yes", 7: "no"}
    table = make_table(
        "t", [[0.1, 0.9]], kind="probs", ids="a", classes=["2.0", "7.0"], class_map=mapped
    )
    assert table.classes == ("yes", "no")


def test_a_name_is_found_as_what_it_is_first():
    assert positions(["2.0", "2"]) == {"2.0": 0, "2": 1}
    assert positions(["-1.0", "x.0"]) == {"-1.0": 0, "-1": 0, "x.0": 1}


@pytest.mark.parametrize(
    ("y", "kind"),
    [
        (np.array([2.0, 7.0, NAN] * 10), "i"),
        (np.array([2, 7, None] * 10, dtype=object), "i"),
        (np.array([2.0, 7.0, None] * 10, dtype=object), "i"),
        (np.array([2.0, 7.0, 2.0] * 10), "f"),  # no gaps: as scikit-learn has them
    ],
)
def test_estimators(y, kind):
    x = np.array([[-1.0], [1.0], [-1.0]] * 10)
    student = DistilledClassifier(**QUICK, random_state=0).fit(x, y)
    assert student.posterior_.classes == ("2", "7")
    assert student.classes_.dtype.kind == kind
    assert student.predict([[-1.0]]).dtype.kind == kind
