"""Whatever is wrong with a table, an alignment or a store: refused, and the message says where."""

import copy
import json
import re
import shutil
import tempfile
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mtbkd.files import sealed
from mtbkd.outputs.aligned import align, make_table, make_top_table
from mtbkd.outputs.store import load_outputs, save_outputs
from mtbkd.types import InputError

FAMILIES = ("classification", "multilabel", "regression")
KINDS = {
    "classification": ["logits", "probs", "log_probs"],
    "multilabel": ["logits", "probs"],
    "regression": ["mean"],
}
FILES = ("outputs.safetensors", "ids.parquet", "manifest.json")


def good(draw, family=None, n_rows=None):
    """Arguments of a table that is accepted."""
    family = family or draw(st.sampled_from(FAMILIES))
    kind = draw(st.sampled_from(KINDS[family]))
    n_rows, n_columns = n_rows or draw(st.integers(2, 6)), draw(st.integers(2, 5))
    generator = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    values = generator.normal(size=(n_rows, n_columns)) * 3
    values[0, 0] = -1.0
    if kind in ("probs", "log_probs"):
        values = np.exp(values - values.max(1, keepdims=True))
        values /= values.sum(1, keepdims=True)
    values = np.log(values) if kind == "log_probs" else values
    variance = generator.uniform(0.1, 2, values.shape) if family == "regression" else None
    return {
        "name": "ann",
        "values": values,
        "kind": kind,
        "ids": [f"row{i}" for i in range(n_rows)],
        "classes": [f"class{i}" for i in range(n_columns)],
        "family": family,
        "variance": variance,
        "class_map": {},
    }


@contextmanager
def refused(*words):
    with pytest.raises(InputError) as caught:
        yield
    for fault in caught.value.faults:
        assert re.fullmatch(r"Expected .*, but .*\. .*", fault, re.DOTALL), fault
    assert any(all(word in fault for word in words) for fault in caught.value.faults), (
        words,
        caught.value.faults,
    )


def break_table(draw, table):
    """Change one thing; return what the message must name."""
    n_rows, n_columns = table["values"].shape
    row, column = draw(st.integers(0, n_rows - 1)), draw(st.integers(0, n_columns - 1))
    key, name = table["ids"][row], table["classes"][column]
    faults = ["rows", "columns", "ids", "classes", "nan", "kind", "family", "text", "axes", "key"]
    faults += ["merge", "values" if table["kind"] not in ("logits", "mean") else "inf"]
    faults += ["variance"] if table["family"] == "regression" else ["no variance"]
    fault = draw(st.sampled_from(faults))
    table["values"] = values = table["values"].copy()
    if fault == "rows":
        table["ids"] = table["ids"][:-1] if draw(st.booleans()) else [*table["ids"], "more"]
        return ["ann", f"Expected {len(table['ids'])} rows"]
    if fault == "columns":
        table["values"] = np.delete(values, column, 1)
        return ["ann", f"and {n_columns - 1}"]
    if fault == "ids":
        table["ids"][row] = table["ids"][row - 1]
        return ["ann", repr(table["ids"][row]), "id"]
    if fault == "classes":
        table["classes"][column] = table["classes"][column - 1]
        return ["ann", repr(table["classes"][column])]
    if fault in ("nan", "inf"):
        values[row, column] = np.nan if fault == "nan" else draw(st.sampled_from([np.inf, -np.inf]))
        return ["ann", repr(key)]
    if fault == "values":
        worse = {"probs": [-0.2, 1.2, 1e6], "log_probs": [0.01, 1.0, 800.0]}[table["kind"]]
        values[row, column] = draw(st.sampled_from(worse))
        return ["ann", repr(key), *([repr(name)] if table["family"] == "multilabel" else [])]
    if fault in ("kind", "family"):
        table[fault] = draw(st.sampled_from(["", "prob", "LOGITS", "mse"]))
        return ["ann", repr(table[fault])]
    if fault == "text":
        table["values"] = values.astype(object)
        table["values"][row, column] = draw(st.sampled_from(["n/a", "", [1.0]]))
        return ["ann"]
    if fault == "axes":
        table["values"] = draw(st.sampled_from([values[0], values[None], 3.0]))
        return ["ann", "axes"]
    if fault == "key":
        table["class_map"] = {"other": name}
        return ["ann", "'other'"]
    if fault == "merge":
        table["class_map"] = {name: table["classes"][column - 1]}
        return ["ann", repr(name), repr(table["classes"][column - 1])]
    if fault == "variance":
        table["variance"][row, column] = draw(st.sampled_from([0.0, -1.0, np.nan, np.inf]))
        return ["ann", repr(key), repr(name)]
    table["variance"] = np.ones(n_columns)
    return ["ann", "variance"]


