"""What may be wrong with one's own examples, teachers and configuration, and how it is said."""

import json
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from own_data import (
    CLASSES,
    NEAREST,
    ROWS,
    call,
    points,
    write_config,
    write_csv,
    write_examples,
    write_module,
    write_table,
)
from safetensors.torch import save_file

from mtbkd.app.config.own_teachers import TableTeacher
from mtbkd.app.config.run import load_config
from mtbkd.app.recipes.own.columns import classes_of, labels_of, read_own

OLD = {"table": "old.csv", "kind": "probs"}


@pytest.fixture
def folder(tmp_path) -> Path:
    write_examples(tmp_path)
    write_table(tmp_path)
    return tmp_path


@pytest.fixture
def refused(folder, monkeypatch, capsys):
    """Teaches with the folder's configuration, which must be refused; returns the messages."""

    def teach(path: Path, *more: object) -> list[str]:
        code, out, err = call(monkeypatch, capsys, "teach", path, "--out", folder / "run", *more)
        assert (code, out) == (2, "")
        assert "Traceback" not in err
        left = [p.name for p in (folder / "run").rglob("*") if p.is_file()]
        assert left in ([], ["config.yaml"])
        lines = err.strip().splitlines()
        assert all(line.startswith("mtbkd: ") for line in lines)
        return [line.removeprefix("mtbkd: ") for line in lines]

    return teach


@pytest.mark.parametrize(
    ("spoilt", "message"),
    [
        ({"id_3": "e2"}, "Expected every id once in EXAMPLES, but got 'e2' more than once"),
        ({"id_3": ""}, "Expected an id in every row of EXAMPLES, but row 4 has none."),
        (
            {"x1_3": ""},
            "finite number in column 'x1' of EXAMPLES, but got NaN or an empty cell for",
        ),
        ({"x2_7": "nan"}, "NaN or an empty cell for id 'e7' (1 such)"),
        ({"x2_7": "inf"}, "but got infinity for id 'e7' (1 such)"),
        (
            {"x1_3": "three"},
            "Expected numbers in column 'x1' of EXAMPLES, but got 'three' for id 'e3'",
        ),
        (
            {"label_3": "d"},
            "Expected labels among the 3 classes of the data set EXAMPLES, but got 'd'",
        ),
    ],
)
def test_examples(spoilt, message, folder, refused):
    path = write_examples(folder, **spoilt)
    own: dict[str, object] = {"features": ["x1", "x2"], "classes": CLASSES}
    (found,) = refused(write_config(folder, {"old": OLD}, **own))
    assert message.replace("EXAMPLES", str(path)) in found


def test_faults_of_several_columns_are_told_at_once(folder, refused):
    write_examples(folder, x1_3="", x2_5="word")
    own: dict[str, object] = {"features": ["x1", "x2", "x3"]}
    found = refused(write_config(folder, {"old": OLD}, labels="class", **own))
    assert len(found) == 4
    assert "'x1'" in found[0]
    assert "'word' for id 'e5'" in found[1]
    assert f"Expected a column 'x3' in {folder / 'examples.csv'}, but got id, x1, x2" in found[2]
    assert "Expected a column 'class'" in found[3]


READS = {"factory": "nowhere:f", "kind": "probs"}
MISTYPED = {
    "id": ({"id": "ids"}, {"ids": "id"}),
    "labels": ({"labels": "Lable"}, {"Lable": "label"}),
    "features": ({"features": ["x1", "X-2", "xx1"]}, {"X-2": "x2", "xx1": "x1"}),
    "split": ({"split": "spilt"}, {"spilt": "split"}),
    "group": ({"group": "GROUPS"}, {"GROUPS": "group"}),
    "text": ({"teachers": {"f": READS | {"reads": "txt"}}}, {"txt": "text"}),
    "numbers": ({"teachers": {"f": READS | {"reads": ["x1", "x22"]}}}, {"x22": "x2"}),
    "ids of a table": ({"teachers": {"t": OLD | {"id": "idd"}}}, {"idd": "id"}),
    "several": (
        {"labels": "labe", "split": "splt", "teachers": {"f": READS | {"reads": "splt"}}},
        {"labe": "label", "splt": "split"},
    ),
}


