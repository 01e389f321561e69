"""What users hand in by chance: float64, gradients, missing words, labels in any order."""

import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

import mtbkd
from mtbkd.app.config.run import build_config
from mtbkd.app.recipes.base import Task
from mtbkd.app.recipes.digits import RECIPE
from mtbkd.app.run.baselines import baselines
from mtbkd.app.run.scoring import SCORINGS
from mtbkd.data import make_dataset
from mtbkd.estimators import DistilledClassifier
from mtbkd.outputs.aligned import align, make_table
from mtbkd.types import quiet

IDS = tuple(f"x{i}" for i in range(24))
SMALL = {
    "modes": mtbkd.MapSettings(epochs=2, batch_size=12),
    "sampler": mtbkd.SamplerSettings(engine="sghmc", burn_in=4, draws=2, thinning=2),
    "chains": 2,
    "device": "cpu",
}


def numbers(dtype=torch.float32):
    chance = torch.Generator().manual_seed(0)
    return torch.randn(len(IDS), 3, generator=chance).to(dtype)


def teachers(data):
    probs = np.tile([[0.7, 0.3], [0.2, 0.8]], (len(data) // 2, 1))
    tables = [
        make_table(name, probs, kind="probs", ids=data.ids, classes=data.classes)
        for name in ("one", "two")
    ]
    return align(tables, data.ids, data.classes)


def test_double_precision_is_made_single_once():
    data = make_dataset(numbers(torch.float64), classes=["a", "b"], labels=[0, 1] * 12, ids=IDS)
    assert data.inputs.dtype == torch.float32
    network = torch.nn.Linear(3, 2)
    posterior = mtbkd.distill(network, data, teachers(data), **SMALL)
    assert posterior.predict(data.inputs).probs.shape == (24, 2)


def test_half_precision_is_made_single_too():
    assert make_dataset(numbers(torch.float16), classes=["a", "b"]).inputs.dtype == torch.float32


def test_a_number_too_large_for_single_precision_is_refused_by_name():
    inputs = numbers(torch.float64)
    inputs[4, 1] = 1e39
    with pytest.raises(mtbkd.InputError, match=r"NaN or infinity for id 'x4'"):
        make_dataset(inputs, classes=["a", "b"], ids=IDS)


def test_inputs_and_labels_that_require_gradients_are_taken_as_they_are():
    inputs = numbers().requires_grad_()
    targets = torch.randn(24, 1, generator=torch.Generator().manual_seed(1)).requires_grad_()
    data = make_dataset(inputs, classes=["y"], labels=targets, family="regression", ids=IDS)
    assert not data.inputs.requires_grad
    assert not data.labels.requires_grad
    indices = torch.tensor([0.0, 1.0] * 12, requires_grad=True)
    assert make_dataset(inputs, classes=["a", "b"], labels=indices).n_labelled == 24


@pytest.mark.parametrize("word", ["NaN", "nan", "NA", "N/A", "None", "null", "<NA>", ""])
def test_words_that_spell_a_missing_label_are_missing_and_told(word):
    labels = ["a", "b", word, word] * 6
    if word:
        with pytest.warns(UserWarning, match=f"12 labels.*{word!r}"):
            data = make_dataset(numbers(), classes=["a", "b"], labels=labels, ids=IDS)
    else:
        data = make_dataset(numbers(), classes=["a", "b"], labels=labels, ids=IDS)
    assert data.n_labelled == 12


def test_a_class_that_is_named_is_a_class_whatever_it_spells():
    data = make_dataset(numbers(), classes=["NA", "EU"], labels=["NA", "EU"] * 12, ids=IDS)
    assert data.n_labelled == 24


def test_the_classifier_takes_words_that_spell_missing_as_missing():
    y = np.array(["a", "b", "nan", "NA"] * 6)
    student = DistilledClassifier(
        (), chains=2, mode_steps=5, burn_in=4, draws=2, thinning=2, random_state=0
    )
    with pytest.warns(UserWarning, match="12 labels"):
        student.fit(numbers().numpy(), y)
    assert student.classes_.tolist() == ["a", "b"]
    named = student.fit(numbers().numpy(), y, classes=["a", "b", "nan", "NA"])
    assert len(named.classes_) == 4


ORDER = """
from mtbkd.app.recipes.own.columns import classes_of
from mtbkd.app.config.own import OwnConfig
own = OwnConfig.model_construct(family="classification", classes=None)
print(classes_of(own, ["1", "01", "2", "001", "1", "b" * 0]))
"""


def test_the_order_of_classes_does_not_depend_on_the_hash_seed():
    found = {
        subprocess.run(
            [sys.executable, "-c", ORDER],
            env={**os.environ, "PYTHONHASHSEED": str(seed)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in range(2)
    }
    assert found == {"('001', '01', '1', '2')\n"}


def test_the_estimators_keep_the_discount_that_was_chosen(monkeypatch):
    from mtbkd.estimators import fitting

    chosen = fitting.choose_prior

    def discounted(settings, trials):
        return replace(chosen(settings, trials), discount=6.0)

    monkeypatch.setattr(fitting, "choose_prior", discounted)
    student = DistilledClassifier(
        (), chains=2, mode_steps=5, burn_in=4, draws=2, thinning=2, random_state=0
    )
    probs = np.tile([[0.7, 0.3], [0.2, 0.8]], (12, 1))
    student.fit(numbers().numpy(), ["a", "b"] * 12, [probs, probs[::-1]])
    assert student.posterior_.prior.discount == 6.0


def test_the_baseline_of_labels_learns_from_those_there_are_or_is_left_out(tmp_path):
    data = make_dataset(numbers(), classes=["a", "b"], labels=[0, 1] * 12, ids=IDS)
    said = teachers(data)
    train = data.subset(range(12)).without_labels(range(12))
    held = data.subset(range(12, 24))
    posterior = mtbkd.distill(torch.nn.Linear(3, 2), train, said, calibration=held, **SMALL)
    task = Task(
        name="given",
        train=train,
        calibration=held,
        test=held,
        teacher_data=None,
        drawn=lambda _: "",
    )
    config = build_config(RECIPE.defaults, ["map.epochs=1", "chains=2", "calibration=hold"])
    with pytest.warns(UserWarning, match="`labels only` is left out"):
        found = baselines(config, task, said, posterior, tmp_path, quiet)
    rule = posterior.weighting.rule
    others = {"averaged KD", "entropy-weighted KD", f"ensemble on the {rule} pool"}
    assert set(found) == others
    config = build_config(RECIPE.defaults, ["map.epochs=60", "chains=2"])
    found = baselines(config, task, said, posterior, tmp_path / "learns", quiet)
    assert set(found) == {"labels only", *others}
    answer = SCORINGS[held.family].predicted(found["labels only"], held.inputs, None)
    right = answer.argmax(1) == held.labels.numpy()
    assert right.mean() > 0.6  # labels that its own training examples do not have
