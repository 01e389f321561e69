"""Frames and series of pandas and polars stand wherever arrays do, and their columns have names."""

import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from mtbkd import DistilledClassifier, DistilledRegressor, make_dataset, make_table
from mtbkd.teachers.base import as_numbers, from_callable
from mtbkd.types import InputError

QUICK = {
    "hidden": (), "mode_steps": 30, "burn_in": 10, "draws": 5, "thinning": 1, "chains": 2,
    "random_state": 0, "power": 1.0,
}  # fmt: skip
X = np.random.default_rng(0).normal(size=(40, 3))
Y = (X[:, 0] > 0).astype(int)
GAPS = [None if i % 5 == 0 else int(y) for i, y in enumerate(Y)]
PROBS = np.column_stack([1.0 - Y, Y])


@pytest.fixture(params=["pandas", "pandas nullable", "polars"])
def kind(request):
    """How each library makes frames and series."""
    library = pytest.importorskip(request.param.split()[0])
    if request.param == "pandas nullable":
        return SimpleNamespace(
            name="pandas",
            frame=lambda columns: library.DataFrame(columns).convert_dtypes(),
            series=lambda values: library.Series(values, name="y").convert_dtypes(),
        )
    series = (lambda v: library.Series("y", v)) if request.param == "polars" else library.Series
    return SimpleNamespace(name=request.param, frame=library.DataFrame, series=series)


def named(array, names):
    return dict(zip(names, array.T, strict=True))


def test_data_sets(kind):
    data = make_dataset(
        kind.frame(named(X, "abc")),
        labels=kind.series(GAPS),
        classes=kind.series(["no", "yes"]),
        ids=kind.series([f"e{i}" for i in range(40)]),
    )
    assert data.ids[:2] == ("e0", "e1")
    np.testing.assert_array_equal(data.inputs, X.astype(np.float32))
    assert data.labels.tolist() == [-1 if y is None else y for y in GAPS]


def test_data_sets_of_mixed_columns(kind):
    frame = kind.frame({"number": [1.5, 2.5], "whole": [1, 2], "truth": [True, False]})
    data = make_dataset(frame, classes=["no", "yes"])
    assert data.inputs.tolist() == [[1.5, 1.0, 1.0], [2.5, 2.0, 0.0]]
    with pytest.raises(InputError, match="finite inputs in the data set, but got NaN .* id '1'"):
        make_dataset(kind.frame({"a": [1, None, 3], "b": [1.0, 2.0, 3.0]}), classes=["0", "1"])
    with pytest.raises(InputError, match="Expected inputs of the data set as numbers, but got: "):
        make_dataset(kind.frame({"a": [1, 2], "b": ["x", "y"]}), classes=["0", "1"])


@pytest.mark.parametrize("family", ["multilabel", "regression"])
def test_labels_of_several_columns_are_taken_by_name(family, kind):
    labels = kind.frame({"second": GAPS, "first": Y.tolist()})
    data = make_dataset(X, labels=labels, classes=["first", "second"], family=family)
    np.testing.assert_array_equal(data.labels[:, 0], Y)
    np.testing.assert_array_equal(data.labels[:, 1], np.array(GAPS, dtype=float))
    other = make_dataset(X, labels=labels, classes=["one", "two"], family=family)
    np.testing.assert_array_equal(other.labels[:, 1], Y)


def test_tables_are_taken_by_name(kind):
    frame = kind.frame({"yes": PROBS[:, 1], "no": PROBS[:, 0]})
    wanted = {"kind": "probs", "ids": range(40), "classes": ["no", "yes"]}
    table = make_table("t", frame, **wanted)
    assert table.values.equal(make_table("t", PROBS, **wanted).values)
    spread = kind.frame({"b": X[:, 1] ** 2 + 1, "a": X[:, 0] ** 2 + 1})
    how = {"kind": "mean", "ids": range(40), "classes": ["a", "b"], "family": "regression"}
    table = make_table("t", kind.frame({"b": X[:, 1], "a": X[:, 0]}), variance=spread, **how)
    array = make_table("t", X[:, :2], variance=X[:, :2] ** 2 + 1, **how)
    assert table.values.equal(array.values)


def test_what_a_teacher_answers_is_taken_by_name(kind):
    frame = kind.frame({"yes": [0.9, 0.8], "no": [0.1, 0.2]})
    teacher = from_callable("t", lambda _: frame, kind="probs", classes=["no", "yes"])
    values, _ = as_numbers(teacher, teacher.predict(None), "batch 0")
    np.testing.assert_allclose(values, [[0.1, 0.9], [0.2, 0.8]])


def test_a_classifier_answers_as_it_does_for_arrays(kind):
    frame = kind.frame(named(X, "abc"))
    swapped = kind.frame({"1": PROBS[:, 1], "0": PROBS[:, 0]})
    own = LogisticRegression().fit(frame, Y)
    teachers = {"frame": swapped, "function": lambda x: swapped, "sklearn": own}
    found = DistilledClassifier(**QUICK).fit(frame, kind.series(GAPS), teachers)
    assert found.feature_names_in_.tolist() == list("abc")
    teachers = {"frame": PROBS, "function": lambda x: PROBS, "sklearn": own.fit(X, Y)}
    wanted = DistilledClassifier(**QUICK).fit(X, np.array(GAPS, dtype=float), teachers)
    probs = wanted.predict_proba(X)
    np.testing.assert_allclose(found.predict_proba(frame), probs, rtol=1e-6)
    assert found.classes_.tolist() == [0, 1]
    scaled = kind.frame(named((X - wanted.input_mean_) / wanted.input_scale_, "abc"))
    np.testing.assert_allclose(found.posterior_.predict(scaled).probs, probs, atol=1e-5)
    few = found.posterior_.thin(3, scaled)
    assert few.samples.n_chains * few.samples.n_draws == 3


def test_a_regressor_names_its_targets(kind):
    frame, numbers = kind.frame(named(X, "abc")), np.where(Y == 0, np.nan, X[:, 1])
    one = DistilledRegressor(**QUICK).fit(frame, kind.series(numbers))
    two = DistilledRegressor(**QUICK).fit(frame, kind.frame({"u": numbers, "v": X[:, 2]}))
    assert (one.posterior_.classes, two.posterior_.classes) == (("y",), ("u", "v"))
    wanted = DistilledRegressor(**QUICK).fit(X, numbers)
    np.testing.assert_allclose(one.predict(frame), wanted.predict(X), rtol=1e-6)


def test_a_pipeline_of_frames(kind):
    frame = kind.frame(named(X, "abc"))
    scaler = StandardScaler().set_output(transform=kind.name)
    model = make_pipeline(scaler, DistilledClassifier(**QUICK)).fit(frame, Y)
    assert model[-1].feature_names_in_.tolist() == list("abc")
    assert model.score(frame, Y) > 0.8


def test_a_series_without_a_name():
    polars = pytest.importorskip("polars")
    student = DistilledRegressor(**QUICK).fit(X, polars.Series(X[:, 0]))
    assert student.posterior_.classes == ("y",)


def test_neither_library_is_imported_for_arrays():
    program = """
import sys, numpy as np
from mtbkd import make_dataset, make_table
make_dataset(np.eye(2), classes=["a", "b"], labels=[0, None])
make_table("t", np.eye(2), kind="probs", ids="xy", classes="ab")
print({"pandas", "polars", "narwhals"} & sys.modules.keys())
"""
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (found.stdout, found.stderr) == ("set()\n", "")