@pytest.mark.parametrize("where", MISTYPED)
def test_a_mistyped_column_is_told_the_nearest_name(where, folder, refused):
    own, names = MISTYPED[where]
    rows = [[f"e{i}", 1, 2, CLASSES[i % 3], "train", i, f"word{i}"] for i in range(ROWS)]
    header = ["id", "x1", "x2", "label", "split", "group", "text"]
    write_csv(folder / "examples.csv", header, rows)
    config = write_config(folder, **({"teachers": {"old": OLD}} | own))
    found = refused(config)
    assert len(found) == len(names)
    for told, (name, near) in zip(found, names.items(), strict=True):
        assert f"Expected a column {name!r} " in told
        assert told.endswith(f" Did you mean {near!r}?")


@pytest.mark.parametrize("labelled", [True, False])
def test_splits(labelled, folder, refused):
    x, label = points()
    rows = [
        [f"e{i}", *x[i].tolist(), "" if i == 9 and not labelled else CLASSES[label[i]], "train"]
        for i in range(ROWS)
    ]
    rows[8][-1], rows[9][-1], rows[7][-1] = "calibration", "test", "exam" if labelled else "train"
    write_csv(folder / "examples.csv", ["id", "x1", "x2", "label", "part"], rows)
    (found,) = refused(write_config(folder, {"old": OLD}, split="part"))
    if labelled:
        assert "Expected train, calibration, test in column 'part'" in found
        assert "but got 'exam' for id 'e7' (1 such)" in found
    else:
        assert "Expected a label of every example of the split test" in found
        assert "for id 'e9'" in found


@pytest.mark.parametrize("value", ["2", "0.5", "-1"])
def test_labels_that_are_neither_0_nor_1(value, folder, refused):
    rows = [[f"e{i}", 0.1 * i, i % 2, 1 - i % 2] for i in range(ROWS)]
    rows[4][2] = value
    write_csv(folder / "examples.csv", ["id", "x", "t1", "t2"], rows)
    path = write_config(folder, {"old": OLD}, labels=["t1", "t2"], family="multilabel")
    (found,) = refused(path)
    assert "Expected labels of 0 or 1 in the data set" in found
    assert f"but got {value} for 't1' of id 'e4' (1 such)" in found


def test_tables(folder, refused):
    write_table(folder, ["a", "b", "z"])
    found = refused(write_config(folder, {"old": OLD}))
    assert "'old' to know the classes a, b, c, but it lacks ['c'] and adds ['z']" in found[0]
    merging = OLD | {"class_map": {"z": "b"}, "partial": True}
    found = refused(write_config(folder, {"old": merging}))
    assert "merge" in found[0]
    assert "'old'" in found[0]
    write_table(folder, id_4="e3")
    found = refused(write_config(folder, {"old": OLD}))
    table = folder / "old.csv"
    assert f"Expected every id once in {table}, but got 'e3' more than once" in found[0]
    write_table(folder, id_4="stranger")
    found = refused(write_config(folder, {"old": OLD}))
    assert "Expected every example from teacher 'old', but id 'e4' is missing (1 such)" in "".join(
        found
    )
    assert "ids of the data from teacher 'old', but got 'stranger'" in "".join(found)
    found = refused(write_config(folder, {"old": OLD | {"table": "lost.csv"}}))
    assert f"Expected a teacher's outputs in {folder / 'lost.csv'}" in found[0]


def test_a_table_of_other_examples_too_is_told_once(folder, monkeypatch, capsys):
    rows = [f"other{i},0.2,0.3,0.5" for i in range(3)]
    with write_table(folder).open("a") as file:
        file.write("\n".join(rows) + "\n")
    told = "3 of 63 rows of teacher 'old' are not used, as the data have no such ids: 'other0' is"
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        path = write_config(folder, {"old": OLD})
        code, _, err = call(monkeypatch, capsys, "teach", path, "--out", folder / "run")
    assert (code, err) == (0, f"mtbkd: {told} the first.\n")