@settings(max_examples=100, deadline=None, derandomize=True)
@given(st.data())
def test_a_malformed_table_is_refused(data):
    table = good(data.draw)
    make_table(**table)
    words = break_table(data.draw, table)
    with refused(*words):
        make_table(**table)


@settings(max_examples=50, deadline=None, derandomize=True)
@given(st.data())
def test_a_malformed_top_table_is_refused(data):
    draw = data.draw
    n_rows, k = draw(st.integers(2, 6)), draw(st.integers(2, 3))
    generator = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    probs = generator.dirichlet([1.0] * 6, n_rows)
    kept = np.argsort(-probs, 1)[:, :k]
    values = np.take_along_axis(probs, kept, 1)
    tail = 1 - values.sum(1)
    ids, classes = [f"row{i}" for i in range(n_rows)], [f"class{i}" for i in range(6)]
    rest = {"kind": "probs", "ids": ids, "classes": classes}
    make_top_table("ann", values, kept, tail, **rest)
    row, column = draw(st.integers(0, n_rows - 1)), draw(st.integers(0, k - 1))
    faults = "tail sum negative nan twice class name width rows kind ids all".split()
    fault, words = draw(st.sampled_from(faults)), ["ann", repr(ids[row])]
    if fault == "tail":
        tail, words = None, ["tail mass of teacher 'ann'", "Give 1 - sum, or all classes."]
    elif fault == "sum":
        tail[row] += draw(st.sampled_from([0.01, 1.0, 1e9]))
    elif fault == "negative":
        values[row, column], tail[row] = -0.5, tail[row] + values[row, column] + 0.5
    elif fault == "nan":
        target = draw(st.sampled_from([values[row], tail[row : row + 1]]))
        target[0] = draw(st.sampled_from([np.nan, np.inf]))
    elif fault == "twice":
        kept[row, column] = kept[row, column - 1]
    elif fault == "class":
        kept[row, column] = draw(st.sampled_from([6, -2, 10**6]))
        words.append(str(kept[row, column]))
    elif fault == "name":
        kept = np.array(classes, dtype=object)[kept]
        kept[row, column] = "other"
        words.append("'other'")
    elif fault == "width":
        kept, words = kept[:, 1:], ["ann", str((n_rows, k - 1))]
    elif fault == "rows":
        rest["ids"], words = [*ids, "more"], ["ann", f"Expected {n_rows + 1} rows"]
    elif fault == "kind":
        rest["kind"], words = draw(st.sampled_from(["logits", "mean", "prob"])), ["ann", "kind"]
    elif fault == "ids":
        ids[row] = ids[row - 1]
        words = ["ann", repr(ids[row])]
    else:
        rest["classes"], words = classes[: k - 1], ["ann", f"Expected at most {k - 1} kept classes"]
    with refused(*words):
        make_top_table("ann", values, kept, tail, **rest)


@settings(max_examples=50, deadline=None, derandomize=True)
@given(st.data())
def test_a_malformed_alignment_is_refused(data):
    draw = data.draw
    given_ = good(draw)
    ids, classes = tuple(given_["ids"]), tuple(given_["classes"])
    first, second = make_table(**given_), make_table(**given_ | {"name": "bob"})
    align([first, second], ids, classes)
    row, column = draw(st.integers(0, len(ids) - 1)), draw(st.integers(0, len(classes) - 1))
    faults = "name family id absent class lacking top data".split()
    fault, how = draw(st.sampled_from(faults)), {}
    changed = copy.deepcopy(given_) | {"name": "bob"}
    if fault == "name":
        changed["name"], words = "ann", ["ann", "Rename one"]
    elif fault == "family":
        others = [f for f in FAMILIES if f != given_["family"]]
        changed = good(draw, draw(st.sampled_from(others))) | {"name": "bob"}
        words = ["ann", "bob", changed["family"], given_["family"]]
    elif fault == "id":
        changed["ids"][row], words = "other", ["bob", "'other'"]
    elif fault == "absent":
        changed |= {
            "ids": [key for key in ids if key != ids[row]],
            "values": np.delete(given_["values"], row, 0),
            "variance": None,
        }
        words = ["bob", f"{len(ids)} rows"]
    elif fault == "class":
        changed["class_map"], words = {classes[column]: "other"}, ["bob", "'other'"]
        changed["partial"] = draw(st.booleans())
    elif fault == "lacking":
        values = np.delete(given_["values"], column, 1)
        if given_["family"] == "classification" and given_["kind"] != "logits":
            values = np.full(values.shape, 1 / values.shape[1])
            values = np.log(values) if given_["kind"] == "log_probs" else values
        left = [c for c in classes if c != classes[column]]
        changed |= {"values": values, "classes": left, "variance": None}
        words = ["bob", repr(classes[column])]
    elif fault == "top":
        wrong = [0, -1, len(classes) + 1, 1.0, True]
        how = {"top": draw(st.sampled_from(wrong))}
        words = ["top", str(how["top"])]
    else:
        ids, words = (*ids[:-1], ids[0]), [repr(ids[0])]
    with refused(*words):
        align([first, make_table(**changed)], ids, classes, **how)


