"""Inputs beside the test set, from a recipe's task to its report."""

import json
from dataclasses import replace

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.numpy import load_file
from sklearn.metrics import roc_auc_score
from torch import nn

from mtbkd.app.config.run import build_config
from mtbkd.app.recipes import digits
from mtbkd.app.recipes.base import Recipe, Task
from mtbkd.app.run import commands as run
from mtbkd.app.run import report_data as show
from mtbkd.app.run import stages
from mtbkd.app.run.others import PARTS, judge_others, of_examples, told_apart
from mtbkd.data import make_dataset
from mtbkd.outputs.aligned import align, make_table
from mtbkd.predictive import LabelPredictive, NumberPredictive, Predictive
from mtbkd.types import InputError

CLASSES = ("left", "right", "above")
CENTRES = 3.0 * np.array([[-1.0, 0.0], [1.0, 0.0], [0.0, 2.0]])


class Enlarge(nn.Module):
    """A frozen first layer that keeps the number of features."""

    def __init__(self):
        super().__init__()
        self.register_buffer("by", torch.tensor(0.5))

    def forward(self, x):
        return self.by * x


def load(config, folder, report=None):
    del config, folder
    chance = np.random.default_rng(0)
    labels = np.arange(360) % 3
    x = CENTRES[labels] + chance.standard_normal((360, 2))
    ids = [f"p{i}" for i in range(360)]
    every = make_dataset(x, labels=labels, classes=CLASSES, ids=ids)
    between = 0.5 * chance.standard_normal((60, 2)) + CENTRES.mean(0)
    splits = [every.subset(range(a, b)) for a, b in ((0, 150), (150, 210), (210, 360))]
    others = {"in between": make_dataset(between, classes=CLASSES)}
    return Task("toy", *splits, None, lambda row: f"<code>{row}</code>", others, "side")


def teach(config, task, report=None):
    del config
    inputs = torch.cat([task.train.inputs, task.calibration.inputs, task.test.inputs]).double()
    logits = -0.5 * torch.cdist(inputs, torch.from_numpy(CENTRES)).square().numpy()
    tables = [
        make_table(name, factor * logits, kind="logits", ids=task.ids, classes=CLASSES)
        for name, factor in (("sharp", 1.0), ("soft", 0.5))
    ]
    return align(tables, task.ids, CLASSES), {}


def network(config, example, n_classes):
    del config
    return nn.Sequential(Enlarge(), nn.Linear(example.shape[-1], n_classes))


DEFAULTS = {
    "recipe": "digits", "baselines": "none", "chains": 2,
    "student": {"hidden": [], "weight_scale": 2.0},
    "map": {"epochs": 20},
    "sampler": {"burn_in": 60, "draws": 8, "thinning": 5, "batch_size": 150},
}  # fmt: skip


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """A finished run and its metrics."""
    out = tmp_path_factory.mktemp("toy") / "run"
    recipe = Recipe("digits", "toy", "nothing", DEFAULTS, load, network, teach)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(digits, "RECIPE", recipe)
        metrics = run.run(build_config(DEFAULTS), out)
        config = build_config(DEFAULTS)
        task = load(config, out)
        posterior = stages.recall(recipe, config, task.train.inputs[:2], CLASSES, out)
    return out, metrics, task, posterior


def test_auroc_tells_the_others_from_the_test_set(done):
    out, metrics, _, _ = done
    found = metrics["student"]["others"]["in between"]
    stored = load_file(out / "evaluation.safetensors")
    table = pq.read_table(out / "predictions.parquet")
    assert found["n"] == 60
    assert found["auroc_total"] > 0.8
    for part in PARTS:
        usual, unusual = table[part].to_numpy(), stored[f"other.in between.{part}"]
        assert unusual.shape == (60,)
        which = np.repeat([0, 1], [len(usual), len(unusual)])
        auroc = roc_auc_score(which, np.concatenate([usual, unusual]))
        assert found[f"auroc_{part}"] == pytest.approx(auroc)
    assert json.loads((out / "metrics.json").read_text())["student"]["others"] == {
        "in between": found
    }


def test_others_pass_the_frozen_part_once(done):
    out, _, task, posterior = done
    assert posterior.student.frozen is not None
    inputs = task.others["in between"].inputs
    stored = load_file(out / "evaluation.safetensors")["other.in between.total"]
    np.testing.assert_allclose(stored, posterior.predict(inputs).total, rtol=1e-5)
    behind, head = stages.on_features(task, posterior, out)
    np.testing.assert_allclose(
        head.predict(behind.others["in between"].inputs).total, stored, rtol=1e-5
    )


def test_the_report_speaks_of_sides_and_draws_the_others(done):
    out, metrics, _, _ = done
    text = (out / "report.html").read_text()
    auroc = metrics["student"]["others"]["in between"]["auroc_total"]
    assert "<h2>Side by side</h2>" in text
    assert "Against the test set: in between" in text
    assert f"Total: AUROC {auroc:.2f}" in text
    assert "in between (60)</text>" in text
    assert "in 3 sides, seed 0" in text


def test_no_others_no_numbers(done):
    _, _, task, posterior = done
    config = build_config(DEFAULTS)
    bare = replace(task, others={})
    answer = posterior.predict(task.test.inputs)
    assert judge_others(config, bare, posterior, answer) == ({}, {})


def test_empty_others_are_refused(tmp_path, done):
    _, _, task, _ = done
    empty = replace(task, others={"far away": task.others["in between"].subset([])})
    recipe = Recipe("digits", "toy", "nothing", DEFAULTS, lambda *_: empty, network, teach)
    with pytest.raises(InputError, match="at least one example in the split `far away`"):
        stages.load(recipe, build_config(DEFAULTS), tmp_path)


def test_the_report_takes_each_part_for_what_it_is():
    stored = {f"other.far.{part}": np.full(2, i) for i, part in enumerate(PARTS)}
    other = show._other("far", stored)
    assert (other.total[0], other.aleatoric[0], other.epistemic[0]) == (0, 1, 2)


def test_others_and_test_set_change_places():
    chance = np.random.default_rng(0)
    usual, unusual = chance.integers(0, 9, 50) / 9, chance.integers(3, 12, 70) / 9
    which = np.repeat([0, 1], [50, 70])
    expected = roc_auc_score(which, np.concatenate([usual, unusual]))
    assert told_apart(usual, unusual) == pytest.approx(expected)
    assert told_apart(unusual, usual) == pytest.approx(1 - expected)
    assert expected > 0.7
    assert told_apart(usual, usual[:0]) is None


def test_uncertainty_of_whole_examples():
    two = np.array([[0.5, 0.25], [0.1, 0.2]])
    one = of_examples(Predictive(two, two[:, 0], two[:, 1], two, two, two[:, 1], 0.9), None)
    np.testing.assert_allclose(one["total"], [0.5, 0.1])
    np.testing.assert_allclose(one["epistemic"], [0.25, 0.0])
    np.testing.assert_allclose(one["second"], [0.25, 0.2])
    labels = of_examples(LabelPredictive(two, two, 0.5 * two, two, two, 0.9), None)
    np.testing.assert_allclose(labels["total"], [0.75, 0.3])
    np.testing.assert_allclose(labels["epistemic"], [0.375, 0.15])
    numbers = NumberPredictive(two, two, 3 * two, two, two, two, two, 0.9)
    found = of_examples(numbers, np.array([1.0, 2.0]))
    np.testing.assert_allclose(found["total"], [4 * (0.5 + 0.25 / 4), 4 * (0.1 + 0.2 / 4)])
