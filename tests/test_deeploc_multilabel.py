"""All of DeepLoc 2.0 with several labels: partitions, experts and thresholds."""

import json
import sys

import numpy as np
import pytest
import torch

from mtbkd import metrics
from mtbkd.app import cli
from mtbkd.app.config.run import build_config
from mtbkd.app.recipes.deeploc import multilabel as recipe
from mtbkd.app.recipes.deeploc import shared as shared
from mtbkd.app.recipes.deeploc.partitions import PartitionProteins
from mtbkd.app.recipes.deeploc.shared import LOCATIONS as CLASSES
from mtbkd.inputs.proteins import composition, experts
from mtbkd.types import InputError

SETTINGS = [
    *("--set", "scenario=tiny"),
    *("--set", "map.epochs=2"),
    *("--set", "sampler.burn_in=10"),
    *("--set", "sampler.draws=4"),
    *("--set", "sampler.thinning=2"),
    *("--set", "chains=2"),
]


@pytest.fixture(scope="module")
def config(data_folder):
    return build_config(recipe.RECIPE.defaults, [f"data={data_folder}", "scenario=tiny"])


@pytest.fixture(scope="module")
def task(config, tmp_path_factory):
    return recipe.load(config, tmp_path_factory.mktemp("features"))


def sequences(n, length=90, seed=0):
    letters = np.array(list("ACDEFGHIKLMNPQRSTVWY"))
    chance = np.random.default_rng(seed)
    return ["".join(chance.choice(letters, length)) for _ in range(n)]


def proteins(n=60):
    chance = np.random.default_rng(1)
    labels = (chance.random((n, len(CLASSES))) < 0.3).astype(np.float32)
    ids = tuple(f"p{i}" for i in range(n))
    return PartitionProteins(ids, tuple(sequences(n)), labels, np.arange(n) % 5)


def test_all_proteins_are_split_by_partition(data_folder, monkeypatch, tmp_path):
    config = build_config(recipe.RECIPE.defaults, [f"data={data_folder}"])
    monkeypatch.setattr(shared, "sequence_features", lambda s: np.zeros((len(s), 2), np.float32))
    task = recipe.load(config, tmp_path)
    assert (len(task.train), len(task.calibration), len(task.test)) == (17145, 5696, 5462)
    partition = dict(zip(task.teacher_data.ids, task.teacher_data.partitions, strict=True))
    assert {partition[i] for i in task.train.ids} == {0, 1, 2}
    assert {partition[i] for i in task.calibration.ids} == {3}
    assert {partition[i] for i in task.test.ids} == {4}
    labels = torch.cat([task.train.labels, task.calibration.labels, task.test.labels])
    assert labels.sum(0)[[0, 9]].tolist() == [9870, 304]
    assert labels.sum(1).min() == 1
    assert labels.sum(1).max() == 5


def test_features_are_computed_once(config, task, tmp_path, monkeypatch):
    first = recipe.load(config, tmp_path)
    monkeypatch.setattr(shared, "sequence_features", lambda _: pytest.fail("computed again"))
    assert torch.equal(recipe.load(config, tmp_path).train.inputs, first.train.inputs)
    assert torch.equal(first.test.inputs, task.test.inputs)


def test_no_teacher_answers_for_a_partition_that_it_was_trained_on(task, config, monkeypatch):
    known, partitions = task.teacher_data.ids, task.teacher_data.partitions
    taught = []

    def teachers(proteins, effort):
        def train(rows, seed):
            model = len(taught)
            taught.append(set(partitions[rows]))
            return lambda asked: np.full((len(asked), len(CLASSES)), 0.1 * (model + 1)), 1.0

        return {"one": train}

    monkeypatch.setattr(recipe, "_teachers", teachers)
    outputs, _ = recipe.teach(config, task)
    assert taught == [{1, 2}, {0, 2}, {0, 1}]
    assert outputs.held_out
    yes = dict(zip(outputs.ids, outputs.values[0, :, :, 1].exp().numpy(), strict=True))
    for name, partition in zip(known, partitions, strict=True):
        # the only model that has not seen it, or the mean of all three
        expected = 0.1 * (partition + 1) if partition < 3 else 0.2
        np.testing.assert_allclose(yes[name], expected, rtol=1e-5)


