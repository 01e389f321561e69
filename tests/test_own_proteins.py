"""Proteins in the recipe of one's own: teachers trained here, what the student reads, groups."""

import gzip
import json
import shutil
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from own_data import call, write_csv
from own_proteins_data import (
    COPIES,
    ROWS,
    sequences,
    write_fasta,
    write_models,
    write_protein_config,
    write_proteins,
)
from safetensors import safe_open

from mtbkd.app.config.run import load_config
from mtbkd.app.recipes import find_recipe
from mtbkd.app.recipes.base import Labelling
from mtbkd.inputs.proteins import embedding
from mtbkd.inputs.proteins.features import sequence_features
from mtbkd.outputs.store import load_outputs

pytest.importorskip("transformers")
pytest.importorskip("Bio")

EXAMPLE = Path(__file__).parent.parent / "examples" / "own_proteins"
BOTH = {"ESM": {"backbone": "esm", "folds": 3}, "T5": {"backbone": "t5", "max_tokens": 300}}
OWN = find_recipe("own")


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    write_models(folder)
    return folder


@pytest.fixture
def folder(models, tmp_path, monkeypatch):
    monkeypatch.setenv("MTBKD_CACHE", str(tmp_path / "cache"))
    for name in ("esm", "t5"):
        shutil.copytree(models / name, tmp_path / name)
    write_proteins(tmp_path)
    return tmp_path


def taught(path: Path, out: Path):
    """The task, and what its teachers say, without the command line."""
    config = load_config(path)
    task = OWN.load(config, out / "features")
    assert OWN.label is not None
    OWN.label(config, task, out / "teachers", Labelling())
    return task, load_outputs(out / "teachers")


def told(monkeypatch, capsys, *arguments):
    """The command line with its warnings, which go to standard error."""
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        return call(monkeypatch, capsys, *arguments)


def no_model(monkeypatch):
    def ask(*_):
        raise AssertionError("a model was asked")

    monkeypatch.setattr(embedding, "pooled", ask)


def test_from_proteins_to_predictions(folder, monkeypatch, capsys):
    path = write_protein_config(folder, teachers=BOTH, group="family")
    run, new = folder / "run", folder / "new.fasta"
    code, out, err = told(monkeypatch, capsys, "run", path, "--out", run)
    assert code == 0
    assert "examples without a label are left out, as they share a group with" in err
    assert "teacher: ESM" in out
    assert "teacher: T5" in out
    costs = json.loads((run / "teachers" / "costs.json").read_text())
    assert costs["T5"]["ms_per_example"] > 0
    with safe_open(folder / "esm" / "model.safetensors", "pt") as file:
        sizes = {k: file.get_tensor(k).numel() for k in file.keys()}  # noqa: SIM118
    encoder = sum(n for k, n in sizes.items() if k.startswith(("embeddings", "encoder")))
    assert encoder < sum(sizes.values())
    assert costs["ESM"]["parameters"] == encoder + 3 * (17 * 128 + 129 * 2)
    # nothing of what follows needs a model, the proteins, or the cache
    for name in ("esm", "t5", "cache"):
        shutil.move(folder / name, folder / f"hidden-{name}")
    path.unlink()
    assert call(monkeypatch, capsys, "evaluate", run)[0] == 0
    assert call(monkeypatch, capsys, "report", run)[0] == 0
    (folder / "proteins.csv").unlink()
    known = sequences()
    write_fasta(new, {"sp|A|ONE": known[0].lower(), "two": known[4]})
    code, _, err = told(monkeypatch, capsys, "predict", run, new, "--out", folder / "a.jsonl")
    assert code == 0
    assert "1 of 2 sequences had lower-case letters, read as upper case." in err
    answers = [json.loads(line) for line in (folder / "a.jsonl").read_text().splitlines()]
    assert [a["id"] for a in answers] == ["sp|A|ONE", "two"]
    assert {a["prediction"] for a in answers} <= {"in", "out"}


def test_a_second_run_asks_no_model(folder, monkeypatch, capsys):
    path = write_protein_config(folder, encoder="esm", teachers=BOTH)
    code, first, _ = call(monkeypatch, capsys, "teach", path, "--out", folder / "run")
    assert (code, "ESM: 72 rows answered out of fold, 3 heads trained on " in first) == (0, True)
    no_model(monkeypatch)
    again = write_protein_config(folder, "again.yaml", encoder="esm", teachers=BOTH)
    assert call(monkeypatch, capsys, "teach", again, "--out", folder / "other")[0] == 0
    here, there = (load_outputs(folder / name / "teachers") for name in ("run", "other"))
    torch.testing.assert_close(here.values, there.values, rtol=0, atol=0)
    costs = json.loads((folder / "other" / "teachers" / "costs.json").read_text())
    assert costs["ESM"].keys() == {"parameters"}
    # what the run directory holds is read without the model
    shutil.rmtree(folder / "esm")
    shutil.rmtree(folder / "cache")
    assert call(monkeypatch, capsys, "teach", folder / "run")[0] == 0