IDS, CLASSES = ("p", "q"), ("x", "y")
LABELS = {"family": "multilabel", "kind": "probs", "ids": IDS, "classes": CLASSES}
TARGETS = LABELS | {"family": "regression", "kind": "mean"}
NUMBERS = [[0.5, 0.2], [0.1, 0.9]]
TOP = {
    "kept": [[0, 1], [1, 0]],
    "tail": [0.0, 0.0],
    "kind": "probs",
    "ids": IDS,
    "classes": CLASSES,
}
HALVES = [[0.5, 0.5], [0.5, 0.5]]
MESSAGES = {
    "no probability": (
        lambda: make_table("ann", [[0.5, 1.2], [0.1, -0.9]], **LABELS),
        "Expected probs of teacher 'ann' between 0 and 1, but got 1.2 for 'y' of id 'p' (2 such). "
        "Correct them, or declare kind='logits' if they are log-odds.",
    ),
    "no log-odds": (
        lambda: make_table("ann", HALVES * 25, **LABELS | {"kind": "logits", "ids": range(50)}),
        "Expected log-odds from teacher 'ann', but all of its 100 numbers are between 0 and 1. "
        "Declare kind='probs'.",
    ),
    "variance": (
        lambda: make_table("ann", NUMBERS, variance=[[1, 1], [0, -1]], **TARGETS),
        "Expected variances of teacher 'ann' above zero and finite, but got 0 for 'x' of id 'q' (2 "
        "such). Correct them, or give variance=None if it has none.",
    ),
    "shape of the variance": (
        lambda: make_table("ann", NUMBERS, variance=[1, 1, 1], **TARGETS),
        "Expected the variance of teacher 'ann' as one number, one for each of 2 targets, or of "
        "shape (2, 2), but got (3,). Give one of these.",
    ),
    "large mean": (
        lambda: make_table("ann", [[0, 0], [1, 1e39]], **TARGETS),
        "Expected means of teacher 'ann' that single precision holds, but got 1e+39 for 'y' of id "
        "'q'. Correct it, or change the target's unit.",
    ),
    "variance of labels": (
        lambda: make_table("ann", NUMBERS, variance=1.0, **LABELS),
        "Expected a variance of regression teachers only, but got one of teacher 'ann', whose "
        "family is multilabel. Leave it out.",
    ),
    "family": (
        lambda: make_table("ann", NUMBERS, **LABELS | {"family": "ranking"}),
        "Expected the family of teacher 'ann' among classification, multilabel, regression, but "
        "got 'ranking'. Declare one of them.",
    ),
    "kind of a family": (
        lambda: make_table("ann", NUMBERS, **TARGETS | {"kind": "probs"}),
        "Expected the kind of teacher 'ann''s outputs among mean, but got 'probs'. Declare one",
    ),
    "tail of nothing": (
        lambda: make_top_table("ann", [[0.5, 0.5], [0.4, 0.4]], **TOP | {"tail": [0, 0.2]}),
        "Expected no tail from teacher 'ann' where all 2 classes are kept, but got 0.2 for id 'q' "
        "(1 such rows). Name the missing classes.",
    ),
    "kept twice": (
        lambda: make_top_table("ann", HALVES, **TOP | {"kept": [[0, 1], [1, 1]]}),
        "Expected different kept classes from teacher 'ann', but got one more than once for id 'q'",
    ),
    "ragged": (
        lambda: make_top_table("ann", HALVES, **TOP | {"kept": [[0, 1], [1]]}),
        "Expected kept classes of teacher 'ann' as a table, but got: ",
    ),
    "two families": (
        lambda: align(
            [make_table("ann", NUMBERS, **LABELS), make_table("bob", NUMBERS, **TARGETS)],
            IDS,
            CLASSES,
        ),
        "Expected teachers of one family, but got multilabel of teacher 'ann' and regression of "
        "teacher 'bob'. Distil them apart.",
    ),
    "top of labels": (
        lambda: align([make_table("ann", NUMBERS, **LABELS)], IDS, CLASSES, top=1),
        "Expected top of classification teachers only, but got 1 for multilabel. Leave it out.",
    ),
    "missing": (
        lambda: align([make_table("ann", NUMBERS, **LABELS)], IDS, CLASSES, missing="no"),
        "Expected missing to be 'error' or 'mask', but got 'no'. Choose one of them.",
    ),
}


