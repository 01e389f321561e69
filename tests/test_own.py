"""The recipe of one's own examples and teachers, as the command line runs it."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
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

from mtbkd.app.config.run import load_config
from mtbkd.app.recipes import find_recipe
from mtbkd.app.run.stages import learns_calibration
from mtbkd.observation import OUTCOMES
from mtbkd.outputs.store import load_outputs

EXAMPLE = Path(__file__).parent.parent / "examples" / "own"
QUICK = [f"--set={key}" for key in ("map.epochs=3", "sampler.burn_in=20", "sampler.thinning=2")]


@pytest.fixture
def folder(tmp_path) -> Path:
    write_examples(tmp_path)
    write_table(tmp_path)
    return tmp_path


@pytest.mark.usefixtures("undrawn")
@pytest.mark.filterwarnings("ignore:The strongest baseline is trained alone")
def test_the_example_runs_from_a_copied_configuration(tmp_path, monkeypatch, capsys):
    shutil.copytree(EXAMPLE, tmp_path / "own")
    monkeypatch.chdir(tmp_path / "own")
    assert call(monkeypatch, capsys, "recipes", "copy", "own", "my.yaml")[0] == 0
    short = (*QUICK, "--set=budget=10 s")
    code, out, err = call(monkeypatch, capsys, "run", "my.yaml", "--out", "run", *short)
    assert code == 0
    assert err.startswith("mtbkd: a budget of 10 s in all: what teachers are worth, then chains")
    assert len([line for line in err.splitlines() if "left" not in line]) == 1
    assert "teacher: forest" in out
    metrics = json.loads(Path("run/metrics.json").read_text())
    assert metrics["teachers"]["forest"]["accuracy"] > 0.8
    assert metrics["student"]["accuracy"] > 0.8
    assert metrics["n_train"] + metrics["n_test"] == 102
    assert json.loads(Path("run/teachers/costs.json").read_text())["forest"]["ms_per_example"] > 0
    Path("new.csv").write_text(
        "petal width,id,remark,sepal length,petal length,sepal width\n"
        "0.2,small,x,5.0,1.4,3.4\n2.3,large,y,6.9,5.7,3.2\n"
    )
    shutil.move("my.yaml", "elsewhere.yaml")
    Path("my_teachers.py").unlink()
    Path("examples.csv").rename("hidden.csv")
    code, _, err = call(monkeypatch, capsys, "predict", "run", "new.csv", "--out", "a.jsonl")
    assert (code, err) == (0, "")
    answers = [json.loads(line) for line in Path("a.jsonl").read_text().splitlines()]
    assert [(a["id"], a["prediction"]) for a in answers] == [
        ("small", "setosa"),
        ("large", "virginica"),
    ]


def test_the_copied_configuration_is_that_of_the_defaults():
    recipe = find_recipe("own")
    assert recipe.template is not None
    values = yaml.safe_load(recipe.template)
    assert values["own"]["teachers"].keys() == {"forest", "old"}


def test_features_are_standardised_with_the_training_rows_alone(folder):
    _, label = points()
    split = ["train" if i < 40 else "calibration" if i < 50 else "test" for i in range(ROWS)]
    x, _ = points()
    x[40:] += 1000.0
    table = {"id": [f"e{i}" for i in range(ROWS)], "x2": x[:, 1], "x1": x[:, 0]}
    table |= {"y": label, "part": split, "same": np.ones(ROWS)}
    pq.write_table(pa.table(table), folder / "examples.parquet")
    path = write_config(
        folder, {"old": {"table": "old.csv", "kind": "probs"}}, examples="examples.parquet"
    )
    config = yaml.safe_load(path.read_text())
    config["own"] |= {"labels": "y", "split": "part"}
    path.write_text(yaml.safe_dump(config))
    task = find_recipe("own").load(load_config(path), folder / "run" / "features")
    assert task.train.ids == tuple(f"e{i}" for i in range(40))
    assert task.train.classes == ("0", "1", "2")
    train = task.train.inputs
    torch.testing.assert_close(train.mean(0), torch.zeros(3), atol=1e-5, rtol=0)
    torch.testing.assert_close(train[:, :2].std(0, correction=0), torch.ones(2))
    assert (train[:, 2] == 0).all()
    wanted = (x[:, ::-1] - x[:40, ::-1].mean(0)) / x[:40, ::-1].std(0)
    np.testing.assert_allclose(task.test.inputs[:, :2], wanted[50:], rtol=1e-4)
    assert task.test.labels.tolist() == label[50:].tolist()


def test_a_random_split_has_the_shares_it_says_and_follows_the_seed(folder):
    path = write_config(folder, {"old": {"table": "old.csv", "kind": "probs"}})
    load = find_recipe("own").load
    one, again, other = (
        load(load_config(path, [f"seed={s}"]), folder / "run" / "features") for s in (1, 1, 2)
    )
    assert (len(one.train), len(one.calibration), len(one.test)) == (29 + 12, 10, 9)
    assert one.train.n_labelled == 29
    assert one.ids == again.ids
    assert one.ids != other.ids
    assert set(one.ids) == {f"e{i}" for i in range(ROWS)}


@pytest.mark.parametrize("family", OUTCOMES)
def test_calibration_examples_that_are_named_are_held_unless_told_otherwise(family, folder):
    path = write_config(folder, {"old": {"table": "old.csv", "kind": "probs"}})
    config = yaml.safe_load(path.read_text())
    for split, asked, expected in (
        ({}, "auto", True),
        ({}, "hold", False),
        ({"split": "part"}, "auto", False),
        ({"split": "part"}, "learn", True),
    ):
        own = config["own"] | {"family": family} | split
        path.write_text(yaml.safe_dump(config | {"own": own, "calibration": asked}))
        assert learns_calibration(load_config(path)) == expected


def test_teachers_read_raw_features_columns_and_text(folder, monkeypatch, capsys):
    write_module(
        folder,
        "readers",
        NEAREST
        + """