def test_a_run_that_was_killed_keeps_the_answers_it_has(folder, monkeypatch, capsys):
    path = write_protein_config(folder, teachers=BOTH)
    run = folder / "run"
    assert call(monkeypatch, capsys, "teach", path, "--out", run)[0] == 0
    before = load_outputs(run / "teachers")
    for name in ("costs.json", "manifest.json", "labels/t5/answers.safetensors"):
        (run / "teachers" / name).unlink()
    shutil.rmtree(folder / "esm")
    code, out, _ = call(monkeypatch, capsys, "teach", path, "--out", run)
    assert code == 0
    assert "ESM: 72 rows answered out of fold, answered before: " in out
    torch.testing.assert_close(load_outputs(run / "teachers").values, before.values)
    (run / "teachers" / "costs.json").unlink()
    (run / "teachers" / "labels" / "esm" / "answers.safetensors").write_bytes(b"cut")
    code, _, err = call(monkeypatch, capsys, "teach", path, "--out", run)
    assert code == 2
    assert "answers.safetensors as it was written, but got " in err
    assert "Delete it and run the same command again." in err


@pytest.mark.parametrize("encoder", ["features", "esm"])
def test_new_proteins_are_read_as_those_of_the_run(encoder, folder):
    path = write_protein_config(folder, encoder=encoder)
    task, _ = taught(path, folder / "run")
    wide = 16 if encoder == "esm" else sequence_features(["MA"]).shape[1]
    assert task.test.inputs.shape[1] == wide
    varying = task.train.inputs.std(0) > 0
    assert task.train.inputs.abs().max() <= 5
    if encoder == "esm":
        torch.testing.assert_close(task.train.inputs.mean(0), torch.zeros(16), atol=0.1, rtol=0)
        assert ((task.train.inputs.std(0, correction=0) - 1).abs() < 0.1).all()
    known = dict(zip([f"p{i}" for i in range(ROWS)], sequences(), strict=True))
    new = write_fasta(folder / "new.fasta", {i: known[i] for i in task.test.ids} | {"w": "W" * 40})
    assert OWN.read_as is not None
    ids, inputs = OWN.read_as(load_config(path), folder / "run" / "features", new)
    assert ids == (*task.test.ids, "w")
    inputs = inputs[:]
    torch.testing.assert_close(inputs[:-1], task.test.inputs, rtol=0, atol=1e-5)
    assert inputs.abs().max() <= 5
    assert (inputs[:, ~varying] == 0).all()
    drawn = task.drawn(0)
    assert drawn == f"<code>{known[task.test.ids[0]]}</code><br>30 residues"


def unchanged(before, after):
    """Which ids the first teacher says the very same about."""
    assert before.ids == after.ids
    return dict(zip(before.ids, (before.values == after.values)[0].all(1).tolist(), strict=True))


