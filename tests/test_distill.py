"""The Python interface, as a user calls it."""

import random
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import mtbkd
from mtbkd.distillation.posterior import load_posterior
from mtbkd.explain.influence import by_class, responsibilities
from mtbkd.training import training_set

CLASSES = ("left", "right")
QUICK = {
    "modes": mtbkd.MapSettings(epochs=30),
    "sampler": mtbkd.SamplerSettings(burn_in=60, draws=6, thinning=10, batch_size=400),
    "chains": 2,
}


@pytest.fixture
def scene():
    """Two classes, a good teacher and a useless one, 60 labels and 40 calibration labels."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(240, 2, generator=generator)
    y = (x[:, 0] > 0).long()
    good = torch.stack([-3 * x[:, 0], 3 * x[:, 0]], dim=1)
    noise = 3 * torch.randn(240, 2, generator=generator)
    ids = [f"example-{i}" for i in range(240)]
    known = torch.where(torch.arange(200) < 60, y[:200], -1)
    data = mtbkd.make_dataset(x[:200], labels=known, classes=CLASSES, ids=ids[:200])
    calibration = mtbkd.make_dataset(x[200:], labels=y[200:], classes=CLASSES, ids=ids[200:])

    def teachers(held_out=True):
        tables = [
            mtbkd.make_table(n, v, kind="logits", ids=ids, classes=CLASSES, held_out=held_out)
            for n, v in (("good", good), ("noise", noise))
        ]
        return mtbkd.align(tables, tuple(ids), CLASSES)

    return data, calibration, teachers


def network():
    return torch.nn.Sequential(torch.nn.Linear(2, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))


def test_readme_example_runs(capsys):
    text = (Path(__file__).parent.parent / "README.md").read_text()
    (code,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    names: dict[str, object] = {}
    exec(compile(code, "README.md", "exec"), names)
    answer = names["answer"]
    assert isinstance(answer, mtbkd.Predictive)
    assert answer.probs[0, 1] > 0.9
    assert 0.3 < answer.probs[1, 1] < 0.7
    assert len(capsys.readouterr().out.splitlines()) >= 4


def test_the_good_teacher_is_the_one_that_taught(scene):
    data, calibration, teachers = scene
    posterior = mtbkd.distill(network(), data, teachers(), calibration=calibration, **QUICK)
    assert posterior.weighting.rule == "stacked"
    training = training_set(posterior.student, data, teachers(), posterior.weighting)
    shares, probs = responsibilities(
        posterior.student, posterior.samples, training, posterior.prior
    )
    assert (by_class(shares, probs)[0] > 0.85).all()
    answer = posterior.predict(torch.tensor([[3.0, 0.0], [-3.0, 0.0]]))
    assert answer.probs[0, 1] > 0.9
    assert answer.probs[1, 0] > 0.9


def test_what_is_written_predicts_the_same(scene, tmp_path):
    data, calibration, teachers = scene
    arguments = {"calibration": calibration, "prior": mtbkd.PAPER, **QUICK}
    posterior = mtbkd.distill(network(), data, teachers(), out=tmp_path, **arguments)
    again = load_posterior(network(), tmp_path, data.inputs[:2], CLASSES)
    x = torch.linspace(-2, 2, 10).reshape(5, 2)
    np.testing.assert_array_equal(again.predict(x).probs, posterior.predict(x).probs)
    with pytest.raises(mtbkd.InputError, match="but it holds another"):
        mtbkd.distill(network(), data, teachers(), out=tmp_path, **(arguments | {"seed": 1}))
    fewer = data.without_labels(range(30))
    with pytest.raises(mtbkd.InputError, match="but it holds another"):
        mtbkd.distill(network(), fewer, teachers(), out=tmp_path, **arguments)
    other = torch.nn.Sequential(torch.nn.Linear(2, 9), torch.nn.ReLU(), torch.nn.Linear(9, 2))
    with pytest.raises(mtbkd.InputError, match="its shapes differ"):
        load_posterior(other, tmp_path, data.inputs[:2], CLASSES)


def test_a_seed_decides_everything_and_touches_nothing(scene):
    data, calibration, teachers = scene
    networks = [network() for _ in range(3)]
    before = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].copy()
    first, second, other = (
        mtbkd.distill(net, data, teachers(), calibration=calibration, seed=seed, **QUICK)
        for net, seed in zip(networks, (1, 1, 2), strict=True)
    )
    assert torch.equal(first.samples.segments[0], second.samples.segments[0])
    assert not torch.equal(first.samples.segments[0], other.samples.segments[0])
    assert torch.equal(torch.get_rng_state(), before[0])
    assert random.getstate() == before[1]
    assert (np.random.get_state()[1] == before[2]).all()


def test_a_chain_is_the_same_beside_others(scene):
    data, calibration, teachers = scene
    prior = mtbkd.PriorSettings(concentration=2.0)
    short = mtbkd.SamplerSettings(burn_in=10, draws=2, thinning=5, batch_size=50)
    one, three = (
        mtbkd.distill(
            network(), data, teachers(), calibration=calibration, prior=prior,
            modes=mtbkd.MapSettings(epochs=5), sampler=short, chains=chains,
        ).samples.segments[0]
        for chains in (1, 3)
    )  # fmt: skip
    torch.testing.assert_close(one[0], three[0], atol=1e-3, rtol=1e-3)
    assert (three[0] - three[1]).abs().max() > 0.1


def test_stacking_on_rows_that_teachers_were_trained_on_is_refused(scene):
    data, calibration, teachers = scene
    stacked = mtbkd.PriorSettings(weights="stacked")
    with pytest.raises(mtbkd.InputError, match="no teacher was trained on"):
        mtbkd.distill(network(), data, teachers(held_out=False), prior=stacked, **QUICK)
    posterior = mtbkd.distill(
        network(), data, teachers(held_out=False), calibration=calibration, **QUICK
    )
    assert posterior.weighting.rule == "entropy"


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda d: {"data": d.subset([])}, "one example in the split `data`, but got none"),
        (lambda d: {"calibration": d.subset([])}, "in the split `calibration`, but got none"),
        (lambda d: {"chains": 0}, "chains above 0, but got 0"),
        (lambda d: {"device": "gpu-7"}, "Expected a device of this machine, but got 'gpu-7'"),
        (lambda d: {"network": torch.nn.Linear(2, 3)}, "maps 2 classes, one logit each"),
    ],
)
def test_what_does_not_fit_is_refused(spoil, message, scene):
    data, calibration, teachers = scene
    given = {"network": network(), "data": data, "calibration": calibration, **QUICK}
    with pytest.raises(mtbkd.InputError, match=message):
        mtbkd.distill(**(given | spoil(data)), teachers=teachers())


def test_examples_without_teacher_outputs_are_named(scene):
    data, calibration, teachers = scene
    with pytest.raises(mtbkd.InputError, match="got none for id 'example-200'"):
        mtbkd.distill(network(), data, teachers().at(data.ids), calibration=calibration, **QUICK)


class Counting(torch.nn.Module):
    """A backbone that counts the examples it has seen."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.seen = torch.nn.Linear(2, 4), 0

    def forward(self, x):
        self.seen += len(x)
        return torch.tanh(self.layer(x))