def by_text():
    table = {f"word{i}": i % 3 for i in range(60)}
    return lambda words: np.eye(3)[[table[w] for w in words]] * 4

def by_column():
    return lambda x: np.column_stack([x[:, 0], np.zeros(len(x)), x[:, 1]])
""",
    )
    logits = {"kind": "logits", "classes": CLASSES}
    teachers = {
        "Nearest one": {"factory": "readers:nearest", "options": {"sharpness": 2.0}},
        "words": {"factory": "readers:by_text", "reads": "text", **logits},
        "columns": {"factory": "readers:by_column", "reads": ["x2", "x1"], **logits},
        "old": {"table": "old.csv", "kind": "probs"},
    }
    path = write_config(folder, teachers)
    code, out, err = call(monkeypatch, capsys, "teach", path, "--out", folder / "run")
    assert (code, err) == (0, "")
    assert "Nearest one: 60 rows labelled, 0 failed, " in out
    assert str(folder / "run" / "teachers" / "labels" / "nearest-one") in out
    assert f"old: 60 rows read from {folder / 'old.csv'}" in out
    said = load_outputs(folder / "run" / "teachers")
    assert said.names == tuple(teachers)
    rows = [int(key[1:]) for key in said.ids]
    x, label = points()
    x = x.round(3)[rows]
    wanted = torch.log_softmax(
        torch.from_numpy(-2 * ((x[:, None] - 3 * np.eye(3, 2)) ** 2).sum(-1)), -1
    )
    torch.testing.assert_close(
        said.values[0].clamp_min(-15), wanted.float().clamp_min(-15), atol=1e-3, rtol=1e-3
    )
    assert (said.values[1].argmax(-1).numpy() == label[rows]).all()
    odds = said.values[2, :, 0] - said.values[2, :, 1]
    np.testing.assert_allclose(odds, x[:, 1], atol=1e-4)


def test_settings_of_labelling_are_kept_by_the_next_command(folder, monkeypatch, capsys):
    write_module(folder, "kept_settings", NEAREST)
    path = write_config(folder, {"near": {"factory": "kept_settings:nearest"}})
    options = ("--shard-rows", 7, "--batch-size", 3, "--dtype", "float16")
    out = folder / "run"
    assert call(monkeypatch, capsys, "teach", path, "--out", out, *options)[0] == 0
    assert len(list((out / "teachers" / "labels" / "near").glob("shard-*"))) == 9
    assert load_outputs(out / "teachers").values.dtype == torch.float16
    before = (out / "teachers" / "outputs.safetensors").read_bytes()
    (out / "teachers" / "costs.json").unlink()
    code, said, _ = call(monkeypatch, capsys, "teach", path, "--out", out)
    assert code == 0
    assert "labelled before" in said
    assert (out / "teachers" / "outputs.safetensors").read_bytes() == before


def test_rows_that_fail_are_masked_and_too_many_are_refused(folder, monkeypatch, capsys):
    write_module(
        folder,
        "fails",
        """