@pytest.mark.parametrize("fault", MESSAGES)
def test_each_fault_of_these_has_its_message(fault):
    call, message = MESSAGES[fault]
    with pytest.raises(InputError, match=re.escape(message)) as caught:
        call()
    assert len(caught.value.faults) == 1


MANIFEST = ("family", "names", "classes", "held_out", "dtype", "sha256", "own_sha256")


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    folder = tmp_path_factory.mktemp("store")
    probs = np.random.default_rng(0).dirichlet([1.0] * 3, 7)
    ids, classes = tuple(f"row{i}" for i in range(7)), ("Ä", "dog", "cow")
    tables = [
        make_table("ann", probs, kind="probs", ids=ids, classes=classes),
        make_table("bob", probs, kind="probs", ids=ids, classes=classes),
    ]
    save_outputs(folder, align(tables, ids, classes, top=2))
    return folder


@settings(max_examples=100, deadline=None, derandomize=True)
@given(data=st.data())
def test_a_damaged_store_is_refused(store, data):
    draw = data.draw
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "store"
        shutil.copytree(store, folder)
        name = draw(st.sampled_from(FILES))
        path = folder / name
        content = bytearray(path.read_bytes())
        fault = draw(st.sampled_from(["bit", "bit", "cut", "more", "gone", "foreign", "manifest"]))
        if fault == "bit":
            content[draw(st.integers(0, len(content) - 1))] ^= 1 << draw(st.integers(0, 7))
        elif fault == "cut":
            content = content[: draw(st.integers(0, len(content) - 1))]
        elif fault == "more":
            content += draw(st.binary(min_size=1, max_size=9))
        elif fault == "foreign":
            texts = ["{}", "[]", "null", '"x"', "1e999", '{"family": "classification"}', "\x00"]
            content = bytearray(draw(st.sampled_from(texts)).encode())
        elif fault == "manifest":
            name, path = "manifest.json", folder / "manifest.json"
            manifest = json.loads(path.read_bytes())
            key = draw(st.sampled_from(MANIFEST))
            wrong = st.sampled_from([None, 3, "other", [], [1], {}, {"a": 1}, 0.5])
            if draw(st.booleans()):
                del manifest[key]
            else:
                manifest[key] = draw(wrong)
            if draw(st.booleans()) and key != "own_sha256":
                manifest.pop("own_sha256")
                content = sealed(manifest)
            else:
                content = json.dumps(manifest, indent=1).encode()
        path.unlink() if fault == "gone" else path.write_bytes(content)
        with refused(str(folder), name):
            load_outputs(folder)


def test_every_bit_of_the_manifest_counts(store, tmp_path):
    folder = tmp_path / "store"
    shutil.copytree(store, folder)
    content = (folder / "manifest.json").read_bytes()
    for position in range(8 * len(content)):
        changed = bytearray(content)
        changed[position // 8] ^= 1 << position % 8
        (folder / "manifest.json").write_bytes(changed)
        with pytest.raises(InputError):
            load_outputs(folder)


def test_a_partial_or_covering_teacher_beside_the_most_probable_classes_is_refused():
    probs, ids = np.full((2, 2), 0.5), ("a", "b")
    settings = {"kind": "probs", "ids": ids, "classes": ("x", "y")}
    few = make_top_table("ann", [[0.5], [0.5]], [["x"], ["z"]], [0.5, 0.5], kind="probs", ids=ids,
                         classes=("x", "y", "z"))  # fmt: skip
    partial = make_table("bob", probs, partial=True, **settings)
    covering = make_table("cid", probs, class_map={"y": ["y", "z"]}, **settings)
    with pytest.raises(InputError) as caught:
        align([few, partial, covering], ids, ("x", "y", "z"))
    for fault, name in zip(caught.value.faults, ("bob", "cid"), strict=True):
        assert fault.startswith("Expected teachers that tell all classes apart where only the most")
        assert f"but got teacher '{name}', which knows only some or has several as one." in fault