@pytest.mark.parametrize("name", ["first 60 residues", "last 60 residues", "whole chain"])
def test_an_expert_sees_its_part_alone(name):
    shown = proteins()
    rows = np.arange(len(shown.ids))
    other = sequences(len(shown.ids), seed=9)
    beyond, before = (
        tuple(f"{s[:60]}{o}" for s, o in zip(shown.sequences, other, strict=True)),
        tuple(f"{o}{s[-60:]}" for s, o in zip(shown.sequences, other, strict=True)),
    )
    answers = []
    for changed in (shown.sequences, beyond, before):
        train = recipe._teachers(shown._replace(sequences=changed), recipe.Effort(1, 1, 5))[name]
        answers.append(train(rows, 3)[0](rows))
    same = [np.array_equal(answers[0], each) for each in answers[1:]]
    assert same == [name.startswith("first"), name.startswith("last")]


def test_an_end_expert_knows_the_order_of_residues():
    assert experts.last(["MKVA"], 3)[0].tolist() == experts.first(["AVK"], 3)[0].tolist()
    assert [len(p) for p in experts.both_ends(["M" * 9, "M" * 11], 10)] == [9, 10]
    middle = experts.both_ends(["AAAAACCCCCWWWWW"], 10)[0].tolist()
    assert middle == experts.first(["AAAAAWWWWW"], 10)[0].tolist()


@pytest.mark.parametrize(
    "build", [lambda: experts.EndExpert(3, 60), lambda: experts.ChainExpert(3)]
)
def test_what_an_expert_says_does_not_depend_on_its_batch(build):
    torch.manual_seed(0)
    model = build()
    pieces = experts.first([*sequences(5, 57), *sequences(4, 23)], 60)
    together = experts.probabilities(model, pieces, np.arange(9))
    alone = np.concatenate([experts.probabilities(model, pieces, np.array([i])) for i in range(9)])
    np.testing.assert_allclose(together, alone, atol=1e-6)


def test_a_chain_expert_learns_a_motif_and_leaves_the_global_generator_alone():
    chains = sequences(400, 120)
    chains[::2] = [f"{s[:40]}WWHWW{s[45:]}" for s in chains[::2]]
    labels = np.zeros((400, 1), np.float32)
    labels[::2] = 1
    pieces, how = experts.both_ends(chains, 1000), {"epochs": 6, "batch_size": 16}
    before = torch.random.get_rng_state()
    found = []
    for _ in range(2):
        model = experts.school(
            lambda: experts.ChainExpert(1), pieces, labels, np.arange(300), 1, **how
        )
        found.append(experts.probabilities(model, pieces, np.arange(300, 400)))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert np.array_equal(*found)
    assert ((found[0] > 0.5) == (labels[300:] == 1)).mean() > 0.95


def test_trees_see_the_composition_alone():
    shares = composition.shares(["AACD", "DCAA", "AA", "XX"])
    np.testing.assert_array_equal(shares[0], shares[1])
    assert shares[2].max() == 1
    assert shares[3].sum() == 0
    labels = np.tile(np.array([[1, 0, 1]], np.float32), (50, 1))
    labels[::2, 0] = 0
    many = composition.shares([("AAC" if i % 2 else "CCA") * 5 for i in range(50)])
    trees = composition.boost(many, labels, 20, 0)
    found = composition.probabilities(trees, many)
    assert ((found > 0.5) == (labels == 1)).all()
    assert found[:, 1].max() == 0
    assert composition.size(trees) > 0