@pytest.mark.parametrize("group", ["family", None])
@pytest.mark.usefixtures("undrawn")
def test_no_label_moves_the_answers_of_its_own_fold(group, folder):
    """Each training label is flipped in turn; groups, where named, share a fold."""
    part = [("train", "train", "calibration", "test")[i // COPIES % 4] for i in range(ROWS)]
    part = [p if i % 8 < 7 else "train" for i, p in enumerate(part)]
    columns = {f"sticky_{i}": p for i, p in enumerate(part)}
    path = write_protein_config(folder, group=group, split="sticky")
    write_proteins(folder, **columns)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore" if group else "error")
        task, said = taught(path, folder / "first")
        known = set(np.array(task.train.ids)[task.train.known.numpy()])
        rows = [i for i in range(0, ROWS, COPIES) if {f"p{i + k}" for k in range(3)} <= known]
        assert len(rows) > 5
        moved = 0
        for row in rows[:6]:
            other = "in" if row // COPIES % 2 else "out"
            write_proteins(folder, **columns, **{f"place_{row}": other})
            _, flipped = taught(path, folder / f"flipped-{row}")
            still = (said.values == flipped.values)[0].all(1).tolist()
            of = dict(zip(said.ids, still, strict=True))
            assert of[f"p{row}"]
            assert not all(of[i] for i in known)
            assert not all(of[i] for i in (*task.calibration.ids, *task.test.ids))
            moved += not all(of[f"p{row + k}"] for k in range(3))
    assert (moved == 0) == (group is not None)


def test_each_teacher_knows_what_its_own_model_shows(folder):
    path = write_protein_config(folder, teachers=BOTH)
    task, said = taught(path, folder / "run")
    place = torch.tensor([int(i[1:]) // COPIES % 2 for i in said.ids])
    right = (said.values.argmax(-1) == place).float().mean(1)
    assert (right > 0.75).all(), right
    # the same model under both names says the same, whatever its files are called
    shutil.rmtree(folder / "t5")
    shutil.copytree(folder / "esm", folder / "t5")
    one = {"backbone": "esm", "folds": 3}
    path = write_protein_config(folder, teachers={"T5": one | {"backbone": "t5"}, "ESM": one})
    _, again = taught(path, folder / "again")
    torch.testing.assert_close(again.values[0], again.values[1])
    torch.testing.assert_close(again.values[1], said.values[0])


def test_groups_and_equal_sequences_stay_in_one_split(folder):
    path = write_protein_config(folder, group="family")
    with pytest.warns(UserWarning, match="examples without a label are left out"):
        task = OWN.load(load_config(path), folder / "run" / "features")
    families = [
        {int(i[1:]) // COPIES for i in part.ids}
        for part in (task.train, task.calibration, task.test)
    ]
    assert not families[0] & families[1]
    assert not families[0] & families[2]
    assert not families[1] & families[2]
    family = [int(i[1:]) // COPIES for i in task.calibration.ids]
    pairs = set(zip(family, task.together.tolist(), strict=True))
    assert len(pairs) == len(set(family)) == len(np.unique(task.together))
    assert 0.5 < task.train.n_labelled / 63 < 0.7
    assert len(task.calibration) > 8 < len(task.test)
    assert task.calibration.known.all()
    # proteins without a cell are alone, unless they have the same sequence
    written = sequences()
    spoilt = {f"seq_{row}": written[row % 6] for row in range(6, 54)}
    write_proteins(folder, **spoilt, **{f"family_{row}": "" for row in range(54)})
    with pytest.warns(UserWarning, match="examples without a label are left out"):
        task = OWN.load(load_config(path), folder / "run" / "features")
    parts = [{int(i[1:]) for i in p.ids} for p in (task.train, task.calibration, task.test)]
    where = [
        {k for k, p in enumerate(parts) if any(i % 6 == r and i < 54 for i in p)} for r in range(6)
    ]
    assert all(len(found) == 1 for found in where)
    assert len(set.union(*where)) > 1


def test_a_given_split_through_groups_is_told(folder):
    write_proteins(
        folder, **{f"odd_{i}": ("train", "calibration", "test")[i % 3] for i in range(ROWS)}
    )
    for row in range(7, ROWS, 8):
        text = (folder / "proteins.csv").read_text()
        (folder / "proteins.csv").write_text(
            text.replace(f"p{row},{sequences()[row]},,", f"p{row},{sequences()[row]},in,")
        )
    path = write_protein_config(folder, group="family", split="odd")
    with pytest.warns(UserWarning, match="48 examples of calibration and test share a group with"):
        OWN.load(load_config(path), folder / "run" / "features")


@pytest.mark.usefixtures("undrawn")
def test_several_labels(folder, monkeypatch, capsys):
    own = {"family": "multilabel", "labels": ["sticky", "odd"], "encoder": "t5"}
    path = write_protein_config(folder, **own, teachers=BOTH)
    code, out, err = call(monkeypatch, capsys, "run", path, "--out", folder / "run")
    assert (code, err) == (0, "")
    said = load_outputs(folder / "run" / "teachers")
    assert said.values.shape == (2, ROWS, 2, 2)
    assert said.held_out
    torch.testing.assert_close(said.values.exp().sum(-1), torch.ones(2, ROWS, 2))
    assert "teacher: T5" in out
    new = write_fasta(folder / "new.fasta", {"one": "MKKKKLKAKKKWKKKKK"})
    answers = folder / "a.jsonl"
    assert call(monkeypatch, capsys, "predict", folder / "run", new, "--out", answers)[0] == 0
    assert json.loads(answers.read_text())["id"] == "one"


@pytest.mark.usefixtures("undrawn")
def test_numbers_from_a_table_for_a_student_that_reads_sequences(folder, monkeypatch, capsys):
    lysines = [s.count("K") for s in sequences()]
    write_proteins(folder, **{f"odd_{i}": k for i, k in enumerate(lysines)})
    write_csv(folder / "old.csv", ["id", "odd"], [[f"p{i}", k] for i, k in enumerate(lysines)])
    teachers = {"old": {"table": "old.csv", "kind": "mean", "variance": 1.0}}
    path = write_protein_config(folder, family="regression", labels=["odd"], teachers=teachers)
    calm = ("--set", "sampler.step_size=0.001")  # so few steps cannot find one
    code, _, err = call(monkeypatch, capsys, "distill", path, "--out", folder / "run", *calm)
    assert code == 0, err
    new = write_fasta(folder / "new.fasta", {"few": "MADEAVLIGT", "many": "MKKKKKAKKK"})
    answers = folder / "a.jsonl"
    assert call(monkeypatch, capsys, "predict", folder / "run", new, "--out", answers)[0] == 0
    assert len(answers.read_text().splitlines()) == 2


def test_teachers_of_other_makes_read_clean_sequences(folder, monkeypatch, capsys):
    (folder / "lysines.py").write_text(
        "import numpy as np\n"
        "def count():\n"
        "    def logits(words):\n"
        "        assert all(w.isupper() for w in words)\n"
        "        k = np.array([w.count('K') for w in words])\n"
        "        return np.stack([5.0 - k, k - 5.0], 1)\n"
        "    return logits\n"
    )
    write_proteins(folder, seq_5=sequences()[5].lower())
    rule = {"factory": "lysines:count", "kind": "logits", "classes": ["in", "out"]}
    path = write_protein_config(folder, teachers={"rule": rule, "ESM": BOTH["ESM"]})
    code, _, err = told(monkeypatch, capsys, "teach", path, "--out", folder / "run")
    assert code == 0
    assert "1 of 72 sequences had lower-case letters, read as upper case." in err
    said = load_outputs(folder / "run" / "teachers")
    right = said.values[0].argmax(1).numpy() == [int(i[1:]) // COPIES % 2 for i in said.ids]
    assert right.mean() > 0.9


@pytest.mark.parametrize("name", ["proteins.tsv", "proteins.csv.gz"])
def test_tables_as_they_are_exchanged(name, folder):
    text = (folder / "proteins.csv").read_text()
    text = text.replace(",", "\t" if ".tsv" in name else ";")
    data = text.encode()
    (folder / name).write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    found = []
    for examples in ("proteins.csv", name):
        path = write_protein_config(folder, examples=examples)
        found.append(OWN.load(load_config(path), folder / "run" / "features"))
    assert found[0].ids == found[1].ids
    assert found[0].name == found[1].name == "proteins"
    torch.testing.assert_close(found[0].train.inputs, found[1].train.inputs)


@pytest.mark.slow
def test_the_example_learns_the_signals(tmp_path, monkeypatch, capsys):
    shutil.copytree(EXAMPLE, tmp_path / "own")
    monkeypatch.chdir(tmp_path / "own")
    monkeypatch.setenv("MTBKD_CACHE", str(tmp_path / "cache"))
    write_models(Path())
    text = Path("my.yaml").read_text()
    for long, short in (
        ("facebook/esm2_t12_35M_UR50D", "esm"),
        ("facebook/esm2_t6_8M_UR50D", "t5"),
    ):
        assert long in text
        text = text.replace(long, short)
    Path("my.yaml").write_text(text)
    quick = ["--set=map.epochs=20", "--set=sampler.burn_in=300", "--set=sampler.thinning=5"]
    assert told(monkeypatch, capsys, "run", "my.yaml", "--out", "run", *quick)[0] == 0
    metrics = json.loads(Path("run/metrics.json").read_text())
    assert metrics["student"]["accuracy"] > 0.85
    code, _, _ = call(monkeypatch, capsys, "predict", "run", "new.fasta", "--out", "a.jsonl")
    assert code == 0
    answers = [json.loads(line) for line in Path("a.jsonl").read_text().splitlines()]
    headers = [x for x in Path("new.fasta").read_text().splitlines() if x.startswith(">")]
    right = [a["prediction"] == h.split()[-1] for a, h in zip(answers, headers, strict=True)]
    assert sum(right) >= 10


def test_the_example_is_what_its_script_makes(tmp_path):
    shutil.copy(EXAMPLE / "make.py", tmp_path)
    space = {"__name__": "script", "__file__": str(tmp_path / "make.py")}
    exec((tmp_path / "make.py").read_text(), space)
    space["main"]()
    for name in ("proteins.csv", "new.fasta"):
        assert (tmp_path / name).read_bytes() == (EXAMPLE / name).read_bytes()
