"""Language models like some labels whatever they read: removed where that helps, and only there."""

import numpy as np
import torch

from mtbkd.app.recipes.own.mending import BIAS, mend, mended
from mtbkd.data import make_dataset
from mtbkd.outputs.aligned import make_table
from mtbkd.teachers.language.bias import gain, held_out_scores, label_bias, without_bias


def biased(n=400, bias=(2.0, 0.0, -1.0), seed=0):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(n) % 3
    logits = 1.5 * torch.nn.functional.one_hot(labels, 3) + torch.randn(n, 3, generator=generator)
    return logits + torch.tensor(bias), labels


def test_the_bias_is_found_and_removed():
    said, labels = biased()
    log_probs = said.log_softmax(1)
    bias = label_bias(log_probs)
    assert torch.allclose(
        bias - bias.mean(), torch.tensor([5 / 3, -1 / 3, -4 / 3]).double(), atol=0.1
    )
    clean = without_bias(log_probs, bias)
    expected = (said - torch.tensor([2.0, 0.0, -1.0])).log_softmax(1)
    assert (clean - expected).abs().max() < 0.2
    assert gain(log_probs, labels, bias) > 0.2
    fair, labels = biased(bias=(0.0, 0.0, 0.0))
    # a truth that is uneven makes an honest teacher look biased: removing that harms
    some = torch.cat([torch.arange(0, 400, 3), torch.arange(1, 60, 3)])
    uneven, told = fair[some].log_softmax(1), labels[some]
    prior = torch.tensor([0.86, 0.13, 0.01]).log()
    honest = (uneven + prior).log_softmax(1)
    assert gain(honest, told, label_bias(honest)) < 0


def test_scores_are_of_labels_that_did_not_choose_the_temperature():
    said, labels = biased(n=200, bias=(0.0, 0.0, 0.0))
    sharp = 4 * said.log_softmax(1)
    plain = sharp.log_softmax(1)[torch.arange(200), labels]
    found = held_out_scores(sharp, labels)
    assert found.mean() > plain.mean()
    labels[0] = (labels[0] + 1) % 3  # changes the temperature of the other folds at most
    fold = torch.arange(200) % 5 == 0
    assert torch.equal(held_out_scores(sharp, labels)[fold][1:], found[fold][1:])


def table_of(log_probs, name, family="classification", kind="log_probs"):
    n = len(log_probs)
    classes = list("abc")
    return make_table(name, log_probs, kind=kind, ids=[f"r{i}" for i in range(n)],
                      classes=classes, family=family)  # fmt: skip


def test_only_where_it_helps_and_the_same_for_new_rows(tmp_path):
    said, labels = biased()
    fair, _ = biased(bias=(0.0, 0.0, 0.0), seed=1)
    tables = {"liking": table_of(said.log_softmax(1), "liking"), "old": table_of(
        fair.log_softmax(1), "old")}  # fmt: skip
    data = make_dataset(
        np.zeros((400, 1), np.float32), labels=labels.numpy(), classes=list("abc"),
        ids=[f"r{i}" for i in range(400)],
    )  # fmt: skip
    train, calibration = (
        data.subset(range(300)).without_labels(range(300)),
        data.subset(range(300, 400)),
    )
    lines = []
    found = mend(tables, ["liking"], train, calibration, tmp_path, lines.append)
    assert lines[0].startswith("liking: label bias removed, 0.")
    assert found["old"] is tables["old"]
    bias = label_bias(tables["liking"].values[:300])
    assert torch.allclose(found["liking"].values, without_bias(tables["liking"].values, bias))
    again = mended(tables, ["liking"], tmp_path)
    assert torch.allclose(again["liking"].values, found["liking"].values, atol=1e-6)
    assert (tmp_path / BIAS).exists()
    few = calibration.without_labels(range(95))
    assert (
        mend(tables, ["liking"], train, few, tmp_path, lines.append)["liking"] is tables["liking"]
    )


def test_each_label_by_itself(tmp_path):
    generator = torch.Generator().manual_seed(0)
    truth = (torch.rand(300, 3, generator=generator) < torch.tensor([0.5, 0.5, 0.1])).float()
    odds = 3 * (truth - 0.5) + torch.randn(300, 3, generator=generator)
    odds[:, 2] += torch.tensor(0.1).logit()
    odds[:, 0] += 2.0
    table = table_of(odds, "t", "multilabel", "logits")
    data = make_dataset(np.zeros((300, 1), np.float32), labels=truth.numpy(), classes=list("abc"),
                        ids=table.ids, family="multilabel")  # fmt: skip
    parts = data.subset(range(200)), data.subset(range(200, 300))
    found = mend({"t": table}, ["t"], *parts, tmp_path, lambda _: None)["t"]
    moved = (found.values - table.values).abs().amax((0, 2))
    assert moved[0] > 0.5
    assert moved[2] < 1e-5