@pytest.mark.parametrize(("epochs", "chains", "draws"), [(2, 1, 2), (20, 3, 12)])
def test_a_frozen_backbone_sees_each_example_once(epochs, chains, draws, scene):
    data, calibration, teachers = scene
    backbone = Counting()
    mtbkd.distill(
        torch.nn.Sequential(backbone, torch.nn.Linear(4, 2)),
        data,
        teachers(),
        calibration=calibration,
        sampled="1.*",
        prior=mtbkd.PriorSettings(concentration=2.0),
        modes=mtbkd.MapSettings(epochs=epochs),
        sampler=mtbkd.SamplerSettings(burn_in=20, draws=draws, thinning=2, batch_size=50),
        chains=chains,
    )
    once = len(data) + len(calibration)
    assert backbone.seen - once <= 8 * 2  # checks of the network and its split on two examples


def test_frozen_features_outlive_a_run_that_was_killed(scene, tmp_path):
    data, calibration, teachers = scene
    backbone = Counting()

    def distilled():
        net = torch.nn.Sequential(backbone, torch.nn.Linear(4, 2))
        return mtbkd.distill(
            net,
            data,
            teachers(),
            calibration=calibration,
            sampled="1.*",
            prior=mtbkd.PriorSettings(concentration=2.0),
            out=tmp_path,
            **QUICK,
        )

    distilled()
    (tmp_path / "modes.safetensors").unlink()
    seen = backbone.seen
    distilled()
    assert backbone.seen - seen <= 8 * 2  # checks of the network and its split on two examples


def test_importing_loads_no_optional_weight():
    heavy = ["sklearn", "pyarrow", "pydantic", "matplotlib", "typer", "rich", "arviz_stats"]
    code = f"import sys, mtbkd; print([m for m in {heavy} if m in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
    assert found.stderr == ""


def flipped(data):
    """The same examples with the other label; a missing one stays missing."""
    labels = torch.where(data.labels >= 0, 1 - data.labels, -1)
    return mtbkd.make_dataset(data.inputs, labels=labels, classes=CLASSES, ids=data.ids)


def test_what_is_auto_is_chosen_by_the_log_score_on_calibration_labels(scene, tmp_path):
    """Teachers that all labels contradict are worth least."""
    data, calibration, teachers = scene
    asked = mtbkd.PriorSettings(weights="uniform", concentration="auto")
    found = {
        name: mtbkd.distill(
            network(),
            learned,
            teachers(),
            calibration=held,
            prior=asked,
            out=tmp_path / name,
            **QUICK,
        ).prior
        for name, learned, held in (
            ("right", data, calibration),
            ("wrong", flipped(data), flipped(calibration)),
        )
    }
    assert (found["wrong"].concentration, found["wrong"].power) == (1.0, 0.2)
    assert found["right"].concentration * found["right"].power > 1.0
    assert len(list((tmp_path / "right" / "choices").iterdir())) == 4 + 4 + 1


def test_by_default_the_power_is_chosen_and_weak_where_labels_contradict_the_teachers(scene):
    data, calibration, teachers = scene
    assert mtbkd.distill(network(), data, teachers(), **QUICK).prior.power == 5.0
    asked = mtbkd.PriorSettings(weights="uniform")
    held = flipped(calibration)
    chosen = mtbkd.distill(
        network(), flipped(data), teachers(), calibration=held, prior=asked, **QUICK
    ).prior
    assert (chosen.concentration, chosen.power) == (1.0, 0.2)
