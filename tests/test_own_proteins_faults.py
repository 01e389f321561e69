"""What may be wrong with proteins of one's own and models for them, and how it is said."""

import json
import shutil
from pathlib import Path

import pytest
import yaml
from own_data import call
from own_proteins_data import (
    ROWS,
    sequences,
    write_fasta,
    write_models,
    write_protein_config,
    write_proteins,
)

from mtbkd.app.config.own_teachers import BackboneTeacher
from mtbkd.app.config.run import build_config
from mtbkd.app.recipes.own.template import TEMPLATE

pytest.importorskip("transformers")
pytest.importorskip("Bio")


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    write_models(folder)
    return folder


@pytest.fixture
def folder(models, tmp_path, monkeypatch):
    monkeypatch.setenv("MTBKD_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    shutil.copytree(models / "esm", tmp_path / "esm")
    write_proteins(tmp_path)
    return tmp_path


@pytest.fixture
def refused(folder, monkeypatch, capsys):
    """Teaches with a configuration, which must be refused; returns the messages."""

    def teach(path):
        code, out, err = call(monkeypatch, capsys, "teach", path, "--out", folder / "run")
        assert (code, out) == (2, "")
        assert "Traceback" not in err
        left = [p.name for p in (folder / "run").rglob("*") if p.is_file()]
        assert left in ([], ["config.yaml"])
        assert not (folder / "cache").exists()
        lines = err.strip().splitlines()
        assert all(line.startswith("mtbkd: ") for line in lines)
        return [line.removeprefix("mtbkd: ") for line in lines]

    return teach


def test_all_faults_of_the_file_and_the_models_are_told_at_once(folder, refused):
    write_proteins(folder, seq_3="MK1L", seq_9="", sticky_5="2x")
    teachers = {"here": {"backbone": "esm"}, "gone": {"backbone": "./gone"}}
    own = {"labels": ["sticky", "odd"], "family": "multilabel", "encoder": "lost"}
    path = write_protein_config(folder, teachers=teachers, **own, group="clan")
    found = refused(path)
    assert [line.split(", but ")[0] for line in found] == [
        f"Expected one-letter residues in {folder}/proteins.csv",
        f"Expected residues in {folder}/proteins.csv",
        f"Expected numbers in column 'sticky' of {folder}/proteins.csv",
        f"Expected a column 'clan' in {folder}/proteins.csv",
        "Expected a folder or a hub id such as facebook/esm2_t6_8M_UR50D",
        "Expected a folder or a hub id such as facebook/esm2_t6_8M_UR50D",
    ]
    assert "got '1' at residue 3 of 'p3'" in found[0]
    assert "the sequence of 'p9' is empty" in found[1]
    assert "'lost'" in found[4]
    assert f"there is nothing at '{folder}/gone'. Correct the path." in found[5]


@pytest.mark.parametrize(
    ("own", "message"),
    [
        ({"sequence": "seqs"}, "Expected a column 'seqs' in "),
        ({"labels": "where"}, "Expected a column 'where' in "),
        ({"id": "name"}, "Expected a column 'name' of ids in "),
        ({"encoder": "nobody/nothing"}, "Expected the model 'nobody/nothing' on disk or from the"),
        ({"examples": "none.csv"}, "none.csv"),
        (
            {"teachers": {"ESM": {"backbone": "esm", "folds": 70}}},
            "Expected labelled training examples of 70 different sequences or more for the folds "
            "of teacher 'ESM', but got 39. Label more, or lower its folds.",
        ),
        (
            {"teachers": {"ESM": {"backbone": "esm", "limit": 999}}},
            "Expected a limit of residues between 2 and 20 for the model",
        ),
        (
            {"teachers": {"a": {"onnx": "a.onnx", "kind": "logits", "classes": ["in", "out"]}}},
            "Expected columns that the ONNX file a.onnx reads, as the student reads proteins, ",
        ),
        (
            {"split": "family"},
            "Expected train, calibration, test in column 'family' of ",
        ),
        (
            {"split": "odd"},
            "Expected labelled training examples of 3 different sequences or more for the folds ",
        ),
        (
            {"group": "odd"},
            "Expected labelled examples of five groups in column 'odd' or more in ",
        ),
    ],
)
def test_faults_of_columns_and_models(own, message, folder, refused):
    if own.get("group"):
        write_proteins(folder, **{f"odd_{i}": f"g{i % 4}" for i in range(ROWS)})
    if own.get("split") == "odd":
        known = {f"place_{i}": "in" for i in range(1, ROWS)}
        parts = {f"odd_{i}": ("calibration", "test")[i % 2] for i in range(1, ROWS)}
        write_proteins(folder, odd_0="train", place_0="", **parts, **known)
        own = own | {"classes": ["in", "out"]}
    found = refused(write_protein_config(folder, **own))
    assert len(found) == 1
    assert message in found[0]


@pytest.mark.parametrize(
    ("own", "message"),
    [
        (
            {"teachers": {"ESM": {"backbone": "esm", "held_out": False}}},
            "Expected beside backbone only the keys device, folds, limit, max_tokens, precision, "
            "but got `own.teachers.ESM.held_out`. Remove it",
        ),
        (
            {"teachers": {"ESM": {"backbone": "esm", "onnx": "a.onnx"}}},
            "base_url, but got onnx and backbone. Say once what the teacher is.",
        ),
        (
            {"teachers": {"ESM": {"backbone": "esm", "folds": 2}}},
            "`own.teachers.ESM.folds` to be greater than or equal to 3",
        ),
        (
            {"family": "regression"},
            "Expected teachers with a backbone for classification or multilabel, but got ESM for "
            "regression. Write a factory or a table instead.",
        ),
        (
            {"sequence": None},
            "Expected a column of sequences for the backbone of ESM, but got none. Name it with "
            "own.sequence.",
        ),
        (
            {
                "sequence": None,
                "encoder": "esm",
                "teachers": {"a": {"table": "a", "kind": "probs"}},
            },
            "Expected a column of sequences for the encoder, but got none.",
        ),
        (
            {"encoder": "esm", "features": ["sticky"]},
            "Expected the student to read an encoder's numbers or numeric features, but got both.",
        ),
        ({"group": "seq"}, "Expected every column in one place, but got 'seq' twice. Remove one."),
    ],
)
def test_configurations(own, message, folder, refused):
    path = write_protein_config(folder, **own)
    assert message in "\n".join(refused(path))
    assert not (folder / "run").exists()


def test_prediction_refuses_what_the_run_cannot_read(folder, monkeypatch, capsys):
    path = write_protein_config(folder, encoder="esm")
    assert call(monkeypatch, capsys, "distill", path, "--out", folder / "run")[0] == 0
    new = write_fasta(folder / "new.fasta", {"one": sequences()[0], "two": "MK*LL"})

    def refused():
        answers = folder / "a.jsonl"
        code, _, err = call(monkeypatch, capsys, "predict", folder / "run", new, "--out", answers)
        assert code == 2
        assert not answers.exists()
        return err

    assert "got an inner stop codon '*' at residue 3 of 'two'" in refused()
    new = folder / "new.csv"
    new.write_text("acc,letters\none,MKLL\n")
    assert f"Expected a column of sequences in {new}, named sequence or seq or" in refused()
    new.write_text("acc,seq\none,MKLL\n")
    config = json.loads((folder / "esm" / "config.json").read_text())
    (folder / "esm" / "config.json").write_text(json.dumps(config | {"note": 1}))
    assert "Expected the encoder 'esm' as it was when the run began, but its files" in refused()
    shutil.rmtree(folder / "esm")
    assert "there is nothing at 'esm'. Correct the path." in refused()


def test_a_run_directory_runs_no_code_but_may_name_models(folder, monkeypatch, capsys):
    path = write_protein_config(folder)
    assert call(monkeypatch, capsys, "teach", path, "--out", folder / "run")[0] == 0
    (folder / "run" / "teachers" / "costs.json").unlink()
    assert call(monkeypatch, capsys, "teach", folder / "run")[0] == 0
    stored = yaml.safe_load((folder / "run" / "config.yaml").read_text())
    assert stored["own"]["teachers"]["ESM"] == {
        "backbone": "esm",
        "device": "auto",
        "precision": "auto",
        "max_tokens": None,
        "limit": None,
        "folds": 3,
    }


def test_what_is_documented_is_a_configuration():
    root = Path(__file__).parent.parent
    page = (root / "docs" / "own_proteins.md").read_text()
    shown = page.split("```yaml\n")[1].split("```")[0]
    config = build_config(yaml.safe_load(shown)).own
    assert config is not None
    assert [type(t) for t in config.teachers.values()] == [BackboneTeacher, BackboneTeacher]
    assert (config.student_encoder, config.group) == ("facebook/esm2_t6_8M_UR50D", "cluster")
    for key in ("folds", "device", "precision", "max_tokens", "limit"):
        assert f"| `{key}` |" in page
    # the template's lines on proteins, without their marks
    text = TEMPLATE
    for key in ("sequence: sequence", "encoder: features", "group: cluster", "esm: {backbone"):
        assert f"# {key}" in text
        text = text.replace(f"# {key}", key)
    config = build_config(yaml.safe_load(text)).own
    assert config is not None
    esm = config.teachers["esm"]
    assert isinstance(esm, BackboneTeacher)
    assert esm.backbone == "facebook/esm2_t33_650M_UR50D"
    assert (config.sequence, config.encoder, config.group) == ("sequence", "features", "cluster")