import numpy as np

def some():
    def logits(words):
        if "word3" in words:
            raise ValueError("no such word")
        return np.zeros((len(words), 3))
    return logits
""",
    )
    teacher = {"factory": "fails:some", "kind": "logits", "classes": CLASSES, "reads": "text"}
    path = write_config(folder, {"some": teacher})
    out = folder / "run"
    code, _, err = call(monkeypatch, capsys, "teach", path, "--out", out)
    assert code == 2
    assert "1 of 60 did" in err
    assert "no such word for id 'e3'" in err
    code, said, _ = call(monkeypatch, capsys, "teach", path, "--out", out, "--most-failures", 0.1)
    assert code == 0
    assert "60 rows labelled, 1 failed" in said
    outputs = load_outputs(out / "teachers")
    assert [i for i, m in zip(outputs.ids, outputs.mask[0], strict=True) if not m] == ["e3"]


@pytest.mark.parametrize("family", ["multilabel", "regression"])
def test_other_families_run_from_end_to_end(family, tmp_path, monkeypatch, capsys):
    x, label = points()
    several = family == "multilabel"
    y = np.eye(3)[label][:, :2] if several else x @ np.array([[1.0, 0.0], [2.0, -1.0]])
    rows = [
        [f"e{i}", *x[i].tolist(), *("" if i % 5 == 4 else v for v in y[i].tolist())]
        for i in range(ROWS)
    ]
    write_csv(tmp_path / "examples.csv", ["id", "x1", "x2", "t1", "t2"], rows)
    said = [[f"e{i}", *(y[i] * 0.8 + 0.1).tolist()] for i in range(ROWS)]
    write_csv(tmp_path / "old.csv", ["id", "t1", "t2"], said)
    write_csv(tmp_path / "half.csv", ["key", "T"], [[row[0], row[1]] for row in said])
    old: dict[str, object] = {"table": "old.csv", "kind": "probs" if several else "mean"}
    half = old | {"table": "half.csv", "id": "key", "partial": True, "class_map": {"T": "t1"}}
    if not several:
        old["variance"] = [0.5, 2]
    path = write_config(
        tmp_path, {"old": old, "half": half}, labels=["t1", "t2"], family=family, features=["x2"]
    )
    out = tmp_path / "run"
    code, _, err = call(monkeypatch, capsys, "run", path, "--out", out)
    assert (code, err) == (0, "")
    outputs = load_outputs(out / "teachers")
    assert outputs.family == family
    assert outputs.mask[1].all(0).tolist() == [True, False]
    if not several:
        assert outputs.values[0, 0, :, 1].exp().tolist() == pytest.approx([0.5, 2])
    write_csv(tmp_path / "new.csv", ["id", "x2"], [["n", 1.5]])
    code, _, err = call(
        monkeypatch, capsys, "predict", out, tmp_path / "new.csv", "--out", tmp_path / "a.jsonl"
    )
    assert (code, err) == (0, "")


@pytest.mark.usefixtures("undrawn")
def test_a_run_directory_runs_no_code(folder, monkeypatch, capsys):
    marker = folder / "imported"
    text = f"import pathlib\npathlib.Path({str(marker)!r}).write_text('x')\n" + NEAREST
    write_module(folder, "marks", text)
    path = write_config(folder, {"near": {"factory": "marks:nearest"}})
    out = folder / "run"
    monkeypatch.setattr("mtbkd.app.recipes.own.teachers.label", _killed)
    assert call(monkeypatch, capsys, "teach", path, "--out", out)[0] == 130
    monkeypatch.undo()
    assert (out / "config.yaml").exists()
    assert marker.read_text() == "x"
    marker.unlink()
    del sys.modules["marks"]
    for command in (["teach", out], ["run", out], ["distill", out], ["run", out / "config.yaml"]):
        extra = ["--out", out] if str(command[1]).endswith("yaml") else []
        code, _, err = call(monkeypatch, capsys, *command, *extra)
        assert code == 2
        assert f"Expected the teachers' labels to be complete in {out}, but those of 'near'" in err
        assert "code named by a run directory ('marks:nearest') is never run" in err
        assert f"Run `mtbkd teach my.yaml --out {out}` with your own configuration" in err
    assert not marker.exists()
    assert call(monkeypatch, capsys, "teach", path, "--out", out)[0] == 0
    marker.unlink()
    del sys.modules["marks"]
    (out / "teachers" / "costs.json").unlink()
    for command in ("run", "evaluate", "report"):
        code, _, err = call(monkeypatch, capsys, command, out)
        assert (code, err) == (0, "")
    assert not marker.exists()


def _killed(*arguments: object, **options: object) -> None:
    raise KeyboardInterrupt


def test_examples_that_change_during_a_run_are_refused(folder, monkeypatch, capsys):
    path = write_config(folder, {"old": {"table": "old.csv", "kind": "probs"}})
    out = folder / "run"
    assert call(monkeypatch, capsys, "teach", path, "--out", out)[0] == 0
    write_examples(folder, x1_3=9.0)
    code, _, err = call(monkeypatch, capsys, "run", path, "--out", out)
    assert code == 2
    assert f"Expected {folder / 'examples.csv'} as it was when {out} began" in err


def test_a_faulty_configuration_may_be_mended_in_place(folder, monkeypatch, capsys):
    out = folder / "run"
    path = write_config(folder, {"old": {"table": "lost.csv", "kind": "probs"}})
    assert call(monkeypatch, capsys, "teach", path, "--out", out)[0] == 2
    path = write_config(folder, {"old": {"table": "old.csv", "kind": "probs"}})
    assert call(monkeypatch, capsys, "teach", path, "--out", out)[0] == 0
    path = write_config(folder, {"new": {"table": "old.csv", "kind": "probs"}})
    code, _, err = call(monkeypatch, capsys, "teach", path, "--out", out)
    assert code == 2
    assert "its config.yaml differs" in err


SLOW = NEAREST.replace("return -sharp", "import time; time.sleep(0.1)\n        return -sharp")


@pytest.mark.slow
def test_killed_while_teaching_and_resumed_ends_in_the_same_bytes(folder, monkeypatch, capsys):
    write_module(folder, "slowly", SLOW)
    path = write_config(folder, {"near": {"factory": "slowly:nearest"}})
    calm, killed = folder / "calm", folder / "killed"
    options = ("--shard-rows", 5, "--batch-size", 5)
    assert call(monkeypatch, capsys, "teach", path, "--out", calm, *options)[0] == 0
    command = [sys.executable, "-c", "from mtbkd.app.cli import main; main()", "teach", path]
    process = subprocess.Popen([*map(str, command), "--out", str(killed), *map(str, options)])
    labels = killed / "teachers" / "labels" / "near"
    while process.poll() is None and len(list(labels.glob("shard-*"))) < 4:
        pass
    process.kill()
    process.wait()
    done = len(list(labels.glob("shard-*")))
    assert 4 <= done < 12
    code, out, _ = call(monkeypatch, capsys, "run", path, "--out", killed)
    assert code == 0
    assert "Bayesian student" in out
    for name in (
        "outputs.safetensors",
        "ids.parquet",
        "manifest.json",
        "labels/near/journal.jsonl",
    ):
        assert (killed / "teachers" / name).read_bytes() == (calm / "teachers" / name).read_bytes()
