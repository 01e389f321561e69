"""A folder goes on with what was begun there, and with nothing else."""

import json
from dataclasses import replace

import pytest
import torch
from torch import nn

import mtbkd

CLASSES, N = ("left", "right"), 60
SETTINGS = {
    "prior": mtbkd.PriorSettings(concentration=2.0, power=3.0, discount=0.0, weights="uniform"),
    "modes": mtbkd.MapSettings(epochs=1),
    "sampler": mtbkd.SamplerSettings(engine="sghmc", burn_in=2, draws=2, thinning=1, batch_size=20),
    "chains": 2,
}


class Scaled(nn.Module):
    """Says nothing of its factor in its representation."""

    def __init__(self, factor):
        super().__init__()
        self.factor = factor

    def forward(self, x):
        return self.factor * x


def network(*between, width=4, bias=True):
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(2, width), *(between or (nn.ReLU(),)), nn.Linear(width, 2, bias=bias)
    )


def data(name="example", classes=CLASSES, n=N, shift=0.0):
    x = torch.randn(n, 2, generator=torch.Generator().manual_seed(n))
    labels = (x[:, 0] > 0).long()
    ids = [f"{name}-{i}" for i in range(n)]
    return mtbkd.make_dataset(x + shift, labels=labels, classes=classes, ids=ids)


def said(names=("ann", "bob"), sharp=2.0, held_out=True, classes=CLASSES, silent=()):
    everyone = [data(classes=classes), data("calibration", classes, 30)]
    tables = []
    for k, name in enumerate(names):
        ids = [i for part in everyone for i in part.ids if i not in silent]
        rows = [row for part in everyone for i, row in zip(part.ids, part.inputs, strict=True)]
        keys = [i for part in everyone for i in part.ids]
        rows = torch.stack([r for r, i in zip(rows, keys, strict=True) if i not in silent])
        logits = torch.stack([-sharp * rows[:, 0], (sharp + k) * rows[:, 0]], 1)
        tables.append(
            mtbkd.make_table(
                name, logits, kind="logits", ids=ids, classes=classes, held_out=held_out
            )
        )
    ids = tuple(i for part in everyone for i in part.ids)
    return mtbkd.align(tables, ids, classes, missing="mask")


def ask(out, net=None, own=None, teachers=None, **changes):
    arguments = SETTINGS | {"calibration": data("calibration", n=30)} | changes
    told = said() if teachers is None else teachers or None
    return mtbkd.distill(net or network(), own or data(), told, out=out, **arguments)


@pytest.fixture(scope="module")
def begun(tmp_path_factory):
    out = tmp_path_factory.mktemp("begun")
    ask(out)
    return out


OTHERS = ("left", "up")
CHANGES = {
    "Tanh": ("network", lambda: {"net": network(nn.Tanh())}),
    "leaky": ("network", lambda: {"net": network(nn.LeakyReLU(1e-9))}),
    "GELU": ("network", lambda: {"net": network(nn.GELU())}),
    "no activation": ("network", lambda: {"net": network(nn.Identity())}),
    "wider": ("network", lambda: {"net": network(width=5)}),
    "no bias": ("network", lambda: {"net": network(bias=False)}),
    "frozen first layer": ("network", lambda: {"sampled": "2.*"}),
    "names of teachers": ("teachers", lambda: {"teachers": said(("ann", "cat"))}),
    "order of teachers": ("teachers", lambda: {"teachers": said(("bob", "ann"))}),
    "held out": ("teachers", lambda: {"teachers": said(held_out=False)}),
    "what they say": ("teachers", lambda: {"teachers": said(sharp=2.1)}),
    "where they speak": ("teachers", lambda: {"teachers": said(silent=("example-3",))}),
    "no teachers": ("settings, teachers", lambda: {"teachers": False}),
    "rule": ("settings", lambda: {"prior": replace(SETTINGS["prior"], weights="entropy")}),
    "power": ("settings", lambda: {"prior": replace(SETTINGS["prior"], power=4.0)}),
    "epochs": ("settings", lambda: {"modes": mtbkd.MapSettings(epochs=2)}),
    "engine": ("settings", lambda: {"sampler": replace(SETTINGS["sampler"], engine="sgld")}),
    "step size": ("settings", lambda: {"sampler": replace(SETTINGS["sampler"], step_size=1e-3)}),
    "chains": ("settings", lambda: {"chains": 3}),
    "seed": ("settings", lambda: {"seed": 1}),
    "weight scale": ("settings, network", lambda: {"weight_scale": 2.0}),
    "inputs": ("data", lambda: {"own": data(shift=1e-6)}),
    "other calibration": (
        "calibration",
        lambda: {"calibration": data("calibration", n=30, shift=0.1)},
    ),
    "no calibration": ("calibration", lambda: {"calibration": None}),
    "classes": (
        "teachers, data, calibration",
        lambda: {
            "own": data(classes=OTHERS),
            "teachers": said(classes=OTHERS),
            "calibration": data("calibration", OTHERS, 30),
        },
    ),
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_decides_the_answer_is_not_exchanged(change, begun):
    differing, make = CHANGES[change]
    before = {p: p.read_bytes() for p in begun.rglob("*") if p.is_file()}
    with pytest.raises(mtbkd.InputError, match=f"what differs: {differing}. Choose another"):
        ask(begun, **make())
    assert {p: p.read_bytes() for p in begun.rglob("*") if p.is_file()} == before


def test_code_that_says_nothing_of_itself_is_tried_on_two_examples(tmp_path):
    ask(tmp_path, network(Scaled(1.0)))
    with pytest.raises(mtbkd.InputError, match="what differs: network"):
        ask(tmp_path, network(Scaled(1.01)))
    ask(tmp_path, network(Scaled(1.0)))


def test_the_same_goes_on(begun):
    before = {p: p.read_bytes() for p in begun.rglob("*") if p.is_file()}
    ask(begun)
    assert {p: p.read_bytes() for p in begun.rglob("*") if p.is_file()} == before
    asked = json.loads((begun / "request.json").read_text())
    assert set(asked) == {
        *("settings", "network", "teachers", "data", "calibration", "outputs", "own_sha256")
    }
