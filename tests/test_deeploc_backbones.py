"""The recipe that makes its teachers from protein language models, from end to end."""

import csv
import json
import random
import shlex
import sys
from dataclasses import replace

import pytest
import torch
from tiny_backbones import write_esm, write_t5

from mtbkd.app import cli
from mtbkd.app.config.run import build_config
from mtbkd.app.recipes.deeploc import backbones as recipe
from mtbkd.app.recipes.deeploc.shared import LOCATIONS as CLASSES
from mtbkd.inputs.proteins import backbone as backbones
from mtbkd.inputs.proteins.alphabet import RESIDUES
from mtbkd.outputs.store import load_outputs
from mtbkd.types import InputError

pytest.importorskip("transformers")

N_TRAIN, N_TEST = 60, 20


def protein(label, chance):
    """Residues of which a fifth is typical of the class."""
    typical = RESIDUES[2 * label : 2 * label + 2]
    return "".join(
        chance.choice(typical if chance.random() < 0.5 else RESIDUES)
        for _ in range(chance.randint(5, 40))
    )


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    """The files of the paper, small, and three tiny models."""
    root, chance = tmp_path_factory.mktemp("backbones"), random.Random(0)
    folder = root / "data" / "deeploc2_mtbkd"
    folder.mkdir(parents=True)
    for name, n, start in [
        ("data_our_train_sample.csv", N_TRAIN, 0),
        ("data_our_test.csv", N_TEST, N_TRAIN),
    ]:
        with (folder / name).open("w", newline="") as file:
            rows = csv.writer(file)
            rows.writerow(["ACC", "Sequence", "Label", "Partition"])
            for i in range(start, start + n):
                rows.writerow([f"P{i:03d}", protein(i % 3, chance), i % 3, i % 5])
    write_esm(root / "large", hidden_size=32)
    write_t5(root / "t5")
    write_esm(root / "small", seed=1)
    return root


@pytest.fixture
def calls(monkeypatch, tmp_path):
    """A cache of its own, and the names of the models that were loaded."""
    monkeypatch.setenv("MTBKD_CACHE", str(tmp_path / "cache"))
    loaded, load = [], backbones._load

    def counted(model):
        loaded.append(model.name.rpartition("/")[2])
        return load(model)

    monkeypatch.setattr(backbones, "_load", counted)
    return loaded


def settings(places):
    return [
        f"data={places / 'data'}",
        f"backbones.teachers.ESM-2 650M={places / 'large'}",
        f"backbones.teachers.ProtT5={places / 't5'}",
        f"backbones.student={places / 'small'}",
        "backbones.folds=3",
        "map.epochs=2",
        "sampler.burn_in=10",
        "sampler.draws=4",
        "sampler.thinning=2",
        "chains=2",
        "baselines=none",
        "device=cpu",
    ]


def call(monkeypatch, capsys, *arguments):
    monkeypatch.setattr(sys, "argv", ["mtbkd", *map(str, arguments)])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    return stop.value.code or 0, capsys.readouterr()


def test_a_run_makes_teachers_and_predicts(places, calls, tmp_path, monkeypatch, capsys):
    given = [word for each in settings(places) for word in ("--set", each)]
    out, new = tmp_path / "run", tmp_path / "new.fasta"
    assert call(monkeypatch, capsys, "teach", "deeploc-backbones", "--out", out, *given)[0] == 0
    assert sorted(calls) == ["large", "small", "t5"]
    said = load_outputs(out / "teachers")
    assert said.held_out
    assert said.values.shape == (2, N_TRAIN + N_TEST, len(CLASSES))
    calls.clear()
    code, printed = call(monkeypatch, capsys, "run", "deeploc-backbones", "--out", out, *given)
    assert code == 0, printed.err
    again = call(
        monkeypatch, capsys, "run", "deeploc-backbones", "--out", tmp_path / "again", *given
    )
    assert again[0] == 0
    assert not calls  # neither run asked a model, as all features were kept
    costs = json.loads((out / "teachers" / "costs.json").read_text())
    assert costs["ProtT5"]["parameters"] > 1000
    first, second = (
        json.loads((folder / "metrics.json").read_text())["teachers"]
        for folder in (out, tmp_path / "again")
    )
    assert first == second
    new.write_text(">one new protein\nMKKLLF\nAIPLVV\n>two\nMSKL\n")
    code, printed = call(monkeypatch, capsys, "predict", out, new, "--out", tmp_path / "a.jsonl")
    assert code == 0, printed.err
    assert calls == ["small"]
    rows = [json.loads(line) for line in (tmp_path / "a.jsonl").read_text().splitlines()]
    assert [row["id"] for row in rows] == ["one", "two"]
    assert sum(rows[0][f"prob.{c}"] for c in CLASSES) == pytest.approx(1)


