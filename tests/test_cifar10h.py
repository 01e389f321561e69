"""The recipe of images: people are a teacher of counts, in three scenarios."""

import json

import numpy as np
import pytest
import torch
from own_data import call

from mtbkd.app.config.run import build_config
from mtbkd.app.recipes import cifar10h
from mtbkd.outputs.store import load_outputs

N = 90
FAST = {
    "student.hidden": "[4]",
    "map.epochs": 1,
    "sampler.burn_in": 3,
    "sampler.draws": 4,
    "sampler.thinning": 1,
    "chains": 2,
    "prior.power": 5.0,
    "prior.discount": 0.0,
    "baselines": "none",
}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Ninety images in place of ten thousand, and 12 votes on each."""
    for name, n in (("_TRANSFER", 50), ("_LABELLED", 20), ("_CALIBRATION", 20)):
        monkeypatch.setattr(cifar10h, name, n)
    place, chance = tmp_path / "cifar10h", np.random.default_rng(0)
    place.mkdir()
    labels = np.arange(N) % 10
    images = chance.integers(0, 256, (N, 32, 32, 3), dtype=np.uint8)
    shares = np.where(labels[:, None] == np.arange(10), 0.82, 0.02)
    np.savez(place / "images.npz", images=images, labels=labels)
    np.save(place / "cifar10h-counts.npy", chance.multinomial(12, shares))
    np.save(place / "teacher_cnn_probs.npy", shares.astype(np.float32))
    return tmp_path


def teachers(folder, scenario):
    config = build_config(cifar10h.RECIPE.defaults | {"data": str(folder), "scenario": scenario})
    task = cifar10h.load(config, folder)
    return cifar10h.teach(config, task)[0], task


def test_votes_are_counts_in_every_scenario(folder):
    every, task = teachers(folder, None)
    few, _ = teachers(folder, "three votes")
    half, _ = teachers(folder, "half the images")
    assert every.names == ("people", "network")
    for said in (every, few, half):
        assert said.totals[1].isinf().all()
    prior = every.totals[0, 0] - 12
    assert every.totals[0].eq(12 + prior).all()
    assert bool(((few.totals[0] >= 3) & (few.totals[0] < 13)).all())
    assert half.mask[0].float().mean() == 0.5
    assert half.totals[0][half.mask[0]].isfinite().all()
    assert task.spread.shape == (N - 70,)


@pytest.mark.slow
def test_both_students_run(folder, monkeypatch, capsys):
    def features(pixels, report):
        return pixels.float().mean((2, 3)).repeat(1, 40)

    monkeypatch.setattr(cifar10h, "lite0_features", features)
    overrides = [part for k, v in FAST.items() for part in ("--set", f"{k}={v}")]
    data = ("--set", f"data={folder}", "--set", "budget=null")
    head = ("--set", "student.kind=encoder", "--set", "student.augment=null")
    for out, own in (("cnn", ()), ("encoder", head)):
        target = folder / out
        code, _, error = call(
            monkeypatch, capsys, "run", "cifar10h", "--out", target, *data, *overrides, *own
        )
        assert code == 0, error
        found = json.loads((target / "metrics.json").read_text())
        assert "spread_correlation" in found["student"]
        assert torch.isinf(load_outputs(target / "teachers").totals).any()
    told = ("--out", folder / "no", "--set", "student.kind=encoder")
    code, _, error = call(monkeypatch, capsys, "run", "cifar10h", *data, *told)
    assert code == 2
    assert "Remove student.augment" in error


def test_files_that_are_not_there_are_named(tmp_path, monkeypatch, capsys):
    data = ("--set", f"data={tmp_path}")
    code, _, error = call(monkeypatch, capsys, "run", "cifar10h", "--out", tmp_path / "r", *data)
    assert code == 2
    assert "images.npz, cifar10h-counts.npy, teacher_cnn_probs.npy is missing" in error
    assert "mtbkd data get cifar10h" in error