@pytest.mark.slow
def test_a_tiny_run_is_judged_and_predicts_new_proteins(data_folder, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("MTBKD_DATA", str(data_folder))
    out, fasta = tmp_path / "run", tmp_path / "new.fasta"
    fasta.write_text(">one first protein\nMKKLLF\nAIPLVV\n>two\nMSKL\n")
    for arguments in (
        ["run", "deeploc-multilabel", "--out", str(out), *SETTINGS],
        ["predict", str(out), str(fasta), "--out", str(tmp_path / "a.jsonl")],
    ):
        monkeypatch.setattr(sys, "argv", ["mtbkd", *arguments])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        assert not stop.value.code
    assert "micro" in capsys.readouterr().out
    rows = [json.loads(line) for line in (tmp_path / "a.jsonl").read_text().splitlines()]
    assert [row["id"] for row in rows] == ["one", "two"]
    assert all(0 <= rows[0][f"prob.{c}"] <= 1 for c in CLASSES)
    assert "Peroxisome" in (out / "report.html").read_text()
    found = json.loads((out / "metrics.json").read_text())
    everyone = [*found["teachers"].values(), *found["baselines"].values()]
    for scores in [*everyone, found["teacher_pool"], found["student"]]:
        assert set(scores["tuned"]) == {"accuracy", "f1_micro", "f1_macro", "jaccard"}
        assert tuple(scores["by_label"]) == CLASSES
        assert all(0 <= v["ece"] <= 1 for v in scores["by_label"].values())
    own = found["student"]["by_label"]
    thresholds = {c: v["threshold"] for c, v in own.items()}
    for label in own.values():
        assert label["total"] == pytest.approx(label["aleatoric"] + label["epistemic"], abs=1e-6)
    check_thresholds(out, data_folder, found, thresholds)


def check_thresholds(out, data_folder, found, thresholds):
    """They are the best on calibration answers without the labels, and scores are on the test."""
    from mtbkd.app.folder import read_run
    from mtbkd.app.run import baselines, stages
    from mtbkd.app.run.calibration import on_calibration
    from mtbkd.app.run.scoring_shared import mean_probs
    from mtbkd.observation import BINARY

    config = read_run(out)
    task = recipe.load(config, out / "features")
    teachers, _ = stages.teach(recipe.RECIPE, config, task, out)
    posterior = stages.recall(recipe.RECIPE, config, task.train.inputs[:2], CLASSES, out)
    labels = task.calibration.labels.numpy()
    assert len(list((out / "cross_fit").iterdir())) == 1  # one partition, left out as a whole
    said = on_calibration(config, task, teachers, posterior, out)[0].probs
    best = metrics.best_thresholds(said, labels)
    np.testing.assert_allclose(list(thresholds.values()), best, atol=1e-6)
    assert np.abs(said - posterior.predict(task.calibration.inputs).probs).max() > 0.01
    for name, rival in baselines.baselines(config, task, teachers, posterior, out, None).items():
        assert len(rival.held.segments[0]) == len(rival.samples.segments[0])
        assert not torch.equal(rival.held.segments[0], rival.samples.segments[0])
        before = mean_probs(rival._replace(samples=rival.held), task.calibration.inputs, BINARY)
        own = [v["threshold"] for v in found["baselines"][name]["by_label"].values()]
        np.testing.assert_allclose(own, metrics.best_thresholds(before, labels), atol=1e-6)
    said, labels = posterior.predict(task.test.inputs).probs, task.test.labels.numpy()
    tuned = metrics.label_scores(said, labels, best)
    for name, value in found["student"]["tuned"].items():
        assert value == pytest.approx(tuned[name], abs=1e-6)
    mcc = [label["mcc"] for label in found["student"]["by_label"].values()]
    np.testing.assert_allclose(mcc, metrics.mcc_by_label(said, labels, best), atol=1e-6)


def test_missing_files_and_unknown_locations_are_named(tmp_path):
    import gzip

    config = build_config(recipe.RECIPE.defaults, [f"data={tmp_path}"])
    with pytest.raises(InputError, match=r"partition0.csv.gz is missing \(5 such\)"):
        recipe.load(config, tmp_path)
    folder = tmp_path / "deeploc2_full"
    folder.mkdir()
    text = "accession,sequence,label,partition\nP1,MKV,Nucleus|Moon,0\n"
    for part in range(5):
        (folder / f"partition{part}.csv.gz").write_bytes(gzip.compress(text.encode()))
    with pytest.raises(InputError, match="but got 'Moon' for protein 'P1'"):
        recipe.load(config, tmp_path)
    (folder / "partition1.csv.gz").write_bytes(gzip.compress(b"accession,label\nP1,Nucleus\n"))
    with pytest.raises(InputError, match="a column 'sequence' in .*partition1"):
        recipe.load(config, tmp_path)
    (folder / "partition2.csv.gz").write_bytes(b"no such thing")
    (folder / "partition1.csv.gz").write_bytes(gzip.compress(text.encode()))
    with pytest.raises(InputError, match=r"proteins in .*partition2.csv.gz, but it cannot be read"):
        recipe.load(config, tmp_path)
