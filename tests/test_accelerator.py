"""Everything that runs on an accelerator, run where a mix-up of devices raises.

The same table runs for real where there is an accelerator (``-m gpu``).
"""

from dataclasses import replace

import elsewhere
import numpy as np
import pytest
import torch
from elsewhere import Accelerator, Elsewhere, at_home
from torch import nn

import mtbkd
from mtbkd import MapSettings, PriorSettings, SamplerSettings
from mtbkd.explain.causes import find_causes, make_background
from mtbkd.explain.conformal import class_bound, class_sets
from mtbkd.explain.influence import responsibilities
from mtbkd.explain.outside import see
from mtbkd.inference.chains import chain_generators
from mtbkd.inference.engines import METHODS
from mtbkd.student import make_student
from mtbkd.teachers.labelling.asking import Examples
from mtbkd.teachers.labelling.label import label
from mtbkd.teachers.torch_module import from_torch
from mtbkd.training import training_set

N = 60
IDS = tuple(map(str, range(N)))
CLASSES = ("a", "b", "c")
PLACES = pytest.mark.parametrize(
    "place", ["elsewhere", pytest.param("cuda", marks=pytest.mark.gpu)]
)


@pytest.fixture
def device(place, monkeypatch):
    """Its name; generators of a device that is not there draw on the processor."""
    if place == "cuda":
        if not torch.cuda.is_available():
            pytest.skip("there is no accelerator")
        yield "cuda"
        return
    for module in ("modes", "run"):
        monkeypatch.setattr(
            f"mtbkd.inference.{module}.chain_generators",
            lambda seed, stream, n, _: chain_generators(seed, stream, n, torch.device("cpu")),
        )
    with Accelerator():
        yield str(elsewhere.DEVICE)


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def scene(family):
    """Data with some labels, calibration data, and two teachers, one of which is partial."""
    x = normal(N, 4)
    logits = x @ normal(4, 3, seed=1)
    said = {"ids": IDS, "held_out": True}
    if family == "top":
        best = logits.softmax(-1).topk(2)
        tables = [
            mtbkd.make_top_table(
                name, best.values, best.indices, 1 - best.values.sum(1), kind="probs",
                classes=CLASSES, **said,
            )
            for name in ("one", "two")
        ]  # fmt: skip
        labels = logits.argmax(1)
    elif family == "classification":
        tables = [
            mtbkd.make_table("one", logits, kind="logits", classes=CLASSES, **said),
            mtbkd.make_table(
                "two", logits[:, :2], kind="logits", classes=CLASSES[:2], partial=True, **said
            ),
        ]
        labels = logits.argmax(1)
    elif family == "multilabel":
        tables = [
            mtbkd.make_table(
                name, sign * logits, kind="logits", classes=CLASSES, family=family, **said
            )
            for name, sign in (("one", 1), ("two", -1))
        ]
        labels = (logits > 0).float()
    else:
        tables = [
            mtbkd.make_table(
                "one", logits, kind="mean", classes=CLASSES, family=family,
                variance=torch.full_like(logits, 0.5), **said,
            ),
            mtbkd.make_table("two", -logits, kind="mean", classes=CLASSES, family=family, **said),
        ]  # fmt: skip
        labels = logits
    own = "classification" if family == "top" else family
    data = mtbkd.make_dataset(x, labels=labels, classes=CLASSES, ids=IDS, family=own)
    train = data.subset(np.arange(N // 2)).without_labels(np.arange(0, N // 2, 3))
    calibration = data.subset(np.arange(N // 2, N))
    return train, calibration, mtbkd.align(tables, IDS, CLASSES)


def network(kind, n_outputs=3):
    torch.manual_seed(0)
    first = [nn.Linear(4, 6), nn.ReLU()]
    if kind == "convolution":
        first = [nn.Unflatten(1, (1, 4)), nn.Conv1d(1, 2, 2), nn.ReLU(), nn.Flatten()]
    return nn.Sequential(*first, nn.Linear(6, n_outputs))


def learnt(family, engine="sghmc", kind="dense", device="cpu", sampled="*", **prior):
    train, calibration, teachers = scene(family)
    n_outputs = 6 if family == "regression" else 3
    settings = SamplerSettings(engine, burn_in=6, draws=2, thinning=3, batch_size=10)
    posterior = mtbkd.distill(
        network(kind, n_outputs),
        train,
        teachers,
        calibration=calibration,
        prior=PriorSettings(**{"weights": "uniform", "discount": 0.0, "power": 1.0} | prior),
        modes=MapSettings(epochs=2, batch_size=10),
        sampler=settings,
        chains=2,
        sampled=sampled,
        device=device,
    )
    return posterior, train, calibration, teachers


def same(found, expected, place):
    if place == "cuda":  # another generator, other sums
        return
    for name, value in vars(expected).items():
        np.testing.assert_allclose(getattr(found, name), value, rtol=2e-3, atol=1e-4)


CASES = {
    **{engine: {"family": "classification", "engine": engine} for engine in METHODS},
    "laplace, all parameters": {
        "family": "classification", "engine": "laplace", "kind": "convolution", "sampled": "1.*"
    },
    "convolution": {"family": "classification", "kind": "convolution"},
    "frozen part": {"family": "classification", "sampled": "2.*"},
    "top": {"family": "top"},
    "multilabel": {"family": "multilabel"},
    "regression": {"family": "regression"},
    "chosen numbers": {
        "family": "classification", "power": "auto", "concentration": "auto", "discount": "auto"
    },
    "evidence": {"family": "classification", "power": "auto", "evidence": "disagreement"},
    "entropy weights": {"family": "classification", "weights": "entropy", "discount": 2.0},
    "stacked weights": {"family": "classification", "weights": "stacked"},
    "stacked weights of numbers": {"family": "regression", "weights": "stacked"},
}  # fmt: skip


@PLACES
@pytest.mark.filterwarnings("ignore:The network does more after")
@pytest.mark.parametrize("case", CASES)
def test_distilled_and_asked_there(case, place, device):
    posterior, train, calibration, teachers = learnt(**CASES[case], device=device)
    assert posterior.student.prior_mean.device.type == torch.device(device).type
    assert isinstance(posterior.student.prior_mean, Elsewhere) is (place == "elsewhere")
    inputs = calibration.inputs.to(device)
    found = posterior.predict(inputs)
    with at_home():
        expected = learnt(**CASES[case])[0].predict(calibration.inputs)
    same(found, expected, place)
    training = training_set(
        posterior.student, train, teachers, posterior.weighting, units=posterior.units
    )
    shares, _ = responsibilities(posterior.student, posterior.samples, training, posterior.prior)
    assert shares.shape[:2] == (2, len(train))
    if posterior.family == "classification":
        assert found.probs.shape == (len(calibration), 3)
        bound = class_bound(found.probs, calibration.labels.numpy(), 0.9)
        assert class_sets(found.probs, bound).any(1).all()
        paper = posterior.predict(inputs, point="mode")
        assert np.isfinite(paper.probs).all()
    background = make_background(
        posterior,
        train,
        calibration,
        teachers,
        answers=posterior.predict(calibration.inputs),
        level=0.9,
        seed=0,
    )
    causes = find_causes(background, see(posterior, posterior.student.features(inputs)), found)
    assert len(causes.flags) == len(calibration)


@PLACES
def test_data_that_are_there_already(place, device):
    """Inputs, labels and what teachers say may all be handed in on the device."""
    train, calibration, teachers = scene("classification")
    on = [
        replace(data, inputs=data.inputs.to(device), labels=data.labels.to(device))
        for data in (train, calibration)
    ]
    moved = replace(
        teachers,
        values=teachers.values.to(device),
        mask=teachers.mask.to(device),
        blocks=teachers.blocks.to(device),
    )
    settings = {
        "modes": MapSettings(epochs=2),
        "sampler": SamplerSettings("sghmc", burn_in=5, draws=2, thinning=2, batch_size=10),
        "prior": PriorSettings(weights="stacked", power=1.0, discount=0.0),
        "chains": 2,
        "device": device,
    }
    found = mtbkd.distill(network("dense"), on[0], moved, calibration=on[1], **settings)
    expected = mtbkd.distill(network("dense"), train, teachers, calibration=calibration, **settings)
    inputs = on[1].inputs
    same(found.predict(inputs), expected.predict(calibration.inputs), place)


@PLACES
def test_a_teacher_answers_there(place, device, tmp_path):
    inputs = normal(N, 4)
    examples = Examples(IDS, lambda start, stop: inputs[start:stop])
    tables = []
    for where in ("cpu", device):
        teacher = from_torch("net", network("dense"), classes=CLASSES, device=where, batch_size=7)
        folder = tmp_path / str(len(tables))
        tables.append(label(teacher, examples, folder, shard_rows=25, batch_size=10))
        assert tables[-1].values.device.type == "cpu"
    torch.testing.assert_close(tables[1].values, tables[0].values)


@PLACES
def test_a_mix_up_of_devices_raises(place, device):
    there = torch.ones(3, device=device)
    with pytest.raises(RuntimeError, match="all tensors to be on the same device"):
        there + torch.ones(3)
    with pytest.raises(TypeError, match="numpy"):
        there.numpy()
    with at_home():
        student = make_student(network("dense"))
        features = normal(5, 4)
    position = torch.zeros(student.n_parameters, device=device)
    with pytest.raises(RuntimeError, match="all tensors to be on the same device"):
        student.to(torch.device(device)).logits(position, features)