def test_faults_of_all_teachers_are_told_at_once(folder, refused):
    write_module(folder, "several_faults", NEAREST)
    teachers = {
        "old": OLD | {"table": "lost.csv"},
        "one": {"factory": "several_faults:nothing"},
        "two": {"factory": "several_faults:nearest", "class_map": {"a": "q"}},
    }
    found = refused(write_config(folder, teachers))
    assert len(found) == 3
    assert "lost.csv" in found[0]
    assert "several_faults:nothing" in found[1]
    assert (
        "teacher 'two' to know the classes a, b, c, but it lacks ['a'] and adds ['q']" in found[2]
    )


def test_the_most_probable_classes_need_their_tail(folder, refused):
    ids = json.dumps([f"e{i}" for i in range(ROWS)])
    tensors = {
        "values": torch.full((ROWS, 2), 0.4),
        "kept": torch.tensor([[0, 1]]).repeat(ROWS, 1),
    }
    path = folder / "top.safetensors"
    save_file(tensors, path, {"ids": ids, "classes": json.dumps(CLASSES)})
    (found,) = refused(write_config(folder, {"top": OLD | {"table": path.name}}))
    assert "Expected the tail mass of teacher 'top'" in found
    save_file(
        tensors | {"tail": torch.full((ROWS,), 0.2)},
        path,
        {"ids": ids, "classes": json.dumps(CLASSES)},
    )
    merging = OLD | {"table": path.name, "class_map": {"a": "b"}}
    (found,) = refused(write_config(folder, {"top": merging}))
    assert "which gives its most probable classes only" in found


@pytest.mark.parametrize("variance", [-1.0, 0.0, [0.5, 1.0]])
def test_variances(variance, folder, refused):
    write_csv(folder / "examples.csv", ["id", "x", "y"], [[f"e{i}", i, i] for i in range(ROWS)])
    write_csv(folder / "old.csv", ["id", "y"], [[f"e{i}", i] for i in range(ROWS)])
    old = {"table": "old.csv", "kind": "mean", "variance": variance}
    (found,) = refused(write_config(folder, {"old": old}, labels="y", family="regression"))
    assert "variance" in found
    assert "'old'" in found
    write_csv(
        folder / "old.csv", ["id", "y", "variance.y"], [[f"e{i}", i, -1] for i in range(ROWS)]
    )
    old = {"table": "old.csv", "kind": "mean"}
    (found,) = refused(write_config(folder, {"old": old}, labels="y", family="regression"))
    assert "Expected variances of teacher 'old' above zero and finite, but got -1" in found


FACTORIES = (
    NEAREST
    + """
import sys

def raises():
    raise RuntimeError("out of coffee")

def leaves():
    sys.exit(7)

def nonsense():
    return 42

def nothing():
    return None

def undeclared():
    return lambda x: x

def numbers():
    return from_callable("n", lambda x: x[:, :1], kind="mean", classes=["a"], family="regression")
"""
)


@pytest.mark.parametrize(
    ("target", "message"),
    [
        (
            "no_such_module:f",
            "Expected to import the factory 'no_such_module:f', but got ModuleNotF",
        ),
        ("faulty:lost", "Expected to import the factory 'faulty:lost', but got AttributeError"),
        ("faulty", "Expected a factory as 'module:function', but got 'faulty'"),
        ("faulty:raises", "to return a teacher, but got RuntimeError: out of coffee"),
        ("faulty:leaves", "to return a teacher, but got SystemExit: 7"),
        ("faulty:nonsense", "a module, an estimator or a function as teacher 'own', but got int"),
        ("faulty:nothing", "a function as teacher 'own', but got NoneType"),
        ("faulty:undeclared", "Expected a complete declaration of teacher 'own'"),
        ("faulty:numbers", "'own' to be of the family classification, as the data is, but got reg"),
    ],
)
def test_factories(target, message, folder, refused, monkeypatch):
    monkeypatch.delitem(sys.modules, "faulty", raising=False)
    write_module(folder, "faulty", FACTORIES)
    (found,) = refused(write_config(folder, {"own": {"factory": target}}))
    assert message in found


