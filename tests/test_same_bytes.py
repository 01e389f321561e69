"""The command line and Python: the same posterior of the same seed, byte for byte."""

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from own_data import CLASSES, FAST, call, points, write_csv, write_module
from torch import nn

import mtbkd

MINE = """
from math import prod
from torch import nn

def net(shape, n_outputs):
    first = nn.Linear(prod(shape), 4)
    return nn.Sequential(nn.Flatten(), first, nn.Tanh(), nn.Linear(4, n_outputs))
"""
NUMBERS, LABEL = points()
IMAGES = np.random.default_rng(0).integers(0, 255, (len(LABEL), 4, 4), dtype=np.uint8)
IMAGES[np.arange(len(LABEL)), LABEL] = 255  # a row of each picture tells its class
IDS = [f"e{i}" for i in range(len(LABEL))]
PARTS = {"train": range(20), "calibration": range(20, 40), "test": range(40, 60)}
SAID = {"sure": 0.8 * np.eye(3)[LABEL] + 0.2 / 3, "unsure": 0.3 * np.eye(3)[LABEL] + 0.7 / 3}


def write_rows(kind, folder):
    """A file of examples; returns its name, and how a configuration says what is read of it."""
    split = [name for name, rows in PARTS.items() for _ in rows]
    if kind == "images":
        names = [CLASSES[label] for label in LABEL]
        np.savez(folder / "rows.npz", id=IDS, pixels=IMAGES, label=names, split=split)
        return "rows.npz", {"image": "pixels"}
    cells = zip(IDS, NUMBERS.tolist(), LABEL, split, strict=True)
    rows = [[i, *map(repr, x), CLASSES[label], part] for i, x, label, part in cells]
    write_csv(folder / "rows.csv", ["id", "x1", "x2", "label", "split"], rows)
    return "rows.csv", {}


def inputs(kind):
    """What the student reads of them: bytes, or numbers in deviations of the training rows."""
    if kind == "images":
        return IMAGES[:, None]
    x = torch.tensor(NUMBERS, dtype=torch.float32)
    known = x[list(PARTS["train"])].double()
    return (x - known.mean(0).float()) / known.std(0, correction=0).float()


def by_command(kind, folder, monkeypatch, capsys):
    examples, reads = write_rows(kind, folder)
    for name, probs in SAID.items():
        rows = [[i, *map(repr, row)] for i, row in zip(IDS, probs.tolist(), strict=True)]
        write_csv(folder / f"{name}.csv", ["id", *CLASSES], rows)
    module = write_module(folder, f"mine_{kind}", MINE)
    own = {
        "examples": examples,
        "labels": "label",
        "split": "split",
        "teachers": {name: {"table": f"{name}.csv", "kind": "probs"} for name in SAID},
        **reads,
    }
    values = FAST | {
        "seed": 1,
        "student": {"network": f"{module}:net"},
        "calibration": "learn",
        "own": own,
    }
    (folder / "my.yaml").write_text(yaml.safe_dump(values))
    out = folder / "command"
    code, _, told = call(monkeypatch, capsys, "distill", folder / "my.yaml", "--out", out)
    assert code == 0, told
    answers = folder / "answers.parquet"
    arguments = ("predict", out, folder / examples, "--out", answers, "--network", f"{module}:net")
    monkeypatch.chdir(folder)
    code, _, told = call(monkeypatch, capsys, *arguments)
    assert code == 0, told
    return out, pq.read_table(answers)


def by_python(kind, folder):
    x = inputs(kind)
    every = mtbkd.make_dataset(x, labels=LABEL, classes=CLASSES, ids=IDS)
    tables = [
        mtbkd.make_table(name, probs, kind="probs", ids=IDS, classes=CLASSES)
        for name, probs in SAID.items()
    ]
    n = x[0].size if kind == "images" else x[0].numel()
    train, calibration, _ = (every.subset(rows) for rows in PARTS.values())
    sampler = mtbkd.SamplerSettings(**FAST["sampler"])
    posterior = mtbkd.distill(
        nn.Sequential(nn.Flatten(), nn.Linear(n, 4), nn.Tanh(), nn.Linear(4, 3)),
        train,
        mtbkd.align(tables, IDS, tuple(CLASSES)),
        calibration=calibration,
        learn_calibration=True,
        modes=mtbkd.MapSettings(**FAST["map"]),
        sampler=sampler,
        chains=FAST["chains"],
        weight_scale=2.0,  # as configurations of one's own data have it
        seed=1,
    )
    return posterior, posterior.save(folder / "python")


@pytest.mark.parametrize("kind", ["numbers", "images"])
def test_the_same_bytes_from_the_command_line_and_from_python(kind, tmp_path, monkeypatch, capsys):
    run, answers = by_command(kind, tmp_path, monkeypatch, capsys)
    posterior, saved = by_python(kind, tmp_path)
    made = {path.relative_to(run): path for path in run.rglob("*") if path.is_file()}
    both = {name: (path, saved / name) for name, path in made.items() if (saved / name).exists()}
    differ = {str(name) for name, (a, b) in both.items() if a.read_bytes() != b.read_bytes()}
    assert differ == {"config.yaml", "teachers/costs.json"}  # how it was asked, and seconds
    expected = {"samples/draws-0000.safetensors", "samples/manifest.json", "modes.safetensors"}
    expected |= {"weights.json", "student.safetensors", "background.safetensors"}
    assert expected <= {str(name) for name in both}

    found = np.stack([answers[f"prob.{name}"].to_numpy() for name in CLASSES], 1)
    said = posterior.predict(inputs(kind)).probs
    np.testing.assert_array_equal(found, said.astype(found.dtype))