def test_teachers_answer_for_proteins_they_have_not_seen(places, calls, tmp_path):
    config = build_config(recipe.RECIPE.defaults, settings(places))
    task = recipe.load(config, tmp_path / "features")
    assert (len(task.train), len(task.calibration), len(task.test)) == (48, 12, 20)
    first, _ = recipe.teach(config, task)
    labels = task.train.labels.clone()
    generator = torch.Generator().manual_seed(0)
    shuffled = labels[torch.randperm(len(labels), generator=generator)]
    noise = replace(task, train=replace(task.train, labels=shuffled))
    chance, _ = recipe.teach(config, noise)
    right = (chance.values[:, :48].argmax(-1) == shuffled).double().mean(1)
    assert (right < 0.55).all()  # a third, and three standard errors; over 0.9 of rows seen
    good = (first.values[:, :48].argmax(-1) == labels).double().mean(1)
    assert (good > 0.6).all()


def test_another_student_model_is_not_mistaken_for_the_first(places, calls, tmp_path):
    config = build_config(recipe.RECIPE.defaults, settings(places))
    recipe.load(config, tmp_path / "features")
    other = build_config(
        recipe.RECIPE.defaults, [*settings(places), f"backbones.student={places / 't5'}"]
    )
    new = tmp_path / "new.csv"
    new.write_text("id,Sequence\na,MKV\n")
    assert recipe.read_as(config, tmp_path / "features", new)[0] == ("a",)
    with pytest.raises(InputError, match="language model that this run began with"):
        recipe.read_as(other, tmp_path / "features", new)


def test_without_a_connection_one_line_says_so(places, calls, tmp_path, monkeypatch, capsys):
    import huggingface_hub as hub

    def offline(*_, **__):
        raise hub.errors.LocalEntryNotFoundError("Cannot reach the hub.")

    monkeypatch.setattr(hub, "snapshot_download", offline)
    code, printed = call(
        monkeypatch, capsys, "run", "deeploc-backbones", "--out", tmp_path / "run",
        "--set", f"data={places / 'data'}",
    )  # fmt: skip
    assert code == 2
    told = " ".join(printed.err.split())
    assert "Expected the model 'facebook/esm2_t6_8M_UR50D' on disk or from the hub" in told
    assert "Cannot reach the hub. Check the id and the network" in told
    assert "Traceback" not in told


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("backbones.folds=1", "`backbones.folds`"),
        ("backbones.teachers={}", "one teacher or more"),
        ("backbones.precision=int8", "`backbones.precision`"),
        ("backbones=null", "Expected the section `backbones`"),
    ],
)
def test_faulty_sections_are_refused(change, message):
    with pytest.raises(InputError, match=message):
        build_config(recipe.RECIPE.defaults, [change])


def test_the_section_is_kept_and_belongs_to_its_recipe(places):
    config = build_config(recipe.RECIPE.defaults, settings(places))
    assert "small" in config.to_yaml()
    from mtbkd.app.recipes import digits

    plain = build_config(digits.RECIPE.defaults)
    assert "backbones" not in plain.to_yaml()
    with pytest.raises(InputError, match="with no other, but got recipe 'digits'"):
        build_config(digits.RECIPE.defaults | {"backbones": recipe.RECIPE.defaults["backbones"]})


def test_the_report_says_how_to_make_the_run_again(places):
    from mtbkd.app.run.report_data import _command

    teachers = json.dumps({"A's": str(places / "t5"), "B 2": "some/model"})
    given = [each for each in settings(places) if "teachers" not in each]
    config = build_config(recipe.RECIPE.defaults, [*given, f"backbones.teachers={teachers}"])
    words = shlex.split(_command(config))
    assert words[:5] == ["mtbkd", "run", "deeploc-backbones", "--seed", "0"]
    assert build_config(recipe.RECIPE.defaults, words[6::2]) == config