def test_a_width_that_changes_between_batches(folder, monkeypatch, capsys):
    text = "def wide():\n    return lambda words: [[0.0] * (2 + ('word3' in words))] * len(words)\n"
    write_module(folder, "widening", text)
    teacher = {"factory": "widening:wide", "kind": "logits", "classes": CLASSES, "reads": "text"}
    path = write_config(folder, {"wide": teacher})
    options = ("--out", folder / "run", "--batch-size", 10)
    code, _, err = call(monkeypatch, capsys, "teach", path, *options)
    assert code == 2
    assert "Expected 3 columns from teacher 'wide' in every batch" in err


@pytest.mark.parametrize("harm", ["cut", "bit"])
@pytest.mark.parametrize("trusted", [True, False])
def test_a_harmed_shard(harm, trusted, folder, monkeypatch, capsys):
    name = write_module(folder, f"harm_{harm}_{trusted}".lower(), NEAREST)
    path = write_config(folder, {"near": {"factory": f"{name}:nearest"}})
    out = folder / "run"
    assert call(monkeypatch, capsys, "teach", path, "--out", out, "--shard-rows", 20)[0] == 0
    (out / "teachers" / "costs.json").unlink()
    shard = out / "teachers" / "labels" / "near" / "shard-00001.safetensors"
    spoilt = bytearray(shard.read_bytes())
    spoilt[-9] ^= 1
    shard.write_bytes(bytes(spoilt if harm == "bit" else spoilt[:-5]))
    target = ["teach", path, "--out", out] if trusted else ["teach", out]
    code, _, err = call(monkeypatch, capsys, *target)
    assert code == 2
    assert f"Expected {shard} as it was written" in err


@pytest.mark.parametrize(
    ("teacher", "library", "extra"),
    [
        ({"onnx": "m.onnx", "kind": "logits", "classes": CLASSES}, "onnxruntime", "onnx"),
        ({"hugging_face": "./model", "reads": "text"}, "transformers", "hf"),
    ],
)
def test_missing_libraries(teacher, library, extra, folder, refused, monkeypatch):
    monkeypatch.setitem(sys.modules, library, None)
    (found,) = refused(write_config(folder, {"model": teacher}))
    assert f"Expected {library} to be installed" in found
    assert f"pip install 'mtbkd[{extra}]'" in found


def test_ray_is_missing(folder, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "ray.data", None)
    write_module(folder, "without_ray", NEAREST)
    path = write_config(folder, {"near": {"factory": "without_ray:nearest"}})
    code, _, err = call(monkeypatch, capsys, "teach", path, "--out", folder / "run", "--ray")
    assert code == 2
    assert "pip install 'mtbkd[ray]'" in err


def test_all_faults_of_a_configuration_are_told_at_once(folder, refused):
    teachers = {
        "one": {"factory": "m:f", "table": "old.csv", "kind": "probs"},
        "two": {"onnx": "m.onnx"},
        "three": {"table": "old.csv", "kind": "guess"},
        "four": OLD | {"options": {"x": 1}},
        "five": OLD | {"colour": "red"},
        "six": {},
    }
    found = refused(write_config(folder, teachers, family="ordinal", shuffle=True))
    text = "\n".join(found)
    assert len(found) == 9
    assert "`own.family`" in text
    assert "`own.shuffle`" in text
    assert "`own.teachers.one`: Expected one of the keys factory, hugging_face, onnx, table" in text
    assert "Expected a value for `own.teachers.two.kind`, but got none" in text
    assert "Expected a value for `own.teachers.two.classes`, but got none" in text
    assert "`own.teachers.three.kind`" in text
    keys = "class_map, held_out, id, kind, merge, partial, variance"
    for foreign in ("four.options", "five.colour"):
        told = f"Expected beside table only the keys {keys}, but got `own.teachers.{foreign}`."
        assert told in text
    assert "`own.teachers.six`: Expected one of the keys" in text


@pytest.mark.parametrize(
    ("own", "message"),
    [
        ({"classes": [True, "b"]}, "`own.classes.0`"),
        ({"labels": ["label", "text"]}, "Expected one column of labels for classification"),
        ({"features": ["label"]}, "Expected features that are not ids, labels or splits"),
        ({"features": ["x1", "x1"]}, "Expected every column in one place, but got 'x1' twice"),
        ({"family": "regression", "classes": ["y"]}, "Expected classes of classification only"),
        ({"teachers": {}}, "Expected one teacher or more, but got none"),
        ({"teachers": {"Old": OLD, "old!": OLD}}, "but got 'Old' and 'old!'"),
        ({"teachers": {"??": OLD}}, "Expected a name of letters and digits, but got '??'"),
    ],
)
def test_configurations(own, message, folder, refused):
    own = {"teachers": {"old": OLD}} | own
    path = write_config(folder, **own)
    assert message in "\n".join(refused(path))


def test_two_teachers_of_one_name(folder, refused):
    path = write_config(folder, {"old": OLD})
    values = yaml.safe_load(path.read_text())
    del values["own"]["teachers"]
    teachers = "  teachers:\n" + 2 * "    old: {table: old.csv, kind: probs}\n"
    path.write_text(
        f"{yaml.safe_dump({'own': values.pop('own')})}{teachers}{yaml.safe_dump(values)}"
    )
    (found,) = refused(path)
    assert "the key 'old' twice" in found


def test_the_section_belongs_to_the_recipe(folder, refused, monkeypatch, capsys):
    path = write_config(folder, {"old": OLD})
    (found,) = refused(path, "--set", "recipe=digits")
    assert "Expected the section `own` with the recipe own, and with no other" in found
    code, _, err = call(monkeypatch, capsys, "run", "own", "--out", folder / "run")
    assert code == 2
    assert "mtbkd recipes copy own my.yaml" in err


@pytest.mark.parametrize(
    ("option", "message"),
    [
        (["--shard-rows", 0], "Expected --shard-rows above 0"),
        (["--batch-size", -1], "Expected --batch-size above 0"),
        (["--dtype", "int8"], "Expected --dtype float32 or float16, but got 'int8'"),
        (["--most-failures", 2], "Expected --most-failures from 0 to 1, but got 2"),
    ],
)
def test_options_of_labelling(option, message, folder, refused, monkeypatch, capsys):
    (found,) = refused(write_config(folder, {"old": OLD}), *option)
    assert message in found
    code, _, err = call(monkeypatch, capsys, "teach", "digits", "--out", folder / "z", *option)
    assert code == 2
    assert f"Expected {option[0]} with the recipe own only" in err


def test_new_inputs(folder, monkeypatch, capsys):
    out = folder / "run"
    path = write_config(folder, {"old": OLD})
    assert call(monkeypatch, capsys, "distill", path, "--out", out)[0] == 0
    for rows, message in (
        (["id,x1", "n,1"], "Expected the columns x1, x2 in"),
        (["id,x1,x2", "n,1,"], "column 'x2'"),
        (["id,x1,x2", "n,1,2", "n,3,4"], "Expected every id once"),
        (["x1,x2", "1,2"], "Expected a column 'id' of ids"),
    ):
        source = folder / "new.csv"
        source.write_text("\n".join(rows) + "\n")
        answer = folder / "a.csv"
        code, _, err = call(monkeypatch, capsys, "predict", out, source, "--out", answer)
        assert code == 2
        assert message in err
        assert str(source) in err
        assert not answer.exists()


def test_files_of_examples(folder, refused):
    np.savez(folder / "e.npz", id=np.arange(3).astype(str), x=np.zeros((2, 2)))
    (found,) = refused(write_config(folder, {"old": OLD}, examples="e.npz"))
    assert "but got 2 and 3 rows" in found
    np.savez(folder / "e.npz", id=np.array([None, {}]), allow_pickle=True)
    (found,) = refused(write_config(folder, {"old": OLD}, examples="e.npz"))
    assert "cannot be read (Object arrays cannot be loaded" in found
    (found,) = refused(write_config(folder, {"old": OLD}, examples="e.txt"))
    assert "ending in .csv, .tsv, .parquet, .npz, .npy (text also with .gz), but" in found
    (found,) = refused(write_config(folder, {"old": OLD}, examples="lost.csv"))
    assert f"Expected examples in {folder / 'lost.csv'}, but it is not there" in found


def test_a_text_cell_in_a_column_of_numbers_is_told(folder, monkeypatch, capsys):
    path = write_examples(folder, x2_7="high")
    config = write_config(folder, {"old": OLD})
    told = (
        f"The student does not read these columns of {path}, in which not every cell is a number: "
        "'x2' ('high' for id 'e7'). Correct them, or choose columns with own.features."
    )
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        for times in (1, 0):  # it is told when the run begins
            code, _, err = call(monkeypatch, capsys, "teach", config, "--out", folder / "run")
            assert (code, err) == (0, f"mtbkd: {told}\n" * times)


def test_the_word_nan_is_no_class_unless_it_is_named(folder, refused, monkeypatch, capsys):
    path = write_examples(folder, label_3="NaN", label_6="nan")
    (found,) = refused(write_config(folder, {"old": OLD}))
    assert f"the name of a class in column 'label' of {path}, or nothing where it is" in found
    assert "but got 'NaN' for id 'e3' (2 such). Empty the cells, or name it in own.c" in found
    write_examples(folder, label_3="nan")
    write_table(folder, [*CLASSES, "nan"])
    config = write_config(folder, {"old": OLD}, classes=[*CLASSES, "nan"])
    assert call(monkeypatch, capsys, "teach", config, "--out", folder / "run")[0] == 0


def test_classes_have_one_order_even_if_they_are_equal_as_numbers(folder):
    write_examples(folder)
    rows = [["e0", 1, "1"], ["e1", 2, "01"], ["e2", 3, "2"], ["e3", 4, "001"]]
    write_csv(folder / "examples.csv", ["id", "x", "label"], rows)
    own = load_config(write_config(folder, {"old": OLD})).own
    assert own is not None
    assert classes_of(own, labels_of(read_own(own)[0], own)) == ("001", "01", "1", "2")
    shuffled = ["2", "1", "001", "01"]
    assert classes_of(own, shuffled) == ("001", "01", "1", "2")


@pytest.mark.parametrize(
    ("teacher", "message"),
    [
        (OLD | {"variance": True}, "`own.teachers.t.variance` to be a number, or a list of one"),
        (OLD | {"variance": "x"}, "`own.teachers.t.variance` to be a number, or a list of one"),
        ({"factory": "m:f", "variance": 0.5}, "`own.teachers.t.variance` to be a valid boolean"),
        ({"hugging_face": "m"}, "Expected a value for `own.teachers.t.reads`, but got none. Add"),
        (OLD | {"top": 3}, "got `own.teachers.t.top`. Remove it or correct its spelling."),
        ("old.csv", "`own.teachers.t` to be a mapping that says what the teacher is, but got 'old"),
        ({"table": None}, "`own.teachers.t`: Expected one of the keys factory, hugging_face, onnx"),
    ],
)
def test_teachers_of_each_kind_have_their_own_keys(teacher, message, folder, refused):
    (found,) = refused(write_config(folder, {"t": teacher}))
    assert message in found


def test_an_empty_key_of_another_kind_is_no_fault(folder):
    own = load_config(write_config(folder, {"t": OLD | {"onnx": None, "factory": None}})).own
    assert own is not None
    assert isinstance(own.teachers["t"], TableTeacher)
